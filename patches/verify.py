"""Proof on the user's own hardware: a running engine is asked questions whose answers are known beforehand.

Everything is checked from outside, through requests and what comes back, so it holds for any model and device that the
patch runs on: receipts, the arithmetic of the edit, the mechanism against the routers' own choices, isolation of
batchmates, isolation of the prefix cache, refusals, and the cost. ``mote verify`` prints the report to paste.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from mote.patches.layout import ModelLayout
from mote.patches.observation import Observation, ObservationError, read_observation, request_args
from mote.patches.profile import EMPTY_PROFILE, Edit, Profile
from mote.patches.routes import Route

_TOKENS = 16
_WEIGHS_PLACES = ("PhiMoEForCausalLM", "PhimoeForCausalLM")
"""Families whose router makes each place's weight by a softmax of its own, so that weights need not follow logits."""


class Check(NamedTuple):
    """One question: its name, whether the answer was the expected one, and the figures."""

    name: str
    passed: bool
    detail: str


class Report(NamedTuple):
    """All checks, and where they ran."""

    checks: tuple[Check, ...]
    setting: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_markdown(self) -> str:
        """Return the report as text to paste into an issue."""
        lines = [f"- {name}: {value}" for name, value in self.setting.items()]
        lines += ["", "| check | result | figures |", "| --- | --- | --- |"]
        lines += [f"| {c.name} | {'passed' if c.passed else 'FAILED'} | {c.detail} |" for c in self.checks]
        return "\n".join(lines) + "\n"


class Stock(NamedTuple):
    """What vLLM without the patch answers: the tokens of each round's requests, and the seconds of each round."""

    tokens: list[list[list[int]]]
    seconds: list[float]


class _Answer(NamedTuple):
    tokens: tuple[int, ...]
    cached: int
    observation: Observation | None


def verify(llm: Any, layout: ModelLayout, *, seed: int = 0, rounds: int = 5, stock: Stock | None = None) -> Report:
    """Question a running ``vllm.LLM`` that serves a model of this ``layout``; takes a few minutes at most.

    ``stock`` is what ``ask_stock`` brought from an engine of the same options without the patch, for the same ``seed``.

    Raises:
        ObservationError: an answer carries no receipt at all; the engine runs without the patch.
    """
    examiner = _Examiner(llm, layout, seed)
    questions = (
        *(() if stock is None else (lambda: examiner.untouched(stock),)),
        examiner.arithmetic,
        examiner.receipts,
        examiner.suppression,
        examiner.stimulation,
        examiner.rows,
        examiner.before_the_choice,
        examiner.transplant,
        examiner.batchmates,
        examiner.prefix_cache,
        examiner.refusal,
        lambda: examiner.cost(rounds, stock),
    )
    return Report(tuple(question() for question in questions), examiner.setting())


def ask_stock(llm: Any, *, seed: int = 0, rounds: int = 5) -> Stock:
    """Ask a ``vllm.LLM`` without the patch what :func:`verify` will ask the one with it; one round more, to warm up."""
    prompts = [{"prompt_token_ids": prompt} for prompt in _draw_prompts(llm, np.random.default_rng(seed))]
    tokens, seconds = [], []
    for _ in range(rounds + 1):
        llm.reset_prefix_cache()
        start = time.perf_counter()
        outputs = llm.generate(prompts, _params(None), use_tqdm=False)
        seconds.append(time.perf_counter() - start)
        tokens.append([list(output.outputs[0].token_ids) for output in outputs])
    return Stock(tokens, seconds[1:])


def _draw_prompts(llm: Any, draw: np.random.Generator) -> list[list[int]]:
    vocabulary = llm.llm_engine.model_config.get_vocab_size()
    return [draw.integers(vocabulary, size=96).tolist() for _ in range(16)]


def _params(extra: dict[str, Any] | None) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=0.0, max_tokens=_TOKENS, ignore_eos=True, detokenize=False, extra_args=extra)


