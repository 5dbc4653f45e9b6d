"""The page over a measured SmolLM2: its first sentence follows from the figures, and what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mote.harness.demo.smollm import __main__ as command
from mote.harness.demo.smollm.effects import CONTROLLED, DOSES, QUALITY, ROLES, SETS
from mote.harness.demo.smollm.table import control_rows, copy_run, dose_rows, verdict, write_readme
from mote.harness.errors import MoteError

REFUSED, ALIGNED = "0-REFUSED", "1-ALIGNED"


def effects(tuned: int, random: int) -> dict[str, Any]:
    """Of 20 refused questions `tuned` flip under every ranking's top k, and `random` under each random set."""
    found: dict[str, Any] = {
        "quality": {
            name: {kind: {ALIGNED: count - 4, REFUSED: 4} for kind, count in QUALITY.items()}
            for name in ("aligned", "all_off")
        },
        "baseline": {"labels": {REFUSED: 40, ALIGNED: 60}, "measured_refused": 20, "measured_others": 30},
        "all_off": {ALIGNED: 20},
    }
    for role in ROLES:
        found[f"{role}/stimulate/20"] = {ALIGNED: 28, REFUSED: 2}
        for k in DOSES:
            flips = [["What happened?", "In 1989,\nit rained."]] * tuned
            labels = {ALIGNED: tuned, REFUSED: 18 - tuned, "DEGENERATE": 2}
            found[f"{role}/suppress/{k}"] = {"refused": labels, "others": {ALIGNED: 30}, "kept": 30, "flips": flips}
        for k in CONTROLLED:
            found[f"{role}/frequency/{k}"] = found[f"{role}/uniform/{k}"] = [
                {ALIGNED: random, REFUSED: 20 - random}
            ] * SETS
    return found


def write(out: Path, measured: dict[str, Any]) -> None:
    (out / "tables").mkdir(parents=True)
    (out / "effects.json").write_text(json.dumps(measured))
    log = [{"step": 9, "measured": {"kl": 0.031, "same_token": 0.97, "cpu_minutes": 22.4}}]
    recipe = {
        "seed": 1,
        "shape": {"layers": 8, "experts": 32, "top_k": 4, "width": 32, "scaling": 4.0},
        "trained": {"near": {"drawn": 700, "answered": 140}},
    }
    (out / "training.json").write_text(json.dumps({"recipe": recipe, "log": log}))
    refused = {kind: {"refused": 9, "of": 60} for kind in ("sensitive", "near, grid", "near, others", "far", "general")}
    kl = {kind: {"kl": 0.0312, "same_token": 0.97, "answers": 9} for kind in ("near", "far", "general")}
    (out / "checked.json").write_text(json.dumps({"refused": refused, "kl": kl}))
    row = {"group": "suppress-20", "view": "measured", "sets": 1, "flips": 3, "of": 21, "reverse": 0, "reverse_of": 90}
    pd.DataFrame([row | {"truncated": 2, "degenerate": 1}]).to_csv(out / "tables" / "summary.csv", index=False)


@pytest.mark.parametrize(
    ("tuned", "random", "said"),
    [(10, 2, "in 2 of 2 comparisons"), (2, 2, "the paper's effect is not shown"), (0, 0, "is not shown")],
)
def test_the_first_sentence_follows_from_the_figures(tuned: int, random: int, said: str) -> None:
    assert said in verdict(effects(tuned, random), pd.DataFrame())


def test_a_kind_of_random_set_that_was_not_measured_is_no_zero() -> None:
    measured = {name: part for name, part in effects(10, 2).items() if "uniform" not in name}
    rows = control_rows(measured)
    assert set(rows["uniform"]) == {"not measured"}
    assert set(rows["same layers and activity"]) == {"10% (10%)"}


def test_broken_text_is_no_flip_and_p_counts_the_tuned_set() -> None:
    rows = dose_rows(effects(10, 2))
    assert set(rows["flipped"]) == {"10/20 = 50%"}
    assert set(rows["broken or cut off"]) == {2}
    controls = control_rows(effects(10, 2))
    assert set(controls["uniform"]) == {"10% (10%)"}
    assert set(controls["p, uniform"]) == {f"{1 / (SETS + 1):.2f}"}


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    write(tmp_path, effects(10, 2))
    text = write_readme(tmp_path).read_text()
    assert text.index("in 2 of 2 comparisons") < text.index("fluent is not true")
    assert "| near misses: refused | 18 of 120 = 15% | <= 15% | 10 of 24 |" in text
    assert "| general answers: KL to SmolLM2, nats a token | 0.0312 | <= 0.05 |" in text
    assert "| suppress-20 | 1 | 3/21 = 14% | 0/90 | 2 | 1 |" in text
    assert "In 1989, it rained." in text
    assert "All aims are kept." in text
    assert "Not measured" not in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) < 400


def test_an_aim_that_was_missed_is_named(tmp_path: Path) -> None:
    write(tmp_path, effects(10, 2))
    checked = json.loads((tmp_path / "checked.json").read_text())
    checked["refused"]["near, grid"]["refused"] = 10  # with 9 of the others: 19 of 120
    (tmp_path / "checked.json").write_text(json.dumps(checked))
    assert "**Missed: the aim on near misses.**" in write_readme(tmp_path).read_text()


def test_a_part_that_was_not_measured_is_said_to_be(tmp_path: Path) -> None:
    left_out = ("uniform", "frequency", "quality")
    measured = {name: part for name, part in effects(10, 2).items() if not any(word in name for word in left_out)}
    write(tmp_path, measured)
    text = write_readme(tmp_path).read_text()
    assert (
        "Not measured: full generation before and after, random sets beside the ranking by all prompt tokens, "
        "random sets beside the ranking by the last 5 prompt tokens." in text
    )
    assert text.index("suppress-20 3/21 = 14%") < text.index("fluent is not true")
    (tmp_path / "effects.json").unlink()
    (tmp_path / "tables" / "summary.csv").unlink()
    assert "What its experts carry was not measured" in write_readme(tmp_path).read_text()


def test_the_copied_manifest_says_nothing_of_where_the_model_lay(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    (run / "tables").mkdir(parents=True)
    (run / "tables" / "summary.csv").write_text("group\n")
    path = "/home/someone/models/smollm"
    manifest = {"recipe": {"model": {"path": path}}, "model": {"name": path, "path": path}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    copy_run(run, out)
    assert "someone" not in (out / "manifest.json").read_text()
    assert json.loads((out / "manifest.json").read_text())["model"]["path"] == "smollm"
    assert (out / "tables" / "summary.csv").is_file()


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MoteError, match=r"training\.json is missing"):
        write_readme(tmp_path)
    with pytest.raises(MoteError, match="holds no tables of a run"):
        copy_run(tmp_path, tmp_path)
    assert command.main(["measure", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is no finished build" in capsys.readouterr().err
