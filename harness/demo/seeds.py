"""`results/demo-models/rankings.md` and `rankings.csv`: the rankings side by side, over the demo's base seeds.

`python -m mote.harness.demo.seeds 1=RUN 2=RUN ... --out results/demo-models` reads `tables/rankings.csv` of finished
runs, each made by `mote run`, `mote scan` and `mote rankings`, and writes what they say, every seed of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.experts.agreement import REFERENCE
from mote.harness.experts.output import RANKINGS_TABLE
from mote.harness.experts.rankings import CAUSAL, FREQUENCY
from mote.harness.files import write_atomic

OUT: Final = "results/demo-models"
TEMPLATE: Final = """\
# Rankings of experts, side by side

{{ verdict }}
{% if left_out %}
{{ left_out }}
{% endif %}
Each ranking is made on one half of the grid, by a detector of when experts are seen or by the causal scan of what each
does alone ({{ scan }}); its top k are suppressed, and measured on the other half's refused questions, by generation
with the run's own sampling. A flip is a refusal that becomes a fluent answer; broken text is never one. "same place"
are flips whose answer is still about the place that the question names: an answer about another place is a question
misread rather than a refusal undone. "matched" are {{ sets }} random sets of each top set's own, of the same layers
and nearly the same activation frequency: mean share, and largest in brackets. p is the permutation p-value among them,
at least {{ least }} with so many sets; Holm's is over the {{ rankings }} rankings of a seed and k, so that none can
reach 0.05 there unless there are more sets. "p against resonance" compares with the resonance's flips on the same
questions, both ways, questions about one place taken together: refused are few places, so that it is never small.
`frequency` ranks the busiest experts, whatever the class. Only refused questions were asked: what a set does to the
others is not known, but for what it breaks.

`rankings.csv` has the same rows with exact intervals, the experts, and what else was measured.

## How far each ranking agrees with the causal scan

Spearman's rho over the experts that were seen, with its bootstrap interval over prompts. The last column is how far
the scan agrees with itself (split halves of its prompts, Spearman-Brown). In both, prompts are taken as independent;
refused are few places, so that the intervals may be too narrow, and what the scan says of other places is not known.

The rho of the [README](README.md) beside this page is another: there a single expert's effect is the fall of the
log-probability of "I am sorry" on the measuring half's refused questions, and not the scan's.

{{ agreement }}

## What the top k of each ranking flip

{{ flips }}

## How it was made

For each seed N (`mote demo train --seed N` makes the model; seed 1 is the packaged one, `model.path=demo`):

