"""Prompts of a dataset of the Hugging Face hub, by its name and revision, or of a folder of such files.

The rows come through the library ``datasets``, which fetches a dataset once and takes it from its cache afterwards.
They are checked as those of a file are. Datasets that are scripts are not run: the library refuses them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, model_validator

from mote.harness.errors import MoteError, one_line, printable
from mote.harness.lines import Row
from mote.harness.recipe.strict import Part, absent
from mote.harness.secrets import redacted


class HubPart(Part):
    """A dataset's split: ``revision`` says which of its versions, best by the commit's digest, since branches move."""

    dataset: str = Field(min_length=1, description="owner/name on the hub, or a folder of JSONL, CSV or Parquet files")
    revision: str | None = Field(
        default=None, min_length=1, exclude_if=absent, description="a commit, tag or branch; a folder has none"
    )
    split: str = Field(min_length=1, description="for instance test, or train[:500]")
    name: str | None = Field(default=None, min_length=1, exclude_if=absent, description="of its configurations")

    @model_validator(mode="after")
    def _prints(self) -> HubPart:
        for given in (self.dataset, self.revision, self.split, self.name):
            if given is not None and not given.isprintable():
                raise ValueError("hub holds characters that do not print")
        return self

    @property
    def called(self) -> str:
        """What errors call the split."""
        at = "" if self.revision is None else f" at {self.revision}"
        return f"{self.dataset}{'' if self.name is None else f' ({self.name})'}{at}, {self.split}"


def hub_rows(part: HubPart) -> Iterator[tuple[int, Row]]:
    """Yield (row number, row) of a dataset's split, numbered from 1.

    Raises MoteError, with one line, where a dataset of the hub has no revision or a folder has one, and where the
    split can't be had: it isn't there, or was not fetched yet and the hub is out of reach.
    """
    folder = Path(part.dataset).is_dir()
    if not folder and part.revision is None:
        raise MoteError(
            f"task.hub.revision is missing: {part.dataset} is no folder here, and a dataset of the hub changes; name a"
            " commit of it."
        )
    if folder and part.revision is not None:
        raise MoteError(f"task.hub.revision: {part.dataset} is a folder, which has none; leave it out.")
    import datasets  # type: ignore[import-untyped]

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(part.dataset, part.name, split=part.split, revision=part.revision)
    except Exception as error:  # whatever the library, the hub and the network raise
        raise MoteError(f"task.hub: {part.called} can't be had: {_why(error)}{'' if folder else _offline()}") from error
    if not len(found):
        raise MoteError(f"task.hub: {part.called} is empty.")
    yield from enumerate(found, start=1)


def _why(error: Exception) -> str:
    said = printable(" ".join(str(redacted(str(error))).split())) or type(error).__name__
    return one_line(said[:200]).rstrip(". ") + "."


def _offline() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return (
            " HF_HUB_OFFLINE is set, so only what was fetched before is found:"
            " `HF_HUB_OFFLINE=0 mote recipe check RECIPE` fetches it once."
        )
    return (
        " Fetch it where there is a network (`mote recipe check RECIPE`); its cache, or a folder of its files, will do."
    )
