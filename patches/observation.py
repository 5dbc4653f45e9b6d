"""What comes back with an answer: the receipt, the activation maps, and the mechanism check.

vLLM has one field that carries an array from the engine to the caller, ``CompletionOutput.routed_experts``, and over
HTTP its base64. The patch puts a packet of bytes there (``mote.patches.frames``); a packet that is cut, damaged or of
another version is an error, never a partial answer. No vLLM is imported here, so a client can read what a server sent.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mote.patches.frames import FrameError, frame, unframe
from mote.patches.profile import Profile

MAGIC = b"MOTE\x01"
COUNTS_LOST = "counts lost by a reset of running requests"
"""A receipt's digest where what was computed is not what was counted; it is no profile's."""


class ObservationError(ValueError):
    """An answer carries no observation, or one that cannot be read. One line that says which and what to do."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of what the worker applied.

    Attributes:
        digest: of the profile the worker held while it computed this answer; compare it with ``Profile.digest``.
            ``COUNTS_LOST`` if vLLM threw tokens of it away that had been counted; ask again.
        tokens_edited: tokens of the request that were routed under a profile with edits (0 for the empty profile).
            Prompt tokens served from the prefix cache are not routed again; they were computed under the same digest.
        patch_version: of the router patch in the worker.
        route: digest of the route that the worker held; compare it with ``Route.digest``. Empty without a route.
        forced: tokens times layers that took the route's experts. Prompt tokens from the prefix cache are not routed
            again; they were computed under the same route.
        changed: of these, where the router itself had chosen other experts.
    """

    digest: str
    tokens_edited: int
    patch_version: str
    route: str = ""
    forced: int = 0
    changed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as plain values; what is said of a route stands in it only where there is one."""
        said = {"digest": self.digest, "tokens_edited": self.tokens_edited, "patch_version": self.patch_version}
        return said | ({"route": self.route, "forced": self.forced, "changed": self.changed} if self.route else {})


@dataclass(frozen=True, slots=True)
class ActivationMap:
    """How often each expert was chosen by the router, before any edit, over the tokens of one role.

    Attributes:
        counts: int32 [layers, experts]; row i is the model's i-th layer with experts.
        counted: tokens that were seen.
        total: tokens there were; less were counted if some came from the prefix cache, and the last generated token
            is never routed.
        weights: float32 [layers, experts], the routing weights summed over the same tokens, if they were asked for.
    """

    counts: NDArray[np.int32]
    counted: int
    total: int
    weights: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class EditEffect:
    """What one edit did in one answer, counted where it happened.

    Attributes:
        layer: of the edited expert.
        expert: the edited expert.
        action: suppress, stimulate or scale; before the choice activate, deactivate, bias or nudge.
        factor: of scale, bias and nudge.
        tokens: tokens to which the edit applied.
        selected: of these, tokens where the router itself had chosen the expert.
        entered: tokens where the expert was absent and came in: a stimulated one took a slot, or the router chose it
            by edited scores.
        weight_before: the router's weights of the expert, summed over the tokens where it was chosen.
        weight_after: its weights after the edit, summed over all tokens; 0 for a suppressed expert.
        left: tokens where the router itself had chosen the expert, and by edited scores did not.
    """

    layer: int
    expert: int
    action: str
    factor: float
    tokens: int
    selected: int
    entered: int
    weight_before: float
    weight_after: float
    left: int = 0

    @property
    def absent(self) -> int:
        """Tokens routed without the expert after the edit; 0 for one that was stimulated or activated in each."""
        return self.tokens - self.selected - self.entered + self.left


@dataclass(frozen=True, slots=True)
class Observation:
    """All that one answer says about how it was computed.

    Attributes:
        receipt: what was applied.
        layers: the model's layers with experts, one for each row of a map.
        maps: by role (``prompt``; ``reasoning`` and ``answer`` where roles were asked for), empty without capture.
        mechanism: one record for each edit, in canonical order; empty for the empty profile.
        rows: by role (``prompt``, ``generated``), uint16 [tokens, layers, top_k], the experts the router chose for each
            token, if rows were asked for; with ``applied``, those that the token took. The order within a row is the
            router's.
        row_weights: by role, float32 [tokens, layers, top_k], the router's weights of these, if they were asked for.
        row_logits: by role, float32 [tokens, layers, experts], what the router chose by, if they were asked for.
    """

    receipt: Receipt
    layers: tuple[int, ...] = ()
    maps: dict[str, ActivationMap] = field(default_factory=dict)
    mechanism: tuple[EditEffect, ...] = ()
    rows: dict[str, NDArray[np.uint16]] = field(default_factory=dict)
    row_weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    row_logits: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class _Routed(Protocol):
    def to_request(self) -> dict[str, Any]: ...


