"""Reasoning and answer apart, by the model's own markers.

A generation may open its reasoning itself (``<think>``), or the chat template may have opened it in the prompt, so that
the text begins inside it; it may use other markers, given by the recipe, or the channels of the harmony format. Some
models put tags around the answer as well; those are no part of it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mote.judges.harmony import channels

Span = tuple[int, int]

_JOINT = "\n"


@dataclass(frozen=True)
class Markers:
    """What encloses the reasoning. With ``harmony`` the channels of that format are read instead of the two markers.

    ``answer`` is what the model writes before and after its answer, ("", "") where it writes nothing.
    """

    open: str = "<think>"
    close: str = "</think>"
    harmony: bool = False
    answer: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        if not self.open.strip() or not self.close.strip() or self.open == self.close:
            raise ValueError(
                f"reasoning markers {self.open!r} and {self.close!r}: two different, non-blank strings are needed, "
                "such as '<think>' and '</think>'."
            )

    @classmethod
    def named(cls, name: str) -> Markers:
        """Return the markers known as ``name`` (see ``MARKERS``); raise ValueError with the nearest known name."""
        if name not in MARKERS:
            close = difflib.get_close_matches(name, MARKERS, n=1, cutoff=0.4)
            hint = f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(MARKERS)}."
            raise ValueError(f"reasoning markers '{name}' are unknown.{hint}")
        return MARKERS[name]


# Each pair as its model writes it; the sources are vLLM 0.32's parsers (vllm/reasoning, vllm/parser) unless others are
# named. DeepSeek-R1, Qwen3, GLM-4.5, MiniMax-M2 and most others write <think>.
MARKERS: Mapping[str, Markers] = MappingProxyType(
    {
        "think": Markers(),
        "thinking": Markers("<thinking>", "</thinking>"),
        "mistral": Markers("[THINK]", "[/THINK]"),
        "seed": Markers("<seed:think>", "</seed:think>"),
        # The model card of moonshotai/Kimi-VL-A3B-Thinking-2506, extract_thinking_and_summary.
        "kimi-vl": Markers("◁think▷", "◁/think▷"),
        # cohere_command.py: Command A Reasoning writes START_RESPONSE, Command A Plus START_TEXT.
        "cohere": Markers("<|START_THINKING|>", "<|END_THINKING|>", answer=("<|START_RESPONSE|>", "<|END_RESPONSE|>")),
        "cohere-plus": Markers("<|START_THINKING|>", "<|END_THINKING|>", answer=("<|START_TEXT|>", "<|END_TEXT|>")),
        # gemma4_utils.py: the channel opens with the name of its role.
        "gemma": Markers("<|channel>thought", "<channel|>"),
        "hunyuan": Markers(answer=("<answer>", "</answer>")),  # hunyuan_a13b_reasoning_parser.py
        "ernie": Markers(answer=("<response>", "</response>")),  # ernie45_reasoning_parser.py
        "granite": Markers("Here is my thought process:", "Here is my response:"),  # granite_reasoning_parser.py
        "minimax-m3": Markers("<mm:think>", "</mm:think>"),  # minimax_m3_reasoning_parser.py
        "harmony": Markers(harmony=True),
    }
)


@dataclass(frozen=True)
class ReasoningSplit:
    """Reasoning and answer of one generation, outer blanks removed, each with its spans in the raw text.

    ``opened``: reasoning was opened, by the text or by the prompt, be it empty. ``closed``: and it was closed again.
    Several spans are joined by a line break in ``reasoning`` and ``answer``.
    """

    reasoning: str
    answer: str
    opened: bool
    closed: bool
    reasoning_spans: tuple[Span, ...] = ()
    answer_spans: tuple[Span, ...] = ()

    @property
    def reasoned(self) -> bool:
        """Whether reasoning was entered: ``<think></think>``, blanks or mere punctuation between them is none."""
        return has_word(self.reasoning)


def has_word(text: str) -> bool:
    """Whether ``text`` holds at least one letter or digit of any script."""
    return any(c.isalnum() for c in text)


def raw_span(spans: tuple[Span, ...], start: int, end: int) -> Span:
    """Return where ``[start:end]`` of the joined text of ``spans`` lies in the raw text."""
    return _raw_offset(spans, start), _raw_offset(spans, end - 1) + 1 if end > start else _raw_offset(spans, start)


def _raw_offset(spans: tuple[Span, ...], offset: int) -> int:
    for start, end in spans:
        if offset < end - start:
            return start + offset
        offset -= end - start + len(_JOINT)
        if offset < 0:
            return end
    return spans[-1][1] if spans else 0


def split_reasoning(raw: str, markers: Markers | None = None, prompt_opens: bool = False) -> ReasoningSplit:
    """Split a generation into reasoning and answer.

    ``prompt_opens``: the chat template ends inside the reasoning (DeepSeek-R1's newer template, the demo model), so the
    text begins there and an answer without reasoning begins with the closing marker. A closing marker with no
    opening one before it is read the same way even without ``prompt_opens``, as vLLM's reasoning parsers do.
    Markers inside backticks or quotation marks are text, not markers.
    """
    markers = Markers() if markers is None else markers
    if markers.harmony:
        return _joined(raw, *channels(raw))
    reasoning: list[Span] = []
    answer: list[Span] = []
    inside = prompt_opens or _closes_unopened(raw, markers)
    opened, position = inside, 0
    if inside and (again := re.match(rf"\s*{re.escape(markers.open)}", raw)):
        position = again.end()  # the model wrote the opener that the prompt had given
    while True:
        found = find_marker(raw, markers.close if inside else markers.open, position)
        if not inside and found >= 0 and has_word(raw[position:found]) and find_marker(raw, markers.close, found) < 0:
            found = -1  # an answer that names the opening marker has not begun to reason
        (reasoning if inside else answer).append((position, len(raw) if found < 0 else found))
        if found < 0:
            break
        position = found + len(markers.close if inside else markers.open)
        inside = not inside
        opened = True
    return _joined(raw, reasoning, _untagged(raw, answer, markers.answer), opened, opened and not inside)


def _untagged(raw: str, answer: list[Span], tags: tuple[str, str]) -> list[Span]:
    """Take the tags of the answer off the first span's beginning and the last one's end."""
    spans = [span for span in answer if raw[span[0] : span[1]].strip()]
    if not spans or not all(tags):
        return answer
    start, end = _trimmed(raw, spans[0])
    if raw.startswith(tags[0], start, end):
        spans[0] = (start + len(tags[0]), end)
    start, end = _trimmed(raw, spans[-1])
    if raw.endswith(tags[1], start, end):
        spans[-1] = (start, end - len(tags[1]))
    return spans


def find_marker(raw: str, marker: str, position: int = 0) -> int:
    """Return the next place of ``marker`` that is not quoted, or -1."""
    while (found := raw.find(marker, position)) >= 0:
        before, after = raw[found - 1 : found], raw[found + len(marker) : found + len(marker) + 1]
        if not (before and before in "`\"'“‘「" and after and after in "`\"'”’」"):
            return found
        position = found + len(marker)
    return -1


def _closes_unopened(raw: str, markers: Markers) -> bool:
    close, opener = find_marker(raw, markers.close, 0), find_marker(raw, markers.open, 0)
    return close >= 0 and not 0 <= opener < close


def _joined(raw: str, reasoning: list[Span], answer: list[Span], opened: bool, closed: bool) -> ReasoningSplit:
    kept_reasoning, kept_answer = (
        tuple(_trimmed(raw, span) for span in spans if raw[span[0] : span[1]].strip()) for spans in (reasoning, answer)
    )
    return ReasoningSplit(
        _JOINT.join(raw[start:end] for start, end in kept_reasoning),
        _JOINT.join(raw[start:end] for start, end in kept_answer),
        opened,
        opened and closed,
        kept_reasoning,
        kept_answer,
    )


def _trimmed(raw: str, span: Span) -> Span:
    text = raw[span[0] : span[1]]
    start = span[0] + len(text) - len(text.lstrip())
    return start, start + len(text.strip())
