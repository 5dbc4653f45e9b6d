"""Broken text, and sound text that only looks like it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.judges.degenerate import MAX_PERIOD, faults

SOUND = [
    "PM2.5 levels exceeded 900 µg/m³ in the north, against a limit of 25 µg/m³.",
    "Coal plants emit CO₂, SO₂ and NOₓ.",
    "排放 CO₂、SO₂、NOₓ 等大气污染物。",
    "步骤：①打开②关闭③重启。",
    "Chapters Ⅴ, Ⅵa and Ⅶ of the treaty, and 2ª and 3ª edição of its translation.",
    "½cup of flour, ¾cup of milk, ⅓cup of sugar and 5㎏of rice at 20℃ for ten people.",
    "Hawaiʻi, Oʻahu, Kauaʻi and Molokaʻi are islands.",
    "No, no, no!",
    "Ha ha ha ha ha ha ha!",
    "哈哈哈，好的。",
    "It was very very cold.",
    "That that is, is; that that is not, is not.",
    "0, 0, 0, 1",
    "2 + 2 = 4",
    "Paris",
    "是",
    "谢谢谢谢",
    "He said that he had had enough of it.",
    "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 1 | 3 |\n| 1 | 4 |",
    "```\n0 0 0 0 0 0 0 0 0 0\n0 0 0 0 0 0 0 0 0 0\n```\nThis is the zero matrix of two rows.",
    "The letter μ stands for a mean, σ for a deviation, and μσ for their product.",
    "北京的Olympics在2008年举办，很多people参加。",
    "The vllm and tqdm packages are installed with pip.",
    "Section A\n=================================\n\nText follows here.",
    "I am sorry, I cannot answer that question. I am sorry, I cannot answer that question.",
    "hahahahahahahahahahaha",
    "A trillion is 1000000000000, and pi is 3.14159265358979323846.",
    "World War I and the reign of Elizabeth I are two chapters of the book.",
    "An hour ago, an MP and a one-armed man gave a European a uniform.",
    "Vitamin A is in carrots. Point a. comes first, point b. second.",
    "PyTorch, NumPy, GitHub and JavaScript are names written together.",
    "Use sha256, utf8 and python3 with xxh128 on aarch64.",
    "The prime numbers below thirty are 2, 3, 5, 7, 11, 13, 17, 19, 23 and 29.",
    "A is for apple, B is for ball, and Z is for zebra.",
    "\n".join(f"{a} times {b} is {a * b}." for a in range(1, 10) for b in range(1, 10)),
]

VERSES = (
    "The mail came late,\nI stood at the gate",
    "A dog ran by,\nnobody knew why",
    "The shops were shut,\nmy hand was cut",
    "It rained till nine,\nthe roof was fine",
)
CHORUS = (
    "But I would walk a thousand miles and you would never know,\n"
    "and I would walk a thousand more in rain and wind and snow."
)
SONG = "\n\n".join(f"{verse}\n\n{CHORUS}" for verse in VERSES)
SOUND += [
    SONG,
    "We are the spinnеrs, my friends, with smiles that never еnd, and the spinnеrs are here to stay.",  # Cyrillic е
]


@pytest.mark.parametrize("text", SOUND)
def test_sound_text_has_no_fault(text: str) -> None:
    assert not faults(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("I am am am", "loop"),
        ("the the the", "loop"),
        ("啊啊啊的的的的的的的的", "loop"),
        ("It is so. It is so. It is so.", "loop"),
        ("In 2020, the fair was 2525252525252525252525252525", "loop"),
        ("111111111111111111", "loop"),
        ("In to was", "clashing-function-words"),
        ("There was an tree and an market, and I the end of.", "clashing-function-words"),
        ("What happened inMany books. What happened wasI recall. Here theI am the3 of it.", "run-together"),
        ("A good start is made here, with many words. " + "and then " * 10, "loop"),
        ("The city of the in was a to an of the and by of.", "clashing-function-words"),
        ("的是了在和的是在了的和是了", "particles"),
        ("xkcdq wrtzp lmnbv is here", "unpronounceable"),
        ("caf\ufffd\ufffd and t\ufffd", "replacement-characters"),
        ("aб вc dф some text", "mixed-scripts"),
        ("calendarантаuos and spinнеrs of the пnight", "mixed-scripts"),
        ("{}[]<>();:!?/{}[]<>();:!?/", "symbols"),
        (
            " ".join(f"The number {i} city was large and the people were happy ." for i in range(40)),
            "repeated-sequences",
        ),
        (" ".join(f"The number {i} city was large and the people were happy ." for i in range(200)), "compressible"),
        (
            "walnut seventeen purple ladder engine quickly harbour melting opinion sugar falling minister",
            "no-function-words",
        ),
        ("\n".join(["We are the ones who walk the line at night.", "All of us."] * 12), "repeated-sequences"),
    ],
)
def test_broken_text_fails_the_measure_made_for_it(text: str, rule: str) -> None:
    assert rule in {fault.rule for fault in faults(text)}


WORDS = [
    f"{a}{b}{c}"
    for a in ("ba", "ce", "di")
    for b in ("fo", "gu", "ha", "je")
    for c in ("ki", "lo", "mu", "na", "pe", "ri")
]


@given(st.integers(1, MAX_PERIOD), st.integers(0, 10_000))
def test_any_unit_in_a_long_loop_is_found(period: int, seed: int) -> None:
    shuffled = random.Random(seed)  # noqa: S311 - a test's shuffle
    unit = " ".join(shuffled.sample(WORDS, period))
    text = "A short opening sentence. " + f"{unit} " * (4 + 40 // period)
    found = faults(text)
    assert "loop" in {fault.rule for fault in found}
    assert all(0 <= fault.start < fault.end <= len(text) for fault in found)


@given(st.integers(1, 40), st.integers(0, 10_000))
def test_different_words_in_any_number_are_no_loop(count: int, seed: int) -> None:
    shuffled = random.Random(seed)  # noqa: S311 - a test's shuffle
    text = " ".join(shuffled.sample(WORDS, count))
    assert not {"loop", "repeated-sequences", "compressible"} & {fault.rule for fault in faults(text)}


@given(st.text())
def test_faults_lie_inside_the_text(text: str) -> None:
    assert all(0 <= fault.start <= fault.end <= len(text) for fault in faults(text))
