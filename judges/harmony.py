"""The channels of the harmony format (gpt-oss): whose spans are reasoning, and whose are the answer.

``analysis`` is reasoning and ``final`` the answer. ``commentary`` to a tool is neither; without a recipient it is a
preamble that the user is shown, and the answer where no final channel comes. gpt-oss' refusals often lack part of a
header (openai/harmony issue 80): a message of the assistant without a channel is the answer, and so is what follows
``final`` where ``<|message|>`` is missing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

Span = tuple[int, int]

_ENDS = r"<\|(?:end|return|call|start|channel)\|>"
_END = re.compile(_ENDS)
_HEADER = re.compile(
    r"(?P<to>\sto=\S+)?\s*<\|channel\|>\s*(?P<channel>\w+)(?:(?P<more>[^<]*(?:<\|constrain\|>[^<]*)?)<\|message\|>)?"
)
_HEADLESS = re.compile(
    rf"<\|start\|>\s*assistant(?!\sto=)(?:<\|message\|>)?(?P<text>.*?)(?P<next>{_ENDS}|\Z)", re.DOTALL
)
# What is left of the channels where special tokens were skipped when the text was decoded.
_BARE = re.compile(r"\s*analysis(?P<analysis>.*?)(?:assistantfinal(?P<final>.*))?", re.DOTALL)
_BARE_FINAL = re.compile(r"\s*final(?![a-z\s])(?P<final>.*)", re.DOTALL)


class Channels(NamedTuple):
    """Spans of reasoning and answer in the raw text; whether reasoning was opened, and closed again."""

    reasoning: list[Span]
    answer: list[Span]
    opened: bool
    closed: bool


def channels(raw: str) -> Channels:
    """Return what of a generation is reasoning and what is the answer."""
    spans: dict[str, list[Span]] = {"analysis": [], "final": [], "commentary": []}
    closed, last = True, 0
    headers = list(_HEADER.finditer(raw))
    for header in headers:
        end = _END.search(raw, header.end())
        last = end.start() if end else len(raw)
        name = header["channel"]
        if name != "commentary" or not (header["to"] or "to=" in (header["more"] or "")):
            spans.setdefault(name, []).append((header.end(), last))
        closed = name != "analysis" or end is not None
    headless = [
        found.span("text")
        for found in _HEADLESS.finditer(raw)
        if found["text"].strip() and found["next"] != "<|channel|>"
    ]
    if headers or headless:
        answer = sorted([*spans["final"], *headless]) or spans["commentary"]
        return Channels(spans["analysis"], answer, bool(spans["analysis"]), closed or bool(headless))
    return _bare(raw)


def _bare(raw: str) -> Channels:
    if alone := _BARE_FINAL.fullmatch(raw):
        return Channels([], [alone.span("final")], False, False)
    bare = _BARE.fullmatch(raw)
    if bare is None:
        end = _END.search(raw)
        return Channels([], [(0, end.start() if end else len(raw))], False, False)
    final = [bare.span("final")] if bare["final"] is not None else []
    return Channels([bare.span("analysis")], final, True, bool(final))
