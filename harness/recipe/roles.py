"""The roles of tokens that experts can be ranked by: those of the prompt, its last few, the reasoning, the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mote.harness.errors import nearest
from mote.judges import Markers

PROMPT: Final = "prompt"
LAST: Final = "prompt_last"
"""The role of the prompt's last token; of its last five it is ``prompt_last_5``."""
SPOKEN: Final = ("reasoning", "answer")
"""The roles that divide what was said."""
MAPPED: Final = (PROMPT, *SPOKEN)
PATTERN: Final = rf"{'|'.join(MAPPED)}|{LAST}(_([2-9]|[1-9][0-9]{{1,3}}))?"
"""What the name of a role looks like."""


def known_role(role: str) -> str:
    """Return a role as it is; raise ValueError, with the nearest, for another."""
    if re.fullmatch(PATTERN, role):
        return role
    raise ValueError(
        f"'{role}' is no role of tokens: prompt, reasoning, answer, prompt_last or prompt_last_N of 2 to 9999."
        f"{nearest(role, (*MAPPED, LAST))}"
    )


def last_tokens(role: str) -> int:
    """Return how many last tokens of the prompt a role counts, 0 where it counts others."""
    return 0 if not role.startswith(LAST) else int(role.removeprefix(LAST).removeprefix("_") or 1)


def capture_of(role: str, markers: Markers, prompt_opens: bool) -> str | Mapping[str, Any]:
    """Return what to ask of the patch, as in ``mote.patches.request_args``, so that maps of a role come back."""
    if role == PROMPT:
        return PROMPT
    if last := last_tokens(role):
        return {"what": PROMPT, "last": last}
    return {
        "what": "roles",
        "reasoning_start": markers.open,
        "reasoning_end": markers.close,
        "prompt_opens": prompt_opens,
    }


def roles_of(capture: str | Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the roles of the maps that a capture brings; ``capture_of`` is the way there."""
    asked = {"what": capture} if capture is None or isinstance(capture, str) else capture
    maps = {PROMPT: (PROMPT,), "roles": MAPPED}.get(str(asked["what"]), ())
    return (*maps, LAST) if maps and asked.get("last") else maps


def in_words(role: str) -> str:
    """Return which tokens a ranking counts, as a sentence's unit goes on; nothing for the prompt's, as ever."""
    last = last_tokens(role)
    if last:
        return f", among the prompt's last {f'{last} tokens' if last > 1 else 'token'}"
    return "" if role == PROMPT else f", among the tokens of the {role}"
