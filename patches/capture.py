"""Capture: which experts the routers chose, for the tokens that a request asked to be counted.

A request can ask for ``prompt`` (its prompt's activation map), for ``roles`` (maps of prompt, reasoning and answer) or
for ``rows`` (every token's experts). Maps of a prompt are summed in the worker. Generated tokens travel as rows, and
are divided into reasoning and answer where the tokens are known, in the scheduler. What is captured is the router's own
choice, before any edit: an edit must not change the map that it is judged by.

This module holds the request's side (``Capture``), which rows of a step are concerned (``Segments``), a CPU worker's
side (``CaptureBuffer``) and the division (``split``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mote.patches.layout import ModelLayout, ProfileError
from mote.patches.messages import MapPart, RowPart
from mote.patches.profile import nearest

KINDS = ("prompt", "roles", "rows")
_KEYS = ("what", "weights", "logits", "applied", "last", "reasoning_start", "reasoning_end", "prompt_opens")
Encode = Callable[[str], list[int]]


class Capture(NamedTuple):
    """What a request wants captured, in canonical form.

    Attributes:
        what: ``prompt``, ``roles`` or ``rows``.
        weights: whether maps also sum the router's weights, and rows have them.
        last: also make the map ``prompt_last`` of so many last prompt tokens; 0 makes none.
        start: token ids that open the reasoning, for ``roles``.
        end: token ids that close it.
        opened: whether the prompt has opened it already.
        logits: whether rows have the router's logits of all experts.
        applied: whether rows are what the tokens took, after edits and routes, not what the router chose.
    """

    what: str
    weights: bool = False
    last: int = 0
    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    opened: bool = False
    logits: bool = False
    applied: bool = False

    @classmethod
    def parse(cls, value: Any, encode: Encode | None = None) -> Capture | None:
        """Read the ``capture`` of a request: None, a kind, or an object with ``what`` and options.

        Args:
            value: as the client wrote it.
            encode: turns the markers' text into token ids; without a tokenizer roles cannot be told apart.

        Raises:
            ProfileError: something in it is unknown or cannot be captured.
        """
        if value is None:
            return None
        fields: Any = {"what": value} if isinstance(value, str) else value
        if not isinstance(fields, Mapping) or "what" not in fields:
            raise ProfileError(f"'capture' must be one of {', '.join(KINDS)}, or an object with the key 'what'")
        for key in fields:
            if key not in _KEYS:
                raise ProfileError(f"'capture': unknown key {key!r}.{nearest(key, _KEYS)}")
        what, weights, last = fields["what"], fields.get("weights", False), fields.get("last", 0)
        opened, logits = fields.get("prompt_opens", False), fields.get("logits", False)
        applied = fields.get("applied", False)
        if what not in KINDS:
            raise ProfileError(f"'capture': {what!r} is not known.{nearest(what, KINDS)}")
        if not all(isinstance(flag, bool) for flag in (weights, opened, logits, applied)):
            raise ProfileError("'capture': 'weights', 'logits', 'applied' and 'prompt_opens' must be true or false")
        if not isinstance(last, int) or isinstance(last, bool) or last < 0:
            raise ProfileError("'capture': 'last' must be a number of prompt tokens, 0 for none")
        if what == "rows" and last:
            raise ProfileError("'capture': 'last' belongs to maps; ask for 'prompt' or 'roles'")
        if what != "rows" and logits:
            raise ProfileError("'capture': 'logits' belong to rows; ask for 'rows'")
        if what != "rows" and applied:
            raise ProfileError("'capture': 'applied' belongs to rows; ask for 'rows'")
        if what != "roles":
            return cls(what, weights, last, logits=logits, applied=applied)
        start = _marker(fields.get("reasoning_start", "<think>"), encode)
        return cls(what, weights, last, start, _marker(fields.get("reasoning_end", "</think>"), encode), opened)

    def to_list(self) -> list[Any]:
        """Return the capture as plain values for a request's canonical entry."""
        markers = [list(self.start), list(self.end), self.opened]
        return [self.what, self.weights, self.last, *markers, self.logits, self.applied]

    @classmethod
    def from_list(cls, value: Sequence[Any]) -> Capture:
        """Read what :meth:`to_list` wrote."""
        what, weights, last, start, end, opened, logits, applied = value
        return cls(what, weights, last, tuple(start), tuple(end), opened, logits, applied)


