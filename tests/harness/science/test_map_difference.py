"""Maps of two models: a model is like itself, unrelated models are not, and halves say how like it could be."""

from __future__ import annotations

import numpy as np
import pytest

from mote.harness.preconditions import DataError
from mote.harness.science.detectors import compare_rankings
from mote.harness.science.map_difference import ALL, Mapped, compare_maps

LAYERS = (1, 2, 5)
SIDES = ["R", "A"] * 40


def mapped(seed: int, planted: int = 20, noise: int = 6) -> Mapped:
    """Maps of 80 prompts, 3 layers of 32 experts, in which experts planted by ``seed`` are seen more in R."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, noise, (80, 3, 32))
    for layer, expert in rng.permutation([(layer, expert) for layer in range(3) for expert in range(32)])[:planted]:
        maps[::2, layer, expert] += 4
    return Mapped(maps, SIDES, "R")


def test_a_model_is_like_itself_and_its_halves_say_how_like_it_could_be() -> None:
    one = mapped(1)
    maps = compare_maps(one, one, LAYERS, ())[0]
    assert list(maps["layer"]) == [*LAYERS, ALL]
    assert maps[["activations", "resonance"]].to_numpy() == pytest.approx(1.0)
    assert maps["within"].to_numpy() == pytest.approx(maps["between"].to_numpy())
    assert (maps["within"] > 0.8).all()
    tops = compare_maps(one, one, LAYERS, (5, 20))[1]
    assert list(tops["shared"]) == [5, 20]
    assert list(tops["chance"]) == [25 / 96, 400 / 96]
    assert tops["within"].to_numpy() == pytest.approx(tops["between"].to_numpy())
    assert tops.iloc[1]["p"] < 1e-9


def test_models_of_other_experts_are_told_from_those_of_the_same() -> None:
    one, other = mapped(1), mapped(2)
    maps = compare_maps(one, other, LAYERS, ())[0].set_index("layer").loc[ALL]
    assert abs(maps["resonance"]) < 0.5
    assert maps["between"] < 0.4 < maps["within"]
    tops = compare_maps(one, other, LAYERS, (20,))[1].iloc[0]
    slow = compare_rankings({"one": one.resonance(), "other": other.resonance()}, 20).iloc[0]
    assert (tops["shared"], tops["chance"]) == (slow["shared"], slow["chance"])
    assert tops["shared"] < tops["within"] - 5
    # Other prompts of the same model: as like as halves can be.
    rng = np.random.default_rng(0)
    again = Mapped(one.maps + rng.integers(0, 3, one.maps.shape), SIDES, "R")
    like = compare_maps(one, again, LAYERS, ())[0].set_index("layer").loc[ALL]
    assert like["between"] > 0.75 * like["within"]


def test_sharing_by_chance_has_even_p() -> None:
    found = [
        compare_maps(mapped(seed, 0), mapped(seed + 500, 0), LAYERS, (20,), draws=1)[1].iloc[0]["p"]
        for seed in range(120)
    ]
    assert np.mean(np.array(found) <= 0.05) <= 0.1


def test_maps_of_other_models_are_refused() -> None:
    one = mapped(1)
    with pytest.raises(DataError, match="same prompts"):
        compare_maps(one, Mapped(one.maps[:, :, :30], SIDES, "R"), LAYERS, ())
