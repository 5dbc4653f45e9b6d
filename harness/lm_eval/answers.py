"""The answers of the model ``mote`` to lm_eval: plain values that carry a note of how they were made.

lm_eval knows a generation as a string and a score as a pair. Ours are these, and have one attribute more, ``note``:
filters and metrics that don't know it see nothing new, and ours can ask how a text ended. The note also goes to the
sample log, as a last argument of the request.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self


class Note(NamedTuple):
    """The note of an answer. Tokens are counts; ``cut`` are prompt tokens left out to fit the model's context.

    ``prompt_opens`` says whether the prompt ended inside the reasoning. ``model`` is the digest of the model's files.
    ``seed`` is the request's own, None where
    nothing was drawn. ``mechanism`` has one entry an edit, as the patch counted it. ``raw`` is the whole text where the
    metrics were given a part of it.
    """

    profile: str
    digest: str
    tokens_edited: int
    patch_version: str
    model: str
    seed: int | None
    finish_reason: str | None
    prompt_opens: bool
    prompt_tokens: int
    generated_tokens: int
    cut: int
    mechanism: list[dict[str, Any]]
    raw: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the note as it stands in a sample log."""
        values = self._asdict()
        if self.raw is None:
            del values["raw"]
        return values


class Text(str):
    """A generation with its note; ``finish_reason`` and ``prompt_opens`` are what labelling by rules needs of it."""

    note: Note

    def __new__(cls, text: str, note: Note) -> Self:
        """Return the text with its note."""
        made = super().__new__(cls, text)
        made.note = note
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, Note]]:
        """Return how a copy is made."""
        return type(self), (str(self), self.note)

    @property
    def finish_reason(self) -> str | None:
        """Why the generation ended: "stop", or "length" where it was cut off."""
        return self.note.finish_reason

    @property
    def prompt_opens(self) -> bool:
        """Whether the prompt ended inside the reasoning."""
        return self.note.prompt_opens


class Scored(tuple[float, bool]):
    """(log-probability of the continuation, whether it is the greedy one) with its note."""

    note: Note

    def __new__(cls, logprob: float, greedy: bool, note: Note) -> Self:
        """Return the pair with its note."""
        made = super().__new__(cls, (logprob, greedy))
        made.note = note
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[float, bool, Note]]:
        """Return how a copy is made."""
        return type(self), (self[0], self[1], self.note)


class Rendered(str):
    """A prompt that a chat template wrote: the template alone decides about special tokens at its beginning."""

    __slots__ = ()
