"""What a stranger's run folder did once: ran its code, emptied the user's files, sent the user's key elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mote.harness.demo import MODEL_DIR
from mote.harness.engine.model import resolve_model
from mote.harness.engine.trust import SAFE, Own, is_safe, trusted_recipe
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import RECIPES, Recipe
from tests.harness.report.written_run import WrittenRun, write_run
from tests.harness.strangers.calls import digests, mote, refused

ROOT = Path(__file__).parents[3]
PRECIOUS = "what the user wrote in a year\n"
EVIL = """
from pathlib import Path
Path({mark!r}).write_text("code of a stranger ran")
class Tokenizer: ...
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("written") / "run", WrittenRun(prompts=60, controls=0, top_k=4))
    recipe = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    recipe["study"] = {"top_k": 4}
    recipe["judges"] = {"surprise": False}
    change(folder, recipe=Recipe.model_validate(recipe).model_dump(mode="json"), model=resolve_model("demo").manifest())
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "stranger"))


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "precious.txt"
    path.write_text(PRECIOUS)
    return path


def change(folder: Path, **parts: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


def set_model(folder: Path, **values: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["model"] |= values
    change(folder, recipe=manifest["recipe"])


def evil_model(folder: Path, mark: Path) -> Path:
    """A copy of the demo model whose tokenizer is code that it brings along."""
    shutil.copytree(MODEL_DIR, folder)
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", None]}
    config["tokenizer_class"] = "Tokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("inside", [True, False])
def test_a_run_does_not_bring_code_that_is_run(run: Path, tmp_path: Path, inside: bool) -> None:
    mark = tmp_path / "mark"
    model = evil_model((run if inside else tmp_path) / "model", mark)
    set_model(run, path=str(model), options={"trust_remote_code": True})
    change(run, model=resolve_model(str(model)).manifest())
    for command in ("scan", "rankings", "prune"):
        refused(mote(command, run), "if you trust it, say so with --model")
    # Who trusts the model has not yet asked for its code.
    refused(mote("scan", run, "--model", model), "--engine trust_remote_code=...")
    assert not mark.exists()
    # The code would run, if it was asked for: the proof can fail.
    from transformers import AutoTokenizer

    with pytest.raises(Exception, match=r"."):
        AutoTokenizer.from_pretrained(str(model), trust_remote_code=True).no_such_thing  # noqa: B018
    assert mark.read_text() == "code of a stranger ran"


@pytest.mark.parametrize(
    "options",
    [
        {"worker_cls": "evil.Worker"},
        {"worker_extension_cls": "evil.Worker"},
        {"logits_processors": ["evil:Processor"]},
        {"hf_overrides": {"architectures": ["Evil"], "auto_map": {"AutoConfig": "evil.Config"}}},
        {"scheduler_cls": "evil.Scheduler"},
        {"kv_transfer_config": {"kv_connector": "Evil", "kv_connector_module_path": "evil"}},
        {"compilation_config": {"custom_ops": []}},
        {"speculative_config": {"model": "evil/model"}},
        {"reasoning_parser_plugin": "/tmp/evil.py"},  # noqa: S108
        {"tokenizer": "/tmp/evil"},  # noqa: S108
        {"hf_config_path": "evil/config"},
        {"download_dir": "/root"},
        {"allowed_local_media_path": "/"},
        {"load_format": "pt"},
        {"distributed_executor_backend": "evil.Executor"},
        {"quantization": "../../evil"},
        {"dtype": {"a": 1}},
        {"additional_config": {"a": 1}},
        {"otlp_traces_endpoint": "http://evil"},
        {"an_option_of_a_later_vllm": "evil.Class"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_can_load_code_are_the_users_to_give(run: Path, options: dict[str, Any]) -> None:
    set_model(run, options=options)
    before = digests(run)
    refused(mote("scan", run), f"--engine {next(iter(options))}=...")
    assert digests(run) == before


def test_what_is_taken_from_a_manifest_is_known_to_be_harmless() -> None:
    from dataclasses import fields

    from vllm.engine.arg_utils import EngineArgs

    assert {field.name for field in fields(EngineArgs)} >= SAFE
    assert is_safe("max_model_len", 256)
    assert not is_safe("trust_remote_code", False)
    assert not is_safe("dtype", ["float32"])


def test_a_model_is_not_fetched_because_a_run_says_so(run: Path) -> None:
    set_model(run, path="evil/model")
    refused(mote("scan", run), "say which model it is with --model")


def test_servers_are_the_users_to_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame-open-12345")
    servers = {"urls": ["http://evil.example/v1"], "key_env": "MY_KEY"}
    set_model(run, engine="server", options={}, servers=servers)
    refused(mote("scan", run), "name yours with --server")
    recipe = Recipe.model_validate(json.loads((run / "manifest.json").read_text())["recipe"])
    found = trusted_recipe(recipe, run, Own(servers=("http://127.0.0.1:1/v1",))).model.servers
    assert found is not None
    assert (found.urls, found.key_env) == (["http://127.0.0.1:1/v1"], None)
    with pytest.raises(MoteError, match="--server"):
        trusted_recipe(recipe, run, Own(servers=("no url",)))


def test_a_run_goes_on_with_the_judge_of_the_users_recipe_not_of_the_folder(tmp_path: Path) -> None:
    from mote.harness.study.run import _recipe

    llm = {"model": "judge", "url": "http://127.0.0.1:1/v1"}
    content = yaml.safe_load((RECIPES / "demo.yaml").read_text()) | {"judges": {"surprise": False, "llm": llm}}
    ours = Recipe.model_validate(content)
    theirs = ours.model_dump(mode="json")
    theirs["judges"]["llm"] |= {"url": "http://evil.example/v1", "key_env": "OPENAI_API_KEY"}
    found = _recipe({"recipe": theirs}, ours).judges.llm
    assert found is not None
    assert (found.url, found.key_env) == ("http://127.0.0.1:1/v1", None)


def test_what_frees_a_key_from_being_compared_is_not_the_folders_to_say(run: Path) -> None:
    change(run, older=[""])
    refused(mote("report", run), "older")


def test_the_code_of_a_model_is_in_its_digest(tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))
    assert resolve_model(str(model)).files == resolve_model("demo").files
    (model / "parts").mkdir()
    (model / "parts" / "more.py").write_text("a = 1\n")
    first = resolve_model(str(model)).files
    (model / "parts" / "more.py").write_text("a = 2\n")
    assert first["parts/more.py"] != resolve_model(str(model)).files["parts/more.py"]


LINKED = (
    *("run.lock", "vllm.log", "tables", "figures", "report.html", "export", "manifest.json", "run.sqlite"),
    *("run.sqlite-wal", "run.sqlite-shm", "run.sqlite-journal", "run.sqlite.xz", "sheet.csv", "mt-bench"),
    *("plan.json", "tables/rankings.csv", "figures/1.png", "anything"),
)


@pytest.mark.parametrize("name", LINKED)
def test_no_link_of_a_run_is_followed(run: Path, precious: Path, name: str) -> None:
    link = run / name
    link.parent.mkdir(exist_ok=True)
    if link.exists():
        link.unlink()
    folder = precious.parent / "elsewhere"
    folder.mkdir()
    (folder / "kept.csv").write_text(PRECIOUS)
    link.symlink_to(folder if name in ("tables", "figures", "export", "mt-bench") else precious)
    commands: list[tuple[str | Path, ...]] = [("report", run), ("export", run), ("scan", run)]
    if name == "tables":
        commands += [("judge", "show", run), ("judge", "sheet", run), ("rankings", run), ("prune", run)]
        commands += [("compare", f"{run}:baseline", f"{run}:suppress-4"), ("run", "demo", "--out", run)]
    for command in commands:
        refused(mote(*command), "is a link")
    assert precious.read_text() == PRECIOUS
    assert [item.name for item in folder.iterdir()] == ["kept.csv"]


def test_a_log_that_has_a_second_name_elsewhere_is_not_written_to(run: Path, precious: Path) -> None:
    os.link(precious, run / "vllm.log")
    refused(mote("scan", run), "vllm.log is a file of another name too")
    assert precious.read_text() == PRECIOUS


def test_what_never_ends_is_not_read(run: Path) -> None:
    (run / "manifest.json").unlink()
    os.mkfifo(run / "manifest.json")
    refused(mote("report", run), "neither a file nor a folder")
    refused(mote("run", "/dev/zero", "--out", run.parent / "out"), "neither a file")
    assert not (run.parent / "out").exists()


def test_a_journal_does_not_make_sqlite_delete_the_file_that_it_names(run: Path, precious: Path) -> None:
    name = str(precious).encode()
    magic = bytes.fromhex("d9d505f920a163d7")
    page = (run / "run.sqlite").read_bytes()[:4096]
    header = magic + (1).to_bytes(4, "big") + bytes(4) + (1).to_bytes(4, "big") + (512).to_bytes(4, "big")
    header += (4096).to_bytes(4, "big")
    body = (1).to_bytes(4, "big") + page + (sum(page[4096 - 200 : 0 : -200]) & 0xFFFFFFFF).to_bytes(4, "big")
    pages = ((1 << 30) // 4096 + 1).to_bytes(4, "big")
    tail = pages + name + len(name).to_bytes(4, "big") + (sum(name) & 0xFFFFFFFF).to_bytes(4, "big") + magic
    (run / "run.sqlite-journal").write_bytes(header.ljust(512, b"\0") + body + tail)
    refused(mote("export", run), "is a journal that this store does not keep")
    assert precious.read_text() == PRECIOUS


def test_verify_logs_to_a_name_of_its_own(tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "mote-verify.log").symlink_to(precious)
    # No engine: what is asked of it is refused once the log is open.
    refused(mote("verify", "demo", "--engine", "max_model_len=-7"))
    assert precious.read_text() == PRECIOUS


KILLED = """
import os, signal, sys
from pathlib import Path
from mote.harness import files
import mote.harness.files
def stop(*given):
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = stop
from mote.harness.recipe import manifest
folder = Path(sys.argv[1])
folder.mkdir()
manifest.write_manifest(folder, {"format": "mote-run/1"})
"""


def test_a_kill_in_the_first_write_of_the_manifest_leaves_a_folder_that_goes_on(tmp_path: Path) -> None:
    from mote.harness.recipe.schema import load_recipe
    from mote.harness.study.run import _clear, _earlier, check

    folder = tmp_path / "run"
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith(".manifest.json.")
    study = check(load_recipe("demo", ["task.limit=60"]))
    assert _earlier(study, folder) is None
    _clear(folder)
    assert not list(folder.iterdir())
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(MoteError, match="is not empty and holds no run"):
        _earlier(study, folder)
