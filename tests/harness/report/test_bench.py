"""MT-Bench in a run's report: found in the run's folder, or where it is said to be, or named as missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mote.harness.errors import MoteError
from mote.harness.mt_bench.judging import judge_bench
from mote.harness.report import make_report
from mote.harness.report.figure_data import Bench
from mote.harness.report.mt_bench_figure import NOTHING, find_bench
from tests.harness.mt_bench.parts import QUESTIONS, TUNED, answered, judged_text, material, quiet
from tests.harness.mt_bench.test_judging import endpoint
from tests.harness.report.written_run import WrittenRun, write_run
from tests.judges.scripted_judge import Say, scripted_judge

RUN = WrittenRun(prompts=14, layers=(1, 2), experts=8, top_k=2, controls=1)


def run_of_bench(folder: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """A run whose manifest has the bench's model and profile, and its manifest."""
    run = write_run(folder, RUN)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["model"]["files"] = MODEL["files"]
    manifest["profiles"]["suppress-1"] = TUNED.digest
    manifest |= changes
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run, manifest


MODEL: dict[str, Any] = {"name": "m", "files": {"model.safetensors": "0" * 64}}


def test_a_judged_bench_is_drawn_and_its_scores_are_a_table(tmp_path: Path) -> None:
    run, manifest = run_of_bench(tmp_path / "run")
    assert find_bench(run, manifest, None) == NOTHING
    store, _ = answered(run / "mt-bench", source={"seed": 0, "model": MODEL})
    with store:
        # Answered and not judged: nothing to show yet, and an error only where it was asked for.
        assert "holds no ratings yet" in str(find_bench(run, manifest, None))
        with pytest.raises(MoteError, match="holds no ratings yet"):
            find_bench(tmp_path, manifest, run / "mt-bench")
        with scripted_judge(lambda body, number: Say("[[7]]"), judged_text) as server:
            judge_bench(store, material({QUESTIONS[0].id: ("other", "other")}), "single", endpoint(server), quiet())
    found = find_bench(run, manifest, None)
    assert isinstance(found, Bench)
    assert found.models == ("m", "m+suppress-1")
    assert found.judge == "scripted, corrected references"
    page = make_report(run).read_text(encoding="utf-8")
    assert '<figure id="fig14-mt-bench">' in page
    assert '<a href="#fig14-mt-bench">' in page
    assert "m+suppress-1" in (run / "tables" / "fig14-mt-bench.csv").read_text()
    with pytest.raises(MoteError, match=r"holds no mt_bench\.sqlite"):
        make_report(run, mt_bench=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("source", "profiles", "reason"),
    [
        ({"seed": 0}, None, "its model \\(not named\\) has other files"),
        ({"model": {**MODEL, "files": {"model.safetensors": "1" * 64}}}, None, "its model \\(m\\) has other files"),
        ({"model": MODEL}, {"baseline": "0" * 64}, "no profile like that of 'm\\+suppress-1'"),
    ],
)
def test_a_bench_of_another_model_or_profile_is_refused(
    tmp_path: Path, source: dict[str, Any], profiles: dict[str, str] | None, reason: str
) -> None:
    run, manifest = run_of_bench(tmp_path / "run", **({"profiles": profiles} if profiles else {}))
    store, _ = answered(run / "mt-bench", source=source)
    store.close()
    with pytest.raises(MoteError, match=f"is no bench of this run: .*{reason}"):
        find_bench(run, manifest, run / "mt-bench")
    # One that merely lies there does not stop a report; the report says why it is not shown.
    assert "is no bench of this run" in str(find_bench(run, manifest, None))
