"""``mote transplant RUN``: a finished run's prompts answered again, each under the routes of other prompts.

Routes are captured from the run's own model, untouched. Aligned ``end``, they are laid onto the receivers' last tokens,
as many as the donor's prompt has; aligned ``role``, turn by turn (``mote.harness.engine.turns``). Answers are stored as
they come, a line each, beside the run: the same command goes on. Labels are the run's own.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console

from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.engine.turns import Turns, pairs_by_role
from mote.harness.engine.vllm import Answer, Request
from mote.harness.errors import MoteError
from mote.harness.experts.asking import Asking
from mote.harness.experts.rankings import Halves, read_halves
from mote.harness.experts.scan import spread
from mote.harness.files import digest_of, open_own, subfolder
from mote.harness.progress import step
from mote.harness.science.transplants import OWN, Graft, graft_cells, graft_effects, plan_grafts
from mote.harness.study.session import Session, StartsEngine, open_session
from mote.patches import EMPTY_PROFILE, ModelLayout, Observation, Pairs, ProfileError, Route, Tokens
from mote.reading import UnreadableError, read_text

FOLDER: Final = "transplant"
CAPTURE: Final = {"what": "rows", "weights": True}


@dataclass(frozen=True)
class TransplantOptions:
    """What is transplanted: ``prompts`` of each class, ``tokens`` and ``layers`` (None: all) of their routes.

    ``kept`` takes the donors' weights along; else the receiver's router weighs the donor's experts. ``align`` is where
    a donor's prompt tokens are laid: from the ``end``, or by ``role``.
    """

    prompts: int = 60
    tokens: Tokens = "prompt"
    kept: bool = False
    layers: tuple[int, ...] | None = None
    seed: int = 0
    align: Literal["end", "role"] = "end"


class Transplant(NamedTuple):
    """A transplant as far as it is stored: its settings, classes, cells and effects, and how many answers are missing.

    ``again`` counts receivers' own routes whose answer is, to the letter, the run's own; ``own`` counts them all.
    """

    settings: Mapping[str, Any]
    cells: pd.DataFrame
    effects: pd.DataFrame
    missing: int
    again: int
    own: int


class _Plan(NamedTuple):
    grafts: list[Graft]
    classes: tuple[str, str]
    settings: dict[str, Any]


def prepare(halves: Halves, options: TransplantOptions, layout: ModelLayout) -> _Plan:
    """Choose receivers and donors. Raises MoteError where the run has too few answers, or a layer no experts."""
    if options.layers is not None and (wrong := [each for each in options.layers if each not in layout.layers]):
        raise MoteError(f"--layers {wrong[0]}: the layers with experts are {', '.join(map(str, layout.layers))}.")
    others = Counter(label for label in halves.labels.values() if label != halves.target)
    if not others:
        raise MoteError(f"every answer of the run is {halves.target}: a route of another class is not there.")
    classes = halves.target, others.most_common(1)[0][0]
    labels = {key: label for key, label in halves.labels.items() if label in classes}
    receivers: list[str] = []
    for name in classes:
        of = [key for key, label in labels.items() if label == name]
        if len(of) < 2:
            raise MoteError(f"{len(of)} prompt of the run is answered {name}, and a transplant needs two at least.")
        receivers += spread(of, halves.units, options.prompts, options.seed)
    grafts = plan_grafts(receivers, labels, classes, halves.units, options.seed)
    settings = {**asdict(options), "classes": list(classes), "unit": halves.unit, "grafts": [list(g) for g in grafts]}
    return _Plan(grafts, classes, settings)


def transplant_run(
    folder: Path,
    options: TransplantOptions,
    console: Console,
    *,
    dry_run: bool = False,
    engine: StartsEngine = engine_starter,
    own: Own = NOTHING_OWN,
) -> Transplant | None:
    """Answer a run's prompts under foreign routes, or go on with it; None for a dry run. Says its cost first.

    Raises MoteError for what is wrong with the run, the options or the engine, before anything is asked.
    """
    with open_session(folder, console, engine, own) as session:
        halves = read_halves(session.store, session.manifest)
        plan = prepare(halves, options, session.model.layout)
        asking = Asking(session, halves, "ranking")
        path = subfolder(folder, FOLDER) / f"answers-{digest_of(plan.settings)[:12]}.jsonl"
        stored = read_answers(path)
        missing = [graft for graft in plan.grafts if graft not in stored]
        _announce(plan, missing, console)
        if dry_run:
            return None
        session.check_engine()
        if missing:
            _ask(session, halves, options, missing, path)
            stored = read_answers(path)
        frame = _labelled(asking, halves, plan, stored)
        mine = frame[frame["route"] == OWN]
        return Transplant(
            {key: value for key, value in plan.settings.items() if key != "grafts"},
            graft_cells(frame, halves.target),
            graft_effects(frame, plan.classes, halves.units),
            sum(graft not in stored for graft in plan.grafts),
            sum(raw == halves.raws[key] for key, raw in zip(mine["receiver"], mine["raw"], strict=True)),
            len(mine),
        )


class StoredAnswer(BaseModel):
    """One line of the file of answers: what was asked, what came back, and what the receipt says of the route."""

    model_config = ConfigDict(extra="forbid", strict=True)

    receiver: str
    donor: str
    route: str
    unit: str
    raw: str
    finish_reason: str | None
    prompt_opens: bool
    digest: str
    forced: int
    changed: int

    @property
    def graft(self) -> Graft:
        """What was asked."""
        return Graft(self.receiver, self.donor, self.route, self.unit)


def read_answers(path: Path) -> dict[Graft, StoredAnswer]:
    """Return the answers of a file, by graft; a line that a kill cut off is none.

    Raises MoteError for a file that cannot be read; a whole line that is no answer is skipped and asked again.
    """
    if not path.exists():
        return {}
    try:
        lines = read_text(path).splitlines()
    except UnreadableError as error:
        raise MoteError(f"{path}: it {error}; take it away to ask again.") from None
    found = {}
    for line in lines:
        with contextlib.suppress(ValidationError):
            row = StoredAnswer.model_validate_json(line)
            found[row.graft] = row
    return found


def _announce(plan: _Plan, missing: Sequence[Graft], console: Console) -> None:
    donors = {graft.donor for graft in missing} | {graft.receiver for graft in missing}
    stored = len(plan.grafts) - len(missing)
    console.print(
        f"Route transplant: {len(plan.grafts):,} answers ({stored:,} stored), and {len(donors):,} prompts asked"
        f" untouched for their routes; classes {' and '.join(plan.classes)}",
        soft_wrap=True,
    )


def _ask(session: Session, halves: Halves, options: TransplantOptions, missing: Sequence[Graft], path: Path) -> None:
    """Capture the routes that are needed, then ask; a line is written as soon as its answer is there."""
    keys = list(dict.fromkeys(key for graft in missing for key in (graft.donor, graft.receiver)))
    pairs = _pairs(session, halves, options, missing)
    most = 1 if options.tokens == "prompt" else None

    def request(key: str, route: Route | None) -> Request:
        messages, seed = halves.prompts[key].messages, session.seed_of(key)
        if route is not None:
            return Request(key, messages, EMPTY_PROFILE, seed, route=route)
        return Request(key, messages, EMPTY_PROFILE, seed, CAPTURE, most=most)

    seen: dict[str, Observation] = {}
    for some in _answers(session, "Routes", [request(key, None) for key in keys]):
        seen |= {keys[at]: answer.observation for at, answer in some}
    routes = [_route(seen, graft, options, pair) for graft, pair in zip(missing, pairs, strict=True)]
    asked = [request(graft.receiver, route) for graft, route in zip(missing, routes, strict=True)]
    with open_own(path) as file:
        # A line that a kill cut off must not swallow the next.
        file.write(b"\n")
        for some in _answers(session, "Transplants", asked):
            for at, answer in some:
                file.write(_row(missing[at], answer, session.engine.prompt_opens).model_dump_json().encode() + b"\n")
            file.flush()


def _answers(session: Session, what: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
    with step(session.console, what, len(requests)) as advance:
        for some in session.engine.generate(requests):
            yield some
            advance(len(some))


def _pairs(
    session: Session, halves: Halves, options: TransplantOptions, missing: Sequence[Graft]
) -> list[Pairs | None]:
    """Align all prompts before anything is asked; None for each where they are aligned from the end."""
    if options.align != "role" or options.tokens == "generated":
        return [None] * len(missing)
    turns: dict[str, Turns] = {}
    engine = session.engine
    found: list[Pairs | None] = []
    for graft in missing:
        try:
            for key in (graft.donor, graft.receiver):
                if key not in turns:
                    turns[key] = engine.turns(halves.prompts[key].messages)
            found.append(pairs_by_role(turns[graft.donor], turns[graft.receiver]))
        except MoteError as error:
            raise MoteError(f"--align role: prompt '{graft.receiver}' by '{graft.donor}': {error}") from None
    return found


def _route(seen: Mapping[str, Observation], graft: Graft, options: TransplantOptions, pairs: Pairs | None) -> Route:
    donor = seen[graft.donor]
    room = len(seen[graft.receiver].rows["prompt"])
    try:
        return Route.of(donor, tokens=options.tokens, layers=options.layers, kept=options.kept, last=room, pairs=pairs)
    except ProfileError as error:
        raise MoteError(f"prompt '{graft.donor}': {error}") from None


def _row(graft: Graft, answer: Answer, opens: bool) -> StoredAnswer:
    receipt = answer.observation.receipt
    return StoredAnswer(
        **graft._asdict(),
        raw=answer.raw,
        finish_reason=answer.finish_reason,
        prompt_opens=opens,
        digest=receipt.route,
        forced=receipt.forced,
        changed=receipt.changed,
    )


def _labelled(asking: Asking, halves: Halves, plan: _Plan, stored: Mapping[Graft, StoredAnswer]) -> pd.DataFrame:
    rows = [stored[graft].model_dump() for graft in plan.grafts if graft in stored]
    frame = pd.DataFrame(rows).assign(prompt_id=[row["receiver"] for row in rows])
    return frame.assign(label=asking.labels(frame), content=[halves.labels[row["receiver"]] for row in rows])
