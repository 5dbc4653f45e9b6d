"""The effects of tuning experts of a demo checkpoint: the demo's question, answered for one seed.

Experts are chosen by resonance on one half of the grid and measured on the other, in full greedy generation on the real
engine, beside 50 uniform and 50 frequency-matched random sets of the same size. This module looks at finished
checkpoints; nothing that trains them imports it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mote.harness.demo import arithmetic, corpus, questions, tokenizer
from mote.harness.demo.evaluation import MAX_NEW_TOKENS
from mote.harness.demo.example import THINK_END, Example, direct
from mote.harness.science.controls import Expert, random_experts
from mote.harness.science.resonance import ExpertScore, distinctive_experts, resonance
from mote.harness.science.splits import stratified_half
from mote.judges import ALIGNED, CHINESE, ENGLISH, REASONED, REFUSED, Label, label_refusal, language, split_reasoning
from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile, read_observation, request_args

DOSES = (1, 3, 5, 10, 20)
SETS = 50
LANGUAGE_DOSE = 10
LANGUAGE_SETS = 20
# The opening whose probability the single-expert ablation watches: long enough to be no other sentence's.
OPENING = f"{THINK_END}I am sorry"


class Said(NamedTuple):
    """One answer: its label, its raw text, and the prompt's activation map where it was asked for."""

    label: str
    raw: str
    map: NDArray[np.int32] | None


@dataclass(frozen=True, slots=True)
class Dose:
    """The effect of k experts. Counts are prompts of the measuring half; random sets have the flipped share of each."""

    k: int
    refused: int
    flipped: int
    broken: int
    others: int
    kept: int
    newly_refused: int
    uniform: list[float]
    matched: list[float]
    stimulated_refused: int
    stimulated_broken: int


@dataclass(frozen=True, slots=True)
class Effects:
    """The whole answer for one checkpoint; `top` lists (layer, expert, resonance), best first."""

    classes: dict[str, int]
    top: list[tuple[int, int, float]]
    doses: list[Dose]
    all_off_flipped: int
    all_off_broken: int
    spearman: float
    spearman_of: int
    largest_single: list[tuple[int, int, float]]
    language_prompts: int
    language_switched: int
    language_random: list[float]
    general_before: float
    general_after: float
    general_of: int


