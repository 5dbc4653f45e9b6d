"""What is taken home: a profile of a run, or a profile's file, and the model that it is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mote.harness.compare.run_answers import profile_of_run, split_run
from mote.harness.engine.model import ModelSource, check_files, resolve_model
from mote.harness.engine.trust import Own, trusted_recipe
from mote.harness.errors import MoteError
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.schema import recipe_of
from mote.patches import ModelLayout, Profile, ProfileError


class Source(NamedTuple):
    """A profile, and the folder of the run that it is of; None for a profile's file."""

    profile: Profile
    run: Path | None


def read_source(text: str) -> Source:
    """Read ``RUN:PROFILE`` or the file of a profile; raise MoteError, with the nearest name, for anything else."""
    path = Path(text)
    try:
        if path.is_file():
            return Source(Profile.read(path), None)
        folder, name = split_run(text)
        if name is None:
            raise MoteError(f"'{text}' names no profile: write RUN:PROFILE, or the file of a profile.")
        return Source(profile_of_run(folder, name), folder)
    except ProfileError as error:
        raise MoteError(str(error)) from None


def model_of(source: Source, own: Own) -> ModelSource:
    """Return the model that a profile is of: its user's ``own.model``, else the run's, of the same files.

    Raises MoteError where neither says it, where the run's manifest may not, and where the files are others by now.
    """
    if source.run is None:
        if own.model is None:
            raise MoteError("a profile's file does not say where its model lies: name it with --model.")
        model = resolve_model(own.model)
    else:
        manifest = read_manifest(source.run)
        recipe = recipe_of(manifest["recipe"])
        # Whoever is asked makes no difference to the weights: a run's servers are nothing that is needed here.
        vllm = recipe.model_copy(update={"model": recipe.model.model_copy(update={"servers": None, "options": {}})})
        model = resolve_model(trusted_recipe(vllm, source.run, Own(own.model)).model.path)
        check_files(source.run, model, manifest["model"]["files"])
    check_layout(source.profile, model.layout)
    return model


def check_layout(profile: Profile, layout: ModelLayout) -> None:
    """Raise MoteError unless a profile can be of a model of this layout."""
    try:
        profile.check(layout)
    except ProfileError as error:
        raise MoteError(str(error)) from None


def run_layout(manifest: Mapping[str, Any]) -> ModelLayout:
    """Return the layout of a run's model, by its manifest."""
    found = manifest["model"]["layout"]
    return ModelLayout.from_dict({name: found[name] for name in ("architecture", "layers", "experts", "top_k")})


def layout_of(source: Source, model: str | None) -> ModelLayout:
    """Return the layout of the model that a profile is of: as ``--model`` has it, its run's, or as its file says."""
    if model is not None:
        layout = resolve_model(model).layout
    elif source.run is not None:
        layout = run_layout(read_manifest(source.run))
    elif source.profile.model is not None:
        layout = source.profile.model
    else:
        raise MoteError(f"profile '{source.profile.name}' does not say which model it is of: name it with --model.")
    check_layout(source.profile, layout)
    return layout
