"""The prompts of a study as rows: of a packaged task, or of one's own file or dataset, as often as they are asked.

Each of several samples is a row of its own, with an id of its own and so with a seed of its own; samples of a prompt
are one unit, which a split by units keeps together and every interval draws as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mote.harness.errors import MoteError
from mote.harness.files import digest_file, digest_of
from mote.harness.recipe.hub import hub_rows
from mote.harness.recipe.own_prompts import UNIT, ColumnsPart, checked_prompts, read_prompts
from mote.harness.recipe.schema import Recipe
from mote.harness.recipe.task import TaskPart
from mote.harness.science.splits import evenly, units_of
from mote.harness.store.run import PromptRow
from mote.tasks import TaskError, load_task

SAMPLE: Final = "sample"
"""The attribute that numbers the samples of a prompt."""


class Asked(NamedTuple):
    """The prompts that a recipe asks, in order, and the digest of what they come from, by its name in a manifest."""

    rows: list[PromptRow]
    source: dict[str, str]


def prompts_of(recipe: Recipe) -> list[PromptRow]:
    """Return the prompts that a recipe asks, in order. Raises MoteError as ``asked_by``."""
    return asked_by(recipe).rows


def asked_by(recipe: Recipe) -> Asked:
    """Return the prompts that a recipe asks and their source, which is read once: a dataset may take minutes.

    Raises MoteError for a task that is not there or not fetched, whatever is wrong in a file of prompts, a limit beyond
    what there is, and a system message beside one that a prompt has of its own.
    """
    task = recipe.task
    found = _own(recipe) if task.is_own else _packaged(task)
    return Asked(_put(recipe, found), _source(task, found))


def _put(recipe: Recipe, rows: list[PromptRow]) -> list[PromptRow]:
    """Return the rows of a source as they are asked: limited, under a system message, paired, sampled."""
    task, contrast = recipe.task, recipe.study.contrast
    limit = task.limit or len(rows)
    if limit > len(rows):
        raise MoteError(f"task.limit: {limit}, but {task.name} has {len(rows)} prompts.")
    pair = None if contrast is None else contrast.pair
    # The first few of the grid would be one year only.
    rows = evenly(rows, limit) if pair is None else _whole_pairs(rows, limit, pair)
    rows = [_with_system(task, row) for row in rows]
    if pair is not None:
        rows = _paired(rows, pair, own=task.is_own)
    return rows if task.samples == 1 else list(_sampled(rows, task.samples))


def describe(recipe: Recipe, asked: Asked) -> dict[str, Any]:
    """Return what a run's manifest says of its prompts: task, count, the digest of what is asked, and of the source.

    The source is the file of prompts, or of a dataset the rows that prompts are made of, in their order.
    """
    described = {
        "task": recipe.task.name,
        "count": len(asked.rows),
        "digest": digest_of([[row.prompt_id, list(row.messages)] for row in asked.rows]),
    }
    return {**described, **asked.source}


def source_of(recipe: Recipe) -> dict[str, str]:
    """Return the digest of a recipe's own prompts as a manifest names it, nothing for a packaged task.

    Raises OSError where the file is gone, and MoteError as ``prompts_of``.
    """
    return _source(recipe.task, _own(recipe) if recipe.task.hub is not None else [])


def _source(task: TaskPart, rows: Sequence[PromptRow]) -> dict[str, str]:
    if task.file is not None:
        return {"file": Path(task.file).name, "file_sha256": digest_file(Path(task.file))}
    if task.hub is not None:
        return {"rows_sha256": digest_of([[row.prompt_id, list(row.messages), row.attributes] for row in rows])}
    return {}


def _packaged(task: TaskPart) -> list[PromptRow]:
    try:
        return [PromptRow(one.id, one.task, one.messages, one.attributes) for one in load_task(task.name)]
    except TaskError as error:
        raise MoteError(f"task.name: {error}") from None


def _own(recipe: Recipe) -> list[PromptRow]:
    task, contrast = recipe.task, recipe.study.contrast
    columns, kept = task.columns or ColumnsPart(), () if contrast is None else contrast.kept
    if task.hub is not None:
        found = checked_prompts(task.hub.called, hub_rows(task.hub), columns, kept, "row")
    else:
        found = read_prompts(Path(str(task.file)), columns, kept)
    return [PromptRow(f"{task.name}/{one.key}", task.name, one.messages, one.attributes) for one in found]


def _with_system(task: TaskPart, row: PromptRow) -> PromptRow:
    if task.system is None:
        return row
    if row.messages[0]["role"] == "system":
        raise MoteError(
            f"task.system: the prompt {row.prompt_id} has a system message of its own; leave one of them out."
        )
    return row._replace(messages=[{"role": "system", "content": task.system}, *row.messages])


def _whole_pairs(rows: Sequence[PromptRow], limit: int, pair: str) -> list[PromptRow]:
    """Return evenly spread pairs of about ``limit`` prompts, at least one pair; single prompts would part them."""
    pairs: dict[Any, list[PromptRow]] = {}
    for row in rows:
        pairs.setdefault(row.attributes.get(pair, row.prompt_id), []).append(row)
    taken = evenly(list(pairs.values()), max(1, limit * len(pairs) // len(rows)))
    return [row for some in taken for row in some]


def _paired(rows: list[PromptRow], pair: str, *, own: bool) -> list[PromptRow]:
    """Have a pair be a unit, where prompts have none that says more; one that lacks the attribute is its own.

    Of prompts of one's own only ``columns.unit`` says more: an attribute called subject may be the contrast itself.
    """
    unit = units_of({row.prompt_id: row.attributes for row in rows})[0]
    if unit == UNIT or (unit and not own):
        return rows
    return [
        row._replace(attributes={**row.attributes, UNIT: str(row.attributes.get(pair, row.prompt_id))}) for row in rows
    ]


def _sampled(rows: Sequence[PromptRow], samples: int) -> Iterator[PromptRow]:
    shared = units_of({row.prompt_id: row.attributes for row in rows})[0]
    for row in rows:
        unit = {} if shared else {UNIT: row.prompt_id}
        for number in range(1, samples + 1):
            key = row.prompt_id if number == 1 else f"{row.prompt_id}#{number}"
            yield row._replace(prompt_id=key, attributes={**row.attributes, **unit, SAMPLE: number})
