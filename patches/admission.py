"""The front end's check of a request: accept it in canonical form, or refuse it with the reason.

Fail closed: a request that mentions ``mote`` and is not understood whole is refused (HTTP 400), never run untouched.
What is accepted is replaced by its canonical form, so that workers parse nothing a client wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mote.patches.capture import Capture, Encode
from mote.patches.errors import ProfileError
from mote.patches.layout import ModelLayout
from mote.patches.messages import Ticket
from mote.patches.profile import EMPTY_PROFILE, Profile, nearest
from mote.patches.routes import Route
from mote.reading import UnreadableError, parse_json

PROFILES_VARIABLE = "MOTE_PROFILES"
"""Environment variable: a folder of profile files that requests may name."""
SALT_PREFIX = "mote:"
_KEPT = 32 << 20
_LONGEST = 8 << 20
_PARTS = ("profile", "capture", "route")


class _Kept:
    """The tickets of texts that were accepted, the last used ones, as many as fit into so many characters."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()

    def get(self, text: str) -> Ticket | None:
        found = self._tickets.get(text)
        if found is not None:
            # Requests may come from several threads: another one may have taken it out meanwhile.
            with contextlib.suppress(KeyError):
                self._tickets.move_to_end(text)
        return found

    def add(self, text: str, ticket: Ticket) -> None:
        if text in self._tickets:
            return
        self._tickets[text] = ticket
        self._size += _size(text, ticket)
        while self._size > self._most:
            old, gone = self._tickets.popitem(last=False)
            self._size -= _size(old, gone)


def _size(text: str, ticket: Ticket) -> int:
    return len(text) + len(ticket.spec) + len(ticket.route or "")


class Choice(NamedTuple):
    """What an engine can do before a router's choice.

    Attributes:
        why_not: why no score can be edited; empty if it can.
        groups: into which its routers divide the experts.
        kept: groups that a token chooses from.
    """

    why_not: str = ""
    groups: int = 1
    kept: int = 1


class Admission:
    """Checks requests for one model.

    Args:
        layout: of the model that is served; None if the patch leaves the model alone.
        folder: with the profiles that may be named; None if there is none.
        encode: turns a text into token ids; None if the engine has no tokenizer.
        limit: most edits of a profile that the workers have room for; None if there is no limit.
        why_not: why the model is left alone, where ``layout`` is None.
        choice: what can be done before the router's choice.

    Raises:
        ProfileError: the folder or one of its profiles is unusable; better at start than at a request.
    """

    def __init__(
        self,
        layout: ModelLayout | None,
        folder: Path | None = None,
        encode: Encode | None = None,
        limit: int | None = None,
        why_not: str = "this model has no routed experts",
        choice: Choice | None = None,
    ) -> None:
        self._layout = layout
        self._why_not = why_not
        self._encode = encode
        self._limit = limit
        self._choice = choice or Choice()
        self.profiles: dict[str, Profile] = {}
        if folder is not None:
            self.profiles = _read_folder(folder)
            for profile in self.profiles.values():
                if layout is not None:
                    self._check(profile, layout)
        self._named = _by_every_name(self.profiles)
        self._kept = _Kept(_KEPT)

    @classmethod
    def from_environment(
        cls, layout: ModelLayout | None, encode: Encode | None, limit: int | None, why_not: str, choice: Choice
    ) -> Admission:
        """Make the check of a server, with the folder that ``MOTE_PROFILES`` names."""
        folder = os.environ.get(PROFILES_VARIABLE)
        return cls(layout, Path(folder) if folder else None, encode, limit, why_not, choice)

    def accept(self, entry: Any) -> Ticket:
        """Return the canonical form of a request's ``mote`` entry, an object or the same as a JSON string.

        Raises:
            ProfileError: it is malformed, unknown, out of range, or made for another model.
        """
        if not isinstance(entry, str):
            try:
                entry = json.dumps(entry)
            except (TypeError, ValueError, RecursionError) as error:
                raise ProfileError(f"'mote' must hold JSON values: {error}") from None
        found = self._kept.get(entry)
        if found is None:
            found = self._accept_text(entry)
            self._kept.add(entry, found)
        return found

    def check_name(self, name: str) -> None:
        """Raise :class:`ProfileError`, with the nearest name, unless a profile of the folder is named so."""
        self._profile(name)

    def _accept_text(self, text: str) -> Ticket:
        try:
            entry = parse_json(text, _LONGEST)
        except UnreadableError as error:
            raise ProfileError(f"'mote' is no JSON object: it {error}") from None
        if not isinstance(entry, Mapping):
            raise ProfileError("'mote' must be an object with the keys profile, capture and route")
        for key in entry:
            if key not in _PARTS:
                raise ProfileError(f"'mote': unknown key {key[:80]!r}.{nearest(key, _PARTS)}")
        if "profile" not in entry:
            raise ProfileError("'mote' must name or contain a profile; the untouched model is {\"edits\": []}")
        if self._layout is None:
            raise ProfileError(f"{self._why_not}; send the request without 'mote'")
        profile = self._profile(entry["profile"])
        self._check(profile, self._layout)
        capture = Capture.parse(entry.get("capture"), self._encode)
        # Only a GPU's workers have a limit of edits.
        if capture is not None and self._limit is not None:
            if capture.logits:
                raise ProfileError("'capture': logits are kept on CPUs only; ask for 'weights' on a GPU")
            if capture.applied:
                raise ProfileError("'capture': what was applied is kept on CPUs only; leave 'applied' out on a GPU")
        route = None
        if entry.get("route") is not None:
            route = self._route(entry["route"], profile, self._layout).spec
        return Ticket(profile.spec, None if capture is None else capture.to_list(), route)

    def _route(self, value: Any, profile: Profile, layout: ModelLayout) -> Route:
        route = Route.from_request(value)
        route.check(layout)
        if self._choice.why_not:
            raise ProfileError(f"a route forces the router's choice, and {self._choice.why_not}; leave 'route' out")
        if profile.canonical:
            raise ProfileError(
                f"a route says which experts a token takes, and profile '{profile.name}' edits them: send one of both"
            )
        return route

    def _check(self, profile: Profile, layout: ModelLayout) -> None:
        profile.check(layout)
        self._check_room(profile)
        if profile.before_choice:
            if self._choice.why_not:
                raise ProfileError(
                    f"profile '{profile.name}' edits scores before the router's choice, and {self._choice.why_not}; "
                    "use suppress, stimulate or scale"
                )
            profile.check_groups(layout, self._choice.groups, self._choice.kept)

    def _check_room(self, profile: Profile) -> None:
        edits = len(profile.canonical)
        if self._limit is not None and edits > self._limit:
            raise ProfileError(
                f"profile '{profile.name}' has {edits} edits; on a GPU there is room for {self._limit}: "
                "leave out some, or run it on a CPU, where there is no limit"
            )

    def _check_length(self, value: Any) -> None:
        """Refuse more edits than the model has experts before each is looked at: other requests wait meanwhile."""
        edits = value.get("edits") if isinstance(value, Mapping) else None
        experts = len(self._layout.layers) * self._layout.experts if self._layout is not None else 0
        if isinstance(edits, list) and len(edits) > experts:
            raise ProfileError(f"'edits' has {len(edits):,} edits, and the model has {experts:,} experts to edit")

    def _profile(self, value: Any) -> Profile:
        if not isinstance(value, str):
            self._check_length(value)
            return Profile.from_request(value)
        if value in self._named:
            return self._named[value]
        if value == EMPTY_PROFILE.name:
            return EMPTY_PROFILE
        hint = nearest(value, self._named) if self._named else f" {PROFILES_VARIABLE} names no folder with profiles."
        raise ProfileError(f"no profile is named '{value[:80]}' here.{hint}")


