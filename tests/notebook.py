"""Execute the notebook of ``docs/`` in this process and keep its outputs: ``python -m tests.notebook``.

A notebook is JSON, and this one needs no kernel of Jupyter, which the lock leaves out: each code cell is run as a
script with a last expression, whose value is shown; what is printed and every open figure of pyplot become outputs.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "from-prompts-to-a-verdict.ipynb"


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with the outputs of its code cells, run in order from where one stands."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    # What was drawn before is no cell's.
    pyplot.close("all")
    names: dict[str, Any] = {"__name__": "__notebook__"}
    number = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            cell["execution_count"] = number
            cell["outputs"] = _run("".join(cell["source"]), names, number)
    return notebook


def _run(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    from matplotlib import pyplot

    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(tree, f"<cell {number}>", "exec"), names)  # noqa: S102 - our own notebook
        if isinstance(last, ast.Expr) and not source.rstrip().endswith(";"):
            value = eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), names)  # noqa: S307
        elif isinstance(last, ast.Expr):
            eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), names)  # noqa: S307
    found: list[dict[str, Any]] = []
    if text := said.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        found.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    for figure in map(pyplot.figure, pyplot.get_fignums()):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
        png = base64.b64encode(buffer.getvalue()).decode()
        found.append({"output_type": "display_data", "metadata": {}, "data": {"image/png": png}})
    pyplot.close("all")
    return found


if __name__ == "__main__":
    target = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else NOTEBOOK
    os.chdir(NOTEBOOK.parent)
    made = execute(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
