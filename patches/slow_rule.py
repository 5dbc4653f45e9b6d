"""The edits of one token, written a second time in plain Python from the definition: the reference of all tests.

Deliberately slow and without arrays: it shares no line and no idea of implementation with the code it judges
(``mote.patches.edit`` after the router's choice, ``mote.patches.choice`` before it and for the weights of a
route's experts). The tests put it into Hugging Face
models; ``mote.patches.verify`` runs it where the user is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

Action = tuple[str, float]
MARGIN = 0.01


class Rule(NamedTuple):
    """How a router chooses and weighs.

    Attributes:
        top_k: experts that a token takes.
        renormalize: whether the weights of the chosen are divided by their sum.
        scoring: ``softmax`` or ``sigmoid``, what makes scores of logits.
        correction: what the model adds to the scores to choose by, for each expert; None if it chooses by the scores.
        groups: into which the experts are divided, one after the other, of equal size.
        kept: groups that a token chooses from: by the sum of their two best scores with a correction, by their best
            without.
        scaling: factor of the weights.
    """

    top_k: int
    renormalize: bool = True
    scoring: str = "softmax"
    correction: tuple[float, ...] | None = None
    groups: int = 1
    kept: int = 1
    scaling: float = 1.0


def slow_rule(weights: list[float], ids: list[int], edits: Mapping[int, Action]) -> dict[int, float]:
    """Return {expert: weight} of one token after the edits ``{expert: (action, factor)}`` of its layer."""
    original = dict(zip(ids, weights, strict=True))
    total = sum(weights)
    largest = max(weights)
    result: dict[int, float] = {}
    for expert, weight in original.items():
        action, factor = edits.get(expert, ("none", 1.0))
        if action == "suppress":
            result[expert] = 0.0
        elif action == "stimulate":
            result[expert] = largest
        else:
            result[expert] = weight * factor
    may_leave = [expert for expert in original if edits.get(expert, ("none", 1.0))[0] != "stimulate"]
    # First to leave: suppressed, then light, then high number.
    may_leave.sort(key=lambda e: (edits.get(e, ("none", 1.0))[0] != "suppress", original[e], -e))
    for expert in sorted(expert for expert, (action, _) in edits.items() if action == "stimulate"):
        if expert in original or not may_leave:
            continue
        del result[may_leave.pop(0)]
        result[expert] = largest
    now = sum(result.values())
    if now == 0:
        return result
    return {expert: weight * total / now for expert, weight in result.items()}


def slow_choice(logits: list[float], rule: Rule, edits: Mapping[int, Action]) -> dict[int, float]:
    """Return {expert: weight} of one token whose router chooses after ``{expert: (action, factor)}`` of its layer.

    Without a correction the logits are edited, and both choice and weights follow from them. With one, the corrected
    scores are edited, and the weights are the scores that the untouched model gives to those that are chosen.
    """
    if rule.correction is None:
        scores = _scores(_changed(logits, edits, far=False), rule.scoring)
        choice, best = scores, 1
    else:
        scores = _scores(logits, rule.scoring)
        corrected = [score + more for score, more in zip(scores, rule.correction, strict=True)]
        choice, best = _changed(corrected, edits, far=True), 2
    size = len(logits) // rule.groups
    members = [list(range(start, start + size)) for start in range(0, len(logits), size)]
    if rule.groups > 1:
        members.sort(key=lambda group: -sum(sorted(choice[expert] for expert in group)[-best:]))
        members = members[: rule.kept]
    candidates = [expert for group in members for expert in group]
    chosen = sorted(candidates, key=lambda expert: (-choice[expert], expert))[: rule.top_k]
    return _weighed(scores, rule, chosen)


def slow_weights(logits: list[float], rule: Rule, ids: list[int]) -> dict[int, float]:
    """Return {expert: weight} of one token that takes these experts, weighed by its own router's scores."""
    return _weighed(_scores(logits, rule.scoring), rule, ids)


def _weighed(scores: list[float], rule: Rule, ids: list[int]) -> dict[int, float]:
    total = sum(scores[expert] for expert in ids) if rule.renormalize else 1.0
    return {expert: scores[expert] / total * rule.scaling for expert in ids}


def _changed(scores: list[float], edits: Mapping[int, Action], far: bool) -> list[float]:
    """Return the scores after the edits; where ``far``, an activated expert is high enough to bring its group in."""
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / max(len(scores) - 1, 1))
    moved = list(scores)
    for expert, (action, factor) in edits.items():
        if action == "bias":
            moved[expert] += factor
        elif action == "nudge":
            moved[expert] += factor * deviation
    highest, lowest = max(moved), min(moved)
    result = list(moved)
    for expert, (action, _) in edits.items():
        if action == "activate":
            result[expert] = 2 * highest - lowest + 2 * MARGIN if far else highest + MARGIN
        elif action == "deactivate":
            result[expert] = lowest - MARGIN
    return result


def _scores(logits: list[float], scoring: str) -> list[float]:
    if scoring == "sigmoid":
        return [1 / (1 + math.exp(-logit)) for logit in logits]
    largest = max(logits)
    raised = [math.exp(logit - largest) for logit in logits]
    return [each / sum(raised) for each in raised]
