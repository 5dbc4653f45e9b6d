"""The model of a run: where it lies, how its experts are laid out, and the digests that name it in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mote.harness.errors import MoteError, a_few, nearest
from mote.harness.files import MODEL_DIR, read_json_file
from mote.harness.merge.journal import RECORDS
from mote.harness.tensors import digest_weights
from mote.patches import ModelLayout, ProfileError
from mote.patches.layout import MOST_CONFIG


class ModelSource(NamedTuple):
    """A model that was found: what vLLM is given, the layout of its routed experts, and its files' digests."""

    name: str
    path: str
    layout: ModelLayout
    files: dict[str, str]

    def manifest(self) -> dict[str, Any]:
        """Return the manifest's entry for the model."""
        layout = {
            "architecture": self.layout.architecture,
            "layers": list(self.layout.layers),
            "experts": self.layout.experts,
            "top_k": self.layout.top_k,
        }
        # The path is where this machine has it; for the packaged model that says nothing and only differs by machine.
        return {
            "name": self.name,
            "path": self.name if self.name == "demo" else self.path,
            "layout": layout,
            "files": self.files,
        }


def resolve_model(path: str) -> ModelSource:
    """Find a model by ``demo``, folder, or Hugging Face id, without loading its weights.

    Raises MoteError where it isn't there or has no routed experts that we know how to address.
    """
    folder = MODEL_DIR if path == "demo" else Path(path)
    if folder.is_dir():
        config, files, given = _read_config(folder), _digests(folder), str(folder.resolve())
    elif path.count("/") == 1 and not path.startswith((".", "/", "~")):
        config, files = _from_hub(path)
        given = path
    else:
        hint = _nearest_folder(folder)
        raise MoteError(
            f"model.path '{path}' is neither a folder, nor a Hugging Face id (owner/name), nor 'demo'.{hint}"
        )
    try:
        layout = ModelLayout.from_config(config)
    except ProfileError as error:
        raise MoteError(f"model.path '{path}': {error}") from None
    return ModelSource(path, given, layout, files)


def check_files(made: Path, model: ModelSource, files: Mapping[str, str]) -> None:
    """Raise MoteError, naming the files, unless a model's are those that ``made`` was made with."""
    changed = sorted(name for name in {*model.files, *files} if model.files.get(name) != files.get(name))
    if changed:
        raise MoteError(
            f"{made} was made with other files of '{model.name}' ({a_few(changed)} differ): what is"
            " measured now would not belong to it."
        )


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise MoteError(f"model.path '{folder}' has no config.json: it is not the folder of a model.")
    config = read_json_file(file, MOST_CONFIG)
    if not isinstance(config, dict):
        raise MoteError(f"{file} is not a model's configuration: it should hold a JSON object.")
    return config


def _from_hub(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    from huggingface_hub import hf_hub_download

    try:
        file = Path(hf_hub_download(name, "config.json"))
    # The hub's client raises many kinds (no network, offline, no such repository, gated): all are the user's to mend.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise MoteError(f"model.path '{name}' is no folder here, and Hugging Face did not give it: {reason}") from None
    return _read_config(file.parent), {"revision": file.parent.name}


def _digests(folder: Path) -> dict[str, str]:
    named = (".json", ".safetensors", ".jinja", ".model", ".txt")
    # A record says when a child was made: two of the same bytes are the same model.
    files = {
        file.name: file
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name.endswith(named) and file.name not in RECORDS
    }
    # What a model does may stand in code that it brings, with modules in folders of their own.
    code = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.py")) if file.is_file()}
    return {name: digest_weights(file) for name, file in sorted((files | code).items())}


def _nearest_folder(folder: Path) -> str:
    parent = folder.expanduser().parent
    if not parent.is_dir():
        return f" There is no folder '{parent}' either."
    return nearest(folder.name, [item.name for item in parent.iterdir() if (item / "config.json").is_file()])
