"""Experts that a rule names by a ranking: a run's, or a file's."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mote.harness.errors import MoteError
from mote.harness.merge.schema import Ranked
from mote.reading import UnreadableError, parse_json, read_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Experts = list[tuple[int, int]]


def ranked_experts(ranked: Ranked) -> Experts:
    """Return the first ``top`` (layer, expert) of a ranking; raise MoteError where it has fewer or isn't there."""
    if ranked.run is not None:
        return _of_run(Path(ranked.run), ranked)
    path = Path(str(ranked.file))
    found = _of_file(path)
    if len(found) < ranked.top:
        raise MoteError(f"experts.top is {ranked.top}, and {path} names {len(found)} experts.")
    return found[: ranked.top]


def _of_run(folder: Path, ranked: Ranked) -> Experts:
    # Imported where a run is read: pandas and scipy take longer to load than a plan to make.
    from mote.harness.preconditions import DataError
    from mote.harness.recipe.manifest import read_manifest
    from mote.harness.science.resonance import distinctive_experts

    manifest = read_manifest(folder)
    layers = [int(layer) for layer in manifest["model"]["layout"]["layers"]]
    study = manifest["recipe"]["study"]
    try:
        scores = _scores(folder, manifest, ranked.ranking, str(study["target"]), str(study["role"]))
        return [(one.layer, one.expert) for one in distinctive_experts(scores, ranked.top, layers)]
    except DataError as error:
        raise MoteError(f"{folder} gives no ranking of {ranked.top} experts: {error}") from None


def _scores(folder: Path, manifest: dict[str, Any], ranking: str, target: str, role: str) -> NDArray[np.float64]:
    """Return scores [layers, experts] on the prompts that chose the run's experts, as its own report has them."""
    import numpy as np

    from mote.harness.preconditions import STATES
    from mote.harness.recipe.label_sets import label_set
    from mote.harness.science.resonance import resonance
    from mote.harness.store.run import RunStore

    judge = label_set(manifest["recipe"]).judge
    with RunStore(folder, read_only=True) as store:
        frame = store.generations_frame(judge)
        labels = frame[frame["profile"] == "baseline"].set_index("prompt_id")["label"].to_dict()
        split = store.split()
        prompts, maps, _ = store.maps("baseline", role)
    chosen = [i for i, prompt in enumerate(prompts) if split.get(prompt, "select") == "select" and prompt in labels]
    if not chosen:
        raise MoteError(f"{folder} has no labelled baseline with activation maps: finish it with mote run.")
    classes = [str(labels[prompts[i]]) for i in chosen]
    if ranking == "resonance":
        return resonance(maps[chosen], classes, target)
    known = [i for i, label in zip(chosen, classes, strict=True) if label not in STATES]
    return np.asarray(maps[known].mean(axis=0, dtype=np.float64))


def _of_file(path: Path) -> Experts:
    try:
        text = read_text(path)
    except UnreadableError:
        raise MoteError(f"experts.file: '{path}' cannot be read.") from None
    try:
        pairs = _of_csv(text) if path.suffix == ".csv" else _of_json(parse_json(text))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, csv.Error):
        raise MoteError(
            f"experts.file: '{path}' is neither a profile, nor a JSON list of [layer, expert], nor a CSV with the"
            " columns layer and expert."
        ) from None
    return list(dict.fromkeys(pairs))


def _of_csv(text: str) -> Experts:
    return [(int(row["layer"]), int(row["expert"])) for row in csv.DictReader(text.splitlines())]


def _of_json(content: Any) -> Experts:
    # A profile's edits are lists of layer, expert and what is done, or objects with those keys.
    listed = content["edits"] if isinstance(content, dict) else content
    return [
        (int(one["layer"]), int(one["expert"])) if isinstance(one, dict) else (int(one[0]), int(one[1]))
        for one in listed
    ]
