"""Reads the written set of answers and measures the rules on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sklearn.metrics import f1_score  # type: ignore[import-untyped]

from mote.judges import Label, Markers, label_by_surprise, label_refusal
from mote.judges.surprise import IMPOSSIBLE, measure

FOLDER = Path(__file__).parent / "answers"


@dataclass(frozen=True)
class Answer:
    """An answer with the label a reader gave it, and why."""

    id: str
    label: str
    why: str
    text: str
    finish_reason: str | None
    markers: Markers
    prompt_opens: bool
    logprobs: tuple[float, ...] | None = None

    def judged(self, with_logprobs: bool = False) -> Label:
        label = label_refusal(
            self.text, finish_reason=self.finish_reason, markers=self.markers, prompt_opens=self.prompt_opens
        )
        if not with_logprobs:
            return label
        assert self.logprobs is not None
        # The set has the log-probabilities without the tokens that they are of: places are not asked for here.
        measured = measure(self.text, [""] * len(self.logprobs), self.logprobs)
        return label_by_surprise(label, self.text, measured, IMPOSSIBLE)


def read(half: str) -> list[Answer]:
    rows: list[dict[str, Any]] = yaml.safe_load((FOLDER / f"{half}.yaml").read_text(encoding="utf-8"))
    return [
        Answer(
            id=row["id"],
            label=row["label"],
            why=row["why"],
            text=row["text"],
            finish_reason=row.get("finish_reason", "stop"),
            markers=_markers(row.get("markers", "think")),
            prompt_opens=row.get("prompt_opens", False),
            logprobs=tuple(row["logprobs"]) if "logprobs" in row else None,
        )
        for row in rows
    ]


def _markers(given: str | dict[str, str]) -> Markers:
    return Markers.named(given) if isinstance(given, str) else Markers(open=given["open"], close=given["close"])


def misses(answers: list[Answer]) -> list[tuple[str, str, str]]:
    """Return (id, label of the reader, label of the rules) where they differ."""
    return [(a.id, a.label, got) for a in answers if (got := a.judged().label) != a.label]


def macro_f1(answers: list[Answer]) -> float:
    """Return the mean F1 over the labels that a reader gave."""
    judged = [a.judged().label for a in answers]
    given = sorted({a.label for a in answers})
    return float(f1_score([a.label for a in answers], judged, labels=given, average="macro"))
