"""The experts that single tokens choose (the paper's Figure 2), layer by layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mote.harness.drawing import ACCENT, INK, PAPER, RULE, SIGNAL, SOFT, Layout, short
from mote.harness.report.model_text import clip
from mote.harness.science.controls import Expert
from mote.harness.store.token_rows import TokenRows


class TokenPanel(NamedTuple):
    """A token: its title, a line below it, and the experts it chose, [layers, top_k]."""

    title: str
    note: str
    chosen: NDArray[np.uint16]


def panels_of(prompts: Sequence[TokenRows], labels: Mapping[str, str], target: str) -> list[TokenPanel]:
    """Return the tokens to show: a word of the first target prompt, and the last token of it and of another prompt.

    The word is the longest that the other prompts do not have; the last token is the one whose output begins the
    answer. The rule never looks at what was chosen.
    """
    first = next((one for one in prompts if labels.get(one.prompt_id) == target), prompts[0])
    shared = set.union(set(), *(set(one.tokens) for one in prompts if one is not first))
    own = [0 if token in shared else _letters(token) for token in first.tokens]
    lengths = own if any(own) else [_letters(token) for token in first.tokens]
    word = lengths.index(max(lengths))
    found = [_panel(first, word, f"“{clip(first.tokens[word].strip(), 24)}”, token {word + 1} of", labels)]
    others = [one for one in prompts if labels.get(one.prompt_id) != labels.get(first.prompt_id)]
    for one in (first, *others[:1]):
        found.append(_panel(one, len(one.tokens) - 1, "Last token before the answer of", labels))
    return found


def _letters(token: str) -> int:
    # Tokens of the chat template are none of the prompt's words.
    text = token.strip()
    return len(text) if text.isalpha() else 0


def _panel(one: TokenRows, at: int, title: str, labels: Mapping[str, str]) -> TokenPanel:
    label = short(labels.get(one.prompt_id, "")).lower()
    return TokenPanel(f"{title} a prompt that is {label}", one.prompt_id, one.chosen[at])


def draw_tokens(
    panels: Sequence[TokenPanel], layers: Sequence[int], experts: int, tuned: Collection[Expert], layout: Layout
) -> Figure:
    """Draw one panel a token: a mark for each chosen expert, those that are tuned ringed and in another colour."""
    each = float(np.clip(len(layers) * 0.17, 1.0, 3.4))
    figure = Figure(figsize=(layout.width, len(panels) * (each + 0.75) + 0.95), layout="constrained")
    for place, (ax, panel) in enumerate(zip(figure.subplots(len(panels), 1, squeeze=False).flat, panels, strict=True)):
        _draw(ax, panel, layers, experts, tuned, layout, each)
        if place == len(panels) - 1:
            ax.set_xlabel("expert", color=SOFT)
    title = "Experts that a single token activates" if not layout.narrow else "Experts of a single token"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw(
    ax: Axes,
    panel: TokenPanel,
    layers: Sequence[int],
    experts: int,
    tuned: Collection[Expert],
    layout: Layout,
    each: float,
) -> None:
    rows = np.repeat(np.arange(len(layers)), panel.chosen.shape[1])
    columns = panel.chosen.ravel().astype(int)
    special = np.array([(layers[row], column) in tuned for row, column in zip(rows, columns, strict=True)])
    # In points: as large as a cell allows, and never so small that a printer loses it.
    cell = 72 * min((layout.width - 0.9) / experts, each / len(layers))
    side = float(np.clip(cell * 0.95, 2.4, 7.0))
    ax.set_facecolor("#f5f6f8")
    ax.hlines(np.arange(len(layers)), -0.5, experts - 0.5, color=PAPER, linewidth=1.0, zorder=1)
    ax.scatter(
        columns[~special], rows[~special], s=side**2, marker="s", color=ACCENT, linewidths=0, zorder=2, label="chosen"
    )
    ax.scatter(
        columns[special], rows[special], s=(side + 3) ** 2, color=SIGNAL, edgecolors=INK, linewidths=1.1, zorder=3,
        label="chosen, and tuned",
    )  # fmt: skip
    ax.set_xlim(-0.5, experts - 0.5)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    step = max(1, -(-len(layers) // 8))
    ax.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    ax.xaxis.set_major_locator(MaxNLocator(8 if layout.narrow else 9, integer=True, steps=[1, 2, 4, 8, 10]))
    ax.set_ylabel("layer", color=SOFT)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0, color=RULE)
    ax.set_title(panel.title if not layout.narrow else _broken(panel.title), fontsize=10)


def _broken(title: str) -> str:
    head, _, tail = title.partition(" of a prompt")
    return f"{head}\nof a prompt{tail}"
