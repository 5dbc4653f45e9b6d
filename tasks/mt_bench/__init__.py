"""MT-Bench's 80 two-turn questions, reference answers and judge prompts (arXiv 2306.05685), from FastChat.

The files are FastChat's at a pinned commit (Apache-2.0), checked by sha256, fetched for the user and cached; they are
not part of the package. ``references("corrected")`` puts our own corrected answers in the place of the references that
FastChat's pull request 3158 found wrong (``corrections.yaml``; each says what was wrong). Reports show both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from mote.tasks.data import RemoteFile, data_home
from mote.tasks.prompt import Prompt, TaskError, user

TASK = "mt_bench"
SIZE = 80
COMMIT = "0e6d3e4beaab66f4d3f93db72541a4abab8af28d"
LICENCE = "Apache-2.0"
_DATA = f"https://raw.githubusercontent.com/lm-sys/FastChat/{COMMIT}/fastchat/llm_judge/data"

QUESTIONS = RemoteFile(
    "question.jsonl",
    f"{_DATA}/mt_bench/question.jsonl",
    "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
)
REFERENCES = RemoteFile(
    "gpt-4.jsonl",
    f"{_DATA}/mt_bench/reference_answer/gpt-4.jsonl",
    "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
)
JUDGE_PROMPTS = RemoteFile(
    "judge_prompts.jsonl",
    f"{_DATA}/judge_prompts.jsonl",
    "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
)
FILES = (QUESTIONS, REFERENCES, JUDGE_PROMPTS)
WRONG_REFERENCES = (104, 105, 109, 111, 113, 114, 120, 122, 124, 125, 126, 128, 130)
"""Question ids whose GPT-4 reference is wrong in at least one turn (FastChat pull request 3158)."""

ReferenceSet = Literal["gpt-4", "corrected"]


@dataclass(frozen=True)
class Question:
    """One question: FastChat's id (81 to 160), its category, and the two turns of the user."""

    id: int
    category: str
    turns: tuple[str, str]


@dataclass(frozen=True)
class Correction:
    """A corrected reference: the answers to both turns, and what was wrong with the original."""

    turns: tuple[str, str]
    why: str


def folder() -> Path:
    """Return the folder of the cached files."""
    return data_home() / TASK


def fetch() -> Path:
    """Fetch the three files into the cache, checked; return the folder."""
    for file in FILES:
        file.fetch(folder())
    return folder()


def questions(source: Path | None = None) -> tuple[Question, ...]:
    """Return the 80 questions from the folder ``source``, else from the cache, in FastChat's order."""
    found = tuple(
        Question(row["question_id"], row["category"], (row["turns"][0], row["turns"][1]))
        for row in _rows(QUESTIONS, source)
    )
    if len(found) != SIZE:
        raise TaskError(f"{QUESTIONS.name}: it has {len(found)} questions, but MT-Bench has {SIZE}.")
    return found


def references(which: ReferenceSet = "gpt-4", source: Path | None = None) -> dict[int, tuple[str, str]]:
    """Return the 30 reference answers by question id, both turns each: GPT-4's, or with our corrections."""
    if which not in ("gpt-4", "corrected"):
        raise TaskError(f"reference set '{which}' is unknown. Known: gpt-4, corrected.")
    found: dict[int, tuple[str, str]] = {
        row["question_id"]: (row["choices"][0]["turns"][0], row["choices"][0]["turns"][1])
        for row in _rows(REFERENCES, source)
    }
    if which == "corrected":
        found |= {number: correction.turns for number, correction in corrections().items()}
    return found


def corrections() -> dict[int, Correction]:
    """Return our corrected references by question id; they need no data of FastChat's."""
    text = resources.files(__package__).joinpath("corrections.yaml").read_text(encoding="utf-8")
    written: dict[int, dict[str, str]] = yaml.safe_load(text)
    return {
        number: Correction((entry["first"].strip(), entry["second"].strip()), entry["why"].strip())
        for number, entry in written.items()
    }


def judge_prompts(source: Path | None = None) -> dict[str, Mapping[str, Any]]:
    """Return FastChat's judge prompts by name, as they stand in its file."""
    return {row["name"]: row for row in _rows(JUDGE_PROMPTS, source)}


def prompts(source: Path | None = None) -> list[Prompt]:
    """Return the first turns as prompts. The second turn, which needs an answer to the first, is an attribute."""
    return [
        Prompt(
            id=f"{TASK}/{question.category}/{question.id}",
            task=TASK,
            messages=user(question.turns[0]),
            attributes={
                "question_id": question.id,
                "category": question.category,
                "second_turn": question.turns[1],
            },
        )
        for question in questions(source)
    ]


def _rows(file: RemoteFile, source: Path | None) -> list[dict[str, Any]]:
    if source is None and file.state(folder()) == "missing":
        raise TaskError(
            f"task '{TASK}' is not fetched: {folder() / file.name} is missing. Run `mote data --fetch {TASK}`, or "
            f"download {file.url} to that place."
        )
    content = file.read(folder() if source is None else source)
    return [json.loads(line) for line in content.decode("utf-8").split("\n") if line.strip()]
