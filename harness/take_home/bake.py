"""``mote bake``: a checkpoint with a profile in its weights, its card with the evidence, and what a check measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mote.harness.engine.model import ModelSource
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.errors import MoteError
from mote.harness.files import write_atomic
from mote.harness.merge.baking import as_stored, plan_bake
from mote.harness.merge.child import make_child
from mote.harness.merge.journal import BAKED
from mote.harness.merge.plan import Plan
from mote.harness.merge.record import read_record, record_text
from mote.harness.merge.schema import BakeRecipe, Parent
from mote.harness.take_home.card import Card
from mote.harness.take_home.evidence import card_of_run
from mote.harness.take_home.exactness import Bakeable, bakeable
from mote.harness.take_home.readme import readme
from mote.harness.take_home.source import Source, model_of, read_source
from mote.patches import Profile


class Bake(NamedTuple):
    """A bake that was checked and planned: nothing is written yet."""

    source: Source
    model: ModelSource
    how: Bakeable
    plan: Plan


def plan_of(text: str, own: Own = NOTHING_OWN, *, approximate: bool = False) -> Bake:
    """Read ``RUN:PROFILE`` or a profile's file, and plan the checkpoint.

    Raises MoteError for a profile that weights cannot hold, and, unless ``approximate``, for one that a baked model
    does otherwise than the patch.
    """
    source = read_source(text)
    model = model_of(source, own)
    how = bakeable(source.profile, model.layout)
    if not how.exact and not approximate:
        raise MoteError(
            f"profile '{source.profile.name}' cannot be baked exactly: {how.why}. Bake it all the same with"
            " --approximate; --check N measures the difference."
        )
    recipe = BakeRecipe(
        name=_slug(f"{Path(model.name).name}-{source.profile.name}"),
        parent=Parent(path=model.path, revision=model.files.get("revision")),
        profile={"name": source.profile.name, "digest": source.profile.digest},
        scales=_scales(source.profile),
    )
    return Bake(source, model, how, plan_bake(recipe, model.layout.experts))


def write_bake(
    bake: Bake, out: Path, *, threads: int = 1, advance: Callable[[int], None] = lambda count: None
) -> dict[str, Any]:
    """Write the checkpoint, or go on with it; return its record, ``bake.json``."""
    run, name = bake.source.run, bake.source.profile.name
    card = None if run is None else card_of_run(run, name, 0)
    also = {
        "profile": {**bake.source.profile.to_dict(), "digest": bake.source.profile.digest},
        "exact": bake.how.exact,
        "why": bake.how.why,
        "evidence": None if card is None else card.model_dump(mode="json", exclude={"sample"}),
        "check": None,
    }

    def written(plan: Plan, record: Mapping[str, Any]) -> str:
        return readme(bake.model, bake.source.profile, card, record)

    return make_child(bake.plan, out, threads=threads, advance=advance, card=written, also=also).record


def note_check(bake: Bake, out: Path, check: Mapping[str, Any]) -> None:
    """Put what a check measured into ``bake.json`` and the card."""
    record = {**read_record(out), "check": dict(check)}
    card = _card(record)
    write_atomic(out / "README.md", readme(bake.model, bake.source.profile, card, record))
    write_atomic(out / BAKED, record_text(record))


def _card(record: Mapping[str, Any]) -> Card | None:
    evidence = record.get("evidence")
    if evidence is None:
        return None
    return Card.model_validate({**evidence, "sample": {"rule": "", "rows": []}})


def _scales(profile: Profile) -> list[tuple[int, int, float]]:
    return [
        (edit.layer, edit.expert, as_stored(edit.factor) if edit.action == "scale" else 0.0)
        for edit in profile.canonical
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "baked"
