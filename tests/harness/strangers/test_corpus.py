"""Some 900 malformed inputs of every kind that is read: one line each, exit code 2, nothing written, nothing hangs.

A changed value may still be a valid one, where anything is allowed; a broken text never is. What is accepted must be
used without a traceback, too.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from mote.harness.demo import MODEL_DIR
from mote.harness.errors import MoteError, one_line
from mote.harness.recipe.schema import RECIPES
from tests.harness.report.written_run import WrittenRun, write_run
from tests.harness.strangers.calls import MOST_SHOWN, digests, mote, refused
from tests.harness.strangers.mutations import Case, broken_texts, not_json, seeded, wrong_values, yaml_traps

MOST_SECONDS = 5.0
KINDS = 17
counted: dict[str, int] = {}

RECIPE: dict[str, Any] = yaml.safe_load((RECIPES / "demo.yaml").read_text())
PROFILE: dict[str, Any] = {
    "format": "mote-profile/1",
    "name": "p",
    "tokens": "all",
    "model": {"architecture": "Glm4MoeForCausalLM", "layers": [1, 2, 3], "experts": 64, "top_k": 4},
    "edits": [
        {"layer": 1, "expert": 3, "action": "suppress"},
        {"layer": 2, "expert": 5, "action": "scale", "factor": 0.5},
    ],
}
NOTE = {"digest": "d", "profile": "p", "model": "m", "seed": 1, "raw": "x", "finish_reason": "stop"}
SAMPLE: dict[str, Any] = {
    "doc_id": 0,
    "doc": {"id": "refusal_grid/1/a", "question": "q", "messages": [{"role": "user", "content": "q"}]},
    "doc_hash": "h",
    "prompt_hash": "p",
    "target": "",
    "arguments": {"gen_args_0": {"arg_0": "q", "arg_1": {"temperature": 0.0, "until": []}, "arg_2": {"mote": [NOTE]}}},
    "resps": [["x"]],
    "filtered_resps": ["x"],
    "filter": "none",
    "metrics": ["refused"],
    "refused": 1.0,
    "label": "0-REFUSED",
}
CONFIG: dict[str, Any] = json.loads((MODEL_DIR / "config.json").read_text())


def said(error: BaseException) -> None:
    line = one_line(str(error))
    assert 0 < len(line) <= MOST_SHOWN
    assert line.isprintable()


def each(
    kind: str, cases: Iterator[Case], read: Callable[[bytes], Any], *, must: bool, errors: Any = MoteError
) -> None:
    """Read every case; ``must``: it has to be refused. Anything else than a refusal in words is a traceback."""
    taken = 0
    for name, content in cases:
        began = time.process_time()
        try:
            read(content)
        except errors as error:
            said(error)
        except Exception as error:
            raise AssertionError(f"{kind}, {name}: {type(error).__name__}: {error}") from error
        else:
            taken += 1
            assert not must, f"{kind}, {name}: was taken"
        assert time.process_time() - began < MOST_SECONDS, f"{kind}, {name}"
        counted[kind] = counted.get(kind, 0) + 1
    assert must or taken < counted[kind], kind


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert not (tmp_path / "results").exists()


def writer(path: Path, read: Callable[[], Any]) -> Callable[[bytes], Any]:
    def take(content: bytes) -> Any:
        path.write_bytes(content)
        return read()

    return take


def test_recipes(tmp_path: Path) -> None:
    from mote.harness.recipe.schema import load_recipe
    from mote.harness.study.run import check

    path = tmp_path / "recipe.yaml"
    read = writer(path, lambda: load_recipe(str(path)))
    each("recipe", broken_texts(RECIPE), read, must=True)
    each("recipe", yaml_traps(RECIPE), read, must=True)
    each("recipe", wrong_values(RECIPE, 150), read, must=False)
    for text in ("temperature: yes", "temperature: '0.6'", "top_p: true", "max_tokens: 1.5", "seed: 1e3", "seed: 0x10"):
        content = {key: value for key, value in RECIPE.items() if key != "sampling"}
        path.write_text(f"{json.dumps(content)[:-1]}, sampling: {{{text}}}}}")
        refused(mote("run", path, "--out", tmp_path / "out"), "sampling.")
    each(
        "option", yaml_traps({"a": 1}), lambda text: load_recipe("demo", [f"model.template={text.decode()}"]), must=True
    )
    assert not (tmp_path / "out").exists()
    path.write_text(json.dumps({**RECIPE, "task": {"name": "\x1b[31m" + "no_such_task" * 500}}))
    with pytest.raises(MoteError) as caught:
        check(load_recipe(str(path)))
    said(caught.value)


def test_recipes_of_merges(tmp_path: Path) -> None:
    from mote.harness.merge.schema import load_merge_recipe as load_recipe

    recipe = {
        "name": "m",
        "parents": {"a": {"path": "x"}, "b": {"path": "y"}},
        "base": "a",
        "rules": [{"weights": {"b": 0.5}}],
    }
    path = tmp_path / "merge.yaml"
    read = writer(path, lambda: load_recipe(str(path)))
    each("merge", broken_texts(recipe), read, must=True)
    each("merge", yaml_traps(recipe), read, must=True)
    each("merge", wrong_values(recipe, 50), read, must=False)


def test_judge_prompts(tmp_path: Path) -> None:
    from mote.judges.llm.endpoint import JudgeError
    from mote.judges.llm.prompt import PROMPTS, load_prompt

    prompt = yaml.safe_load((PROMPTS / "refusal-class.yaml").read_text())
    path = tmp_path / "prompt.yaml"
    read = writer(path, lambda: load_prompt(path))
    each("prompt", broken_texts(prompt), read, must=True, errors=JudgeError)
    each("prompt", yaml_traps(prompt), read, must=True, errors=JudgeError)
    each("prompt", wrong_values(prompt, 40), read, must=False, errors=JudgeError)


def test_profiles(tmp_path: Path) -> None:
    from mote.patches import ModelLayout, Profile, ProfileError
    from mote.patches.admission import Admission

    path = tmp_path / "profile.json"
    read = writer(path, lambda: Profile.read(path))
    for cases in (broken_texts(PROFILE), not_json(PROFILE)):
        each("profile", cases, read, must=True, errors=ProfileError)
    each("profile", wrong_values(PROFILE, 100), read, must=False, errors=ProfileError)
    admission = Admission(ModelLayout.from_dict(PROFILE["model"]))
    entry = {"profile": PROFILE, "capture": {"prompt": "counts"}}

    def accept(content: bytes) -> None:
        admission.accept(content.decode("utf-8", "surrogateescape"))

    for cases in (broken_texts(entry), not_json(entry)):
        each("request", cases, accept, must=True, errors=ProfileError)
    each("request", wrong_values(entry, 60), accept, must=False, errors=ProfileError)
    for wrong in ({"format": "mote-profile/2"}, {"name": "a\x1b[2J"}, {"edits": [[1, 3, "suppress"]] * 100_001}):
        with pytest.raises(ProfileError):
            admission.accept({"profile": {**PROFILE, **wrong}})
    for factor in (10**400, float("nan"), float("inf"), -1):
        with pytest.raises(ProfileError):
            admission.accept({"profile": {"edits": [[1, 3, "scale", factor]]}})


def test_logs_of_lm_eval(tmp_path: Path) -> None:
    from mote.harness.compare.sources import read_answers

    path = tmp_path / "samples_refusal_grid_2026-01-01T00-00-00.0.jsonl"
    read = writer(path, lambda: read_answers(str(path)))
    path.write_text(json.dumps(SAMPLE) + "\n")
    assert len(read_answers(str(path)).rows) == 1
    each("lm-eval", broken_texts(SAMPLE), read, must=True)
    # Loggers write NaN, and whoever compares numbers looks at them; else what is no JSON is no log.
    strict = ((name, text) for name, text in not_json(SAMPLE) if b"NaN" not in text and b"Infinity" not in text)
    each("lm-eval", strict, read, must=True)
    with pytest.raises(MoteError, match="nothing to compare"):
        read(json.dumps({**SAMPLE, "refused": float("nan")}).encode())
    each("lm-eval", wrong_values(SAMPLE, 120), read, must=False)
    for name, content in (("bomb.jsonl.gz", gzip.compress(b"[" * (200 << 20))), ("one.jsonl", b"x" * (40 << 20))):
        (tmp_path / name).write_bytes(content)
        refused(mote("compare", tmp_path / name, tmp_path / name), "longer than" if "one" in name else "")
        (tmp_path / name).unlink()
    refused(mote("compare", "/dev/zero", "/dev/zero"))


def test_tables_of_answers(tmp_path: Path) -> None:
    from mote.harness.compare.sources import read_answers

    row = {
        "id": "a",
        "question": "q",
        "answer": "x",
        "reasoning": "",
        "finish_reason": "stop",
        "sample": 1,
        "unit": "u",
    }
    path = tmp_path / "table.jsonl"
    read = writer(path, lambda: read_answers(str(path)))
    each("table", broken_texts(row), read, must=True)
    each("table", wrong_values(row, 40), read, must=False)
    csv = tmp_path / "table.csv"
    take = writer(csv, lambda: read_answers(str(csv)))
    texts = (
        b"id,answer\n1,x\n",
        b"id,id\n1,2\n",
        b'id,answer\n1,"x\n',
        b"id\xff,answer\n",
        b"\x00",
        b"id,answer\n1\n",
        b"a",
    )
    each("csv", ((f"csv {at}", text) for at, text in enumerate(texts)), take, must=False)
    parquet = tmp_path / "table.parquet"
    each("parquet", (("cut", b"PAR1"), ("other", b"PAR1" * 100), ("nothing", b"")).__iter__(),
         writer(parquet, lambda: read_answers(str(parquet))), must=True)  # fmt: skip
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet as pq

    pq.write_table(pa.table({"id": pa.DictionaryArray.from_arrays(pa.array([0] * 30_000_000), ["x" * 1000])}), parquet)
    refused(mote("compare", parquet, parquet), "far more than its size bears")


def test_logs_of_inspect(tmp_path: Path) -> None:
    from mote.harness.compare.sources import read_answers
    from tests.harness.compare.test_logs import HEADER, SAMPLES

    path = tmp_path / "log.json"
    log = {**HEADER, "samples": SAMPLES[:3]}
    read = writer(path, lambda: read_answers(str(path)))
    read(json.dumps(log).encode())
    each("inspect", broken_texts(log), read, must=True)
    each("inspect", wrong_values(log, 60), read, must=False)
    import zipfile

    bomb = tmp_path / "bomb.eval"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b" " * (70 << 20))
    refused(mote("compare", bomb, bomb), "more than")


def test_configurations_of_checkpoints(tmp_path: Path) -> None:
    from mote.harness.engine.model import resolve_model
    from mote.patches import ModelLayout, ProfileError

    model = tmp_path / "model"
    model.mkdir()
    path = model / "config.json"
    read = writer(path, lambda: resolve_model(str(model)))
    for cases in (broken_texts(CONFIG), not_json(CONFIG)):
        each("config", cases, read, must=True)
    each("config", wrong_values(CONFIG, 100), read, must=False)
    for layers in (10**10, 10**30, -5):
        for key in ("num_hidden_layers", "first_k_dense_replace", "n_routed_experts", "num_experts_per_tok"):
            if layers > 0 or key == "num_hidden_layers":
                with pytest.raises((MoteError, ProfileError)):
                    ModelLayout.from_config({**CONFIG, "num_hidden_layers": 6, key: layers})
    nested: Any = CONFIG
    for _ in range(5000):
        nested = {"text_config": nested}
    with pytest.raises(ProfileError):
        ModelLayout.from_config({"architectures": ["X"], **nested})
    refused(mote("merge", "check", model, "--out", tmp_path / "out"))


URLS = (
    *("", " ", "http://", "https://", "ftp://a/v1", "file:///etc/passwd", "//a/v1", "http:///v1", "javascript:1"),
    *("http://user:secret-word@a/v1", "http://secret-word@a/v1", "http://a/v1?key=secret-word", "http://a/v1#secret"),
    *("http://[::1/v1", "http://[x]/v1", "http://a:99999/v1", "http://a:b/v1", "http://a:-1/v1", "http://a:0/v1"),
    *("http://a b/v1", "http://a\n/v1", "http://a\t/v1", "http://a/\x00", "http://é/v1", "http://a\\b/v1"),
    *("http://" + "a" * 5000 + "/v1", "http://a/" + "b" * 5000, "HTTP//a", "http:/a/v1", "a/v1", "127.0.0.1:8000"),
)


def test_urls_of_judges_and_servers() -> None:
    from mote.harness.recipe.schema import load_recipe
    from mote.judges.llm.endpoint import Endpoint, JudgeError

    def server(url: bytes) -> None:
        part = json.dumps({"urls": [url.decode()]})
        load_recipe("demo", ["model.engine=server", "model.options={}", f"model.servers={part}"])

    cases = [(repr(url[:30]), url.encode()) for url in URLS]
    each("judge URL", iter(cases), lambda url: Endpoint(url.decode(), "m"), must=True, errors=JudgeError)
    each("server URL", iter(cases), server, must=True)
    for url in URLS:
        for read, kind in ((lambda one: Endpoint(one, "m"), JudgeError), (lambda one: server(one.encode()), MoteError)):
            with pytest.raises(kind) as caught:
                read(url)
            assert "secret-word" not in str(caught.value)


COMPLETION: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "[[REFUSED]]"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@contextmanager
def replies(bodies: list[tuple[bytes, dict[str, str], int]]) -> Iterator[tuple[str, list[str]]]:
    """A server that sends each body in turn; what was asked of any other path is noted."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            body, headers, status = bodies.pop(0) if bodies else (b"", {}, 500)
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def test_replies_of_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    from mote.judges.llm.client import JudgeClient, UnreachedError
    from mote.judges.llm.endpoint import Endpoint, JudgeError
    from mote.judges.llm.verdict import json_verdict

    monkeypatch.setenv("JUDGE_KEY", "sesame-open-12345")
    cases = [*broken_texts(COMPLETION), *not_json(COMPLETION), *wrong_values(COMPLETION, 90)]
    bodies: list[tuple[bytes, dict[str, str], int]] = [(content, {}, 200) for _, content in cases]
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb") as packed:
        for _ in range(64):
            packed.write(bytes(1 << 20))
    echo = {**COMPLETION, "model": "sesame-open-12345"}
    bodies += [
        (bomb.getvalue(), {"content-encoding": "gzip"}, 200),
        (bomb.getvalue(), {"content-encoding": "gzip, gzip"}, 200),
        (json.dumps(COMPLETION).encode(), {"content-encoding": "x-evil"}, 200),
        *((b"", {"location": "http://evil.example/v1"}, status) for status in (301, 302, 303, 307, 308)),
        (b"", {"location": "/elsewhere"}, 307),
        *((b"x", {"retry-after": after}, 429) for after in ("²", "nan", "-1", "1e999", "9" * 400)),
        (json.dumps(echo).encode(), {}, 200),
    ]
    total = len(bodies)
    found: list[Any] = []

    async def ask(url: str) -> None:
        endpoint = Endpoint(url, "m", "JUDGE_KEY", attempts=1, timeout=30)
        async with JudgeClient(endpoint) as client:
            for _ in range(total):
                try:
                    found.append(await client.complete([{"role": "user", "content": "x"}]))
                except (UnreachedError, JudgeError) as error:
                    said(error)
                    found.append(error)

    with replies(bodies) as (url, asked):
        asyncio.run(ask(url))
    assert set(asked) == {"/v1/chat/completions"}
    assert len(found) == total == len(asked)
    counted["judge reply"] = total
    assert all(isinstance(one, Exception) for one in found[len(cases) : -1])
    assert "sesame" not in str(found)
    assert "redirects to http://evil.example" in str(found)
    json.dumps([str(one) for one in found]).encode()
    verdict = {"explanation": "x", "verdict": "REFUSED"}
    for _, content in (*broken_texts(verdict), *not_json(verdict)):
        assert json_verdict(content.decode("utf-8", "replace"), ["REFUSED", "ANSWERED"]) is None


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("small") / "run", WrittenRun(prompts=40, controls=0, top_k=3))


