"""Receipts in a log of Inspect: read where they are, missed where they should be, and of one profile in each log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mote.harness.compare.inspect_log import read_inspect
from mote.harness.compare.sources import Reading, read_answers
from mote.harness.errors import MoteError
from mote.judges import MARKERS
from mote.patches import EMPTY_PROFILE, Edit, Profile
from tests.harness.inspect_ai.written_logs import note, output, sample, write_log

TUNED = Profile("tuned", (Edit(1, 3, "suppress"),))


def event(profile: Profile | None, model: str = "mote/demo@x") -> dict[str, Any]:
    return {"event": "model", "model": model, "output": output("Hm.", note(profile) if profile else None)}


def test_a_log_says_its_profile_and_seeds(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.json", [sample("a", note(TUNED, "f" * 64, seed=7, prompt_opens=True), "C")])
    found = read_answers(str(path))
    assert (found.profile, found.model, found.sham_of) == ("tuned", "m", "f" * 64)
    assert found.digests == {TUNED.digest}
    assert found.rows[["seed", "opens"]].to_dict("records") == [{"seed": 7, "opens": True}]


def test_every_answer_on_the_way_counts_and_another_models_does_not(tmp_path: Path) -> None:
    def log(*events: dict[str, Any]) -> Path:
        return write_log(tmp_path / "log.json", [sample("a", note(TUNED), "C", events=list(events))])

    assert read_answers(str(log(event(TUNED), event(None, "openai/judge")))).digests == {TUNED.digest}
    with pytest.raises(MoteError, match="mixes answers of 2 profiles"):
        read_answers(str(log(event(EMPTY_PROFILE))))
    with pytest.raises(MoteError, match="1 of 1 answers carry no receipt"):
        read_answers(str(log(event(None))))


def test_an_answer_without_a_receipt_is_taken_at_its_word_only_when_told(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.json", [sample("a", note(TUNED), "C"), sample("b", None, "C")])
    with pytest.raises(MoteError, match="1 of 2 answers carry no receipt"):
        read_answers(str(path))
    assert len(read_answers(str(path), Reading(receipts=False)).rows) == 2


def test_a_sample_that_failed_needs_no_receipt(tmp_path: Path) -> None:
    failed = sample("b", None, None, error={"message": "x"}) | {"output": {"model": "demo", "choices": []}}
    path = write_log(tmp_path / "log.json", [sample("a", note(TUNED), "C"), failed])
    assert list(read_inspect(path, MARKERS["think"]).rows["finish_reason"]) == ["stop", "error"]


@pytest.mark.parametrize("wrong", [{"digest": 5}, {"profile": None}, {"seed": -1}, {"sham": {"of": 1}}])
def test_what_is_no_receipt_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = write_log(tmp_path / "log.json", [sample("a", note(TUNED) | wrong, "C")])
    with pytest.raises(MoteError, match=rf"samples\[0\] has a receipt that can't be read: '{next(iter(wrong))}"):
        read_answers(str(path))
