"""The JSON schema of recipes, for editors: what ``Recipe`` takes, with the short forms that it writes out."""

from __future__ import annotations

from typing import Any

from mote.harness.recipe.schema import Recipe

_WORDS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_VALUE = {"type": ["string", "number", "boolean"]}


def recipe_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12). What depends on two values at once is for ``mote recipe check``."""
    schema = Recipe.model_json_schema()
    parts = schema["$defs"]
    # `markers: harmony`, `llm: self`, patterns by class, values as YAML has them: written out before they are checked.
    _also(parts["ModelPart"]["properties"], "markers", {"type": "string"})
    _also(parts["JudgesPart"]["properties"], "llm", {"const": "self"})
    _also(parts["ClassesPart"]["properties"], "patterns", {"type": "object", "additionalProperties": _WORDS})
    # Either kind of classes, as the part itself checks.
    parts["ClassesPart"]["anyOf"] = [{"required": ["patterns", "otherwise"]}, {"required": ["function", "names"]}]
    parts["ContrastPart"]["properties"]["value"] |= _VALUE
    _also(parts["ContrastPart"]["properties"], "others", {"type": "array", "items": _VALUE})
    # A file of prompts names its task.
    parts["TaskPart"]["required"] = []
    parts["TaskPart"]["anyOf"] = [{"required": ["name"]}, {"required": ["file"]}, {"required": ["hub"]}]
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A recipe of MoTE Harness"}


def _also(properties: dict[str, Any], name: str, short: dict[str, Any]) -> None:
    """Have a property take a short form as well."""
    given = properties[name]
    about = {key: given.pop(key) for key in ("default", "description", "title") if key in given}
    properties[name] = {"anyOf": [*(given.pop("anyOf", None) or [given]), short], **about}
