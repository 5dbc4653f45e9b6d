"""`python -m mote.harness.demo`: train a checkpoint, evaluate one, or write the table over several seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

from mote.harness.demo.card import write_card
from mote.harness.demo.evaluation import evaluate
from mote.harness.demo.quality import Quality
from mote.harness.demo.table import build, measure_into
from mote.harness.demo.trainer import Recipe, Step, train


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 1 when a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m mote.harness.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train a checkpoint, measure it and write its model card")
    training.add_argument("--seed", type=int, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--threads", type=int, default=1)
    measuring = commands.add_parser("evaluate", help="print the figures of a checkpoint as JSON")
    measuring.add_argument("folder", type=Path)
    effects = commands.add_parser("measure", help="measure quality and effects of one checkpoint into a folder")
    effects.add_argument("folder", type=Path)
    effects.add_argument("--out", type=Path, required=True)
    table = commands.add_parser(
        "table", help="measure checkpoints of several seeds and write the table over all of them"
    )
    table.add_argument("folders", type=Path, nargs="*")
    table.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.command == "measure":
        print(measure_into(options.folder, options.out))
        return 0
    if options.command == "table":
        print(build(options.folders, options.out))
        return 0
    if options.command == "evaluate":
        return _report(evaluate(options.folder))
    train(options.seed, options.out, progress=_tell, threads=options.threads)
    quality = evaluate(options.out)
    write_card(options.out, seed=options.seed, recipe=Recipe(), quality=quality)
    return _report(quality)


def _tell(step: Step) -> None:
    if step.step % 50 == 0 or step.step == step.steps:
        print(f"{step.phase} {step.step}/{step.steps} loss {step.loss:.3f} imbalance {step.imbalance:.2f}", flush=True)


def _report(quality: Quality) -> int:
    print(quality.to_json())
    missed = quality.passes()
    for line in missed:
        print(line)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
