"""The labels that a recipe gives to answers that are there already: a dry run, before a study is paid for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mote.harness.compare.sources import READING, read_answers
from mote.harness.errors import MoteError
from mote.harness.recipe.label_sets import LabelSet, label_set
from mote.harness.recipe.own_classes import function_of
from mote.harness.recipe.schema import Recipe
from mote.judges import Label
from mote.judges.functions import FunctionError


class Tried(NamedTuple):
    """An answer with the label that it got; the first evidence of the label is what decided."""

    key: str
    raw: str
    label: Label


def try_labels(
    recipe: Recipe, source: str, columns: Mapping[str, str], *, blanks: bool = False
) -> tuple[LabelSet, list[Tried]]:
    """Return a recipe's label set, and every answer of ``source`` with the label that its text gets by that set.

    ``source`` is what ``read_answers`` reads: a file of answers, a run, a log. A language model that the recipe names
    is not asked, nor is the surprise of the model under study. A function of the user's is run. Raises MoteError
    where the classes are those of the language model alone, where a function fails, and as ``read_answers``.
    """
    found = label_set(recipe.model_dump(mode="json"), function_of(recipe.task.classes))
    if recipe.judges.llm is not None and recipe.judges.llm.classes is not None and recipe.task.classes is None:
        raise MoteError(
            f"the classes of '{recipe.name}' are given by a language model ({recipe.judges.llm.name}), which is not"
            " asked here: `mote judge ask RUN --kind classes --prompt FILE` asks it about the answers of a run."
        )
    side = read_answers(source, READING._replace(columns=columns, blanks=blanks, markers=recipe.model.markers.reading))
    rows = side.rows[["key", "raw", "finish_reason", "opens", "question"]].itertuples(index=False)
    tried = []
    for key, raw, reason, opens, question in rows:
        # As in a study, where a function alone is given the question.
        asked = {"question": question} if found.by_function else {}
        ended = reason if isinstance(reason, str) else None
        try:
            label = found.label(raw, finish_reason=ended, markers=side.markers, prompt_opens=bool(opens), **asked)
        except FunctionError as error:
            raise MoteError(f"task.classes.function: {key}: {error}.") from error
        tried.append(Tried(str(key), raw, label))
    return found, tried
