"""What weights can hold of a profile: held to the edit's own arithmetic, and refused with the reason where not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.harness.errors import MoteError
from mote.harness.take_home.exactness import bakeable
from mote.patches import Edit, ModelLayout, Profile
from mote.patches.edit import edit_rows

LAYOUT = ModelLayout("X", (0, 1), 6, 3)


def of(*edits: Edit, tokens: str = "all") -> Profile:
    return Profile("p", edits, tokens=tokens)  # type: ignore[arg-type]


@given(
    st.integers(1, 3),
    st.dictionaries(st.tuples(st.integers(0, 1), st.integers(0, 5)), st.sampled_from([0.0, 0.25, 2.0]), min_size=1),
    st.integers(0, 2**32 - 1),
)
def test_exact_is_said_where_the_edited_weights_are_the_scaled_ones_and_nowhere_else(
    top_k: int, factors: dict[tuple[int, int], float], seed: int
) -> None:
    if top_k == 1:
        factors = dict.fromkeys(factors, 0.0)  # a profile that scales is refused for such a model
    layout = ModelLayout("X", (0, 1), 6, top_k)
    profile = of(*(Edit(layer, expert, "scale", factor) for (layer, expert), factor in factors.items()))
    rng = np.random.default_rng(seed)
    ids = np.array([rng.permutation(6)[:top_k] for _ in range(200)])
    weights = rng.uniform(0.1, 1, ids.shape).astype(np.float32)
    same = True
    for layer in (0, 1):
        gain = np.vectorize(lambda expert, at=layer: factors.get((at, expert), 1.0))(ids).astype(np.float32)
        same &= np.allclose(edit_rows(weights, ids, gain).weights, weights * gain, atol=1e-6)
    assert bakeable(profile, layout).exact == same


def test_a_whole_layer_is_exact_and_one_expert_of_it_less_is_not() -> None:
    layer = [Edit(1, expert, "suppress") for expert in range(6)]
    assert bakeable(of(*layer), LAYOUT).exact
    assert not bakeable(of(*layer[1:]), LAYOUT).exact
    assert not bakeable(of(*layer, Edit(0, 0, "suppress")), LAYOUT).exact


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (of(), "edits nothing"),
        (of(Edit(0, 0, "scale", 1.0)), "edits nothing"),
        (of(Edit(0, 0, "suppress"), Edit(1, 2, "stimulate")), r"stimulate of \(1, 2\) changes which experts a token"),
        (of(Edit(0, 0, "suppress"), tokens="generated"), "edits generated tokens only"),
        (of(Edit(0, 0, "suppress"), tokens="prompt"), "edits prompt tokens only"),
    ],
)
def test_what_weights_cannot_hold_is_refused_with_the_reason(profile: Profile, said: str) -> None:
    with pytest.raises(MoteError, match=said):
        bakeable(profile, LAYOUT)
