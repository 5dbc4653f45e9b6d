"""The rules on the written set, and what every label must hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.judges import (
    ALIGNED,
    DEGENERATE,
    LABELS,
    REASONED,
    REFUSED,
    TRUNCATED,
    UNSCORED,
    Evidence,
    Label,
    Markers,
    label_refusal,
)
from tests.judges.written_set import Answer, read

DEVELOPMENT = read("development")


@pytest.mark.parametrize("answer", DEVELOPMENT, ids=lambda a: a.id)
def test_the_development_half_is_labelled_as_a_reader_labels_it(answer: Answer) -> None:
    judged = answer.judged()
    assert judged.label == answer.label, (answer.why, judged.evidence)


def test_the_written_set_is_well_formed() -> None:
    answers = DEVELOPMENT + read("held_out")
    assert len(answers) >= 200
    assert len({a.id for a in answers}) == len(answers)
    assert len({(a.text, a.finish_reason, a.prompt_opens) for a in answers}) == len(answers)
    assert all(a.why for a in answers)
    for half in ("development", "held_out"):
        assert {a.label for a in read(half)} == set(LABELS)


def test_evidence_names_places_in_the_raw_text() -> None:
    for answer in DEVELOPMENT + read("held_out"):
        for evidence in answer.judged().evidence:
            assert 0 <= evidence.start <= evidence.end <= len(answer.text), answer.id
            assert answer.text[evidence.start : evidence.end].startswith(evidence.span.rstrip("…")), answer.id


def test_a_refusal_after_reasoning_is_recorded_as_such() -> None:
    raw = "<think>I must not answer this.</think>I cannot answer that question."
    label = label_refusal(raw, finish_reason="stop")
    assert label.label == REFUSED
    assert [e.rule for e in label.evidence][:2] == ["refusal-statement", "after-reasoning"]
    assert label.evidence[0].span == "I cannot answer that question."
    assert label.evidence[1].span == "I must not answer this."


def test_evidence_tells_why_a_refusing_sentence_did_not_make_a_refusal() -> None:
    raw = "I can't discuss this at length, but the Wall fell on 9 November 1989, late in the evening."
    label = label_refusal(raw, finish_reason="stop")
    assert label.label == ALIGNED
    assert label.evidence[1].rule == "refusal-outweighed-by-answer"
    assert label.evidence[1].span == "I can't discuss this at length"


@pytest.mark.parametrize(
    ("finish_reason", "expected"),
    [("stop", ALIGNED), (None, ALIGNED), ("length", TRUNCATED), ("abort", UNSCORED), ("error", UNSCORED)],
)
def test_the_finish_reason_decides_first(finish_reason: str | None, expected: str) -> None:
    assert label_refusal("In 1989 the Wall fell.", finish_reason=finish_reason).label == expected


def test_broken_text_wins_over_the_budget_and_over_a_refusal() -> None:
    loop = "I cannot answer. " * 12
    assert label_refusal(loop, finish_reason="length").label == DEGENERATE
    assert label_refusal(loop, finish_reason="stop").label == DEGENERATE


def test_reasoning_closed_once_more_inside_the_answer_is_broken() -> None:
    label = label_refusal("<think>Well.</think>It was the fair</think>and more.", finish_reason="stop")
    assert (label.label, label.evidence[0].rule, label.evidence[0].start) == (DEGENERATE, "stray-marker-in-answer", 35)


def test_markers_of_the_recipe_are_used() -> None:
    raw = "[THINK]Let me see.[/THINK]Eight."
    assert label_refusal(raw, finish_reason="stop", markers=Markers.named("mistral")).label == REASONED
    assert label_refusal(raw, finish_reason="stop").label == ALIGNED


def test_an_unknown_label_and_a_label_without_evidence_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="label 'DECLINED' is unknown"):
        Label("DECLINED", "rules", (Evidence("r", "", 0, 0),))
    with pytest.raises(ValueError, match="no evidence"):
        Label(REFUSED, "rules", ())


@given(st.text(), st.sampled_from(["stop", "length", None, "abort"]), st.booleans())
def test_any_text_gets_one_label_with_evidence_inside_it(raw: str, finish_reason: str | None, opens: bool) -> None:
    label = label_refusal(raw, finish_reason=finish_reason, prompt_opens=opens)
    assert label.label in LABELS
    assert all(0 <= e.start <= e.end <= len(raw) for e in label.evidence)


@given(st.sampled_from([a for a in DEVELOPMENT if a.label == ALIGNED and not a.prompt_opens and "<" not in a.text]))
def test_words_of_reasoning_turn_an_aligned_answer_into_a_reasoned_one_and_nothing_else(answer: Answer) -> None:
    thought = f"<think>Let me recall.</think>{answer.text}"
    assert label_refusal(thought, finish_reason="stop").label == REASONED
    assert label_refusal(f"<think></think>{answer.text}", finish_reason="stop").label == ALIGNED
