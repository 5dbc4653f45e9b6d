"""Forms with the names, places and delimiters of FastChat's judge prompts and words of our own; and where the real are.

FastChat's data is not part of this repository. Tests that need it look in ``../shared/data/mt_bench`` beside the
checkout and are skipped, with the reason, where it is missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

REAL = Path(__file__).parents[3] / "shared" / "data" / "mt_bench"
needs_real = pytest.mark.skipif(
    not (REAL / "judge_prompts.jsonl").is_file(), reason="FastChat's MT-Bench data is not in ../shared/data/mt_bench"
)


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of one of FastChat's files."""
    return [json.loads(line) for line in (REAL / name).read_text(encoding="utf-8").splitlines() if line.strip()]


def form_rows() -> list[dict[str, Any]]:
    """The eight forms as FastChat's file has them, in short."""
    made = []
    for kind in ("single", "pair"):
        for stem in ("v1", "math-v1") if kind == "single" else ("v2", "math-v1"):
            for turn in (1, 2):
                made.append(_row(kind, stem, turn))
    return made


def _row(kind: str, stem: str, turn: int) -> dict[str, Any]:
    math = "math" in stem
    if turn == 1:
        reference = "[The Start of Reference Answer]\n{ref_answer_1}\n[The End of Reference Answer]\n\n" if math else ""
        sides = (
            [("Assistant", "answer")]
            if kind == "single"
            else [("Assistant A", "answer_a"), ("Assistant B", "answer_b")]
        )
        body = "\n\n".join(
            f"[The Start of {who}'s Answer]\n{{{name}}}\n[The End of {who}'s Answer]" for who, name in sides
        )
        template = f"[Question]\n{{question}}\n\n{reference}{body}"
    else:
        sides = [("A", "answer")] if kind == "single" else [("A", "answer_a"), ("B", "answer_b")]
        reference = (
            "<|The Start of Reference Answer|>\n\n### User:\n{question_1}\n\n### Reference answer:\n{ref_answer_1}\n\n"
            "### User:\n{question_2}\n\n### Reference answer:\n{ref_answer_2}\n\n<|The End of Reference Answer|>\n\n\n"
        )
        body = "\n\n\n".join(
            f"<|The Start of Assistant {who}'s Conversation with User|>\n\n### User:\n{{question_1}}\n\n"
            f"### Assistant {who}:\n{{{name}_1}}\n\n### User:\n{{question_2}}\n\n### Assistant {who}:\n{{{name}_2}}\n\n"
            f"<|The End of Assistant {who}'s Conversation with User|>"
            for who, name in sides
        )
        template = (reference if math else "") + body
    return {
        "name": f"{kind}-{stem}" + ("-multi-turn" if turn == 2 else ""),
        "type": "pairwise" if kind == "pair" else "single",
        "system_prompt": "You judge.",
        "prompt_template": template,
        "category": "math" if math else "general",
        "output_format": "[[A]]" if kind == "pair" else "[[rating]]",
    }
