from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from mote.harness.cli import mt_bench as cli_mt_bench
from mote.harness.errors import MoteError
from mote.harness.mt_bench.commands import load_material
from mote.harness.mt_bench.fastchat_files import export
from mote.harness.mt_bench.judging import judge_bench
from mote.harness.mt_bench.ratings import matches, ratings
from mote.harness.mt_bench.scores import difference_table, score_table, win_table
from tests.harness.mt_bench.parts import WrittenEngine, answered, judged_text, material, question_of, quiet
from tests.harness.mt_bench.test_judging import endpoint, pairwise, rate
from tests.judges.mt_bench_forms import REAL, needs_real
from tests.judges.scripted_judge import Say, Step, scripted_judge


def mixed(body: dict[str, Any], number: int) -> Step:
    """Ratings that differ by model, question and turn, some unscored."""
    text = body["messages"][-1]["content"]
    question = question_of(body)
    if question == 106:
        return Say("No idea.")
    turn = 2 if "Assistant A:" in text else 1
    return Say(f"[[{min(10, question - 100 + turn + ('suppress' in text))}]]")


def by_its_text(body: dict[str, Any], number: int) -> Step:
    """Ratings drawn from the prompt's own text, one in sixteen of them unscored."""
    drawn = hashlib.sha256(body["messages"][-1]["content"].encode()).digest()[0]
    return Say("No idea." if drawn < 16 else f"[[{1 + drawn % 10}]]")


