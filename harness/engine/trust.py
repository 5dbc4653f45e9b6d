"""What of a run's manifest may decide how its model is asked again, and what only its user may say.

A run's folder may come from a stranger. Its manifest names a model, options of the engine and servers; some options
name code that vLLM imports (``trust_remote_code``, ``worker_cls``, ``logits_processors``, ``hf_overrides``, ...), and a
server's address is one that prompts and a key are sent to. So the options that are taken from a manifest are listed
here by name, and have plain values; every other one, a model that would be fetched or that lies in the run's own
folder, all servers, and a function that classes answers are named on the command line by whoever runs the command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from mote.harness.errors import MoteError
from mote.harness.recipe.own_function import function_digest, load_function, parse_function
from mote.harness.recipe.schema import Recipe
from mote.judges.functions import Classify

SAFE: Final = frozenset(
    {
        *("async_scheduling", "block_size", "cpu_offload_gb", "data_parallel_size", "disable_cascade_attn"),
        *("disable_custom_all_reduce", "disable_log_stats", "disable_sliding_window", "dtype"),
        *("enable_chunked_prefill", "enable_eplb", "enable_expert_parallel", "enable_prefix_caching", "enforce_eager"),
        *("gpu_memory_utilization", "kv_cache_dtype", "kv_cache_memory_bytes", "max_logprobs", "max_model_len"),
        *("max_num_batched_tokens", "max_num_seqs", "num_gpu_blocks_override", "pipeline_parallel_size"),
        *("quantization", "tensor_parallel_size"),
    }
)
"""Options of vLLM's engine that say how much and how fast; none of them names code, a file or an address."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class Own(NamedTuple):
    """What the user of a command says of a run's model: its path, engine options, servers and the variable of a key.

    The ``function`` (``FILE.py:NAME``) gives the run's classes, and is code.
    """

    model: str | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    servers: tuple[str, ...] = ()
    key_env: str | None = None
    function: str | None = None


NOTHING_OWN: Final = Own()


def trusted_recipe(recipe: Recipe, folder: Path, own: Own = NOTHING_OWN) -> Recipe:
    """Return a run's recipe with what its user says in place of what is not taken from a manifest.

    Raises MoteError, naming the options to give, where the run needs more than its user has said.
    """
    model = recipe.model
    path = own.model or _path(model.path, folder)
    if model.servers is not None:
        if not own.servers:
            raise MoteError(
                f"{folder} was asked of servers, whose addresses are not taken from a run's folder: name yours with"
                " --server http://..., and the variable of their key with --key-env."
            )
        servers = model.servers.model_copy(update={"urls": list(own.servers), "key_env": own.key_env})
        return _with(recipe, path=path, servers=_checked(servers))
    if own.servers:
        raise MoteError(f"--server: {folder} was made by vLLM in one process, and is asked so.")
    unsafe = sorted(name for name, value in model.options.items() if not is_safe(name, value))
    missing = [name for name in unsafe if name not in own.options]
    if missing:
        shown = " ".join(f"--engine {name[:60]}=..." for name in missing[:5])
        raise MoteError(
            f"{folder} was made with engine options that can load code or reach elsewhere"
            f" ({', '.join(name[:60] for name in missing[:5])}): they are not taken from a run's folder. If you trust"
            f" the run and its model, give them yourself: {shown}"
        )
    kept = {name: value for name, value in model.options.items() if name not in unsafe}
    return _with(recipe, path=path, options={**kept, **own.options})


def trusted_function(recipe: Recipe, folder: Path, own: Own = NOTHING_OWN) -> Classify | None:
    """Return the function that its user names for the classes of a run; None where none is named, whatever it says.

    Raises MoteError where the run's classes are no function's, and where its code is not what labelled the run.
    """
    if own.function is None:
        return None
    classes = recipe.task.classes
    if classes is None or classes.function is None:
        raise MoteError(f"--function: the classes of {folder} are not given by a function.")
    try:
        named, ran = parse_function(own.function), parse_function(classes.function)
    except ValueError as error:
        raise MoteError(f"--function: {error}.") from None
    digest = function_digest(own.function)
    if (digest, named.name) != (classes.sha256, ran.name):
        raise MoteError(
            f"--function: {folder} was labelled by {ran.called} of the digest {str(classes.sha256)[:8]}, and"
            f" {own.function} is {named.called} of {digest[:8]}: its labels would not go with the run's."
        )
    return load_function(own.function, digest)


def is_safe(name: str, value: Any) -> bool:
    """Return whether an engine option is taken from a manifest: a known name, and a plain value."""
    return name in SAFE and (isinstance(value, bool | int | float) or bool(_PLAIN.fullmatch(str(value))))


def _path(path: str, folder: Path) -> str:
    if path == "demo":
        return path
    found = Path(path)
    if not found.is_dir():
        raise MoteError(
            f"{folder} names the model '{path[:120]}', which is no folder here; a run's folder does not decide what is"
            " fetched: say which model it is with --model."
        )
    real = found.resolve()
    if real.is_relative_to(folder.resolve()):
        raise MoteError(f"{folder} brings its own model ({path[:120]}): if you trust it, say so with --model.")
    if next(real.rglob("*.py"), None) is not None:
        raise MoteError(
            f"{folder} names the model '{path[:120]}', which brings code of its own: if you trust it, say so with"
            " --model."
        )
    return path


def _with(recipe: Recipe, **changed: Any) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=changed)})


def _checked(servers: Any) -> Any:
    from pydantic import ValidationError

    try:
        return type(servers).model_validate(servers.model_dump())
    except ValidationError as error:
        raise MoteError(f"--server: {error.errors()[0]['msg']}; write for instance http://127.0.0.1:8000/v1.") from None
