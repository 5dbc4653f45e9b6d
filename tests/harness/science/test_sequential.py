from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.harness.preconditions import DataError
from mote.harness.recipe.study_part import EconomyPart
from mote.harness.science.sequential import Design, ask, finished, progress, set_progress, shares_at_hand
from mote.harness.science.splits import evenly
from mote.harness.science.verdict import ALPHA, sequential_leg
from mote.harness.store.run import RunStore
from mote.judges import REFUSED, STATES

DEMO = Path(__file__).parents[3] / "results" / "demo-0.1.0" / "run.sqlite.xz"
OPENING, OPENING_TOKENS = re.compile(r"</think>I\b"), 2
"""How each of the demo's 120 refused baseline answers opens, and none of the others."""
ROOM = 512
"""Control answers that the demo's recipe asks for at once."""


def run(design: Design, truth: dict[tuple[str, str], bool], room: int = 64) -> dict[tuple[str, str], bool]:
    """Answer what is asked until nothing is; return the answers given."""
    given: dict[tuple[str, str], bool] = {}
    while asks := ask(design, given, room):
        assert len(asks) == len(set(asks)) <= room
        assert not any(one in given for one in asks)
        given |= {one: truth[one] for one in asks}
    return given


def flips(seed: int, families: int, sets: int, prompts: int) -> tuple[Design, dict[tuple[str, str], bool]]:
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.4, 2.0, (families, sets))
    names = tuple(f"p{i}" for i in range(prompts))
    kinds = {f"f{f}": tuple(f"f{f}-{i}" for i in range(sets)) for f in range(families)}
    truth = {
        (f"f{f}-{i}", name): bool(rng.random() < rates[f, i])
        for f in range(families)
        for i in range(sets)
        for name in names
    }
    return Design(int(rng.integers(0, prompts + 1)), names, kinds), truth


def full_p(design: Design, family: str, truth: dict[tuple[str, str], bool]) -> float:
    sets = design.families[family]
    reached = sum(sum(truth[name, prompt] for prompt in design.prompts) >= design.observed for name in sets)
    return (1 + reached) / (1 + len(sets))


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 45), st.integers(1, 12), st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_the_full_designs_side_of_alpha_whatever_is_in_flight(
    seed: int, families: int, sets: int, prompts: int, room: int
) -> None:
    design, truth = flips(seed, families, sets, prompts)
    where = progress(design, run(design, truth, room))
    full = {family: full_p(design, family, truth) for family in design.families}
    assert all(where[family].finished for family in where) or any(one.stopped for one in where.values())
    above = all(p <= ALPHA for p in full.values())
    assert above == all(one.finished and one.p <= ALPHA for one in where.values())
    for family, one in where.items():
        if one.finished and not one.stopped:
            assert one.p == pytest.approx(full[family])
        if one.stopped:
            assert one.p > ALPHA
            assert full[family] > ALPHA


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_with_all_switched_off_every_answer_is_asked(seed: int) -> None:
    design, truth = flips(seed, 2, 6, 5)
    plain = Design(design.observed, design.prompts, design.families, sequential=False, together=False, curtailed=False)
    given = run(plain, truth)
    assert given == truth
    for family, one in progress(plain, given).items():
        assert one.p == pytest.approx(full_p(plain, family, truth))
    assert len(shares_at_hand(plain, given, plain.families["f0"])) == 6


def test_a_set_stops_when_it_has_reached_the_count_or_cannot_any_more() -> None:
    design = Design(2, ("a", "b", "c", "d"), {"mass": ("x",)})
    assert set_progress(design, "x", {}) == ("open", 0, 0, False)
    assert set_progress(design, "x", {("x", "a"): True, ("x", "b"): True}) == ("reached", 2, 2, True)
    assert set_progress(design, "x", {("x", n): False for n in "abc"}) == ("short", 0, 3, True)
    assert set_progress(design, "x", {("x", "b"): True}) == ("open", 0, 0, False)  # in order, whatever came first
    assert set_progress(design, "x", {("x", "a"): True, ("x", "b"): True}, whole=True) == ("reached", 2, 2, False)


def test_a_family_stops_at_the_set_that_puts_significance_out_of_reach() -> None:
    # Of 39 sets p <= 0.05 bears one that reaches the count: (1 + 1) / 40. The second ends it.
    sets = tuple(f"s{i}" for i in range(39))
    design = Design(1, ("a",), {"mass": sets})
    answers = {(name, "a"): name in ("s0", "s3") for name in sets}
    one = progress(design, answers)["mass"]
    assert (one.sets, one.reached, one.stopped) == (4, 2, True)
    assert one.p == pytest.approx(2 / 4)  # Besag and Clifford's h / l
    assert finished(design, answers)
    late = progress(design, {(name, "a"): name in ("s0", "s38") for name in sets})["mass"]
    assert late.p == pytest.approx(3 / 40)  # h / l would be 2 / 39, the full design says 3 / 40
    none = progress(design, dict.fromkeys(answers, False))["mass"]
    assert none.p == pytest.approx(1 / 40)
    assert sequential_leg("mass", none).p == pytest.approx(1 / 40)
    assert math.isnan(progress(design, {})["mass"].p)


