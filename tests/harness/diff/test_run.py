"""Two runs side by side on planted truth: a sibling that is the same, one whose planted experts do nothing any more."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner

from mote.harness.cli.main import app
from mote.harness.diff.baselines import scan_difference
from mote.harness.diff.output import as_json, show_diff, write_diff
from mote.harness.diff.plan import DiffOptions
from mote.harness.diff.run import Diff, diff_runs
from mote.harness.diff.sides import Side, read_sides
from mote.harness.engine.model import resolve_model
from mote.harness.engine.trust import Own
from mote.harness.engine.vllm import Answer, Request
from mote.harness.errors import MoteError
from mote.harness.files import MODEL_DIR, digest_of
from mote.harness.science.causal import Measurement
from mote.harness.store.run import RunStore
from mote.harness.store.scans import Scans, ScoreRow
from mote.patches import Edit, Profile
from tests.harness.study.scripted_engine import (
    EXPERTS,
    LAYERS,
    Killed,
    ScriptedEngine,
    chance,
    recipe_of,
    refused,
    study_of,
)

QUIET = Console(quiet=True)
SERVERS = Own(servers=("http://127.0.0.1:1/v1",))
OPTIONS = DiffOptions(seeds=2, sets=4)
ENOUGH = DiffOptions(sets=39)
RECIPE = recipe_of(limit=200, controls={"mass": 0, "layers": 0, "retest": 1}, exact=False)
TOKENS, CHOICES = 40, 640
ELSEWHERE = ((0, 60), (3, 61), (5, 62))


@dataclass
class Sibling(ScriptedEngine):
    """Refuses a tenth less of the prompts, and chooses other experts for them."""

    def _answer(self, request: Request) -> Answer:
        found = super()._answer(request)
        if not request.profile.edits and chance("lost", request.prompt_id) < 0.1:
            found = found._replace(raw=found.raw.replace("I am sorry, I cannot answer that question.", "A bridge."))
        maps = {
            role: replace(one, counts=_moved(one.counts, request.prompt_id), counted=TOKENS, total=TOKENS)
            for role, one in found.observation.maps.items()
        }
        return found._replace(observation=replace(found.observation, maps=maps))


@dataclass
class Model(ScriptedEngine):
    """The scripted engine, whose maps have room for the counts of the planted experts."""

    def _answer(self, request: Request) -> Answer:
        found = super()._answer(request)
        maps = {
            role: replace(one, counts=_evened(one.counts), counted=TOKENS, total=TOKENS)
            for role, one in found.observation.maps.items()
        }
        return found._replace(observation=replace(found.observation, maps=maps))


def _evened(counts: NDArray[Any]) -> NDArray[np.int32]:
    """The same number of choices in every layer, as a router makes them: what lacks goes to all experts alike.

    So many that random sets as busy as the planted experts seldom have them.
    """
    found = counts.astype(np.int32).copy()
    for row in found:
        each, rest = divmod(CHOICES - int(row.sum()), EXPERTS)
        row += each
        row[:rest] += 1
    return found


def _moved(counts: NDArray[Any], prompt: str) -> NDArray[np.int32]:
    found = counts.copy()
    for layer, expert in ELSEWHERE:
        found[LAYERS.index(layer), expert] += 12 if refused(prompt) else 0
    return _evened(found)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two runs: the model's, and that of a sibling in which no edit does anything."""
    folder = tmp_path_factory.mktemp("studied")
    study_of(folder / "model", RECIPE, Model(effect=0.3), force=True)
    study_of(folder / "sibling", RECIPE, Sibling(effect=0.0, rest=0.03), force=True)
    return folder


@pytest.fixture
def runs(studied: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(studied, tmp_path / "runs"))


def diff(
    runs: Path,
    other: str = "sibling",
    options: DiffOptions = OPTIONS,
    engines: dict[str, ScriptedEngine] | None = None,
    console: Console = QUIET,
    **how: bool,
) -> Diff:
    made = engines or {"model": Model(), "sibling": Sibling(effect=0.0), "copy": Model()}
    found = diff_runs(
        runs / "model", runs / other, options, console,
        engine=lambda recipe, model, log, said: lambda: made[log.parent.name], own=(SERVERS, SERVERS), **how,
    )  # fmt: skip
    assert found is not None
    return found


def flipped(found: Diff) -> pd.DataFrame:
    return found.effects[found.effects["measure"] == "flipped"].set_index("edit")