class Bench:
    """The real engine with the router patch, on prompts of token ids, always greedy."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from vllm import LLM

        self.layout = ModelLayout.from_config(folder / "config.json")
        self.words = tokenizer.load(folder)
        self._llm: Any = LLM(str(folder), dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=256)

    def say(
        self, requests: Sequence[tuple[Example, Profile]], *, capture: bool = False, max_tokens: int = MAX_NEW_TOKENS
    ) -> list[Said]:
        """Answer every request in one continuous batch; a receipt of another profile raises RuntimeError."""
        sampling = [self._sampling(profile, max_tokens, "prompt" if capture else None) for _, profile in requests]
        outputs = self._llm.generate(self._prompts(example for example, _ in requests), sampling, use_tqdm=False)
        return [self._read(output, profile) for output, (_, profile) in zip(outputs, requests, strict=True)]

    def opening_logprobs(self, requests: Sequence[tuple[Example, Profile]]) -> NDArray[np.float64]:
        """Log-probability of `OPENING` after each prompt under each profile, teacher-forced."""
        forced = list(self.words.encode(OPENING, add_special_tokens=False))
        prompts = self._prompts(example for example, _ in requests)
        sampling = [self._sampling(profile, 1, None, prompt_logprobs=0) for _, profile in requests]
        full = [{"prompt_token_ids": prompt["prompt_token_ids"] + forced} for prompt in prompts]
        outputs = self._llm.generate(full, sampling, use_tqdm=False)
        return np.array(
            [self._forced(output, profile, forced) for output, (_, profile) in zip(outputs, requests, strict=True)]
        )

    def _prompts(self, examples: Iterable[Example]) -> list[dict[str, list[int]]]:
        return [{"prompt_token_ids": tokenizer.prompt_ids(self.words, example)} for example in examples]

    def _sampling(self, profile: Profile, max_tokens: int, capture: str | None, **more: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(temperature=0.0, max_tokens=max_tokens, extra_args=request_args(profile, capture), **more)

    def _forced(self, output: Any, profile: Profile, forced: list[int]) -> float:
        self._check(output, profile)
        rows = output.prompt_logprobs[-len(forced) :]
        return float(sum(row[token].logprob for row, token in zip(rows, forced, strict=True)))

    def _read(self, output: Any, profile: Profile) -> Said:
        observation = self._check(output, profile)
        completion = output.outputs[0]
        label: Label = label_refusal(completion.text, finish_reason=completion.finish_reason, prompt_opens=True)
        prompt_map = observation.maps.get("prompt")
        return Said(label.label, completion.text, prompt_map.counts if prompt_map else None)

    def _check(self, output: Any, profile: Profile) -> Any:
        observation = read_observation(output.outputs[0])
        if observation.receipt.digest != profile.digest:
            raise RuntimeError(f"an answer came back under {observation.receipt.digest}, not '{profile.name}'")
        return observation


def suppress(experts: Iterable[Expert]) -> Profile:
    """The profile that switches these experts off."""
    return Profile("suppress", tuple(Edit(layer, expert, "suppress") for layer, expert in experts))


def stimulate(experts: Iterable[Expert]) -> Profile:
    """The profile that forces these experts on."""
    return Profile("stimulate", tuple(Edit(layer, expert, "stimulate") for layer, expert in experts))


def pairs(top: Sequence[ExpertScore], k: int) -> list[Expert]:
    """The first k experts of a ranking as (layer, expert)."""
    return [(score.layer, score.expert) for score in top[:k]]


def measure(folder: Path, *, seed: int = 0, sets: int = SETS, tell: Callable[[str], None] = lambda _: None) -> Effects:
    """Measure the checkpoint in `folder`. `seed` decides the halves and the random sets."""
    bench = Bench(folder)
    tell("baseline")
    grid = [Example("grid", (cell.prompt,), direct("")) for cell in questions.cells()]
    said = bench.say([(example, EMPTY_PROFILE) for example in grid], capture=True)
    labels = [each.label for each in said]
    maps = _stacked(said)
    half = stratified_half([example.key for example in grid], labels, seed)
    chosen = [i for i, example in enumerate(grid) if example.key in set(half.select)]
    ranking = resonance(maps[chosen], [labels[i] for i in chosen], REFUSED)
    top = distinctive_experts(ranking, max(DOSES), bench.layout.layers)
    kept_out = [i for i in range(len(grid)) if i not in set(chosen)]
    refused = [grid[i] for i in kept_out if labels[i] == REFUSED]
    others = [(grid[i], labels[i]) for i in kept_out if labels[i] in (ALIGNED, REASONED)]
    frequency = maps[chosen].mean(axis=0)
    doses = []
    for k in DOSES:
        tell(f"top {k}")
        doses.append(_dose(bench, pairs(top, k), refused, others, frequency, seed, sets))
    tell("all routed experts off")
    every = suppress((layer, expert) for layer in bench.layout.layers for expert in range(bench.layout.experts))
    off = Counter(each.label for each in bench.say([(example, every) for example in refused]))
    tell("each expert alone")
    drops = _single_ablations(bench, refused)
    order = np.argsort(-drops, axis=None)[:10]
    largest = [(bench.layout.layers[i // drops.shape[1]], int(i % drops.shape[1]), float(drops.flat[i])) for i in order]
    seen = frequency > 0
    tell("language and general tasks")
    switched, asked, random_switched = _language(bench, seed)
    before, after, of = _general(bench, suppress(pairs(top, 10)))
    return Effects(
        classes=dict(sorted(Counter(labels).items())),
        top=[(score.layer, score.expert, float(score.score)) for score in top],
        doses=doses,
        all_off_flipped=off[ALIGNED] + off[REASONED],
        all_off_broken=len(refused) - off[ALIGNED] - off[REASONED] - off[REFUSED],
        spearman=float(spearmanr(ranking[seen], drops[seen]).statistic),
        spearman_of=int(seen.sum()),
        largest_single=largest,
        language_prompts=asked,
        language_switched=switched,
        language_random=random_switched,
        general_before=before,
        general_after=after,
        general_of=of,
    )


def _dose(
    bench: Bench,
    experts: list[Expert],
    refused: list[Example],
    others: list[tuple[Example, str]],
    frequency: NDArray[np.float64],
    seed: int,
    sets: int,
) -> Dose:
    off, on = suppress(experts), stimulate(experts)
    tuned = Counter(each.label for each in bench.say([(example, off) for example in refused]))
    beside = bench.say([(example, off) for example, _ in others])
    forced = Counter(each.label for each in bench.say([(example, on) for example, _ in others]))
    layers = bench.layout.layers
    shares = {
        kind: _random_shares(bench, random_experts(kind, experts, frequency, layers, sets, seed), refused)
        for kind in ("uniform", "frequency")
    }
    return Dose(
        k=len(experts),
        refused=len(refused),
        flipped=tuned[ALIGNED] + tuned[REASONED],
        broken=len(refused) - tuned[ALIGNED] - tuned[REASONED] - tuned[REFUSED],
        others=len(others),
        kept=sum(each.label == label for each, (_, label) in zip(beside, others, strict=True)),
        newly_refused=sum(each.label == REFUSED for each in beside),
        uniform=shares["uniform"],
        matched=shares["frequency"],
        stimulated_refused=forced[REFUSED],
        stimulated_broken=len(others) - forced[ALIGNED] - forced[REASONED] - forced[REFUSED],
    )


def _random_shares(bench: Bench, drawn: list[list[Expert]], refused: list[Example]) -> list[float]:
    profiles = [suppress(experts) for experts in drawn]
    said = bench.say([(example, profile) for profile in profiles for example in refused])
    flips = np.array([each.label in (ALIGNED, REASONED) for each in said]).reshape(len(profiles), len(refused))
    return [float(share) for share in flips.mean(axis=1)]


def _single_ablations(bench: Bench, refused: list[Example]) -> NDArray[np.float64]:
    """Mean fall of the opening's log-probability when an expert alone is off: [layers, experts]."""
    base = bench.opening_logprobs([(example, EMPTY_PROFILE) for example in refused])
    drops = np.zeros((len(bench.layout.layers), bench.layout.experts))
    for row, layer in enumerate(bench.layout.layers):
        profiles = [suppress([(layer, expert)]) for expert in range(bench.layout.experts)]
        found = bench.opening_logprobs([(example, profile) for profile in profiles for example in refused])
        drops[row] = (base - found.reshape(len(profiles), len(refused))).mean(axis=1)
    return drops