def test_sheets(small: Path, tmp_path: Path) -> None:
    from mote.harness.judging.sheet import read_sheet, write_sheet
    from mote.judges import JUDGE

    sheet = tmp_path / "sheet.csv"
    if (small / "run.sqlite").exists():
        write_sheet(small, sheet, 10, JUDGE)
    text = sheet.read_bytes()
    rng = seeded()
    before = digests(small)

    def cases() -> Iterator[Case]:
        yield "nothing", b""
        yield "no sheet", b"a,b\n1,2\n"
        yield "no Unicode", b"\xff\xfe" + text
        yield "UTF-16", text.decode("utf-8-sig").encode("utf-16")
        yield "only the head", text.splitlines()[0]
        yield "a label that is none", text.replace(b"\n", b",\n").replace(b",\n", b",maybe\n")
        yield "an item that is none", text.replace(b"\n", b"\nffffffffff,,,,,refused\n", 1)
        yield "a long cell", text + b"x," + b"y" * 200_000 + b",,refused\n"
        yield "a NUL", text + b"a\x00b,,,\n"
        yield "controls", text + b"\x1b[2J,,,,,refused\n"
        for _ in range(20):
            place = rng.randrange(len(text))
            yield f"a byte at {place}", text[:place] + bytes([rng.randrange(256)]) + text[place + rng.randrange(3) :]
        for rater in (b"",) * 5:
            yield "cut", text[: rng.randrange(len(text))] + rater

    each("sheet", cases(), writer(sheet, lambda: read_sheet(small, sheet, "anna")), must=False)
    for rater in ("", "a/b", "../x", "a" * 100, "\x1b", "human:x", "a b"):
        with pytest.raises(MoteError):
            read_sheet(small, sheet, rater)
    after = digests(small)
    assert {name: value for name, value in after.items() if name == "manifest.json"} == {
        name: value for name, value in before.items() if name == "manifest.json"
    }