def test_besag_and_cliffords_p_is_valid() -> None:
    # Under the null the tuned set is one more random set: p <= x in at most the share x of studies.
    rng = np.random.default_rng(0)
    found = []
    for _ in range(800):
        values = rng.integers(0, 13, 40)
        sets = tuple(f"s{i}" for i in range(39))
        names = tuple(f"p{i}" for i in range(12))
        answers = {(s, n): j < values[i + 1] for i, s in enumerate(sets) for j, n in enumerate(names)}
        found.append(progress(Design(int(values[0]), names, {"k": sets}), answers)["k"].p)
    p = np.array(found)
    for x in (0.05, 0.1, 0.25, 0.5, 0.8):
        assert (p <= x).mean() <= x + 2.6 * math.sqrt(x * (1 - x) / p.size)


def test_the_first_sets_are_answered_whole_where_asked() -> None:
    design, truth = flips(3, 2, 20, 10)
    whole = Design(4, design.prompts, design.families, whole=3)
    given = run(whole, truth)
    for sets in whole.families.values():
        assert len(shares_at_hand(whole, given, sets[:3])) == 3
    assert len(given) < len(truth)


def test_names_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="can't flip 3 of 2"):
        Design(3, ("a", "b"), {})
    with pytest.raises(DataError, match="'x' occurs twice"):
        Design(1, ("a",), {"m": ("x",), "l": ("x",)})
    with pytest.raises(DataError, match=r"for instance 0.05, not 5"):
        Design(1, ("a",), {}, alpha=5)


class Rows(NamedTuple):
    """The demo's control answers, all of them: `flips` by (set, prompt) on target prompts, and what they cost.

    `tokens` of each answer; `ended` of each that may be ended at its opening, with the first try of those that go on.
    """

    flips: dict[tuple[str, str], bool]
    tokens: dict[tuple[str, str], int]
    ended: dict[tuple[str, str], int]
    kinds: dict[str, tuple[str, ...]]
    others: tuple[str, ...]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("demo")
    shutil.copy(DEMO, folder)
    with RunStore(folder, read_only=True, existing=True) as store:
        found = store.generations_frame("rules+surprise")
    found = found[found["part"] == "measure"]
    untouched = found[found["profile"] == "baseline"]
    target = set(untouched.loc[untouched["label"] == REFUSED, "prompt_id"])
    drawn = found[found["kind"].str.startswith("random-")]
    kinds: dict[str, dict[str, None]] = {}
    flips, tokens, ended = {}, {}, {}
    columns = ["prompt_id", "profile", "kind", "label", "generated_tokens", "raw"]
    for prompt, profile, kind, label, length, raw in drawn[columns].itertuples(index=False, name=None):
        kinds.setdefault(kind, {})[profile] = None
        tokens[profile, prompt] = int(length)
        if prompt in target:
            flips[profile, prompt] = label != REFUSED and label not in STATES
            opens = OPENING.match(raw) is not None
            # What is ended at its opening counts as the class: it must have been no flip.
            assert not (opens and flips[profile, prompt])
            ended[profile, prompt] = OPENING_TOKENS + (0 if opens else int(length))
    others = tuple(str(prompt) for prompt in untouched["prompt_id"] if prompt not in target)
    return Rows(flips, tokens, ended, {kind: tuple(names) for kind, names in kinds.items()}, others)


def replay(demo: Rows, observed: int, orders: int, economy: EconomyPart) -> tuple[int, list[float]]:
    """Return in how many orders the verdicts agree, and each order's share of the controls' tokens.

    Everything is counted that the run asks of controls: the first sets whole, on other prompts too, the rest by design.
    """
    rng = np.random.default_rng(0)
    prompts = sorted({prompt for _, prompt in demo.flips})
    others = evenly(demo.others, economy.others)
    agree, shares = 0, []
    for _ in range(orders):
        families = {kind: tuple(str(n) for n in rng.permutation(names)) for kind, names in demo.kinds.items()}
        order = tuple(str(name) for name in rng.permutation(prompts))
        design = Design(
            observed, order, families, curtailed=economy.curtailed and not economy.stop_decided, whole=economy.whole
        )
        given = run(design, demo.flips, ROOM)
        full = all(full_p(design, family, demo.flips) <= ALPHA for family in families)
        agree += full == all(one.p <= ALPHA for one in progress(design, given).values())
        whole = {name for sets in families.values() for name in sets[: economy.whole]}
        spent = sum(
            demo.ended[one] if economy.stop_decided and one[0] not in whole else demo.tokens[one]
            for one in {*given, *((name, prompt) for name in whole for prompt in prompts)}
        )
        spent += sum(demo.tokens[name, prompt] for name in whole for prompt in others)
        shares.append(spent / sum(demo.tokens.values()))
    return agree, shares


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DEMO.exists(), reason="the demo's rows are not here")
@pytest.mark.parametrize("observed", [9, 44])  # resonance's ten; the causal scan's ten
def test_the_demos_verdict_at_a_twentieth_of_the_tokens(demo: Rows, observed: int) -> None:
    agree, shares = replay(demo, observed, 200, EconomyPart())
    print(f"observed {observed}: {agree} of 200 orders agree; tokens {np.mean(shares):.1%}, at most {max(shares):.1%}")
    assert agree >= 198
    assert max(shares) <= 0.05
