"""A child's model card: its parents, its recipe, how it was made, what was not tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mote.harness.merge.checkpoint import Checkpoint
from mote.harness.merge.plan import Plan


def heading(front: Mapping[str, Any], title: str) -> list[str]:
    """Return the first lines of a card: the hub's front matter and the title."""
    return ["---", yaml.safe_dump(dict(front), sort_keys=False).rstrip(), "---", f"# {title}", ""]


def card_of(plan: Plan, record: Mapping[str, Any]) -> str:
    """Return the card as Markdown with the hub's front matter; a parent that is a folder is named without its path."""
    hub = [parent.source for parent in plan.parents if parent.revision is not None]
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["merge", "mixture-of-experts", "mote-harness"]}
    if hub:
        front["base_model"] = hub
    recipe = plan.recipe.model_dump(mode="json", exclude_none=True)
    for parent in plan.parents:
        recipe["parents"][parent.name]["path"] = shown(parent)
    rows = [
        f"| {group} | "
        + " | ".join(str(counts.get(kind, 0)) for kind in ("kept", "copied", "mixed", "converted"))
        + " |"
        for group, counts in record["tensors"].items()
    ]
    lines = [
        *heading(front, plan.recipe.name),
        "A child merged tensor by tensor from these parents, without training:",
        "",
        *(
            f"- `{parent.name}`: {shown(parent)}{f' at {parent.revision}' if parent.revision else ''}"
            + (" (the base)" if parent is plan.base else "")
            for parent in plan.parents
        ),
        "",
        "Whether it works was not tested by the merge. The parents' licences hold for it.",
        "",
        "## Tensors",
        "| group | the base's | copied | mixed | converted |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        "## Recipe",
        "```yaml",
        yaml.safe_dump(recipe, sort_keys=False).rstrip(),
        "```",
        "",
        f"Child `{record['child']['digest']}`, recipe `{plan.recipe.digest}`. `merge.json` has the parents' digests;",
        "`mote merge check` verifies them.",
        "",
    ]
    return "\n".join(lines)


def shown(parent: Checkpoint) -> str:
    """Return a parent's hub id, or its folder's own name."""
    return parent.source if parent.revision is not None else Path(parent.source).name
