"""Profiles: which experts to edit, how, and for which tokens.

A profile is a named set of edits. It is checked when it is made, so an invalid one never exists; it is written as
JSON (``profile.schema.json`` beside this file), and its digest, the sha256 of its canonical edits, is the one identity
that caches, receipts, rows and manifests share. The order of edits never matters: duplicates merge, contradictions are
refused, and canonical edits are sorted. Nothing here imports vLLM or torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, cast, get_args

from mote.patches.edits import ACTIONS as ACTIONS
from mote.patches.edits import OF_FACTOR, WITH_FACTOR, check_keys, short
from mote.patches.edits import Action as Action
from mote.patches.edits import Edit as Edit
from mote.patches.edits import nearest as nearest
from mote.patches.layout import ModelLayout, ProfileError
from mote.reading import UnreadableError, parse_json, read_json

Tokens = Literal["all", "prompt", "generated"]
TOKENS: tuple[str, ...] = get_args(Tokens)
FORMAT = "mote-profile/1"
MOST_EDITS = 100_000
"""Several times the experts of the largest models; a profile is checked while a server's other requests wait."""
MOST_NAME = 200


@dataclass(frozen=True)
class Profile:
    """A named set of edits, for all tokens of a request, its prompt tokens only, or its generated tokens only.

    A token is "generated" when it was sampled: the last prompt token belongs to the prompt although its output is the
    first generated token. All edits are of one kind, before the router's choice or after it.

    Raises:
        ProfileError: an edit is out of the layout of ``model``, two edits of one expert contradict each other, or some
            edits are before the choice and some after it.
    """

    name: str
    edits: tuple[Edit, ...]
    model: ModelLayout | None = None
    tokens: Tokens = "all"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ProfileError("a profile needs a name, e.g. 'suppress-top10'")
        if len(self.name) > MOST_NAME or not self.name.isprintable():
            raise ProfileError(f"a profile's name has at most {MOST_NAME} characters, none of them a control character")
        if len(self.edits) > MOST_EDITS:
            raise ProfileError(f"profile '{self.name}' has {len(self.edits):,} edits; there is room for {MOST_EDITS:,}")
        if self.tokens not in TOKENS:
            raise ProfileError(
                f"profile '{self.name}': unknown tokens {short(self.tokens)!r}.{nearest(str(self.tokens), TOKENS)}"
            )
        object.__setattr__(self, "edits", tuple(self.edits))
        for edit in self.edits:
            if not isinstance(edit, Edit):
                raise ProfileError(f"profile '{self.name}': {edit!r} is no Edit")
        kinds: dict[bool, Edit] = {}
        for edit in self.edits:
            kinds.setdefault(edit.before_choice, edit)
        if len(kinds) > 1:
            raise ProfileError(
                f"profile '{self.name}' has an edit before the router's choice, {kinds[True]}, and one after it, "
                f"{kinds[False]}; make two profiles"
            )
        _ = self.canonical
        if self.model is not None:
            self._check_edits(self.model)

    @cached_property
    def canonical(self) -> tuple[Edit, ...]:
        """The edits sorted by (layer, expert), duplicates merged, edits without effect left out."""
        seen: dict[tuple[int, int], Edit] = {}
        for edit in (each.canonical for each in self.edits):
            other = seen.setdefault((edit.layer, edit.expert), edit)
            if other != edit:
                raise ProfileError(
                    f"profile '{self.name}': expert ({edit.layer}, {edit.expert}) has two different edits, "
                    f"{_describe(other)} and {_describe(edit)}; keep one of them"
                )
        return tuple(edit for _, edit in sorted(seen.items()) if not edit.is_nothing)

    @property
    def before_choice(self) -> bool:
        """Whether the profile changes scores before the router chooses, not weights of what it chose."""
        return any(edit.before_choice for edit in self.edits)

    @cached_property
    def spec(self) -> str:
        """The canonical edits as compact JSON: what is hashed, and what travels to the workers.

        Name and model are not part of it, and without edits the choice of tokens is not either: whatever computes the
        same thing has the same spec.
        """
        edits = [edit.to_list() for edit in self.canonical]
        return json.dumps({"edits": edits, "tokens": self.tokens if edits else "all"}, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """Sha256 of :attr:`spec`, as hexadecimal."""
        return hashlib.sha256(self.spec.encode("ascii")).hexdigest()

    def check(self, layout: ModelLayout) -> None:
        """Raise :class:`ProfileError` unless every edit exists in ``layout`` and the profile was made for it."""
        if self.model is not None and self.model != layout:
            raise ProfileError(
                f"profile '{self.name}' was made for {_layout_line(self.model)}, this model is {_layout_line(layout)}"
            )
        self._check_edits(layout)

    def _check_edits(self, layout: ModelLayout) -> None:
        known = set(layout.layers)
        for edit in self.edits:
            if edit.layer not in known:
                near = min(layout.layers, key=lambda layer: abs(layer - edit.layer))
                raise ProfileError(
                    f"profile '{self.name}', edit {edit}: layer {edit.layer} of {layout.architecture} has no routed "
                    f"experts; the nearest that has is {near}"
                )
            if edit.expert >= layout.experts:
                raise ProfileError(
                    f"profile '{self.name}', edit {edit}: {layout.architecture} has experts 0 to {layout.experts - 1} "
                    f"in each layer; the nearest is {layout.experts - 1}"
                )
            if layout.top_k == 1 and edit.action == "scale" and edit.factor:
                raise ProfileError(
                    f"profile '{self.name}', edit {edit}: a token of {layout.architecture} takes one expert and keeps "
                    "the sum of its weights, so scale would do nothing; suppress or stimulate"
                )
        if self.before_choice:
            self.check_groups(layout)

    def check_groups(self, layout: ModelLayout, groups: int = 1, kept: int = 1) -> None:
        """Raise :class:`ProfileError` if a layer activates more, or leaves less, than a token can take.

        Args:
            layout: of the model.
            groups: into which its router divides the experts of a layer, one after the other, of equal size.
            kept: of these, those that a token chooses from.
        """
        size = max(1, layout.experts // groups)
        said = f" of the {kept} of {groups} groups that it chooses from" if groups > 1 else ""
        for layer, edits in groupby(self.canonical, key=lambda edit: edit.layer):
            by_action: dict[str, list[int]] = {}
            for edit in edits:
                by_action.setdefault(edit.action, []).append(edit.expert)
            active, off = by_action.get("activate", []), set(by_action.get("deactivate", []))
            where = f"profile '{self.name}', layer {layer}"
            touched = len({expert // size for expert in active})
            if len(active) > layout.top_k or touched > kept:
                raise ProfileError(
                    f"{where}: {len(active)} experts{f' of {touched} groups' if groups > 1 else ''} are activated, and "
                    f"a token of {layout.architecture} takes {layout.top_k}{said}; activate fewer"
                )
            left = Counter(expert // size for expert in range(layout.experts) if expert not in off)
            least = sum(sorted(left[group] for group in range(groups))[:kept])
            if off and least < layout.top_k:
                raise ProfileError(
                    f"{where}: {len(off)} experts are deactivated, which may leave {least}, and a token of "
                    f"{layout.architecture} takes {layout.top_k}{said}; deactivate fewer"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as the JSON object that ``profile.schema.json`` describes."""
        data: dict[str, Any] = {"format": FORMAT, "name": self.name, "tokens": self.tokens}
        if self.model is not None:
            data["model"] = self.model.to_dict()
        data["edits"] = [_edit_dict(edit) for edit in self.edits]
        return data

    @classmethod
    def from_dict(cls, data: Any) -> Profile:
        """Read the JSON object that :meth:`to_dict` writes.

        Raises:
            ProfileError: anything in it is unknown, missing or out of range.
        """
        if not isinstance(data, Mapping):
            raise ProfileError(
                "a profile is a JSON object with the keys format, name, edits, and optionally model, tokens"
            )
        check_keys("profile", data, required=("format", "name", "edits"), optional=("model", "tokens"))
        _check_format(data["format"])
        model = None if data.get("model") is None else ModelLayout.from_dict(data["model"])
        return cls(data["name"], _edits(data["edits"]), model, cast(Tokens, data.get("tokens", "all")))

    def to_request(self) -> dict[str, Any]:
        """Return what a request carries: canonical edits in short form, tokens, and the model if it is named."""
        request: dict[str, Any] = {"name": self.name, **json.loads(self.spec)}
        if self.model is not None:
            request["model"] = self.model.to_dict()
        return request

    @classmethod
    def from_request(cls, data: Any) -> Profile:
        """Read what :meth:`to_request` wrote; edits may be in short or in long form.

        Raises:
            ProfileError: anything in it is unknown, missing or out of range.
        """
        if not isinstance(data, Mapping):
            raise ProfileError("'profile' must be an object with the key edits, or the name of a profile of the server")
        check_keys("profile", data, required=("edits",), optional=("name", "tokens", "model", "format"))
        _check_format(data.get("format", FORMAT))
        model = None if data.get("model") is None else ModelLayout.from_dict(data["model"])
        tokens = cast(Tokens, data.get("tokens", "all"))
        return cls(data.get("name", "request"), _edits(data["edits"]), model, tokens)

    @classmethod
    def from_request_text(cls, text: str) -> Profile:
        """Read a profile from the JSON text of :attr:`spec`.

        Raises:
            ProfileError: as :meth:`from_request`, or the text is not JSON.
        """
        try:
            data = parse_json(text)
        except UnreadableError as error:
            raise ProfileError(f"not a readable profile: it {error}") from None
        return cls.from_request(data)

    @classmethod
    def read(cls, path: str | Path) -> Profile:
        """Read a profile file.

        Raises:
            ProfileError: the file is missing, is not JSON, or holds no valid profile.
        """
        if not Path(path).exists():
            raise ProfileError(f"{path}: no such profile file")
        try:
            data = read_json(Path(path))
        except UnreadableError as error:
            raise ProfileError(f"{path}: not a readable profile: it {error}") from None
        try:
            return cls.from_dict(data)
        except ProfileError as error:
            raise ProfileError(f"{path}: {error}") from None

    def write(self, path: str | Path) -> None:
        """Write the profile as a JSON file that :meth:`read` and the schema accept."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


EMPTY_PROFILE = Profile("baseline", ())
"""The untouched model. Requests carry it so that the baseline, too, has a receipt."""


def _check_format(found: Any) -> None:
    if found != FORMAT:
        raise ProfileError(f"profile format {short(found)!r} is not known; this version reads '{FORMAT}'")


def _describe(edit: Edit) -> str:
    return f"{edit.action} {edit.factor:g}" if edit.action in WITH_FACTOR else edit.action


def _layout_line(layout: ModelLayout) -> str:
    return (
        f"{layout.architecture} with {len(layout.layers)} expert layers "
        f"({layout.layers[0]} to {layout.layers[-1]}) of {layout.experts} experts, {layout.top_k} chosen"
    )


def _edit_dict(edit: Edit) -> dict[str, Any]:
    data: dict[str, Any] = {"layer": edit.layer, "expert": edit.expert, "action": edit.action}
    return data | {"factor": float(edit.factor)} if edit.action in WITH_FACTOR else data


def _edits(data: Any) -> tuple[Edit, ...]:
    if isinstance(data, list | tuple) and len(data) > MOST_EDITS:
        raise ProfileError(f"'edits' has {len(data):,} edits; there is room for {MOST_EDITS:,}")
    if not isinstance(data, list | tuple):
        raise ProfileError("'edits' must be a list of edits, e.g. [[3, 17, \"suppress\"]]")
    return tuple(_edit(number, item) for number, item in enumerate(data))


def _edit(number: int, data: Any) -> Edit:
    """Read one edit: ``[layer, expert, action]``, with the factor as fourth, or the object of the file format."""
    if isinstance(data, Mapping):
        check_keys(f"edit {number}", data, required=("layer", "expert", "action"), optional=("factor",))
        if _takes_factor(data["action"]) and "factor" not in data:
            raise ProfileError(f"edit {number}: '{data['action']}' needs a factor, e.g. 0.5")
        return Edit(data["layer"], data["expert"], data["action"], data.get("factor", 0.0))
    if isinstance(data, list | tuple) and len(data) == (4 if len(data) > 2 and _takes_factor(data[2]) else 3):
        return Edit(*data)
    raise ProfileError(
        f"edit {number}: {short(data)!r} is neither [layer, expert, action] (a fourth value, the factor, for "
        f"{OF_FACTOR} only) nor an object with layer, expert and action"
    )


def _takes_factor(action: Any) -> bool:
    return isinstance(action, str) and action in WITH_FACTOR