def test_a_copy_differs_in_nothing(runs: Path) -> None:
    shutil.copytree(runs / "model", runs / "copy")
    found = diff(runs, "copy")
    matrix = found.classes.matrix.to_numpy()
    assert matrix.trace() == matrix.sum() == 200
    assert found.classes.changed == 0
    assert (found.classes.net.net, found.classes.mcnemar.p) == (0.0, 1.0)
    assert found.maps[["activations", "resonance", "routing"]].to_numpy() == pytest.approx(1.0)
    assert found.maps["within"].to_numpy() == pytest.approx(found.maps["between"].to_numpy())
    assert (found.tops["shared"] == found.tops["k"]).all()
    assert list(found.effects["edit"].unique()) == ["untouched", "both models' own"]
    assert (found.effects[["difference", "low", "high"]] == 0).all(axis=None)
    assert (found.effects["p_seeds"] == 1).all()
    assert set(found.effects["said"]) <= {"", "not-apart", "few"}
    assert "Both runs are of the same files" in found.notes[0]


def test_planted_experts_that_do_nothing_in_the_sibling_are_changed(runs: Path) -> None:
    found = diff(runs, options=ENOUGH)
    rows = flipped(found)
    own = rows.loc["model's own"]
    assert own["effect"] > 0.5
    assert abs(own["effect_other"]) < 0.1
    assert own["high"] < -0.3
    assert own["said"] == "changed"
    assert own["p"] == max(own["p_seeds"], own["p_sets"])
    assert own["p_sets"] == pytest.approx(1 / 40)
    # A tenth of the refusals is gone, and the other model chooses more experts for what it refuses.
    assert 0 < found.classes.changed < 20
    assert found.classes.rates.flips.hits > 0
    whole = found.maps.set_index("layer").loc["all"]
    assert 0.9 < whole["routing"] < 1
    assert whole["between"] < whole["within"]
    engines: dict[str, ScriptedEngine] = {"model": Model(), "sibling": Sibling(effect=0.0)}
    again = diff(runs, options=ENOUGH, engines=engines)
    assert not engines["model"].asked, "what is stored is not asked again"
    assert as_json(again) == as_json(found)


def test_a_difference_that_was_killed_goes_on_to_the_same_end(runs: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs, tmp_path / "others"))
    whole = diff(other)
    with pytest.raises(Killed):
        diff(runs, engines={"model": Model(kill_after=30), "sibling": Sibling(effect=0.0)})
    engines: dict[str, ScriptedEngine] = {"model": Model(), "sibling": Sibling(effect=0.0)}
    assert as_json(diff(runs, engines=engines)) == as_json(whole)
    assert not engines["sibling"].asked
    asked = [(one.profile.digest, one.prompt_id, one.seed) for one in engines["model"].asked]
    assert len(set(asked)) == len(asked) > 0


def test_only_prompts_that_chose_nothing_are_asked_and_with_other_seeds_than_the_baseline(runs: Path) -> None:
    engines: dict[str, ScriptedEngine] = {"model": Model(), "sibling": Sibling(effect=0.0)}
    found = diff(runs, options=DiffOptions(seeds=2, sets=2, prompts=6), engines=engines)
    first, second = read_sides(runs / "model", runs / "sibling")
    held = set(first.halves.measured) & set(second.halves.measured)
    for engine in engines.values():
        assert {one.prompt_id for one in engine.asked} <= held
        assert len({one.prompt_id for one in engine.asked}) == 6
    assert found.settings["sampling_seeds"] == [1, 2]
    # Of six prompts nothing is said, whatever they show.
    assert set(found.effects["said"]) == {"", "few"}


