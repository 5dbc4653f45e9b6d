"""The two sides of a difference: finished runs of one recipe, on models with the same experts and the same tokens.

Whatever else than the model differs is refused, in a line that names it: a difference would not be the model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.harness.engine.model import ModelSource, check_files, resolve_model
from mote.harness.engine.trust import Own, trusted_recipe
from mote.harness.errors import MoteError
from mote.harness.experts.rankings import Halves, read_halves
from mote.harness.experts.scan import tokenizer_of
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.roles import PROMPT
from mote.harness.recipe.schema import differences, recipe_of
from mote.harness.science.controls import BASELINE, RETEST
from mote.harness.store.run import RunStore
from mote.harness.study.controls import tuned_row
from mote.patches import Profile

_FREE: Final = ("name:", "model.path:", "model.options", "model.servers", "task.file:", "task.hub.dataset:")
"""What two recipes may differ in: where things lie, and how the engine loads them (`quantization`, `dtype`)."""
_LAYOUT: Final = {"architecture": "the architecture", "layers": "experts in the layers", "experts": "experts a layer"}
_OF_TOKENS: Final = ("tokenizer", "chat_template", "vocab", "merges", "special_tokens", "added_tokens", "spiece")


class Side(NamedTuple):
    """One run as a difference reads it.

    ``labels`` are the baseline's, states among them; ``retest`` those of the untouched model with another seed, empty
    without a retest. ``mapped`` are the prompts of ``maps`` [prompts, layers, experts], of the study's role; ``routed``
    the prompts of ``routes``, of the prompt's tokens, all of which were seen. ``tuned`` is the study's own profile.
    """

    name: str
    folder: Path
    manifest: Mapping[str, Any]
    halves: Halves
    labels: Mapping[str, str]
    retest: Mapping[str, str]
    mapped: Sequence[str]
    maps: NDArray[Any]
    routed: Sequence[str]
    routes: NDArray[Any]
    tuned: Profile


def read_side(folder: Path) -> Side:
    """Read a finished run; raise MoteError where it has no labelled baseline, split or tuned profile."""
    manifest = read_manifest(folder)
    with RunStore(folder, read_only=True) as store:
        halves = read_halves(store, manifest)
        frame = store.labels_frame(halves.label_set.judge)
        profiles = store.profiles()
        retest = next((row.name for row in profiles if row.kind == RETEST), "")
        mapped, maps, _ = store.maps(BASELINE, str(manifest["recipe"]["study"]["role"]))
        routed, routes, counted = store.maps(BASELINE, PROMPT)
    whole = [at for at, (seen, total) in enumerate(counted) if seen == total]
    labels = {
        name: dict(zip(some["prompt_id"].map(str), some["label"].map(str), strict=True))
        for name, some in frame.groupby("profile")
    }
    return Side(
        folder.resolve().name, folder, manifest, halves, labels.get(BASELINE, {}), labels.get(retest, {}),
        mapped, maps, [routed[at] for at in whole], routes[whole], Profile.from_dict(tuned_row(profiles).spec),
    )  # fmt: skip


def read_sides(folder: Path, other: Path) -> tuple[Side, Side]:
    """Read both runs; raise MoteError where they differ in more than the model, and for one run named twice."""
    if folder.resolve() == other.resolve():
        raise MoteError(f"{folder} and {other} are one run: copy it to set it against itself.")
    first, second = read_side(folder), read_side(other)
    if first.name == second.name:
        first, second = first._replace(name=f"{first.name} (1)"), second._replace(name=f"{second.name} (2)")
    check_layout(
        (str(first.folder), str(second.folder)), *(side.manifest["model"]["layout"] for side in (first, second))
    )
    _check_recipe(first, second)
    _check_prompts(first, second)
    return first, second


def check_layout(names: tuple[str, str], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise MoteError unless two models have their experts in the same places, by their manifests' layouts."""
    for key, said in _LAYOUT.items():
        if ours[key] != theirs[key]:
            raise MoteError(
                f"the models have no common layout of experts: {said} {ours[key]} in {names[0]}, {theirs[key]} in"
                f" {names[1]}."
            )