def request_args(
    profile: Profile, capture: str | Mapping[str, Any] | None = None, route: _Routed | None = None
) -> dict[str, Any]:
    """Return the ``extra_args`` of a request: ``SamplingParams(extra_args=request_args(profile, "prompt"))``.

    Over HTTP the same goes as a JSON string: ``{"vllm_xargs": {"mote": json.dumps(request_args(profile)["mote"])}}``.
    ``capture`` is None, a name (``"prompt"``), or an object; the server refuses what it does not know. ``route`` is a
    ``mote.patches.Route``, whose experts the request's tokens are to take; the profile is then one without edits.
    """
    body: dict[str, Any] = {"profile": profile.to_request()}
    if capture is not None:
        body["capture"] = capture if isinstance(capture, str) else dict(capture)
    if route is not None:
        body["route"] = route.to_request()
    return {"mote": body}


def read_observation(output: Any) -> Observation:
    """Read the observation of one answer.

    Args:
        output: vLLM's ``CompletionOutput``; a choice of an OpenAI response (object or dictionary); or the field
            itself, as an array or as base64.

    Raises:
        ObservationError: the answer carries none (the server runs without the patch, the request carried no ``mote``
            entry, or the answer is not finished), or what it carries is damaged.
    """
    value = output
    if isinstance(output, Mapping):
        value = output.get("routed_experts")
    elif not isinstance(output, str | np.ndarray):
        value = getattr(output, "routed_experts", None)
    if value is None:
        raise ObservationError(
            "the answer carries no receipt: the engine runs without the MoTE patch, or the request had no 'mote' entry"
        )
    return unpack(_packet_bytes(value))


# What numpy writes before an array of bytes. It is recognised, as reading it in general compiles it, for a third of the
# time that a client spends on an answer; whatever looks otherwise is read in general.
_HEAD = re.compile(
    rb"\x93NUMPY\x01\x00v\x00\{'descr': '\|u1', 'fortran_order': False, 'shape': \((?P<length>[0-9]{1,12}),\), \} *\n"
)


def _packet_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
            if (head := _HEAD.match(raw)) and len(raw) - head.end() == int(head["length"]):
                return raw[head.end() :]
            value = np.load(io.BytesIO(raw), allow_pickle=False)
        except (binascii.Error, ValueError, EOFError, OSError) as error:
            raise ObservationError(f"the answer's routed_experts is no base64 array: {error}") from None
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 1:
        raise ObservationError(
            "the answer's routed_experts is not from the MoTE patch; "
            "start the engine without enable_return_routed_experts"
        )
    return value.tobytes()


def pack(observation: Observation) -> NDArray[np.uint8]:
    """Write an observation as the packet that travels in ``routed_experts``: uint8 [bytes]."""
    arrays: dict[str, NDArray[Any]] = {}
    for role, found in observation.maps.items():
        arrays[f"counts/{role}"] = np.asarray(found.counts, "<i4")
        if found.weights is not None:
            arrays[f"weights/{role}"] = np.asarray(found.weights, "<f4")
    for role, rows in observation.rows.items():
        small = rows.size == 0 or int(rows.max()) < 256
        arrays[f"rows/{role}"] = np.asarray(rows, "u1" if small else "<u2")
    for what, by_role in (("weights", observation.row_weights), ("logits", observation.row_logits)):
        arrays |= {f"row {what}/{role}": np.asarray(values, "<f4") for role, values in by_role.items()}
    receipt = observation.receipt
    header = {
        "digest": receipt.digest,
        "tokens_edited": receipt.tokens_edited,
        "patch_version": receipt.patch_version,
        **({"route": [receipt.route, receipt.forced, receipt.changed]} if receipt.route else {}),
        "layers": list(observation.layers),
        "maps": {role: [found.counted, found.total] for role, found in observation.maps.items()},
        "mechanism": [
            [e.layer, e.expert, e.action, e.factor, e.tokens, e.selected, e.entered, e.weight_before, e.weight_after]
            + [e.left] * (e.left > 0)  # which no edit after the choice has, so that older clients can read those
            for e in observation.mechanism
        ],
    }
    return frame(MAGIC, header, arrays)


def unpack(data: bytes) -> Observation:
    """Read what :func:`pack` wrote. Of several packets in a row the last is read: each says all that was known by then.

    Raises:
        ObservationError: the bytes are no packet, or a damaged one.
    """
    try:
        return _observation(*unframe(MAGIC, data))
    except FrameError as error:
        raise ObservationError(f"the observation {error}") from None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ObservationError(f"the observation is damaged: {error!r}") from None


def _observation(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Observation:
    maps = {
        role: ActivationMap(arrays[f"counts/{role}"], int(counted), int(total), arrays.get(f"weights/{role}"))
        for role, (counted, total) in header["maps"].items()
    }

    def by_role(what: str, kind: type[Any]) -> dict[str, NDArray[Any]]:
        start = f"{what}/"
        return {
            name.removeprefix(start): array.astype(kind) for name, array in arrays.items() if name.startswith(start)
        }

    route, forced, changed = header.get("route", ("", 0, 0))
    told = str(header["digest"]), int(header["tokens_edited"]), str(header["patch_version"])
    receipt = Receipt(*told, str(route), int(forced), int(changed))
    mechanism = tuple(EditEffect(*effect) for effect in header["mechanism"])
    rows = by_role("rows", np.uint16)
    weights, logits = by_role("row weights", np.float32), by_role("row logits", np.float32)
    return Observation(receipt, tuple(header["layers"]), maps, mechanism, rows, weights, logits)
