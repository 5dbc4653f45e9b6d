"""What a run says of one expert: what it is seen for, beside what it is needed for (``mote expert``).

Seen for: which prompts and tokens choose it, by class and unit, and its place in every ranking. Needed for: its effect
when it alone is switched off, where the run was scanned, and what became of the prompts under each of the run's
profiles that edit it, among other experts. Only the scan says anything of this expert alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.errors import MoteError
from mote.harness.experts.rankings import causal_effects, causal_scan, rankings_frame
from mote.harness.preconditions import STATES
from mote.harness.science.controls import BASELINE, Expert
from mote.harness.store.run import RunStore
from mote.harness.store.scans import Scans
from mote.harness.store.token_rows import TokenRows, read_token_rows

if TYPE_CHECKING:
    from mote.harness.report.frames import Run

TUNED: Final = ("suppress", "stimulate", "scale", "third")
"""Kinds of profiles whose edits the study chose; an expert is in random sets by chance."""


class ExpertPage(NamedTuple):
    """What a run says of one expert; an empty frame where it says nothing.

    ``seen``: by (class, label) and (unit, its name): prompts, choosing (prompts with a token that chose it), a_prompt
    (activations a prompt), share (of the tokens that were counted). ``prompts``: those that choose it most. ``tokens``:
    token, chosen, of, of the prompts whose tokens the run kept. ``places``: ranking, score, place, of. ``alone``:
    prompts, effect, low, high, p, p_holm, scan. ``profiles``: of each that edits it: kind, k, flips, of, broken.
    """

    expert: Expert
    target: str
    role: str
    seen: pd.DataFrame
    prompts: pd.DataFrame
    tokens: pd.DataFrame
    places: pd.DataFrame
    alone: pd.DataFrame
    profiles: pd.DataFrame
    missing: tuple[str, ...]


class _Source(NamedTuple):
    """What the pages of all experts are read from.

    ``prompts``: prompt_id, tokens (counted), label, unit, question; ``maps`` [prompts, layers, experts] of the same.
    ``ranked``: the frame of ``rankings_frame``, or why there is none. ``effects``: those of the scan of that title.
    """

    prompts: pd.DataFrame
    maps: NDArray[np.int32]
    tokens: Sequence[TokenRows]
    ranked: pd.DataFrame | str
    effects: pd.DataFrame
    scan: str


def expert_page(run: Run, layer: int, expert: int, top: int = 10) -> ExpertPage:
    """Return what a run says of one routed expert, by the numbers that the model gives layers and experts.

    Raises MoteError that names the layers and experts there are for another, and for a run without a baseline's maps.
    """
    return expert_pages(run, [(layer, expert)], top)[0]


def expert_pages(run: Run, experts: Sequence[Expert], top: int = 10) -> list[ExpertPage]:
    """Return what a run says of each of some experts, as ``expert_page``; what all of them need is read once."""
    width = int(run.manifest["model"]["layout"]["experts"])
    for layer, expert in experts:
        if layer not in run.layers or not 0 <= expert < width:
            raise MoteError(
                f"There is no routed expert {layer},{expert}: layers with experts are {_ranges(run.layers)}, experts 0"
                f" to {width - 1}."
            )
    source = _read(run)
    return [_page(run, source, one, top) for one in experts]


def _read(run: Run) -> _Source:
    with RunStore(run.folder, read_only=True) as store:
        ids, maps, counted = store.maps(BASELINE, str(run.recipe["study"]["role"]))
        if not ids:
            raise MoteError(f"{run.folder} has no maps of its baseline yet: finish it with mote run.")
        tokens = read_token_rows(store)
        effects, scan = scanned(store)
    frame = pd.DataFrame({"prompt_id": ids, "tokens": [seen for seen, _ in counted]})
    frame = frame.join(_labels(run), on="prompt_id").join(run.prompts["question"], on="prompt_id")
    try:
        ranked: pd.DataFrame | str = rankings_frame(run.folder)
    except MoteError as error:
        ranked = str(error)
    return _Source(frame, maps, tokens, ranked, effects, scan)


def scanned(store: RunStore) -> tuple[pd.DataFrame, str]:
    """Return the effects of a run's causal scan, a row an expert, and the scan's title; empty where there is none."""
    scans = Scans(store)
    scan = causal_scan(scans.scans())
    return (pd.DataFrame(), "") if scan is None else (causal_effects(scans, scan), scan.title)


def _page(run: Run, source: _Source, expert: Expert, top: int) -> ExpertPage:
    at = (run.layers.index(expert[0]), expert[1])
    frame = source.prompts.assign(chosen=source.maps[:, at[0], at[1]])
    best = frame.sort_values(["chosen", "prompt_id"], ascending=[False, True])
    tokens, alone = _tokens(source.tokens, at), _alone(source, expert)
    missing = [f"rankings: {source.ranked}"] if isinstance(source.ranked, str) else []
    if tokens.empty:
        missing.append("tokens: none of this run's prompts has its experts token by token (study.tokens)")
    if alone.empty:
        missing.append(f"effect alone: the run has no scan of it; mote scan {run.folder} makes one")
    return ExpertPage(
        expert, run.target, str(run.recipe["study"]["role"]),
        pd.concat([_seen(frame, name) for name in ("label", "unit")]),
        best.loc[best["chosen"] > 0, ["prompt_id", "question", "label", "chosen", "tokens"]].head(top),
        tokens.head(top), _places(source.ranked, expert), alone, _profiles(run, expert), tuple(missing),
    )  # fmt: skip


def _labels(run: Run) -> pd.DataFrame:
    answers = run.generations
    labels = answers[answers["profile"] == BASELINE].set_index("prompt_id")["label"]
    units = run.flips.drop_duplicates("prompt_id").set_index("prompt_id")["unit"] if len(run.flips) else pd.Series()
    shared = units.reindex(labels.index)
    # Where nothing is shared every prompt is a unit of its own, and its line is among the prompts.
    return pd.DataFrame({"label": labels, "unit": shared.where(shared != shared.index)})


def _seen(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    known = frame[frame[name].notna()]
    grouped = known.groupby(known[name].map(str))
    found = pd.DataFrame(
        {
            "prompts": grouped.size(),
            "choosing": grouped["chosen"].agg(lambda chosen: int((chosen > 0).sum())),
            "a_prompt": grouped["chosen"].mean(),
            "share": grouped["chosen"].sum() / grouped["tokens"].sum(),
        }
    )
    found.insert(0, "by", "class" if name == "label" else "unit")
    return found.rename_axis("value").reset_index().sort_values(["a_prompt", "value"], ascending=[False, True])


def _tokens(kept: Sequence[TokenRows], at: tuple[int, int]) -> pd.DataFrame:
    rows = [
        (token, bool((chosen[at[0]] == at[1]).any()))
        for one in kept
        for token, chosen in zip(one.tokens, one.chosen, strict=True)
    ]
    found = pd.DataFrame(rows, columns=["token", "chosen"]).groupby("token")["chosen"].agg(["sum", "size"])
    found = found.set_axis(["chosen", "of"], axis=1).reset_index()
    return found[found["chosen"] > 0].sort_values(["chosen", "token"], ascending=[False, True]).astype({"chosen": int})


def _places(frame: pd.DataFrame | str, expert: Expert) -> pd.DataFrame:
    columns = ["ranking", "score", "place", "of"]
    if isinstance(frame, str):
        return pd.DataFrame(columns=columns)
    mine = frame[(frame["layer"] == expert[0]) & (frame["expert"] == expert[1])].iloc[0]
    names = [name for name in frame.columns if f"{name}_rank" in frame.columns]
    rows = [
        (name, float(mine[name]), int(mine[f"{name}_rank"]), int(frame[f"{name}_rank"].notna().sum()))
        for name in names
        if not pd.isna(mine[f"{name}_rank"])
    ]
    return pd.DataFrame(rows, columns=columns)


def _alone(source: _Source, expert: Expert) -> pd.DataFrame:
    found = source.effects
    if found.empty:
        return found
    mine = found[(found["layer"] == expert[0]) & (found["expert"] == expert[1])]
    return mine[["prompts", "effect", "low", "high", "p", "p_holm"]].assign(scan=source.scan)


def _profiles(run: Run, expert: Expert) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    flips = run.flips[run.flips["before"] == run.target]
    for name, profile in run.profiles.iterrows():
        if expert not in profile["experts"] or not str(profile["kind"]).startswith(TUNED):
            continue
        mine = flips[(flips["profile"] == name) & (flips["part"] != "select")]
        if len(mine):
            broken = int(mine["after"].isin(STATES).sum())
            row = {"profile": name, "k": profile["k"], "flips": int(mine["flipped"].sum()), "of": len(mine)}
            rows.append(row | {"broken": broken})
    return pd.DataFrame(rows, columns=["profile", "k", "flips", "of", "broken"])


def _ranges(layers: tuple[int, ...]) -> str:
    whole = np.array_equal(layers, range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))
