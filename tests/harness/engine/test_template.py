from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from mote.harness.engine.template import check_template
from mote.harness.engine.vllm import TokenEngine
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import SamplingPart

# The end of Qwen3's template, which closes the reasoning in the prompt where thinking is switched off.
QWEN3 = (
    "{%- for message in messages %}{{ message.content }}{%- endfor %}"
    "{%- if add_generation_prompt %}assistant\n"
    "{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{%- endif %}{%- endif %}"
)


class Rendering:
    """A tokenizer of which only the chat template is real."""

    chat_template: Any = QWEN3

    def apply_chat_template(self, messages: list[dict[str, str]], **given: Any) -> str:
        from jinja2 import Environment

        assert given.pop("tokenize") is False
        return Environment().from_string(self.chat_template).render(messages=messages, **given)  # noqa: S701

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return list(text.encode())


class Silent(TokenEngine):
    def _drive(self, calls: Any) -> Any:
        raise AssertionError("nothing is asked here")


def rendered(**template: Any) -> str:
    engine = Silent(Rendering(), 100, SamplingPart(), "<think>", template)
    return bytes(engine._prompt("p", [{"role": "user", "content": "x"}])).decode()


def test_arguments_reach_the_chat_template() -> None:
    assert rendered() == "xassistant"
    assert rendered(enable_thinking=True) == "xassistant"
    assert rendered(enable_thinking=False).rstrip().endswith("</think>")


@pytest.mark.parametrize(
    ("name", "template", "said"),
    [
        ("enable_thinkng", QWEN3, "reads no argument 'enable_thinkng'. Did you mean 'enable_thinking'?"),
        ("thinking", QWEN3, "reads no argument 'thinking'"),
        ("content", QWEN3, "reads no argument 'content'"),
        ("enable_thinking", None, "has no chat template that could read it"),
        ("enable", "{% generation %}{{ enabled }}{% endgeneration %}", "reads no argument 'enable'."),
    ],
)
def test_an_argument_that_the_template_never_reads_is_refused(name: str, template: Any, said: str) -> None:
    with pytest.raises(MoteError, match=re.escape(said)):
        check_template(SimpleNamespace(chat_template=template), {name: False})


def test_of_several_templates_the_default_is_asked() -> None:
    check_template(SimpleNamespace(chat_template={"default": QWEN3, "tool_use": ""}), {"enable_thinking": False})
