"""Routes laid onto the steps of a batch, however a request is cut into chunks, against the reference's own laying."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mote.patches import ModelLayout, Route
from mote.patches.forcing import Forcing, Laid
from tests.patches.reference import forced_pairs

LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 2, 4), 8, 2)


@st.composite
def laid(draw: st.DrawFn) -> tuple[Route, int]:
    """A route of any alignment, with the length of a prompt that it aligns with."""
    prompt, generated = draw(st.integers(0, 6)), draw(st.integers(0, 4))
    if not prompt + generated:
        generated = 1
    layers = tuple(sorted(draw(st.sets(st.sampled_from(LAYOUT.layers), min_size=1))))
    seed = np.random.default_rng(draw(st.integers(0, 99)))
    shape = (prompt + generated, len(layers), LAYOUT.top_k)
    ids = np.array([seed.permutation(8)[:2] for _ in range(shape[0] * shape[1])], np.uint16).reshape(shape)
    weights = seed.random(shape).astype(np.float32) if draw(st.booleans()) else None
    length = prompt + draw(st.integers(0, 5))
    if prompt and draw(st.booleans()):
        at = tuple(sorted(seed.permutation(length)[:prompt].tolist()))
        return Route(layers, ids, prompt, "role", weights, at, length), length
    return Route(layers, ids, prompt, "end", weights), length


@given(st.lists(st.tuples(laid(), st.sets(st.integers(1, 14), max_size=4), st.integers(0, 14)), min_size=1, max_size=3))
def test_chunks_are_forced_as_the_whole(requests: list[tuple[tuple[Route, int], set[int], int]]) -> None:
    """Each request is computed in chunks, one a step, beside the others; rows before ``fresh`` are not counted."""
    end = 15
    cuts = [sorted({0, end, *inner}) for _, inner, _ in requests]
    found: list[dict[tuple[int, int], tuple[list[int], list[float] | None]]] = [{} for _ in requests]
    counted: list[set[int]] = [set() for _ in requests]
    for step in range(max(map(len, cuts))):
        forcing, row, owner_of, position_of = Forcing(), 0, {}, {}
        for owner, (((route, prompt), _, fresh), bounds) in enumerate(zip(requests, cuts, strict=True)):
            for start, stop in list(pairwise(bounds))[step : step + 1]:
                read = Laid(route.spec, LAYOUT, prompt, Route.from_request(route.to_request()))
                assert read.digest == route.digest
                forcing.want(owner, read, row - start, start, stop, fresh)
                for position in range(start, stop):
                    owner_of[row], position_of[row] = owner, position
                    row += 1
        if not forcing:
            continue
        forced = forcing.join()
        for index, token in enumerate(forced.token.tolist()):
            owner, position = owner_of[token], position_of[token]
            assert forced.owner[index] == owner
            if forced.counted[index]:
                counted[owner].add(position)
            for place in np.flatnonzero(forced.active[:, index]).tolist():
                weights = forced.weights[place, index].tolist() if forced.kept[index] else None
                key = position, LAYOUT.layers[place]
                assert key not in found[owner]
                found[owner][key] = forced.ids[place, index].tolist(), weights
    for ((route, prompt), _, fresh), mine, seen in zip(requests, found, counted, strict=True):
        expected = {
            (position, layer): (experts, None if given is None else list(given.values()))
            for (position, layer), (experts, given) in forced_pairs(route, prompt, 1.0).items()
            if position < end
        }
        assert mine == expected
        assert seen == {position for position, _ in expected if position >= fresh}
