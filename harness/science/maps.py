"""Activation maps: which experts the tokens of a prompt chose, and sums of many maps in bounded memory.

The activation of expert e in layer l by a token is 1 where e is among the layer's top-k for the token. A prompt's
activation map [layers, experts] sums that over tokens of one role (paper section 2.4, step 1). The paper counts all
prompt tokens; which tokens are counted decides much, so the last n are offered too, and each position by itself.

`MapAccumulator` keeps, for each label, sums only: a million maps need no more memory than one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mote.harness.preconditions import STATES, DataError, check_class, check_maps, other_classes

MOST_TOKENS: Final = 1_000_000
"""The most tokens that one map may count: beyond, the sums of squares of millions of maps would overflow."""


def activation_map(chosen: NDArray[Any], experts: int, *, last: int | None = None) -> NDArray[np.int32]:
    """Count how often each expert was chosen: `chosen` [tokens, layers, top_k] of expert ids to [layers, experts].

    `last` counts the last that many tokens only (all of them where there are fewer).
    """
    chosen = _last(_check_chosen(chosen, experts), last)
    return _count(chosen, None, experts).astype(np.int32)


LENGTH_NORMALISED: Final = "resonance_per_token"
"""The ranking of a study that is resonance of length-normalised maps."""


def per_token(maps: NDArray[Any], tokens: Sequence[int] | NDArray[Any]) -> NDArray[np.float64]:
    """Return length-normalised maps: activations a token instead of a prompt, [prompts, layers, experts]."""
    counted = check_tokens(tokens, maps.shape[0])
    return np.asarray(maps / counted[:, None, None], dtype=np.float64)


def ranked_maps(ranking: str, maps: NDArray[Any], tokens: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
    """Return the maps that a study's ranking takes its differences of: counts, or counts a token."""
    return per_token(maps, tokens) if ranking == LENGTH_NORMALISED else maps


def frequency(maps: NDArray[Any], tokens: Sequence[int] | NDArray[Any]) -> NDArray[np.float64]:
    """Return each expert's activation frequency over all tokens of all prompts, between 0 and 1, [layers, experts]."""
    counted = check_tokens(tokens, maps.shape[0])
    return np.asarray(maps.sum(axis=0, dtype=np.float64) / counted.sum(), dtype=np.float64)


