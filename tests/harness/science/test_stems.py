from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mote.harness.preconditions import DataError
from mote.harness.science.stems import class_chance, learn, with_exact

REFUSALS = ["I am sorry , I can not", "I am sorry , but no", "I am sorry , I will not", "As an AI I do not know"]
ANSWERS = ["I am told that it rained", "In 1980 it rained", "As an example take 1980"]


def words(texts: list[str]) -> list[list[str]]:
    return [text.split() for text in texts]


def test_the_shortest_openings_that_mark_the_class() -> None:
    found = learn(words(REFUSALS), words(ANSWERS), coverage=0.7)
    assert found.openings == (("I", "am", "sorry"),)
    assert (found.covered, found.answers, found.foreign, found.enough) == (3, 4, 0, True)
    assert found.coverage == 0.75
    assert found.has(["I", "am", "sorry", "to", "say"])
    assert not found.has(["I", "am"])
    assert not learn(words(REFUSALS), words(ANSWERS), coverage=0.8).enough
    every = learn(words(REFUSALS), words(ANSWERS), support=1)
    assert every.openings == (("I", "am", "sorry"), ("As", "an", "AI"))
    assert every.enough
    assert learn(words(REFUSALS), words(ANSWERS), support=1, most=1).covered == 3


def test_a_class_without_a_stem_has_none() -> None:
    found = learn(words(["a b", "c d", "e f"]), words(["a b", "c x"]))
    assert (found.openings, found.covered, found.enough) == ((), 0, False)
    with pytest.raises(DataError, match="No answer of the class"):
        learn([], words(ANSWERS))


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=25),
    st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=25),
)
@settings(deadline=None)
def test_what_it_says_of_its_openings_is_so(ours: list[list[int]], others: list[list[int]]) -> None:
    found = learn(ours, others, purity=0.8)
    assert found.covered == sum(found.has(answer) for answer in ours)
    assert found.foreign == sum(found.has(answer) for answer in others)
    for one in found.openings:
        assert not any(one != other and other[: len(one)] == one for other in found.openings)
        mine = sum(tuple(answer[: len(one)]) == one for answer in ours)
        theirs = sum(tuple(answer[: len(one)]) == one for answer in others)
        assert mine >= 0.8 * (mine + theirs)


def test_chances_add_up() -> None:
    assert class_chance([[math.log(0.5), math.log(0.5)], [math.log(0.1)]]) == pytest.approx(0.35)
    assert class_chance([[-math.inf], [math.log(0.1)]]) == pytest.approx(0.1)
    assert class_chance([[-2000.0, -3000.0]]) == 0.0
    with pytest.raises(DataError, match="one of them begins another"):
        class_chance([[math.log(0.6)], [math.log(0.6)]])
    with pytest.raises(DataError, match="Opening 0 has no log-probabilities"):
        class_chance([[]])


def test_exact_chances_are_those_of_sampling() -> None:
    # A made-up model of three tokens, each drawn from a law that depends on the token before.
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.ones(4), (5, 4))
    first = rng.dirichlet(np.ones(4))
    opening = (2, 0, 3)
    logs = [math.log(first[2]), math.log(law[0, 2, 0]), math.log(law[1, 0, 3])]
    answers = np.empty((40_000, 3), dtype=int)
    answers[:, 0] = rng.choice(4, 40_000, p=first)
    for step in range(2):
        chances = law[step, answers[:, step]].cumsum(axis=1)
        answers[:, step + 1] = (rng.random((40_000, 1)) > chances).sum(axis=1)
    hits = int((answers == opening).all(axis=1).sum())
    assert hits / 40_000 == pytest.approx(class_chance([logs]), abs=3 * math.sqrt(0.1 / 40_000))


def test_the_control_variate_is_unbiased_and_spares_variance() -> None:
    rng = np.random.default_rng(0)
    estimates, plain, held = [], [], 0
    chance = rng.beta(0.5, 1.0, 80)
    for _ in range(400):
        begins = rng.random(80) < chance
        # One answer in ten of the class opens otherwise; no answer with the opening is of another class.
        sampled = begins | (rng.random(80) < 0.05)
        found = with_exact(sampled, begins, chance)
        estimates.append(found.mean)
        plain.append(sampled.mean())
        held += found.low <= (chance + (1 - chance) * 0.05).mean() <= found.high
    truth = (chance + (1 - chance) * 0.05).mean()
    assert np.mean(estimates) == pytest.approx(truth, abs=4 * float(np.std(estimates)) / 20)
    assert np.var(estimates) < 0.3 * np.var(plain)
    assert found.spared > 0.5
    assert held / 400 >= 0.93
    with pytest.raises(DataError, match="give one each a row"):
        with_exact([1], [1, 0], [0.5, 0.5])
    with pytest.raises(DataError, match="at least two units"):
        with_exact([1, 0], [1, 0], [0.5, 0.5], ["a", "a"])
