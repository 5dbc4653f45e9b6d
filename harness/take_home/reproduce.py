"""``mote reproduce CARD``: the sample of a card run again, untouched and under the profile, and compared.

A card may be a stranger's: it is read as data, its engine options are those that name no code, the model is its user's,
and labels are compared only where they are a packaged set's (patterns of a stranger's could run for ever).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import jinja2
from pydantic import ValidationError
from rich.console import Console

from mote.harness.engine.model import ModelSource, check_files, resolve_model
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import Own, trusted_recipe
from mote.harness.engine.vllm import Engine, Request, Scoring
from mote.harness.errors import MoteError
from mote.harness.progress import step
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import new_session
from mote.harness.recipe.schema import Recipe
from mote.harness.recipe.strict import explain
from mote.harness.study.session import StartsEngine
from mote.harness.take_home.card import Card, Row, Said, read_card
from mote.harness.take_home.evidence import text_digest
from mote.harness.take_home.source import check_layout
from mote.patches import EMPTY_PROFILE, Profile

UNTOUCHED: Final = "untouched"


class Compared(NamedTuple):
    """One answer of the sample: ``label`` is None where labels are not compared."""

    prompt_id: str
    profile: str
    same_text: bool
    was: str
    label: str | None

    @property
    def same_label(self) -> bool:
        """Whether the label is the card's, as far as it is known."""
        return self.same_text or self.label in (None, self.was)


class Reproduction(NamedTuple):
    """What became of a card's sample. ``versions`` are lines on packages of other versions than the card's."""

    card: Card
    rows: list[Compared]
    versions: list[str]

    @property
    def holds(self) -> bool:
        """Whether every label came out again; where labels are not compared, every text."""
        if self.card.asking.label is None:
            return all(row.same_text for row in self.rows)
        return all(row.same_label for row in self.rows)


def reproduce(
    path: Path, own: Own, console: Console, log: Path, starter: StartsEngine = engine_starter
) -> Reproduction:
    """Run the sample of a card again on its user's model.

    Raises MoteError, before anything is loaded, for what is no card, a card without a sample, and another model.
    """
    card = read_card(path)
    if not card.sample.rows:
        raise MoteError(f"{path} has no sample: there is nothing to run again.")
    recipe = trusted_recipe(_recipe(path, card), path, own)
    model = _model(path, card, recipe)
    engine = starter(recipe, model, log, console)()
    profile = card.edits
    asked = [(row, one) for row in card.sample.rows for one in (EMPTY_PROFILE, profile)]
    rows = _ask(path, engine, card, asked, console)
    return Reproduction(card, rows, _versions(card))


def _recipe(path: Path, card: Card) -> Recipe:
    asking = card.asking.model_dump(mode="json")
    content = {
        "name": "card",
        "model": {"path": card.model.name, **{key: asking[key] for key in ("options", "template", "markers")}},
        # Whatever the card's task was, its prompts stand in the card.
        "task": {"name": "refusal_grid"},
        "sampling": asking["sampling"],
        "study": {"controls": {"retest": 0}},
        "judges": {"surprise": False},
    }
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise MoteError(f"{path}: asking: {explain(error, Recipe)}") from None


def _model(path: Path, card: Card, recipe: Recipe) -> ModelSource:
    model = resolve_model(recipe.model.path)
    check_files(path, model, card.model.files)
    check_layout(card.edits, model.layout)
    return model


def _ask(
    path: Path, engine: Engine, card: Card, asked: Sequence[tuple[Row, Profile]], console: Console
) -> list[Compared]:
    requests = []
    for row, profile in asked:
        messages = [one.model_dump(mode="json") for one in row.messages]
        _check_prompt(path, engine, row.prompt_id, messages)
        requests.append(Request(row.prompt_id, messages, profile, row.seed))
    found: dict[int, Compared] = {}
    with step(console, "Running the sample again", len(requests)) as advance:
        for some in engine.generate(requests):
            for at, answer in some:
                row, profile = asked[at]
                touched = bool(profile.canonical)
                label = _label(card, engine, answer.raw, answer.finish_reason)
                found[at] = _compared(row, row.after if touched else row.before, profile, touched, answer.raw, label)
            advance(len(some))
    return [found[at] for at in range(len(asked))]


def _compared(row: Row, said: Said, profile: Profile, touched: bool, raw: str, label: str | None) -> Compared:
    name = profile.name if touched else UNTOUCHED
    return Compared(row.prompt_id, name, text_digest(raw) == said.digest, said.label, label)


def _check_prompt(path: Path, engine: Engine, key: str, messages: list[dict[str, str]]) -> None:
    try:
        fits = engine.fits(Scoring(key, messages, EMPTY_PROFILE, "."))
    except jinja2.TemplateError as error:
        raise MoteError(f"{path}: the model's chat template does not take the prompt '{key}': {error}") from None
    if not fits:
        raise MoteError(f"{path}: the prompt '{key}' does not fit the model's context.")


def _label(card: Card, engine: Engine, raw: str, reason: str | None) -> str | None:
    asking = card.asking
    if asking.label is None:
        return None
    labels = label_set({"task": {"label": asking.label}, "judges": {"text": asking.text}})
    found = labels.label(raw, finish_reason=reason, markers=asking.markers.reading, prompt_opens=engine.prompt_opens)
    return found.label


def _versions(card: Card) -> list[str]:
    here = new_session()["versions"]
    return [
        f"{name}: {card.versions[name]} in the card, {version} here"
        for name, version in here.items()
        if card.versions.get(name, version) != version
    ]
