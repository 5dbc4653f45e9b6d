"""Where tables are printed: a terminal's own width, and in a pipe as wide as they are, so that no cell is cut."""

from __future__ import annotations

from typing import Final

from rich.console import Console

_PIPE: Final = 10_000


def table_console() -> Console:
    """Return a console for tables; what follows in a pipe gets whole lines."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE)
