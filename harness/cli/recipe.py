"""``mote recipe``: recipes for editors and scripts: their JSON schema, what one resolves to, whether it can be run."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from mote.harness.cli.whole_help import WholeHelp

app = typer.Typer(
    cls=WholeHelp,
    name="recipe",
    help="Recipes for editors and scripts: their schema, what one resolves to, whether it can be run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Recipe = Annotated[str, typer.Argument(help="A recipe: a packaged one's name, or a YAML file.", metavar="RECIPE")]
_Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value of the recipe: key.path=value.", metavar="KEY=VALUE"),
]


def mount(parent: typer.Typer) -> None:
    """Add the commands to ``mote``."""
    parent.add_typer(app)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, which editors complete and check by.

    Example: mote recipe schema > mote-recipe.schema.json
    """
    from mote.harness.recipe.json_schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))


@app.command()
def show(recipe: _Recipe, changes: _Changes = None) -> None:
    """Print a recipe as a run would keep it: every value, with what was left out filled in.

    Example: mote recipe show demo --set study.top_k=5
    """
    import yaml

    from mote.harness.recipe.schema import load_recipe

    resolved = load_recipe(recipe, changes or []).model_dump(mode="json")
    print(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=110), end="")


@app.command()
def check(recipe: _Recipe, changes: _Changes = None) -> None:
    """Check a recipe and all that it names (model, prompts, classes, judge); loads no weights and writes nothing.

    Example: mote recipe check praise.yaml
    """
    from mote.harness.recipe.label_sets import label_set
    from mote.harness.recipe.schema import load_recipe
    from mote.harness.study.run import check as check_study

    study = check_study(load_recipe(recipe, changes or []))
    labels = label_set(study.manifest["recipe"])
    Console(highlight=False).print(
        f"{study.recipe.name}: {len(study.prompts):,} prompts of {study.recipe.task.name} to {study.model.name};"
        f" {study.recipe.study.target} of {', '.join(labels.classes)}, by {labels.judge}"
        f" (recipe {study.recipe.digest[:12]})",
        soft_wrap=True,
        markup=False,
    )
