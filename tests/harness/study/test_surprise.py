"""The judge ``rules+classifier+surprise`` over a written run: what is measured, once; a kill leaves no trace.

The log-probabilities are written by the test; real ones come in ``test_study``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from mote.harness.engine.model import resolve_model
from mote.harness.engine.turns import Turns
from mote.harness.engine.vllm import Answer, Request, Scored, Scoring
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import Recipe
from mote.harness.store.run import LabelRow, RunStore
from mote.harness.study.session import Session
from mote.harness.study.surprise import label_run_by_surprise
from mote.judges import CLASSES, DEGENERATE, JUDGE, label_refusal
from mote.patches import EMPTY_PROFILE, Observation, Receipt
from tests.harness.report.written_run import WrittenRun, write_run

RUN = WrittenRun(prompts=24, layers=(0, 1), experts=16, controls=2, top_k=3)
QUIET = Console(quiet=True)


class WrittenEngine:
    """Finds every token of a text likely, but in texts with a marked word; stops after some texts if told to."""

    prompt_opens = False

    def __init__(self, broken: str = "", unfit: str = "\0", likely: float = -0.5, stop_after: int = 10**9) -> None:
        self.broken, self.unfit, self.likely, self.stop_after = broken, unfit, likely, stop_after
        self.asked: list[Scoring] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        raise AssertionError("nothing is generated here")

    def token_texts(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        raise AssertionError("no prompt's tokens are asked for here")

    def turns(self, messages: Sequence[Mapping[str, str]]) -> Turns:
        raise AssertionError("nothing is aligned here")

    def pieces(self, text: str) -> list[str]:
        raise AssertionError("no opening is learned here")

    def fits(self, request: Scoring) -> bool:
        return self.unfit not in request.continuation

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        for index in reversed(range(len(requests))):
            if len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            request = requests[index]
            self.asked.append(request)
            tokens = [f"{word} " for word in request.continuation.split(" ")]
            low = -9.0 if self.broken and self.broken in request.continuation else self.likely
            observation = Observation(Receipt(EMPTY_PROFILE.digest, 0, "test"))
            yield [(index, Scored(request, tokens, [low] * len(tokens), observation))]


def written(folder: Path) -> Path:
    """Write a run whose texts are labelled by the real rules, with their evidence."""
    write_run(folder, RUN)
    with closing(sqlite3.connect(folder / "run.sqlite")) as db, db:
        db.execute("delete from label_rows")
    with RunStore(folder) as store:
        found = [(one, label_refusal(one.raw, finish_reason=one.finish_reason)) for one in store.unlabelled(JUDGE)]
        store.add_labels(
            LabelRow(one.generation_id, JUDGE, label.label, [asdict(entry) for entry in label.evidence])
            for one, label in found
        )
    return folder


def judge(folder: Path, engine: WrittenEngine) -> None:
    recipe = Recipe.model_validate({"name": "written", "model": {"path": "demo"}, "task": {"name": "refusal_grid"}})
    with RunStore(folder) as store:
        model = resolve_model("demo")
        session = Session(folder, read_manifest(folder), store, QUIET, recipe, model, lambda: engine)
        label_run_by_surprise(session, 7)


def labels(folder: Path, name: str) -> pd.DataFrame:
    query = (
        "select g.prompt_id, g.profile, g.raw, l.label, l.evidence from labels l join generations g"
        " using (generation_id) where l.judge = ? order by g.profile, g.prompt_id"
    )
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return pd.read_sql(query, db, params=(name,))


def test_each_distinct_answer_of_a_class_is_measured_once_by_the_untouched_model(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    before = labels(folder, JUDGE)
    engine = WrittenEngine(broken="1989")
    judge(folder, engine)
    asked = [(one.prompt_id, one.continuation) for one in engine.asked]
    classed = before[before["label"].isin(CLASSES)]
    assert len(asked) == len(set(asked)) < len(classed)
    assert set(asked) == set(zip(classed["prompt_id"], classed["raw"], strict=True))
    assert {one.profile.digest for one in engine.asked} == {EMPTY_PROFILE.digest}
    pd.testing.assert_frame_equal(labels(folder, JUDGE), before)
    after = labels(folder, "rules+classifier+surprise")
    assert len(after) == len(before)
    again = WrittenEngine()
    judge(folder, again)
    assert not again.asked


def test_a_marked_text_is_broken_under_every_profile_and_nothing_else_changes(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    # Broken in none of the baseline's answers, so that the threshold stays at its fixed bound.
    before = labels(folder, JUDGE)
    own = set(before.loc[before["profile"] == "baseline", "raw"])
    new = before[~before["raw"].isin(own) & before["label"].isin(CLASSES)]
    word = str(new["raw"].iloc[0])
    judge(folder, WrittenEngine(broken=word))
    both = before.assign(after=labels(folder, "rules+classifier+surprise")["label"])
    marked = both["raw"].str.contains(word, regex=False) & both["label"].isin(CLASSES)
    assert marked.any()
    assert set(both.loc[marked, "after"]) == {DEGENERATE}
    assert (both.loc[~marked, "after"] == both.loc[~marked, "label"]).all()


def test_the_baseline_sets_the_threshold(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    judge(folder, WrittenEngine(likely=-9.0))
    found = labels(folder, "rules+classifier+surprise")
    # A model that finds all its own answers unlikely says nothing by it.
    assert (found["label"] == labels(folder, JUDGE)["label"]).all()
    rules = {entry["rule"] for text in found["evidence"] for entry in json.loads(text)}
    assert "surprise -9.0, not below -9.0" in rules


def test_what_does_not_fit_the_context_keeps_its_label_and_says_so(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    engine = WrittenEngine(unfit="cannot")
    judge(folder, engine)
    found = labels(folder, "rules+classifier+surprise")
    unfit = found["raw"].str.contains("cannot") & found["label"].isin(CLASSES)
    assert unfit.any()
    assert found.loc[unfit, "evidence"].str.contains("surprise-not-measured").all()
    assert not found.loc[~unfit, "evidence"].str.contains("surprise-not-measured").any()
    assert (found["label"] == labels(folder, JUDGE)["label"]).all()


def test_an_interruption_leaves_no_trace(tmp_path: Path) -> None:
    whole, cut = (written(tmp_path / name) for name in ("whole", "cut"))
    judge(whole, WrittenEngine(broken="1989"))
    measured = []
    for stop in (3, 1, 5):
        with pytest.raises(KeyboardInterrupt):
            judge(cut, WrittenEngine(broken="1989", stop_after=stop))
        with closing(sqlite3.connect(cut / "run.sqlite")) as db:
            measured.append(db.execute("select count(*) from surprises").fetchone()[0])
        assert labels(cut, "rules+classifier+surprise").empty
    assert measured == [3, 4, 9]
    rest = WrittenEngine(broken="1989")
    judge(cut, rest)
    with closing(sqlite3.connect(cut / "run.sqlite")) as db:
        assert len(rest.asked) + 9 == db.execute("select count(*) from surprises").fetchone()[0]
    pd.testing.assert_frame_equal(labels(cut, "rules+classifier+surprise"), labels(whole, "rules+classifier+surprise"))
