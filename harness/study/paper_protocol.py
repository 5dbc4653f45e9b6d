"""The paper's own protocol: ten experts chosen and measured on the same prompts, against one draw of random ones.

It is there to be set beside the paper's tables, and is no evidence: experts that were looked for on the prompts that
measure them show an effect where there is none, one random draw says nothing about how draws vary, and its experts are
matched in neither layer nor activity. Its profiles are of the kind ``paper``; a sound study in the same folder shares
the baseline and does not read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.table import Table

from mote.harness.science.controls import BASELINE
from mote.harness.science.paper import FIGURES
from mote.harness.science.transitions import flip_rates, transition_matrix
from mote.harness.store.run import ProfileRow
from mote.harness.study.generate import generate, wanted_of
from mote.harness.study.plan import PAPER, paper_rows
from mote.harness.study.session import Session

NO_EVIDENCE: Final = (
    "This is no evidence that the experts are special: they were chosen on the very prompts that measure them, and one"
    " random draw, busy or idle as it comes, says nothing about how draws vary. `mote run` without --protocol in the"
    " same folder does the study that can say so, on the same baseline."
)


def follow_paper(session: Session, label: Callable[[Session], None]) -> None:
    """Generate, label and print the paper's table; the baseline has to be there and labelled.

    Raises MoteError where the class did not occur or too few experts are distinctive of it.
    """
    store = session.store
    rows = [row for row in store.profiles() if row.kind == PAPER]
    if not rows:
        frame = store.labels_frame(session.labels.judge)
        baseline = frame[frame["profile"] == BASELINE].set_index("prompt_id")["label"].astype(str)
        ids, maps, _ = store.maps(BASELINE, session.recipe.study.role)
        labels = [str(baseline[prompt]) for prompt in ids]
        recipe = session.recipe
        rows = paper_rows(recipe.study, session.model.layout, labels, maps, recipe.sampling.seed)
        store.add_plan(rows)
    generate(session, "The paper's protocol", wanted_of(session, rows))
    label(session)
    session.console.print(_table(session, rows))
    session.console.print(NO_EVIDENCE, soft_wrap=True)


def _table(session: Session, rows: list[ProfileRow]) -> Table:
    target = session.recipe.study.target
    frame = session.store.labels_frame(session.labels.judge)
    by_profile = {str(name): part.set_index("prompt_id")["label"] for name, part in frame.groupby("profile")}
    before = by_profile[BASELINE]
    table = Table(title="The paper's protocol: all prompts choose and measure", title_justify="left")
    for column in ("profile", f"{target} before", "after", "flips", "reverse", "broken", "flips in the paper"):
        table.add_column(column, justify="left" if column == "profile" else "right")
    for row in rows:
        after = by_profile[row.name]
        rates = flip_rates(transition_matrix(before, after, session.labels.classes), target)
        cells = (f"{one.hits} of {one.total}" for one in (rates.flips, rates.reverse, rates.broken))
        sums = (str(int((before == target).sum())), str(int((after == target).sum())))
        table.add_row(row.name, *sums, *cells, _printed(session, row.name))
    return table


def _printed(session: Session, name: str) -> str:
    """The share of flips that the paper prints for the same task and kind of profile."""
    asked = (session.recipe.task.name, _THEIRS[name.split("-")[1]], session.recipe.study.target)
    for figure in FIGURES:
        if (figure.experiment, figure.profile, figure.from_class) == asked and figure.to_class.startswith("not "):
            return f"{'about ' if figure.approximate else ''}{figure.share:.0%}"
    return ""


_THEIRS: Final = {"suppress": "suppress top 10", "stimulate": "stimulate top 10", "random": "suppress random 10"}
