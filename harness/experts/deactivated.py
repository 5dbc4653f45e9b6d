"""The tuned experts switched off before the router's choice and after it, among the same random sets.

Peers (SteerMoE) deactivate experts: another one is chosen in their place. The study suppresses them: nothing is. The
same experts, prompts and random sets under both tell whether the one lever does more than the other
(``study.deactivated_sets``). Sets are matched in mass, as the study's decisive ones are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from rich.console import Console

from mote.harness.engine.trust import NOTHING_OWN, Own
from mote.harness.errors import MoteError
from mote.harness.experts.agreement import TopSet, chance_table, flips_table
from mote.harness.experts.asking import Asking, Off, switched_off
from mote.harness.experts.comparison import answer_sets
from mote.harness.experts.output import write_deactivated
from mote.harness.experts.rankings import read_halves
from mote.harness.science.controls import random_experts
from mote.harness.study.controls import tuned_experts
from mote.harness.study.session import StartsEngine, open_session
from mote.patches import ProfileError

BOTH: Final[tuple[Off, ...]] = ("suppress", "deactivate")
COLUMNS: Final = [
    *("action", "k", "prompts", "flips", "share", "low", "high", "broken", "broken_share"),
    *("sets", "matched_mean", "matched_max", "matched_broken", "busier"),
]
"""What is written of each action, before p, p_holm (over the two), least_p and the experts."""
_STREAM: Final = 19
"""Of the random numbers, so that no other sets of the study are these."""


def deactivated_run(
    folder: Path, sets: int, console: Console, engine: StartsEngine, own: Own = NOTHING_OWN
) -> pd.DataFrame:
    """Ask for what is missing of both actions' answers, write the table into the run's ``tables``, and return it.

    Raises MoteError for what is wrong with the run or the engine; what was generated is stored as it comes.
    """
    with open_session(folder, console, engine, own) as session:
        halves = read_halves(session.store, session.manifest)
        tuned = tuned_experts(session.store.profiles())
        stream = np.random.default_rng([session.recipe.study.seed, _STREAM])
        drawn = random_experts("mass", tuned, halves.mass, halves.layers, sets, stream)
        try:
            for experts in (tuned, *drawn):
                switched_off("deactivate", experts, session.model.layout, "deactivate")
        except ProfileError as error:
            raise MoteError(f"study.deactivated_sets: {error}") from None
        asking, tables = Asking(session, halves, "ranking"), []
        for off in BOTH:
            wanted = [TopSet(off, len(tuned), tuned, drawn)]
            labels = answer_sets(asking, wanted, halves.measured, off).labels
            tables.append(flips_table(wanted, labels, halves.units, halves.mass, halves.layers, halves.target))
    table = chance_table(pd.concat(tables), "action", COLUMNS)
    write_deactivated(table, folder)
    return table
