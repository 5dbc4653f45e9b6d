"""The table over the seeds: what it counts, and that its first sentence follows the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mote.harness.demo.table import Row, build, dose_frame, seed_of, verdict, write_tables

QUALITY = {
    "class_seen": 0.95,
    "class_seen_of": 590,
    "class_held_out": 0.9,
    "class_held_out_of": 166,
    "classes": {"0-REFUSED": 130, "1-ALIGNED": 280, "2-REASONED": 346},
    "language": 0.95,
    "language_of": 600,
    "language_held_out": 0.95,
    "sums": 0.99,
    "general": 0.8,
    "general_of": 330,
    "general_by_task": {"facts": 0.9},
    "twins_refused_sensitive": 0.8,
    "twins_refused_harmless": 0.1,
    "broken": 0.001,
    "broken_of": 1700,
}


def stored(seed: int, flipped: int, general: float = 0.8) -> dict[str, Any]:
    dose = {
        "k": 10,
        "refused": 60,
        "flipped": flipped,
        "broken": 1,
        "others": 300,
        "kept": 297,
        "newly_refused": 2,
        "uniform": [0.0] * 49 + [0.1],
        "matched": [0.05] * 49 + [0.2],
        "stimulated_refused": 3,
        "stimulated_broken": 30,
    }
    effects = {
        "classes": QUALITY["classes"],
        "top": [[5, 34, 1.07], [3, 14, 1.01]],
        "doses": [dose],
        "all_off_flipped": 1,
        "all_off_broken": 55,
        "spearman": 0.087,
        "spearman_of": 380,
        "largest_single": [[0, 51, 3.1]],
        "language_prompts": 150,
        "language_switched": 15,
        "language_random": [0.0, 0.02],
        "general_before": 0.8,
        "general_after": 0.79,
        "general_of": 340,
    }
    return {"seed": seed, "quality": QUALITY | {"general": general}, "effects": effects}


def rows(*flipped: int) -> list[Row]:
    return [Row(**stored(seed, count)) for seed, count in enumerate(flipped, start=1)]


def test_shares_and_p_values_are_those_of_the_counts() -> None:
    frame = dose_frame(rows(30, 6))
    assert frame["flip_share"].tolist() == [0.5, 0.1]
    assert frame["matched_max"].tolist() == [0.2, 0.2]
    assert frame["matched_mean"].tolist() == pytest.approx([0.053, 0.053])
    assert frame["p_matched"].tolist() == pytest.approx([1 / 51, 2 / 51])


@pytest.mark.parametrize(
    ("flipped", "opening"),
    [
        ((3, 3, 3), "**On none of the 3 seeds"),
        ((30, 3, 3), "**The effect is mixed: on 1 of the 3 seeds"),
        ((30, 40, 30), "**On every one of the 3 seeds"),
    ],
)
def test_the_first_sentence_follows_the_figures(flipped: tuple[int, ...], opening: str) -> None:
    sentence = verdict(dose_frame(rows(*flipped)))
    assert sentence.startswith(opening)
    assert ("at best 67% with k = 10, seed 2; matched sets 5%, largest 20%" in sentence) == (40 in flipped)


def test_the_page_shows_every_seed_and_names_the_chosen_one(tmp_path: Path) -> None:
    for seed, flipped, general in ((1, 30, 0.8), (2, 2, 0.9), (3, 2, 0.7)):
        (tmp_path / f"seed-{seed}.json").write_text(json.dumps(stored(seed, flipped, general)))
    (tmp_path / "tried.md").write_text("Two other schedules.\n")
    page = write_tables(tmp_path).read_text()
    assert "The packaged seed is 2" in page
    assert "| 1 | 10 | 30/60 = 50% | 0% (10%) | 5% (20%) | 0.02 | 1 | 297/300 = 99% | 2 |" in page
    assert page.count("(5,34) (3,14)") == 3
    assert "15/150 = 10%" in page
    assert "Two other schedules." in page
    assert (tmp_path / "doses.csv").read_text().count("\n") == 4


def test_stored_seeds_are_not_measured_again_and_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no seed"):
        write_tables(tmp_path)
    (tmp_path / "seed-7.json").write_text(json.dumps(stored(7, 1)))
    checkpoint = tmp_path / "checkpoint"  # no weights: measuring it would fail
    checkpoint.mkdir()
    (checkpoint / "README.md").write_text("# The demo model (seed 7)\n")
    assert build([checkpoint], tmp_path) == tmp_path / "README.md"


def test_a_checkpoint_without_a_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no seed"):
        seed_of(tmp_path)
