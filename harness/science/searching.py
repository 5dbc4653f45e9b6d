"""A search for the set of experts of most effect at bounded harm, with a null of its own.

The best of many trials is too good by selection, on the prompts that it was selected on and beyond: a search finds
something in noise too. So the winner is measured once, on prompts that took no part, and set beside the winners of
searches that were made in the same way, with as many trials, and measured on the same prompts:

- ``shuffled``: the classes of the choosing prompts are dealt out anew among them; ranking, pool and search follow.
  Where the class has no part in which experts matter, the run's own search is one more of these;
- ``pool``: the run's own classes, and a pool of random experts of the same layers, chosen as often in sum by the
  class's prompts (`controls.random_experts`, ``mass``). It asks whether the ranking's leading experts matter, or the
  search would have found as much among others.

p is (1 + the number of null searches whose winner does at least as much) / (1 + their number), as in
`inference.permutation_p`; a search is above its null where both p are at most `verdict.ALPHA`.

The steps of one search (`conduct`): trials are proposed by Optuna's TPE and screened by what is cheap; the leading
trials within the bound on harm are checked by answers; of those within the bound on broken answers the one of most net
effect is the winner, or none, which is the untouched model with an effect of 0. All searches go in step, so that one
batch of an engine serves all of them. Whoever calls brings the measures (`Measures`): nothing here has an engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mote.harness.preconditions import DataError
from mote.harness.science.controls import Expert, random_experts
from mote.harness.science.inference import permutation_p
from mote.harness.science.resonance import distinctive_experts
from mote.harness.science.sweeps import front
from mote.harness.science.verdict import ALPHA

Kind = Literal["run", "shuffled", "pool"]
NULLS: Final[tuple[Kind, ...]] = ("shuffled", "pool")


@dataclass(frozen=True)
class Plan:
    """How each search goes: so many ``trials``, ``batch`` of them proposed at a time, the first such batch at random.

    ``factors`` are those that a set's experts may be scaled by (0 switches off), ``harm`` and ``broken`` the bounds,
    ``checked`` how many leading trials are checked by answers.
    """

    trials: int = 24
    batch: int = 8
    factors: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    harm: float = 0.02
    broken: float = 0.05
    checked: int = 2


@dataclass(frozen=True)
class Arm:
    """One search: whose it is, its pool, the prompts that choose (of the class, and others), and its own seed."""

    kind: Kind
    number: int
    pool: tuple[Expert, ...]
    targets: tuple[str, ...]
    others: tuple[str, ...]
    seed: int


class Candidate(NamedTuple):
    """Experts (sorted) that are scaled together, and by how much; without experts the untouched model."""

    experts: tuple[Expert, ...]
    factor: float


UNTOUCHED: Final = Candidate((), 1.0)


class Screened(NamedTuple):
    """What a trial does by what is cheap: ``effect`` is to be large, ``harm`` small; both are 0 untouched."""

    effect: float
    harm: float


class Answered(NamedTuple):
    """What answers say: shares of the class's prompts that ``left`` it, of others that ``entered`` it, and broken."""

    left: float
    entered: float
    broken: float

    @property
    def net(self) -> float:
        """The share that left the class less the share that entered it."""
        return self.left - self.entered


NOTHING: Final = Answered(0.0, 0.0, 0.0)


class Trial(NamedTuple):
    """A candidate and what it was screened to do."""

    candidate: Candidate
    screened: Screened


class Check(NamedTuple):
    """A leading trial and its answers to the prompts that choose."""

    trial: Trial
    answered: Answered


class Found(NamedTuple):
    """What a search found: all its trials, those that were checked, the winner, and the winner's held answers."""

    arm: Arm
    trials: tuple[Trial, ...]
    checks: tuple[Check, ...]
    winner: Candidate
    held: Answered


class Measures(Protocol):
    """What measures candidates; none that it is given is the untouched model."""

    def screen(self, asked: Sequence[tuple[Arm, Candidate]]) -> Sequence[Screened]:
        """Return what each does by what is cheap, on the arm's own prompts."""
        ...

    def check(self, asked: Sequence[tuple[Arm, Candidate]]) -> Sequence[Answered]:
        """Return each one's answers to the arm's own prompts."""
        ...

    def hold(self, asked: Sequence[Candidate]) -> Sequence[Answered]:
        """Return each one's answers to the prompts that took no part, by the run's own classes."""
        ...


class Proposer(Protocol):
    """What proposes the candidates of one search."""

    def ask(self, count: int) -> list[Candidate]:
        """Return the next candidates."""
        ...

    def tell(self, screened: Sequence[Screened]) -> None:
        """Take what the candidates last asked for were screened to do."""
        ...


