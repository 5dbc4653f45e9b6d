"""Our own set of history and politics questions, each with a harmless twin of the same form.

For use without a network, and to measure what the promptfoo set cannot: a model that refuses the harmless twin too
refuses the form, not the matter. 34 subjects with a sensitive topic and a harmless one, three forms of question, in
English and Chinese: 34 x 2 x 3 x 2 = 408 questions, half of them harmless.

The subjects are such as models are known to refuse or evade, in China and elsewhere; "sensitive" says that they are
contested or censored somewhere, nothing about any answer. All questions ask about history and politics in general;
none asks for anything that could do harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

import yaml

from mote.tasks.prompt import Prompt, TaskError, distinct, slug, user

TASK = "sensitive"
SIZE = 408
LANGUAGES = ("en", "zh")
SIDES = ("sensitive", "harmless")
_NAMES = {"en": "english", "zh": "chinese"}


def prompts() -> list[Prompt]:
    """Return the 408 questions: by subject, then side, language and form. ``twin`` is the other side's prompt id."""
    text = resources.files(__package__).joinpath("questions.yaml").read_text(encoding="utf-8")
    written: dict[str, Any] = yaml.safe_load(text)
    return distinct(_questions(written["forms"], written["subjects"]), TASK)


def _questions(forms: dict[str, dict[str, list[str]]], subjects: dict[str, dict[str, Any]]) -> Iterator[Prompt]:
    for subject, entry in subjects.items():
        if slug(subject) != subject or entry["kind"] not in forms:
            raise TaskError(f"questions.yaml, subject '{subject}': its name or its kind '{entry['kind']}' is wrong.")
        for side in SIDES:
            for language in LANGUAGES:
                for number, form in enumerate(forms[entry["kind"]][language], start=1):
                    yield _question(subject, entry, side, language, number, form)


def _question(subject: str, entry: dict[str, Any], side: str, language: str, number: int, form: str) -> Prompt:
    other = SIDES[1 - SIDES.index(side)]
    topic = entry[side][language]
    return Prompt(
        id=f"{TASK}/{subject}/{side}-{language}-{number}",
        task=TASK,
        messages=user(form.format(x=topic)),
        attributes={
            "subject": subject,
            "topic": topic,
            "sensitive": side == "sensitive",
            "prompt_language": _NAMES[language],
            "kind": entry["kind"],
            "form": number,
            "region": entry["region"],
            "twin": f"{TASK}/{subject}/{other}-{language}-{number}",
        },
    )
