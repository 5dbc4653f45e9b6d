"""Engines: from requests to answers. All profiles of a study run in one engine and one continuous batch.

``VllmEngine`` is vLLM offline, in this process. It is driven step by step (``stepping``), so that answers are stored as
they come, and a Ctrl-C loses at most one step.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from mote.harness.engine.options import engine_arguments, start_llm
from mote.harness.engine.reload import Tensors, close, parameter_digests, reload_in_place, tensors_of
from mote.harness.engine.stepping import Call, Reply, drive
from mote.harness.engine.template import check_template
from mote.harness.engine.turns import Turns, turns_of
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import Recipe, SamplingPart
from mote.patches import Observation, Profile, Route

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs


ONCE: Final = ""
"""The id of a prompt that is put once, such as a judge's question: its tokens are not kept for a next time."""


class Request(NamedTuple):
    """One prompt under one profile; ``seed`` is the request's own, ``capture`` as in ``mote.patches.request_args``.

    With ``choices`` the answer can be nothing but one of these texts, the likeliest (temperature 0). ``most`` ends the
    answer after so many tokens, if the sampling's own bound does not. ``route`` is whose experts its tokens take.
    """

    prompt_id: str
    messages: Sequence[Mapping[str, str]]
    profile: Profile
    seed: int
    capture: str | Mapping[str, Any] | None = None
    choices: Sequence[str] = ()
    most: int | None = None
    route: Route | None = None


class Answer(NamedTuple):
    """What came back: the text as generated, tokens counted, and what the patch observed."""

    request: Request
    raw: str
    prompt_tokens: int
    generated_tokens: int
    finish_reason: str | None
    observation: Observation


class Scoring(NamedTuple):
    """One forward pass: how likely a text is after a prompt, under one profile.

    ``continuation`` follows the rendered prompt and is tokenised apart from it. ``top``: of each place the
    log-probabilities of so many likeliest tokens are wanted too. ``capture`` is as in ``mote.patches.request_args``;
    the continuation is part of the prompt.
    """

    prompt_id: str
    messages: Sequence[Mapping[str, str]]
    profile: Profile
    continuation: str
    top: int = 0
    capture: str | None = None


class Scored(NamedTuple):
    """What came back: the continuation's tokens as texts, the natural log-probability of each, and the observation.

    Log-probabilities are the model's own, at temperature 1. ``tops`` holds for each token those of the likeliest ones
    at its place, its own among them, in no order.
    """

    request: Scoring
    tokens: list[str]
    logprobs: list[float]
    observation: Observation
    tops: Sequence[Sequence[float]] = ()


class Engine(Protocol):
    """What a study needs of an engine."""

    prompt_opens: bool
    """Whether the chat template ends the prompt inside the reasoning."""

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Yield (index of the request, answer), some at a time, in the order in which they are done."""
        ...

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        """Yield (index of the request, log-probabilities of its continuation), as ``generate`` does."""
        ...

    def fits(self, request: Scoring) -> bool:
        """Return whether ``score`` can be asked: there are tokens, and the context has room for them and the prompt."""
        ...

    def token_texts(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        """Return the text of each token of a rendered prompt, those of the chat template among them."""
        ...

    def turns(self, messages: Sequence[Mapping[str, str]]) -> Turns:
        """Return a rendered prompt's tokens by turn. Raises MoteError as ``turns_of``."""
        ...

    def pieces(self, text: str) -> list[str]:
        """Return the tokens of an answer as texts, tokenised apart from its prompt, as ``score`` does."""
        ...


def request_seed(seed: int, prompt_id: str) -> int:
    """Return a request's own 31-bit seed: prompts must not share their noise, and a resumed run must draw the same."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt_id}".encode()).digest()[:4], "big") >> 1


def check_engine(recipe: Recipe, path: str) -> None:
    """Raise MoteError for engine options that vLLM in this process refuses; a server's are checked where it runs."""
    if recipe.model.servers is None:
        check_options(recipe, path)


def check_options(recipe: Recipe, path: str) -> EngineArgs:
    """Return vLLM's engine arguments for a recipe; nothing is loaded yet. Raises MoteError as ``engine_arguments``."""
    return engine_arguments(path, recipe.model.options, recipe.sampling.seed)


