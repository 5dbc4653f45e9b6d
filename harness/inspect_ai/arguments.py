"""The model arguments of the provider (``-M name=value``), checked before anything is asked or started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from mote.harness.compare.model_args import check_kinds, named_markers
from mote.harness.compare.run_answers import read_profile
from mote.harness.engine.model import ModelSource, resolve_model
from mote.harness.errors import MoteError, nearest
from mote.harness.files import digest_of
from mote.harness.inspect_ai.shams import Sham, check_kind, sham_profiles
from mote.judges import Markers
from mote.patches import EMPTY_PROFILE, ModelLayout, Profile, ProfileError

_OURS: Final[Mapping[str, str]] = {
    "profile": "a string",
    "sham": "a whole number from 0",
    "sham_kind": "a string",
    "sham_seed": "a whole number from 0",
    "seed": "a whole number from 0",
    "markers": "a string",
    "prompt_opens": "True or False",
    "template": "an object",
}
_ELSEWHERE: Final[Mapping[str, str]] = {
    "model": "name the model after the slash: mote/demo",
    "host": "a server of our own listens to this machine alone; start one with `mote serve`, and name its base URL",
    "port": "a server of our own takes a free one; name one that runs by its base URL",
    "api_key": "put the server's key into the environment variable VLLM_API_KEY",
}


_LABELLED: Final = re.compile(r"(.+)@.+-[0-9a-f]{8}")


class Arguments(NamedTuple):
    """The checked arguments.

    Attributes:
        name: the model, as the user named it: demo, a folder, a Hugging Face id, or a server's name for it.
        profile: under which every request is asked; a sham's own edits where it is one.
        sham: which sham it is, None for the profile itself.
        seed: each request's own is made of this and its messages.
        markers: what encloses the model's reasoning.
        prompt_opens: whether the chat template ends inside the reasoning.
        template: arguments of the chat template.
        model: the digest of the model's files, empty where only a server has them.
        server: options of the server to start, by vLLM's names; empty where one runs.
    """

    name: str
    profile: Profile
    sham: Sham | None
    seed: int
    markers: Markers
    prompt_opens: bool
    template: dict[str, Any]
    model: str
    server: dict[str, Any]

    @property
    def label(self) -> str:
        """The model and what is done to it, as logs show it and Inspect's cache of answers keeps it apart."""
        return f"{self.name}@{self.profile.name}-{self.profile.digest[:8]}"


def check_arguments(name: str, url: str | None, given: Mapping[str, Any]) -> Arguments:
    """Return the arguments as they were meant; starts nothing.

    ``url`` is the base URL of a server that runs, None where one is to be started. Raises MoteError, one line, for an
    unknown argument, a value of the wrong kind, a model or profile that isn't there, and a profile of another model.
    """
    values = {key: value for key, value in given.items() if value is not None}
    for key in values:
        if key in _ELSEWHERE:
            raise MoteError(f"model_args: {key} is not taken: {_ELSEWHERE[key]}.")
        if key not in _OURS and url is not None:
            raise MoteError(
                f"model_args: {key} is not ours, and the server at {url} has its options already.{nearest(key, _OURS)}"
            )
    check_kinds(values, _OURS)
    ours = {key: values.pop(key) for key in _OURS if key in values}
    source = str(ours.get("profile", EMPTY_PROFILE.name))
    profile = read_profile(source, "model_args: profile=")
    name = unlabelled(name)
    layout, digest = _model(name, url, profile)
    kind = check_kind(ours.get("sham_kind", "layers"), "model_args: sham_kind=")
    seed, number = int(ours.get("sham_seed", 0)), int(ours.get("sham", 0))
    sham, asked = None, profile
    if layout is not None:
        try:
            profile.check(layout)
        except ProfileError as error:
            raise MoteError(f"model_args: {error}") from None
    if number:
        if layout is None:
            raise MoteError(
                f"model_args: sham={number}: which experts '{name}' has is not known here, and the profile's file does"
                " not say it; name the model by its folder, or take a profile of a run."
            )
        sham = Sham(profile.digest, number, kind, seed)
        asked = sham_profiles(profile, layout, kind, number, seed, source)[-1]
    return Arguments(
        name=name,
        profile=asked,
        sham=sham,
        seed=int(ours.get("seed", 0)),
        markers=named_markers(ours.get("markers", "think")),
        prompt_opens=bool(ours.get("prompt_opens", False)),
        template=dict(ours.get("template", {})),
        model=digest,
        server=values,
    )


def unlabelled(name: str) -> str:
    """Return a model's name without the label that a log has it under: Inspect looks models up by their logs' names."""
    found = _LABELLED.fullmatch(name)
    return found[1] if found else name


def _model(name: str, url: str | None, profile: Profile) -> tuple[ModelLayout | None, str]:
    """The layout of the model's experts, as far as it is known here, and the digest of its files if they are here."""
    if url is not None:
        return profile.model, ""
    try:
        source = _resolved(name)
    except MoteError as error:
        raise MoteError(str(error).replace("model.path ", "model ")) from None
    return source.layout, digest_of(source.files)


@cache
def _resolved(name: str) -> ModelSource:
    """A model that was found; its files are read once, however many profiles it has."""
    return resolve_model(name)
