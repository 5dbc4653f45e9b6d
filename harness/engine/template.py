"""Arguments of a chat template, such as ``enable_thinking``: whether the template knows them.

Jinja passes over a variable that a template never reads, so a misspelt argument would change nothing and say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, TemplateError, meta

from mote.harness.errors import MoteError, nearest

_GIVEN = frozenset({"messages", "add_generation_prompt", "bos_token", "eos_token", "raise_exception", "strftime_now"})


def check_template(tokenizer: Any, template: Mapping[str, Any]) -> None:
    """Raise MoteError for an argument that the tokenizer's chat template never reads, with the nearest that it does."""
    text = getattr(tokenizer, "chat_template", None)
    if isinstance(text, Mapping):
        text = text.get("default")
    for name in template:
        if not isinstance(text, str):
            raise MoteError(f"model.template.{name}: the model's tokenizer has no chat template that could read it.")
        if not re.search(rf"(?<![\w.'\"]){re.escape(name)}\b", text):
            hint = nearest(name, _arguments(text))
            raise MoteError(f"model.template: the model's chat template reads no argument '{name}'.{hint}")


def _arguments(text: str) -> set[str]:
    """The variables that a template reads and does not set; none where it uses tags that plain Jinja does not have."""
    reader = Environment(extensions=["jinja2.ext.loopcontrols"])  # noqa: S701 - nothing is rendered
    try:
        return meta.find_undeclared_variables(reader.parse(text)) - _GIVEN
    except TemplateError:
        return set()
