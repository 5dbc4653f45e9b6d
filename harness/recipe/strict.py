"""Strict YAML: keys that are known, named once, and errors of one line with the nearest right name."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mote import reading
from mote.harness.errors import MoteError, nearest
from mote.harness.secrets import is_secret, redacted

_SHOWN: Final = 80


class Part(BaseModel):
    """A part of something that a user writes: no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def absent(value: Any) -> bool:
    """Whether a key is left out of the resolved recipe, so that recipes older than the key keep their digests."""
    return value is None


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("should be a number")
    return value


Number = Annotated[float, Field(strict=False), BeforeValidator(_number)]
"""A float that may be written as a whole number, and not as true, yes or a text."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]


def read_yaml(path: Path) -> Any:
    """Read a YAML file; raise MoteError where it is none, as ``mote.reading`` does."""
    try:
        return reading.read_yaml(path)
    except reading.UnreadableError as error:
        raise MoteError(f"{path} is not a YAML recipe: it {error}") from None


def yaml_value(text: str, option: str) -> Any:
    """Return the value of an option's text, which is YAML; raise MoteError, naming the option, for anything else."""
    try:
        return reading.parse_yaml(text)
    except reading.UnreadableError as error:
        raise MoteError(
            f"{option}: '{'***' if is_secret(option) else text[:80]}' is not a YAML value: it {error}."
        ) from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first thing that is wrong, in one line: its place, and the nearest right name."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return f"'{place}' is not a part of a recipe.{nearest(str(first['loc'][-1]), known)}{more}"
    if first["type"] == "missing":
        return f"'{place}' is missing.{more}"
    message = first["msg"].removeprefix("Value error, ")
    shown = (
        ""
        if first["type"] == "value_error"
        else f", not {'***' if any(is_secret(str(one)) for one in first['loc']) else _shown(first['input'])}"
    )
    where = f"'{place}': " if place else ""
    end = "" if f"{message}{shown}".endswith((".", "?")) else "."
    return f"{where}{message}{shown}{end}{more}"


def _shown(value: Any) -> str:
    text = repr(redacted(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    at: Any = model
    for part in location:
        if isinstance(at, type) and issubclass(at, BaseModel):
            field = at.model_fields.get(str(part))
            at = field.annotation if field is not None else at
        else:
            # A list's number or a mapping's key: on to what it holds.
            at = get_args(at)[-1] if get_args(at) else at
        at = _model_within(at)
    return list(at.model_fields) if isinstance(at, type) and issubclass(at, BaseModel) else []


def _model_within(annotation: Any) -> Any:
    """Return the model of ``X | None`` and ``Annotated[X, ...]``; anything else as it is."""
    if get_origin(annotation) is Annotated:
        return _model_within(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        models = [item for item in get_args(annotation) if isinstance(item, type) and issubclass(item, BaseModel)]
        return models[0] if models else next(item for item in get_args(annotation) if item is not type(None))
    return annotation