def _check_recipe(first: Side, second: Side) -> None:
    ours, theirs = (recipe_of(side.manifest["recipe"]).model_dump(mode="json") for side in (first, second))
    apart = [line for line in differences(ours, theirs) if not line.startswith(_FREE)]
    if apart:
        more = f" and {len(apart) - 1} more" if len(apart) > 1 else ""
        raise MoteError(
            f"{second.folder} was made by another recipe than {first.folder} ({apart[0]}{more}): run one recipe on both"
            " models."
        )


def _check_prompts(first: Side, second: Side) -> None:
    ours, theirs = first.halves.prompts, second.halves.prompts
    for key in [*ours, *theirs]:
        if key not in ours or key not in theirs:
            lacking = first if key not in ours else second
            raise MoteError(f"the runs asked other prompts: '{key}' is not in {lacking.folder}.")
        if list(map(dict, ours[key].messages)) != list(map(dict, theirs[key].messages)):
            raise MoteError(f"the runs asked other prompts: '{key}' is another text in {second.folder}.")


def models_of(sides: tuple[Side, Side], own: tuple[Own, Own]) -> tuple[ModelSource, ModelSource]:
    """Return both models, held to their runs' files; raise MoteError as ``open_session``, and for other tokens."""
    found = []
    for side, said in zip(sides, own, strict=True):
        recipe = trusted_recipe(recipe_of(side.manifest["recipe"]), side.folder, said)
        model = resolve_model(recipe.model.path)
        check_files(side.folder, model, side.manifest["model"]["files"])
        found.append((model, recipe))
    (first, ours), (second, theirs) = found
    if _token_files(first) != _token_files(second) or not _token_files(first):
        prompts = {key: list(map(dict, row.messages)) for key, row in sides[0].halves.prompts.items()}
        left, right = (_rendered(tokenizer_of(recipe, model.path), prompts, recipe.model.template)
                       for model, recipe in ((first, ours), (second, theirs)))  # fmt: skip
        for key in prompts:
            if left[key] != right[key]:
                raise MoteError(
                    f"the models have another tokenizer or chat template: prompt '{key}' is {len(left[key])} tokens in"
                    f" {sides[0].folder} and {len(right[key])} in {sides[1].folder}, not the same ones."
                )
    return first, second


def _token_files(model: ModelSource) -> dict[str, str]:
    return {name: digest for name, digest in model.files.items() if name.startswith(_OF_TOKENS)}


def _rendered(tokenizer: Any, prompts: Mapping[str, list[Any]], template: Mapping[str, Any]) -> dict[str, list[int]]:
    return {
        key: list(
            tokenizer.encode(
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **template),
                add_special_tokens=False,
            )
        )
        for key, messages in prompts.items()
    }


def notes_of(first: Side, second: Side) -> list[str]:
    """Return what else differs, a sentence each."""
    said = []
    ours, theirs = (side.manifest["recipe"]["model"]["options"] for side in (first, second))
    for line in differences(ours, theirs):
        said.append(f"The engine's options differ: {line}.")
    if first.manifest["model"]["files"] == second.manifest["model"]["files"]:
        said.append("Both runs are of the same files: what differs is the engine, or nothing.")
    rows = [
        side.manifest["sessions"][0].get("versions", {}) if side.manifest["sessions"] else {}
        for side in (first, second)
    ]
    for name in sorted(set(rows[0]) & set(rows[1])):
        if rows[0][name] != rows[1][name]:
            said.append(f"{name} was {rows[0][name]} in {first.name}, {rows[1][name]} in {second.name}.")
    return said


def common(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], NDArray[np.intp], NDArray[np.intp]]:
    """Return the prompts that both have, in the first's order, and the places of each in both."""
    place = {key: at for at, key in enumerate(second)}
    both = [(key, at, place[key]) for at, key in enumerate(first) if key in place]
    return (
        [key for key, _, _ in both],
        np.array([at for _, at, _ in both], dtype=np.intp),
        np.array([at for _, _, at in both], dtype=np.intp),
    )
