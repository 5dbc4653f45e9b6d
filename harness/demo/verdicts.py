"""`verdicts.md` and `verdicts.csv`: what the studies of several models say, each by its own verdict, in one table.

`python -m mote.harness.demo.verdicts NAME=RUN ... --out FOLDER` reads finished runs of `mote run`; rows of other names
that the folder's table has stay.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from mote.harness.demo.seeds import markdown, named_runs
from mote.harness.errors import MoteError
from mote.harness.files import write_atomic
from mote.harness.recipe.manifest import read_manifest
from mote.harness.report.analysis import StudyResult, analyse
from mote.harness.store.run import RunStore

_TEMPLATE: Final = """\
# The same study on each model

{table}

Flips are of the refused prompts that chose no expert, with the Korn-Graubard interval over their places. "Net" is the
fall of the class's share among all measured prompts, against the untouched model under every seed. "Exact" is the fall
of the class's probability by teacher forcing, with its p among the sets of each kind. p is the share of distinct random
sets (or, for `retest`, of exchanges with other seeds) that reach the tuned ones, these counted among them; a dash where
the controls ended before a kind was decided. All legs have to hold at 0.05 for "more than chance"
([how it is reached](../../docs/verdict.md)).
`verdicts.csv` has the figures unrounded.
"""

_NOT_THERE: Final = (math.nan, math.nan, math.nan)


def row_of(name: str, result: StudyResult) -> dict[str, Any]:
    """Return one row of figures: nan where a run's rows do not allow one."""
    chance, effect = result.chance, result.effect
    flips, net, exact = effect.flips, effect.net, effect.exact
    row: dict[str, Any] = {"model": name, "verdict": chance.verdict.kind, "tuned": result.asked.tuned}
    row |= {"prompts": len(chance.targets), "units": len(set(chance.units))}
    figures = (flips.share, flips.low, flips.high) if flips else _NOT_THERE
    row |= dict(zip(("flips", "flips_low", "flips_high"), figures, strict=True))
    figures = (net.net, net.low, net.high) if net else _NOT_THERE
    row |= dict(zip(("net", "net_low", "net_high"), figures, strict=True))
    row |= {f"p_{leg.kind}": leg.p for leg in chance.verdict.legs}
    row |= {f"sets_{leg.kind}": leg.sets for leg in chance.verdict.legs}
    row |= {"p_retest": chance.verdict.noise.p} if chance.verdict.noise else {}
    row |= {"exact": exact.fall if exact else math.nan}
    row |= {f"exact_p_{leg.kind}": leg.p for leg in exact.legs} if exact else {}
    return row | {"reason": chance.verdict.reason}


def build(runs: Mapping[str, Path], out: Path) -> Path:
    """Write `verdicts.csv` and `verdicts.md` into a folder, and return the latter's path.

    Rows of other names that are there stay, so that not all runs have to be kept. Raises MoteError where a folder holds
    no run.
    """
    rows = []
    for name, folder in runs.items():
        with RunStore(folder, read_only=True) as store:
            rows.append(row_of(name, analyse(store, read_manifest(folder))))
    if not rows:
        raise MoteError("no run is named: name one as NAME=RUN.")
    table = _beside(pd.DataFrame(rows), out / "verdicts.csv")
    write_atomic(out / "verdicts.csv", table.to_csv(index=False, float_format="%.6g"))
    text = _TEMPLATE.format(table=markdown(_shown(table)))
    write_atomic(out / "verdicts.md", text)
    return out / "verdicts.md"


def _beside(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Put rows in the place of those of the same name in an earlier table, and new ones behind it."""
    if not path.exists():
        return rows
    earlier = pd.read_csv(path)
    names = list(dict.fromkeys([*earlier["model"], *rows["model"]]))
    kept = earlier[~earlier["model"].isin(rows["model"])]
    table = pd.concat([kept, rows], ignore_index=True).set_index("model").loc[names].reset_index()
    return table[[*earlier.columns, *(name for name in rows.columns if name not in earlier.columns)]]


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    kinds = [name.removeprefix("p_") for name in table.columns if name.startswith("p_")]
    shown = []
    for row in table.to_dict(orient="records"):
        exact = [f"{kind} {row[f'exact_p_{kind}']:.3f}" for kind in kinds if not pd.isna(row.get(f"exact_p_{kind}"))]
        shown.append(
            {
                "model": row["model"],
                "verdict": row["verdict"],
                "tuned": row["tuned"],
                "flips": f"{row['flips']:.1%} of {row['prompts']} ({row['flips_low']:.1%} to {row['flips_high']:.1%},"
                f" {row['units']} units)",
                "net, points": f"{100 * row['net']:+.1f} ({100 * row['net_low']:+.1f} to {100 * row['net_high']:+.1f})",
                **{f"p {kind}": "-" if pd.isna(row[f"p_{kind}"]) else f"{row[f'p_{kind}']:.3f}" for kind in kinds},
                "exact, points": "not measured"
                if pd.isna(row["exact"])
                else f"{100 * row['exact']:+.1f} (p: {', '.join(exact)})",
            }
        )
    return pd.DataFrame(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m mote.harness.demo.verdicts", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    print(build(named_runs(parser, options.runs, "NAME=RUN, for instance demo=results/runs/demo"), options.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
