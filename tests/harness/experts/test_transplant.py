"""``mote transplant`` on the real engine: cut off and gone on with, one's own route, and what it refuses."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mote.harness.cli.main import app
from mote.harness.engine.vllm import TokenEngine
from mote.harness.errors import MoteError
from mote.harness.experts.transplant import (
    StoredAnswer,
    Transplant,
    TransplantOptions,
    read_answers,
    transplant_run,
)
from mote.harness.experts.transplant_output import write_transplant
from mote.harness.science.transplants import OWN, Graft
from mote.harness.study.session import StartsEngine
from tests.harness.experts.test_scan import QUIET, llm, run, session, written  # noqa: F401

FEW = TransplantOptions(prompts=3)


def answers(folder: Path) -> dict[Graft, StoredAnswer]:
    (file,) = (folder / "transplant").glob("answers-*.jsonl")
    return read_answers(file)


def whole(folder: Path, session: StartsEngine, options: TransplantOptions = FEW) -> Transplant:  # noqa: F811
    found = transplant_run(folder, options, QUIET, engine=session)
    assert found is not None
    return found


def no_engine(*_: Any) -> Any:
    return lambda: pytest.fail("an engine was started")


def test_a_transplant_that_was_cut_off_goes_on(run: Path, session: StartsEngine, tmp_path: Path) -> None:  # noqa: F811
    console = Console(file=io.StringIO(), width=200)
    assert transplant_run(run, FEW, console, dry_run=True, engine=no_engine) is None
    assert "26 answers (0 stored)" in console.file.getvalue()  # type: ignore[attr-defined]
    found = whole(run, session)
    asked = answers(run)
    assert len(asked) == 26
    assert found.missing == 0
    for graft, row in asked.items():
        assert row.forced > 0
        assert (row.changed == 0) == (graft.route == OWN), "a foreign route changes choices, one's own none"
    (file,) = (run / "transplant").glob("answers-*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:12]) + lines[12][:40])
    again = whole(run, session)
    assert answers(run) == asked
    assert again.cells.equals(found.cells)
    assert again.effects.equals(found.effects)
    done = transplant_run(run, FEW, QUIET, engine=no_engine)
    assert done is not None
    assert done.cells.equals(found.cells)
    names = {path.name for path in write_transplant(done, run)}
    assert names == {"cells.csv", "effects.csv", "settings.json", "README.md"}
    page = (run / "transplant" / "README.md").read_text()
    assert f"Under their own routes {done.again} of 6 prompts have the run's own answer" in page
    assert json.loads((run / "transplant" / "settings.json").read_text())["tokens"] == "prompt"


def test_kept_weights_of_generated_tokens_of_one_layer(run: Path, session: StartsEngine) -> None:  # noqa: F811
    found = whole(run, session, TransplantOptions(2, "generated", kept=True, layers=(1,)))
    rows = answers(run)
    assert len(rows) > 12
    assert found.settings["layers"] == (1,)
    assert all(row.forced > 0 for row in rows.values())


def test_by_role_every_turn_of_the_template_follows_its_own(run: Path, session: StartsEngine) -> None:  # noqa: F811
    options = TransplantOptions(prompts=2, align="role")
    found = whole(run, session, options)
    rows = answers(run)
    for graft, row in rows.items():
        assert (row.changed == 0) == (graft.route == OWN)
    page = write_transplant(found, run)[-1].read_text()
    assert "aligned turn by turn" in page


def test_by_role_prompts_of_other_turns_are_refused_before_anything_is_asked(
    run: Path,  # noqa: F811
    session: StartsEngine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = TokenEngine.turns

    def longer(self: Any, messages: Any) -> Any:
        more = [{"role": "system", "content": "Be brief."}] if len(messages[0]["content"]) % 2 else []
        return turns(self, [*more, *messages])

    monkeypatch.setattr(TokenEngine, "turns", longer)
    monkeypatch.setattr(TokenEngine, "generate", lambda *_: pytest.fail("a prompt was asked"))
    with pytest.raises(MoteError, match=r"--align role: prompt '.*' by '.*': turn 1 is (user|system) in the donor's"):
        transplant_run(run, TransplantOptions(prompts=8, align="role"), QUIET, engine=session)


def test_what_it_refuses(run: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(MoteError, match="--layers 99: the layers with experts are"):
        transplant_run(run, TransplantOptions(layers=(99,)), QUIET, engine=no_engine)
    for options, says in (
        (["--tokens", "promt"], "Did you mean 'prompt'?"),
        (["--weights", "keep"], "Did you mean 'kept'?"),
        (["--align", "rolle"], "Did you mean 'role'?"),
        (["--layers", "1;2"], "write numbers with commas"),
    ):
        result = CliRunner().invoke(app, ["transplant", str(run), *options])
        assert result.exit_code != 0
        assert says in str(result.exception) + result.output
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(MoteError, match=r"no such|not the folder|manifest"):
        transplant_run(run, FEW, QUIET, engine=no_engine)
