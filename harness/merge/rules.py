"""A recipe's rules against tensors: which decides, with which weights, and that none is without effect."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping
from typing import NamedTuple

from mote.harness.errors import MoteError, nearest
from mote.harness.merge.experts import Experts, ranked_experts
from mote.harness.merge.groups import Place
from mote.harness.merge.schema import Linear, MergeRecipe, Ranked, Rule, Threshold

Weights = tuple[float, ...]
"""One weight a parent, in the recipe's order; they add up to 1."""


class Decision(NamedTuple):
    """What goes into a tensor: ``rule`` is the number of the rule, -1 where none fits."""

    rule: int
    weights: Weights
    threshold: Threshold | None = None


class _Matcher(NamedTuple):
    groups: frozenset[str] | None
    layers: frozenset[int] | None
    experts: frozenset[tuple[int, int]] | None
    pattern: re.Pattern[str] | None


class Rules:
    """The rules of a recipe for a model of so many layers. ``experts[i]`` are those that rule i names, or None."""

    def __init__(self, recipe: MergeRecipe, layers: int) -> None:
        self._recipe = recipe
        self._layers = layers
        self._parents = list(recipe.parents)
        self._base = self._parents.index(recipe.base)
        self.experts = [_experts_of(rule) for rule in recipe.rules]
        self._matchers = [_matcher(rule, named) for rule, named in zip(recipe.rules, self.experts, strict=True)]
        self._decided: dict[tuple[int, int | None], Decision] = {}
        self._used: set[int] = set()
        self.base_only = Decision(-1, tuple(float(i == self._base) for i in range(len(self._parents))))

    def decide(self, name: str, place: Place, expert: int | None) -> Decision:
        """Return the decision of the first rule that fits a tensor (or one expert of a fused one)."""
        for number, (groups, layers, experts, pattern) in enumerate(self._matchers):
            if groups is not None and place.group not in groups:
                continue
            if layers is not None and place.layer not in layers:
                continue
            if experts is not None:
                pair = (place.layer if place.layer is not None else -1, -1 if expert is None else expert)
                if pair not in experts or place.group not in ("routed_experts", "mtp"):
                    continue
            if pattern is not None and not pattern.search(name):
                continue
            self._used.add(number)
            return self._decision(number, place)
        return self.base_only

    def check(self, tensors: Mapping[str, Place], pairs: Collection[tuple[int, int]], tied: bool) -> None:
        """Raise MoteError for a rule that decided nothing, with why, or that names experts not among ``pairs``."""
        for number, matcher in enumerate(self._matchers):
            missing = sorted(set(matcher.experts or ()).difference(pairs))
            if missing:
                raise MoteError(f"rules.{number}.experts: the base has no routed expert {missing[0]}.")
            if number not in self._used:
                raise MoteError(f"rules.{number} decides no tensor: {self._reason(matcher, tensors, tied)}")

    def _decision(self, number: int, place: Place) -> Decision:
        rule = self._recipe.rules[number]
        key = (number, place.layer)
        found = self._decided.get(key)
        if found is None:
            threshold = None if rule.keep else rule.threshold or self._recipe.threshold
            found = Decision(number, self._weights(number, rule, place.layer), threshold)
            self._decided[key] = found
        return found

    def _weights(self, number: int, rule: Rule, layer: int | None) -> Weights:
        shares = dict.fromkeys(self._parents, 0.0)
        for name, weight in (rule.weights or {}).items():
            if isinstance(weight, Linear):
                if layer is None:
                    raise MoteError(
                        f"rules.{number}.weights.{name} goes over layers, and the rule fits tensors outside of them"
                        " (embeddings, head, last norm): give them a rule of their own before it."
                    )
                way = min(layer / max(self._layers - 1, 1), 1.0)
                weight = weight.first + (weight.last - weight.first) * way
            # Weights are float32 numbers, as the arithmetic has them: 0.3 is 0.300000012.
            shares[name] = float(struct.unpack("f", struct.pack("f", weight))[0])
        others = sum(share for name, share in shares.items() if name != self._recipe.base)
        shares[self._recipe.base] = max(1.0 - others, 0.0) if 1.0 - others > 1e-9 else 0.0
        return tuple(shares.values())

    def _reason(self, matcher: _Matcher, tensors: Mapping[str, Place], tied: bool) -> str:
        groups = sorted({place.group for place in tensors.values()})
        if matcher.groups is not None and not matcher.groups & set(groups):
            if "head" in matcher.groups and tied:
                return "the head is tied to the embeddings; name the group embeddings."
            return f"the base has no tensor of {', '.join(sorted(matcher.groups))}. Its groups: {', '.join(groups)}."
        layers = sorted({place.layer for place in tensors.values() if place.layer is not None})
        if matcher.layers is not None and not matcher.layers & set(layers):
            return f"the base has the layers {layers[0]} to {layers[-1]}."
        if matcher.pattern is not None and not any(matcher.pattern.search(name) for name in tensors):
            return f"no name fits the pattern '{matcher.pattern.pattern}'.{nearest(matcher.pattern.pattern, tensors)}"
        return "a rule before it takes all that it fits, or its conditions never hold together."


def _experts_of(rule: Rule) -> Experts | None:
    if rule.experts is None:
        return None
    return ranked_experts(rule.experts) if isinstance(rule.experts, Ranked) else list(rule.experts)


def _matcher(rule: Rule, experts: Experts | None) -> _Matcher:
    return _Matcher(
        None if rule.groups is None or "all" in rule.groups else frozenset(rule.groups),
        rule.layer_set,
        None if experts is None else frozenset(experts),
        None if rule.pattern is None else re.compile(rule.pattern),
    )
