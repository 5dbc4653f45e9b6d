"""One typeface, one palette: what figures and page have in common.

Colours hold for colour-blind readers and in greyscale: classes differ in lightness and in marker, shares and counts
go from white to dark in one hue, and a resonance map gets dark alike on both sides of its white zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, NamedTuple

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

# The three first have the same widths, so a figure laid out with one of them fits where another is installed.
TYPEFACE: Final = ("Arial", "Helvetica", "Liberation Sans", "DejaVu Sans")

INK: Final = "#1a1d21"
SOFT: Final = "#5b6470"
RULE: Final = "#c9ced6"
PAPER: Final = "#ffffff"
ACCENT: Final = "#174a7e"
SIGNAL: Final = "#b3361e"

CLASS_COLOURS: Final = ("#a32a14", "#3f86c4", "#efb93f", "#6a4c93", "#3f8f6b")
CLASS_MARKERS: Final = ("o", "s", "^", "D", "P")
STATE_COLOURS: Final = {"TRUNCATED": "#9aa2ad", "DEGENERATE": "#3d434b", "UNSCORED": "#d5d9df"}

SEQUENTIAL: Final = LinearSegmentedColormap.from_list(
    "mote", ["#ffffff", "#d6e4f2", "#8fb6da", "#3f7fb8", "#174a7e", "#0b2440"]
)
# Zero is white, and both directions get dark alike: blue is seen less in the class, red more.
RESONANCE: Final = LinearSegmentedColormap.from_list(
    "mote-resonance", ["#0b2f5c", "#2f6cae", "#8fb6da", "#f8f7f4", "#e9a186", "#b8432c", "#651209"]
)


class Layout(NamedTuple):
    """How wide a figure is, in inches (96 CSS pixels each), and how many panels stand in a row."""

    name: str
    width: float
    columns: int

    @property
    def narrow(self) -> bool:
        """Whether this is the layout of a phone."""
        return self.columns == 1


WIDE: Final = Layout("wide", 10.0, 3)
NARROW: Final = Layout("narrow", 3.7, 1)


def short(label: str) -> str:
    """Return a label without its number: ``REFUSED`` of ``0-REFUSED``."""
    head, separator, tail = label.partition("-")
    return tail if separator and head.isdigit() else label


def colour_of(label: str, classes: tuple[str, ...]) -> str:
    """Return the colour of a class or state."""
    if label in classes:
        return CLASS_COLOURS[classes.index(label) % len(CLASS_COLOURS)]
    return STATE_COLOURS.get(label, SOFT)


@cache
def _typeface() -> tuple[str, ...]:
    # Asking matplotlib for a font that isn't there is a warning for every text it draws.
    there = {entry.name for entry in font_manager.fontManager.ttflist}
    return tuple(name for name in TYPEFACE if name in there)


def name_typeface(svg: bytes) -> bytes:
    """Name the whole typeface list in an SVG: a font that is not on this machine may be on the reader's."""

    def listed(names: tuple[str, ...]) -> bytes:
        return ", ".join(f"'{name}'" for name in names).encode() + b", sans-serif"

    return svg.replace(listed(_typeface()), listed(TYPEFACE))


@contextmanager
def drawing(salt: str) -> Iterator[None]:
    """Draw in the house style; ``salt`` keeps a figure's inner ids the same from one report to the next."""
    values: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": list(_typeface()),
        "font.size": 10,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "axes.labelcolor": INK,
        "axes.edgecolor": SOFT,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "figure.facecolor": PAPER,
        "axes.facecolor": PAPER,
        # Text stays text: it can be searched, read aloud, and edited on a slide.
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
    }
    with mpl.rc_context(values):
        yield


def bare(axes: Axes) -> None:
    """Take away the frame and the tick marks, which say nothing in a matrix or a map."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
