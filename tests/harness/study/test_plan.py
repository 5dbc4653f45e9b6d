from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mote.harness.errors import MoteError
from mote.harness.recipe.study_part import WITHOUT_ECONOMY, ControlsPart, StudyPart
from mote.harness.study.plan import Plan, baseline_row, check_split, check_study, make_plan, profile_of
from mote.patches import EMPTY_PROFILE, ModelLayout

LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 2, 5), 16, 2)
CONTROLS = ControlsPart(retest=2, uniform=3, layers=2, frequency=2, mass=1)


def maps_and_labels(seed: int, prompts: int = 40) -> tuple[NDArray[np.int32], dict[str, str]]:
    """Every second prompt is refused, and experts (1, 3) and (5, 7) see refused ones more often."""
    maps = np.random.default_rng(seed).integers(0, 5, (prompts, 3, 16)).astype(np.int32)
    labels = {f"t/{i}": "0-REFUSED" if i % 2 else "2-REASONED" for i in range(prompts)}
    maps[1::2, 0, 3] += 9
    maps[1::2, 2, 7] += 20
    return maps, labels


def plan_of(study: StudyPart, seed: int = 0) -> Plan:
    maps, labels = maps_and_labels(seed)
    return make_plan(study, LAYOUT, labels, maps, sampling_seed=11)


def experts_of(plan: Plan, name: str) -> list[tuple[int, int]]:
    row = next(row for row in plan.profiles if row.name == name)
    return [(edit.layer, edit.expert) for edit in profile_of(row).edits]


def test_the_planted_experts_are_suppressed_and_layers_are_the_models_own() -> None:
    assert experts_of(plan_of(StudyPart(top_k=2, controls=CONTROLS)), "suppress-2") == [(5, 7), (1, 3)]


def test_the_plan_names_every_profile_once_with_its_kind_and_part() -> None:
    plan = plan_of(StudyPart(top_k=2, doses=[1, 2, 4], stimulate=True, controls=CONTROLS))
    assert [(row.name, row.kind, row.part, row.seed) for row in plan.profiles] == [
        ("retest-1", "retest", "all", 12),
        ("retest-2", "retest", "measure", 13),
        ("suppress-2", "suppress", "all", 11),
        ("suppress-1", "suppress", "all", 11),
        ("suppress-4", "suppress", "all", 11),
        ("stimulate-2", "stimulate", "all", 11),
        *((f"random-uniform-0{i}", "random-uniform", "targets", 11) for i in (1, 2, 3)),
        *((f"random-layers-0{i}", "random-layers", "targets", 11) for i in (1, 2)),
        *((f"random-frequency-0{i}", "random-frequency", "targets", 11) for i in (1, 2)),
        ("random-mass-01", "random-mass", "targets", 11),
    ]
    assert {row.digest for row in plan.profiles if row.kind == "retest"} == {EMPTY_PROFILE.digest}
    assert baseline_row(11).digest == EMPTY_PROFILE.digest


def test_factors_scale_the_same_experts_on_the_measured_half() -> None:
    plan = plan_of(StudyPart(top_k=2, factors=[2, 0.5, 0.5], controls=CONTROLS))
    rows = [row for row in plan.profiles if row.kind == "scale"]
    assert [(row.name, row.part) for row in rows] == [("scale-2-0.5", "measure"), ("scale-2-2", "measure")]
    for row, factor in zip(rows, (0.5, 2.0), strict=True):
        assert experts_of(plan, row.name) == experts_of(plan, "suppress-2")
        assert {(edit.action, edit.factor) for edit in profile_of(row).edits} == {("scale", factor)}


def test_thirds_share_out_the_tuned_experts_and_leave_out_what_is_empty_or_all() -> None:
    plan = plan_of(StudyPart(top_k=2, thirds=True, controls=CONTROLS))
    rows = {row.name: row for row in plan.profiles if row.kind == "third"}
    assert {name: experts_of(plan, name) for name in rows} == {"early-1": [(1, 3)], "late-1": [(5, 7)]}
    alone = plan_of(StudyPart(experts=[(2, 9), (2, 4)], thirds=True, controls=CONTROLS))
    assert not [row for row in alone.profiles if row.kind == "third"]


def test_experts_are_chosen_on_one_half_alone() -> None:
    """What the measured half looks like must not reach the choice: shuffling its maps changes nothing."""
    study = StudyPart(top_k=5, controls=CONTROLS)
    maps, labels = maps_and_labels(3)
    plan = make_plan(study, LAYOUT, labels, maps, 0)
    measured = np.array([plan.split[prompt] == "measure" for prompt in labels])
    other = maps.copy()
    other[measured] = np.random.default_rng(1).integers(0, 100, other[measured].shape)
    again = make_plan(study, LAYOUT, labels, other, 0)
    assert again == plan
    halves = [sum(plan.split[p] == part and labels[p] == "0-REFUSED" for p in labels) for part in ("select", "measure")]
    assert halves == [10, 10]


def test_without_a_split_all_prompts_choose_and_measure() -> None:
    plan = plan_of(StudyPart(top_k=2, split="none", controls=CONTROLS))
    assert plan.split == {}
    assert {row.part for row in plan.profiles} == {"all", "targets"}


def test_with_units_no_place_both_chooses_and_measures() -> None:
    study = StudyPart(top_k=2, split="units", controls=CONTROLS)
    maps, labels = maps_and_labels(0)
    places = {prompt: "ABCDE"[number % 5] for number, prompt in enumerate(labels)}
    plan = make_plan(study, LAYOUT, labels, maps, 0, places)
    sides = {part: {places[p] for p, at in plan.split.items() if at == part} for part in ("select", "measure")}
    assert not sides["select"] & sides["measure"]
    assert sides["select"] | sides["measure"] == set("ABCDE")
    assert {row.part for row in plan.profiles if row.kind.startswith("random-")} == {"targets"}
    assert experts_of(plan, "suppress-2") == [(5, 7), (1, 3)]


