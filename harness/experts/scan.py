"""``mote scan RUN``: the causal scan of a run's experts, on the real engine, with the run's own model and baseline.

Scanned are prompts of the class under study among those that choose experts, never one that measures; where a contrast
chooses, those of its first set: the scan then says what turns such answers to such prompts. After each of them its own
opening is scored, the first tokens of the baseline's raw text: what the model said first, whether that opened a
reasoning, closed one that the prompt had opened, or began an answer. So the scan asks what turns the model to another
first step. Where a model reasons at length before it refuses, that step is the reasoning's, and the refusal is decided
later than the scan looks.

The alternatives are openings of the same length that answers of the other classes in the same half begin with
(``causal.choose_alternatives``).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mote.harness.engine.servers import engine_starter
from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.engine.vllm import Scored, Scoring
from mote.harness.errors import MoteError
from mote.harness.experts.rankings import CAUSAL, Halves, pick_rankings, read_halves, seen_rankings
from mote.harness.progress import step
from mote.harness.recipe.manifest import new_session
from mote.harness.recipe.schema import Recipe
from mote.harness.science.causal import Measurement, ScanPlan, choose_alternatives, plan_scan, remaining
from mote.harness.science.controls import Expert
from mote.harness.store.scans import Scans, ScoreRow, StoredScan
from mote.harness.study.session import Session, StartsEngine, open_session
from mote.patches import EMPTY_PROFILE, Action, Edit, ModelLayout, Profile, ProfileError

ACTIONS: Final[tuple[Action, ...]] = ("suppress", "scale")
"""What can be done to each expert alone; stimulated, every expert would be chosen by every token."""
Tokeniser = Callable[[str, int], str]
"""(text, n) -> the first n tokens of a text, as text."""


@dataclass(frozen=True)
class ScanOptions:
    """What to scan: ``top`` experts by the ranking ``by`` (None: all, in its order), each edited by ``action``.

    ``prompts`` is how many of the class, fewer where there are fewer; ``tokens`` how long an opening is,
    ``alternatives`` how many other openings at most.
    """

    prompts: int = 24
    top: int | None = None
    by: str = "resonance"
    action: Action = "suppress"
    factor: float = 0.0
    tokens: int = 4
    alternatives: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise MoteError for an edit that can't be, or that changes nothing."""
        if self.action == "scale" and self.factor == 1.0:
            raise MoteError("--factor 1 changes nothing: scale by less, to weaken each expert, or by more.")
        try:
            Edit(0, 0, self.action, self.factor)
        except ProfileError as error:
            raise MoteError(str(error).replace("edit (0, 0) ", "--action ")) from None


class Scan(NamedTuple):
    """A scan ready to be made: the plan, the openings of each prompt (its own first), and what identifies it."""

    plan: ScanPlan
    openings: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]


def prepare(halves: Halves, options: ScanOptions, first_tokens: Tokeniser) -> Scan:
    """Choose prompts, openings and experts of a scan. Raises MoteError (DataError) where the run has too few."""
    halves.check_chosen("a causal scan", 2)
    prompts = spread(halves.chosen, halves.units, options.prompts, options.seed)
    openings = {key: first_tokens(halves.raws[key], options.tokens) for key in (*halves.chosen, *halves.ids)}
    others: dict[str, list[str]] = defaultdict(list)
    for key in halves.ids:
        # Of a contrast, prompts choose whose answer has no class; what such an answer begins with is no alternative.
        if halves.labels.get(key, halves.target) != halves.target:
            others[halves.labels[key]].append(openings[key])
    own = {openings[key] for key in halves.chosen}
    alternatives = choose_alternatives(others, own, options.alternatives)
    ranking = _prefilter(halves, options.by)
    plan = plan_scan(halves.layers, halves.experts, prompts, 1 + len(alternatives), ranking=ranking, top=options.top)
    texts = {key: [openings[key], *alternatives] for key in prompts}
    settings = {
        "action": options.action,
        "factor": options.factor,
        "target": halves.target,
        "seed": options.seed,
        "tokens": options.tokens,
        "prompts": {key: openings[key] for key in prompts},
        "alternatives": alternatives,
    }
    return Scan(plan, texts, settings)


