"""The front end's check of a request: accept it in canonical form, or refuse it with the reason.

Fail closed: a request that mentions ``mote`` and is not understood whole is refused (HTTP 400), never run untouched.
What is accepted is replaced by its canonical form, so that workers parse nothing a client wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mote.patches.capture import Capture, Encode
from mote.patches.errors import ProfileError
from mote.patches.layout import ModelLayout
from mote.patches.messages import Ticket
from mote.patches.profile import EMPTY_PROFILE, Profile, nearest
from mote.reading import UnreadableError, parse_json

PROFILES_VARIABLE = "MOTE_PROFILES"
"""Environment variable: a folder of profile files that requests may name."""
SALT_PREFIX = "mote:"
_KEPT = 1024
_SHORT = 64 << 10
_LONGEST = 8 << 20


class Admission:
    """Checks requests for one model.

    Args:
        layout: of the model that is served; None if the patch leaves the model alone.
        folder: with the profiles that may be named; None if there is none.
        encode: turns a text into token ids; None if the engine has no tokenizer.
        limit: most edits of a profile that the workers have room for; None if there is no limit.
        why_not: why the model is left alone, where ``layout`` is None.

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
    ) -> None:
        self._layout = layout
        self._why_not = why_not
        self._encode = encode
        self._limit = limit
        self._named: dict[str, Profile] = {}
        if folder is not None:
            self._named = _read_folder(folder)
            for profile in self._named.values():
                if layout is not None:
                    profile.check(layout)
                self._check_room(profile)
        self._kept = lru_cache(maxsize=_KEPT)(self._accept_text)

    @classmethod
    def from_environment(
        cls, layout: ModelLayout | None, encode: Encode | None, limit: int | None, why_not: str
    ) -> Admission:
        """Make the check of a server, with the folder that ``MOTE_PROFILES`` names."""
        folder = os.environ.get(PROFILES_VARIABLE)
        return cls(layout, Path(folder) if folder else None, encode, limit, why_not)

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
        # A profile of many edits is read anew each time: a thousand kept ones would take gigabytes.
        return self._kept(entry) if len(entry) <= _SHORT else self._accept_text(entry)

    def _accept_text(self, text: str) -> Ticket:
        try:
            entry = parse_json(text, _LONGEST)
        except UnreadableError as error:
            raise ProfileError(f"'mote' is no JSON object: it {error}") from None
        if not isinstance(entry, Mapping):
            raise ProfileError("'mote' must be an object with the keys profile and capture")
        for key in entry:
            if key not in ("profile", "capture"):
                raise ProfileError(f"'mote': unknown key {key[:80]!r}.{nearest(key, ('profile', 'capture'))}")
        if "profile" not in entry:
            raise ProfileError("'mote' must name or contain a profile; the untouched model is {\"edits\": []}")
        if self._layout is None:
            raise ProfileError(f"{self._why_not}; send the request without 'mote'")
        profile = self._profile(entry["profile"])
        profile.check(self._layout)
        self._check_room(profile)
        capture = Capture.parse(entry.get("capture"), self._encode)
        return Ticket(profile.spec, None if capture is None else capture.to_list())

    def _check_room(self, profile: Profile) -> None:
        edits = len(profile.canonical)
        if self._limit is not None and edits > self._limit:
            raise ProfileError(
                f"profile '{profile.name}' has {edits} edits; on a GPU there is room for {self._limit}: "
                "leave out some, or run it on a CPU, where there is no limit"
            )

    def _profile(self, value: Any) -> Profile:
        if not isinstance(value, str):
            return Profile.from_request(value)
        if value in self._named:
            return self._named[value]
        if value == EMPTY_PROFILE.name:
            return EMPTY_PROFILE
        hint = nearest(value, self._named) if self._named else f" {PROFILES_VARIABLE} names no folder with profiles."
        raise ProfileError(f"no profile is named '{value[:80]}' here.{hint}")


def salt(spec: str, given: str | None) -> str | None:
    """Return the cache salt of a request: KV blocks are never shared between different profiles.

    The untouched model's blocks are the same with and without the empty profile, so that one keeps the given salt.
    """
    if spec == EMPTY_PROFILE.spec:
        return given
    return SALT_PREFIX + hashlib.sha256(json.dumps([spec, given]).encode()).hexdigest()


def refuse_forged_salt(given: str | None) -> None:
    """Raise :class:`ProfileError` if a client's own salt looks like ours: it could reach a tuned request's cache."""
    if given is not None and given.startswith(SALT_PREFIX):
        raise ProfileError(f"cache_salt must not begin with '{SALT_PREFIX}'; choose another")


def _read_folder(folder: Path) -> dict[str, Profile]:
    if not folder.is_dir():
        raise ProfileError(f"{PROFILES_VARIABLE}: {folder} is no folder")
    named: dict[str, Profile] = {}
    for file in sorted(folder.glob("*.json")):
        profile = Profile.read(file)
        if profile.name in named:
            raise ProfileError(f"{file}: another profile of {folder} is named '{profile.name}' too")
        named[profile.name] = profile
    return named
