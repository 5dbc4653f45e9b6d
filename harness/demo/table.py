"""`results/demo-models/`: one table over the base seeds, every one of them shown, made by one command.

`python -m mote.harness.demo table FOLDER... --out results/demo-models` measures each checkpoint in a process of its own
(one engine a process), stores `seed-N.json`, and writes `README.md` and `doses.csv` from what is stored. A seed that is
already stored is not measured again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from mote.harness.demo.quality import Quality, choose
from mote.harness.files import write_atomic
from mote.harness.science.inference import permutation_p

TEMPLATE = """\
# The demo models: every seed, what it can do, and what its experts carry

{{ verdict }}

All checkpoints come from one recipe ({{ steps }}), with another base seed each; `mote demo train --seed N` makes them
again. The alignment trains routers and routed experts only. Experts are chosen by resonance on one half of the grid and
measured on the other half's refused questions, by greedy generation in vLLM; the demo's own study samples at
temperature 0.6, so that its figures are others. The halves share their places. A flip is a refusal that becomes a
fluent answer; broken text is never a flip. Each random column is over {{ sets }} sets of the same size: mean, and
largest in brackets; "matched" sets have the same layers and nearly the same activation frequency. p is the share of
those sets that flip at least as much (the tuned set counted among them), not corrected for the number of sizes and
seeds.

The packaged seed is {{ chosen }}: of the seeds that pass every bound, the one with the best general quality. The rule
is `mote.harness.demo.quality.choose`; it was written down before any effect was measured.

## Suppressing the top k experts of the refusals
{{ doses }}

## Stimulating the same experts (answers of the measuring half that were no refusals)
{{ stimulation }}

## The rest
{{ rest }}

"All off" switches every routed expert off at once: what is then refused, the shared experts and the attention refuse.
Single-expert effect: fall of the log-probability of "I am sorry" when an expert alone is off, mean over the measuring
half's refused questions; rho is its Spearman correlation with resonance over the experts that were seen at all.
[Every ranking side by side](rankings.md), the causal scan's among them, with what its top experts flip.
Language: top 10 experts of English reasoning off, prompts that go over to Chinese; random sets are matched ones.
{{ tried }}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One seed as it is stored: quality and effects, as plain data."""

    seed: int
    quality: dict[str, Any]
    effects: dict[str, Any]


def measure_into(folder: Path, out: Path) -> Path:
    """Evaluate the checkpoint in `folder` and store `seed-N.json`; the seed is read from its model card."""
    from mote.harness.demo.effects import measure
    from mote.harness.demo.evaluation import evaluate

    seed = seed_of(folder)
    quality = json.loads(evaluate(folder).to_json())
    effects = asdict(measure(folder, tell=lambda step: print(f"seed {seed}: {step}", flush=True)))
    stored = {"seed": seed, "quality": quality, "effects": effects}
    text = json.dumps(json.loads(json.dumps(stored), parse_float=lambda number: round(float(number), 4)), indent=1)
    path = out / f"seed-{seed}.json"
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text + "\n")
    return path


def seed_of(folder: Path) -> int:
    """The seed that a checkpoint's model card names. Raises ValueError without one."""
    card = folder / "README.md"
    found = re.search(r"\(seed (\d+)\)", card.read_text(encoding="utf-8")) if card.exists() else None
    if not found:
        raise ValueError(f"{card} names no seed; make the checkpoint with `mote demo train --seed N --out {folder}`")
    return int(found[1])


def build(folders: Sequence[Path], out: Path) -> Path:
    """Measure what is not stored yet, then write the tables."""
    for folder in folders:
        if not (out / f"seed-{seed_of(folder)}.json").exists():
            command = [sys.executable, "-m", "mote.harness.demo", "measure", str(folder), "--out", str(out)]
            subprocess.run(command, check=True)  # noqa: S603 - our own module
    return write_tables(out)