def _marker(text: Any, encode: Encode | None) -> tuple[int, ...]:
    if not isinstance(text, str) or not text:
        raise ProfileError("'capture': the reasoning markers must be texts such as \"</think>\"")
    if encode is None:
        raise ProfileError("'capture': roles need the tokenizer, and this engine runs without one; ask for 'rows'")
    return tuple(encode(text))


def split(tokens: Sequence[int], capture: Capture) -> int:
    """Return how many of a request's generated tokens are reasoning; the others are its answer.

    The reasoning reaches to the first closing marker and includes both markers. Without a closing marker all is
    reasoning if it was opened, by the prompt or by a generated marker, and all is answer if it was not.
    """
    closed = _find(tokens, capture.end)
    if closed >= 0:
        return closed + len(capture.end)
    return len(tokens) if capture.opened or _find(tokens, capture.start) >= 0 else 0


def _find(tokens: Sequence[int], marker: tuple[int, ...]) -> int:
    for start in range(len(tokens) - len(marker) + 1):
        if tuple(tokens[start : start + len(marker)]) == marker:
            return start
    return -1


def count(
    chosen: NDArray[np.integer[Any]], layout: ModelLayout, weights: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Sum rows [tokens, layers, k] into a map: counts [layers, experts], and weights likewise if they are given."""
    parts = _bincount(np.zeros(len(chosen), np.int64), 1, chosen.transpose(1, 0, 2), layout, None)
    if weights is None:
        return parts[0].astype(np.int32), None
    sums = _bincount(np.zeros(len(chosen), np.int64), 1, chosen.transpose(1, 0, 2), layout, weights.transpose(1, 0, 2))
    return parts[0].astype(np.int32), sums[0].astype(np.float32)


def _bincount(
    which: NDArray[np.int64],
    parts: int,
    chosen: NDArray[np.integer[Any]],
    layout: ModelLayout,
    weights: NDArray[np.float32] | None,
) -> NDArray[Any]:
    """Return [parts, layers, experts] sums over ``chosen`` [layers, tokens, k], whose tokens belong to ``which``."""
    layers, experts = len(layout.layers), layout.experts
    key = (which[None, :, None] * layers + np.arange(layers)[:, None, None]) * experts + chosen
    summed = np.bincount(key.ravel(), None if weights is None else weights.ravel(), parts * layers * experts)
    return summed.reshape(parts, layers, experts)


class Segment(NamedTuple):
    """Rows of the batch, ``start`` to before ``stop``, that belong to one role of request ``owner``."""

    owner: int
    role: str
    start: int
    stop: int
    weights: bool
    logits: bool = False


class Segments:
    """Which rows of one step are to be captured, and as what. False while there are none.

    Attributes:
        maps: those whose rows are summed to a map.
        rows: those whose rows are handed on one by one.
        weighed: whether one of them asks for weights too.
        logits: whether one of them asks for logits too.
        applied: rows of the batch, from and to before, of which what was applied is asked for.
    """

    __slots__ = ("applied", "logits", "maps", "rows", "weighed")

    def __init__(self) -> None:
        self.maps: list[Segment] = []
        self.rows: list[Segment] = []
        self.weighed = self.logits = False
        self.applied: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        return bool(self.maps or self.rows)

    def want(self, owner: int, capture: Capture, prompt: int, offset: int, start: int, stop: int) -> None:
        """Ask for positions ``start`` to before ``stop`` of a request; position p is the batch's row ``offset + p``."""
        prompt_stop, generated = min(stop, prompt), max(start, prompt)
        prompt_list = self.rows if capture.what == "rows" else self.maps
        if start < prompt_stop:
            where = offset + start, offset + prompt_stop
            prompt_list.append(Segment(owner, "prompt", *where, capture.weights, capture.logits))
            late = max(start, prompt - capture.last)
            if capture.last and late < prompt_stop:
                self.maps.append(Segment(owner, "prompt_last", offset + late, offset + prompt_stop, capture.weights))
        if generated < stop and capture.what != "prompt":
            where = offset + generated, offset + stop
            self.rows.append(Segment(owner, "generated", *where, capture.weights, capture.logits))
        if capture.applied:
            self.applied.append((offset + start, offset + stop))
        self.weighed |= capture.weights
        self.logits |= capture.logits


def tokens_of(segments: Sequence[Segment]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the batch's rows of all segments, one after the other, and the index of the segment each belongs to."""
    token = np.concatenate([np.arange(part.start, part.stop) for part in segments])
    return token, np.repeat(np.arange(len(segments)), [part.stop - part.start for part in segments])


def map_parts(
    segments: Sequence[Segment], counts: NDArray[np.int32], weights: NDArray[np.floating[Any]] | None
) -> list[MapPart]:
    """Return the maps of segments from counts and sums of weights [segments, layers, experts]."""
    return [
        MapPart(
            part.owner,
            part.role,
            part.stop - part.start,
            counts[number],
            weights[number].astype(np.float32) if part.weights and weights is not None else None,
        )
        for number, part in enumerate(segments)
    ]


_Kept = TypeVar("_Kept", bound=np.generic)


def _rows(kept: NDArray[_Kept], part: Segment) -> NDArray[_Kept]:
    """Return a segment's part of [layers, tokens, ...] as [tokens, layers, ...]."""
    return kept[:, part.start : part.stop].transpose(1, 0, 2).copy()


class CaptureBuffer:
    """What the routers of one step chose, on the host, for the tokens that are to be counted."""

    def __init__(self, layout: ModelLayout, max_tokens: int) -> None:
        self._layout = layout
        self._shape = (len(layout.layers), max_tokens, layout.top_k)
        self._ids: NDArray[np.uint16] | None = None
        self._weights: NDArray[np.float32] | None = None
        self._logits: NDArray[np.float32] | None = None
        self._segments = Segments()
        self._tokens = 0
        self.active = False

    def begin(self, segments: Segments, tokens: int) -> None:
        """Keep the first ``tokens`` rows of every layer, for these segments."""
        self._segments, self._tokens, self.active = segments, tokens, True
        if self._ids is None:
            self._ids = np.zeros(self._shape, np.uint16)
        if segments.weighed and self._weights is None:
            self._weights = np.zeros(self._shape, np.float32)
        if segments.logits and self._logits is None:
            self._logits = np.zeros((*self._shape[:2], self._layout.experts), np.float32)

    def reset(self) -> None:
        """Forget the step."""
        self.active = False

    def put(self, layer: int, weights: torch.Tensor, ids: torch.Tensor, logits: torch.Tensor | None) -> None:
        """Keep what a layer's router chose for the batch's tokens, and by which logits."""
        tokens = self._tokens
        if self._ids is not None:
            self._ids[layer, :tokens] = ids[:tokens].numpy()
        if self._segments.weighed and self._weights is not None:
            self._weights[layer, :tokens] = weights[:tokens].float().numpy()
        if self._segments.logits and self._logits is not None and logits is not None:
            self._logits[layer, :tokens] = logits[:tokens].float().numpy()

    def put_applied(self, layer: int, weights: torch.Tensor, ids: torch.Tensor) -> None:
        """Keep what tokens take in a layer after edits and routes, where that was asked for."""
        for start, stop in self._segments.applied:
            if self._ids is not None:
                self._ids[layer, start:stop] = ids[start:stop].numpy()
            if self._segments.weighed and self._weights is not None:
                self._weights[layer, start:stop] = weights[start:stop].float().numpy()

    def collect(self) -> tuple[list[MapPart], list[RowPart]]:
        """Return the step's parts of maps and rows."""
        if self._ids is None:
            return [], []
        rows = [
            RowPart(
                part.owner,
                part.role,
                _rows(self._ids, part),
                _rows(self._weights, part) if part.weights and self._weights is not None else None,
                _rows(self._logits, part) if part.logits and self._logits is not None else None,
            )
            for part in self._segments.rows
        ]
        return self._collect_maps(self._ids), rows

    def _collect_maps(self, ids: NDArray[np.uint16]) -> list[MapPart]:
        maps = self._segments.maps
        if not maps:
            return []
        token, which = tokens_of(maps)
        chosen = ids[:, token]
        counts = _bincount(which, len(maps), chosen, self._layout, None).astype(np.int32)
        sums: NDArray[np.floating[Any]] | None = None
        if self._segments.weighed and self._weights is not None:
            sums = _bincount(which, len(maps), chosen, self._layout, self._weights[:, token])
        return map_parts(maps, counts, sums)
