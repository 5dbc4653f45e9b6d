"""The same answers under torch.compile, with worker processes, and with the patch switched off."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mote.patches import EMPTY_PROFILE, Observation, ObservationError, read_observation
from mote.patches.families import choice_groups
from tests.conftest import Engines
from tests.patches.asking import APPLIED, ROWS, Answer, Ask, ask, judge, random_bias, random_profile, random_prompt
from tests.patches.reference import Reference
from tests.patches.served import Server, serve
from tests.patches.test_parity import FAMILIES
from tests.patches.test_server import body
from tests.patches.test_transplant import donors, routes


@pytest.mark.parametrize("family", ["glm4", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_compiled(
    family: str, checkpoints: Callable[..., Path], engines: Engines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One whole graph, the same for all profiles; its cache is not the one of the engine without the patch."""
    import vllm
    from torch._dynamo.utils import counters

    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    counters.clear()
    folder = checkpoints(family, **FAMILIES[family])
    llm, reference = engines(folder, enforce_eager=False), Reference(folder)
    groups = choice_groups(reference.config)
    asks = [Ask(random_prompt(0, 20)), Ask(random_prompt(1, 20), EMPTY_PROFILE, "prompt")]
    asks += [
        Ask(random_prompt(seed, 5 + 7 * (seed % 5)), random_profile(reference.layout, seed), "prompt")
        for seed in range(8)
    ]
    asks += [
        Ask(random_prompt(seed, 5 + 7 * (seed % 5)), random_bias(reference.layout, seed, groups=groups), "prompt")
        for seed in range(4)
    ]
    asks += [Ask(random_prompt(20, 20), EMPTY_PROFILE, ROWS), Ask(random_prompt(21, 20), None)]
    asks += [
        Ask(random_prompt(seed, size), EMPTY_PROFILE, APPLIED, route=route)
        for seed, (size, route) in enumerate(routes(donors(llm), reference.layout))
    ]
    mixed = ask(llm, asks)
    for sent, got in zip(asks, mixed, strict=True):
        judge(reference, sent, got)
    for sent, got in list(zip(asks, mixed, strict=True))[::5]:
        (alone,) = ask(llm, [sent])
        judge(reference, sent, alone)
        assert alone.tokens == got.tokens
    assert not counters["graph_break"]
    # vLLM 0.31 also compiles a graph of its own that has nothing to do with the model's.
    assert counters["stats"]["unique_graphs"] == (2 if vllm.__version__.startswith("0.31.") else 1)
    config = llm.llm_engine.vllm_config
    assert config.compute_hash() != type(config).compute_hash.__wrapped__(config)


def converse(server: Server, reference: Reference) -> None:
    profiles = [random_profile(reference.layout, seed) for seed in range(4)]
    profiles += [random_bias(reference.layout, seed, groups=(4, 2)) for seed in range(2)]
    asks = [Ask(random_prompt(seed, 30), profile, "prompt", 8) for seed, profile in enumerate(profiles)]
    for sent in asks:
        reply = server.post("/v1/completions", body(sent, prompt=sent.prompt))
        assert reply.status == 200, reply.body
        choice = reply.body["choices"][0]
        observation: Observation = read_observation(choice)
        judge(reference, sent, Answer(choice["token_ids"], 0, observation))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["compiled", "worker process", "two workers"])
def test_served(mode: str, checkpoints: Callable[..., Path], tmp_path: Path) -> None:
    options = {
        "compiled": [],
        "worker process": ["--enforce-eager", "--distributed-executor-backend", "mp"],
        "two workers": ["--enforce-eager", "--tensor-parallel-size", "2"],
    }[mode]
    folder = checkpoints("glm4")
    # vLLM gives each CPU worker a NUMA node; on a machine with one, cores must be named.
    bind = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if mode == "two workers" else {}
    with serve(folder, tmp_path / "log", *options, VLLM_CACHE_ROOT=str(tmp_path / "cache"), **bind) as server:
        converse(server, Reference(folder))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_without_the_patch_is_noticed_at_the_first_answer(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    sent = Ask([1, 2, 3], EMPTY_PROFILE)
    with serve(checkpoints("glm4"), tmp_path / "log", "--enforce-eager", MOTE_PATCH="0") as server:
        reply = server.post("/v1/completions", body(sent, prompt=sent.prompt))
        assert reply.status == 200
        with pytest.raises(ObservationError, match="runs without the MoTE patch"):
            read_observation(reply.body["choices"][0])


def test_the_switch() -> None:
    """Switched off, nothing of vLLM is touched; a client's side needs neither vLLM nor torch."""
    script = (
        "import json, sys, os\n"
        "import mote.patches\n"
        "light = not any(name.split('.')[0] in ('vllm', 'torch') for name in sys.modules)\n"
        "os.environ['MOTE_PATCH'] = '0'\n"
        "from mote.patches import plugin\n"
        "plugin.register()\n"
        "print(json.dumps([light, plugin._registered]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, False]
