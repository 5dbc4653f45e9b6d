"""A sweep whose engine follows a script: what a child answers is a function of the proportion that its record says.

``python -m tests.harness.sweep.scripted_sweep FOLDER``: run the sweep of ``recipe_of`` there, or go on with it; killed
at any moment by the tests of resuming.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from mote.harness.engine.turns import Turns
from mote.harness.engine.vllm import Answer, Request, Scored, Scoring
from mote.harness.errors import MoteError
from mote.harness.files import MODEL_DIR
from mote.harness.merge.record import read_record
from mote.harness.sweep.engines import Starts
from mote.harness.sweep.run import check, run
from mote.harness.sweep.schema import SweepRecipe
from mote.patches import ActivationMap, Observation, Receipt
from tests.harness.study.scripted_engine import chance

LAYERS, EXPERTS = 6, 64
"""Of the packaged model."""
THOUGHT = "I have to think about that."


def turns_at(prompt: str) -> float:
    """The proportion from which a prompt is reasoned about: between 0.6 and 0.7."""
    return 0.6 + 0.1 * chance("turns", prompt)


@dataclass
class ScriptedEngine:
    """Has a child's weights; ``lossy`` is one whose reload leaves the old answers, as vLLM's on a CPU did.

    One that ``tires`` takes so many reloads and then loses what it is given.
    """

    lossy: bool = False
    tires: int | None = None
    prompt_opens: bool = True
    named: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    closed: bool = False

    def start(self, folder: Path) -> ScriptedEngine:
        self.record = read_record(folder)
        return self

    @property
    def proportion(self) -> float:
        recipe = self.record["recipe"]
        weight = max((rule["weights"] or {"b": 0.0})["b"] for rule in recipe["rules"])
        return float(weight) if not recipe["name"].endswith("-router") else 0.0

    def name_weights(self, weights: str) -> None:
        self.named = weights

    def take_weights(self, folder: Path, weights: str) -> None:
        self.named = weights
        if self.tires is not None:
            self.tires -= 1
        if not self.lossy and (self.tires is None or self.tires >= 0):
            self.record = read_record(folder)

    def parameter_digests(self) -> Mapping[str, str]:
        return {"all": hashlib.sha256(str(self.record["child"]["weights"]).encode()).hexdigest()}

    def close(self) -> None:
        self.closed = True

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        order = sorted(range(len(requests)), key=lambda at: chance("order", at))
        for start in range(0, len(order), 5):
            yield [(at, self._answer(requests[at])) for at in order[start : start + 5]]

    def _answer(self, request: Request) -> Answer:
        self.asked.append((self.named, request.prompt_id))
        thought = THOUGHT if self.proportion >= turns_at(request.prompt_id) else ""
        right = "yes" if chance("right", request.prompt_id) < 0.5 else "no"
        text = f"{thought}</think>The answer is {right}, as far as is known."
        receipt = Receipt(request.profile.digest, 0, "scripted")
        maps = {"prompt": self._map()} if request.capture else {}
        return Answer(request, text, 9, len(text.split()), "stop", Observation(receipt, (0,), maps, ()))

    def _map(self) -> ActivationMap:
        """Nine tokens choose four experts a layer: as many of them other than the base's as the proportion says."""
        counts = np.zeros((LAYERS, EXPERTS), np.int32)
        moved = round(9 * self.proportion)
        counts[:, :4], counts[:, 4:8] = 9 - moved, moved
        return ActivationMap(counts, 9, 9)

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        raise AssertionError("a sweep scores nothing")

    def fits(self, request: Scoring) -> bool:
        raise AssertionError("a sweep scores nothing")

    def token_texts(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        raise AssertionError("a sweep keeps no tokens")

    def turns(self, messages: Sequence[Mapping[str, str]]) -> Turns:
        raise AssertionError("nothing is aligned here")

    def pieces(self, text: str) -> list[str]:
        return text.split()


def fresh(engines: list[ScriptedEngine], lossy: bool = False, tires: int | None = None) -> Starts:
    """Return what starts scripted engines and keeps them in a list."""

    def start(folder: Path) -> ScriptedEngine:
        engines.append(ScriptedEngine(lossy=lossy, tires=tires).start(folder))
        return engines[-1]

    return start


def parents_in(folder: Path) -> dict[str, str]:
    """Return two parents: the packaged model, and it with noise on every weight."""
    other = folder / "b"
    if not other.exists():
        shutil.copytree(MODEL_DIR, other)
        generator = torch.Generator().manual_seed(0)
        tensors = load_file(MODEL_DIR / "model.safetensors")
        noisy = {
            name: (value.float() * (1 + 0.3 * torch.randn(value.shape, generator=generator))).to(value.dtype)
            for name, value in tensors.items()
        }
        save_file(noisy, other / "model.safetensors", metadata={"format": "pt"})
    return {"a": str(MODEL_DIR), "b": str(other)}


def content_of(folder: Path, **parts: Any) -> dict[str, Any]:
    """Return the content of a small sweep's recipe; a file of prompts lies in the folder."""
    prompts = folder / "prompts.csv"
    if not prompts.exists():
        lines = [f"Is {number} a good number?,The answer is yes" for number in range(30)]
        prompts.write_text("\n".join(["prompt,expected", *lines]) + "\n", encoding="utf-8")
    return {
        "name": "scripted",
        "parents": parents_in(folder),
        "base": "a",
        "toward": "b",
        "subsets": {"all": {"groups": ["all"]}, "router": {"groups": ["router"]}},
        "proportions": [0, 0.5, 1],
        "refine": {"measure": "2-REASONED", "step": 0.2, "finest": 0.1},
        "task": {"file": str(prompts), "columns": {"attributes": ["expected"]}},
        "judges": {"text": "rules"},
        "score": {"attribute": "expected", "match": "within"},
        **parts,
    }


def recipe_of(folder: Path, **parts: Any) -> SweepRecipe:
    """Return a small sweep's recipe."""
    return SweepRecipe.model_validate(content_of(folder, **parts))


def sweep_of(
    recipe: SweepRecipe,
    folder: Path,
    engines: list[ScriptedEngine] | None = None,
    lossy: bool = False,
    tires: int | None = None,
    **how: bool,
) -> None:
    """Run a sweep, or go on with it, with scripted engines."""
    start = fresh(engines if engines is not None else [], lossy, tires)
    run(check(recipe), folder, Console(quiet=True), start=start, **how)


if __name__ == "__main__":
    try:
        sweep_of(recipe_of(Path(sys.argv[1]).parent), Path(sys.argv[1]))
    except MoteError as error:
        sys.exit(str(error))
