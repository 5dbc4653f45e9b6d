"""The figure of a search: effect against harm with the front, and the winner among those of the null searches."""

from __future__ import annotations

from typing import Final

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mote.harness.drawing import ACCENT, INK, RULE, SIGNAL, SOFT, Layout, short
from mote.harness.report.figure_data import Draw
from mote.harness.search.run import Search

_KINDS: Final = {"shuffled": "classes\nshuffled", "pool": "random\npools"}


def draw_search(search: Search, trials: pd.DataFrame, searches: pd.DataFrame) -> Draw:
    """Return what draws both panels, from the frames of ``output``."""

    def draw(layout: Layout) -> Figure:
        shape = (2, 1) if layout.narrow else (1, 2)
        height = 7.4 if layout.narrow else 4.4
        figure, (left, right) = plt.subplots(*shape, figsize=(layout.width, height), layout="constrained")
        _front(left, search, trials, searches)
        _null(right, search, searches)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=1 if layout.narrow else 3)
        return figure

    return draw


def _front(axis: Axes, search: Search, trials: pd.DataFrame, searches: pd.DataFrame) -> None:
    own, null = trials[trials["search"] == "run"], searches[searches["search"] != "run"]
    best = own[own["front"]].sort_values("kl")
    axis.axvline(search.options.harm, color=SIGNAL, linewidth=1, linestyle="--", label="the bound on KL")
    axis.scatter(null["kl"], null["effect"], s=16, marker="x", color=SOFT, linewidths=0.8, label="null winners")
    axis.scatter(own["kl"], own["effect"], s=22, color=ACCENT, alpha=0.55, linewidths=0, label="trials of this search")
    axis.step(best["kl"], best["effect"], where="post", color=INK, linewidth=1.2, label="its Pareto front")
    won = searches[searches["search"] == "run"]
    axis.scatter(won["kl"], won["effect"], s=120, marker="*", color=SIGNAL, zorder=4, label="its winner")
    axis.set_title("Effect against harm, on the prompts that choose")
    axis.set_xlabel("KL from the untouched model, other prompts (nats a token)")
    axis.set_ylabel(f"fall of the chance of {short(search.target)} openings")
    # Small harm is where the choice lies; a trial far beyond the bound must not press it flat.
    axis.set_xscale("symlog", linthresh=search.options.harm)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.grid(color=RULE, linewidth=0.5)


def _null(axis: Axes, search: Search, searches: pd.DataFrame) -> None:
    null = searches[searches["search"] != "run"]
    order = [kind for kind in _KINDS if (null["search"] == kind).any()]
    sns.stripplot(
        data=null, x="search", y="net", order=order, ax=axis, color=SOFT, size=5, alpha=0.8, jitter=0.18, legend=False
    )
    axis.axhline(search.ruling.net, color=SIGNAL, linewidth=1.4)
    axis.set_xticks(
        range(len(order)),
        [f"{_KINDS[leg.kind]}\np = {leg.p:.3f}" for kind in order for leg in search.ruling.legs if leg.kind == kind],
    )
    axis.set_title("The winner (line) among null searches' winners")
    axis.set_xlabel("")
    axis.set_ylabel("net effect, on the half that chose nothing")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.grid(axis="y", color=RULE, linewidth=0.5)