def test_a_split_by_units_is_refused_where_it_cannot_measure() -> None:
    study = StudyPart(top_k=2, split="units", controls=CONTROLS)
    maps, labels = maps_and_labels(0)
    # Every second prompt is refused, so with two places one of them has all refusals.
    places = {prompt: "AB"[number % 2] for number, prompt in enumerate(labels)}
    with pytest.raises(MoteError, match=r"study\.split: units leaves no 0-REFUSED prompt to (select|measure) on"):
        make_plan(study, LAYOUT, labels, maps, 0, places)
    check_split(study, places)
    for units in ({}, dict.fromkeys(labels, "A")):
        with pytest.raises(MoteError, match=r"study\.split: units needs prompts of at least two places"):
            check_split(study, units)
        check_split(StudyPart(controls=CONTROLS), units)


def test_more_controls_of_one_kind_leave_the_others_as_they_were() -> None:
    few = plan_of(StudyPart(top_k=2, controls=CONTROLS))
    many = plan_of(StudyPart(top_k=2, controls=CONTROLS.model_copy(update={"uniform": 9})))
    for name in ("random-layers-01", "random-frequency-02"):
        assert experts_of(few, name) == experts_of(many, name)


def test_named_experts_stand_in_for_the_ranking() -> None:
    plan = plan_of(StudyPart(experts=[(2, 9)], top_k=4, controls=CONTROLS))
    assert experts_of(plan, "suppress-1") == [(2, 9)]
    assert len(experts_of(plan, "random-uniform-01")) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 5))
def test_the_same_rows_give_the_same_plan_and_no_control_is_the_tuned_set(seed: int, k: int) -> None:
    study = StudyPart(top_k=k, seed=seed, controls=CONTROLS)
    plan = plan_of(study)
    assert plan == plan_of(study)
    tuned = set(experts_of(plan, f"suppress-{k}"))
    for row in plan.profiles:
        if row.kind.startswith("random-"):
            drawn = experts_of(plan, row.name)
            assert tuned != set(drawn)
            if row.kind != "random-mass":
                assert len(set(drawn)) == k


def test_without_economy_random_sets_answer_what_measures() -> None:
    plan = plan_of(StudyPart(top_k=2, controls=CONTROLS, economy=WITHOUT_ECONOMY))
    assert {row.part for row in plan.profiles if row.kind.startswith("random-")} == {"measure"}


def test_more_than_99_sets_have_three_digits() -> None:
    controls = ControlsPart(retest=0, mass=0, layers=0, uniform=100)
    names = [row.name for row in plan_of(StudyPart(top_k=2, controls=controls)).profiles][1:]
    assert (names[0], names[-1], names == sorted(names)) == ("random-uniform-001", "random-uniform-100", True)


def test_mass_controls_are_chosen_as_often_by_the_class_under_study_on_the_choosing_half() -> None:
    study = StudyPart(top_k=2, controls=ControlsPart(retest=0, mass=20, layers=0))
    maps, labels = maps_and_labels(0)
    plan = make_plan(study, LAYOUT, labels, maps, 0)
    chose = np.array([plan.split[p] == "select" and label == "0-REFUSED" for p, label in labels.items()])
    mass = maps[chose].sum(axis=0)
    tuned, *drawn = (
        sum(int(mass[LAYOUT.layers.index(layer), expert]) for layer, expert in experts_of(plan, row.name))
        for row in plan.profiles
    )
    assert np.abs(np.array(drawn) / tuned - 1).max() < 0.25
    assert abs(float(np.mean(drawn)) / tuned - 1) < 0.05


def test_more_experts_than_have_a_positive_score_are_refused_with_the_number_that_have() -> None:
    maps, labels = maps_and_labels(0)
    with pytest.raises(MoteError, match=r"study\.top_k: 48 experts, but only \d+ .* go on in the same folder"):
        make_plan(StudyPart(top_k=48, controls=CONTROLS), LAYOUT, labels, maps, 0)
    with pytest.raises(MoteError, match=r"study\.doses \(47\): 47 experts"):
        make_plan(StudyPart(top_k=2, doses=[47], controls=CONTROLS), LAYOUT, labels, maps, 0)


def test_a_class_that_did_not_occur_is_said_with_the_counts() -> None:
    maps, labels = maps_and_labels(0)
    with pytest.raises(MoteError, match=r"no 1-ALIGNED answer \(it gave 0-REFUSED 20, 2-REASONED 20\)"):
        make_plan(StudyPart(target="1-ALIGNED", controls=CONTROLS), LAYOUT, labels, maps, 0)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (StudyPart(top_k=49), "study.top_k: 49 experts, but Glm4MoeForCausalLM has 48 routed experts"),
        (StudyPart(doses=[1, 99]), "study.doses.1: 99 experts"),
        (StudyPart(experts=[(3, 0)]), "the nearest that has is 2"),
        (StudyPart(experts=[(5, 16)]), "the nearest is 15"),
        (StudyPart(experts=[]), "study.experts is empty"),
    ],
)
def test_experts_that_a_model_does_not_have_are_refused_before_anything_is_loaded(study: StudyPart, said: str) -> None:
    with pytest.raises(MoteError, match=said):
        check_study(study, LAYOUT)


def test_an_expert_that_is_named_twice_is_refused_before_anything_is_generated() -> None:
    with pytest.raises(MoteError, match=r"study\.experts: the expert \(2, 9\) is listed twice"):
        check_study(StudyPart(experts=[(2, 9), (2, 4), (2, 9)], controls=CONTROLS), LAYOUT)
