"""MT-Bench in a run's report: found in the run's folder, or where it is said to be, or named as missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote.harness.errors import MoteError
from mote.harness.mt_bench.judging import judge_bench
from mote.harness.report import make_report
from mote.harness.report.mt_bench_figure import find_bench
from tests.harness.mt_bench.parts import answered, judged_text, material, quiet
from tests.harness.mt_bench.test_judging import endpoint
from tests.harness.report.written_run import WrittenRun, write_run
from tests.judges.scripted_judge import Say, scripted_judge

RUN = WrittenRun(prompts=14, layers=(1, 2), experts=8, top_k=2, controls=1)


def test_a_judged_bench_is_drawn_and_its_scores_are_a_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", RUN)
    assert find_bench(run, None) is None
    store, _ = answered(run / "mt-bench")
    with store:
        # Answered and not judged: nothing to show yet, and an error only where it was asked for.
        assert find_bench(run, None) is None
        with pytest.raises(MoteError, match="holds no ratings yet"):
            find_bench(tmp_path, run / "mt-bench")
        with scripted_judge(lambda body, number: Say("[[7]]"), judged_text) as server:
            judge_bench(store, material(), "single", endpoint(server), quiet())
    found = find_bench(run, None)
    assert found is not None
    assert found.models == ("m", "m+suppress-1")
    assert found.judge.startswith("scripted, ")
    page = make_report(run).read_text(encoding="utf-8")
    assert '<figure id="fig14-mt-bench">' in page
    assert '<a href="#fig14-mt-bench">' in page
    assert "m+suppress-1" in (run / "tables" / "fig14-mt-bench.csv").read_text()
    with pytest.raises(MoteError, match=r"holds no mt_bench\.sqlite"):
        make_report(run, mt_bench=tmp_path / "nowhere")