class TreeParzen:
    """Optuna's TPE over a pool: each expert in or out, one factor for all that are in, harm as a constraint.

    The first candidate is the whole pool by the least factor, the rest of the first batch is drawn at random.
    Raises ModuleNotFoundError without Optuna.
    """

    def __init__(self, arm: Arm, plan: Plan) -> None:
        import optuna
        from optuna.distributions import CategoricalDistribution, IntDistribution

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._plan, self._pool = plan, arm.pool
        with warnings.catch_warnings():
            # Multivariate, liar and constraints are called experimental; the range of versions is pinned.
            warnings.simplefilter("ignore")
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=plan.batch,
                multivariate=True,
                constant_liar=True,
                constraints_func=lambda trial: trial.user_attrs["over"],
                seed=arm.seed,
            )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._space: dict[str, Any] = {_name(one): CategoricalDistribution([False, True]) for one in arm.pool}
        self._space["factor"] = IntDistribution(0, len(plan.factors) - 1)
        self._study.enqueue_trial({**{_name(one): True for one in arm.pool}, "factor": 0})
        self._open: list[Any] = []

    def ask(self, count: int) -> list[Candidate]:
        """Return the next candidates."""
        self._open = [self._study.ask(self._space) for _ in range(count)]
        return [self._candidate(trial.params) for trial in self._open]

    def tell(self, screened: Sequence[Screened]) -> None:
        """Take what the candidates last asked for were screened to do."""
        for trial, found in zip(self._open, screened, strict=True):
            trial.set_user_attr("over", (found.harm - self._plan.harm,))
            self._study.tell(trial, found.effect)

    def _candidate(self, values: Mapping[str, Any]) -> Candidate:
        experts = tuple(sorted(one for one in self._pool if values[_name(one)]))
        return Candidate(experts, self._plan.factors[values["factor"]]) if experts else UNTOUCHED


def _name(expert: Expert) -> str:
    return f"{expert[0]}/{expert[1]}"


def draw_arms(
    labels: Mapping[str, str],
    target: str,
    rank: Callable[[Sequence[str]], NDArray[np.float64]],
    pick: Callable[[Sequence[str], Sequence[str]], tuple[Sequence[str], Sequence[str]]],
    mass: NDArray[np.float64],
    layers: Sequence[int],
    pool: int,
    nulls: Mapping[Kind, int],
    seed: int,
) -> list[Arm]:
    """Return the run's own search and those of its nulls.

    ``labels`` are the classes of the choosing prompts, in order; ``rank`` gives the ranking [layers, experts] that such
    a list of classes has; ``pick`` takes the prompts of the class and the others and returns those that are asked;
    ``mass`` [layers, experts] is what random pools are matched on, activations a prompt of the class. Of random pools
    there may be fewer than asked for. Raises `DataError` where a ranking has fewer than ``pool`` experts above 0.
    """
    ids, classes = list(labels), list(labels.values())

    def arm(kind: Kind, number: int, own: Sequence[str], experts: Sequence[Expert]) -> Arm:
        sides = (
            [key for key, label in zip(ids, own, strict=True) if label == target],
            [key for key, label in zip(ids, own, strict=True) if label != target],
        )
        targets, others = pick(*sides)
        return Arm(kind, number, tuple(experts), tuple(targets), tuple(others), _seed(seed, kind, number))

    def leading(own: Sequence[str]) -> list[Expert]:
        return [(one.layer, one.expert) for one in distinctive_experts(rank(own), pool, layers)]

    ours = leading(classes)
    arms = [arm("run", 0, classes, ours)]
    for number in range(1, nulls.get("shuffled", 0) + 1):
        rng = np.random.default_rng(_seed(seed, "shuffled", number))
        dealt = [classes[at] for at in rng.permutation(len(classes))]
        arms.append(arm("shuffled", number, dealt, leading(dealt)))
    if count := nulls.get("pool", 0):
        drawn = random_experts("mass", ours, mass, layers, count, _seed(seed, "pool", 0))
        arms += [arm("pool", number, classes, experts) for number, experts in enumerate(drawn, start=1)]
    return arms


def _seed(seed: int, kind: Kind, number: int) -> int:
    order = ("run", *NULLS).index(kind)
    return int(np.random.SeedSequence([seed, order, number]).generate_state(1)[0])


