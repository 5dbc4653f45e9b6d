"""Reasoning and answer apart, by every kind of marker."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mote.judges import MARKERS, Markers, split_reasoning
from mote.judges.reasoning import raw_span

PLAIN = st.text(st.characters(exclude_characters="<>|`\"'“‘「”’」[]", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("raw", "prompt_opens", "reasoning", "answer", "opened", "closed"),
    [
        ("<think>a</think>b", False, "a", "b", True, True),
        ("<think></think>b", False, "", "b", True, True),
        ("\n<think>\n a \n</think>\n\nb\n", False, "a", "b", True, True),
        ("b", False, "", "b", False, False),
        ("", False, "", "", False, False),
        ("a</think>b", False, "a", "b", True, True),
        ("</think>b", True, "", "b", True, True),
        ("a</think>b", True, "a", "b", True, True),
        ("<think>a</think>b", True, "a", "b", True, True),
        ("a", True, "a", "", True, False),
        ("<think>a", False, "a", "", True, False),
        ("<think>a</think><think>b</think>c", False, "a\nb", "c", True, True),
        ("Sure. <think>a</think>b", False, "a", "Sure.\nb", True, True),
        ("The tag <think> opens it.", False, "", "The tag <think> opens it.", False, False),
        ("It writes `</think>` at the end.", False, "", "It writes `</think>` at the end.", False, False),
    ],
)
def test_think_markers(raw: str, prompt_opens: bool, reasoning: str, answer: str, opened: bool, closed: bool) -> None:
    split = split_reasoning(raw, prompt_opens=prompt_opens)
    assert (split.reasoning, split.answer, split.opened, split.closed) == (reasoning, answer, opened, closed)


@pytest.mark.parametrize(
    ("raw", "reasoning", "answer", "closed"),
    [
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
            "a",
            "b",
            True,
        ),
        ("<|channel|>final<|message|>b<|return|>", "", "b", False),
        ("<|channel|>analysis<|message|>a", "a", "", False),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=f <|constrain|>json"
            "<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>b",
            "a",
            "b",
            True,
        ),
        ("analysisaassistantfinalb", "a", "b", True),
        ("just text", "", "just text", False),
    ],
)
def test_harmony_channels(raw: str, reasoning: str, answer: str, closed: bool) -> None:
    split = split_reasoning(raw, MARKERS["harmony"])
    assert (split.reasoning, split.answer, split.closed) == (reasoning, answer, closed)
    assert split.opened == bool(reasoning)


@given(PLAIN, PLAIN, st.sampled_from([m for m in MARKERS.values() if not m.harmony]))
def test_what_is_joined_by_markers_is_split_again(reasoning: str, answer: str, markers: Markers) -> None:
    for raw, opens in (
        (f"{markers.open}{reasoning}{markers.close}{answer}", False),
        (f"{reasoning}{markers.close}{answer}", True),
        (f"{reasoning}{markers.close}{answer}", False),
    ):
        split = split_reasoning(raw, markers, opens)
        assert (split.reasoning, split.answer) == (reasoning.strip(), answer.strip())
        assert split.opened
        assert split.closed


@given(st.lists(PLAIN, min_size=1, max_size=5), st.booleans())
def test_spans_point_at_the_text_that_was_split_off(parts: list[str], opens: bool) -> None:
    raw = "".join(f"{part}{marker}" for part, marker in zip(parts, ["<think>", "</think>"] * 3, strict=False))
    split = split_reasoning(raw, prompt_opens=opens)
    for text, spans in ((split.reasoning, split.reasoning_spans), (split.answer, split.answer_spans)):
        assert "\n".join(raw[a:b] for a, b in spans) == text
        for place, character in enumerate(text):
            start, end = raw_span(spans, place, place + 1)
            assert raw[start:end] == character or (character == "\n" and end - start <= 1)


@given(PLAIN)
def test_reasoning_counts_when_there_is_a_word_in_it(reasoning: str) -> None:
    assume(reasoning)
    split = split_reasoning(f"<think>{reasoning}</think>x")
    assert split.reasoned == any(c.isalnum() for c in reasoning)


def test_wrong_markers_are_named() -> None:
    with pytest.raises(ValueError, match="'thinkin' are unknown. Did you mean 'thinking'"):  # noqa: RUF043
        Markers.named("thinkin")
    with pytest.raises(ValueError, match="two different, non-blank strings"):
        Markers(open="", close="</think>")
    with pytest.raises(ValueError, match="two different, non-blank strings"):
        Markers(open="##", close="##")


REFUSING = "<|channel|>analysis<|message|>So refuse.<|end|>"


@pytest.mark.parametrize(
    ("raw", "reasoning", "answer"),
    [
        # openai/harmony issue 80: refusals that lack the final channel's header, or its end.
        (f"{REFUSING}<|start|>assistantI’m sorry, no.<|return|>", "So refuse.", "I’m sorry, no."),
        (f"{REFUSING}<|start|>assistant<|message|>I’m sorry, no.", "So refuse.", "I’m sorry, no."),
        (f"{REFUSING}<|start|>assistant<|channel|>final I’m sorry, no.<|return|>", "So refuse.", "I’m sorry, no."),
        # A preamble is shown to the user; a call of a tool is not, with or without an answer after it.
        (f"{REFUSING}<|start|>assistant<|channel|>commentary<|message|>In 1989.<|end|>", "So refuse.", "In 1989."),
        ("<|channel|>commentary<|message|>I look.<|end|><|channel|>final<|message|>In 1989.", "", "In 1989."),
        ("<|channel|>commentary to=functions.find <|constrain|>json<|message|>{}<|call|>", "", ""),
        ("<|start|>assistant to=functions.find<|channel|>commentary<|message|>{}<|call|>", "", ""),
        ("finalIn 1989.", "", "In 1989."),
        ("final words of 1989", "", "final words of 1989"),
        ("In 1989.<|return|>", "", "In 1989."),
    ],
)  # fmt: skip
def test_harmony_with_parts_of_its_headers_missing(raw: str, reasoning: str, answer: str) -> None:
    split = split_reasoning(raw, Markers(harmony=True))
    assert (split.reasoning, split.answer) == (reasoning, answer)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("hunyuan", "<think>\nA year.\n</think>\n<answer>\nIn 1989.\n</answer>"),
        ("ernie", "A year.\n</think>\n\n<response>\nIn 1989.\n</response>\n"),
        ("cohere", "<|START_THINKING|>A year.<|END_THINKING|><|START_RESPONSE|>In 1989.<|END_RESPONSE|>"),
        ("cohere", "<|START_THINKING|>A year.<|END_THINKING|><|START_RESPONSE|>In 1989."),
        ("cohere-plus", "<|START_THINKING|>A year.<|END_THINKING|><|START_TEXT|>In 1989.<|END_TEXT|>"),
        ("gemma", "<|channel>thought\nA year.<channel|>In 1989."),
        ("granite", "Here is my thought process: A year. Here is my response: In 1989."),
    ],
)
def test_tags_around_the_answer_are_no_part_of_it(name: str, raw: str) -> None:
    split = split_reasoning(raw, Markers.named(name))
    assert (split.reasoning, split.answer) == ("A year.", "In 1989.")
    ((start, end),) = split.answer_spans
    assert raw[start:end] == "In 1989."
