"""The 600 sums of the paper's section 3.4."""

from __future__ import annotations

from collections import Counter

import pytest

from mote.tasks import Prompt, load_task
from mote.tasks.reasoning_language.sums import numbers, states_sum


@pytest.fixture(scope="module")
def sums() -> list[Prompt]:
    return load_task("reasoning_language")


def test_six_kinds_of_a_hundred_distinct_prompts(sums: list[Prompt]) -> None:
    assert len(sums) == len({p.text for p in sums}) == len({p.id for p in sums}) == 600
    assert set(Counter(p.attributes["kind"] for p in sums).values()) == {100}
    pairs = {(p.attributes["number_a"], p.attributes["number_b"]) for p in sums}
    assert pairs == {(a, b) for a in range(1, 11) for b in range(1, 11)}


def test_the_papers_words(sums: list[Prompt]) -> None:
    texts = {p.id.removeprefix("reasoning_language/"): p.text for p in sums}
    assert texts["english-plain/3-5"] == "What is 3 plus 5 equal to?"
    assert texts["english-chinese/3-5"] == "What is 3 plus 5 equal to? Please make sure to answer in Chinese."
    assert texts["english-english/10-1"] == "What is 10 plus 1 equal to? Please make sure to answer in English."
    assert texts["chinese-english/3-5"] == "3加5等于多少？请务必用英文回答。"


def test_the_languages_of_a_prompt(sums: list[Prompt]) -> None:
    kinds = {str(p.attributes["kind"]): (p.attributes["asked_language"], p.attributes["paper_language"]) for p in sums}
    assert kinds == {
        "english-plain": ("english", "english"),
        "english-english": ("english", "english"),
        "english-chinese": ("chinese", "english"),
        "chinese-plain": ("chinese", "chinese"),
        "chinese-english": ("english", "english"),
        "chinese-chinese": ("chinese", "chinese"),
    }
    assert Counter(p.attributes["paper_language"] for p in sums) == {"english": 400, "chinese": 200}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("8", True),
        ("3 plus 5 is equal to 8.", True),
        ("3 + 5 = **8**", True),
        ("3 plus 5 equals eight.", True),
        ("三加五等于八。", True),
        ("3加5等于8。", True),
        ("３加５等于８。", True),
        ("8 is the sum of 3 and 5.", True),
        ("First I thought 7, but it is 8.", True),
        ("It is eight, which is an even number, and one of my favourites.", True),
        ("答案是八，这是一个简单的加法。", True),
        ("3 plus 5 is 9.", False),
        ("It is not 8 but 9.", False),
        ("35", False),
        ("18", False),
        ("8.5", False),
        ("三加五等于十八。", False),
        ("八十", False),
        ("I cannot answer that.", False),
        ("", False),
    ],
)
def test_whether_an_answer_states_the_sum(answer: str, right: bool) -> None:
    assert states_sum(answer, 3, 5) is right


def test_every_sum_is_recognised_in_all_its_spellings(sums: list[Prompt]) -> None:
    english = ["two", "eleven", "twenty"]
    chinese = ["二", "十一", "二十"]
    for value, e, c in zip((2, 11, 20), english, chinese, strict=True):
        assert numbers(e) == numbers(c) == numbers(str(value)) == [value]
    for p in sums:
        a, b, total = (int(p.attributes[name]) for name in ("number_a", "number_b", "sum"))
        assert states_sum(f"{a} plus {b} is equal to {total}.", a, b)
        assert not states_sum(f"{a} plus {b} is equal to {total + 1}.", a, b)