def test_foreign_manifests(small: Path, tmp_path: Path) -> None:
    from mote.harness.recipe.label_sets import label_set
    from mote.harness.recipe.manifest import read_manifest
    from mote.harness.recipe.schema import markers_of
    from mote.harness.report.effect_sections import heading  # noqa: F401 - a part of what reads a manifest
    from mote.harness.report.evidence_sections import provenance, recipe_text
    from mote.harness.store.listing import runs_table

    manifest = json.loads((small / "manifest.json").read_text())
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "manifest.json"

    def read() -> None:
        runs_table(folder)
        found = read_manifest(folder)
        label_set(found["recipe"])
        markers_of(found["recipe"])
        provenance(found)
        recipe_text(found)

    for cases in (broken_texts(manifest), not_json(manifest)):
        each("manifest", cases, writer(path, read), must=True)
    each("manifest", wrong_values(manifest, 160), writer(path, read), must=False)
    assert [item.name for item in folder.iterdir()] == ["manifest.json"]


RANKINGS = "ranking,k,share,low,high,matched_mean,matched_max\nresonance,5,0.5,0.4,0.6,0.1,0.2\nauc,5,0.5,0.4,0.6,,\n"


def test_tables_of_rankings(tmp_path: Path) -> None:
    from mote.harness.report.ranking_figure import read_rankings

    path = tmp_path / "rankings.csv"
    assert read_rankings(path).empty
    path.write_text(RANKINGS)
    assert len(read_rankings(path)) == 2

    def cases() -> Iterator[Case]:
        for name, old, new in (
            ("text", "0.5", "much"),
            ("infinity", "0.5", "inf"),
            ("blank", "0.5", ""),
            ("twice", "auc", "resonance"),
            ("a cell more", "0.2", "0.2,7"),
            ("quotes", "auc", '"auc'),
            ("a huge number", "0.5", "9" * 5000),
        ):
            yield name, RANKINGS.replace(old, new).encode()
        yield "nothing", b""
        yield "no Unicode", b"\xff" + RANKINGS.encode()
        yield "a NUL", RANKINGS.replace("0.4", "\x00").encode()
        yield "many", RANKINGS.encode() + b"".join(b"r%d,5,0,0,0,0,0\n" % number for number in range(1000))
        yield "large", RANKINGS.encode() + b" " * (5 << 20)

    each("rankings", cases(), writer(path, lambda: read_rankings(path)), must=True)


def test_options_of_the_command_line(tmp_path: Path) -> None:
    for body in ("[]", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "1" * 500, "[" * 2000):
        refused(mote("judge", "ask", tmp_path, "--judge", "m", "--body", body), "--body")
        counted["option"] = counted.get("option", 0) + 1
    for option in ("max_model_len=&a [*a]", "hf_token", "=1", "dtype=!!python/name:os.system"):
        refused(mote("verify", "demo", "--engine", option), "--engine")
        counted["option"] = counted.get("option", 0) + 1
    refused(mote("run", "x" * 10_000))
    refused(mote("run", "\x1b]0;owned\x07" * 10))


def test_there_were_as_many_as_was_said() -> None:
    """The last test: it counts what the others tried, where they ran before it."""
    if len(counted) < KINDS:
        pytest.skip("only some of the others ran")
    assert sum(counted.values()) >= 600, counted
