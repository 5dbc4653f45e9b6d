"""Turns of a prompt by its chat template, and two prompts aligned by them: one tokenizer, templates of three kinds."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.harness.engine.turns import Turns, pairs_by_role, turns_of
from mote.harness.errors import MoteError
from mote.harness.files import MODEL_DIR

Messages = list[dict[str, str]]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Llama's: a text before all turns, and an opening that stands for nothing but itself.
HEADED = "Today is a day. {% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant]"
TEMPLATES = (None, CHATML, HEADED)
# Single letters stand in the template's own text too; spaces at the ends are trimmed by some templates.
texts = st.text("aeiusr <|>\n1é漢😀", max_size=12) | st.sampled_from(
    ["user", "assistant", "system", "<|user|>", " Was it?\n", "What happened in Beijing in 1989?", ""]
)
roles = st.lists(st.sampled_from(["system", "user"]), min_size=1, max_size=4)


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL_DIR)


def render(messages: Any, template: str | None) -> str:
    return str(
        tokenizer().apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, chat_template=template
        )
    )


def turns(messages: Messages, template: str | None = None) -> Turns:
    return turns_of(tokenizer(), lambda given: render(given, template), messages)


def told(*turns: tuple[str, str]) -> Messages:
    return [{"role": role, "content": content} for role, content in turns]


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user"]), texts), min_size=1, max_size=4), st.sampled_from(TEMPLATES)
)
def test_parts_tile_the_prompt_and_hold_the_contents(said: list[tuple[str, str]], template: str | None) -> None:
    messages = told(*said)
    found = turns(messages, template)
    text = render(messages, template)
    assert list(found.ids) == tokenizer().encode(text, add_special_tokens=False)
    assert found.roles == tuple(role for role, _ in said)
    assert len(found.parts) == 2 * len(said) + 1
    ends = [0, *(part.stop for part in found.parts)]
    assert [part.start for part in found.parts] == ends[:-1]
    assert ends[-1] == len(found.ids)
    for part, (_, content) in zip(found.parts[1::2], said, strict=True):
        # Every word of the content is in its part, whatever a token at its ends holds besides.
        held = tokenizer().decode(found.ids[part.start : part.stop])
        assert content.strip() in held
        assert part.stop > part.start or not content.strip()


@given(roles, st.data(), st.sampled_from(TEMPLATES))
def test_by_role_templates_meet_templates_and_contents_contents(
    said: list[str], data: st.DataObject, template: str | None
) -> None:
    one, other = (turns(told(*((role, data.draw(texts)) for role in said)), template) for _ in range(2))
    try:
        pairs = pairs_by_role(one, other)
    except MoteError:
        # A tokenizer may join a template's blanks with a content's own; the demo's template has none.
        assert template is not None
        return
    back = pairs_by_role(other, one)
    assert (back.donor, back.receiver) == (pairs.receiver, pairs.donor)
    assert pairs.length == len(other.ids)
    assert len(pairs.donor) == len(pairs.receiver)
    met = dict(zip(pairs.receiver, pairs.donor, strict=True))
    assert list(met) == sorted(met)
    assert list(met.values()) == sorted(set(met.values()))
    for number, (mine, its) in enumerate(zip(one.parts, other.parts, strict=True)):
        within = [(met[at], at) for at in range(its.start, its.stop) if at in met]
        assert all(mine.start <= donor < mine.stop for donor, _ in within)
        assert all(mine.stop - donor == its.stop - at for donor, at in within)
        assert len(within) == min(mine.stop - mine.start, its.stop - its.start)
        if not number % 2:
            assert all(one.ids[donor] == other.ids[at] for donor, at in within)


@given(st.lists(st.tuples(st.just("user"), texts), min_size=1, max_size=3))
def test_a_prompt_aligns_with_itself_token_by_token(said: list[tuple[str, str]]) -> None:
    found = turns(told(*said))
    assert pairs_by_role(found, found)[:2] == (tuple(range(len(found.ids))),) * 2


def test_a_longer_content_loses_its_first_tokens_and_a_header_none() -> None:
    short, long = turns(told(("user", "Was it?"))), turns(told(("user", "Tell me this: was it?")))
    pairs = pairs_by_role(long, short)
    assert pairs.receiver == tuple(range(len(short.ids)))
    assert pairs.donor[0] == 0
    assert pairs.donor[1] == 1 + len(long.ids) - len(short.ids)


def test_what_does_not_align_is_refused() -> None:
    user, both = turns(told(("user", "a"))), turns(told(("system", "b"), ("user", "a")))
    with pytest.raises(MoteError, match=r"turn 1 is user in the donor's prompt and system in the receiver's: align fr"):
        pairs_by_role(user, both)
    with pytest.raises(MoteError, match="has 2 turns and the receiver's 1"):
        pairs_by_role(turns(told(("user", "a"), ("user", "a"))), user)
    with pytest.raises(MoteError, match="the chat template's tokens before turn 1 are not the same"):
        pairs_by_role(user, turns(told(("user", "a")), CHATML))
    assert pairs_by_role(user, turns(told(("user", "é"))))


@pytest.mark.parametrize(
    ("template", "said", "says"),
    [
        (
            "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
            "it is",
            "rewrites the content of turns, here user",
        ),
        ("{{ messages[0].content }}{{ messages[0].content }}", "it is", "does not write each message once"),
        ("Hello", "it is", "does not write each message once"),
        ("{{ messages[1].content }}{{ messages[0].content }}", "it is", "does not write each message once"),
        (
            "{{ messages[0].content }}{{ messages[1].content }}{% if 'it' in messages[0].content %}!{% endif %}",
            "it is",
            "writes more after",
        ),
    ],
)
def test_a_template_that_does_more_than_write_contents_is_refused(template: str, said: str, says: str) -> None:
    with pytest.raises(MoteError, match=says):
        turns(told(("user", said), ("user", said)), template)


def test_an_assistants_turn_of_which_the_template_drops_the_reasoning_is_refused() -> None:
    assert turns(told(("user", "a"), ("assistant", "b"), ("user", "c"))).roles == ("user", "assistant", "user")
    with pytest.raises(MoteError, match="rewrites the content of turns, here assistant"):
        turns(told(("user", "a"), ("assistant", "<think>\nno</think>b"), ("user", "c")))


def test_a_tokenizer_that_does_not_say_where_its_tokens_lie_is_refused() -> None:
    with pytest.raises(MoteError, match="does not say where its tokens lie in a text: align from the end"):
        turns_of(object(), lambda _: "", told(("user", "a")))
