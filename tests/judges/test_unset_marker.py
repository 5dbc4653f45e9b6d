from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.judges import MARKERS, Markers, split_reasoning, unset_marker

THINK, HARMONY = Markers(), Markers(harmony=True)


@pytest.mark.parametrize(
    ("raw", "markers", "said"),
    [
        ("◁think▷It is about 1989.◁/think▷In 1989.", THINK, "reads '<think>' and '</think>': set markers: kimi-vl."),
        ("<|channel>thought\nA year.<channel|>It was in 1989.", THINK, "set markers: gemma."),
        ("It is about 1989.</seed:think>In 1989.", THINK, "set markers: seed."),
        ("<|channel|>analysis<|message|>A year.<|end|>", THINK, "set markers: harmony."),
        ("<think>A year.</think>In 1989.", HARMONY, "the recipe reads the harmony channels: set markers: think."),
        ("<|begin_of_thought|>A year.", THINK, "'<|begin_of_thought|>', and the recipe reads"),
        ("[REASONING] A year.", THINK, "set what opens and closes the reasoning under markers."),
    ],
)  # fmt: skip
def test_a_marker_that_is_not_read_is_named(raw: str, markers: Markers, said: str) -> None:
    found = unset_marker([raw, raw, "In 1989."], markers)
    assert found is not None
    assert found.startswith("2 of 3 answers have the marker")
    assert said in found


@pytest.mark.parametrize(
    "raw",
    [
        "<think>A year.</think>In 1989.",
        "A year.</think>In 1989.",
        "<p>It was in 1989.</p>",
        "[Your name] writes in 1989.",
        "<html><body>1989</body></html>",
        "The tag '◁/think▷' closes what Kimi-VL thinks.",
        "I think it was in 1989.",
        "",
    ],
)
def test_what_is_read_or_is_no_marker_says_nothing(raw: str) -> None:
    assert unset_marker([raw], THINK) is None


def test_one_answer_of_many_is_no_format() -> None:
    assert unset_marker(["<thinking>Hm.</thinking>Yes."] + ["Yes."] * 30, THINK) is None
    assert unset_marker([], THINK) is None


@given(st.sampled_from(sorted(MARKERS)), st.text("abc ", min_size=1).filter(str.strip))
def test_every_known_format_is_read_by_its_own_name_alone(name: str, text: str) -> None:
    markers = MARKERS[name]
    raw = (
        f"<|channel|>analysis<|message|>{text}<|end|>"
        if markers.harmony
        else f"{markers.open}{text}{markers.close}1989"
    )
    assert unset_marker([raw], markers) is None
    assert split_reasoning(raw, markers).reasoning == text.strip()
    other = THINK if markers.open != THINK.open or markers.harmony else HARMONY
    assert unset_marker([raw], other) is not None
