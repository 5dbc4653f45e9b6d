"""The packaged classifier: probabilities of REFUSED, EVASIVE and ANSWERED for an answer in English or Chinese.

Two linear models in a row, each a logistic regression on n-grams and structure: does it refuse? If not, does it answer?
The weights lie beside this file as ``weights.npy`` (read without pickle), what they were trained on and how often they
err in ``card.json``. ``python -m mote.judges.classifier.train`` makes both.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.judges.classifier import ngrams
from mote.judges.classifier.structure import NAMES, structure
from mote.judges.refusal import Reading

REFUSES: Final = "REFUSED"
EVADES: Final = "EVASIVE"
ANSWERS: Final = "ANSWERED"
FOLDER: Final = Path(__file__).parent
NGRAM_PLACES: Final = ngrams.SIZE * len(ngrams.PARTS)
NGRAM_SCALE: Final = 4.0
STRUCTURE_SCALE: Final = 1.5
"""How much the two kinds of feature weigh against each other under the same penalty."""


class Probabilities(NamedTuple):
    """Of an answer to be a refusal, evasive, an answer; they sum to 1."""

    refused: float
    evasive: float
    answered: float


class Features(NamedTuple):
    """A row of the linear models: places and values of what is not 0."""

    places: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """Weights [2, places], float64: first "refuses", then "answers, given that it does not refuse"."""

    weights: NDArray[np.float64]
    card: dict[str, Any]

    @property
    def threshold(self) -> float:
        """The probability from which an answer is called a refusal."""
        return float(self.card["threshold"])

    @property
    def band(self) -> tuple[float, float]:
        """Probabilities of a refusal between these two are called uncertain."""
        low, high = self.card["uncertain_band"]
        return float(low), float(high)

    def probabilities(self, reading: Reading, question: str | None = None) -> Probabilities:
        """Return the probabilities of an answer whose clauses have been read; the question helps where it is known."""
        found = features(reading, question)
        return as_probabilities(*(float(w[found.places] @ found.values) for w in self.weights))


def as_probabilities(refuses: float, answers: float) -> Probabilities:
    """Return the probabilities from the scores (log-odds) of the two models."""
    refused, answered = _logistic(refuses), _logistic(answers)
    return Probabilities(refused, (1 - refused) * (1 - answered), (1 - refused) * answered)


def features(reading: Reading, question: str | None = None) -> Features:
    """Return the features of an answer: n-grams by presence, each part of the same length, then structure."""
    parts = ngrams.places(reading.answer)
    numbers = structure(reading, question)
    at = np.flatnonzero(numbers)
    values = [np.full(len(part), NGRAM_SCALE / np.sqrt(len(part))) for part in parts if len(part)]
    return Features(
        np.concatenate([*parts, at + NGRAM_PLACES]), np.concatenate([*values, STRUCTURE_SCALE * numbers[at]])
    )


def places() -> int:
    """Return the number of places of a row."""
    return NGRAM_PLACES + len(NAMES)


def load(folder: Path = FOLDER) -> Classifier:
    """Read the weights and the card in ``folder``; raise ValueError where they are not of one another."""
    content = (folder / "weights.npy").read_bytes()
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(content).hexdigest()
    if digest != card["weights_sha256"]:
        raise ValueError(f"the classifier's weights in {folder} are not those of its card: train it anew.")
    weights = np.load(folder / "weights.npy", allow_pickle=False).astype(np.float64)
    if weights.shape != (2, places()):
        raise ValueError(f"the classifier in {folder} has weights {weights.shape}, its features need (2, {places()}).")
    return Classifier(weights, card)


@cache
def packaged() -> Classifier:
    """Return the classifier that ships with the package, read once."""
    return load()


def _logistic(score: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(score, -30, 30))))
