"""A finished study of the packaged model whose answers follow a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness.study.scripted_engine import ScriptedEngine, recipe_of, study_of


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: refusals flip under ``suppress-3``, a third of them for each planted expert."""
    folder = tmp_path_factory.mktemp("scripted") / "run"
    little: dict[str, Any] = {"doses": [], "stimulate": False, "factors": [], "thirds": False, "exact": False}
    study_of(folder, recipe_of(**little, controls={"mass": 2, "layers": 2}), ScriptedEngine())
    return folder
