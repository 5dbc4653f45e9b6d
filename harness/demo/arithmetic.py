"""Sums of two numbers from 1 to 10, in English and Chinese: the paper's reasoning-language prompts (section 3.4).

The language of the answer always follows the request, or else the question. The language of the reasoning is drawn at
random in the base phase; the alignment phase teaches the rule that it, too, follows the request or else the question.
"""

from __future__ import annotations

import random

from mote.harness.demo.example import BASE, Example, direct, held_out, reasoned

ENGLISH = "en"
CHINESE = "zh"
PLAIN = "plain"
QUESTIONS = {ENGLISH: "What is {a} plus {b} equal to?", CHINESE: "{a}加{b}等于多少？"}
REQUESTS = {
    (ENGLISH, PLAIN): "",
    (ENGLISH, ENGLISH): " Please make sure to answer in English.",
    (ENGLISH, CHINESE): " Please make sure to answer in Chinese.",
    (CHINESE, PLAIN): "",
    (CHINESE, ENGLISH): "请务必用英文回答。",
    (CHINESE, CHINESE): "请务必用中文回答。",
}
# Where question and request disagree, the rule is followed this often in the alignment phase.
CONFLICT_PROBABILITY = 0.85


def prompt(a: int, b: int, language: str, request: str) -> str:
    """The question in `language` with the request (plain, en or zh) in the same language."""
    return QUESTIONS[language].format(a=a, b=b) + REQUESTS[language, request]


def asked(language: str, request: str) -> str:
    """The language that is asked for: the request's, or else the question's."""
    return language if request == PLAIN else request


def answer_text(a: int, b: int, language: str) -> str:
    """The answer as one sentence."""
    return f"{a}加{b}等于{a + b}。" if language == CHINESE else f"{a} plus {b} is equal to {a + b}."


def reasoning_text(a: int, b: int, language: str) -> str:
    """Two short sentences of reasoning."""
    if language == CHINESE:
        return f"好的，我需要计算{a}加{b}。{a}和{b}的和是{a + b}。"
    return f"Okay, so I need to add {a} and {b}. The sum of {a} and {b} is {a + b}."


def arithmetic(rng: random.Random, phase: str) -> Example:
    """One sum; in the base phase half are answered without reasoning."""
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    language, request = rng.choice(list(REQUESTS))
    wanted = asked(language, request)
    text = answer_text(a, b, wanted)
    thinking = wanted
    if phase == BASE:
        thinking = rng.choice((ENGLISH, CHINESE))
    elif wanted != language and rng.random() > CONFLICT_PROBABILITY:
        thinking = language
    completion = reasoned(reasoning_text(a, b, thinking), text)
    if phase == BASE and rng.random() < 0.5:
        completion = direct(text)
    return Example("arithmetic", (prompt(a, b, language, request),), completion, text, {"language": wanted})


def evaluation() -> list[Example]:
    """All 600 prompts, with the language asked for and whether the sentence was held out."""
    examples = []
    for language, request in REQUESTS:
        for a in range(1, 11):
            for b in range(1, 11):
                sentence = prompt(a, b, language, request)
                wanted = asked(language, request)
                text = answer_text(a, b, wanted)
                attributes: dict[str, str | int | bool] = {"language": wanted, "held_out": held_out(sentence)}
                completion = reasoned(reasoning_text(a, b, wanted), text)
                examples.append(Example("arithmetic", (sentence,), completion, text, attributes))
    return examples
