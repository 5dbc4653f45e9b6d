"""The edit of one token, written a second time in plain Python from the definition: the reference of all tests.

Deliberately slow and without arrays: it shares no line and no idea of implementation with the code it judges
(``mote.patches.edit``). The tests put it into Hugging Face models; ``mote.patches.verify`` runs it where the user is.
"""

from __future__ import annotations

from collections.abc import Mapping

Action = tuple[str, float]


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
