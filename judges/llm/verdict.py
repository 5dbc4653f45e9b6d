"""From a judge's reply to its verdict, strictly: a reply that leaves a doubt holds none.

* The judge's own reasoning is stripped first: a draft is no verdict. A reply that ends inside it holds none.
* Only the last ``[[...]]`` counts, since a judge may quote what the judged text says about itself. If the last one is
  not a verdict that was asked for, there is none: an earlier one is never taken instead.
* A JSON reply must be one object with the keys asked for and no other, each once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mote.judges.reasoning import Markers, split_reasoning
from mote.reading import UnreadableError, parse_json

_BRACKETED = re.compile(r"\[\[([^\[\]\n]*)\]\]")
_FENCED = re.compile(r"```(?:json)?\s*\n(?P<body>.*?)\n?```", re.DOTALL)


def without_reasoning(reply: str, markers: Markers | None = None) -> str:
    """Return what a judge says after its own reasoning; empty where it ended inside it."""
    return split_reasoning(reply, markers).answer


def last_bracketed(text: str) -> str | None:
    """Return what stands in the last ``[[...]]`` of ``text``, or None."""
    found = _BRACKETED.findall(text)
    return found[-1].strip() if found else None


def text_verdict(reply: str, verdicts: Sequence[str], markers: Markers | None = None) -> str | None:
    """Return the verdict of a reply in text, or None."""
    found = last_bracketed(without_reasoning(reply, markers))
    return found if found in verdicts else None


def json_verdict(reply: str, verdicts: Sequence[str], markers: Markers | None = None) -> str | None:
    """Return the verdict of a reply that is to be JSON, alone or in one code block, or None."""
    text = without_reasoning(reply, markers)
    if fenced := _FENCED.fullmatch(text):
        text = fenced["body"]
    try:
        content = parse_json(text)
    except UnreadableError:
        return None
    if not isinstance(content, dict) or set(content) != {"explanation", "verdict"}:
        return None
    verdict = content["verdict"]
    return verdict if isinstance(verdict, str) and verdict in verdicts else None
