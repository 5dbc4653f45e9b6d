from __future__ import annotations

import pytest

from mote.judges import LANGUAGE_JUDGE, UNSCORED, label_reasoning_language

ENGLISH = "Okay, so I need to add 3 and 5. The sum of 3 and 5 is 8."
CHINESE = "好的，我需要计算3加5。3和5的和是8。"


@pytest.mark.parametrize(
    ("raw", "reason", "label"),
    [
        (f"{ENGLISH}</think>8", "stop", "english"),
        (f"{CHINESE}</think>8", "stop", "chinese"),
        # The language of the answer says nothing about that of the reasoning.
        (f"{ENGLISH}</think>3加5等于8。", "stop", "english"),
        (f"{CHINESE}</think>3 plus 5 is equal to 8.", "stop", "chinese"),
        (f"{CHINESE} {ENGLISH}</think>8", "stop", "mixed"),
        ("</think>3 plus 5 is equal to 8.", "stop", "none"),
        ("3 + 5 = 8</think>It is 8.", "stop", "none"),
        # Cut off after the reasoning its language is known; inside it, more could come.
        (f"{CHINESE}</think>3加5", "length", "chinese"),
        (CHINESE, "length", "TRUNCATED"),
        (CHINESE, "stop", "UNSCORED"),
        (f"{ENGLISH}</think>8", "abort", "UNSCORED"),
        ("sum of " * 30 + "</think>8", "stop", "DEGENERATE"),
    ],
)
def test_the_language_of_the_reasoning_alone_decides(raw: str, reason: str, label: str) -> None:
    found = label_reasoning_language(raw, finish_reason=reason, prompt_opens=True)
    assert (found.label, found.judge) == (label, LANGUAGE_JUDGE)
    assert all(raw[one.start : one.end].startswith(one.span.removesuffix("…")) for one in found.evidence)


def test_the_evidence_is_the_reasoning_with_its_share_of_chinese() -> None:
    raw = f" {CHINESE}</think>8"
    (found,) = label_reasoning_language(raw, finish_reason="stop", prompt_opens=True).evidence
    assert (found.rule, raw[found.start : found.end]) == ("chinese-share-1.00", CHINESE)


def test_nothing_has_no_language() -> None:
    assert label_reasoning_language("", finish_reason="stop").label == UNSCORED
