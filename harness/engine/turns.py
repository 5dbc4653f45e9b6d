"""Turns of a rendered prompt: which of its tokens are a message's and which the chat template's; two prompts by role.

A template's text is found by rendering the same roles with marks in the place of their contents, and the finding is
held against the prompt itself: a template that does more than put contents into its own text is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mote.harness.errors import MoteError
from mote.patches import Pairs

Messages = Sequence[Mapping[str, str]]
_REMEDY = "align from the end"


class Part(NamedTuple):
    """Tokens ``start`` to before ``stop`` of a prompt; ``role`` is the message's whose content they are, else empty."""

    role: str
    start: int
    stop: int


class Turns(NamedTuple):
    """A rendered prompt: its token ids, and its parts, which tile them.

    The template's own text and contents alternate: the template has the first part and the last, each content stands
    between two. A part may be empty. A token that holds a character of a content is the content's.
    """

    ids: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the messages in order."""
        return tuple(part.role for part in self.parts[1::2])


def turns_of(tokenizer: Any, render: Callable[[Messages], str], messages: Messages) -> Turns:
    """Return a prompt's turns.

    Raises:
        MoteError: the tokenizer does not say where its tokens lie in a text, or the template rewrites a content, leaves
            one out, writes one twice or in another order.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise MoteError(f"the model's tokenizer does not say where its tokens lie in a text: {_REMEDY}.")
    text = render(messages)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    bounds = _bounds(text, _template_texts(render, messages), messages)
    parts, begin = [], 0
    owners = _owners(encoded["offset_mapping"], bounds)
    for number in range(2 * len(messages) + 1):
        stop = begin + owners.count(number)
        parts.append(Part(str(messages[number // 2]["role"]) if number % 2 else "", begin, stop))
        begin = stop
    return Turns(tuple(encoded["input_ids"]), tuple(parts))


def pairs_by_role(donor: Turns, receiver: Turns) -> Pairs:
    """Return which of the donor's prompt tokens each of the receiver's follows.

    Both must have the same roles in the same order. The template's tokens are the same ones and meet each other; of two
    contents of a turn, as many last tokens meet as the shorter has, and the longer one's first tokens stay alone.

    Raises MoteError for prompts that do not align, with the first difference.
    """
    for number, (its, mine) in enumerate(zip(donor.roles, receiver.roles, strict=False), start=1):
        if its != mine:
            raise MoteError(f"turn {number} is {its} in the donor's prompt and {mine} in the receiver's: {_REMEDY}.")
    if len(donor.roles) != len(receiver.roles):
        raise MoteError(
            f"the donor's prompt has {len(donor.roles)} turns and the receiver's {len(receiver.roles)}: {_REMEDY}."
        )
    left: list[int] = []
    right: list[int] = []
    for number, (one, other) in enumerate(zip(donor.parts, receiver.parts, strict=True)):
        if not number % 2 and donor.ids[one.start : one.stop] != receiver.ids[other.start : other.stop]:
            where = f"before turn {number // 2 + 1}" if number < len(donor.parts) - 1 else "after the last turn"
            raise MoteError(f"the chat template's tokens {where} are not the same in both prompts: {_REMEDY}.")
        both = min(one.stop - one.start, other.stop - other.start)
        left += range(one.stop - both, one.stop)
        right += range(other.stop - both, other.stop)
    return Pairs(tuple(left), tuple(right), len(receiver.ids))


def _template_texts(render: Callable[[Messages], str], messages: Messages) -> list[str]:
    # Characters of Unicode's private use, which no template trims or looks for.
    marks = [f"\ue000{number}\ue001" for number in range(len(messages))]
    rest = render([{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)])
    found = []
    for mark in marks:
        before, there, rest = rest.partition(mark)
        if not there:
            raise MoteError(f"the model's chat template does not write each message once, in order: {_REMEDY}.")
        found.append(before)
    return [*found, rest]


def _bounds(text: str, template: Sequence[str], messages: Messages) -> list[int]:
    """Return where the parts end in the text, the template's and the contents' in turn."""
    place = len(template[0])
    bounds = [place] if text.startswith(template[0]) else []
    for message, after in zip(messages, template[1:], strict=True):
        content = message["content"]
        forms = dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip()))
        form = next((one for one in forms if bounds and text.startswith(one + after, place)), None)
        if form is None:
            raise MoteError(
                f"the model's chat template rewrites the content of turns, here {message['role']}: {_REMEDY}."
            )
        bounds += [place + len(form), place + len(form) + len(after)]
        place = bounds[-1]
    if place != len(text):
        raise MoteError(f"the model's chat template writes more after these messages than after others: {_REMEDY}.")
    return bounds


def _owners(offsets: Sequence[tuple[int, int]], bounds: Sequence[int]) -> list[int]:
    """Return the part of each token, ascending."""
    owners: list[int] = []
    for start, stop in offsets:
        touched = [
            number
            for number, (low, high) in enumerate(zip((0, *bounds), bounds, strict=False))
            if low < max(stop, start + 1) and start < high
        ]
        contents = [number for number in touched if number % 2]
        found = (contents or touched or [len(bounds) - 1])[0]
        owners.append(max(found, owners[-1]) if owners else found)
    return owners
