"""lm_eval's own command line, from arguments to logs and their comparison; only the engine is a stand-in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("vllm")
pytest.importorskip("lm_eval")

from mote.harness.cli.lm_eval import mount
from mote.harness.compare.comparison import compare
from mote.harness.compare.sources import Reading, read_answers
from mote.harness.errors import MoteError
from mote.harness.lm_eval import TASKS, register
from mote.harness.lm_eval import model as model_module
from mote.harness.lm_eval.command import run_command
from mote.patches import Edit, Profile
from tests.harness.lm_eval.fakes import OPTIONS, FakeBatch, write_tasks

MODEL = ["--model", "mote", "--model_args", *(f"{name}={value}" for name, value in OPTIONS.items())]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model_module, "Batch", FakeBatch)
    monkeypatch.setattr(FakeBatch, "seen", [])
    # lm_eval sets these for itself.
    monkeypatch.setitem(os.environ, "TOKENIZERS_PARALLELISM", "false")
    import datasets  # type: ignore[import-untyped]
    from lm_eval.tasks._index import TaskIndex  # type: ignore[import-untyped]

    build = TaskIndex.build
    # Reading the thousands of files of lm_eval's own tasks takes seconds each time.
    monkeypatch.setattr(TaskIndex, "build", staticmethod(lambda paths, **more: build(paths[1:], **more)))
    monkeypatch.setattr("lm_eval.utils.setup_logging", lambda: None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def test_generative_and_choice_tasks_run_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generative, choice = write_tasks(tmp_path)
    profile = Profile("some", (Edit(2, 3, "suppress"),))
    profile.write(tmp_path / "some.json")
    before = list(sys.argv)
    for name, more in (("base", []), ("tuned", [f"profile={tmp_path / 'some.json'}"])):
        output = ["--log_samples", "--output_path", str(tmp_path / name)]
        run_command(["run", *MODEL, *more, "--tasks", str(generative), str(choice), *output])
    assert sys.argv == before
    assert "local_sums" in capsys.readouterr().out

    (results,) = (tmp_path / "tuned").rglob("results_*.json")
    config = json.loads(results.read_text())["config"]
    assert config["mote"]["profile_digest"] == profile.digest
    for task, answers in (("local_sums", 15), ("local_choice", 8)):
        logs = [next((tmp_path / name).rglob(f"samples_{task}_*.jsonl")) for name in ("base", "tuned")]
        left, right = (read_answers(str(log)) for log in logs)
        assert (left.task, left.profile, right.profile) == (task, "baseline", "some")
        assert right.digests == {profile.digest}
        found = compare(left, right)
        assert (len(found.pairs), found.unpaired, found.matrix) == (answers, (0, 0), None)
        (row,) = found.scores.to_dict("records")
        # The stand-in adds one too many to odd sums when it is tuned; its choices don't change.
        wrong = sum((a + b) % 2 for a in range(1, 6) for b in range(1, 4)) if task == "local_sums" else 0
        assert (row["up"], row["down"]) == (0, wrong)
        assert row["before"] - row["after"] == pytest.approx(wrong / answers)


def test_tasks_of_ours_are_known_beside_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tasks(tmp_path)
    run_command(["validate", "--tasks", "local_sums", "--include_path", str(tmp_path)])
    assert "All tasks found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", *MODEL, "--tasks", "local_sums", "--use_cache", "x"], "--use_cache is refused"),
        (
            ["run", *MODEL, "--tasks", "mote_grid"],
            "lm_eval knows no task 'mote_grid'. Did you mean 'mote_refusal_grid'?",
        ),
        (["run", *MODEL, "profil=x", "--tasks", "mote_sensitive"], "profil is neither ours"),
        (["run", "--config", "/no/such.yaml"], "--config /no/such.yaml"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(MoteError) as raised:
        run_command(arguments)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_task_file_names_the_nearest(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    with pytest.raises(MoteError, match=r"no task file .*local_sum.yaml. Did you mean 'local_sums.yaml'"):
        run_command(["run", *MODEL, "--tasks", str(tmp_path / "local_sum.yaml")])


def test_simple_evaluate_takes_the_model_by_name(tmp_path: Path) -> None:
    register()
    from lm_eval import simple_evaluate  # type: ignore[import-untyped]
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

    write_tasks(tmp_path)
    manager = TaskManager(include_path=[str(TASKS), str(tmp_path)])
    found: Any = simple_evaluate(model="mote", model_args=dict(OPTIONS), tasks=["local_choice"], task_manager=manager)
    assert found["results"]["local_choice"]["acc,none"] == 1.0
    assert found["config"]["mote"]["profile"] == "baseline"
    assert all(one["arguments"][0][-1]["mote"][0]["digest"] for one in found["samples"]["local_choice"])


def test_built_in_models_stay_registered() -> None:
    register()
    from lm_eval.api.registry import get_model  # type: ignore[import-untyped]

    assert get_model("dummy").__name__ == "DummyLM"
    assert get_model("mote").__name__ == "MoteLM"


def test_a_task_of_ours_labels_by_how_a_text_ended_and_pairs_by_prompt(tmp_path: Path) -> None:
    Profile("some", (Edit(2, 3, "suppress"),)).write(tmp_path / "some.json")
    sides = []
    for name, more in (("base", []), ("tuned", [f"profile={tmp_path / 'some.json'}"])):
        task = ["--tasks", "mote_reasoning_language", "--apply_chat_template", "--gen_kwargs", "max_gen_toks=96"]
        output = ["--limit", "12", "--log_samples", "--output_path", str(tmp_path / name)]
        run_command(["run", *MODEL, *more, *task, *output])
        sides.append(read_answers(str(tmp_path / name), Reading(label="reasoning_language")))
    assert sides[0].task == "reasoning_language"
    assert set(sides[0].rows["key"]) == set(sides[1].rows["key"])
    found = compare(*sides)
    assert found.target == "english"
    assert found.matrix is not None
    assert found.matrix.loc["english", "english"] == 12
    assert found.caveats == ()
    assert set(compare(*(read_answers(str(tmp_path / name)) for name in ("base", "tuned"))).pairs["after"]) == {
        "2-REASONED"
    }


def test_the_stock_command_knows_the_model_by_a_task_file() -> None:
    from lm_eval.api.registry import model_registry
    from lm_eval.tasks._yaml_loader import load_yaml  # type: ignore[import-untyped]

    from mote.harness.lm_eval import STOCK

    files = sorted(STOCK.glob("*.yaml"))
    assert {file.stem for file in files} >= {"mote_refusal_grid", "mote_sensitive", "mote_reasoning_language"}
    for file in files:
        config = load_yaml(file)
        assert config["task"] == file.stem
        assert callable(config["custom_dataset"])
    assert "mote" in model_registry


def test_every_argument_is_lm_evals_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr("mote.harness.lm_eval.command.run_command", seen.append)
    app = typer.Typer()
    mount(app)
    arguments = ["run", "--model", "mote", "--model_args", "a=1", "b=2", "-h", "--tasks", "x"]
    assert CliRunner().invoke(app, arguments).output == ""
    helped = CliRunner().invoke(app, ["--help"])
    assert seen == [arguments, ["--help"]]
    assert "Example: mote lm-eval run" in helped.output
