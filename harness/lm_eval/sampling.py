"""From lm_eval's ``generation_kwargs`` to vLLM's sampling parameters: by name, nothing dropped, nothing guessed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from mote.harness.errors import MoteError, nearest

_REFUSED: Mapping[str, str] = {
    "n": "lm_eval asks several times with the task's repeats",
    "seed": "each request has its own, made of model_args seed= and its prompt",
    "output_kind": "answers are taken when they are finished",
    "prompt_logprobs": "it is for log-likelihoods, which have no generation_kwargs",
    "detokenize": "without text there is nothing to score",
}


class Generation(NamedTuple):
    """The sampling of a text: keyword arguments of SamplingParams, and the strings that the text ends before."""

    params: dict[str, Any]
    until: list[str]


def generation(given: Mapping[str, Any], max_gen_toks: int) -> Generation:
    """Return lm_eval's ``generation_kwargs`` in vLLM's words; ``max_gen_toks`` where they don't give a budget.

    Without ``do_sample`` a temperature above 0 samples; with ``do_sample: false`` it is 0, as everywhere in lm_eval.
    Raises MoteError for a name that vLLM's SamplingParams doesn't have.
    """
    from lm_eval.models.utils import normalize_gen_kwargs  # type: ignore[import-untyped]

    values: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), default_max_gen_toks=max_gen_toks))
    values.pop("do_sample", None)
    until = [str(stop) for stop in values.pop("until") if stop]
    budget = int(values.pop("max_gen_toks"))
    if budget < 1:
        raise MoteError(f"generation_kwargs: max_gen_toks={budget} must be a whole number from 1.")
    _check_names(values)
    extra = values.get("extra_args") or {}
    if not isinstance(extra, Mapping):
        raise MoteError(f"generation_kwargs: extra_args={extra!r} must be an object.")
    if "mote" in extra:
        raise MoteError("generation_kwargs: extra_args.mote is set by the model; name the profile in model_args.")
    values.setdefault("temperature", 0.0)
    # The markers of reasoning are special tokens in some models, and raw text is to be raw.
    values.setdefault("skip_special_tokens", False)
    return Generation({**values, "max_tokens": budget}, until)


def cut_at(text: str, until: list[str]) -> str:
    """Return the text up to the first of the strings in ``until``."""
    ends = [place for stop in until if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def _check_names(values: Mapping[str, Any]) -> None:
    from vllm import SamplingParams

    known = {name for name in inspect.signature(SamplingParams).parameters if not name.startswith("_")}
    for name in values:
        if name in _REFUSED:
            raise MoteError(f"generation_kwargs: {name} is not taken: {_REFUSED[name]}.")
        if name not in known:
            near = nearest(name, (known - set(_REFUSED)) | {"until", "max_gen_toks", "do_sample"})
            raise MoteError(f"generation_kwargs: {name} is not a sampling parameter of vLLM.{near}")
