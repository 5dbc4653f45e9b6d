"""`python -m mote.harness.demo.smollm`: measure a built checkpoint, or write the page over what was measured."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from mote.harness.errors import MoteError
from mote.harness.files import write_atomic


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 2 for a user's mistake, which is one line."""
    parser = argparse.ArgumentParser(prog="python -m mote.harness.demo.smollm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="measure a checkpoint on the real engine; goes on where it stopped")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--out", type=Path, required=True)
    checking = commands.add_parser("check", help="measure a checkpoint without an engine, on more held-out prompts")
    checking.add_argument("folder", type=Path)
    checking.add_argument("--out", type=Path, required=True)
    table = commands.add_parser("table", help="write README.md from what was measured")
    table.add_argument("--run", type=Path, help="the finished run of the recipe, to copy its report and tables from")
    table.add_argument("--out", type=Path, required=True)
    plain = commands.add_parser("plain", help="write SmolLM2 itself as a Llama checkpoint")
    plain.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        print(_run(options))
    except MoteError as error:
        print(f"mote: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> Path:
    if options.command == "plain":
        from mote.harness.demo.smollm.source import save_plain

        return save_plain(options.out)
    if options.command == "check":
        return _check(options.folder, options.out)
    if options.command == "measure":
        from mote.harness.demo.smollm.effects import measure_into

        if not (options.folder / "training.json").is_file():
            raise MoteError(f"{options.folder} is no finished build; `mote demo build-smollm --out {options.folder}`.")
        measure_into(options.folder, options.out, tell=lambda part: print(part, flush=True))
        shutil.copyfile(options.folder / "training.json", options.out / "training.json")
        return Path(options.out)
    from mote.harness.demo.smollm.table import copy_run, write_readme

    if options.run:
        copy_run(options.run, options.out)
    return write_readme(options.out)


def _check(folder: Path, out: Path) -> Path:
    from mote.harness.demo.smollm.check import check
    from mote.harness.demo.smollm.source import load_source

    with tempfile.TemporaryDirectory() as work:
        found = check(
            load_source(), folder, Path(work), lambda what, done, of: print(f"{what}: {done}/{of}", flush=True)
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "checked.json", json.dumps(found, indent=1) + "\n")
    return out / "checked.json"


if __name__ == "__main__":
    raise SystemExit(main())
