"""The edit before the choice against the slow rule, and against vLLM's own routers, over routers of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

from mote.patches.choice import CODES, Chooser, ScoreEdits, choice_fault
from mote.patches.slow_rule import Action, slow_choice

EXPERTS, K = 12, 3
CORRECTION = torch.from_numpy(np.random.default_rng(3).normal(0, 0.3, EXPERTS).astype(np.float32))
ROUTERS: dict[str, Any] = {
    "softmax": CPURouter(K, EXPERTS, renormalize=False),
    "renormalised": CPURouter(K, EXPERTS, renormalize=True),
    "groups": CPURouter(K, EXPERTS, True, 4, 2, renormalize=False, routed_scaling_factor=1.5),
    "corrected": CPURouter(K, EXPERTS, True, 1, 1, True, "sigmoid", 2.5, CORRECTION),
    "corrected groups": CPURouter(K, EXPERTS, True, 4, 2, True, "sigmoid", 1.0, CORRECTION),
    "corrected, raw": CPURouter(K, EXPERTS, True, 3, 2, False, "sigmoid", 1.0, CORRECTION),
}
Edits = dict[int, Action]
amounts = st.sampled_from([-5.0, -0.5, 0.25, 5.0])
actions: st.SearchStrategy[Action] = st.one_of(
    st.just(("activate", 0.0)),
    st.just(("deactivate", 0.0)),
    amounts.map(lambda amount: ("bias", amount)),
    amounts.map(lambda amount: ("nudge", amount)),
)
names = st.sampled_from(list(ROUTERS))


def possible(edits: Edits) -> bool:
    """Two groups of three hold all that is activated, and any two hold enough that is not deactivated."""
    active = [expert for expert, (action, _) in edits.items() if action == "activate"]
    off = [expert for expert, (action, _) in edits.items() if action == "deactivate"]
    return len(active) <= 2 and len(off) <= 2


rows_of_edits = st.lists(
    st.dictionaries(st.integers(0, EXPERTS - 1), actions, max_size=6).filter(possible), min_size=1, max_size=5
)


def draw_logits(rows: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (rows, EXPERTS)).astype(np.float32))


def arrays(rows: list[Edits]) -> ScoreEdits:
    code, amount = torch.zeros(len(rows), EXPERTS, dtype=torch.int8), torch.ones(len(rows), EXPERTS)
    for row, edits in enumerate(rows):
        for expert, (action, factor) in edits.items():
            code[row, expert], amount[row, expert] = CODES[action], factor
    return ScoreEdits(torch.arange(len(rows)), code, amount)


def choose(name: str, logits: torch.Tensor, rows: list[Edits] | None = None) -> list[dict[int, float]]:
    weights, ids = Chooser(ROUTERS[name], CPURouter).choose(logits, None if rows is None else arrays(rows))
    assert weights.dtype == torch.float32
    return [dict(zip(each.tolist(), own.tolist(), strict=True)) for each, own in zip(ids, weights, strict=True)]


@settings(max_examples=400)
@given(names, rows_of_edits, st.integers(0, 10**6))
def test_it_is_the_slow_rule(name: str, rows: list[Edits], seed: int) -> None:
    logits, rule = draw_logits(len(rows), seed), Chooser(ROUTERS[name], CPURouter).rule()
    for row, (edits, found) in enumerate(zip(rows, choose(name, logits, rows), strict=True)):
        assert found == pytest.approx(slow_choice(logits[row].tolist(), rule, edits), rel=1e-4, abs=1e-7)


@given(names, rows_of_edits, st.integers(0, 10**6))
def test_what_is_activated_is_chosen_and_what_is_deactivated_is_not(name: str, rows: list[Edits], seed: int) -> None:
    for edits, found in zip(rows, choose(name, draw_logits(len(rows), seed), rows), strict=True):
        assert len(found) == K
        for expert, (action, _) in edits.items():
            if action in ("activate", "deactivate"):
                assert (expert in found) == (action == "activate")


@given(names, st.integers(0, 10**6))
def test_without_edits_it_is_vllms_own_choice_to_the_last_bit(name: str, seed: int) -> None:
    logits = draw_logits(4, seed)
    weights, ids = ROUTERS[name]._compute_routing(None, logits, None)
    own = [dict(zip(each.tolist(), its.tolist(), strict=True)) for each, its in zip(ids, weights, strict=True)]
    assert choose(name, logits) == own
    assert choose(name, logits, [{}] * 4) == own


@pytest.mark.parametrize("name", ["renormalised", "corrected", "corrected groups", "corrected, raw"])
def test_deactivating_what_was_not_chosen_changes_no_bit(name: str) -> None:
    """But where the groups change, or where the softmax of all experts is the weight."""
    logits = draw_logits(64, 1)
    same = 0
    for row in range(len(logits)):
        own = choose(name, logits[row : row + 1])[0]
        absent = next(expert for expert in range(EXPERTS) if expert not in own)
        found = choose(name, logits[row : row + 1], [{absent: ("deactivate", 0.0)}])[0]
        same += found == own
        assert found == own or "groups" in name or "raw" in name
    assert same > 32


@given(names, rows_of_edits, st.integers(0, 10**6), st.randoms())
def test_a_row_does_not_depend_on_the_others_edits(name: str, rows: list[Edits], seed: int, random: Any) -> None:
    logits, mine = draw_logits(len(rows), seed), random.randrange(len(rows))
    alone = arrays([rows[mine]])._replace(rows=torch.tensor([mine]))
    chooser = Chooser(ROUTERS[name], CPURouter)
    for one, other in zip(chooser.choose(logits, arrays(rows)), chooser.choose(logits, alone), strict=True):
        assert torch.equal(one[mine], other[mine])


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_half_precision_keeps_the_promise(scale: float) -> None:
    """The margin is lost in bfloat16's rounding; the next number takes its place."""
    logits = (draw_logits(50, 2) * scale).bfloat16()
    single = CPURouter(1, EXPERTS)
    for expert in range(EXPERTS):
        edits = arrays([{expert: ("activate", 0.0)}] * 50)
        assert (Chooser(single, CPURouter).choose(logits, edits)[1] == expert).all()
        off = arrays([{e: ("deactivate", 0.0) for e in range(EXPERTS) if e != expert}] * 50)
        assert (Chooser(single, CPURouter).choose(logits, off)[1] == expert).all()