def scan_run(
    folder: Path,
    options: ScanOptions,
    console: Console,
    *,
    max_passes: int | None = None,
    engine: StartsEngine = engine_starter,
    own: Own = NOTHING_OWN,
    first_tokens: Tokeniser | None = None,
) -> StoredScan:
    """Scan a run's experts, or go on with it, and return what is stored by then. Says its cost before it starts.

    ``max_passes`` bounds the forward passes of this start. Raises MoteError for what is wrong with the run, the
    options or the engine, before anything is written; what was measured is stored as it comes.
    """
    with open_scan(folder, options, console, engine=engine, own=own, first_tokens=first_tokens) as opened:
        missing = remaining(opened.scan.plan, opened.scans.done(opened.scan_id))
        _announce(opened.scan, len(missing), max_passes, console)
        measure_singles(opened, missing[:max_passes], "Causal scan")
        return opened.stored


class OpenScan(NamedTuple):
    """A scan that has begun in a run's store."""

    session: Session
    scans: Scans
    scan: Scan
    halves: Halves
    scan_id: int

    @property
    def stored(self) -> StoredScan:
        """The scan with the rows that it has by now."""
        return next(each for each in self.scans.scans() if each.scan_id == self.scan_id)


@contextmanager
def open_scan(
    folder: Path,
    options: ScanOptions,
    console: Console,
    further: Mapping[str, Any] | None = None,
    *,
    engine: StartsEngine,
    own: Own,
    first_tokens: Tokeniser | None,
) -> Iterator[OpenScan]:
    """Begin a scan in a run's store, or find the one that has these settings; ``further`` settings are the method's.

    Raises MoteError for what is wrong with the run, the options or the engine, before anything is written.
    """
    with open_session(folder, console, engine, own) as session:
        halves = read_halves(session.store, session.manifest)
        tokeniser = first_tokens or partial(opening, tokenizer_of(session.recipe, session.model.path))
        made = prepare(halves, options, tokeniser)
        scan = made._replace(settings={**made.settings, **(further or {})})
        session.check_engine()
        scans = Scans(session.store)
        yield OpenScan(session, scans, scan, halves, scans.begin(scan.settings, new_session()))


def spread(prompts: Sequence[str], units: Mapping[str, Hashable], count: int, seed: int) -> list[str]:
    """Return ``count`` of the prompts (or all, if they are fewer), taken in turn from each unit, by the seed.

    A prompt's turn depends on the seed and its id alone, so that a larger count adds prompts and changes none.
    """
    taken = set(in_turn(prompts, units, seed)[:count])
    return [key for key in prompts if key in taken]


def in_turn(prompts: Sequence[str], units: Mapping[str, Hashable], seed: int) -> list[str]:
    """Return the prompts in the order in which ``spread`` takes them: one of each unit, then a second of each."""
    queues: dict[Hashable, list[str]] = defaultdict(list)
    for key in sorted(prompts, key=lambda key: (hashlib.sha256(f"{seed}/{key}".encode()).hexdigest(), key)):
        queues[units.get(key)].append(key)
    turns = [(turn, at, key) for at, queue in enumerate(queues.values()) for turn, key in enumerate(queue)]
    return [key for _, _, key in sorted(turns)]


def tokenizer_of(recipe: Recipe, path: str) -> Any:
    """Return the tokenizer of a recipe's model; its own code runs where the user's own options say so."""
    from transformers import AutoTokenizer

    trust = bool(recipe.model.options.get("trust_remote_code", False))
    return AutoTokenizer.from_pretrained(path, trust_remote_code=trust)


def opening(tokenizer: Any, text: str, count: int) -> str:
    """Return the first ``count`` tokens of a text; a few more where they would end within a character."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    for size in range(count, len(ids)):
        found = str(tokenizer.decode(ids[:size], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if found and text.startswith(found):
            return found
    return text


def profile_of(expert: Expert | None, settings: Mapping[str, Any], layout: ModelLayout) -> Profile:
    """Return the profile that edits one expert alone as a scan's settings say; the empty one for None."""
    if expert is None:
        return EMPTY_PROFILE
    edit = Edit(*expert, settings["action"], settings["factor"])
    return Profile(f"{settings['action']}-{expert[0]}-{expert[1]}", (edit,), model=layout)


def _prefilter(halves: Halves, by: str) -> NDArray[np.float64]:
    if by == CAUSAL:
        raise MoteError("--by causal: a scan can't choose its experts by what it is to find. Take another ranking.")
    return pick_rankings(seen_rankings(halves), [by])[by]


