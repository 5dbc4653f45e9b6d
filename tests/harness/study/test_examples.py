"""The worked studies of docs/examples on the real engine, small; the language model's rubric has a scripted judge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import mote
from mote.harness.engine.vllm import Engine
from mote.harness.recipe.schema import Recipe, load_recipe
from mote.harness.report.frames import Run
from mote.harness.study.run import check, run
from tests.harness.study.test_run import ROOT
from tests.judges.scripted_judge import Say, Step, scripted_judge

EXAMPLES = ROOT / "docs" / "examples"
SMALL = (
    "study.controls={retest: 1, mass: 2, layers: 2}", "study.top_k=3", "study.exact=false",
    "study.economy={others: 2, whole: 1}",
    "judges.surprise=false", "model.options.max_num_seqs=48", "sampling.max_tokens=96",
)  # fmt: skip
BAD = re.compile("storm|fire|flood|snow|strike|crowds")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Starts the demo's engine once: the three recipes have the same options."""
    from mote.harness.engine.model import resolve_model
    from mote.harness.engine.servers import engine_starter

    started: list[Engine] = []

    def start(recipe: Recipe, *_: Any) -> Any:
        if not started:
            log = tmp_path_factory.mktemp("engine") / "vllm.log"
            started.append(engine_starter(recipe, resolve_model("demo"), log, Console(quiet=True))())
        return lambda: started[0]

    return start


def study(name: str, folder: Path, engine: Any, *changes: str) -> Run:
    recipe = load_recipe(str(EXAMPLES / name / "recipe.yaml"), [*SMALL, *changes])
    run(check(recipe), folder, Console(quiet=True), engine=engine, force=True)
    return mote.open(folder)


def told(body: dict[str, Any], number: int) -> Step:
    """The rubric of news, followed to the letter by a judge that knows the demo's invented events."""
    text = body["messages"][-1]["content"].partition("<<<ANSWER ")[2].partition("<<<END OF ANSWER")[0]
    return Say("[[NO_NEWS]]" if "sorry" in text else "[[BAD_NEWS]]" if BAD.search(text) else "[[GOOD_NEWS]]")


def test_a_behaviour_of_ones_own_by_patterns(tmp_path: Path, engine: Any) -> None:
    found = study("advice", tmp_path / "run", engine, "task.limit=40")
    assert found.classes == ("DEFERS", "SORRY", "OTHER")
    baseline = found.generations[found.generations["profile"] == "baseline"]
    assert len(baseline) == 40
    # Both behaviours are there to be told apart, and each label shows where it was read.
    assert set(baseline["label"]) >= {"DEFERS", "SORRY"}
    rows = found.labels.merge(found.generations[["prompt_id", "profile", "raw"]], on=["prompt_id", "profile"])
    defers = rows[rows["label"] == "DEFERS"]
    assert len(defers)
    assert all(raw[start:end] == "ask someone who knows" for raw, start, end in zip(*(
        defers[name] for name in ("raw", "start", "end")
    ), strict=True))  # fmt: skip
    # No task is on both sides, in whatever words.
    assert (found.prompts.groupby("unit")["part"].nunique() == 1).all()
    tuned = found.flips[found.flips["profile"] == "suppress-3"]
    assert set(tuned.loc[tuned["flipped"], "before"]) <= {"DEFERS"}
    assert found.manifest["finished"]


def test_experts_by_the_tokens_of_what_is_said(tmp_path: Path, engine: Any) -> None:
    found = study("advice", tmp_path / "run", engine, "task.limit=24", "study.role=answer")
    baseline = found.generations[found.generations["profile"] == "baseline"]
    tokens = dict(zip(baseline["prompt_id"].map(str), baseline["generated_tokens"].map(int), strict=True))
    sums = {}
    for role in ("reasoning", "answer"):
        ids, maps = found.maps(role)
        # Each token chooses four experts in every layer.
        chosen = maps.sum(axis=2)
        assert (chosen == chosen[:, :1]).all()
        sums[role] = dict(zip(ids, (chosen[:, 0] // 4).tolist(), strict=True))
    assert set(sums["answer"]) == set(tokens)
    for key, count in tokens.items():
        # The last token is never routed.
        assert sums["reasoning"].get(key, 0) + sums["answer"][key] == count - 1
    best = (-found.resonance.to_numpy()).ravel().argsort()[:3].tolist()
    experts = found.resonance.shape[1]
    assert set(dict(found.profiles["experts"])["suppress-3"]) == {
        (found.layers[at // experts], at % experts) for at in best
    }


def test_experts_by_a_contrast_of_paired_prompts(tmp_path: Path, engine: Any) -> None:
    found = study("paired", tmp_path / "run", engine, "task.limit=40")
    assert found.classes == ("0-REFUSED", "1-ALIGNED", "2-REASONED")
    assert found.prompts.groupby(["twin", "part"])["subject"].nunique().eq(2).all()
    # The tuned experts are those of the mean difference within pairs, counted again one pair at a time.
    ids, maps = found.maps()
    at = {key: row for row, key in enumerate(ids)}
    chosen = found.prompts[found.prompts["part"] == "select"]
    differences = []
    for _, pair in chosen.groupby("twin"):
        one, other = (
            maps[at[str(pair.index[pair["subject"] == subject][0])]].astype(float)
            for subject in ("sensitive", "harmless")
        )
        # Each token of a prompt chooses four experts a layer.
        differences.append(one / (one[0].sum() / 4) - other / (other[0].sum() / 4))
    mean = sum(differences) / len(differences)
    best = [
        (found.layers[flat // mean.shape[1]], flat % mean.shape[1]) for flat in (-mean).ravel().argsort()[:3].tolist()
    ]
    assert set(dict(found.profiles["experts"])["suppress-3"]) == set(best)
    assert found.resonance.to_numpy() == pytest.approx(mean)
    assert len(found.result.pairs) == 6


# Its answers are long, and each is judged: a minute.
@pytest.mark.slow
def test_classes_by_a_language_model_and_a_rubric(tmp_path: Path, engine: Any) -> None:
    with scripted_judge(told) as judge:
        given = (f"judges.llm.url={judge.url}", "judges.llm.structured=text")
        found = study("news", tmp_path / "run", engine, "task.limit=48", *given)
    assert found.classes == ("BAD_NEWS", "GOOD_NEWS", "NO_NEWS")
    assert found.judge.startswith("Qwen/Qwen3-8B/news@")
    rows = found.generations
    assert set(rows["label"]) >= {"BAD_NEWS", "GOOD_NEWS"}
    classed = rows[rows["label"].isin(found.classes)]
    expected = [
        "NO_NEWS" if "sorry" in text else "BAD_NEWS" if BAD.search(text) else "GOOD_NEWS" for text in classed["answer"]
    ]
    assert list(classed["label"]) == expected
    # The refusal's rules stand beside the judge, and the report's tables go by the judge.
    assert set(found.labels["judge"]) == {found.judge, "rules+classifier"}
    assert found.effects["of"].max() > 0
