"""A profile's effect on a task, and its p among the shams, against a slow reckoning of both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from mote.harness.errors import MoteError
from mote.harness.inspect_ai.family import families, log_paths, table_of
from mote.patches import EMPTY_PROFILE, Edit, Profile
from tests.harness.inspect_ai.written_logs import note, sample, write_log

TUNED = Profile("tuned", (Edit(1, 3, "suppress"),))


def profile_of(number: int) -> Profile:
    return Profile(f"tuned-sham-{number}", (Edit(1, 3 + number, "suppress"),))


def write_family(folder: Path, scores: Sequence[Sequence[Any]], epochs: int = 1) -> list[Path]:
    """Write a log for each row of scores: baseline, profile, shams; a column a sample, or a sample's epoch."""
    paths = []
    for at, row in enumerate(scores):
        profile = (EMPTY_PROFILE, TUNED)[at] if at < 2 else profile_of(at)
        told = note(profile, TUNED.digest if at > 1 else "")
        samples = [sample(f"s{i // epochs}", told, score, i % epochs + 1) for i, score in enumerate(row)]
        paths.append(write_log(folder / f"{at}.json", samples, epochs=epochs))
    return paths


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=8, max_size=8), min_size=3, max_size=9))
def test_p_and_difference_are_those_of_a_slow_reckoning(tmp_path: Path, rows: list[list[float]]) -> None:
    (family,) = families(write_family(tmp_path, rows))
    (row,) = table_of(family).to_dict("records")
    effects = [sum(mine) / 8 - sum(rows[0]) / 8 for mine in rows[1:]]
    reach = sum(abs(effect) >= abs(effects[0]) - 1e-12 for effect in effects)
    assert row["difference"] == pytest.approx(effects[0])
    # The profile itself counts as one that reaches as far.
    assert row["p_permutation"] == pytest.approx(reach / len(effects))
    assert (row["shams"], row["samples"]) == (len(rows) - 2, 8)
    assert (row["sham_least"], row["sham_most"]) == (pytest.approx(min(effects[1:])), pytest.approx(max(effects[1:])))
    up = sum(a < b for a, b in zip(rows[0], rows[1], strict=True))
    down = sum(a > b for a, b in zip(rows[0], rows[1], strict=True))
    assert row["p_paired"] == pytest.approx(stats.binomtest(up, up + down).pvalue if up + down else 1.0)


def test_epochs_of_a_sample_are_one(tmp_path: Path) -> None:
    (family,) = families(write_family(tmp_path, [["C", "I", "C", "C"], ["I", "I", "C", "I"], ["C", "C", "C", "C"]], 2))
    (row,) = table_of(family).to_dict("records")
    assert (row["samples"], row["baseline"], row["tuned"]) == (2, 0.75, 0.25)
    assert row["difference"] == pytest.approx(-0.5)
    assert row["sham_mean"] == pytest.approx(0.25)


def test_a_sample_that_one_log_has_not_scored_is_in_no_figure(tmp_path: Path) -> None:
    (family,) = families(write_family(tmp_path, [[1, 1, 1], [0, 0, 1], [1, None, 1]]))
    (row,) = table_of(family).to_dict("records")
    assert (row["samples"], row["left_out"], row["difference"]) == (2, 1, pytest.approx(-0.5))


def test_without_shams_the_difference_stands_alone(tmp_path: Path) -> None:
    (family,) = families(write_family(tmp_path, [[1, 1], [0, 1]]))
    (row,) = table_of(family).to_dict("records")
    assert row["shams"] == 0
    assert np.isnan(row["p_permutation"])


def test_what_is_no_family_is_one_line(tmp_path: Path) -> None:
    baseline, tuned, sham = write_family(tmp_path, [[1, 1], [0, 1], [1, 0]])
    bare = write_log(tmp_path / "bare.json", [sample("s0", None, 1)], "other")
    bare.write_text(bare.read_text(encoding="utf-8").replace("mote/demo", "other/m"), encoding="utf-8")
    other = write_log(tmp_path / "other.json", [sample("s0", note(TUNED, model="else"), 1)])
    strange = write_log(tmp_path / "strange.json", [sample("t", note(TUNED), 1)])
    for paths, said in (
        ([tuned, sham], "has no log of the untouched model"),
        ([baseline, sham], "has no log of a profile beside its 2"),
        ([baseline, tuned, tuned], "are both of 'sums' under 'tuned'"),
        ([bare], "carries no receipts"),
        ([baseline, other], "are of 2 models"),
    ):
        with pytest.raises(MoteError, match=said):
            families(paths)
    (family,) = families([baseline, strange])
    with pytest.raises(MoteError, match="no scored sample in common"):
        table_of(family)


def test_logs_are_found_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="holds no log of Inspect"):
        log_paths([tmp_path])
    with pytest.raises(MoteError, match="neither a log nor a folder"):
        log_paths([tmp_path / "none"])
    paths = write_family(tmp_path, [[1], [0]])
    assert log_paths([tmp_path]) == paths
    assert json.loads(paths[0].read_text(encoding="utf-8"))["status"] == "success"
