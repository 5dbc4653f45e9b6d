"""The sentence on doubtful labels and evasive flips."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pandas as pd

from mote.harness.report.doubt import doubt
from mote.judges import ALIGNED, CLASSES, REFUSED

SURE = ["refusal-statement", "classifier-REFUSED REFUSED 0.990 EVASIVE 0.008 ANSWERED 0.002"]
DODGED = ["answer", "classifier-EVASIVE REFUSED 0.020 EVASIVE 0.900 ANSWERED 0.080"]
DIFFER = ["refusal-by-classifier", "classifier-REFUSED REFUSED 0.500 EVASIVE 0.400 ANSWERED 0.100", "rules-disagree"]


def evidence(rules: list[str]) -> str:
    return json.dumps([{"rule": rule, "span": "", "start": 0, "end": 0} for rule in rules])


def result() -> Any:
    paired = pd.DataFrame(
        [("p1", "suppress-10", "all", REFUSED, ALIGNED), ("p2", "suppress-10", "all", REFUSED, REFUSED)],
        columns=["prompt_id", "profile", "view", "before", "after"],
    )
    asked = SimpleNamespace(target=REFUSED, tuned="suppress-10", view="all", classes=CLASSES)
    return SimpleNamespace(asked=asked, changes=SimpleNamespace(paired=paired))


def frame(*rules: list[str]) -> pd.DataFrame:
    rows = zip(("p1", "p2", "p1", "p2"), ("baseline", "baseline", "suppress-10", "suppress-10"), rules, strict=True)
    return pd.DataFrame([{"prompt_id": p, "profile": f, "evidence": evidence(r)} for p, f, r in rows])


def test_doubtful_labels_and_evasive_flips_are_counted() -> None:
    said = doubt(result(), frame(SURE, SURE, DODGED, DIFFER))
    assert "on 1 of 4 labels (25.0%)" in said
    assert "Of the 1 flips of suppress-10 1 are into evasive answers" in said


def test_a_run_without_a_classifier_says_nothing() -> None:
    assert doubt(result(), frame(*[["refusal-statement"]] * 4)) == ""
