"""The report's part on each expert, tuned or among the scan's first ten: what it is seen for beside needed for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.report.expert import ExpertPage, expert_pages, scanned
from mote.harness.report.model_text import clip
from mote.harness.report.phrases import p_value, pct
from mote.harness.science.controls import Expert
from mote.harness.store.run import RunStore

if TYPE_CHECKING:
    from mote.harness.report.analysis import StudyResult
    from mote.harness.report.frames import Run

SCANNED: Final = 10
"""Experts of the causal scan that have a part, beside the tuned ones."""
MOST: Final = 40
"""Parts in a report; a study of a large model may tune more, and ``mote expert`` shows any."""
_ROWS: Final = 5
_TEXT: Final = 120


class Table(NamedTuple):
    """A table with its caption; the cells of ``rows`` are text, the first of a row names it."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


class ExpertPart(NamedTuple):
    """One expert's part: its name, why it has one, in a line, and the tables of both sides with what is not known."""

    name: str
    why: str
    seen: list[Table]
    needed: list[Table]
    unknown: list[str]


def expert_parts(run: Run, result: StudyResult) -> tuple[list[ExpertPart], int]:
    """Return the parts of a run's experts, the tuned ones first, and how many were left out for want of room."""
    found = result.experts.distinctive
    tuned = [(int(layer), int(expert)) for layer, expert in zip(found["layer"], found["expert"], strict=True)]
    first = _first_of_scan(run)
    experts = list(dict.fromkeys([*tuned, *first]))
    try:
        pages = expert_pages(run, experts[:MOST], _ROWS) if experts else []
    except MoteError:
        # A run without maps, or of other layers than its recipe names: the banner and the figures say so.
        pages = []
    parts = [_part(page, _why(page.expert, tuned, first)) for page in pages]
    return parts, len(experts) - len(parts) if pages else 0


def _first_of_scan(run: Run) -> list[Expert]:
    with RunStore(run.folder, read_only=True) as store:
        effects, _ = scanned(store)
    if effects.empty:
        return []
    best = effects[effects["effect"] > 0].sort_values(["effect", "layer", "expert"], ascending=[False, True, True])
    best = best.head(SCANNED)
    return [(int(layer), int(expert)) for layer, expert in zip(best["layer"], best["expert"], strict=True)]


def _why(expert: Expert, tuned: list[Expert], scan: list[Expert]) -> str:
    said = []
    if expert in tuned:
        said.append(f"tuned, {tuned.index(expert) + 1} of {len(tuned)}")
    if expert in scan:
        said.append(f"{scan.index(expert) + 1} of the scan's first {len(scan)}")
    return "; ".join(said)


def _part(page: ExpertPage, why: str) -> ExpertPart:
    unknown = []
    if page.tokens.empty:
        unknown.append("Which of its tokens choose it: no prompt was kept token by token (study.tokens).")
    if page.alone.empty:
        unknown.append("Its effect alone: the run has no causal scan of it (mote scan).")
    if page.profiles.empty:
        unknown.append("What became of answers: no profile of the study edits it.")
    return ExpertPart(
        f"({page.expert[0]}, {page.expert[1]})", why,
        [one for one in (*_by(page), _prompts(page), _tokens(page), _places(page)) if one.rows],
        [one for one in (_alone(page), _profiles(page)) if one.rows], unknown,
    )  # fmt: skip


def _by(page: ExpertPage) -> list[Table]:
    columns = ["prompts", "choose it", "tokens a prompt", "of all"]
    found = []
    for by in ("class", "unit"):
        rows = page.seen[page.seen["by"] == by]
        shown = rows if by == "class" else rows.head(_ROWS)
        caption = f"Seen for, by {by}: {page.role} tokens" + (
            f" (the first {len(shown)} of {len(rows)})" if len(shown) < len(rows) else ""
        )
        lines = [
            [_clipped(row.value), f"{row.prompts:,}", f"{row.choosing:,}", f"{row.a_prompt:.2f}", pct(row.share)]
            for row in _of(shown)
        ]
        found.append(Table(caption, [by, *columns], lines))
    return found


def _prompts(page: ExpertPage) -> Table:
    rows = [[_clipped(row.question), str(row.label), f"{row.chosen:,} of {row.tokens:,}"] for row in _of(page.prompts)]
    return Table("The prompts that choose it most", ["prompt", "label", "tokens"], rows)


def _tokens(page: ExpertPage) -> Table:
    rows = [[f"“{_clipped(row.token)}”", f"{row.chosen:,} of {row.of:,}"] for row in _of(page.tokens)]
    return Table("The tokens that choose it most", ["token", "times"], rows)


def _places(page: ExpertPage) -> Table:
    rows = [[str(row.ranking), f"{row.place:,} of {row.of:,}", f"{row.score:.3g}"] for row in _of(page.places)]
    return Table("Its place in every ranking", ["ranking", "place", "score"], rows)


def _alone(page: ExpertPage) -> Table:
    rows = [
        [f"{row.prompts:,}", f"{row.effect:.3f}", f"{row.low:.3f} to {row.high:.3f}", p_value(row.p_holm)]
        for row in _of(page.alone)
    ]
    columns = ["prompts", "fall of the log-odds", "95% interval", "p (Holm)"]
    return Table("Needed for: its effect alone, in the causal scan", columns, rows)


def _profiles(page: ExpertPage) -> Table:
    rows = [
        [str(row.profile), f"{row.k:,}", f"{row.flips:,} of {row.of:,}", f"{row.broken:,}"]
        for row in _of(page.profiles)
    ]
    return Table("Profiles that edit it, among others", ["profile", "experts", "flips", "broke"], rows)


def _of(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples(index=False))


def _clipped(text: object) -> str:
    return clip(" ".join(str(text).split()) or str(text), _TEXT)
