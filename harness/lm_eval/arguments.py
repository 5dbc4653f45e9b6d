"""``--model_args`` of the model ``mote``, checked before anything is loaded: ours, and vLLM's engine options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mote.harness.compare.model_args import check_kinds, named_markers
from mote.harness.compare.run_answers import read_profile
from mote.harness.engine.model import ModelSource, resolve_model
from mote.harness.engine.options import engine_arguments
from mote.harness.errors import MoteError, nearest
from mote.judges import Markers
from mote.patches import EMPTY_PROFILE, Profile, ProfileError

if TYPE_CHECKING:
    from vllm.engine.arg_utils import EngineArgs

_OURS: Mapping[str, str] = {
    "pretrained": "a string",
    "profile": "a string",
    "seed": "a whole number from 0",
    "markers": "a string",
    "max_gen_toks": "a whole number from 1",
    "add_bos_token": "True or False",
    "answer_only": "True or False",
    "enable_thinking": "True or False",
    "chat_template_args": "an object",
}
_ELSEWHERE: Mapping[str, str] = {
    "model": "name the model with pretrained=",
    "tokenizer": "the model's own tokenizer is used",
    "logprobs_mode": "log-likelihoods are those of the untouched distribution",
    "think_end_token": "it would drop the reasoning from the log; answer_only=True scores the answer alone and keeps"
    " the whole text in the log",
    "max_length": "write vLLM's name: max_model_len=",
}
_IGNORED = ("batch_size", "max_batch_size", "device")
"""lm_eval always passes these on; vLLM batches continuously and chooses its device itself."""


class Arguments(NamedTuple):
    """The checked arguments of the model; ``engine`` are the checked arguments of vLLM."""

    source: ModelSource
    profile: Profile
    seed: int
    markers: Markers
    max_gen_toks: int
    add_bos_token: bool | None
    answer_only: bool
    template: dict[str, Any]
    engine: EngineArgs


def check_arguments(given: Mapping[str, Any]) -> Arguments:
    """Return the arguments as they were meant; loads no weights.

    Raises MoteError, one line, for an unknown argument, a value of the wrong kind, a model or profile that isn't there,
    a profile of another model, and whatever vLLM doesn't take.
    """
    values = {name: value for name, value in given.items() if value is not None and name not in _IGNORED}
    _check_names(values)
    check_kinds(values, _OURS)
    ours = {name: values.pop(name) for name in _OURS if name in values}
    if "pretrained" not in ours:
        raise MoteError("model_args: pretrained= is missing: demo, a folder, or a Hugging Face id.")
    source = _source(ours["pretrained"])
    profile = read_profile(ours.get("profile", EMPTY_PROFILE.name), "model_args: profile=")
    try:
        profile.check(source.layout)
    except ProfileError as error:
        raise MoteError(f"model_args: {error}") from None
    template = dict(ours.get("chat_template_args", {}))
    if "enable_thinking" in ours:
        template["enable_thinking"] = ours["enable_thinking"]
    seed = ours.get("seed", 0)
    return Arguments(
        source=source,
        profile=profile,
        seed=seed,
        markers=named_markers(ours.get("markers", "think")),
        max_gen_toks=ours.get("max_gen_toks", 256),
        add_bos_token=ours.get("add_bos_token"),
        answer_only=ours.get("answer_only", False),
        template=template,
        engine=_engine(source.path, values, seed),
    )


def _check_names(values: Mapping[str, Any]) -> None:
    try:
        from vllm.engine.arg_utils import EngineArgs
    except ImportError as error:
        raise MoteError(
            f'no vLLM here ({error}): pip install ".[vllm]" for a GPU, or `make .venv` for a CPU.'
        ) from None
    known = {field.name for field in dataclasses.fields(EngineArgs)} - set(_ELSEWHERE) | set(_OURS)
    for name in values:
        if name in _ELSEWHERE:
            raise MoteError(f"model_args: {name} is not taken: {_ELSEWHERE[name]}.")
        if name not in known:
            raise MoteError(f"model_args: {name} is neither ours nor an option of vLLM's engine.{nearest(name, known)}")


def _source(path: str) -> ModelSource:
    try:
        return resolve_model(path)
    except MoteError as error:
        text = str(error).replace("model.path ", "pretrained=")
        raise MoteError(f"model_args: {text}") from None


def _engine(path: str, options: dict[str, Any], seed: int) -> EngineArgs:
    try:
        return engine_arguments(path, options, seed)
    except MoteError as error:
        raise MoteError(f"model_args: {error}") from None
