"""Engines: from requests to answers. All profiles of a study run in one engine and one continuous batch.

``VllmEngine`` is vLLM offline, in this process. It is driven step by step, so that answers are stored as they come, a
Ctrl-C loses at most one step, and only a bounded window of requests is ever queued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mote.harness.engine_options import engine_arguments, start_llm
from mote.harness.errors import MoteError
from mote.harness.recipe import Recipe, SamplingPart
from mote.patches import Observation, ObservationError, Profile, read_observation, request_args

if TYPE_CHECKING:
    from vllm import LLM, SamplingParams
    from vllm.engine.arg_utils import EngineArgs


class Request(NamedTuple):
    """One prompt under one profile; ``seed`` is the request's own."""

    prompt_id: str
    messages: Sequence[Mapping[str, str]]
    profile: Profile
    seed: int
    capture: bool


class Answer(NamedTuple):
    """What came back: the text as generated, tokens counted, and what the patch observed."""

    request: Request
    raw: str
    prompt_tokens: int
    generated_tokens: int
    finish_reason: str | None
    observation: Observation


class Engine(Protocol):
    """What a study needs of an engine."""

    prompt_opens: bool
    """Whether the chat template ends the prompt inside the reasoning."""

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Yield (index of the request, answer), some at a time, in the order in which they are done."""
        ...


def request_seed(seed: int, prompt_id: str) -> int:
    """Return a request's own 31-bit seed: prompts must not share their noise, and a resumed run must draw the same."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt_id}".encode()).digest()[:4], "big") >> 1


def check_options(recipe: Recipe, path: str) -> EngineArgs:
    """Return vLLM's engine arguments for a recipe; nothing is loaded yet. Raises MoteError as ``engine_arguments``."""
    return engine_arguments(path, recipe.model.options, recipe.sampling.seed)


class VllmEngine:
    """vLLM in this process, with the router patch.

    Raises MoteError where vLLM can't load the model; ``log`` names the file that has vLLM's own words.
    """

    def __init__(self, arguments: EngineArgs, sampling: SamplingPart, markers_start: str, log: Path) -> None:
        self._sampling = sampling
        self._tokens: dict[str, list[int]] = {}
        self._llm: LLM = start_llm(arguments, log)
        self._tokenizer: Any = self._llm.get_tokenizer()
        self.prompt_opens = self._render([{"role": "user", "content": "x"}]).rstrip().endswith(markers_start)

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Yield (index of the request, answer) as vLLM finishes them, in one continuous batch over all profiles.

        Raises MoteError at the first answer whose receipt isn't that of its profile: nothing that was made without
        the edit may be taken for an answer under it.
        """
        engine = self._llm.llm_engine
        window = 2 * engine.vllm_config.scheduler_config.max_num_seqs
        waiting = iter(enumerate(requests))
        running: dict[str, Request] = {}
        exhausted = False
        try:
            while running or not exhausted:
                while len(running) < window and not exhausted:
                    item = next(waiting, None)
                    if item is None:
                        exhausted = True
                        break
                    key, request = str(item[0]), item[1]
                    self._submit(key, request)
                    running[key] = request
                finished = [output for output in engine.step() if output.finished]
                done = [(int(out.request_id), self._answer(running.pop(out.request_id), out)) for out in finished]
                if done:
                    yield done
        finally:
            # Also when the caller stops early: the engine must not go on with what nobody waits for.
            if running:
                engine.abort_request(list(running))

    def _submit(self, key: str, request: Request) -> None:
        from vllm.exceptions import VLLMValidationError
        from vllm.inputs import TokensPrompt

        tokens = self._tokens.get(request.prompt_id)
        if tokens is None:
            text = self._render(request.messages)
            tokens = self._tokenizer.encode(text, add_special_tokens=False)
            self._tokens[request.prompt_id] = tokens
        try:
            self._llm.llm_engine.add_request(key, TokensPrompt(prompt_token_ids=tokens), self._params(request))
        except (ValueError, VLLMValidationError) as error:
            raise MoteError(
                f"vLLM refused prompt '{request.prompt_id}' under '{request.profile.name}': {error}"
            ) from None

    def _params(self, request: Request) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            max_tokens=self._sampling.max_tokens,
            seed=request.seed,
            # The markers of reasoning are special tokens in some models, and raw text is to be raw.
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=request_args(request.profile, capture="prompt" if request.capture else None),
        )

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def _answer(self, request: Request, output: Any) -> Answer:
        completion = output.outputs[0]
        try:
            observation = read_observation(completion)
        except ObservationError as error:
            raise MoteError(f"prompt '{request.prompt_id}' under '{request.profile.name}': {error}") from None
        if observation.receipt.digest != request.profile.digest:
            raise MoteError(
                f"prompt '{request.prompt_id}' was answered under profile {observation.receipt.digest[:12]}, not under"
                f" '{request.profile.name}' ({request.profile.digest[:12]}); nothing of it was stored."
            )
        return Answer(
            request,
            completion.text,
            len(output.prompt_token_ids),
            len(completion.token_ids),
            completion.finish_reason,
            observation,
        )
