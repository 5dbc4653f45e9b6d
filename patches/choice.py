"""The edit before the choice: what a profile does to the scores by which a router chooses.

The rule, for one token of one layer, whose router has a score for every expert:

1. ``bias`` adds its factor to the expert's score, ``nudge`` its factor times the standard deviation of the token's own
   scores (n - 1 in the denominator).
2. Of the scores after that, h is the highest, l the lowest. An activated expert's score becomes h + 0.01, a deactivated
   one's l - 0.01.
3. The model's own rule chooses and weighs.

Which scores, and what the weights follow from, is the model's own division of labour:

- A router without a correction bias chooses by its logits and weighs by them (Qwen3-MoE, OLMoE, Mixtral, gpt-oss,
  DeepSeek-V2, Granite). The logits are edited, and the weights follow from the edited logits. Softmax does not change
  when all logits move by the same amount, so this is SteerMoE's rule (arXiv 2509.09660), which edits the logarithms of
  the softmax, in exact arithmetic. EasySteer's "soft" is ``nudge``.
- A router with a correction bias chooses by corrected scores and weighs by the scores without it (GLM4-MoE,
  DeepSeek-V3, Kimi-K2). The corrected scores are edited, and the weights are those that the untouched model's scores
  give to the experts that are chosen. An activated expert's score becomes 2 h - l + 0.02, so that its group is kept
  too: no two experts of another group have a larger sum.

The second choice is made over the whole batch, of which only the edited rows are taken: the others keep what the router
gave. Some operations round by a number's place in an array, so the same rows are in the same places whoever else is
edited, and a request's bits do not depend on its batchmates' profiles.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mote.patches.slow_rule import Rule

CODES = {"activate": 1, "deactivate": 2, "bias": 3, "nudge": 4}
"""How tables name the actions before the choice; 0 is none."""
MARGIN = 0.01
"""How far an activated expert's score lies above all others, and a deactivated one's below (SteerMoE's number)."""


class ScoreEdits(NamedTuple):
    """What is done to the scores of some tokens of a batch.

    Attributes:
        rows: int64 [rows], which of the batch's tokens; the other arrays have a row for each.
        code: int8 [rows, experts], of ``CODES``.
        amount: float32 [rows, experts], the factors of bias and nudge.
    """

    rows: Tensor
    code: Tensor
    amount: Tensor

    def apply(self, scores: Tensor, *, far: bool) -> Tensor:
        """Return the batch's scores with those of the rows edited, of the type of those given.

        Args:
            scores: [tokens, experts] of the whole batch, which stay as they are.
            far: put activated experts so high that their groups are kept.
        """
        wide = scores[self.rows].float()
        step = torch.where(self.code == CODES["nudge"], wide.std(dim=-1, keepdim=True), 1.0)
        moves = self.code >= CODES["bias"]
        moved = torch.where(moves, wide + self.amount * step, wide).to(scores.dtype)
        high, low = moved.amax(dim=-1, keepdim=True), moved.amin(dim=-1, keepdim=True)
        above = (2 * high.float() - low.float() + 2 * MARGIN) if far else high.float() + MARGIN
        below = low.float() - MARGIN
        # In half precision the margin may be lost in rounding: then the next number takes its place.
        limit = torch.full_like(high, torch.inf)
        above = torch.maximum(above.to(scores.dtype), torch.nextafter(high, limit))
        below = torch.minimum(below.to(scores.dtype), torch.nextafter(low, -limit))
        moved = torch.where(self.code == CODES["activate"], above, moved)
        result = scores.clone()
        result[self.rows] = torch.where(self.code == CODES["deactivate"], below, moved)
        return result


class Chooser:
    """How one router of a loaded model chooses, for tokens whose scores are edited.

    Args:
        router: of vLLM, of a class for which :func:`choice_fault` finds nothing; it is held weakly.
        base: its class without the patch.
    """

    def __init__(self, router: Any, base: type) -> None:
        self._router = weakref.ref(router)
        self._base: Any = base

    def choose(self, logits: Tensor, edits: ScoreEdits | None = None) -> tuple[Tensor, Tensor]:
        """Return weights float32 [tokens, k] and ids [tokens, k] of a batch with these logits [tokens, experts]."""
        router = self._alive()
        if edits is None or router.e_score_correction_bias is None:
            logits = logits if edits is None else edits.apply(logits, far=False)
            weights, ids = self._base._compute_routing(router, None, logits, None)
            return weights.float(), ids
        return _by_corrected_scores(router, logits, edits)

    def weigh(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Return float32 [tokens, k]: the weights that the router's scores give to experts that were chosen for it.

        Args:
            logits: [tokens, experts] of the whole batch.
            ids: int64 [tokens, k].
        """
        router = self._alive()
        if not router.use_grouped_topk:
            # As vLLM's own order of operations has it, so that half precision rounds alike.
            taken = logits.gather(-1, ids)
            if router.renormalize:
                return taken.softmax(dim=-1).float()
            return (taken - logits.logsumexp(dim=-1, keepdim=True)).exp().float()
        return _weights_of(router, _scores_of(router, logits), ids)

    def rule(self) -> Rule:
        """Return the same for the slow rule."""
        router = self._alive()
        correction, grouped = router.e_score_correction_bias, router.use_grouped_topk
        return Rule(
            router.top_k,
            router.renormalize,
            router.scoring_func,
            None if correction is None else tuple(correction.float().tolist()),
            router.num_expert_group if grouped else 1,
            router.topk_group if grouped else 1,
            router.routed_scaling_factor if grouped else 1.0,
        )

    def _alive(self) -> Any:
        router = self._router()
        if router is None:
            raise RuntimeError("the router of this layer is gone, and with it its model")
        return router


def choice_fault(router: Any) -> str:
    """Return why the scores of a router of vLLM cannot be edited; empty if they can."""
    if "CPURouter" not in {cls.__name__ for cls in type(router).__mro__}:
        return f"scores are edited on CPUs only, and {type(router).__name__} is no CPU's router"
    if router.custom_routing_function is not None:
        return "it chooses by a function of its own"
    if router.scoring_func not in ("softmax", "sigmoid"):
        return f"it scores by {router.scoring_func}"
    if router.e_score_correction_bias is not None and not router.use_grouped_topk:
        return "it has a correction bias and no groups"
    return ""


def _by_corrected_scores(router: Any, logits: Tensor, edits: ScoreEdits) -> tuple[Tensor, Tensor]:
    """Choose as vLLM's grouped top-k does, with a correction bias for each token instead of one for all."""
    scores = _scores_of(router, logits)
    choice = edits.apply(scores + router.e_score_correction_bias, far=True)
    groups = choice.reshape(len(choice), router.num_expert_group, -1)
    best = groups.topk(2, dim=-1).values.sum(dim=-1)
    kept = best.topk(router.topk_group, dim=-1, sorted=False).indices
    out = torch.ones_like(best, dtype=torch.bool).scatter(-1, kept, False)
    choice = groups.masked_fill(out.unsqueeze(-1), -torch.inf).flatten(-2)
    ids = choice.topk(router.top_k, dim=-1, sorted=False).indices
    return _weights_of(router, scores, ids), ids.to(torch.int32)


def _scores_of(router: Any, logits: Tensor) -> Tensor:
    raw = logits.float()
    return raw.sigmoid() if router.scoring_func == "sigmoid" else raw.softmax(dim=-1)


def _weights_of(router: Any, scores: Tensor, ids: Tensor) -> Tensor:
    weights = scores.gather(-1, ids)
    if router.renormalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    scaling: float = router.routed_scaling_factor
    return weights * scaling
