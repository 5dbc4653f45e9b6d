"""Shams have the edits of their profile on other experts, matched as the kind says, and are the same wherever drawn."""

from __future__ import annotations

from collections import Counter
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.harness.errors import MoteError
from mote.harness.inspect_ai.shams import check_kind, sham_profiles
from mote.harness.science.controls import ControlKind
from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile
from tests.test_docs import ROOT

LAYOUT = ModelLayout("Qwen3MoeForCausalLM", (1, 2, 5), 16, 4)
ONE = Profile("one", (Edit(1, 3, "suppress"), Edit(1, 4, "suppress"), Edit(5, 0, "suppress")), tokens="generated")
MIXED = Profile("mixed", (Edit(1, 3, "suppress"), Edit(1, 4, "stimulate"), Edit(5, 0, "scale", 0.5)))


def kinds_by_layer(profile: Profile) -> Counter[tuple[int, str, float]]:
    return Counter((edit.layer, edit.action, edit.factor) for edit in profile.canonical)


@given(st.integers(0, 2**31), st.sampled_from([ONE, MIXED]), st.integers(1, 12))
def test_by_layers_a_sham_edits_as_many_experts_of_each_layer_in_the_same_ways(
    seed: int, profile: Profile, count: int
) -> None:
    shams = sham_profiles(profile, LAYOUT, "layers", count, seed, "file.json")
    assert [sham.name for sham in shams] == [f"{profile.name}-sham-{number}" for number in range(1, count + 1)]
    assert all(kinds_by_layer(sham) == kinds_by_layer(profile) for sham in shams)
    assert all(sham.tokens == profile.tokens and sham.model == LAYOUT for sham in shams)
    assert len({sham.digest for sham in (*shams, profile)}) == count + 1
    # A log names a sham by its number alone.
    assert sham_profiles(profile, LAYOUT, "layers", 1, seed, "file.json")[0].digest == shams[0].digest


def test_a_uniform_sham_keeps_the_number_of_edits_and_not_their_layers() -> None:
    shams = sham_profiles(ONE, LAYOUT, "uniform", 40, 0, "file.json")
    assert {len(sham.canonical) for sham in shams} == {3}
    assert len({tuple(edit.layer for edit in sham.canonical) for sham in shams}) > 3


def test_shams_by_mass_take_a_run_and_remove_as_many_activations() -> None:
    source = f"{ROOT / 'results' / 'demo'}:suppress-10"
    from mote.harness.compare.run_answers import read_profile
    from mote.harness.experts.rankings import read_halves
    from mote.harness.recipe.manifest import read_manifest
    from mote.harness.store.run import RunStore

    profile = read_profile(source, "--profile ")
    assert profile.model is not None
    with RunStore(ROOT / "results" / "demo", read_only=True) as store:
        halves = read_halves(store, read_manifest(ROOT / "results" / "demo"))
    row = {layer: at for at, layer in enumerate(halves.layers)}

    def mass(one: Profile) -> float:
        return float(sum(halves.mass[row[edit.layer], edit.expert] for edit in one.canonical))

    for sham in sham_profiles(profile, profile.model, "mass", 5, 0, source):
        assert mass(sham) == pytest.approx(mass(profile), rel=0.05)


@pytest.mark.parametrize(
    ("profile", "kind", "count", "said"),
    [
        (EMPTY_PROFILE, "layers", 1, "edits nothing, so it has no shams"),
        (ONE, "layers", 0, "0 shams: there are from 1 to 200"),
        (ONE, "frequency", 1, "name the profile as RUN:PROFILE, or take layers or uniform"),
        (MIXED, "uniform", 1, "mixes 3 kinds of edits.*take layers or frequency"),
        (Profile("all", tuple(Edit(1, expert, "suppress") for expert in range(16))), "layers", 1, "shams of 'all'"),
        (
            Profile("most", tuple(Edit(1, expert, "suppress") for expert in range(15))),
            "layers",
            40,
            "only 15 other sets",
        ),
    ],
)
def test_what_has_no_shams_is_one_line(profile: Profile, kind: str, count: int, said: str) -> None:
    with pytest.raises(MoteError, match=said):
        sham_profiles(profile, LAYOUT, cast(ControlKind, kind), count, 0, "file.json")


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(MoteError, match=r"--kind layer is no kind of random experts\. Did you mean 'layers'"):
        check_kind("layer", "--kind ")