class _Examiner:
    def __init__(self, llm: Any, layout: ModelLayout, seed: int) -> None:
        self.llm, self.layout, self.seed = llm, layout, seed
        self.draw = np.random.default_rng(seed)
        self.prompts = _draw_prompts(llm, self.draw)
        counts = self.observe(self.prompts[0], EMPTY_PROFILE, "prompt").maps["prompt"].counts
        self.counts = counts
        busiest = np.argsort(-counts, axis=None)[:10]
        rows, experts = np.unravel_index(busiest, counts.shape)
        self.busiest = [(layout.layers[row], int(e)) for row, e in zip(rows.tolist(), experts.tolist(), strict=True)]
        self.tuned = Profile("busiest", tuple(Edit(layer, expert, "suppress") for layer, expert in self.busiest))

    def ask(
        self,
        prompts: Sequence[list[int]],
        profiles: Sequence[Profile | None],
        capture: Any = None,
        route: Route | None = None,
    ) -> list[_Answer]:
        params = [_params(None if profile is None else request_args(profile, capture, route)) for profile in profiles]
        outputs = self.llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
        return [
            _Answer(
                tuple(output.outputs[0].token_ids),
                output.num_cached_tokens or 0,
                None if profile is None else read_observation(output.outputs[0]),
            )
            for output, profile in zip(outputs, profiles, strict=True)
        ]

    def observe(self, prompt: list[int], profile: Profile, capture: Any = None) -> Observation:
        observation = self.ask([prompt], [profile], capture)[0].observation
        if observation is None:
            raise ObservationError("the answer carries no receipt")
        return observation

    def untouched(self, stock: Stock) -> Check:
        """Untuned requests are answered as by vLLM without the patch.

        An eager engine must agree as often as stock vLLM agrees with itself. A compiled one runs another graph, whose
        fused operators may round otherwise, so that a token nearly tied falls the other way: half of the answers must
        agree, and the figures say how many do.
        """
        self.llm.reset_prefix_cache()
        mine = [list(answer.tokens) for answer in self.ask(self.prompts, [None] * len(self.prompts))]
        first = stock.tokens[0]
        same = sum(a == b for a, b in zip(mine, first, strict=True))
        steady = min(sum(a == b for a, b in zip(again, first, strict=True)) for again in stock.tokens)
        eager = self.llm.llm_engine.vllm_config.model_config.enforce_eager
        figures = f"{same} of {len(first)} answers are those of vLLM without the patch, which repeats {steady} itself"
        return Check("untouched requests", same >= (steady if eager else len(first) // 2), figures)

    def arithmetic(self) -> Check:
        """The workers' own edit on their own device against the slow rule, on random routings of this model's shape."""
        name = "edit against the slow rule"
        results: list[tuple[bool, str]] = self.llm.collective_rpc("mote_check", args=(self.seed,))
        wrong = [(worker, detail) for worker, (passed, detail) in enumerate(results) if not passed]
        if wrong:
            return Check(name, False, "; ".join(f"worker {worker}: {detail}" for worker, detail in wrong))
        workers = f"{len(results)} workers, " if len(results) > 1 else ""
        return Check(name, True, workers + results[0][1])

    def receipts(self) -> Check:
        """Sixteen requests with sixteen profiles in one batch: each receipt names its own."""
        profiles = [Profile(str(n), (Edit(*self.busiest[n % 10], "scale", 0.5 + n),)) for n in range(len(self.prompts))]
        answers = self.ask(self.prompts, profiles)
        right = sum(
            answer.observation is not None
            and answer.observation.receipt.digest == profile.digest
            and answer.observation.receipt.tokens_edited == 96 - answer.cached + _TOKENS - 1
            for answer, profile in zip(answers, profiles, strict=True)
        )
        return Check("receipts", right == len(profiles), f"{right} of {len(profiles)} profiles in one batch")

    def suppression(self) -> Check:
        """The ten busiest experts suppressed: selected as often as the rows say, weight 0 in every token."""
        observation = self.observe(self.prompts[0], self.tuned, "rows")
        rows = np.concatenate([observation.rows["prompt"], observation.rows["generated"]])
        place = {layer: row for row, layer in enumerate(self.layout.layers)}
        counts = [int((rows[:, place[e.layer]] == e.expert).sum()) for e in observation.mechanism]
        selected = sum(effect.selected for effect in observation.mechanism)
        kept = sum(effect.weight_after for effect in observation.mechanism)
        good = counts == [e.selected for e in observation.mechanism] and selected > 0 and kept == 0
        return Check("suppression", good, f"selected {selected} times in {len(rows)} tokens, weight after {kept:g}")

    def stimulation(self) -> Check:
        """One expert of each layer stimulated: absent in no token."""
        experts = self.draw.integers(self.layout.experts, size=len(self.layout.layers)).tolist()
        edits = tuple(Edit(layer, e, "stimulate") for layer, e in zip(self.layout.layers, experts, strict=True))
        observation = self.observe(self.prompts[1], Profile("stimulate", edits))
        absent = sum(effect.absent for effect in observation.mechanism)
        entered = sum(effect.entered for effect in observation.mechanism)
        return Check("stimulation", absent == 0 and entered > 0, f"entered {entered} times, absent {absent} times")

    def rows(self) -> Check:
        """Weights and logits of every token: the mechanism check's sums, and each other's order, in the same answer."""
        from vllm.exceptions import VLLMValidationError

        name, what = "rows of weights and logits", {"what": "rows", "weights": True}
        scaled = Profile("scaled", tuple(Edit(*pair, "scale", 2.0) for pair in self.busiest))
        note = ""
        try:
            found = self.observe(self.prompts[3], scaled, {**what, "logits": True})
        except VLLMValidationError as error:
            note = f"; logits refused: {error}".replace("|", "/")[:120]
            found = self.observe(self.prompts[3], scaled, what)
        ids, weights = (
            np.concatenate([each[role] for role in ("prompt", "generated")]) for each in (found.rows, found.row_weights)
        )
        place = {layer: row for row, layer in enumerate(self.layout.layers)}
        off = max(
            abs(float(weights[:, place[e.layer]][ids[:, place[e.layer]] == e.expert].sum()) - e.weight_before)
            / max(e.weight_before, 1e-6)
            for e in found.mechanism
        )
        figures = f"weights of {len(ids)} tokens, sums off by {off:.1e} at most"
        good = off < 1e-3 and sum(effect.weight_before for effect in found.mechanism) > 0
        if found.row_logits:
            logits = np.concatenate([found.row_logits[role] for role in ("prompt", "generated")])
            # Whatever a router makes of its logits, more logit is no less weight.
            order = np.argsort(np.take_along_axis(logits, ids.astype(np.int64), -1))
            falls = int((np.diff(np.take_along_axis(weights, order, -1)) < -1e-6).sum())
            follows = falls == 0 or self.layout.architecture in _WEIGHS_PLACES
            good = good and follows and logits.shape[-1] == self.layout.experts
            figures += f"; where the logit is larger the weight is smaller {falls} times"
        return Check(name, good, figures + note)

    def before_the_choice(self) -> Check:
        """Of each layer one expert activated, in every token, and its busiest deactivated, in none."""
        from vllm.exceptions import VLLMValidationError

        name, spare = "before the choice", self.draw.integers(1, self.layout.experts, size=len(self.layout.layers))
        edits = []
        for row, layer in enumerate(self.layout.layers):
            busy = int(self.counts[row].argmax())
            edits += [Edit(layer, busy, "deactivate")] * (self.layout.experts > self.layout.top_k)
            edits.append(Edit(layer, (busy + int(spare[row])) % self.layout.experts, "activate"))
        try:
            observation = self.observe(self.prompts[2], Profile("scores", tuple(edits)))
        except VLLMValidationError as error:
            return Check(name, True, f"refused: {error}".replace("|", "/")[:160])
        on = [effect for effect in observation.mechanism if effect.action == "activate"]
        off = [effect for effect in observation.mechanism if effect.action == "deactivate"]
        absent, entered = sum(e.absent for e in on), sum(e.entered for e in on)
        stayed, left = sum(e.selected - e.left for e in off), sum(e.left for e in off)
        figures = (
            f"activated: entered {entered} times, absent {absent} times; deactivated: left {left}, stayed {stayed}"
        )
        return Check(name, absent == stayed == 0 and entered > 0, figures)

    def transplant(self) -> Check:
        """One's own route changes no token; another prompt's is taken by every token and layer, and receipted."""
        from vllm.exceptions import VLLMValidationError

        name, rows = "route transplant", {"what": "rows"}
        own, donor = self.ask(self.prompts[:2], [EMPTY_PROFILE] * 2, rows)
        if own.observation is None or donor.observation is None:
            raise ObservationError("the answer carries no receipt")
        routes = Route.of(own.observation), Route.of(donor.observation)
        try:
            same, other = (
                self.ask([self.prompts[0]], [EMPTY_PROFILE], {**rows, "applied": True}, route)[0] for route in routes
            )
        except VLLMValidationError as error:
            return Check(name, True, f"refused: {error}".replace("|", "/")[:160])
        if same.observation is None or other.observation is None:
            raise ObservationError("the answer carries no receipt")
        mine, theirs = same.observation.receipt, other.observation.receipt
        taken = np.concatenate([other.observation.rows[role] for role in ("prompt", "generated")])
        followed = bool((np.sort(taken) == np.sort(routes[1].ids)).all())
        good = (
            same.tokens == own.tokens
            and (mine.route, mine.changed) == (routes[0].digest, 0)
            and theirs.route == routes[1].digest
            and theirs.forced == mine.forced == routes[1].ids.size // self.layout.top_k
            and followed
        )
        figures = (
            f"own route: {mine.changed} of {mine.forced} choices changed; another prompt's: {theirs.changed} of "
            f"{theirs.forced}, {'all' if followed else 'not all'} taken"
        )
        return Check(name, good, figures)

    def batchmates(self) -> Check:
        """Untuned requests beside untuned ones, and beside tuned ones: the same tokens.

        Some GPU kernels add in an order that depends on where a row's mates are routed, and tuned mates are routed
        elsewhere. So there are controls whose untuned mates are others each time: tuned mates must not change more
        answers than the worst control does.
        """
        own, mates = self.prompts[:8], self.prompts[8:]
        others = [self.draw.permutation(np.array(mates).ravel()).reshape(8, -1).tolist() for _ in range(3)]
        plain = self._beside(own, mates, None)
        controls = [_unchanged(plain, self._beside(own, each, None)) for each in others]
        same = _unchanged(plain, self._beside(own, mates, self.tuned))
        listed = ", ".join(map(str, controls))
        figures = f"{same} of 8 untuned requests unchanged beside tuned ones; {listed} of 8 beside other untuned ones"
        return Check("batchmates", same >= min(controls) > 0, figures)

    def _beside(self, own: list[list[int]], mates: list[list[int]], profile: Profile | None) -> list[_Answer]:
        self.llm.reset_prefix_cache()  # or a later batch would run in other steps than the first
        return self.ask([*own, *mates], [None] * len(own) + [profile] * len(mates))[: len(own)]

    def prefix_cache(self) -> Check:
        """Tokens that each request found cached: shared within a profile, not between two."""
        prompt = self.draw.permutation(np.array(self.prompts).ravel())[:512].tolist()
        limit = self.llm.llm_engine.model_config.max_model_len - _TOKENS
        if not self.llm.llm_engine.vllm_config.cache_config.enable_prefix_caching:
            return Check("prefix cache", True, "is off in this engine")
        order = [self.tuned, None, EMPTY_PROFILE, self.tuned]
        cached = [self.ask([prompt[:limit]], [profile])[0].cached for profile in order]
        first, untuned, empty, again = cached
        good = first == 0 and untuned == 0 and again > 0 and empty == again
        return Check("prefix cache", good, f"cached tokens: tuned {first}, untuned {untuned}, tuned again {again}")

    def refusal(self) -> Check:
        """A layer without experts: refused with the reason, and the engine answers the next request."""
        from vllm.exceptions import VLLMValidationError

        missing = max(self.layout.layers) + 1
        try:
            self.ask([self.prompts[0]], [Profile("wrong", (Edit(missing, 0, "suppress"),))])
        except VLLMValidationError as error:
            alive = bool(self.ask([self.prompts[0]], [EMPTY_PROFILE])[0].tokens)
            return Check("refusal", alive and str(missing) in str(error), str(error).replace("|", "/")[:160])
        return Check("refusal", False, f"an edit of layer {missing}, which has no experts, was accepted")

    def cost(self, rounds: int, stock: Stock | None) -> Check:
        """Time of a batch with every request tuned, against the same batch without; medians of alternating rounds.

        The untuned batch stands against vLLM without the patch, where that was asked.
        """
        loads: tuple[Callable[[], Any], ...] = (
            lambda: self.ask(self.prompts, [None] * 16),
            lambda: self.ask(self.prompts, [self.tuned] * 16),
        )
        spent: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 1):
            for which in (0, 1) if number % 2 else (1, 0):
                self.llm.reset_prefix_cache()
                start = time.perf_counter()
                loads[which]()
                if number:  # the first round warms up
                    spent[which].append(time.perf_counter() - start)
        ratio = median(plain / tuned for plain, tuned in zip(*spent, strict=True))
        figures = f"all requests tuned: {ratio:.3f} of the untuned speed"
        if stock is not None:
            figures += f", which is {median(stock.seconds) / median(spent[0]):.3f} of that without the patch"
        return Check("cost", True, f"{figures} ({rounds} rounds, wall time)")

    def setting(self) -> dict[str, str]:
        """Name what was verified, for the report's head."""
        import torch
        import vllm

        import mote

        config = self.llm.llm_engine.vllm_config
        mode = "eager" if config.model_config.enforce_eager else "compiled"
        device = config.device_config.device_type
        if device == "cuda":
            from vllm.platforms import current_platform

            device = f"{config.parallel_config.world_size} x {current_platform.get_device_name()}"
        ahead = "asynchronous" if config.scheduler_config.async_scheduling else "synchronous"
        graphs = getattr(config.compilation_config.cudagraph_mode, "name", "no") if device != "cpu" else "no"
        return {
            "model": f"{config.model_config.model} ({self.layout.architecture}, {config.model_config.dtype}, {mode})",
            "experts": f"{len(self.layout.layers)} layers of {self.layout.experts}, {self.layout.top_k} chosen",
            "device": f"{device}, {platform.platform()}, {platform.processor()}",
            "engine": f"model runner V{1 + config.use_v2_model_runner}, {ahead} scheduling, {graphs} CUDA graphs",
            "versions": f"mote {mote.__version__}, vllm {vllm.__version__}, torch {torch.__version__}",
        }


def _unchanged(before: list[_Answer], after: list[_Answer]) -> int:
    return sum(a.tokens == b.tokens for a, b in zip(before, after, strict=True))