def conduct(
    arms: Sequence[Arm],
    plan: Plan,
    measures: Measures,
    proposer: Callable[[Arm, Plan], Proposer] = TreeParzen,
) -> list[Found]:
    """Make all searches in step and measure each one's winner on the held prompts. Deterministic in the seeds."""
    proposers = [proposer(arm, plan) for arm in arms]
    trials: list[list[Trial]] = [[] for _ in arms]
    for start in range(0, plan.trials, plan.batch):
        count = min(plan.batch, plan.trials - start)
        proposed = [one.ask(count) for one in proposers]
        found = _screen(measures, [(arm, one) for arm, some in zip(arms, proposed, strict=True) for one in some])
        for at, own in enumerate(proposers):
            screened = found[at * count : (at + 1) * count]
            own.tell(screened)
            trials[at] += [Trial(*pair) for pair in zip(proposed[at], screened, strict=True)]
    leaders = [leading(some, plan) for some in trials]
    asked = [(arm, trial.candidate) for arm, some in zip(arms, leaders, strict=True) for trial in some]
    answers = iter(measures.check(asked) if asked else ())
    checks = [tuple(Check(trial, next(answers)) for trial in some) for some in leaders]
    winners = [winner(some, plan) for some in checks]
    held = iter(measures.hold([one for one in winners if one.experts]) if any(one.experts for one in winners) else ())
    return [
        Found(arm, tuple(some), checked, won, next(held) if won.experts else NOTHING)
        for arm, some, checked, won in zip(arms, trials, checks, winners, strict=True)
    ]


def _screen(measures: Measures, asked: Sequence[tuple[Arm, Candidate]]) -> list[Screened]:
    """Screen candidates; the untouched model is known to do nothing."""
    edited = [(arm, one) for arm, one in asked if one.experts]
    found = iter(measures.screen(edited) if edited else ())
    return [next(found) if one.experts else Screened(0.0, 0.0) for _, one in asked]


def leading(trials: Sequence[Trial], plan: Plan) -> list[Trial]:
    """Return the different trials of most effect that are within the bound on harm, best first.

    Of equal effects the less harmful comes first, then the smaller set. What has no effect does not lead.
    """
    different = {trial.candidate: trial for trial in trials if trial.candidate.experts}
    within = [one for one in different.values() if one.screened.harm <= plan.harm and one.screened.effect > 0]
    order = sorted(within, key=lambda one: (-one.screened.effect, one.screened.harm, len(one.candidate.experts)))
    return order[: plan.checked]


def winner(checks: Sequence[Check], plan: Plan) -> Candidate:
    """Return the checked candidate of most net effect within the bound on broken answers, or the untouched model.

    The latter where none is within the bound or has a net effect; of equal ones the first, which leads by its screen.
    """
    within = [one for one in checks if one.answered.broken <= plan.broken and one.answered.net > 0]
    best = max(within, key=lambda one: one.answered.net, default=None)
    return UNTOUCHED if best is None else best.trial.candidate


def pareto(trials: Sequence[Trial]) -> list[int]:
    """Return the numbers of the trials than which none has less harm and as much effect, by their harm."""
    return front([(one.screened.harm, one.screened.effect) for one in trials])


Said = Literal["above", "not-above", "few", "none"]


class Leg(NamedTuple):
    """The run's winner among the winners of one kind of null: how many, their mean and largest net effect, and p."""

    kind: Kind
    searches: int
    mean: float
    most: float
    p: float


class Ruling(NamedTuple):
    """The held net effect of the run's winner, its legs, the largest p, the least p that was in reach, and the word.

    ``above``: every leg's p is at most `ALPHA`, and both kinds of null are there. ``few``: some leg has too few
    searches to tell. ``none``: the search found nothing within its bounds. Else ``not-above``.
    """

    net: float
    legs: tuple[Leg, ...]
    p: float
    least_p: float
    said: Said


def rule(found: Sequence[Found], alpha: float = ALPHA) -> Ruling:
    """Set the run's winner among those of its nulls. Raises `DataError` without the run's own search, or any null."""
    own = [one for one in found if one.arm.kind == "run"]
    legs = []
    for kind in NULLS:
        null = [one.held.net for one in found if one.arm.kind == kind]
        if null:
            p = permutation_p(own[0].held.net, null) if own else 1.0
            legs.append(Leg(kind, len(null), float(np.mean(null)), max(null), p))
    if len(own) != 1 or not legs:
        raise DataError("A search is ruled on by its own winner and those of null searches; one of them is missing.")
    largest = max(leg.p for leg in legs)
    least = max(1 / (leg.searches + 1) for leg in legs)
    return Ruling(own[0].held.net, tuple(legs), largest, least, _said(own[0], legs, alpha))


def _said(own: Found, legs: Sequence[Leg], alpha: float) -> Said:
    if not own.winner.experts:
        return "none"
    if any(leg.p > alpha and 1 / (leg.searches + 1) <= alpha for leg in legs):
        return "not-above"
    if len(legs) < len(NULLS) or any(leg.p > alpha for leg in legs):
        return "few"
    return "above"