class TokenEngine(ABC):
    """What engines share: prompts are rendered and tokenised here, so that every engine is asked the same tokens."""

    def __init__(
        self, tokenizer: Any, context: int, sampling: SamplingPart, markers_start: str, template: Mapping[str, Any]
    ) -> None:
        check_template(tokenizer, template)
        self._tokenizer = tokenizer
        self._template = dict(template)
        self._context = context
        self._sampling = sampling
        self._tokens: dict[str, list[int]] = {}
        # An answer is scored under many profiles, and has its tokens from a vocabulary.
        self._continuations = lru_cache(maxsize=1024)(self._encode)
        self._text_of = cache(lambda token: str(tokenizer.decode([token])))
        self.prompt_opens = self._render([{"role": "user", "content": "x"}]).rstrip().endswith(markers_start)

    @abstractmethod
    def _drive(self, calls: Iterable[Call]) -> Iterator[list[Reply]]:
        """Yield the replies to the calls as they are done, each with the receipt of its profile."""

    def generate(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Yield (index of the request, answer) as they are done, all profiles together.

        Raises MoteError at the first answer whose receipt isn't that of its profile: nothing that was made without
        the edit may be taken for an answer under it.
        """
        for replies in self._drive(map(self._call, requests)):
            yield [(reply.number, _answer(requests[reply.number], reply)) for reply in replies]

    def score(self, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Scored]]]:
        """Yield (index of the request, log-probabilities of its continuation) as they are done.

        Raises MoteError as ``generate``, and for what can't be scored: a continuation without tokens, one that does
        not fit the model's context, and a profile that leaves the tokens of a prompt alone.
        """
        for replies in self._drive(map(self._scoring_call, requests)):
            yield [(reply.number, self._scored(requests[reply.number], reply)) for reply in replies]

    def fits(self, request: Scoring) -> bool:
        """Return whether ``score`` can be asked: there are tokens, and the context has room for them and the prompt."""
        prompt, tokens = self._prompt(request.prompt_id, request.messages), self._encode(request.continuation)
        return bool(tokens) and len(prompt) + len(tokens) <= self._room

    @property
    def _room(self) -> int:
        # vLLM always generates one token.
        return self._context - 1

    def token_texts(self, messages: Sequence[Mapping[str, str]]) -> list[str]:
        """Return the text of each token of a rendered prompt, those of the chat template among them."""
        return self._texts(self._encode(self._render(messages)))

    def turns(self, messages: Sequence[Mapping[str, str]]) -> Turns:
        """Return a rendered prompt's tokens by turn. Raises MoteError as ``turns_of``."""
        return turns_of(self._tokenizer, self._render, messages)

    def pieces(self, text: str) -> list[str]:
        """Return the tokens of an answer as texts, tokenised apart from its prompt, as ``score`` does."""
        return self._texts(self._encode(text))

    def _call(self, request: Request) -> Call:
        tokens = self._prompt(request.prompt_id, request.messages)
        what = f"prompt '{request.prompt_id}'" if request.prompt_id else "a judge's question"
        params = self._choosing(request, len(tokens)) if request.choices else self._params(request)
        return Call(what, tokens, request.profile, params, request.capture, request.route)

    def _scoring_call(self, request: Scoring) -> Call:
        tokens = [*self._prompt(request.prompt_id, request.messages), *self._continuation(request)]
        # One token has to be generated; it is thrown away, and without a temperature it draws no noise.
        params = {"prompt_logprobs": request.top, "max_tokens": 1, "temperature": 0.0, "detokenize": False}
        what = f"a continuation of prompt '{request.prompt_id}'"
        return Call(what, tokens, request.profile, params, request.capture)

    def _prompt(self, prompt_id: str, messages: Sequence[Mapping[str, str]]) -> list[int]:
        tokens = self._tokens.get(prompt_id)
        if prompt_id == ONCE:
            return self._encode(self._render(messages))
        if tokens is None:
            tokens = self._tokens[prompt_id] = self._encode(self._render(messages))
        return tokens

    def _continuation(self, request: Scoring) -> list[int]:
        what = f"a continuation of prompt '{request.prompt_id}'"
        if request.profile.canonical and request.profile.tokens == "generated":
            raise MoteError(
                f"profile '{request.profile.name}' edits generated tokens, and {what} has none: nothing would be tuned."
                " Take a profile with tokens 'all'."
            )
        tokens = self._continuations(request.continuation)
        if not tokens:
            raise MoteError(f"{what} has no tokens: {request.continuation!r}")
        length = len(self._prompt(request.prompt_id, request.messages)) + len(tokens)
        if length > self._room:
            raise MoteError(f"{what} makes it {length} tokens long, and the context has room for {self._room}.")
        return tokens

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _texts(self, tokens: Iterable[int]) -> list[str]:
        return [self._text_of(token) for token in tokens]

    def _params(self, request: Request) -> dict[str, Any]:
        return {
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "max_tokens": min(self._sampling.max_tokens, request.most or self._sampling.max_tokens),
            "seed": request.seed,
            # The markers of reasoning are special tokens in some models, and raw text is to be raw.
            "skip_special_tokens": False,
        }

    def _choosing(self, request: Request, prompt: int) -> dict[str, Any]:
        # A model may spell a choice byte by byte, and ends it with a token of its own.
        longest = max(len(choice.encode()) for choice in request.choices) + 1
        return {
            "temperature": 0.0,
            "max_tokens": min(longest, self._context - prompt),
            "seed": request.seed,
            "structured_outputs": {"choice": list(request.choices)},
        }

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        return str(
            self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **self._template
            )
        )

    def _scored(self, request: Scoring, reply: Reply) -> Scored:
        start = len(self._prompt(request.prompt_id, request.messages))
        ids, found = reply.call.tokens, len(reply.logprobs)
        if found != len(ids):
            raise MoteError(
                f"prompt '{request.prompt_id}': log-probabilities of {found} of {len(ids)} tokens came back."
            )
        tokens = self._texts(ids[start:])
        tops = [_values(row) for row in reply.rows[start:]] if request.top else ()
        return Scored(request, tokens, reply.logprobs[start:], reply.observation, tops)


