"""The tuned experts of each third of the layers among random sets of their own (``study.third_sets``).

A third's experts are a profile like any other: they are fewer than all, and how many flips so many experts of those
layers give by chance is not what the whole's controls say. Sets are matched in mass, as the study's decisive ones are.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.experts.agreement import TopSet, chance_table, flips_table
from mote.harness.experts.asking import Asking
from mote.harness.experts.comparison import answer_sets
from mote.harness.experts.output import write_thirds
from mote.harness.experts.rankings import read_halves
from mote.harness.science.crossfit import third_controls
from mote.harness.science.dose import layer_thirds
from mote.harness.study.controls import tuned_experts
from mote.harness.study.session import StartsEngine, open_session

COLUMNS = ["third", "k", "prompts", "flips", "share", "low", "high", "sets", "matched_mean", "matched_max", "busier"]
"""What is written of each third, before p, p_holm (over the thirds), least_p and the experts."""


def thirds_run(folder: Path, sets: int, console: Console, engine: StartsEngine, own: Own = NOTHING_OWN) -> pd.DataFrame:
    """Ask for what is missing of the thirds' sets, write the table into the run's ``tables``, and return it.

    Raises MoteError for what is wrong with the run or the engine; what was generated is stored as it comes.
    """
    with open_session(folder, console, engine, own) as session:
        halves = read_halves(session.store, session.manifest)
        tuned = tuned_experts(session.store.profiles())
        seed = session.recipe.study.seed
        drawn = third_controls("mass", tuned, halves.mass, halves.layers, sets, seed)
        thirds = layer_thirds(tuned, halves.layers)
        wanted = [TopSet(name, len(thirds[name]), thirds[name], controls) for name, controls in drawn.items()]
        answered = answer_sets(Asking(session, halves, "ranking"), wanted, halves.measured)
    table = flips_table(wanted, answered.labels, halves.units, halves.mass, halves.layers, halves.target)
    table = chance_table(table, "third", COLUMNS)
    write_thirds(table, folder)
    return table
