"""Receipts in a log of Inspect: what our provider (``mote/...``) leaves in the metadata of each model output.

A sample may ask the model many times; its own output and those of its model events are all looked at. Outputs of other
providers (a grader, say) carry no receipt and need none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mote.harness.errors import MoteError

_KEY: Final = "mote"
_Text = Annotated[str, Field(max_length=1000)]


class _Sham(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    of: _Text


class Note(BaseModel):
    """What is read of a receipt; everything else in it may be anything."""

    model_config = ConfigDict(extra="ignore", strict=True)

    digest: _Text
    profile: _Text
    model: _Text = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    prompt_opens: bool = False
    sham: _Sham | None = None


class Receipts:
    """The receipts of one log, gathered sample by sample; ``model`` is the log's, by Inspect's name.

    Attributes:
        profile: the name of the profile, as the first receipt has it; "" where there is none.
        files: the digest of the model's files, "" where unknown.
        digests: of all profiles that receipts are of.
        sham_of: the digest of the profile that this one is a sham of, "" where it is none.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.model = model
        self.profile = ""
        self.files = ""
        self.digests: frozenset[str] = frozenset()
        self.sham_of = ""
        self._path = path
        self._answers = 0
        self._without = 0

    def seen(self, key: str, notes: Sequence[Note | None], failed: bool) -> dict[str, Any]:
        """Take a sample's receipts, None for an output that lacks one; return what they say of the sample's row.

        Raises MoteError where they are of several profiles.
        """
        known = [note for note in notes if note is not None]
        if not failed:
            self._answers += 1
            self._without += not known or len(known) < len(notes)
        if not known:
            return {}
        if not self.digests:
            first = known[0]
            self.profile, self.files = first.profile, first.model
            self.sham_of = first.sham.of if first.sham else ""
        self.digests |= {note.digest for note in known}
        if len(self.digests) > 1:
            raise MoteError(
                f"{self._path} mixes answers of {len(self.digests)} profiles (sample '{key}'); a log is of one."
            )
        last = known[-1]
        return {"seed": -1 if last.seed is None else last.seed, "opens": last.prompt_opens}

    def check(self, receipts: bool) -> None:
        """Raise MoteError where a log of our provider has answers without a receipt, and ``receipts`` are wanted."""
        if receipts and self._without and self.model.startswith(f"{_KEY}/"):
            raise MoteError(
                f"{self._path}: {self._without} of {self._answers} answers carry no receipt, so what was done to the"
                " model isn't known: a solver made them itself, or the log was edited. --no-receipts takes the log at"
                " its word."
            )


def receipt_notes(path: Path, where: str, sample: Mapping[str, Any], model: str) -> list[Note | None]:
    """Return the receipt of each output that the log's model gave in a sample, None for an output without one.

    Raises MoteError for what stands in a receipt's place and is none.
    """
    notes: list[Note | None] = []
    for output in _outputs(sample, model):
        metadata = output.get("metadata")
        given = metadata.get(_KEY) if isinstance(metadata, Mapping) else None
        if given is None:
            notes.append(None)
            continue
        try:
            notes.append(Note.model_validate(given))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise MoteError(
                f"{path}: {where} has a receipt that can't be read: '{place[:80]}': {first['msg']}."
            ) from None
    return notes


def _outputs(sample: Mapping[str, Any], model: str) -> Iterator[Mapping[str, Any]]:
    """The outputs of a sample's model events, and its own last; of other models none, and no output of an error."""
    events = sample.get("events")
    for event in events if isinstance(events, list) else ():
        if isinstance(event, Mapping) and event.get("event") == "model" and event.get("model") == model:
            output = event.get("output")
            if isinstance(output, Mapping) and output.get("choices"):
                yield output
    output = sample.get("output")
    if isinstance(output, Mapping) and output.get("choices"):
        yield output
