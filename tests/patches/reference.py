"""The independent reference: a Hugging Face model whose routers' output is rewritten by the slow rule.

It shares nothing with the patch: not the engine, not the batching, not the arithmetic. One forward pass over a prompt
and its continuation says, for every position, which token a greedy engine must have chosen, which experts the routers
chose, and what each edit did.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mote.patches import ModelLayout, Profile, Route
from mote.patches.slow_rule import Action, Rule, slow_choice, slow_rule, slow_weights

ALWAYS = ("MixtralForCausalLM", "GptOssForCausalLM", "GraniteMoeForCausalLM")
"""Families whose weights are renormalised, whatever their configuration says."""


class Expected(NamedTuple):
    """What the reference says about one request.

    ``logits`` [positions, vocabulary]; ``chosen`` [positions, layers, k], with their
    ``weights``; ``scores`` [positions, layers, experts], the routers' logits; ``sums`` maps (layer, expert) to
    [selected, entered, weight before, weight after, left]. ``taken`` [positions, layers] is {expert: weight} as it was
    applied, and ``forced`` counts (token, layer) pairs that took a route's experts, and those whose router had chosen
    others.
    """

    logits: NDArray[np.float32]
    chosen: NDArray[np.int64]
    weights: NDArray[np.float64]
    scores: NDArray[np.float64]
    sums: dict[tuple[int, int], list[float]]
    taken: list[list[dict[int, float]]]
    forced: tuple[int, int]

    def counts(self, layout: ModelLayout, start: int, stop: int) -> NDArray[np.int32]:
        counts = np.zeros((len(layout.layers), layout.experts), np.int32)
        for position in range(start, stop):
            for row in range(len(layout.layers)):
                for expert, times in Counter(self.chosen[position, row].tolist()).items():
                    counts[row, expert] += times
        return counts


class Reference:
    """A Hugging Face model in float32, edited token by token."""

    def __init__(self, folder: Path) -> None:
        import transformers

        self.layout = ModelLayout.from_config(folder)
        # By the class's own family: a checkpoint's model_type may be one that only vLLM knows (Kimi-K2), and vLLM then
        # writes that into the configuration's class.
        known: Any = getattr(transformers, self.layout.architecture)
        config = known.config_class.from_pretrained(folder)
        config.model_type = known.__module__.split(".")[2]
        # vLLM multiplies the layer's output by this factor, Hugging Face the weights.
        self.config = json.loads((folder / "config.json").read_text())
        self.scale = float(self.config.get("routed_scaling_factor") or 1.0)
        self.model = known.from_pretrained(
            folder, config=config, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def rule(self, router: Any) -> Rule:
        """How a router of this family chooses, by its configuration and its own correction bias."""
        config = self.config
        architecture = self.layout.architecture
        correction = getattr(router, "e_score_correction_bias", None)
        grouped = correction is not None or config.get("topk_method") == "group_limited_greedy"
        return Rule(
            self.layout.top_k,
            architecture in ALWAYS or (bool(config.get("norm_topk_prob")) and "DeepseekV2" not in architecture),
            "softmax" if correction is None else "sigmoid",
            None if correction is None else tuple(correction.tolist()),
            config["n_group"] if grouped else 1,
            config["topk_group"] if grouped else 1,
            self.scale,
        )

    def run(self, tokens: list[int], prompt: int, profile: Profile, route: Route | None = None) -> Expected:
        """Run over ``tokens``, of which the first ``prompt`` are the prompt, under ``profile`` and a ``route``."""
        pairs = forced_pairs(route, prompt, self.scale)
        changed = 0
        taken: dict[int, list[dict[int, float]]] = {number: [] for number in self.layout.layers}
        edits: dict[int, dict[int, Action]] = {}
        for edit in profile.edits:
            edits.setdefault(edit.layer, {})[edit.expert] = (edit.action, edit.factor)
        sums: dict[tuple[int, int], list[float]] = {(e.layer, e.expert): [0.0] * 5 for e in profile.edits}
        chosen: dict[int, list[list[int]]] = {}
        weighed: dict[int, list[list[float]]] = {}
        scored: dict[int, list[list[float]]] = {}
        hooks = []
        for number in self.layout.layers:
            block = self.model.model.layers[number]
            block = getattr(block, "mlp", None) or block.block_sparse_moe
            router = getattr(block, "gate", None) or block.router

            rule = self.rule(router)

            def rewrite(_module: Any, _args: Any, output: Any, layer: int = number, rule: Rule = rule) -> Any:
                ids_first = not output[0].is_floating_point()  # Granite's order
                logits, weights, ids = output[::-1] if ids_first else output
                new_weights, new_ids = weights.clone(), ids.clone()
                chosen[layer], weighed[layer], scored[layer] = ids.tolist(), weights.tolist(), logits.tolist()
                nonlocal changed
                for position in range(len(ids)):
                    before = dict(zip(ids[position].tolist(), weights[position].tolist(), strict=True))
                    taken[layer].append(before)
                    if (position, layer) in pairs:
                        experts, given = pairs[position, layer]
                        after = given or slow_weights(logits[position].tolist(), rule, experts)
                        changed += set(experts) != set(before)
                        taken[layer][position] = after
                        new_ids[position] = torch.tensor(list(after))
                        new_weights[position] = torch.tensor(list(after.values()))
                        continue
                    if not applies(profile.tokens, position, prompt):
                        continue
                    if profile.before_choice:
                        after = before
                        if layer in edits:
                            after = slow_choice(logits[position].tolist(), rule, edits[layer])
                    else:
                        after = slow_rule(list(before.values()), list(before), edits.get(layer, {}))
                    taken[layer][position] = after
                    new_ids[position] = torch.tensor(list(after))
                    new_weights[position] = torch.tensor(list(after.values()))
                    for expert in edits.get(layer, {}):
                        sums[layer, expert][0] += expert in before
                        sums[layer, expert][1] += expert in after and expert not in before
                        sums[layer, expert][2] += before.get(expert, 0.0)
                        sums[layer, expert][3] += after.get(expert, 0.0)
                        if profile.before_choice:
                            sums[layer, expert][4] += expert in before and expert not in after
                return (new_ids, new_weights, logits) if ids_first else (logits, new_weights, new_ids)

            hooks.append(router.register_forward_hook(rewrite))
        try:
            with torch.no_grad():
                logits = self.model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
        finally:
            for hook in hooks:
                hook.remove()
        order = np.array([chosen[layer] for layer in self.layout.layers]).transpose(1, 0, 2)
        weights = np.array([weighed[layer] for layer in self.layout.layers]).transpose(1, 0, 2)
        scores = np.array([scored[layer] for layer in self.layout.layers]).transpose(1, 0, 2)
        applied = [[taken[layer][position] for layer in self.layout.layers] for position in range(len(tokens))]
        forced = sum(position < len(tokens) for position, _ in pairs), changed
        return Expected(logits, order, weights, scores, sums, applied, forced)


def forced_pairs(
    route: Route | None, prompt: int, scale: float
) -> dict[tuple[int, int], tuple[list[int], dict[int, float] | None]]:
    """Return (position, layer) -> experts, and their weights where the route keeps them."""
    pairs: dict[tuple[int, int], tuple[list[int], dict[int, float] | None]] = {}
    for token in range(0 if route is None else route.tokens):
        assert route is not None
        for place, layer in enumerate(route.layers):
            experts = route.ids[token, place].tolist()
            given = None
            if route.weights is not None:
                given = {e: w * scale for e, w in zip(experts, route.weights[token, place].tolist(), strict=True)}
            position = prompt - route.prompt + token
            if route.align == "role" and token < route.prompt:
                position = route.at[token]
            pairs[position, layer] = experts, given
    return pairs


def applies(phase: str, position: int, prompt: int) -> bool:
    return phase == "all" or (phase == "prompt") == (position < prompt)
