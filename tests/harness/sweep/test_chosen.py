"""Experts by a run's ranking or scan, the random sets beside them, and the subsets of presets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mote.harness.errors import MoteError
from mote.harness.experts.rankings import read_halves
from mote.harness.merge.experts import ranked_experts
from mote.harness.merge.plan import make_plan
from mote.harness.merge.schema import Ranked
from mote.harness.recipe.manifest import read_manifest
from mote.harness.science.causal import Measurement
from mote.harness.science.controls import MASS_TOLERANCE
from mote.harness.store.run import RunStore
from mote.harness.store.scans import Scans, ScoreRow
from mote.harness.sweep.chosen import with_experts
from mote.harness.sweep.presets import with_preset
from mote.harness.sweep.schema import ChosenExperts, SweepRecipe
from tests.harness.report.written_run import WrittenRun, write_run
from tests.harness.sweep.scripted_sweep import recipe_of

SCANNED = 9


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chosen")


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    """A run whose scan says that each expert of layer 0 carries the class more than the one before."""
    folder = write_run(home / "run", WrittenRun(prompts=60, controls=0, top_k=4))
    with RunStore(folder) as store:
        halves = read_halves(store, read_manifest(folder))
        settings = {"action": "suppress", "prompts": dict.fromkeys(halves.chosen[:2], "I"), "alternatives": ["Yes"]}
        scans = Scans(store)
        scans.add(
            scans.begin(settings, {}),
            (
                ScoreRow(Measurement(prompt, expert, opening), [("I", -at if opening == 0 else -9.0)], 1, "d", 1)
                for at, expert in enumerate([None, *((0, one) for one in range(SCANNED))], start=1)
                for prompt in halves.chosen[:2]
                for opening in (0, 1)
            ),
        )
    return folder


def chosen(home: Path, **how: Any) -> dict[str, list[tuple[int, int]]]:
    """Return the experts of each subset of a sweep that takes some over."""
    found = with_experts(recipe_of(home, subsets={"some": {"experts": how}})).subsets
    return {name: list(part.experts) for name, part in found.items() if isinstance(part.experts, list)}


@pytest.mark.parametrize("by", ["activity", "resonance"])
def test_a_ranking_of_a_run_is_that_of_a_merge(by: Any, home: Path, run: Path) -> None:
    found = chosen(home, by=by, run=str(run), top=8)
    assert found["some"] == sorted(ranked_experts(Ranked(run=str(run), ranking=by, top=8)))


def test_a_scan_takes_the_experts_of_the_largest_effect(home: Path, run: Path) -> None:
    assert chosen(home, by="causal", run=str(run), top=3)["some"] == [
        (0, SCANNED - 3),
        (0, SCANNED - 2),
        (0, SCANNED - 1),
    ]
    with pytest.raises(MoteError, match=rf"subsets\.some\.experts: top is 10, and the scan of .* measured {SCANNED}"):
        chosen(home, by="causal", run=str(run), top=10)
    with pytest.raises(MoteError, match="has no scan: make one with mote scan"):
        chosen(home, by="causal", run=str(write_run(home / "unscanned", WrittenRun(prompts=60, controls=0))), top=3)


def test_random_sets_of_the_same_layers_and_mass_stand_beside(home: Path, run: Path) -> None:
    found = chosen(home, by="resonance", run=str(run), top=8, beside=3)
    some = found.pop("some")
    assert list(found) == [f"some-{kind}-{number}" for kind in ("layers", "mass") for number in (1, 2, 3)]
    with RunStore(run, read_only=True) as store:
        mass = read_halves(store, read_manifest(run)).mass

    def busy(experts: Sequence[tuple[int, int]]) -> float:
        return float(sum(mass[layer, expert] for layer, expert in experts))

    for name, experts in found.items():
        assert experts != some
        if "layers" in name:
            assert Counter(layer for layer, _ in experts) == Counter(layer for layer, _ in some)
        else:
            # The nearest of fifty draws stands where none comes within the tolerance.
            assert busy(experts) == pytest.approx(busy(some), rel=2 * MASS_TOLERANCE)
    assert found == {
        name: one for name, one in chosen(home, by="resonance", run=str(run), top=8, beside=3).items() if name != "some"
    }
    # Without a run nothing says how busy experts are.
    assert list(chosen(home, by="distance", top=8)) == ["some", "some-layers-1", "some-layers-2"]
    assert "some-mass-1" in chosen(home, by="distance", run=str(run), top=8)


def test_what_experts_cannot_be_chosen_by_is_one_line(home: Path, run: Path) -> None:
    for how, said in (
        ({"by": "resonance", "top": 3}, "by: resonance is a ranking of a run: name its folder with run"),
        ({"by": "random", "top": 3, "run": "somewhere"}, "by: random reads no run"),
        ({"by": "distance", "top": 3, "beside": 0}, "greater than or equal to 1"),
    ):
        with pytest.raises(ValidationError, match=said):
            ChosenExperts.model_validate(how)
    with pytest.raises(MoteError, match="nowhere"):
        chosen(home, by="resonance", run="nowhere", top=3)
    other = write_run(home / "other", WrittenRun(prompts=60, controls=0, experts=80, top_k=4))
    with pytest.raises(MoteError, match=r"is of another model|which the base does not have"):
        chosen(home, by="activity", run=str(other), top=80)
    subsets = {"some": {"experts": {"by": "distance", "top": 3}}, "some-layers-1": {"groups": ["head"]}}
    with pytest.raises(MoteError, match="some-layers-1: this is the name of a random set beside some"):
        with_experts(recipe_of(home, subsets=subsets))


def test_a_preset_takes_each_part_alone_and_all_but_it(home: Path) -> None:
    recipe = recipe_of(home)
    groups = with_preset(recipe, "groups")
    assert groups.name == "scripted-groups"
    parts = ["routed-experts", "shared-experts", "router", "attention", "norms", "embeddings", "head"]
    assert list(groups.subsets) == ["all", *(f"{way}-{part}" for part in parts for way in ("only", "but"))]
    layers = with_preset(recipe, "layers")
    assert list(layers.subsets) == ["all", *(f"{way}-layers-{at}-{at}" for at in range(6) for way in ("only", "but"))]
    for found in (groups, layers):
        for name in found.subsets:
            # What is taken over of a part and of all but it is all that there is.
            if name.startswith("only-"):
                both = [taken(found, name), taken(found, name.replace("only-", "but-"))]
                assert sum(both) == taken(found, "all")
                assert min(both) > 0
    with pytest.raises(MoteError, match=r"There is no preset 'group'. Did you mean 'groups'\?"):
        with_preset(recipe, "group")


def taken(recipe: SweepRecipe, subset: str) -> int:
    """Return the bytes that a subset takes over at proportion 1."""
    return make_plan(recipe.merge(subset, 1.0)).bytes_of("copied")
