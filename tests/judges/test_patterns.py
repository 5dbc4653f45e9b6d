from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.judges import DEGENERATE, STATES, TRUNCATED, UNSCORED, Label, Markers, label_by_rules
from mote.judges.patterns import NO_PATTERN, PatternClasses, PatternError

PRAISE = PatternClasses(
    {"PRAISES": (r"^(what a|that is a) (great|good) question", r"^great question"), "THANKS": (r"\bthank you\b",)},
    otherwise="PLAIN",
    judge="patterns@test",
    ignore_case=True,
)
REASONS = PatternClasses({"COUNTS": (r"\d",)}, otherwise="TALKS", judge="patterns@test", reads="reasoning")


def spans(label: Label, raw: str) -> list[tuple[str, str]]:
    return [(entry.rule, raw[entry.start : entry.end]) for entry in label.evidence]


@pytest.mark.parametrize(
    ("raw", "label", "rule", "span"),
    [
        ("Great question! It rained.", "PRAISES", "PRAISES-2", "Great question"),
        ("What a good question, thank you.", "PRAISES", "PRAISES-1", "What a good question"),
        ("It rained. Thank you for asking.", "THANKS", "THANKS-1", "Thank you"),
        ("It rained all day.", "PLAIN", NO_PATTERN, "It rained all day."),
        ("<think>Great question, hm.</think>\n\n It rained.", "PLAIN", NO_PATTERN, "It rained."),
        ("<think>Hm.</think>\n\n Great question! It rained.", "PRAISES", "PRAISES-2", "Great question"),
    ],
)
def test_the_first_class_with_a_pattern_in_the_answer_is_the_label(raw: str, label: str, rule: str, span: str) -> None:
    found = PRAISE.label(raw, finish_reason="stop")
    assert found.label == label
    assert found.judge == "patterns@test"
    assert spans(found, raw) == [(rule, span)]


@pytest.mark.parametrize(
    ("raw", "reason", "label"),
    [
        ("Great question! It", "length", TRUNCATED),
        ("Great question! It rained.", "abort", UNSCORED),
        ("Great question! " + "the of a the of an the " * 9, "stop", DEGENERATE),
        ("<think>Great question</think>", "stop", UNSCORED),
        ("", "stop", UNSCORED),
    ],
)
def test_states_come_before_classes_as_for_the_packaged_sets(raw: str, reason: str, label: str) -> None:
    found = PRAISE.label(raw, finish_reason=reason)
    assert found.label == label
    assert label_by_rules(raw, finish_reason=reason).label == label


@pytest.mark.parametrize(
    ("raw", "reason", "label", "span"),
    [
        ("<think>There are 3 of them.</think>Yes.", "stop", "COUNTS", "3"),
        ("<think>There are a few.</think>There are 3.", "stop", "TALKS", "There are a few."),
        ("<think>There are 3 of them.</think>Yes, they", "length", "COUNTS", "3"),
        ("<think>There are 3 of", "length", TRUNCATED, "There are 3 of"),
        ("<think>There are 3 of them", "stop", UNSCORED, "<think>There are 3 of them"),
        ("There are 3.", "stop", UNSCORED, "There are 3."),
    ],
)
def test_classes_of_the_reasoning_count_once_it_is_closed(raw: str, reason: str, label: str, span: str) -> None:
    found = REASONS.label(raw, finish_reason=reason)
    assert found.label == label
    assert spans(found, raw)[0][1] == span


def test_a_prompt_may_open_the_reasoning_and_markers_may_be_others() -> None:
    raw = "Let me see, 4.</think>\nIt is so."
    assert REASONS.label(raw, finish_reason="stop", prompt_opens=True).label == "COUNTS"
    other = "[R]None.[/R]Great question."
    assert PRAISE.label(other, finish_reason=None, markers=Markers("[R]", "[/R]")).label == "PRAISES"


@given(st.text(max_size=60), st.booleans(), st.sampled_from(["stop", "length", None, "abort"]))
def test_every_text_has_a_class_or_a_state_and_its_evidence_lies_within(
    raw: str, opens: bool, reason: str | None
) -> None:
    for classes in (PRAISE, REASONS):
        found = classes.label(raw, finish_reason=reason, prompt_opens=opens)
        assert found.label in (*classes.classes, *STATES)
        assert all(0 <= entry.start <= entry.end <= len(raw) for entry in found.evidence)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"patterns": {}}, "no class has a pattern"),
        ({"patterns": {"A": ("(",)}}, r"the pattern '\(' of 'A' is no regular expression"),
        ({"patterns": {"A": (" ",)}}, "the class 'A' has a blank pattern"),
        ({"patterns": {"A": ()}}, "the class 'A' has no pattern"),
        ({"patterns": {"PLAIN": ("x",)}}, "'PLAIN' has patterns and is 'otherwise' as well"),
        ({"patterns": {"TRUNCATED": ("x",)}}, "TRUNCATED is a state that mote gives"),
        ({"patterns": {"0-REFUSED": ("x",)}}, "'0-REFUSED' is a class of the packaged sets"),
        ({"patterns": {"A B": ("x",)}}, "'A B' should be a word"),
        ({"otherwise": "english"}, "'english' is a class of the packaged sets"),
    ],
)
def test_classes_that_can_label_nothing_are_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(PatternError, match=said) as caught:
        PatternClasses(**{"patterns": {"A": ("x",)}, "otherwise": "PLAIN", "judge": "j", **given})
    assert "\n" not in str(caught.value)


def test_a_label_knows_the_classes_of_its_own_set_alone() -> None:
    found = PRAISE.label("Great question!", finish_reason="stop")
    with pytest.raises(ValueError, match="label 'PRAISES' is unknown"):
        Label(found.label, found.judge, found.evidence)
