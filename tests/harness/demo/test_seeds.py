"""What is printed of rankings, and the table over the demo's seeds, from tables whose numbers are known."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from mote.harness.demo.seeds import build, left_out, main, verdict
from mote.harness.errors import MoteError
from mote.harness.experts.comparison import Rankings
from mote.harness.experts.output import show_rankings, show_scan


def rows(flips: dict[str, int], k: int = 10, p_against: float = 0.01) -> pd.DataFrame:
    found = []
    for name, count in flips.items():
        own = name == "causal"
        found.append(
            {
                "ranking": name, "k": k, "experts_compared": 0 if own else 377,
                "spearman": float("nan") if own else 0.07, "spearman_low": float("nan") if own else 0.01,
                "spearman_high": float("nan") if own else 0.12, "shared": float("nan") if own else 2.0, "chance": 0.3,
                "prompts": 60, "flips": count, "share": count / 60, "low": 0.1, "high": 0.3,
                "flips_named": count - 1, "broken": 3, "broken_share": 0.05, "sets": 20, "matched_mean": 0.02,
                "matched_max": 0.1, "matched_broken": 0.0, "busier": 0.4, "p": 0.048, "p_holm": 0.3, "least_p": 1 / 21,
                "p_vs_resonance": float("nan") if name == "resonance" else p_against, "experts": "(0,1)",
                "reliability": 0.78, "scan": "suppress, 24 prompts, 5 openings",
            }
        )  # fmt: skip
    return pd.DataFrame(found)


def shown(found: Rankings) -> str:
    console = Console(file=io.StringIO(), width=80)
    show_rankings(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_comparison_fits_a_terminal_of_80_columns_and_says_all_of_it() -> None:
    table = pd.concat([rows({"resonance": 9, "router_weight_resonance": 12, "causal": 44}, k) for k in (5, 10)])
    text = shown(Rankings(table, pd.DataFrame(), 0.78, "suppress, 24 prompts, 5 openings", "place"))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "Top 10 switched off" in text
    cells = next(line for line in text.splitlines() if line.startswith("causal")).split()
    assert cells == ["causal", "44/60", "10-30%", "43", "2%", "(10%)", "0.048", "0.30", "3"]
    assert "agrees with itself at 0.78" in " ".join(text.split())
    assert "still about the place" in text


def test_a_comparison_without_scan_controls_or_places_says_so_and_leaves_them_out() -> None:
    table = rows({"resonance": 9}).assign(
        spearman=float("nan"), shared=float("nan"), flips_named=float("nan"), sets=0, p=float("nan"),
        p_holm=float("nan"),
    )  # fmt: skip
    text = shown(Rankings(table, pd.DataFrame(), float("nan"), "", ""))
    assert "No causal scan to compare with is in this run" in text
    assert "matched:" not in text
    assert "same" not in text
    assert not re.search(r"\bnan\b", text)


def test_a_scan_shows_its_strongest_experts_and_how_many_are_above_0() -> None:
    effects = pd.DataFrame(
        {
            "layer": [0, 1, 2, 3], "expert": [5, 6, 7, 8], "complete": [True, True, True, False],
            "effect": [0.5, 0.1, -0.2, 9.0], "low": [0.3, -0.1, -0.4, 8], "high": [0.7, 0.3, 0.1, 9],
            "p": [1e-4, 0.3, 0.01, 0.01], "p_holm": [3e-4, 0.3, 0.02, float("nan")], "selected": [40, 7, 0, 3],
        }
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    show_scan(effects, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "(3, 8)" not in text
    assert "Of 3 experts 1 have one above 0 (Holm, p <= 0.05); 1 were chosen by no token." in text
    assert "Prompts are taken as independent" in text
    show_scan(effects[3:], console)
    assert "No expert is measured on all prompts yet." in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_verdict_counts_wins_and_losses_of_the_scan_alike() -> None:
    better, worse = rows({"resonance": 9, "causal": 44}), rows({"resonance": 9, "causal": 3}, k=20)
    table = pd.concat([better.assign(seed=1), worse.assign(seed=1), rows({"resonance": 4, "causal": 4}).assign(seed=2)])
    text = verdict(table)
    assert "In 1 of 3 cases (seed and k, over 2 seeds)" in text
    assert (
        "fewer in 1. With places taken whole the difference has p <= 0.05, uncorrected, in 1 of the former and 1 of"
        in text
    )
    assert "more than every matched random set in 1 of 3" in text
    assert "73% against 15% (seed 1, k = 10)" in text
    assert "agrees best with the scan has rho = 0.07" in text


def test_the_table_over_seeds_has_every_row_of_every_seed(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"run{seed}" / "tables").mkdir(parents=True)
        rows({"resonance": 9, "auc": 7, "causal": 44}).to_csv(tmp_path / f"run{seed}" / "tables" / "rankings.csv")
    assert main([f"1={tmp_path / 'run1'}", f"2={tmp_path / 'run2'}", "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "rankings.csv")
    assert table["seed"].tolist() == [1, 1, 1, 2, 2, 2]
    text = (tmp_path / "rankings.md").read_text()
    assert "demo.seeds 1=RUN 2=RUN --out" in text
    assert "not measured" not in text
    assert "| 2 | 10 | causal |  | 44/60 = 73% | 43 | 2% (10%) | 0.048 | 0.30 | 0.010 | 3 |" in text
    assert "| 1 | 377 | 0.07 (0.01 to 0.12) | 0.07 (0.01 to 0.12) | 0.78 |" in text
    assert not re.search(r"\bnan\b", text)
    assert str(tmp_path) not in text
    doses = pd.DataFrame({"seed": [1, 1, 2, 2, 3, 3], "k": [1, 20] * 3, "flip_share": [0, 0.3, 0, 0.2, 0.5, 0.04]})
    doses.to_csv(tmp_path / "doses.csv", index=False)
    assert left_out(tmp_path, {1, 2, 3}) == ""
    assert left_out(tmp_path, {1}).split("**")[1::2] == ["Seed 2 was not measured", "Seed 3 was not measured"]
    assert left_out(tmp_path, {1, 2}).endswith("flip 4% in the [README](README.md), the fewest of all seeds.")
    with pytest.raises(MoteError, match="make it with mote rankings"):
        build({3: tmp_path / "run3"}, tmp_path)


def test_seeds_of_which_no_run_is_named_stay_as_they_are(tmp_path: Path) -> None:
    for seed, flips in ((1, 44), (2, 30)):
        (tmp_path / f"run{seed}" / "tables").mkdir(parents=True)
        rows({"resonance": 9, "causal": flips}).to_csv(tmp_path / f"run{seed}" / "tables" / "rankings.csv", index=False)
    with pytest.raises(MoteError, match="no run is named"):
        build({}, tmp_path)
    build({2: tmp_path / "run2"}, tmp_path)
    build({1: tmp_path / "run1"}, tmp_path)
    both = (tmp_path / "rankings.csv").read_text(), (tmp_path / "rankings.md").read_text()
    assert pd.read_csv(tmp_path / "rankings.csv")["flips"].tolist() == [9, 44, 9, 30]
    assert "demo.seeds 1=RUN 2=RUN --out" in both[1]
    build({}, tmp_path)
    assert both == ((tmp_path / "rankings.csv").read_text(), (tmp_path / "rankings.md").read_text())
