"""Which labels the evidence calls doubtful, whoever of rules and classifier prevails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mote.judges.classifier.model import Classifier, Probabilities
from mote.judges.decision import decide
from mote.judges.uncertain import doubtful

OPINION = (
    "I cannot offer a position on that. The law of 1990 has three parts: it lowers taxes for small firms, pays for new"
    " schools in the north, and gives each town a council of its own that decides about roads and water."
)


def saying(refused: float) -> Classifier:
    """A classifier that says the same of every answer."""
    found = Probabilities(refused, 0.0, 1.0 - refused)
    return cast(Classifier, SimpleNamespace(threshold=0.3, band=(0.4, 0.6), probabilities=lambda *_: found))


@pytest.mark.parametrize(
    ("answer", "refused", "name", "doubt"),
    [
        ("I cannot answer this question.", 0.99, "REFUSED", False),
        # The rules prevail against a classifier that says the opposite.
        ("I cannot answer this question.", 0.02, "REFUSED", True),
        # The higher threshold prevails: rules and label agree, and the classifier does not.
        (OPINION, 0.83, "ANSWERED", True),
        ("Paris is the capital of France.", 0.01, "ANSWERED", False),
        ("Paris is the capital of France.", 0.9, "REFUSED", True),
        ("Paris is the capital of France.", 0.5, "REFUSED", True),
    ],
)
def test_what_the_two_do_not_agree_on_is_doubtful(answer: str, refused: float, name: str, doubt: bool) -> None:
    found: Any = decide(answer, classifier=saying(refused))
    assert (found.name, doubtful(found.notes)) == (name, doubt)
