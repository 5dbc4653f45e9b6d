"""vLLM's options, by their own names: checked before anything is loaded, and the engine made of them.

A wrong name, a wrong value, or a vLLM that isn't there is one line. Nothing is renamed, and only two defaults are ours:
one process, and prompts kept whole where a CPU's generators can't take noise back.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from mote.harness.errors import MoteError, nearest
from mote.harness.recipe.strict import yaml_value
from mote.harness.secrets import redacted

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

_RESERVED = {"model": "the model's path", "seed": "the sampling's seed", "tokenizer": "the model's path"}


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """Return the options that ``--engine name=value`` gave; values are YAML. Raises MoteError for anything else."""
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise MoteError(f"--engine {text}: write name=value, for instance --engine dtype=float32.")
        found[name] = yaml_value(value, f"--engine {name}")
    # What is a secret among them is known as one from now on.
    redacted(found)
    return found


CPU_CACHE_BYTES: Final = 4 << 30
"""The KV cache on a CPU where no option says how large it is: this, or a quarter of the memory that is free."""


def engine_arguments(path: str, given: Mapping[str, Any], seed: int = 0) -> EngineArgs:
    """Return vLLM's engine arguments for a model and options by vLLM's names; nothing is loaded yet.

    Raises MoteError for an option that vLLM doesn't know, a value that it doesn't take, and a missing vLLM.
    """
    # One process: answers are stored as they come, and one Ctrl-C reaches everything.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm.engine.arg_utils import EngineArgs
    except ImportError as error:
        raise MoteError(
            f'no vLLM here ({error}): pip install ".[vllm]" for a GPU, or `make .venv` for a CPU.'
        ) from None
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    for name in given:
        if name in _RESERVED:
            raise MoteError(f"engine option '{name}' is set by {_RESERVED[name]}.")
        if name not in known:
            raise MoteError(f"'{name}' is not an option of vLLM's engine.{nearest(name, known)}")
    options = {**_for_this_platform(given), **given}
    # vLLM writes its options into its log, which lies in the run's folder; the hub's client looks here too.
    if isinstance(options.get("hf_token"), str):
        os.environ["HF_TOKEN"] = options.pop("hf_token")
    try:
        arguments = EngineArgs(model=path, seed=seed, **options)
        arguments.create_engine_config()
    # vLLM raises ValueError, pydantic's ValidationError (a ValueError), TypeError and OSError for what a user can mend.
    except (ValueError, TypeError, OSError) as error:
        raise MoteError(f"vLLM does not take these engine options: {_reason(error)}") from None
    return arguments


def start_llm(arguments: EngineArgs, log: Path) -> LLM:
    """Load the model; raise MoteError, naming the file that has vLLM's own words, where vLLM can't."""
    from vllm import LLM

    try:
        return LLM(**{field.name: getattr(arguments, field.name) for field in _set_fields(arguments)})
    except Exception as error:
        raise MoteError(f"vLLM could not start with {arguments.model}: {_reason(error)} Its log: {log}") from error


def _for_this_platform(options: Mapping[str, Any]) -> dict[str, Any]:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    # vLLM 0.32 takes back the noise that a seeded request drew in an unfinished chunk of its prompt by the generator's
    # offset, which CPU generators do not have: RuntimeError "CPU Generator does not use offset".
    if options.get("enable_chunked_prefill"):
        raise MoteError(
            "engine option 'enable_chunked_prefill': vLLM on a CPU can't cut the prompts of requests that have a seed"
            " of their own, as every request here has; leave it out."
        )
    return {"enable_chunked_prefill": False, **_cache_size(options)}


def _cache_size(options: Mapping[str, Any]) -> dict[str, int]:
    """Return the size of the KV cache on a CPU, where nothing says it.

    vLLM would take 92% of the machine's memory, and does not start where other programs hold more than the rest.
    """
    if options.keys() & {"kv_cache_memory_bytes", "gpu_memory_utilization"} or "VLLM_CPU_KVCACHE_SPACE" in os.environ:
        return {}
    import psutil  # type: ignore[import-untyped]

    return {"kv_cache_memory_bytes": min(CPU_CACHE_BYTES, psutil.virtual_memory().available // 4)}


def _set_fields(arguments: EngineArgs) -> Iterable[dataclasses.Field[Any]]:
    """Yield the fields that differ from vLLM's defaults: LLM() sets a few of its own that must not be undone."""
    for field in dataclasses.fields(arguments):
        if field.default is not dataclasses.MISSING and getattr(arguments, field.name) == field.default:
            continue
        if (
            field.default_factory is not dataclasses.MISSING
            and getattr(arguments, field.name) == field.default_factory()
        ):
            continue
        yield field


def _reason(error: BaseException) -> str:
    """Return what vLLM says in one line, with the option's name where pydantic knows it."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = str(first["loc"][0]) if first["loc"] else ""
        value = f", not {first['input']!r}" if place else ""
        return f"{place}: {first['msg']}{value}".removeprefix(": ").removeprefix("Value error, ")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
