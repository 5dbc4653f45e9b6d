"""Routes: which experts the tokens of one request are to take, as another request's tokens took them.

A route is made of the rows that a donor's answer brought back (``capture`` of ``rows``), for some layers, and for its
prompt tokens, its generated ones, or both. Generated rows begin where the receiver's prompt ends. Aligned ``same``, the
two prompts must have the same number of tokens; aligned ``end``, so many of the receiver's last prompt tokens are
routed as there are rows, and the prompt must have as many. Aligned ``role``, the route names the receiver's prompt
tokens one by one, as found turn by turn by whoever knows the chat template (``Pairs``), and the length of that prompt.
Tokens beyond the route are routed by the model itself. Nothing here imports vLLM or torch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from mote.patches.edits import check_keys, nearest, short
from mote.patches.layout import ModelLayout, ProfileError
from mote.patches.observation import Observation
from mote.patches.profile import TOKENS, Tokens

Align = Literal["same", "end", "role"]
ALIGNS: tuple[str, ...] = get_args(Align)


class Pairs(NamedTuple):
    """Which prompt token of a donor each of a receiver's follows, where the two are aligned by role.

    Attributes:
        donor: positions in the donor's prompt, ascending.
        receiver: positions in the receiver's prompt, ascending; as many.
        length: the receiver's prompt tokens.
    """

    donor: tuple[int, ...]
    receiver: tuple[int, ...]
    length: int


@dataclass(frozen=True, eq=False)
class Route:
    """The experts that some tokens of a request are made to take.

    Attributes:
        layers: the decoder layers it holds for, ascending, as the model numbers them.
        ids: uint16 [tokens, layers, k], prompt tokens first; a token's experts differ from each other.
        prompt: how many of the tokens are prompt tokens; the others are generated ones.
        align: ``same``, ``end`` or ``role``, see the module; without prompt tokens it says nothing and is ``end``.
        weights: float32 [tokens, layers, k], the weights that the experts get (*kept*); None if they get what the
            receiver's own router scores give them, normalised as the model does (*recomputed*).
        at: aligned ``role``, the receiver's position of each prompt token, ascending; else empty.
        length: aligned ``role``, the receiver's prompt tokens; else 0.

    Raises:
        ProfileError: shapes do not fit, experts of a token repeat, or a weight is negative or no number.
    """

    layers: tuple[int, ...]
    ids: NDArray[np.uint16]
    prompt: int
    align: Align = "same"
    weights: NDArray[np.float32] | None = None
    at: tuple[int, ...] = ()
    length: int = 0

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        shape = self.ids.shape
        if len(shape) != 3 or shape[1] != len(self.layers) or 0 in shape:
            raise ProfileError(f"route: experts of shape {list(shape)} are not [tokens, {len(self.layers)} layers, k]")
        if not 0 <= self.prompt <= shape[0]:
            raise ProfileError(f"route: {self.prompt} prompt tokens of {shape[0]} tokens; the nearest is {shape[0]}")
        if self.align not in ALIGNS:
            raise ProfileError(f"route: unknown align {short(self.align)!r}.{nearest(self.align, ALIGNS)}")
        ordered = np.sort(self.ids, axis=-1)
        if (twice := np.argwhere((ordered[..., 1:] == ordered[..., :-1]).any(axis=-1))).size:
            token, row = twice[0].tolist()
            raise ProfileError(
                f"route: token {token} of layer {self.layers[row]} takes an expert twice: "
                f"{self.ids[token, row].tolist()[:16]}"
            )
        if self.weights is not None:
            if self.weights.shape != shape:
                raise ProfileError(f"route: {list(self.weights.shape)} weights for {list(shape)} experts")
            if not (np.isfinite(self.weights) & (self.weights >= 0)).all():
                raise ProfileError("route: a weight is negative or no number; leave 'weights' out to recompute them")
        if not self.prompt:
            object.__setattr__(self, "align", "end")
        self._check_places()

    def _check_places(self) -> None:
        if self.align != "role":
            if self.at or self.length:
                raise ProfileError(f"route: 'at' and 'length' belong to align 'role', and this one is '{self.align}'")
            return
        if len(self.at) != self.prompt:
            raise ProfileError(f"route: {len(self.at)} positions for {self.prompt} prompt tokens")
        if any(one >= other for one, other in pairwise(self.at)):
            raise ProfileError("route: the positions of its prompt tokens, 'at', are not ascending")
        if self.at[0] < 0 or self.at[-1] >= self.length:
            raise ProfileError(
                f"route: positions {short(self.at[0])} to {short(self.at[-1])} of a prompt whose 'length' is "
                f"{short(self.length)} tokens"
            )

    @classmethod
    def of(
        cls,
        observation: Observation,
        *,
        tokens: Tokens = "all",
        layers: Sequence[int] | None = None,
        kept: bool = False,
        align: Align = "same",
        last: int | None = None,
        pairs: Pairs | None = None,
    ) -> Route:
        """Return the route that an answer's tokens took.

        Args:
            observation: of the donor, asked with ``capture`` of ``rows``; with ``applied``, the route is what was
                applied under its profile, else what its routers chose.
            tokens: its prompt tokens, its generated ones, or all.
            layers: to which it is restricted; None for all.
            kept: take the donor's weights along, which its capture must have.
            align: ``same`` or ``end``.
            last: only so many of the last prompt tokens, aligned ``end``; None for all.
            pairs: which prompt tokens follow which, aligned ``role``; None for the other alignments.

        Raises:
            ProfileError: the observation lacks rows or weights, or a layer has no experts.
        """
        if tokens not in TOKENS:
            raise ProfileError(f"route: unknown tokens {short(tokens)!r}.{nearest(str(tokens), TOKENS)}")
        roles = [role for role in ("prompt", "generated") if tokens in ("all", role)]
        if not all(role in observation.rows for role in roles):
            raise ProfileError("route: the donor's answer has no rows; ask with capture 'rows'")
        if kept and not all(role in observation.row_weights for role in roles):
            raise ProfileError(
                "route: the donor's answer has no weights; ask with capture {'what': 'rows', 'weights': true}"
            )
        known = observation.layers
        chosen = known if layers is None else tuple(layers)
        if missing := [layer for layer in chosen if layer not in known]:
            raise ProfileError(
                f"route: layer {missing[0]} has no routed experts.{nearest(missing[0], map(str, known))}"
            )
        places = [known.index(layer) for layer in chosen]
        taken: list[int] = []
        at: tuple[int, ...] = ()
        if "prompt" in roles:
            held = len(observation.rows["prompt"])
            taken = list(range(held))
            if pairs is not None:
                if pairs.donor and pairs.donor[-1] >= held:
                    raise ProfileError(f"route: pairs name the donor's token {pairs.donor[-1]}, and it has {held}")
                taken, at, align = list(pairs.donor), pairs.receiver, "role"
            elif last is not None:
                taken, align = taken[max(0, held - last) :], "end"

        def rows(by_role: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            parts = [by_role[role][taken] if role == "prompt" else by_role[role] for role in roles]
            found: NDArray[Any] = np.concatenate(parts)[:, places]
            return found

        weights = rows(observation.row_weights) if kept else None
        length = pairs.length if pairs is not None and taken else 0
        return cls(chosen, rows(observation.rows), len(taken), align, weights, at, length)

    @property
    def tokens(self) -> int:
        """How many tokens it routes."""
        return len(self.ids)

    @property
    def kept(self) -> bool:
        """Whether the experts' weights are the route's own."""
        return self.weights is not None

    @cached_property
    def spec(self) -> str:
        """The route as canonical JSON: what is hashed, and what travels to the workers."""
        data: dict[str, Any] = {
            "layers": list(self.layers),
            "prompt": self.prompt,
            "generated": self.tokens - self.prompt,
            "align": self.align,
            **({"at": list(self.at), "length": self.length} if self.align == "role" else {}),
            "ids": base64.b64encode(np.ascontiguousarray(self.ids, "<u2").tobytes()).decode(),
        }
        if self.weights is not None:
            # -0 and 0 are the same weight, and must have the same digest.
            data["weights"] = base64.b64encode((np.ascontiguousarray(self.weights, "<f4") + 0).tobytes()).decode()
        return json.dumps(data, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """Sha256 of :attr:`spec`, as hexadecimal: what the receipt says."""
        return route_digest(self.spec)

    def to_request(self) -> dict[str, Any]:
        """Return what a request carries under ``route``."""
        found: dict[str, Any] = json.loads(self.spec)
        return found

    @classmethod
    def from_request(cls, data: Any) -> Route:
        """Read what :meth:`to_request` wrote: ids as base64 of little-endian uint16, weights of float32.

        Raises:
            ProfileError: anything in it is unknown, missing or out of range.
        """
        if not isinstance(data, Mapping):
            raise ProfileError("'route' must be an object with the keys layers, prompt, generated and ids")
        optional = ("align", "at", "length", "weights")
        check_keys("'route'", data, required=("layers", "prompt", "generated", "ids"), optional=optional)
        layers, counts = data["layers"], [data["prompt"], data["generated"]]
        if not isinstance(layers, list | tuple):
            raise ProfileError("'route': 'layers' must be a list of layer indices, e.g. [1, 2, 3]")
        _check_layers(layers)
        if not all(map(_is_count, counts)):
            raise ProfileError("'route': 'prompt' and 'generated' must be numbers of tokens, 0 for none")
        tokens = sum(counts)
        ids = _array(data["ids"], "ids", "<u2")
        if not tokens or not ids.size or ids.size % (tokens * len(layers)):
            raise ProfileError(
                f"'route': {ids.size} experts are no whole number for each of {short(tokens)} tokens in {len(layers)} "
                "layers"
            )
        shape = (tokens, len(layers), ids.size // (tokens * len(layers)))
        weights = data.get("weights")
        if weights is not None:
            weights = _array(weights, "weights", "<f4")
            if weights.size != ids.size:
                raise ProfileError(f"'route': {weights.size} weights for {ids.size} experts")
            weights = weights.reshape(shape).astype(np.float32)
        align = cast(Align, data.get("align", "same"))
        at, length = data.get("at", []), data.get("length", 0)
        if not isinstance(at, list | tuple) or not all(_is_count(each) for each in (*at, length)):
            raise ProfileError("'route': 'at' must be a list of positions, 'length' the prompt's number of tokens")
        return cls(
            tuple(layers), ids.reshape(shape).astype(np.uint16), data["prompt"], align, weights, tuple(at), length
        )

    def check(self, layout: ModelLayout) -> None:
        """Raise :class:`ProfileError` unless its layers, experts and k are those of ``layout``."""
        for layer in self.layers:
            if layer not in layout.layers:
                near = min(layout.layers, key=lambda known: abs(known - layer))
                raise ProfileError(
                    f"route: layer {layer} of {layout.architecture} has no routed experts; the nearest that has is "
                    f"{near}"
                )
        if self.ids.shape[2] != layout.top_k:
            raise ProfileError(
                f"route: {self.ids.shape[2]} experts for a token of a layer, and a token of {layout.architecture} "
                f"takes {layout.top_k}"
            )
        if (most := int(self.ids.max())) >= layout.experts:
            raise ProfileError(
                f"route: expert {most}: {layout.architecture} has experts 0 to {layout.experts - 1} in each layer"
            )

    def check_prompt(self, tokens: int) -> None:
        """Raise :class:`ProfileError` unless the route aligns with a prompt of so many tokens."""
        if self.align == "same" and self.prompt != tokens:
            raise ProfileError(
                f"route: it was taken from a prompt of {self.prompt} tokens, and this one has {tokens}: take a donor "
                "of the same length, or align 'end'"
            )
        if self.align == "role" and self.length != tokens:
            raise ProfileError(
                f"route: it was laid by role onto a prompt of {short(self.length)} tokens, and this one has {tokens}: "
                "lay the donor's onto this prompt"
            )
        if self.prompt > tokens:
            raise ProfileError(
                f"route: {self.prompt} tokens are to be routed from the prompt's end, and the prompt has {tokens}: "
                f"keep the last {tokens} of the donor's"
            )


def route_digest(spec: str) -> str:
    """Return the digest of a route's canonical text."""
    return hashlib.sha256(spec.encode("ascii")).hexdigest()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_layers(layers: Sequence[Any]) -> None:
    if not layers or not all(map(_is_count, layers)) or list(layers) != sorted(set(layers)):
        raise ProfileError(f"route: layers {short(list(layers))} are no ascending list of layer indices")


def _array(value: Any, name: str, kind: str) -> NDArray[Any]:
    try:
        if not isinstance(value, str):
            raise TypeError("not a text")
        return np.frombuffer(base64.b64decode(value, validate=True), kind)
    except (binascii.Error, ValueError, TypeError):
        what = "uint16" if name == "ids" else "float32"
        raise ProfileError(f"'route': '{name}' must be the base64 of little-endian {what}") from None
