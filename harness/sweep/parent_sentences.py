"""What a sweep's page says of its parents: how far apart they lie, what thresholds take, how children route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from mote.harness.sweep.distances import Taken, threshold_table
from mote.harness.sweep.schema import BASE

THRESHOLD_COLUMNS: Final = (
    *("threshold", "tensors above", "values above", "experts above", "groups wholly above", "groups cut through"),
    "groups wholly below",
)


def threshold_of(manifest: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return the distance that thresholds are of, and the sweep's own threshold if it has one."""
    own = manifest["recipe"].get("threshold")
    return (str(own["distance"]), float(own["above"])) if own else ("relative", None)


def threshold_frame(manifest: Mapping[str, Any], frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the page's table of thresholds as numbers, groups joined by spaces."""
    rows = [
        {**one._asdict(), **{name: " ".join(getattr(one, name)) for name in ("whole", "cut", "left")}}
        for one in _table(manifest, frame)
    ]
    return pd.DataFrame(rows)


def threshold_rows(manifest: Mapping[str, Any], frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return what lies above some thresholds as rows of the page's table."""
    return [
        (
            f"{one.threshold:.3g}",
            *("–" if share != share else f"{share:.0%}" for share in (one.tensors, one.values, one.experts)),
            *(", ".join(group.replace("_", " ") for group in groups) or "–" for groups in one[4:]),
        )
        for one in _table(manifest, frame)
    ]


def _table(manifest: Mapping[str, Any], frame: pd.DataFrame) -> list[Taken]:
    distance, chosen = threshold_of(manifest)
    return threshold_table(frame, distance, () if chosen is None else (chosen,))


def whole_child(recipe: Mapping[str, Any]) -> str | None:
    """Return the child that has all of the other parent's tensors, None where the sweep has none.

    With several parents in ``toward``, or a threshold, there is none: no child is a parent then.
    """
    if len(recipe["toward"]) > 1 or recipe.get("threshold") or next(iter(recipe["toward"].values())) < 1:
        return None
    if recipe["proportions"][-1] < 1:
        return None
    for name, part in recipe["subsets"].items():
        narrower = any(part.get(key) is not None for key in ("pattern", "layers", "experts"))
        if part.get("groups") and "all" in part["groups"] and not part["others"] and not narrower:
            return f"{name}@1"
    return None


def parent_names(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the parents that children's routing is compared with, by child."""
    recipe = manifest["recipe"]
    named = {BASE: f"the base, {recipe['base']}"}
    whole = whole_child(recipe)
    return named if whole is None else {**named, whole: str(next(iter(recipe["toward"])))}


def routing_lead(routing: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """Return what routing says, in a sentence or two."""
    if routing.empty:
        return "No activation maps were kept (maps: 0), or the sweep was made before they were."
    whole = whole_child(manifest["recipe"])
    prompts = int(routing["prompts"].max())
    said = f"The router's own choices for the tokens of {prompts} prompts."
    between = routing[(routing["child"] == whole) & (routing["parent"] == BASE)]
    if between.empty:
        return f"{said} No child of this sweep is the other parent, so children are compared with the base alone."
    lowest = between.sort_values("agreement", kind="stable").iloc[0]
    return (
        f"{said} The two parents share {between['agreement'].mean():.0%} of them, least in layer"
        f" {int(lowest['layer'])} ({lowest['agreement']:.0%})."
    )


def routing_columns(manifest: Mapping[str, Any], routing: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns of ``routing_rows``."""
    there = set(routing["parent"])
    return ("child", *(f"with {name}" for key, name in parent_names(manifest).items() if key in there))


def routing_rows(manifest: Mapping[str, Any], routing: pd.DataFrame, subsets: Sequence[str]) -> list[tuple[str, ...]]:
    """Return each child of the largest proportion with its agreement, mean over layers and lowest layer."""
    if routing.empty:
        return []
    parents = [key for key in parent_names(manifest) if (routing["parent"] == key).any()]
    last = routing[routing["subset"] != ""].groupby("subset")["proportion"].max()
    rows = []
    for subset in subsets:
        own = routing[(routing["subset"] == subset) & (routing["proportion"] == last.get(subset))]
        if own.empty:
            continue
        cells = []
        for parent in parents:
            values = own[own["parent"] == parent].set_index("layer")["agreement"]
            cells.append(
                f"{values.mean():.1%} (lowest {values.min():.1%}, layer {values.idxmin()})" if len(values) else "itself"
            )
        rows.append((str(own["child"].iloc[0]), *cells))
    return rows