class VllmEngine(TokenEngine):
    """vLLM in this process, with the router patch.

    Raises MoteError where vLLM can't load the model; ``log`` names the file that has vLLM's own words.
    """

    def __init__(
        self,
        arguments: EngineArgs,
        sampling: SamplingPart,
        markers_start: str,
        log: Path,
        template: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._llm: LLM = start_llm(arguments, log)
        self._salt: str | None = None
        self._tensors: Tensors = {}
        context = int(self._llm.llm_engine.model_config.max_model_len)
        super().__init__(self._llm.get_tokenizer(), context, sampling, markers_start, template)

    def _drive(self, calls: Iterable[Call]) -> Iterator[list[Reply]]:
        return drive(self._llm, calls, self._salt)

    def name_weights(self, weights: str) -> None:
        """Name the weights that the engine was started on: KV blocks are shared under one name alone."""
        self._tensors = tensors_of(Path(self._llm.llm_engine.model_config.model))
        self._salt = weights

    def take_weights(self, folder: Path, weights: str) -> None:
        """Put the weights of another checkpoint of the same tensors in the place of the engine's, and name them.

        Raises MoteError as ``reload.reload_in_place``.
        """
        reload_in_place(self._llm, self._tensors, folder)
        self._salt = weights

    def parameter_digests(self) -> dict[str, str]:
        """Return the sha256 of every parameter and buffer as the engine has it in memory, by name."""
        return parameter_digests(self._llm)

    def close(self) -> None:
        """Give back the engine's memory; nothing can be asked afterwards."""
        close(self._llm)
        del self._llm


def _answer(request: Request, reply: Reply) -> Answer:
    return Answer(
        request, reply.text, len(reply.call.tokens), reply.generated_tokens, reply.finish_reason, reply.observation
    )


def _values(row: Mapping[Any, Any]) -> list[float]:
    """The log-probabilities of a place: vLLM's objects in this process, JSON from a server."""
    return [float(one["logprob"] if isinstance(one, Mapping) else one.logprob) for one in row.values()]
