"""Whether a run's answers open with a marker of reasoning that its recipe does not name.

Reasoning that is not told from the answer is read as the answer: a chain of thought about whether to refuse becomes the
refusal, and every answer ALIGNED. A run where that happens has to say so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from mote.judges.reasoning import MARKERS, Markers, find_marker

SHARE: Final = 0.05
"""Of the answers at least this share must have the marker: one answer that writes a tag is no format."""

_HARMONY: Final = "<|channel|>"
# Tags that open a text as no answer would: <think>, <|START_THINKING|>, [REASONING], ◁think▷; not <p> or [INST].
_TAG = re.compile(
    r"\s*(<[|/]?[\w:|/]*(?:think|thought|reason|analysis|channel|scratchpad|cot)[\w:|]*\|?>"
    r"|\[/?[A-Z_]*(?:THINK|THOUGHT|REASON)[A-Z_]*\]|◁/?\w+▷)",
    re.IGNORECASE,
)
_CLOSERS: Final = {markers.close: name for name, markers in MARKERS.items() if not markers.close[0].isalpha()}


def unset_marker(answers: Iterable[str], markers: Markers) -> str | None:
    """Return one sentence where answers carry a marker of reasoning that ``markers`` does not read, else None.

    ``answers`` are the raw texts. What counts is a tag at the beginning, or, where the chat template has opened the
    reasoning, another model's closing marker anywhere outside quotation marks; in 5% of the answers or more.
    """
    ours = (_HARMONY,) if markers.harmony else (markers.open, markers.close)
    found: Counter[str] = Counter()
    total = 0
    for raw in answers:
        total += 1
        if (tag := _foreign(raw, ours)) is not None:
            found[tag] += 1
    if not found:
        return None
    tag, count = found.most_common(1)[0]
    if count < SHARE * total:
        return None
    names = [name for name, one in MARKERS.items() if tag == (_HARMONY if one.harmony else one.open)] or [
        name for close, name in _CLOSERS.items() if close == tag
    ]
    read = "the harmony channels" if markers.harmony else f"'{markers.open}' and '{markers.close}'"
    hint = f"markers: {names[0]}" if names else "what opens and closes the reasoning under markers"
    return f"{count} of {total} answers have the marker '{tag}', and the recipe reads {read}: set {hint}."


def _foreign(raw: str, ours: tuple[str, ...]) -> str | None:
    if any(find_marker(raw, marker) >= 0 for marker in ours):
        return None
    for one in MARKERS.values():
        opener = _HARMONY if one.harmony else one.open
        if opener not in ours and raw.lstrip().startswith(opener):
            return opener
    if tag := _TAG.match(raw):
        return tag[1] if tag[1] not in ours else None
    return next((close for close in _CLOSERS if close not in ours and find_marker(raw, close) >= 0), None)