def tokens_counted(maps: NDArray[Any], top_k: int) -> NDArray[np.int64]:
    """Return the tokens that each map [prompts, layers, experts] counts: a layer's sum over experts, by `top_k`.

    Every layer sees every token, so the layers must agree. Raises `DataError` that names the first map in which they
    do not, or whose sum is no multiple of `top_k`: such a map is incomplete or of another model.
    """
    sums = maps.sum(axis=2, dtype=np.int64)
    wrong = (sums != sums[:, :1]).any(axis=1) | (sums[:, 0] % top_k != 0)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        lowest, highest = int(sums[at].min()), int(sums[at].max())
        raise DataError(
            f"Activation map {at} counts {lowest} to {highest} choices a layer; "
            f"it must be the same multiple of {top_k} in each."
        )
    return np.asarray(sums[:, 0] // top_k, dtype=np.int64)


def check_tokens(tokens: Sequence[int] | NDArray[Any], prompts: int) -> NDArray[np.int64]:
    """Return `tokens` as an array, or raise `DataError` unless it is one positive number for each prompt."""
    counted = np.asarray(tokens, dtype=np.int64)
    if counted.shape != (prompts,):
        raise DataError(f"There are {prompts} activation maps but {counted.size} token counts; give one a map.")
    if (counted < 1).any():
        raise DataError(f"Activation map {int(np.flatnonzero(counted < 1)[0])} counts no token.")
    return counted


@dataclass(frozen=True)
class Moments:
    """What is kept of a group of maps: their number, tokens, sums and sums of squares, the latter [layers, experts]."""

    prompts: int
    tokens: int
    total: NDArray[Any]
    squares: NDArray[Any]

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean map, in activations a prompt."""
        return np.asarray(self.total / self.prompts, dtype=np.float64)

    @property
    def variance(self) -> NDArray[np.float64]:
        """The variance between prompts (n - 1); zero for a single prompt."""
        if self.prompts < 2:
            return np.zeros(self.total.shape)
        centred = self.squares - self.total * (self.total / self.prompts)
        return np.asarray(np.maximum(centred, 0.0) / (self.prompts - 1), dtype=np.float64)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.prompts + other.prompts,
            self.tokens + other.tokens,
            self.total + other.total,
            self.squares + other.squares,
        )


@dataclass(frozen=True)
class Contrast:
    """The maps of a class beside those of the prompts of all other classes."""

    target: str
    ours: Moments
    others: Moments


@dataclass
class MapAccumulator:
    """Adds up activation maps [layers, experts] by label, in memory that grows with labels only.

    Counts are summed as 64-bit integers: exact, in any order, and exact again when accumulators are merged (with maps
    of up to `MOST_TOKENS` tokens, for up to nine million maps a label). Give `weights=True` for maps of router weights,
    which are summed as floats.
    """

    layers: int
    experts: int
    weights: bool = False
    _groups: dict[str, Moments] = field(default_factory=dict, repr=False)
    _scratch: NDArray[Any] | None = field(default=None, repr=False)

    def add(self, activation: NDArray[Any], label: str, tokens: int) -> None:
        """Add one map that counts `tokens` tokens.

        Raises `DataError` for another shape or a wrong kind of number, and for a count below 0 or above `tokens`: a
        token chooses an expert at most once.
        """
        if activation.shape != (self.layers, self.experts):
            raise DataError(
                f"An activation map of this model has the shape [{self.layers}, {self.experts}], "
                f"not {list(activation.shape)}."
            )
        if tokens < 1:
            raise DataError(f"An activation map counts at least one token, not {tokens}.")
        kind = np.float64 if self.weights else np.int64
        if not np.can_cast(activation.dtype, kind, casting="safe"):
            raise DataError(
                f"Maps of {activation.dtype} cannot be summed as {np.dtype(kind)}; use weights=True for floats."
            )
        if not self.weights and not 0 <= activation.min() <= activation.max() <= min(tokens, MOST_TOKENS):
            raise DataError(
                f"An activation map of {tokens} tokens cannot hold counts from {activation.min()} to "
                f"{activation.max()}; they lie between 0 and the tokens, of which there are at most {MOST_TOKENS:,}."
            )
        if self._scratch is None:
            self._scratch = np.empty((self.layers, self.experts), dtype=kind)
        if label not in self._groups:
            zero = np.zeros((2, self.layers, self.experts), dtype=kind)
            self._groups[label] = Moments(0, 0, zero[0], zero[1])
        group = self._groups[label]
        # In place: the arrays of a group belong to this accumulator until `moments` copies them.
        np.add(group.total, activation, out=group.total)
        np.multiply(activation, activation, out=self._scratch, dtype=kind)
        np.add(group.squares, self._scratch, out=group.squares)
        self._groups[label] = Moments(group.prompts + 1, group.tokens + int(tokens), group.total, group.squares)

    def add_all(self, maps: NDArray[Any], labels: Sequence[str], tokens: Sequence[int] | NDArray[Any]) -> None:
        """Add many maps [prompts, layers, experts] with one label and one token count each."""
        check_maps(maps, labels)
        counted = check_tokens(tokens, maps.shape[0])
        for activation, label, count in zip(maps, labels, counted, strict=True):
            self.add(activation, label, int(count))

    def merge(self, other: MapAccumulator) -> None:
        """Add what another accumulator of the same shape has seen."""
        if (self.layers, self.experts, self.weights) != (other.layers, other.experts, other.weights):
            raise DataError(
                f"Accumulators of [{self.layers}, {self.experts}] and [{other.layers}, {other.experts}] maps "
                f"(weights: {self.weights} and {other.weights}) cannot be merged."
            )
        for label in other.labels:
            theirs = other.moments(label)
            self._groups[label] = self._groups[label] + theirs if label in self._groups else theirs

    @property
    def labels(self) -> list[str]:
        """The labels seen, sorted."""
        return sorted(self._groups)

    def moments(self, label: str) -> Moments:
        """Return what is kept of the prompts with this label. Raises `DataError` when there are none."""
        check_class(label, self._groups)
        group = self._groups[label]
        return Moments(group.prompts, group.tokens, group.total.copy(), group.squares.copy())

    def contrast(self, target: str, *, ignore: Collection[str] = STATES) -> Contrast:
        """Return the class `target` beside all others; prompts whose label is in `ignore` count on neither side."""
        rest = other_classes(target, self._groups, ignore)
        others = self.moments(rest[0])
        for label in rest[1:]:
            others = others + self.moments(label)
        return Contrast(target, self.moments(target), others)


def contrast(
    maps: NDArray[Any],
    labels: Sequence[str],
    target: str,
    tokens: Sequence[int] | NDArray[Any],
    *,
    ignore: Collection[str] = STATES,
) -> Contrast:
    """Return the `Contrast` of maps that are all at hand, as `MapAccumulator.contrast` does for those that are not."""
    check_maps(maps, labels)
    floats = bool(np.issubdtype(maps.dtype, np.floating))
    adder = MapAccumulator(maps.shape[1], maps.shape[2], weights=floats)
    adder.add_all(maps, labels, tokens)
    return adder.contrast(target, ignore=ignore)


def _check_chosen(chosen: NDArray[Any], experts: int) -> NDArray[np.int64]:
    if np.ndim(chosen) != 3 or not np.issubdtype(np.asarray(chosen).dtype, np.integer):
        raise DataError(
            f"Chosen experts must be integers of the shape [tokens, layers, top_k], not {np.shape(chosen)}."
        )
    ids = np.asarray(chosen, dtype=np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= experts):
        wrong = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise DataError(f"Expert {wrong} does not exist; experts are 0 to {experts - 1}.")
    return ids


def _last(tokens: NDArray[Any], last: int | None) -> NDArray[Any]:
    if last is not None and last < 1:
        raise DataError(f"At least the last token is counted, not the last {last}.")
    return tokens if last is None else tokens[-last:]


def _count(chosen: NDArray[np.int64], weights: NDArray[np.float64] | None, experts: int) -> NDArray[np.float64]:
    layers = chosen.shape[1]
    flat = (chosen + (np.arange(layers) * experts)[None, :, None]).ravel()
    summed = np.bincount(flat, None if weights is None else weights.ravel(), minlength=layers * experts)
    return summed.reshape(layers, experts).astype(np.float64)
