"""A profile's card: what a profile does, by which evidence, and a sample of rows that others can run again.

JSON, small, of this form alone; a card may be a stranger's, so that all in it is bounded, and nothing in it is run. The
prompts of the sample stand in it, or nobody without the run's data could ask them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mote.harness.errors import MoteError
from mote.harness.files import read_document, write_atomic
from mote.harness.recipe.markers import MarkersPart
from mote.harness.recipe.schema import SamplingPart
from mote.harness.recipe.strict import Count, Number, Part, explain
from mote.harness.recipe.written_manifest import Layout
from mote.patches import Profile, ProfileError

FORMAT: Final = "mote-card/1"
MOST_BYTES: Final = 4 << 20
MOST_ROWS: Final = 200
_Text = Annotated[str, Field(max_length=400)]
_Sentence = Annotated[str, Field(max_length=4000)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Share = Annotated[Number, Field(ge=0, le=1)]
_Content = Annotated[str, Field(max_length=100_000)]


class Model(Part):
    """The model: its name, the layout of its experts, and the digests of its files."""

    name: _Text
    layout: Annotated[dict[str, Any], BeforeValidator(lambda value: Layout.model_validate(value).model_dump())]
    files: Annotated[dict[_Text, _Text], Field(min_length=1, max_length=10_000)]


class Prompts(Part):
    """All prompts of the run: their task, how many, their digest."""

    task: _Text
    count: Count
    digest: _Text


class Interval(Part):
    """A figure and its 95% interval."""

    value: Number
    low: Number
    high: Number


class Effect(Part):
    """What the profile does to the prompts of the class: ``flips`` ``of`` them; shares over ``units``.

    ``net`` is the fall of the class's share over all measured prompts, ``chance`` the fall of its exact probability.
    """

    flips: Count
    of: Count
    share: Interval
    units: Count
    net: Interval | None = None
    chance: Number | None = None


class Control(Part):
    """Random sets of one kind, or the retests (``noise``): ``reached`` of ``sets`` do as much; p, null if not known."""

    kind: _Text
    p: _Share | None
    reached: Count | None = None
    sets: Count | None = None
    stopped: bool = False


class Harm(Part):
    """What else changed: ``broken`` texts of the class's prompts, of all others ``broken_others``; KL a token (nats).

    ``entered``: by how much the class's share rises among the prompts outside it.
    """

    broken: Count
    of: Count
    broken_others: Count
    of_others: Count
    kl: Interval | None = None
    entered: Interval | None = None


class Verdict(Part):
    """The run's verdict on this profile."""

    kind: _Text
    reason: _Sentence
    p: _Share | None


class Plan(Part):
    """The plan that was written before the first tuned answer, by its digest and its time."""

    digest: _Text
    written: _Text
    primary: _Sentence


class Message(Part):
    """One message of a prompt."""

    role: Literal["system", "developer", "user", "assistant"]
    content: _Content


class Said(Part):
    """An answer: its label by the judge of the texts, and the sha256 of its raw text."""

    label: _Text
    digest: _Digest


class Row(Part):
    """One prompt with the seed of its request: what the untouched model said, and what it said under the profile."""

    prompt_id: Annotated[str, Field(min_length=1, max_length=400)]
    seed: Count
    messages: Annotated[list[Message], Field(min_length=1, max_length=100)]
    before: Said
    after: Said


class Sample(Part):
    """The rows of the sample, and how they were drawn."""

    rule: _Text
    rows: Annotated[list[Row], Field(max_length=MOST_ROWS)]

    @model_validator(mode="after")
    def _each_prompt_once(self) -> Sample:
        if len({row.prompt_id for row in self.rows}) != len(self.rows):
            raise ValueError("two rows are of one prompt")
        return self


class Asking(Part):
    """How the answers were drawn, and which packaged set the judge of the texts labels by; null for one's own classes.

    ``options`` are vLLM's that say how much and how fast; whoever runs the sample again says every other one.
    """

    sampling: SamplingPart
    options: dict[str, Any]
    template: dict[str, Any]
    markers: MarkersPart
    label: Literal["refusal", "compliance", "language"] | None
    text: Literal["rules+classifier", "rules"]


class Rows(Part):
    """How many answers the run has, and their digest: what the card is held to."""

    count: Count
    digest: _Digest


class Card(Part):
    """The card of one profile of one run."""

    format: Literal["mote-card/1"]
    run: _Text
    profile: dict[str, Any]
    profile_digest: _Digest
    model: Model
    prompts: Prompts
    asking: Asking
    target: _Text
    judge: _Text
    text_judge: _Text
    plan: Plan | None
    verdict: Verdict | None
    effect: Effect | None
    controls: Annotated[list[Control], Field(max_length=20)]
    harm: Harm | None
    rows: Rows
    versions: Annotated[dict[_Text, _Text], Field(max_length=100)]
    sample: Sample

    @model_validator(mode="after")
    def _profile_is_one(self) -> Card:
        try:
            found = self.edits
        except ProfileError as error:
            raise ValueError(str(error)) from None
        if found.digest != self.profile_digest:
            raise ValueError("profile_digest is not the digest of the card's profile")
        return self

    @property
    def edits(self) -> Profile:
        """The profile."""
        return Profile.from_dict(self.profile)


def read_card(path: Path) -> Card:
    """Read a card, which may be a stranger's; raise MoteError, one line, for what is none."""
    try:
        return Card.model_validate(read_document(path, FORMAT, MOST_BYTES))
    except ValidationError as error:
        raise MoteError(f"{path}: {explain(error, Card)}") from None


def write_card(card: Card, path: Path) -> None:
    """Write a card; raise MoteError where it would be larger than any that is read."""
    text = json.dumps(card.model_dump(mode="json", exclude_none=False), indent=2, ensure_ascii=False) + "\n"
    if len(text.encode()) > MOST_BYTES:
        raise MoteError(f"the card would have {len(text) / 1e6:.1f} MB, and {MOST_BYTES >> 20} are read: sample less.")
    write_atomic(path, text)