def test_by_hand() -> None:
    """Qwen3-MoE's rule: the activated expert's logit is the highest and 0.01; the chosen ones share the softmax."""
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0] + [-9.0] * 7])
    found = choose("renormalised", logits, [{4: ("activate", 0.0), 1: ("deactivate", 0.0)}])[0]
    raised = np.exp([3.01, 3.0, 1.0])
    assert found == pytest.approx(dict(zip([4, 0, 2], raised / raised.sum(), strict=True)), rel=1e-5)
    found = choose("renormalised", logits, [{3: ("bias", 1.5)}])[0]
    raised = np.exp([3.0, 2.0, 1.5])
    assert found == pytest.approx(dict(zip([0, 1, 3], raised / raised.sum(), strict=True)), rel=1e-5)
    step = float(np.std(logits.numpy(), ddof=1))
    found = choose("renormalised", logits, [{3: ("nudge", 0.5)}])[0]
    raised = np.exp([3.0, 2.0, 0.5 * step])
    assert found == pytest.approx(dict(zip([0, 1, 3], raised / raised.sum(), strict=True)), rel=1e-5)


@pytest.mark.parametrize("name", ["corrected", "corrected groups"])
def test_weights_of_a_corrected_router_are_the_untouched_scores(name: str) -> None:
    logits = draw_logits(30, 5)
    scores = logits.sigmoid()
    for row, found in enumerate(choose(name, logits, [{7: ("activate", 0.0)}] * 30)):
        assert 7 in found
        own = {expert: float(scores[row, expert]) for expert in found}
        total = sum(own.values()) / ROUTERS[name].routed_scaling_factor
        assert found == pytest.approx({expert: score / total for expert, score in own.items()}, rel=1e-5)


def test_routers_whose_scores_cannot_be_edited() -> None:
    from vllm.model_executor.layers.fused_moe.router.fused_topk_router import FusedTopKRouter

    assert not any(choice_fault(router) for router in ROUTERS.values())
    assert "no CPU's router" in choice_fault(FusedTopKRouter.__new__(FusedTopKRouter))
    assert "a function of its own" in choice_fault(CPURouter(2, 8, custom_routing_function=print))
    assert "scores by sqrtsoftplus" in choice_fault(CPURouter(2, 8, scoring_func="sqrtsoftplus"))
    assert "no groups" in choice_fault(CPURouter(2, 8, scoring_func="sigmoid", e_score_correction_bias=CORRECTION))
    gone = Chooser(CPURouter(2, 8), CPURouter)
    with pytest.raises(RuntimeError, match="is gone"):
        gone.choose(torch.zeros(1, 8))