@pytest.fixture(params=["ours", pytest.param("real", marks=needs_real)])
def rated(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[pd.Series[float], Path]:
    """Our averages of two models on our own questions, or on FastChat's 80, and the file for FastChat to read."""
    if request.param == "ours":
        store, _ = answered(tmp_path / "b")
        bench, script = material(), mixed
    else:
        bench, script = load_material(REAL), by_its_text
        store, _ = answered(tmp_path / "b", WrittenEngine(context=100_000), questions=bench.questions)
    with store, scripted_judge(script, judged_text) as server:
        tally = judge_bench(store, bench, "single", endpoint(server), quiet())
        assert tally.unusable
        assert not tally.unreached
        rows = ratings(store, "scripted", "gpt-4")
        assert len(rows) == 2 * 2 * len(bench.questions)
        export(store)
    means = score_table(rows).set_index(["model", "category", "turn"])["mean"]
    return means, tmp_path / "b/model_judgment/scripted_single.jsonl"


def test_averages_are_those_of_fastchats_show_result(rated: tuple[pd.Series[float], Path]) -> None:
    """Its averaging, written down again: rows with -1 left out, means by model and turn, and by model."""
    ours, path = rated
    rows = pd.read_json(path, lines=True)[["model", "score", "turn"]]
    assert (rows["score"] == -1).any()
    rows = rows[rows["score"] != -1]
    for model in ("m", "m+suppress-1"):
        here = rows[rows["model"] == model]
        assert ours[model, "all", "all"] == pytest.approx(here["score"].mean())
        for turn in (1, 2):
            assert ours[model, "all", str(turn)] == pytest.approx(here.loc[here["turn"] == turn, "score"].mean())


def both(body: dict[str, Any], number: int) -> Step:
    """Rate and compare."""
    return (pairwise if "Assistant B" in body["messages"][-1]["content"] else mixed)(body, number)


@pytest.fixture
def show_result() -> Any:
    """FastChat's own module, or a skip with the reason."""
    if importlib.util.find_spec("fastchat") is None:
        pytest.skip("fschat is not installed: pip install --no-deps fschat==0.2.36")
    return pytest.importorskip("fastchat.llm_judge.show_result", reason="fschat's show_result does not import here")


def test_fastchats_own_show_result_gives_our_averages(show_result: Any, rated: tuple[pd.Series[float], Path]) -> None:
    ours, path = rated
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        show_result.display_result_single(
            Namespace(input_file=str(path), bench_name="mt_bench", judge_model="scripted", model_list=None)
        )
    average = printed.getvalue().partition("Average")[2]
    for model in ("m", "m+suppress-1"):
        line = next(line for line in average.splitlines() if line.split()[:1] == [model])
        assert float(line.split()[1]) == pytest.approx(ours[model, "all", "all"], abs=1e-5)


def test_fastchats_own_show_result_counts_our_wins(show_result: Any, tmp_path: Path) -> None:
    store, _ = answered(tmp_path / "b")
    with store, scripted_judge(pairwise, judged_text) as server:
        rate(store, server, "pair")
        wins = win_table(matches(store, "scripted", "gpt-4")).set_index(["category", "turn"])
        export(store)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        show_result.display_result_pairwise(
            Namespace(
                input_file=str(tmp_path / "b/model_judgment/scripted_pair.jsonl"),
                bench_name="mt_bench",
                judge_model="scripted",
                model_list=None,
                baseline_model="m",
            )
        )
    line = next(line for line in printed.getvalue().splitlines() if line.startswith("m+suppress-1"))
    whole: Any = wins.loc[("all", "all")]
    assert [float(value) for value in line.split()[1:4]] == [whole["wins"], whole["losses"], whole["ties"]]
    assert float(line.split()[6]) == pytest.approx(whole["win_rate"], abs=1e-5)


def test_the_difference_is_paired_by_question(tmp_path: Path) -> None:
    def judge(body: dict[str, Any], number: int) -> Step:
        text = body["messages"][-1]["content"]
        if question_of(body) == 102 and "suppress" in text:
            return Say("No idea.")
        return mixed(body, number)

    store, _ = answered(tmp_path / "b")
    with store, scripted_judge(judge, judged_text) as server:
        rate(store, server)
        rows = ratings(store, "scripted", "gpt-4")
    found = difference_table(rows, "m").set_index(["category", "turn"])
    whole: Any = found.loc[("all", "all")]
    # 106 has no rating of either, 102 of the original only; 108 reaches 10 with both in turn 2.
    assert (whole["pairs"], whole["unpaired"]) == (12, 4)
    assert whole["difference"] == pytest.approx(11 / 12)
    assert whole["low"] <= whole["difference"] <= whole["high"]
    assert found.at[("writing", "all"), "difference"] == 1.0
    assert found.at[("roleplay", "all"), "pairs"] == 0
    within = difference_table(rows, "m", margin=3.0).set_index(["category", "turn"])
    assert (within.at[("all", "all"), "margin"], within.at[("all", "all"), "equivalent"]) == (3.0, True)
    assert not difference_table(rows, "m", margin=0.5).set_index(["category", "turn"]).at[("all", "all"), "equivalent"]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The commands, on our eight questions in the place of FastChat's."""
    monkeypatch.setattr("mote.harness.mt_bench.commands.load_material", lambda source: material())
    monkeypatch.setenv("COLUMNS", "160")
    parent = typer.Typer()
    cli_mt_bench.mount(parent)
    return parent


def call(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["mt-bench", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_judge_and_show(tmp_path: Path, app: typer.Typer) -> None:
    store, _ = answered(tmp_path / "b")
    store.close()
    folder = str(tmp_path / "b")

    with pytest.raises(MoteError, match="no judgments yet"):
        call(app, "show", folder)
    with scripted_judge(both, judged_text) as server:
        output = call(app, "judge", folder, "--judge", "scripted", "--url", server.url, "--max-judgments", "40")
        assert "single: 28 scored, 4 unusable" in output
        assert len(server.requests) == 40
        output = call(app, "judge", folder, "--judge", "scripted", "--url", server.url)
        assert "single: 0 scored" in output
        assert "2 unusable (UNSCORED), 0 without reply, 0 left" in output
    output = call(app, "show", folder)
    assert "m+suppress-1 minus m: +0.93" in output
    assert "2 won, 10 tied, 2 lost, 2 unscored" in output
    assert "16 turns: scored 14, unusable 2" in output
    # A question a category: a mean, and nothing that an interval could be of.
    assert "one question" in output
    assert "nan" not in output
    figures = {path.name for path in (tmp_path / "b/figures").iterdir()}
    assert figures == {
        f"mt-bench-{kind}-scripted-{reference}.{ending}"
        for kind in ("bars", "radar")
        for reference in ("gpt-4", "corrected")
        for ending in ("svg", "png")
    }
    scores = pd.read_csv(tmp_path / "b/tables/mt-bench-scores-scripted-gpt-4.csv")
    assert set(scores["model"]) == {"m", "m+suppress-1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["judge", "BENCH", "--judge", "x", "--mode", "pairs"], "Did you mean 'pair'"),
        (["judge", "BENCH", "--judge", "x", "--url", "http://a:b@c/v1"], "environment variable"),
        (["judge", "BENCH", "--judge", "x", "--original", "n"], "no model 'n'"),
        (["judge", "BENCH", "--judge", "x", "--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY is not set"),
        (["show", "nowhere"], "answer first"),
        (["answer", "demo", "--engine", "enforce_eager"], "write name=value"),
        (["answer", "demo", "--markers", "thin"], "Did you mean 'think"),
        (["answer", "demo", "--profile", "nowhere.json"], "neither a profile file"),
        (["answer", "demo", "--data", "nowhere"], "Download"),
    ],
)
def test_wrong_commands_are_one_line(tmp_path: Path, app: typer.Typer, arguments: list[str], message: str) -> None:
    store, _ = answered(tmp_path / "b")
    store.close()
    given = [str(tmp_path / "b") if argument == "BENCH" else argument for argument in arguments]
    with pytest.raises(MoteError, match=message) as caught:
        call(app, *given)
    assert "\n" not in str(caught.value)
