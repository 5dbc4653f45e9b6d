"""Studies by the tokens of another role than the prompt's; the engine follows a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

import mote
from mote.harness.engine.trust import Own
from mote.harness.engine.vllm import Answer, Request
from mote.harness.errors import MoteError
from mote.harness.experts.comparison import RankingOptions, rank_run
from mote.harness.experts.rankings import run_rankings
from mote.harness.recipe.roles import capture_of, in_words, last_tokens
from mote.harness.recipe.schema import Recipe
from mote.harness.report import make_report
from mote.judges import Markers
from mote.patches import ActivationMap
from tests.harness.study.scripted_engine import PLANTED_BY, Killed, ScriptedEngine, recipe_of, study_of

SMALL: dict[str, Any] = {"exact": False, "controls": {"mass": 4, "layers": 4}}
QUIET = Console(quiet=True)


@pytest.mark.parametrize("role", ["prompt_last_5", "answer"])
def test_experts_are_those_that_the_tokens_of_the_role_choose(tmp_path: Path, role: str) -> None:
    engine = ScriptedEngine()
    study_of(tmp_path / "run", recipe_of(60, role=role, **SMALL), engine, force=True)
    run = mote.open(tmp_path / "run")
    assert set(dict(run.profiles["experts"])["suppress-3"]) == set(PLANTED_BY[role.removesuffix("_5")])
    ids, maps = run.maps(role)
    assert len(ids) == 60
    # The frame counts again what chose, one prompt after the other.
    part, labels = run.prompts["part"], run.generations.set_index(["profile", "prompt_id"])["label"]
    sums: dict[bool, list[Any]] = {True: [], False: []}
    for key, one in zip(ids, maps, strict=True):
        if part[key] == "select":
            sums[labels["baseline", key] == "0-REFUSED"].append(one)
    assert run.resonance.to_numpy() == pytest.approx(np.mean(sums[True], axis=0) - np.mean(sums[False], axis=0))


def test_rankings_of_the_other_roles_stand_beside_the_studys_own(tmp_path: Path) -> None:
    found = recipe_of(60, role="answer", rankings=["resonance", "resonance_prompt", "resonance_reasoning"], **SMALL)
    engine = ScriptedEngine()
    study_of(tmp_path / "run", found, engine, force=True)
    options = RankingOptions(ks=(3,), sets=0, names=("resonance", "resonance_prompt", "resonance_reasoning"), limit=3)
    own = Own(servers=("http://127.0.0.1:1/v1",))
    table = rank_run(tmp_path / "run", options, QUIET, engine=lambda *_: lambda: engine, own=own).table
    for role, experts in zip(("answer", "prompt", "reasoning"), table["experts"], strict=True):
        assert set(experts.split()) == {f"({layer},{expert})" for layer, expert in PLANTED_BY[role]}


class Silent(ScriptedEngine):
    """Half of its answers have no reasoning, or all."""

    every: int = 2

    def _answer(self, request: Request) -> Answer:
        answer = super()._answer(request)
        maps = answer.observation.maps
        if "reasoning" in maps and len(self.asked) % self.every == 0:
            maps["reasoning"] = ActivationMap(np.zeros((6, 64), np.int32), 0, 0)
        return answer


def test_an_answer_without_a_token_of_the_role_chooses_no_expert(tmp_path: Path) -> None:
    found = recipe_of(role="reasoning", ranking="resonance_per_token", **SMALL)
    study_of(tmp_path / "run", found, Silent(), force=True)
    run = mote.open(tmp_path / "run")
    ids, _ = run.maps("reasoning")
    assert len(ids) == 60
    # They are on either side of the split all the same, and are measured.
    assert set(run.prompts["part"]) == {"select", "measure"}
    assert set(dict(run.profiles["experts"])["suppress-3"]) == set(PLANTED_BY["reasoning"])
    assert run.flips[run.flips["profile"] == "suppress-3"]["prompt_id"].nunique() == 120
    assert run_rankings(tmp_path / "run")["resonance_per_token"].shape == (6, 64)
    make_report(tmp_path / "run")
    assert "activations a token, among the tokens of the reasoning" in (tmp_path / "run" / "report.html").read_text()
    none = Silent()
    none.every = 1
    with pytest.raises(MoteError, match=r"study\.role: no answer of the baseline has a token of the role 'reasoning'"):
        study_of(tmp_path / "none", found, none, force=True)


def test_a_baseline_of_another_role_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        study_of(tmp_path / "run", recipe_of(**SMALL), ScriptedEngine(kill_after=30), force=True)
    with pytest.raises(MoteError, match="was asked without maps of 'answer': take another folder with --out") as caught:
        study_of(tmp_path / "run", recipe_of(role="answer", **SMALL), ScriptedEngine(), force=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(MoteError, match="--protocol paper chooses experts by the tokens of the prompt"):
        study_of(tmp_path / "paper", recipe_of(role="answer"), ScriptedEngine(), paper=True)
    assert not (tmp_path / "paper").exists()


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ({"role": "anser"}, "'anser' is no role of tokens: prompt, reasoning, answer, .* Did you mean 'answer'?"),
        ({"role": "prompt_last_1"}, "'prompt_last_1' is no role"),
        ({"role": "prompt_last_05"}, "'prompt_last_05' is no role"),
        (
            {"rankings": ["resonance", "resonance_answer"]},
            "needs maps of the answer's tokens: set study.role to reason",
        ),
        ({"role": "answer", "rankings": ["resonance", "resonance_answer"]}, "is the ranking by study.role itself"),
        ({"role": "prompt_last", "rankings": ["resonance", "resonance_reasoning"]}, "needs maps of the reasoning's"),
    ],
)
def test_another_role_is_one_line(study: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe_of(**study)


def test_channels_have_no_markers_to_divide_at() -> None:
    content = recipe_of(role="answer").model_dump(mode="json")
    content["model"]["markers"] = "harmony"
    with pytest.raises(ValidationError, match=r"study\.role: answer divides what is said at two markers"):
        Recipe.model_validate(content)


def test_what_is_captured_follows_from_the_role() -> None:
    markers = Markers("[THINK]", "[/THINK]")
    assert capture_of("prompt", markers, True) == "prompt"
    assert capture_of("prompt_last_12", markers, True) == {"what": "prompt", "last": 12}
    assert [in_words(role) for role in ("prompt", "prompt_last", "prompt_last_5")] == [
        "", ", among the prompt's last token", ", among the prompt's last 5 tokens"
    ]  # fmt: skip
    assert [last_tokens(role) for role in ("prompt", "answer", "prompt_last", "prompt_last_12")] == [0, 0, 1, 12]
    assert capture_of("reasoning", markers, True) == {
        "what": "roles", "reasoning_start": "[THINK]", "reasoning_end": "[/THINK]", "prompt_opens": True,
    }  # fmt: skip