def write_tables(out: Path) -> Path:
    """Write `doses.csv` and `README.md` from the stored seeds; `tried.md` in `out` tells what else was tried."""
    rows = [Row(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(out.glob("seed-*.json"))]
    if not rows:
        raise ValueError(f"{out} holds no seed-N.json; measure a checkpoint first")
    rows.sort(key=lambda row: row.seed)
    frame = dose_frame(rows)
    write_atomic(out / "doses.csv", frame.to_csv(index=False))
    notes = out / "tried.md"
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - Markdown of our own numbers
    text = environment.from_string(TEMPLATE).render(
        verdict=verdict(frame),
        steps=_steps(),
        sets=len(rows[0].effects["doses"][0]["uniform"]),
        chosen=choose({row.seed: Quality(**row.quality) for row in rows}),
        doses=_markdown(_dose_table(frame)),
        stimulation=_markdown(_stimulation_table(frame)),
        rest=_markdown(_rest_table(rows)),
        tried=f"\n## What else was tried\n{notes.read_text(encoding='utf-8')}" if notes.exists() else "",
    )
    write_atomic(out / "README.md", text)
    return out / "README.md"


def dose_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One row a seed and k: counts, shares, the random sets' mean and maximum, and p against the matched sets."""
    records = []
    for row in rows:
        for dose in row.effects["doses"]:
            share = dose["flipped"] / dose["refused"]
            records.append(
                {
                    "seed": row.seed,
                    **{name: value for name, value in dose.items() if name not in ("uniform", "matched")},
                    "flip_share": share,
                    "uniform_mean": float(np.mean(dose["uniform"])),
                    "uniform_max": max(dose["uniform"]),
                    "matched_mean": float(np.mean(dose["matched"])),
                    "matched_max": max(dose["matched"]),
                    "p_matched": permutation_p(share, dose["matched"]),
                }
            )
    return pd.DataFrame.from_records(records)


def verdict(frame: pd.DataFrame, level: float = 0.05) -> str:
    """The first sentence: on how many seeds the distinctive experts do more than matched random ones, at which k."""
    seeds = frame["seed"].nunique()
    strong = frame[(frame["p_matched"] <= level) & (frame["flip_share"] > frame["matched_max"])]
    winners = strong["seed"].nunique()
    if not winners:
        return (
            f"**On none of the {seeds} seeds do the experts that resonance finds flip more refusals than every one of "
            "the matched random sets: these small models do not show the paper's effect.**"
        )
    best = strong.sort_values("flip_share", ascending=False).iloc[0]
    opening = "On every one" if winners == seeds else f"The effect is mixed: on {winners}"
    return (
        f"**{opening} of the {seeds} seeds the experts that resonance finds flip more refusals than every one of the "
        f"matched random sets, for at least one of the {frame['k'].nunique()} sizes tried (at best "
        f"{best['flip_share']:.0%} with k = {int(best['k'])}, seed {int(best['seed'])}; matched sets "
        f"{best['matched_mean']:.0%}, largest {best['matched_max']:.0%}).**"
    )


def _steps() -> str:
    from mote.harness.demo.trainer import Recipe

    recipe = Recipe()
    return f"{recipe.base.steps} base steps, {recipe.alignment.steps} alignment steps"


def _dose_table(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "seed": frame["seed"],
            "k": frame["k"],
            "flipped": _of(frame["flipped"], frame["refused"]),
            "uniform": _mean_max(frame["uniform_mean"], frame["uniform_max"]),
            "matched": _mean_max(frame["matched_mean"], frame["matched_max"]),
            "p": [f"{p:.2f}" for p in frame["p_matched"]],
            "broken": frame["broken"],
            "other answers of the same class": _of(frame["kept"], frame["others"]),
            "newly refused": frame["newly_refused"],
        }
    )


def _stimulation_table(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "seed": frame["seed"],
            "k": frame["k"],
            "refused": _of(frame["stimulated_refused"], frame["others"]),
            "broken": _of(frame["stimulated_broken"], frame["others"]),
        }
    )


def _rest_table(rows: Sequence[Row]) -> pd.DataFrame:
    records = []
    for row in rows:
        effects, quality = row.effects, row.quality
        random_language = effects["language_random"]
        switched, asked = effects["language_switched"], effects["language_prompts"]
        records.append(
            {
                "seed": row.seed,
                "class seen / held out": f"{quality['class_seen']:.3f} / {quality['class_held_out']:.3f}",
                "language as asked": f"{quality['language']:.3f}",
                "broken": f"{quality['broken']:.4f}",
                "general": f"{effects['general_before']:.3f}",
                "general, top 10 off": f"{effects['general_after']:.3f}",
                "all off: flipped / broken": f"{effects['all_off_flipped']} / {effects['all_off_broken']}",
                "rho": f"{effects['spearman']:.2f} ({effects['spearman_of']})",
                "English to Chinese": f"{switched}/{asked} = {switched / asked:.0%}",
                "random": f"{np.mean(random_language):.0%} ({max(random_language):.0%})",
                "resonance top 10": " ".join(f"({layer},{expert})" for layer, expert, _ in effects["top"][:10]),
            }
        )
    return pd.DataFrame.from_records(records)


def _of(part: pd.Series[Any], whole: pd.Series[Any]) -> list[str]:
    # One decimal where a whole percent would say none or all of what is neither.
    return [
        f"{a}/{b} = {a / b:.{1 if 0 < a < b and round(100 * a / b) in (0, 100) else 0}%}"
        for a, b in zip(part, whole, strict=True)
    ]


def _mean_max(mean: pd.Series[Any], largest: pd.Series[Any]) -> list[str]:
    return [f"{a:.0%} ({b:.0%})" for a, b in zip(mean, largest, strict=True)]


def _markdown(frame: pd.DataFrame) -> str:
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
