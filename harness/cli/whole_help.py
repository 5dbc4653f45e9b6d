"""Groups of commands whose ``--help`` gives the first sentence of each command whole."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperGroup

_UNCUT: Final = 10_000


class WholeHelp(TyperGroup):
    """A group that wraps what its commands are for, where the library would cut it to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(_UNCUT)) for name, one in found if one is not None and not one.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
