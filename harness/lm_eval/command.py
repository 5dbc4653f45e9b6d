"""The thin pass-through behind ``mote lm-eval``: register, add our tasks, hand over to lm_eval's own command."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mote.harness.errors import MoteError, nearest
from mote.harness.lm_eval import NAME, TASKS, register
from mote.patches import ProfileError
from mote.tasks import TaskError

_NOT_FOUND = "Tasks not found: "


def run_command(arguments: Sequence[str]) -> None:
    """Run ``lm_eval`` with these arguments in this process.

    Raises MoteError for what is ours to refuse, and for tasks that lm_eval doesn't know, with the nearest that it does.
    """
    register()
    from lm_eval._cli import HarnessCLI  # type: ignore[import-untyped]
    from lm_eval.utils import setup_logging  # type: ignore[import-untyped]

    setup_logging()
    command = HarnessCLI()
    with _argv(arguments):
        given = command.parse_args()
        paths = _with_our_tasks(given)
        _check(given)
        try:
            command.execute(given)
        except (TaskError, ProfileError) as error:
            raise MoteError(str(error)) from None
        except ValueError as error:
            if not str(error).startswith(_NOT_FOUND):
                raise
            raise MoteError(_unknown_tasks(str(error).removeprefix(_NOT_FOUND).split(", "), paths)) from None


@contextmanager
def _argv(arguments: Sequence[str]) -> Iterator[None]:
    # lm_eval's parser reads sys.argv itself, and adds `run` there where no command is named.
    before = sys.argv
    sys.argv = ["lm_eval", *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _with_our_tasks(given: Namespace) -> list[str]:
    """Add our folder to the user's ``--include_path``; a name that both have is the user's."""
    if not hasattr(given, "include_path"):
        return [str(TASKS)]
    theirs = given.include_path or _from_config(given, "include_path")
    paths = [str(TASKS), *([str(theirs)] if theirs else [])]
    given.include_path = paths
    return paths


def _check(given: Namespace) -> None:
    if (getattr(given, "model", None) or _from_config(given, "model")) != NAME:
        return
    if getattr(given, "use_cache", None) or _from_config(given, "use_cache"):
        from mote.harness.lm_eval.model import USE_CACHE

        raise MoteError(USE_CACHE)


def _from_config(given: Namespace, name: str) -> object:
    """Return a value of the file that ``--config`` names, which lm_eval itself reads only later."""
    path = getattr(given, "config", None)
    if not path:
        return None
    from lm_eval.config.evaluate_config import EvaluatorConfig  # type: ignore[import-untyped]

    try:
        return EvaluatorConfig.load_yaml_config(path).get(name)
    except (OSError, ValueError, TypeError) as error:
        raise MoteError(f"--config {path}: {error}") from None


def _unknown_tasks(names: Sequence[str], paths: Sequence[str]) -> str:
    files = [name for name in names if name.endswith((".yaml", ".yml"))]
    if files:
        parent = Path(files[0]).parent
        near = nearest(Path(files[0]).name, [file.name for file in parent.glob("*.yaml")]) if parent.is_dir() else ""
        return f"--tasks: there is no task file {files[0]}.{near}"
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

    return (
        f"--tasks: lm_eval knows no task '{names[0]}'.{nearest(names[0], TaskManager(include_path=[*paths]).all_tasks)}"
    )
