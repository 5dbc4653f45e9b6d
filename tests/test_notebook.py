"""The notebook of ``docs/``: its outputs are there, name no machine, and come out again when it is executed."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mote
from mote.harness.recipe.schema import Recipe, resolve_recipe
from mote.harness.report.frames import Run
from mote.harness.report.plots import Plots
from tests.notebook import NOTEBOOK, execute

COMMITTED: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CODE = [cell for cell in COMMITTED["cells"] if cell["cell_type"] == "code"]
SOURCE = "\n".join("".join(cell["source"]) for cell in CODE)


def verdicts(notebook: dict[str, Any]) -> list[str]:
    """Return what the cells of the verdict show: the sentence, and the p-value against each kind of random sets."""
    cells = [cell for cell in notebook["cells"] if "verdict" in "".join(cell["source"]) and cell.get("outputs")]
    shown = [
        output.get("text", output.get("data", {}).get("text/plain")) for cell in cells for output in cell["outputs"]
    ]
    return ["".join(text) for text in shown if text]


def test_every_cell_was_executed_in_order_without_an_error_and_the_verdict_is_there() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    kinds = [output["output_type"] for cell in CODE for output in cell["outputs"]]
    assert "error" not in kinds
    assert sum("image/png" in output.get("data", {}) for cell in CODE for output in cell["outputs"]) == 3
    sentence, legs = verdicts(COMMITTED)
    assert "DEFERS prompts" in sentence
    assert {kind for kind, _ in ast.literal_eval(legs)} == {"mass", "layers"}


def test_it_names_no_place_of_a_machine_and_is_small() -> None:
    text = re.sub(r'"image/png": "[^"]*"', "", NOTEBOOK.read_text(encoding="utf-8"))
    assert not re.search(r"/(?:home|root|tmp|work|Users|var)/|https?://", text)
    assert NOTEBOOK.stat().st_size < 300_000


def test_every_name_that_it_calls_exists() -> None:
    tree = ast.parse(SOURCE)
    owners: dict[str, object] = {"mote": mote, "run": Run, "run.plot": Plots}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (owner := ast.unparse(node.value)) in owners:
            found.add(f"{owner}.{node.attr}")
            assert hasattr(owners[owner], node.attr), f"{owner}.{node.attr}"
    assert {"mote.study", "run.verdict", "run.plot.resonance", "run.plot.null"} <= found


def test_its_recipe_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (written,) = (
        node.value
        for node in ast.parse(SOURCE).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "recipe"
    )
    monkeypatch.chdir(NOTEBOOK.parent)
    recipe = resolve_recipe(eval(compile(ast.Expression(written), "recipe", "eval"), {}))  # noqa: S307 - our own
    assert isinstance(recipe, Recipe)
    assert Path(str(recipe.task.file)).is_file()


def test_a_cell_shows_what_it_prints_its_last_value_and_its_figures() -> None:
    source = "from matplotlib import pyplot\nprint('said')\npyplot.plot([1, 2]);"
    cells = [{"cell_type": "code", "source": [source]}, {"cell_type": "code", "source": ["1 + 1"]}]
    first, second = (cell["outputs"] for cell in execute({"cells": cells})["cells"])
    assert [output["output_type"] for output in first] == ["stream", "display_data"]
    assert first[0]["text"] == ["said\n"]
    assert second[0]["data"] == {"text/plain": ["2"]}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_executed_anew_it_comes_to_the_same_verdict(tmp_path: Path) -> None:
    made = tmp_path / "made.ipynb"
    # A process of its own: the engine holds its memory for as long as its process lives.
    subprocess.run(
        [sys.executable, "-m", "tests.notebook", str(made)], check=True, cwd=NOTEBOOK.parents[1],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert verdicts(json.loads(made.read_text(encoding="utf-8"))) == verdicts(COMMITTED)
