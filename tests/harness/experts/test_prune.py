"""Pruning a run on planted truth: an engine whose refusals hang on two experts, whatever else is switched off."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from mote.harness.engine.model import resolve_model
from mote.harness.engine.turns import Turns
from mote.harness.engine.vllm import Answer, Engine, Request, Scored, Scoring
from mote.harness.errors import MoteError
from mote.harness.experts.prune import prune_run
from mote.harness.recipe.schema import RECIPES, Recipe
from mote.harness.store.prunings import read_pruning
from mote.harness.store.run import RunStore
from mote.harness.study.session import StartsEngine
from mote.patches import Observation, Receipt
from tests.harness.report.written_run import WrittenRun, write_run

QUIET = Console(quiet=True)
RUN = WrittenRun(prompts=189, controls=0, top_k=6)
REFUSAL = "</think>I am sorry, I cannot answer that question."
FACT = "</think>In that year, a new bridge was opened, and many people were there to see it."


class PlantedEngine:
    """Answers where both needed experts are switched off, and refuses elsewhere; stops after so many answers."""

    prompt_opens = True

    def __init__(self, needed: set[tuple[int, int]], stop: int | None = None) -> None:
        self._needed, self._stop = needed, stop
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        for index, request in enumerate(requests):
            if self._stop is not None and len(self.asked) >= self._stop:
                raise KeyboardInterrupt
            self.asked.append(request)
            off = {(edit.layer, edit.expert) for edit in request.profile.edits}
            raw = FACT if self._needed <= off else REFUSAL
            receipt = Receipt(request.profile.digest, 9, "test")
            yield [(index, Answer(request, raw, 9, 20, "stop", Observation(receipt)))]

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        raise AssertionError("a run that goes by its text's labels has nothing to score")

    def fits(self, request: Scoring) -> bool:
        raise AssertionError("a run that goes by its text's labels has nothing to score")

    def token_texts(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        raise AssertionError("pruning shows no tokens")

    def turns(self, messages: Sequence[Mapping[str, str]]) -> Turns:
        raise AssertionError("nothing is aligned here")

    def pieces(self, text: str) -> list[str]:
        raise AssertionError("no opening is learned here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", RUN)
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    recipe = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    # The invented labels are the rules' alone.
    recipe["judges"] = {"surprise": False}
    manifest["recipe"] = Recipe.model_validate(recipe).model_dump(mode="json")
    manifest["model"] = resolve_model("demo").manifest()
    path.write_text(json.dumps(manifest))
    return run


def planted(engine: Engine) -> StartsEngine:
    return lambda *_: lambda: engine


def pruned(folder: Path) -> pd.DataFrame:
    with RunStore(folder, read_only=True) as store:
        return read_pruning(store)


# The written run plants its experts at these places, so they are the top of its resonance.
NEEDED = {(5, 22), (2, 5)}


def test_only_the_experts_that_are_needed_are_left(folder: Path) -> None:
    engine = PlantedEngine(NEEDED)
    rounds = prune_run(folder, 6, 0.9, QUIET, engine=planted(engine))
    assert list(rounds["left"]) == [6, 5, 4, 3, 2]
    assert set(rounds["effect"]) == {1.0}
    last = rounds.iloc[-1]
    assert last["experts"] == "(2, 5) (5, 22)"
    assert last["measured_hits"] == last["measured_total"] == last["whole_hits"] > 0
    assert pruned(folder).to_dict("records") == rounds.to_dict("records")
    # Six candidates of five, five of four, ..., two of one, each on the prompts that chose; what is left on the others.
    chosen = len({request.prompt_id for request in engine.asked}) - int(last["measured_total"])
    assert len(engine.asked) == (1 + 6 + 5 + 4 + 3 + 2) * chosen + 2 * int(last["measured_total"])


def test_a_pruning_that_was_stopped_goes_on_and_asks_nothing_twice(folder: Path) -> None:
    first = PlantedEngine(NEEDED, stop=100)
    with pytest.raises(KeyboardInterrupt):
        prune_run(folder, 6, 0.9, QUIET, engine=planted(first))
    assert pruned(folder).empty
    second = PlantedEngine(NEEDED)
    rounds = prune_run(folder, 6, 0.9, QUIET, engine=planted(second))
    asked = [(request.profile.digest, request.prompt_id) for request in first.asked + second.asked]
    assert len(asked) == len(set(asked))
    assert rounds.iloc[-1]["experts"] == "(2, 5) (5, 22)"
    third = PlantedEngine(NEEDED)
    again = prune_run(folder, 6, 0.9, QUIET, engine=planted(third))
    assert not third.asked
    assert again.equals(rounds)


def test_what_cannot_be_pruned_is_said_in_a_line(folder: Path) -> None:
    nothing = planted(PlantedEngine({(0, 63)}))
    with pytest.raises(MoteError, match=r"the top 6 flip none of the \d+ prompts that chose them"):
        prune_run(folder, 6, 0.9, QUIET, engine=nothing)
    with pytest.raises(MoteError, match=r"--keep 1\.5"):
        prune_run(folder, 6, 1.5, QUIET, engine=nothing)
    with pytest.raises(MoteError, match="--k 999: "):
        prune_run(folder, 999, 0.9, QUIET, engine=nothing)
