"""A transition matrix in the terminal: rows before, columns after, and of broken states only those that occurred."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

from mote.harness.preconditions import STATES


def matrix_table(title: str, matrix: pd.DataFrame) -> Table:
    """Return a transition matrix [before, after] of counts as a table; CSV files have the empty states too."""
    rows = [str(label) for label in matrix.index if label not in STATES or matrix.loc[label].sum()]
    columns = [str(label) for label in matrix.columns if label not in STATES or matrix[label].sum()]
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for label in columns:
        table.add_column(label, justify="right", no_wrap=True)
    for label in rows:
        table.add_row(label, *(f"{count:,}" for count in matrix.loc[label, columns].astype(int)))
    return table