def test_what_is_written_and_printed_agrees(runs: Path) -> None:
    found = diff(runs)
    out = runs / "out"
    names = {path.name for path in write_diff(found, out)}
    assert names == {f"{name}.csv" for name in ("classes", "maps", "tops", "effects", "sets")} | {
        "diff.json", "diff.png", "diff.pdf", "diff.svg",
    }  # fmt: skip
    written = json.loads((out / "diff.json").read_text())
    assert written["format"] == "mote-diff/1"
    effects = pd.read_csv(out / "effects.csv")
    assert list(effects["said"].fillna("")) == [row["said"] for row in written["effects"]]
    assert len(pd.read_csv(out / "sets.csv")) == 2 * sum(row["sets"] or 0 for row in written["effects"]) / 2
    console = Console(file=io.StringIO(), width=200)
    show_diff(found, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "model's own, flipped: too few prompts, units, seeds or sets to tell." in said
    assert "to broken text" in said
    assert "broken of" in said


def edited(runs: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = runs / "sibling" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it["model"]["layout"].update(experts=32), "no common layout of experts: experts a layer 64 in"),
        (lambda it: it["model"]["layout"].update(layers=[1, 2]), "experts in the layers"),
        (lambda it: it["recipe"]["study"].update(top_k=5), r"another recipe than .* \(study\.top_k: 3 -> 5\)"),
        (lambda it: it["recipe"]["sampling"].update(seed=7), r"sampling\.seed: 0 -> 7"),
    ],
)
def test_runs_that_differ_in_more_than_the_model_are_refused(
    runs: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    edited(runs, change)
    with pytest.raises(MoteError, match=said):
        diff(runs)


def test_other_prompts_other_tokens_and_one_run_twice_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(MoteError, match="are one run: copy it"):
        diff(runs, "model")
    sibling = tmp_path / "sibling-model"
    shutil.copytree(MODEL_DIR, sibling)
    template = sibling / "chat_template.jinja"
    template.write_text("Be kind. " + template.read_text())
    edited(runs, lambda it: it["model"].update(files=resolve_model(str(sibling)).files))
    with pytest.raises(MoteError, match=r"another tokenizer or chat template: prompt '.*' is"):
        diff_runs(
            runs / "model", runs / "sibling", OPTIONS, QUIET,
            engine=lambda *_: lambda: Model(), own=(SERVERS, SERVERS._replace(model=str(sibling))),
        )  # fmt: skip
    with RunStore(runs / "sibling", existing=True) as store, store.transaction():
        store.db.execute("update prompts set messages = replace(messages, 'What', 'Who') where position = 3")
    with pytest.raises(MoteError, match=r"asked other prompts: '.*' is another text"):
        diff(runs)


def test_profiles_that_cannot_be_set_beside_random_sets_are_refused(runs: Path) -> None:
    two = Profile("two", (Edit(0, 1, "suppress"), Edit(1, 1, "scale", 0.5)))
    with pytest.raises(MoteError, match="--profile two edits its experts in 2 ways"):
        diff(runs, options=replace(OPTIONS, profiles=(two,)))
    far = Profile("far", (Edit(9, 1, "suppress"),))
    with pytest.raises(MoteError, match="layer 9"):
        diff(runs, options=replace(OPTIONS, profiles=(far,)))
    with pytest.raises(MoteError, match="--profile nothing edits nothing"):
        diff(runs, options=replace(OPTIONS, profiles=(Profile("nothing", ()),)))
    found = diff(runs, options=DiffOptions(seeds=1, sets=0, profiles=(two,)))
    assert "two" in flipped(found).index
    with pytest.raises(MoteError, match="--seeds 6: from 1 to 5"):
        DiffOptions(seeds=6)


def test_scans_of_both_runs_say_which_single_expert_s_effect_differs(runs: Path) -> None:
    first, second = read_sides(runs / "model", runs / "sibling")
    assert scan_difference(first, second) is None
    keys = first.halves.measured[:6]
    for side, drop in ((first, 1.0), (second, 0.0)):
        _scan(side, keys, drop)
    found = scan_difference(first, second)
    assert found is not None
    changed = found[found["p_holm"] <= 0.05]
    assert changed[["layer", "expert"]].to_numpy().tolist() == [[1, 3]]
    assert changed["effect"].iloc[0] == pytest.approx(-1.0, abs=0.2)


def _scan(side: Side, keys: list[str], drop: float) -> None:
    """Store a scan of three experts, of which (1, 3) makes the own opening less likely by ``drop`` nats."""
    openings = dict.fromkeys(keys, "I am")
    settings = {
        "action": "suppress", "factor": 0.0, "tokens": 2, "alternatives": ["In"], "prompts": openings, "target": "x",
        "seed": 0,
    }  # fmt: skip
    with RunStore(side.folder, existing=True) as store:
        scans = Scans(store)
        number = scans.begin(settings, {})
        rows = [
            ScoreRow(
                Measurement(key, expert, opening),
                [("I", -2.0 if opening else -0.5 - drop * (expert == (1, 3)) - 0.01 * chance(key, expert, drop))],
                1, digest_of({}), 1,
            )
            for key in keys
            for expert in (None, (1, 3), (2, 5), (4, EXPERTS - 1))
            for opening in (0, 1)
        ]  # fmt: skip
        scans.add(number, rows)


def test_the_command_says_what_is_missing(runs: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["diff", *arguments])
        assert result.exit_code != 0
        return str(result.exception)

    model = tmp_path / "folder"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert "is a model, not a run: name the recipe" in said(str(model), str(model))
    assert "--set changes a recipe" in said(str(runs / "model"), str(runs / "sibling"), "--set", "study.top_k=4")
    assert "name the folder of both runs with --out" in said("demo", "demo", "--recipe", "demo")
    assert "mote plan says" in said("demo", "demo", "--recipe", "demo", "--out", str(tmp_path), "--dry-run")
    result = CliRunner().invoke(
        app, ["diff", str(runs / "model"), str(runs / "sibling"), "--dry-run", "--server", "http://127.0.0.1:1/v1",
              "--other-server", "http://127.0.0.1:1/v1"],
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    assert "2 edits x 3 seeds and 78 random sets" in result.output
