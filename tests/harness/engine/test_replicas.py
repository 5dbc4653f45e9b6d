"""Servers started together: how they are looked after and ended, with small servers and (slow) with vLLM's."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mote.harness.cli.main import app
from mote.harness.cli.up import here
from mote.harness.demo import MODEL_DIR
from mote.harness.engine import replicas
from mote.harness.engine.replicas import Replica, Replicas, gpus, shares
from mote.harness.errors import MoteError
from mote.harness.files import canonical_json
from mote.harness.recipe.schema import load_recipe

ROOT = Path(__file__).parents[3]
# It has a child of its own, as a server has an engine; both end at SIGTERM unless told to be stubborn.
SERVER = """
import http.server, signal, subprocess, sys
port, stubborn = int(sys.argv[1]), sys.argv[2] == "stubborn"
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print("child", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def a_replica(folder: Path, program: str = SERVER, manner: str = "mild") -> Replica:
    port = free_port()
    command = [sys.executable, "-c", program, str(port), manner]
    return Replica(f"http://127.0.0.1:{port}/v1", command, os.environ, folder / f"{port}.log", "none")


def children(one: Replica) -> list[int]:
    return [int(pid) for pid in re.findall(r"child (\d+)", one.log.read_text())]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_they_come_up_and_end_with_all_that_they_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_ENDS", 2.0)
    said: list[str] = []
    both = [a_replica(tmp_path), a_replica(tmp_path, manner="stubborn")]
    with Replicas(both, said.append) as running:
        running.wait(60, 0.05)
        assert [line.split(" after")[0] for line in sorted(said)] == [f"{one.url} is up" for one in sorted_by_url(both)]
        pids = [pid for one in both for pid in children(one)]
        assert len(pids) == 2
        assert all(map(runs, pids))
    # They are killed by then; where cores are busy, the end of a process that is not ours to wait for takes a moment.
    limit = time.monotonic() + 10
    while any(map(runs, pids)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(runs, pids))
    assert not any(one.answers() for one in both)


def sorted_by_url(found: list[Replica]) -> list[Replica]:
    return sorted(found, key=lambda one: one.url)


def test_one_that_ends_is_started_again_and_one_that_ends_at_once_ends_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    one = a_replica(tmp_path)
    with Replicas([one], said.append) as running:
        running.wait(60, 0.05)
        assert one._process is not None
        monkeypatch.setattr(replicas, "_LONG", 0.0)
        one._process.kill()
        one._process.wait()
        watching = running.watch(0.05)
        limit = time.monotonic() + 60
        assert any(up for up in watching if time.monotonic() < limit)
        assert [line.removeprefix(f"{one.url} ").split(" (")[0].split(" after")[0] for line in said] == [
            "is up",
            "ended with -9 and is started again",
            "is up",
        ]
        assert [runs(pid) for pid in children(one)] == [False, True], "the dead server's engine was ended, too"
        monkeypatch.setattr(replicas, "_LONG", 60.0)
        one._process.kill()
        one._process.wait()
        with pytest.raises(MoteError, match=r"ended with -9 after \d+ s \(.*\.log\)"):
            list(islice(watching, 2))


def test_one_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    fails = a_replica(tmp_path, "print('mote: there is no model'); print('bye'); raise SystemExit(3)")
    fine = a_replica(tmp_path)
    with (
        pytest.raises(MoteError, match=r"ended with 3 before it was up \(.*\): mote: there is no model$"),
        Replicas([fine, fails], lambda line: None) as running,
    ):
        running.wait(60, 0.05)
    assert fine.ended() is not None
    silent = a_replica(tmp_path, "import time; print('loading', flush=True); time.sleep(300)")
    with (
        pytest.raises(MoteError, match=r"not up after 1 s \(.*\): loading"),
        Replicas([silent], lambda line: None) as running,
    ):
        running.wait(1, 0.05)


def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path) -> None:
    one = a_replica(tmp_path)
    with Replicas([one], lambda line: None) as running:
        running.wait(60, 0.05)
        with pytest.raises(MoteError, match="is taken"), Replicas([one], lambda line: None):
            pass


def test_which_servers_are_here_and_on_which_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ["http://127.0.0.1:8000/v1", "http://far:8000/v1", "http://localhost:8001/v1", "http://[::1]:8002/v1"]
    assert [port for _, port in here(urls)] == [8000, 8001, 8002]
    for wrong, words in ((["http://far:8000/v1"], "nothing to start"), (["http://localhost/v1"], "names no port")):
        with pytest.raises(MoteError, match=words):
            here(wrong)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5, 6,7")
    assert shares(gpus(), 2, 2) == ["4,5", "6,7"]
    assert shares([], 2, 2) == [None, None]
    with pytest.raises(MoteError, match=r"3 servers of 2 GPUs need 6; there are 4: name at most 2"):
        shares(gpus(), 3, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo"], "has its model in this process"),
        (["nosuch"], "nosuch"),
        (["SERVED", "--tensor-parallel-size", "two"], "takes a number of GPUs, not 'two'"),
        (["SERVED", "--set", "model.servers.urls=[http://far:1/v1]"], "nothing to start"),
        (["SERVED", "--set", "model.servers.key_env=NO_SUCH"], "NO_SUCH is not set"),
        (["SERVED", "-tp=8", "--data-parallel-size=2"], "2 servers of 16 GPUs need 32; there are 2"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.chdir(tmp_path)
    path = a_recipe(tmp_path, free_port(), free_port())
    found: Any = CliRunner().invoke(app, ["up", *(str(path) if one == "SERVED" else one for one in arguments)])
    assert isinstance(found.exception, MoteError), found.output
    assert re.search(words, str(found.exception))


def a_recipe(folder: Path, *ports: int) -> Path:
    urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
    asked = load_recipe("demo").model_dump(mode="json")
    asked["model"] |= {"path": str(MODEL_DIR), "engine": "server", "options": {}, "servers": {"urls": urls}}
    path = folder / "served.yaml"
    path.write_text(canonical_json(asked))
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_servers_of_the_demo_answer_and_end_with_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    ports = (free_port(), free_port())
    recipe = a_recipe(tmp_path, *ports)
    run = "from mote.harness.cli.main import main; main()"
    options = ["--max-model-len", "256", "--kv-cache-memory-bytes", "268435456", "--enforce-eager"]
    command = [sys.executable, "-c", run, "up", str(recipe), "--logs", str(tmp_path / "logs"), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    # The suite may itself run in the background, where Ctrl-C is ignored.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as up:
        signal.signal(signal.SIGINT, heard)
        assert up.stdout is not None
        said = ""
        while "All are up" not in said:
            line = up.stdout.readline()
            assert line, said
            said += line
        up.send_signal(signal.SIGINT)
        said += up.stdout.read()
        assert up.wait(120) == 0
    assert said.count("is up after") == 2
    assert said.endswith("Ended.\n")
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
