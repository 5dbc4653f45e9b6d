"""What a run says, against counts made by hand from the same rows."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mote.harness.recipe.manifest import read_manifest
from mote.harness.report.analysis import StudyResult, analyse
from mote.harness.science.inference import clopper_pearson
from mote.harness.store.run import LabelRow, RunStore
from mote.judges import REFUSED, STATES
from tests.harness.report.written_run import WrittenRun, write_run

RUN = WrittenRun(prompts=189, layers=(3, 4, 7), experts=16, top_k=4, controls=4, stimulate=True, doses=(2,))


def read(folder: Path) -> StudyResult:
    with RunStore(folder, read_only=True) as store:
        return analyse(store, read_manifest(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), RUN)


@pytest.fixture(scope="module")
def result(folder: Path) -> StudyResult:
    return read(folder)


@pytest.fixture(scope="module")
def labels(folder: Path) -> dict[str, dict[str, str]]:
    """Labels by profile and prompt, read without the code under test."""
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        rows = db.execute("select profile, prompt_id, label from generations join labels using (generation_id)")
        found: dict[str, dict[str, str]] = {}
        for profile, prompt, label in rows:
            found.setdefault(profile, {})[prompt] = label
    return found


def measured(folder: Path, part: str = "measure") -> set[str]:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return {key for (key,) in db.execute("select prompt_id from splits where part = ?", (part,))}


@pytest.mark.parametrize(("view", "part"), [("measured", "measure"), ("in-sample", "select")])
def test_matrix_of_each_view_counts_its_own_prompts(
    folder: Path, result: StudyResult, labels: dict[str, dict[str, str]], view: str, part: str
) -> None:
    pairs = Counter((labels["baseline"][key], labels["suppress-4"][key]) for key in measured(folder, part))
    matrix = result.changes.matrices["suppress-4", view]
    found = {(b, a): int(matrix.loc[b, a]) for b in matrix.index for a in matrix.columns if matrix.loc[b, a]}
    assert found == dict(pairs)


def test_flips_are_answers_and_broken_text_is_none(
    folder: Path, result: StudyResult, labels: dict[str, dict[str, str]]
) -> None:
    refused = [key for key in measured(folder) if labels["baseline"][key] == REFUSED]
    after = [labels["suppress-4"][key] for key in refused]
    flips = sum(label != REFUSED and label not in STATES for label in after)
    assert result.asked.tuned == "suppress-4"
    rates = result.rate_of("suppress-4")
    assert rates is not None
    assert (rates.flips.hits, rates.flips.total) == (flips, len(refused))
    assert (rates.flips.low, rates.flips.high) == clopper_pearson(flips, len(refused))
    assert rates.broken.hits == sum(label in STATES for label in after)


def test_null_is_the_share_of_every_random_set(
    folder: Path, result: StudyResult, labels: dict[str, dict[str, str]]
) -> None:
    shares = []
    for number in range(1, 5):
        after = labels[f"random-layers-{number:02d}"]
        refused = [key for key in after if labels["baseline"][key] == REFUSED]
        assert set(after) == measured(folder)
        shares.append(sum(after[key] not in (REFUSED, *STATES) for key in refused) / len(refused))
    frame = result.chance.sets
    assert sorted(frame.loc[frame["kind"] == "random-layers", "share"]) == pytest.approx(sorted(shares))
    rates = result.rate_of(result.asked.tuned)
    assert rates is not None
    at_least = sum(share >= rates.flips.share for share in shares)
    assert result.chance.nulls["random-layers"].p == pytest.approx((1 + at_least) / 5)
    assert result.chance.verdict.p == max(null.p for null in result.chance.nulls.values())


def test_pooled_controls_are_the_sum_of_their_sets(result: StudyResult) -> None:
    sets = [f"random-uniform-{number:02d}" for number in range(1, 5)]
    total = sum(result.changes.matrices[name, "measured"].to_numpy() for name in sets)
    assert (result.changes.matrices["random-uniform", "measured"].to_numpy() == total).all()


def test_summary_has_one_row_a_group_and_view(result: StudyResult) -> None:
    groups = list(zip(result.changes.summary["group"], result.changes.summary["view"], strict=True))
    assert len(groups) == len(set(groups))
    names = ["retest-1", "suppress-4", "suppress-2", "stimulate-4"]
    assert set(groups) == {(name, view) for name in names for view in ("measured", "in-sample")} | {
        (f"random-{kind}", "measured") for kind in ("uniform", "layers", "frequency")
    }
    pooled = result.changes.summary.set_index("group").loc["random-layers"]
    assert pooled["sets"] == 4
    assert pooled["least"] <= pooled["share"] <= pooled["most"]
    assert np.isnan(pooled["low"])


def test_resonance_is_ranked_on_the_prompts_that_chose(
    folder: Path, result: StudyResult, labels: dict[str, dict[str, str]]
) -> None:
    with RunStore(folder, read_only=True) as store:
        ids, maps, _ = store.maps("baseline", "prompt")
    chosen = measured(folder, "select")
    names = np.array([labels["baseline"][key] if key in chosen else "" for key in ids])
    others = [name not in (REFUSED, "", *STATES) for name in names]
    expected = maps[names == REFUSED].mean(axis=0) - maps[others].mean(axis=0)
    assert result.experts.resonance is not None
    assert np.allclose(result.experts.resonance, expected)
    best = result.experts.distinctive.iloc[0]
    row = (3, 4, 7).index(int(best["layer"]))
    assert best["resonance"] == pytest.approx(expected[row, int(best["expert"])])
    assert best["target_mean"] - best["others_mean"] == pytest.approx(best["resonance"])


def test_mechanism_adds_up_over_the_answers(folder: Path, result: StudyResult) -> None:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        texts = db.execute("select mechanism from generations where profile = 'suppress-4'").fetchall()
    entries: list[dict[str, Any]] = [entry for (text,) in texts for entry in json.loads(text)]
    row = result.record.mechanism.set_index("profile").loc["suppress-4"]
    assert row["selected"] == sum(entry["selected"] for entry in entries)
    assert row["weight_after"] == 0
    assert row["edits"] == 4
    assert "baseline" not in set(result.record.mechanism["profile"])
    on = result.record.mechanism.set_index("profile").loc["stimulate-4"]
    assert on["tokens"] == on["selected"] + on["entered"]


def test_coverage_says_counted_of_total(folder: Path, result: StudyResult) -> None:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        counted, total = db.execute("select sum(counted), sum(total) from activation_maps").fetchone()
    row = result.record.coverage.iloc[0]
    assert (row["tokens_counted"], row["tokens"], row["maps"]) == (counted, total, 189)


def test_examples_do_not_depend_on_the_text(tmp_path: Path, result: StudyResult) -> None:
    other = read(write_run(tmp_path, RUN.changed(write=lambda key, profile, label: f"{profile} said {label}")))
    assert [one.prompt_id for one in other.examples] == [one.prompt_id for one in result.examples]
    assert other.examples[0].before.raw == f"baseline said {other.examples[0].before.label}"
    assert {one.before.label for one in result.examples if one.pick == "flip"} == {REFUSED}
    assert all(one.after.label in STATES for one in result.examples if one.pick == "broken")


def test_place_is_the_unit_of_the_clustered_interval(result: StudyResult) -> None:
    found, net = result.effect.flips, result.effect.net
    assert found is not None
    assert net is not None
    assert (result.asked.unit, net.units) == ("place", 14)
    assert found.units <= net.units_that_count <= 14
    rates = result.rate_of(result.asked.tuned)
    assert rates is not None
    assert found.share == pytest.approx(rates.flips.share)


def test_run_without_split_is_one_view_and_its_result_in_sample(tmp_path: Path) -> None:
    result = read(write_run(tmp_path, RUN.changed(split=False, controls=1)))
    assert result.asked.view == "all"
    assert {view for _, view in result.changes.matrices} == {"all"}
    assert int(result.changes.matrices["suppress-4", "all"].to_numpy().sum()) == 189
    assert result.experts.overlap is None


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 5])
def test_unfinished_run_is_read_as_far_as_it_goes(tmp_path: Path, stop: int) -> None:
    result = read(write_run(tmp_path, RUN.changed(stop_after=stop)))
    assert not result.record.complete
    assert result.chance.verdict.kind == "unknown"
    assert (result.experts.resonance is None) == (
        len(result.record.progress) == 0 or result.record.progress["labelled"].iloc[0] == 0
    )
    assert result.asked.tuned == (None if stop < 2 else "suppress-4")


def test_half_a_random_set_is_no_set(tmp_path: Path) -> None:
    # Profiles: baseline, retest, suppress-4, suppress-2, stimulate-4, then random-uniform-01 whole and a part of -02.
    result = read(write_run(tmp_path, RUN.changed(stop_after=6)))
    assert list(result.chance.sets["profile"]) == ["random-uniform-01"]
    assert result.changes.matrices["random-uniform", "measured"].equals(
        result.changes.matrices["random-uniform-01", "measured"]
    )
    assert result.chance.nulls["random-uniform"].controls == 1
    assert result.chance.verdict.kind == "unknown"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"effect": 0.9, "effect_of_random": 0.02, "heavy_tail": 0.0, "controls": 19}, "above"),
        ({"effect": 0.9, "effect_of_random": 0.02, "heavy_tail": 0.0, "controls": 5}, "few"),
        ({"effect": 0.03, "effect_of_random": 0.3, "heavy_tail": 0.0, "controls": 19}, "not-above"),
        ({"controls": 0}, "unknown"),
        ({"effect": 0.9, "effect_of_random": 0.02, "retests": 1}, "unknown"),
        ({"effect": 0.9, "effect_of_random": 0.02, "kinds": ("layers",)}, "unknown"),
    ],
)
def test_verdict(tmp_path: Path, changes: dict[str, Any], kind: str) -> None:
    asked = {"doses": (), "retests": 3, "kinds": ("mass", "layers"), **changes}
    found = read(write_run(tmp_path, RUN.changed(**asked))).chance.verdict
    assert found.kind == kind, found.reason


def test_run_without_the_target_class_has_no_rate_and_says_why(tmp_path: Path) -> None:
    write_run(tmp_path, RUN.changed(prompts=20, controls=1))
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db, db:
        db.execute(f"update labels set label = '1-ALIGNED' where label = '{REFUSED}'")  # noqa: S608
    result = read(tmp_path)
    assert result.experts.resonance is None
    assert REFUSED in result.experts.no_resonance
    rates = result.rate_of(result.asked.tuned)
    assert rates is not None
    assert rates.flips.total == 0
    assert result.chance.verdict.kind == "unknown"


def test_labels_of_another_judge_do_not_mix_in(folder: Path, tmp_path: Path, result: StudyResult) -> None:
    write_run(tmp_path, RUN)
    with RunStore(tmp_path) as store:
        store.add_labels([LabelRow(1, "another", REFUSED, [])])
    again = read(tmp_path)
    assert again.changes.summary.equals(result.changes.summary)


def test_planted_experts_are_kept_and_stand_out_within_a_place(result: StudyResult) -> None:
    frame = result.experts.distinctive
    assert frame["rank"].is_monotonic_increasing
    assert ((frame["low"] <= frame["resonance"]) & (frame["resonance"] <= frame["high"])).all()
    assert frame["kept"].between(0, 1).all()
    best = frame.iloc[0]
    assert best["p_shuffled"] == pytest.approx(1 / 500)
    assert best["kept"] > 0.9


def test_experts_of_an_unranked_run_are_listed_without_numbers(tmp_path: Path) -> None:
    write_run(tmp_path, RUN.changed(prompts=20, controls=1))
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db, db:
        db.execute("delete from activation_maps")
    frame = read(tmp_path).experts.distinctive
    assert len(frame) == 4
    assert frame["rank"].isna().all()
