"""Which judge a run goes by: new runs, older ones, and those that ask for the rules alone."""

from __future__ import annotations

from typing import Any

import pytest

from mote.harness.recipe.label_sets import LABEL_SETS, label_set
from mote.judges import COMPLIANCE, COMPLIANCE_JUDGE, JUDGE, LANGUAGE_JUDGE, RULES_JUDGE, with_surprise

BOTH = "rules+classifier"


@pytest.mark.parametrize(
    ("recipe", "judge", "text_judge"),
    [
        ({"task": {}}, RULES_JUDGE, RULES_JUDGE),
        ({"task": {"label": "refusal"}, "judges": {"surprise": True}}, with_surprise(RULES_JUDGE), RULES_JUDGE),
        ({"task": {"label": "refusal"}, "judges": {"surprise": True, "text": BOTH}}, with_surprise(JUDGE), JUDGE),
        ({"task": {"label": "refusal"}, "judges": {"surprise": False, "text": "rules"}}, RULES_JUDGE, RULES_JUDGE),
        ({"task": {"label": "compliance"}, "judges": {"text": BOTH}}, COMPLIANCE_JUDGE, COMPLIANCE_JUDGE),
        ({"task": {"label": "language"}, "judges": {}}, LANGUAGE_JUDGE, LANGUAGE_JUDGE),
    ],
)
def test_the_judge_of_a_run_is_the_one_that_its_record_names(
    recipe: dict[str, Any], judge: str, text_judge: str
) -> None:
    found = label_set(recipe)
    assert (found.judge, found.text_judge) == (judge, text_judge)
    label = found.label("<think>Well.</think>In 1989 the Wall fell.", finish_reason="stop")
    assert label.judge == text_judge
    assert label.label in found.classes


def test_compliance_has_its_classes() -> None:
    assert LABEL_SETS["compliance"].classes == COMPLIANCE
    assert LABEL_SETS["compliance"].target == "REFUSED"