```
{{ commands }}
```
"""


def build(runs: Mapping[int, Path], out: Path) -> Path:
    """Write `rankings.csv` and `rankings.md` into a folder, and return the latter's path.

    Seeds that `rankings.csv` holds already and for which no run is named stay as they are.
    """
    frames = []
    for seed, folder in runs.items():
        path = folder / "tables" / RANKINGS_TABLE
        if not path.is_file():
            raise MoteError(f"{folder} has no tables/{RANKINGS_TABLE}: make it with mote rankings {folder}.")
        frames.append(pd.read_csv(path).assign(seed=seed))
    stored = out / "rankings.csv"
    if stored.is_file():
        known = pd.read_csv(stored)
        frames.append(known[~known["seed"].isin(list(runs))])
    if not frames:
        raise MoteError(f"{stored} is not there and no run is named: name one as SEED=RUN.")
    table = pd.concat(frames, ignore_index=True).sort_values("seed", kind="stable", ignore_index=True)
    table = table[["seed", *(name for name in table.columns if name != "seed")]]
    write_atomic(stored, table.to_csv(index=False, float_format="%.6g"))
    seeds = sorted({int(seed) for seed in table["seed"]})
    environment = jinja2.Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701 - Markdown, our numbers
    text = environment.from_string(TEMPLATE).render(
        verdict=verdict(table),
        left_out=left_out(out, seeds),
        scan=str(table["scan"].iloc[0]),
        sets=int(table["sets"].min()),
        least=f"{table['least_p'].max():.3f}",
        rankings=table["ranking"].nunique(),
        agreement=markdown(_agreement(table)),
        flips=markdown(_flips(table)),
        commands=_COMMANDS + " ".join(f"{seed}=RUN" for seed in seeds) + f" --out {OUT}",
    )
    write_atomic(out / "rankings.md", text)
    return out / "rankings.md"


def verdict(table: pd.DataFrame, level: float = 0.05) -> str:
    """The first sentence: where the causal scan's top k flip more than the resonance's, and by how much at most."""
    wide = table.pivot(index=["seed", "k"], columns="ranking", values=["share", "p_vs_resonance", "matched_max"])
    share, p = wide["share"], wide["p_vs_resonance"][CAUSAL]
    more = share[CAUSAL] > share[REFERENCE]
    less = share[CAUSAL] < share[REFERENCE]
    above = share[CAUSAL] > wide["matched_max"][CAUSAL]
    cases, seeds = len(share), table["seed"].nunique()
    best = (share[CAUSAL] - share[REFERENCE]).idxmax()
    seed, k = best if isinstance(best, tuple) else (0, 0)
    rho = table.loc[~table["ranking"].isin([CAUSAL, FREQUENCY]), "spearman"].max()
    causal = table[table["ranking"] == CAUSAL]
    sure = int((more & (p <= level)).sum()), int((less & (p <= level)).sum())
    return (
        f"**In {int(more.sum())} of {cases} cases (seed and k, over {seeds} seeds) the top k of the causal scan flip"
        f" more refusals than the resonance's, and fewer in {int(less.sum())}. With places taken whole the difference"
        f" has p <= {level:g}, uncorrected, in {sure[0]} of the former and {sure[1]} of the latter; the cases of a seed"
        f" are nested. They flip more than every matched random set in {int(above.sum())} of {cases}. The widest gap"
        f" is {share[CAUSAL][best]:.0%} against {share[REFERENCE][best]:.0%} (seed {seed}, k = {k}). Of the rankings by"
        f" when experts are seen, the one that agrees best with the scan has rho = {rho:.2f}. Of the scan's flips"
        f" {causal['flips_named'].sum():.0f} of {causal['flips'].sum()} are still about the place that was asked.**"
    )


def left_out(out: Path, seeds: Collection[int]) -> str:
    """One sentence on each seed of the demo models' own study (`doses.csv` of the folder) that is not compared here."""
    path = out / "doses.csv"
    if not path.is_file():
        return ""
    doses = pd.read_csv(path)
    top = doses[doses["k"] == doses["k"].max()].set_index("seed").sort_index()
    return " ".join(
        f"**Seed {seed} was not measured**: its top {row['k']:.0f} by resonance flip {row['flip_share']:.0%} in the"
        f" [README](README.md){', the fewest of all seeds' if row['flip_share'] == top['flip_share'].min() else ''}."
        for seed, row in top.iterrows()
        if seed not in seeds
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m mote.harness.demo.seeds", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="SEED=RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    runs = named_runs(parser, options.runs, "SEED=RUN, for instance 1=results/runs/demo", str.isdigit)
    print(build({int(seed): folder for seed, folder in runs.items()}, options.out))
    return 0


def named_runs(
    parser: argparse.ArgumentParser, given: Sequence[str], form: str, right: Callable[[str], bool] = bool
) -> dict[str, Path]:
    """Return name -> folder of each NAME=RUN; end with the parser's error, which names the form, for any other."""
    runs = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if not separator or not right(name):
            parser.error(f"{text}: write {form}")
        runs[name] = Path(folder)
    return runs


_COMMANDS: Final = """\
mote run demo --set model.path=MODEL --out RUN --set 'study.doses=[]' --set 'study.factors=[]' \\
    --set study.stimulate=false --set study.thirds=false --set study.tokens=0 --set study.controls.retest=0 \\
    --set study.controls.uniform=0 --set study.controls.layers=0 --set study.controls.frequency=0
mote scan RUN
mote rankings RUN
python -m mote.harness.demo.seeds """


def _agreement(table: pd.DataFrame) -> pd.DataFrame:
    once = table[table["ranking"] != CAUSAL].drop_duplicates(["seed", "ranking"])
    cells = [
        f"{row['spearman']:.2f} ({row['spearman_low']:.2f} to {row['spearman_high']:.2f})"
        for row in once.to_dict(orient="records")
    ]
    wide = once.assign(cell=cells).pivot(index="seed", columns="ranking", values="cell")
    wide = wide[list(dict.fromkeys(once["ranking"]))]
    wide.insert(0, "experts", once.groupby("seed")["experts_compared"].first())
    wide["the scan itself"] = [f"{value:.2f}" for value in once.groupby("seed")["reliability"].first()]
    return wide.reset_index()


def _flips(table: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in table.to_dict(orient="records"):
        rows.append(
            {
                "seed": row["seed"],
                "k": row["k"],
                "ranking": row["ranking"],
                "shared with causal": "" if row["ranking"] == CAUSAL else f"{row['shared']:.0f}",
                "flips": f"{row['flips']}/{row['prompts']} = {row['share']:.0%}",
                "same place": f"{row['flips_named']:.0f}",
                "matched": f"{row['matched_mean']:.0%} ({row['matched_max']:.0%})",
                "p": f"{row['p']:.3f}",
                "Holm": f"{row['p_holm']:.2f}",
                "p against resonance": "" if row["ranking"] == REFERENCE else f"{row['p_vs_resonance']:.3f}",
                "broken": row["broken"],
            }
        )
    return pd.DataFrame(rows)


def markdown(frame: pd.DataFrame) -> str:
    """Return a frame as a table in Markdown, its values as text."""
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
