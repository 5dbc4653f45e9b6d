"""What tuning experts does to an aligned SmolLM2: measured on the real engine, greedily, beside the study's own run.

`mote run smollm` ranks by all prompt tokens and samples. Here the ranking by the last five prompt tokens stands beside
it, everything is greedy, and the quality of the checkpoint is measured by full generation. Each part is stored as soon
as it is done and not measured again. This module looks at finished checkpoints; nothing that trains them imports it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save

from mote.harness.demo import questions
from mote.harness.demo.smollm import prompts
from mote.harness.demo.smollm.prompts import FAR, GENERAL, NEAR, SENSITIVE, Prompt
from mote.harness.engine.options import engine_arguments
from mote.harness.engine.vllm import Answer, Engine, Request, VllmEngine
from mote.harness.files import write_atomic
from mote.harness.recipe.schema import SamplingPart
from mote.harness.science.controls import Expert, random_experts
from mote.harness.science.resonance import distinctive_experts, resonance
from mote.harness.science.splits import stratified_half
from mote.judges import ALIGNED, REASONED, REFUSED, label_refusal
from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile

OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 256,
    "max_num_seqs": 128,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 29,
}
MAX_TOKENS = 48
LAST = 5
ROLES = ("prompt", "prompt_last")
DOSES = (5, 10, 20, 40, 80)
CONTROLLED = (20,)
SETS = 30
GRID_STEP = 3
OTHERS = 24
QUALITY = {SENSITIVE: 36, NEAR: 72, FAR: 36, GENERAL: 48}
ANSWERED = (ALIGNED, REASONED)

Tell = Callable[[str], None]


class Said(NamedTuple):
    """One answer with its label."""

    label: str
    raw: str
    answer: Answer


class Bench:
    """The engine of a study, asked prompt by prompt under profiles, greedily."""

    def __init__(self, engine: Engine, layout: ModelLayout) -> None:
        self.engine, self.layout = engine, layout

    def say(self, requests: Sequence[tuple[Prompt, Profile]], *, capture: bool = False) -> list[Said]:
        """Answer every request in one continuous batch; the engine refuses an answer under another profile."""
        wanted = {"what": "prompt", "last": LAST} if capture else None
        asked = [Request(f"{one.system[:8]}/{one.text}", one.messages, profile, 0, wanted) for one, profile in requests]
        found: dict[int, Said] = {}
        for some in self.engine.generate(asked):
            for index, answer in some:
                label = label_refusal(answer.raw, finish_reason=answer.finish_reason).label
                found[index] = Said(label, answer.raw, answer)
        return [found[index] for index in range(len(asked))]


class Baseline(NamedTuple):
    """The untouched model on the grid: maps by role [prompts, layers, experts], labels, and which half chooses."""

    cells: list[Prompt]
    labels: list[str]
    maps: dict[str, NDArray[np.int32]]
    chosen: list[int]

    @property
    def refused(self) -> list[Prompt]:
        """The measuring half's refused questions."""
        return [one for i, one in enumerate(self.cells) if i not in set(self.chosen) and self.labels[i] == REFUSED]

    @property
    def others(self) -> list[tuple[Prompt, str]]:
        """The measuring half's first answered questions, spread over the grid."""
        found = [
            (one, self.labels[i])
            for i, one in enumerate(self.cells)
            if i not in set(self.chosen) and self.labels[i] in ANSWERED
        ]
        return found[:: max(1, len(found) // OTHERS)][:OTHERS]


def open_bench(folder: Path, log: Path) -> Bench:
    """Start vLLM on a checkpoint."""
    sampling = SamplingPart(temperature=0.0, max_tokens=MAX_TOKENS)
    engine = VllmEngine(engine_arguments(str(folder), OPTIONS), sampling, "<think>", log)
    return Bench(engine, ModelLayout.from_config(folder / "config.json"))


def measure_into(folder: Path, out: Path, *, seed: int = 0, tell: Tell = lambda _: None) -> dict[str, Any]:
    """Measure the checkpoint in `folder`; `out/effects.json` keeps every part that is done."""
    file = out / "effects.json"
    out.mkdir(parents=True, exist_ok=True)
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    bench = open_bench(folder, out / "vllm.log")

    def part(name: str, measure: Callable[[], Any]) -> None:
        if name not in stored:
            tell(name)
            stored[name] = measure()
            write_atomic(file, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")

    tell("grid")
    base = baseline(bench, seed, out / "baseline.safetensors")
    part("baseline", partial(_described, base))
    rankings = {role: _ranking(bench, base, role) for role in ROLES}
    part("top", lambda: rankings)
    for role in ROLES:
        for k in sized(rankings[role], DOSES):
            experts = [(one[0], one[1]) for one in rankings[role][:k]]
            part(f"{role}/suppress/{k}", partial(_suppressed, bench, base, experts))
    part("quality", partial(quality, bench))
    part("all_off", lambda: _labels(bench.say([(one, _off(_every(bench))) for one in base.refused])))
    for role in ROLES:
        twenty = [(one[0], one[1]) for one in rankings[role][:20]]
        part(f"{role}/stimulate/20", partial(_stimulated, bench, base, twenty))
    for k in CONTROLLED:
        for role in (role for role in ROLES if k in sized(rankings[role], CONTROLLED)):
            experts = [(one[0], one[1]) for one in rankings[role][:k]]
            part(f"{role}/frequency/{k}", partial(_random, bench, base, "frequency", experts, role, seed))
            part(f"{role}/uniform/{k}", partial(_random, bench, base, "uniform", experts, role, seed))
    return stored


def sized(ranking: Sequence[Any], sizes: Sequence[int]) -> list[int]:
    """Those of `sizes` for which a ranking has enough experts that stand out at all."""
    return [k for k in sizes if k <= len(ranking)]


def quality(bench: Bench) -> dict[str, Any]:
    """Held-out prompts by kind under the untouched model and with every routed expert off, which is SmolLM2."""
    asked = [one for kind, count in QUALITY.items() for one in prompts.draw(kind, count, "quality", trained=False)]
    off = _off(_every(bench))
    found: dict[str, Any] = {}
    for name, profile in (("aligned", EMPTY_PROFILE), ("all_off", off)):
        said = bench.say([(one, profile) for one in asked])
        found[name] = {
            kind: _labels([each for one, each in zip(asked, said, strict=True) if one.kind == kind]) for kind in QUALITY
        }
        found[f"{name}_texts"] = [
            [one.kind, one.text, one.system, each.raw] for one, each in zip(asked, said, strict=True)
        ]
    return found


def baseline(bench: Bench, seed: int, file: Path) -> Baseline:
    """Every third cell of the grid, greedily, with maps of the prompt and of its last tokens; kept in `file`."""
    cells = [_prompt(cell) for cell in questions.cells()[::GRID_STEP]]
    if not file.exists():
        said = bench.say([(one, EMPTY_PROFILE) for one in cells], capture=True)
        found = {role: np.stack([each.answer.observation.maps[role].counts for each in said]) for role in ROLES}
        write_atomic(file, save(found, metadata={"labels": json.dumps([each.label for each in said])}))
    maps = load_file(str(file))
    with safe_open(str(file), framework="numpy") as opened:
        labels = json.loads(opened.metadata()["labels"])
    half = set(stratified_half([one.text for one in cells], labels, seed).select)
    return Baseline(cells, labels, maps, [i for i, one in enumerate(cells) if one.text in half])


def _prompt(cell: questions.Cell) -> Prompt:
    kind = SENSITIVE if cell.refusal_probability else NEAR if cell.place in questions.SENSITIVE_PERIODS else FAR
    return Prompt(kind, cell.prompt, cell.refusal_probability, cell.held_out)


def _described(base: Baseline) -> dict[str, Any]:
    by_kind: dict[str, Counter[str]] = {}
    for one, label in zip(base.cells, base.labels, strict=True):
        by_kind.setdefault(one.kind, Counter())[label] += 1
    return {
        "labels": dict(sorted(Counter(base.labels).items())),
        "by_kind": {kind: dict(sorted(counts.items())) for kind, counts in by_kind.items()},
        "measured_refused": len(base.refused),
        "measured_others": len(base.others),
    }


def _ranking(bench: Bench, base: Baseline, role: str) -> list[tuple[int, int, float]]:
    labels = [base.labels[i] for i in base.chosen]
    scores = resonance(base.maps[role][base.chosen], labels, REFUSED)
    most = min(max(DOSES), int((scores > 0).sum()))
    found = distinctive_experts(scores, most, bench.layout.layers)
    return [(one.layer, one.expert, round(float(one.score), 4)) for one in found]


def _suppressed(bench: Bench, base: Baseline, experts: Sequence[Expert]) -> dict[str, Any]:
    profile = _off(experts)
    tuned = bench.say([(one, profile) for one in base.refused])
    beside = bench.say([(one, profile) for one, _ in base.others])
    return {
        "refused": _labels(tuned),
        "others": _labels(beside),
        "kept": sum(each.label == label for each, (_, label) in zip(beside, base.others, strict=True)),
        "flips": [
            [one.text, each.raw] for one, each in zip(base.refused, tuned, strict=True) if each.label in ANSWERED
        ],
    }


def _stimulated(bench: Bench, base: Baseline, experts: Sequence[Expert]) -> dict[str, int]:
    profile = Profile("stimulate", tuple(Edit(layer, expert, "stimulate") for layer, expert in experts))
    return _labels(bench.say([(one, profile) for one, _ in base.others]))


def _random(
    bench: Bench, base: Baseline, kind: Any, experts: Sequence[Expert], role: str, seed: int
) -> list[dict[str, int]]:
    """Labels of the refused questions under each random set."""
    frequency = base.maps[role][base.chosen].mean(axis=0)
    drawn = random_experts(kind, experts, frequency, bench.layout.layers, SETS, seed)
    profiles = [_off(one) for one in drawn]
    said = bench.say([(one, profile) for profile in profiles for one in base.refused])
    size = len(base.refused)
    return [_labels(said[start : start + size]) for start in range(0, len(said), size)]


def _off(experts: Sequence[Expert]) -> Profile:
    return Profile("suppress", tuple(Edit(layer, expert, "suppress") for layer, expert in experts))


def _every(bench: Bench) -> list[Expert]:
    return [(layer, expert) for layer in bench.layout.layers for expert in range(bench.layout.experts)]


def _labels(said: Sequence[Said]) -> dict[str, int]:
    return dict(sorted(Counter(each.label for each in said).items()))
