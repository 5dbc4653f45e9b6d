"""What travels inside the engine: the request's canonical entry going in, the worker's report of a step coming out.

Both are plain values and arrays, so they cross vLLM's own process boundaries like everything else it sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

KEY = "mote"
"""The key of ``SamplingParams.extra_args`` and of ``vllm_xargs``."""


class Ticket(NamedTuple):
    """The canonical entry of an accepted request: a spec that the worker can use unread, and what to capture.

    ``capture`` is the list form of a :class:`mote.patches.capture.Capture`, or None; ``route`` the canonical text of a
    :class:`mote.patches.routes.Route`, or None.
    """

    spec: str
    capture: list[Any] | None
    route: str | None = None

    def to_extra(self) -> dict[str, Any]:
        """Return the entry as it stands in ``extra_args`` once the front end has accepted it."""
        return {"spec": self.spec, "capture": self.capture} | ({} if self.route is None else {"route": self.route})

    @classmethod
    def from_params(cls, params: Any) -> Ticket | None:
        """Return the ticket of a request's sampling parameters; None if it has none or an unchecked one."""
        entry = (getattr(params, "extra_args", None) or {}).get(KEY)
        if isinstance(entry, dict) and isinstance(entry.get("spec"), str):
            return cls(entry["spec"], entry.get("capture"), entry.get("route"))
        return None


class Hits(NamedTuple):
    """Where edits met tokens in one step, summed per request and edit.

    ``owner`` indexes the report's requests, ``number`` the request's canonical edits; each pair occurs once.
    """

    owner: NDArray[np.int64]
    number: NDArray[np.int64]
    sums: NDArray[np.float64]
    """[pairs, 5]: selected, entered, weight before, weight after, left."""


class MapPart(NamedTuple):
    """The part of an activation map that this step's tokens make: [layers, experts]."""

    owner: int
    role: str
    counted: int
    counts: NDArray[np.int32]
    weights: NDArray[np.float32] | None = None


class RowPart(NamedTuple):
    """The experts that the routers chose for each of some tokens: [tokens, layers, k].

    ``weights`` likewise, and ``logits`` [tokens, layers, experts], where they were asked for.
    """

    owner: int
    role: str
    ids: NDArray[np.uint16]
    weights: NDArray[np.float32] | None = None
    logits: NDArray[np.float32] | None = None

    @classmethod
    def joined(cls, parts: Sequence[RowPart]) -> RowPart:
        """Return parts of one request and role as one, their tokens one after the other."""
        weights = [part.weights for part in parts if part.weights is not None]
        logits = [part.logits for part in parts if part.logits is not None]
        return cls(
            0,
            parts[0].role,
            np.concatenate([part.ids for part in parts]),
            np.concatenate(weights) if weights else None,
            np.concatenate(logits) if logits else None,
        )


@dataclass(slots=True)
class StepReport:
    """What a worker did in one step for the requests that carry a profile.

    Attributes:
        req_ids: these requests.
        digests: for each, the digest of the profile the worker held.
        edited: int64 [requests], tokens that were routed under a profile with edits, each counted once.
        routes: for each, the digest of the route the worker held, "" for none.
        forced: int64 [requests, 2], tokens times layers that took a route's experts, and those of them whose router had
            chosen others, each counted once; None where no row of the step was forced.
        hits: where edits met tokens.
        maps: parts of activation maps.
        rows: tokens whose experts were asked for one by one, in order of their positions.
    """

    req_ids: list[str]
    digests: list[str]
    edited: NDArray[np.int64]
    routes: list[str]
    forced: NDArray[np.int64] | None = None
    hits: Hits | None = None
    maps: list[MapPart] = field(default_factory=list)
    rows: list[RowPart] = field(default_factory=list)

    def resolve(self) -> StepReport:
        """Return the report itself: what a CPU's worker says is at hand when its step ends."""
        return self


class Pending(Protocol):
    """A report that may still be on its way from a device."""

    def resolve(self) -> StepReport:
        """Wait until it is here, and return it. May be called once, by any thread."""
