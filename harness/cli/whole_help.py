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


def recipe_first(unnamed: str) -> type[WholeHelp]:
    """Return a group whose command ``unnamed`` needs no word for it: ``mote merge RECIPE``, ``mote merge diff A B``."""

    class RecipeFirst(WholeHelp):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Put the unnamed command before a recipe."""
            if args and args[0] not in (*self.commands, "-h", "--help"):
                args = [unnamed, *args]
            return super().parse_args(ctx, args)

    return RecipeFirst
