"""A package that an install lacks is one line that names the extra; one that no extra brings is a traceback."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mote.harness.cli.extras import EXTRAS, hint
from tests.test_docs import ROOT

WITHOUT = """
import sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name in {missing!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Lacking())
from mote.harness.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("missing", "command", "said"),
    [
        (("torch", "vllm", "transformers"), ("serve", "demo"), 'pip install ".[vllm]"'),
        (("torch", "vllm", "transformers"), ("scan", "run"), "make .venv"),
        (("optuna",), ("search", "run"), 'pip install ".[search]"'),
    ],
)
def test_a_plain_install_says_what_it_lacks(
    tmp_path: Path, missing: tuple[str, ...], command: tuple[str, ...], said: str
) -> None:
    (tmp_path / "run").mkdir()
    for name in ("manifest.json", "run.sqlite.xz"):
        shutil.copy(ROOT / "results" / "demo" / name, tmp_path / "run")
    code = WITHOUT.format(missing=missing)
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_every_hint_names_an_extra_that_is_there() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = {name for said in EXTRAS.values() for name in re.findall(r"\.\[([\w-]+)\]", said)}
    assert named
    assert all(re.search(rf"^{re.escape(name)} = \[", project, re.M) for name in named)
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    listed = re.search(r"^\[project.optional-dependencies\]\n(.*?)^\[", project, re.S | re.M)
    assert listed is not None
    assert all(f"{name}]" in page for name in re.findall(r"^([\w-]+) = \[", listed[1], re.M))


def test_a_module_of_no_extra_is_a_mistake_of_ours() -> None:
    assert hint(ModuleNotFoundError("no", name="mote.nowhere")) is None