def _announce(scan: Scan, missing: int, max_passes: int | None, console: Console) -> None:
    done = scan.plan.cost - missing
    parts = [f"{done:,} of them stored"] if done else []
    if max_passes is not None and max_passes < missing:
        parts.append(f"{max_passes:,} at this start")
    console.print(f"Causal scan: {scan.plan}{'; ' if parts else ''}{', '.join(parts)}", soft_wrap=True)
    for text in scan.settings["alternatives"]:
        console.print(f"  alternative opening: {text!r}", soft_wrap=True, markup=False)


def measure_singles(opened: OpenScan, asked: Sequence[Measurement], what: str, known: Known | None = None) -> None:
    """Measure single experts on the engine and store each pass as it comes; nothing asked, no engine is started.

    An expert that no token of a prompt with its opening chooses has no weight to lose: such a pass would be the
    untouched one again, and is not made. Its row is the untouched pass's, with that pass's receipt. ``known`` has the
    untouched passes that were made before by this process, and gets the further ones.
    """
    if not asked:
        return
    session, scans, scan_id = opened.session, opened.scans, opened.scan_id
    known = {} if known is None else known
    edited = [each for each in asked if each.expert is not None]
    own = [each for each in asked if each.expert is None]
    times = Counter(map(_place, edited))
    # Also those that are stored, where their experts tell more than they cost.
    more = [Measurement(key, None, at) for (key, at), count in times.items() if count > 1 and (key, at) not in known]
    wanted = set(own)
    with step(session.console, what, len(asked)) as advance:
        for some in look_untouched(opened, [*own, *(each for each in more if each not in wanted)]):
            new = [each.row for each in some if each.row.measurement in wanted]
            scans.add(scan_id, new)
            known.update({_place(each.row.measurement): each for each in some})
            advance(len(new))
        idle: list[Measurement] = []
        left: list[Measurement] = []
        for each in edited:
            untouched = known.get(_place(each))
            (left if untouched is None or untouched.chooses(each.expert) else idle).append(each)
        scans.add(scan_id, [known[_place(each)].row._replace(measurement=each) for each in idle])
        advance(len(idle))
        for scored in session.engine.score(_requests(opened, left)):
            scans.add(scan_id, [_row(left[index], one) for index, one in scored])
            advance(len(scored))
    if idle:
        said = f"{len(idle):,} of the passes were not needed: no token chose the expert"
        session.console.print(said, soft_wrap=True)


class Untouched(NamedTuple):
    """An untouched pass: its row, and the experts that its tokens chose; None where not all of them are known."""

    row: ScoreRow
    chosen: frozenset[Expert] | None

    def chooses(self, expert: Expert | None) -> bool:
        """Whether a token may have chosen the expert."""
        return self.chosen is None or expert in self.chosen


Known = dict[tuple[str, int], Untouched]
"""Untouched passes by prompt id and opening."""


def look_untouched(opened: OpenScan, passes: Sequence[Measurement]) -> Iterator[list[Untouched]]:
    """Make untouched passes and yield them as they come, with the experts that their tokens chose. Stores nothing."""
    if not passes:
        return
    session = opened.session
    requests = [request._replace(capture="prompt") for request in _requests(opened, passes)]
    for some in session.engine.score(requests):
        yield [Untouched(_row(passes[index], one), _chosen(one, session.model.layout.layers)) for index, one in some]


def _place(measurement: Measurement) -> tuple[str, int]:
    return measurement.prompt_id, measurement.opening


def _chosen(scored: Scored, layers: Sequence[int]) -> frozenset[Expert] | None:
    found = scored.observation.maps.get("prompt")
    if found is None or found.counted != found.total:
        return None
    return frozenset((layers[int(row)], int(expert)) for row, expert in np.argwhere(found.counts > 0))


def _requests(opened: OpenScan, missing: Sequence[Measurement]) -> list[Scoring]:
    scan, prompts = opened.scan, opened.halves.prompts
    profile = cache(partial(profile_of, settings=scan.settings, layout=opened.session.model.layout))
    return [
        Scoring(
            each.prompt_id,
            prompts[each.prompt_id].messages,
            profile(each.expert),
            scan.openings[each.prompt_id][each.opening],
        )
        for each in missing
    ]


def _row(measurement: Measurement, scored: Scored) -> ScoreRow:
    observation = scored.observation
    return ScoreRow(
        measurement,
        list(zip(scored.tokens, scored.logprobs, strict=True)),
        sum(effect.selected for effect in observation.mechanism),
        observation.receipt.digest,
        observation.receipt.tokens_edited,
    )
