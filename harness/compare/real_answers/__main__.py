"""The command: from a folder of published answers to tables, figures and the page that explains them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mote.harness.errors import MoteError


def main(
    data: Annotated[Path, typer.Argument(help="The folder that holds the published answers.")],
    out: Annotated[Path, typer.Option(help="Where tables, figures and README.md go.")] = Path("results/real-answers"),
) -> None:
    """Make the figures about real models from published answers."""
    from mote.harness.compare.real_answers.page import write

    try:
        for path in write(data, out):
            print(path)
    except MoteError as error:
        typer.echo(f"real_answers: {error}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
