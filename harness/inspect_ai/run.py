"""A task of Inspect under the untouched model, a profile and its shams, all at once: ``mote inspect run``.

Every profile is a model of its own to Inspect, which evaluates them side by side; one server answers them all, so that
their requests share batches. What comes of it are Inspect's own logs, one for each profile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from mote.harness.errors import MoteError, nearest, one_line
from mote.harness.inspect_ai import NAME, register
from mote.harness.inspect_ai.shams import check_kind
from mote.harness.science.controls import MOST_SETS
from mote.patches import EMPTY_PROFILE


class Evaluation(NamedTuple):
    """What is evaluated.

    Attributes:
        task: a file of tasks (``sums.py``, ``sums.py@name``) or the name of an installed one.
        model: demo, a folder, a Hugging Face id, or a server's name for its model.
        profile: a file, or ``RUN:PROFILE``.
        shams: how many; ``kind`` of random experts and ``sham_seed`` say which.
        url: the base URL of a server, None for one of our own.
        arguments: further model arguments: seed, markers, and vLLM's engine options.
        logs: the folder of Inspect's logs.
        task_arguments: of the task.
        config: fields of Inspect's GenerateConfig.
        limit: so many samples, None for all.
        epochs: of each sample, None for the task's.
        display: how Inspect shows progress: none, plain, ...
    """

    task: str
    model: str
    profile: str
    shams: int
    kind: str
    sham_seed: int
    url: str | None
    arguments: Mapping[str, Any]
    logs: Path
    task_arguments: Mapping[str, Any]
    config: Mapping[str, Any]
    limit: int | None = None
    epochs: int | None = None
    display: str = "none"


_TAKEN = ("profile", "sham", "sham_kind", "sham_seed")


def check(asked: Evaluation) -> None:
    """Raise MoteError for what can be seen to be wrong before anything is loaded."""
    if not 0 <= asked.shams <= MOST_SETS:
        raise MoteError(f"--shams {asked.shams}: there are from 0 to {MOST_SETS}.")
    check_kind(asked.kind, "--kind ")
    if asked.profile == EMPTY_PROFILE.name:
        raise MoteError("--profile baseline: the untouched model is evaluated in any case; name a profile to test.")
    for name in asked.arguments:
        if name in _TAKEN:
            raise MoteError(f"-M {name}: give --{name.replace('sham_', '').replace('sham', 'shams')}.")
    file = Path(asked.task.partition("@")[0])
    if file.suffix == ".py" and not file.is_file():
        near = nearest(file.name, [one.name for one in file.parent.glob("*.py")]) if file.parent.is_dir() else ""
        raise MoteError(f"there is no file of tasks {file}.{near}")


def evaluate(asked: Evaluation) -> list[Path]:
    """Evaluate the task under every profile and return the logs: baseline, profile, shams.

    Raises MoteError for a wrong option, and where an evaluation did not end well; its log says more.
    """
    check(asked)
    register()
    from inspect_ai import eval as evaluated
    from inspect_ai.model import GenerateConfig, get_model

    from mote.harness.inspect_ai.model import MoteAPI

    if unknown := [name for name in asked.config if name not in GenerateConfig.model_fields]:
        near = nearest(unknown[0], GenerateConfig.model_fields)
        raise MoteError(f"-G {unknown[0]} is no option of Inspect's GenerateConfig.{near}")
    models = [
        get_model(f"{NAME}/{asked.model}", base_url=asked.url, **{**asked.arguments, **one}) for one in _profiles(asked)
    ]
    for model in models:
        # Before Inspect begins, where a server that does not come up is one line.
        cast(MoteAPI, model.api).connect()
    try:
        logs = evaluated(
            _named(asked.task),
            model=models,
            task_args=dict(asked.task_arguments),
            log_dir=str(asked.logs),
            limit=asked.limit,
            epochs=asked.epochs,
            # All at once: one after the other they would share no batch.
            max_tasks=len(models),
            display=asked.display,
            **asked.config,
        )
    except Exception as error:
        # Inspect's word for what its user has to mend.
        if type(error).__name__ != "PrerequisiteError":
            raise
        said = str(getattr(error, "message", error)).removeprefix("Error: ")
        raise MoteError(one_line(f"{asked.task}: {said}")) from None
    for log in logs:
        if log.status != "success":
            said = log.error.message if log.error else log.status
            raise MoteError(
                f"'{log.eval.task}' of {log.eval.model} did not end well ({log.location}): {one_line(said)}"
            )
    return [Path(log.location) for log in logs]


def _named(task: str) -> str:
    """The task as Inspect finds it: a file without a task's name must not be given by an absolute path."""
    return os.path.relpath(task) if Path(task).is_file() else task


def _profiles(asked: Evaluation) -> Sequence[Mapping[str, Any]]:
    """The arguments that tell the models apart."""
    tuned = {"profile": asked.profile}
    how = {"sham_kind": asked.kind, "sham_seed": asked.sham_seed}
    return [{}, tuned, *({**tuned, **how, "sham": number} for number in range(1, asked.shams + 1))]
