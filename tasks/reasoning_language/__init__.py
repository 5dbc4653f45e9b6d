"""The 600 sums of the paper's section 3.4: in which language does the model reason, and can that be switched?

"What is {a} plus {b} equal to?" for all pairs from 1 to 10, as it stands or with "Please make sure to answer in
English." or "... Chinese.", and all of it once more in Chinese: 100 x 3 x 2. The Chinese wording is ours; the paper
says that it asked "the same questions in Chinese" and prints none.

Three languages belong to a prompt, and they are kept apart: ``prompt_language`` (the words it is in),
``asked_language`` (the request's, or else the prompt's: what the answer should be in), and ``paper_language``, our
reading of which kinds made DeepSeek-R1 reason in Chinese. The paper counts 400 prompts in English and 200 in Chinese;
with six kinds of 100 these are two kinds, and the two in Chinese that do not ask for English are the likeliest. What a
model does is a property of its baseline, to be measured and not assumed.
"""

from __future__ import annotations

from mote.tasks.prompt import Prompt, distinct, user

TASK = "reasoning_language"
SIZE = 600
NUMBERS = range(1, 11)

ENGLISH = "english"
CHINESE = "chinese"
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


def asked_language(prompt_language: str, request: str) -> str:
    """Return the language that is asked for: the request's, or else the prompt's."""
    return prompt_language if request == PLAIN else request


def paper_language(prompt_language: str, request: str) -> str:
    """Return the language in which R1 reasons about this kind of prompt, by our reading of the paper's 400 and 200."""
    return CHINESE if prompt_language == CHINESE and request != ENGLISH else ENGLISH


def prompt(a: int, b: int, prompt_language: str, request: str) -> Prompt:
    """Return the sum of ``a`` and ``b`` as a prompt, under an id such as ``reasoning_language/chinese-plain/3-5``."""
    return Prompt(
        id=f"{TASK}/{prompt_language}-{request}/{a}-{b}",
        task=TASK,
        messages=user(QUESTIONS[prompt_language].format(a=a, b=b) + REQUESTS[prompt_language, request]),
        attributes={
            "number_a": a,
            "number_b": b,
            "sum": a + b,
            "kind": f"{prompt_language}-{request}",
            "prompt_language": prompt_language,
            "request": request,
            "asked_language": asked_language(prompt_language, request),
            "paper_language": paper_language(prompt_language, request),
        },
    )


def prompts() -> list[Prompt]:
    """Return all 600 prompts, the six kinds in turn, 100 sums each."""
    return distinct((prompt(a, b, *kind) for kind in REQUESTS for a in NUMBERS for b in NUMBERS), TASK)