def _language(bench: Bench, seed: int) -> tuple[int, int, list[float]]:
    """Prompts that go from English to Chinese reasoning under the top 10 of English, of how many, and random shares."""
    prompts = arithmetic.evaluation()
    said = bench.say([(example, EMPTY_PROFILE) for example in prompts], capture=True)
    spoken = [_spoken(each) for each in said]
    half = stratified_half([example.key for example in prompts], spoken, seed)
    chosen = [i for i, example in enumerate(prompts) if example.key in set(half.select)]
    maps = _stacked([said[i] for i in chosen])
    ranking = resonance(maps, [spoken[i] for i in chosen], ENGLISH)
    experts = pairs(distinctive_experts(ranking, LANGUAGE_DOSE, bench.layout.layers), LANGUAGE_DOSE)
    english = [prompts[i] for i in range(len(prompts)) if i not in set(chosen) and spoken[i] == ENGLISH]
    drawn = random_experts("frequency", experts, maps.mean(axis=0), bench.layout.layers, LANGUAGE_SETS, seed)
    profiles = [suppress(experts), *(suppress(each) for each in drawn)]
    tuned = bench.say([(example, profile) for profile in profiles for example in english])
    flips = np.array([_spoken(each) == CHINESE for each in tuned]).reshape(len(profiles), len(english))
    return int(flips[0].sum()), len(english), [float(share) for share in flips[1:].mean(axis=1)]


def _stacked(said: Sequence[Said]) -> NDArray[np.int32]:
    """The captured maps, [prompts, layers, experts]."""
    return np.stack([each.map for each in said if each.map is not None])


def _spoken(said: Said) -> str:
    return language(split_reasoning(said.raw, prompt_opens=True).reasoning).name


def _general(bench: Bench, profile: Profile) -> tuple[float, float, int]:
    examples = corpus.general_evaluation()
    shares = []
    for each in (EMPTY_PROFILE, profile):
        said = bench.say([(example, each) for example in examples])
        by_task: dict[str, list[bool]] = {}
        for example, answer in zip(examples, said, strict=True):
            right = answer.raw.rsplit(THINK_END, 1)[-1].strip() == example.expected
            by_task.setdefault(example.task, []).append(right)
        shares.append(float(np.mean([np.mean(right) for right in by_task.values()])))
    return shares[0], shares[1], len(examples)