def salt(spec: str, given: str | None, route: str | None = None) -> str | None:
    """Return the cache salt of a request: KV blocks are never shared between different profiles, nor between routes.

    The untouched model's blocks are the same with and without the empty profile, so that one keeps the given salt.
    """
    if spec == EMPTY_PROFILE.spec and route is None:
        return given
    parts = [spec, given] if route is None else [spec, given, route]
    return SALT_PREFIX + hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_alignment(ticket: Ticket, prompt_tokens: int) -> None:
    """Raise :class:`ProfileError` if a request's route does not align with its prompt."""
    if ticket.route is not None:
        Route.from_request(json.loads(ticket.route)).check_prompt(prompt_tokens)


def refuse_forged_salt(given: str | None) -> None:
    """Raise :class:`ProfileError` if a client's own salt looks like ours: it could reach a tuned request's cache."""
    if given is not None and given.startswith(SALT_PREFIX):
        raise ProfileError(f"cache_salt must not begin with '{SALT_PREFIX}'; choose another")


def _read_folder(folder: Path) -> dict[str, Profile]:
    """Return the profiles of a folder by their files' names, without the ``.json``."""
    if not folder.is_dir():
        raise ProfileError(f"{PROFILES_VARIABLE}: {folder} is no folder")
    return {file.stem: Profile.read(file) for file in sorted(folder.glob("*.json"))}


def _by_every_name(profiles: Mapping[str, Profile]) -> dict[str, Profile]:
    """Return profiles by the names of their files and by their own; raise ProfileError where one is of two."""
    named = dict(profiles)
    for file, profile in profiles.items():
        if named.setdefault(profile.name, profile) is not profile:
            raise ProfileError(f"{file}.json: another profile of its folder is named '{profile.name}' too")
    if (own := named.get(EMPTY_PROFILE.name)) is not None and own.spec != EMPTY_PROFILE.spec:
        raise ProfileError(f"a profile with edits must not be called '{EMPTY_PROFILE.name}', as the untouched model is")
    return named
