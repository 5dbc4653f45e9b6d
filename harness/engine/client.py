"""A client of one server with the patch: a profile goes with each request, the receipt of each answer is checked.

``mote.client(url)`` is a thin wrapper of the ``openai`` package, which stays within reach as ``Client.openai``. Nothing
made without the edit is taken for an answer under it: the check is the one that a study on servers makes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from pydantic import StrictStr, ValidationError

from mote.harness.engine.failures import first_error, in_one_line, words_of
from mote.harness.engine.server import Lenient, Models, Usage
from mote.harness.engine.stepping import Call, checked_observation
from mote.harness.errors import MoteError
from mote.patches import EMPTY_PROFILE, Observation, Profile, ProfileError, Route, request_args
from mote.reading import UnreadableError, check_http_url

if TYPE_CHECKING:
    import openai

_OURS: Final = {
    "stream": "a receipt comes with a whole answer",
    "n": "a receipt is one answer's; ask again with another seed",
    "vllm_xargs": "the profile travels there; give profile=, capture= and route=",
    "extra_body": "give what stands in it by name",
}


class _Message(Lenient):
    content: StrictStr | None = None
    reasoning: StrictStr | None = None


class _Choice(Lenient):
    message: _Message
    finish_reason: StrictStr | None = None
    routed_experts: StrictStr | None = None


class _Chat(Lenient):
    choices: list[_Choice]
    usage: Usage


_Read = TypeVar("_Read", bound=Lenient)


class Completion(NamedTuple):
    """One answer: its text, how it ended, its tokens, and what the patch observed.

    ``text`` is the message's content, ``reasoning`` what a server with a reasoning parser keeps apart, else empty.

    ``finish_reason`` is the server's (``stop``, ``length``). ``observation`` has the receipt, which is that of the
    profile asked for, the record of every edit and, where they were asked for, activation maps. ``reply`` is the
    server's whole reply as JSON values: tool calls and log-probabilities stand there.
    """

    text: str
    reasoning: str
    finish_reason: str
    prompt_tokens: int
    generated_tokens: int
    observation: Observation
    reply: Mapping[str, Any]


class Client:
    """A server with the patch (``mote serve``), asked under one profile after another.

    ``url`` ends in ``/v1``; ``timeout`` are the seconds that may pass without a byte of a reply. Raises MoteError for
    what is no URL, and where the openai package is missing.
    """

    def __init__(self, url: str, api_key: str | None = None, *, timeout: float = 600.0) -> None:
        try:
            import openai

            from mote.judges.llm.http import http_client_that_waits
        except ImportError as error:
            raise MoteError(f'mote.client needs {error.name}: pip install ".[server]".') from None
        try:
            check_http_url(url)
        except UnreadableError as error:
            raise MoteError(f"the URL of a server {error}") from None
        self.url = url
        # A key of another service that stands in the environment is not this server's.
        self.openai: openai.OpenAI = openai.OpenAI(
            base_url=url, api_key=api_key or "none", timeout=timeout, http_client=http_client_that_waits()
        )

    @cached_property
    def model(self) -> str:
        """What the server calls its model. Raises MoteError unless it has exactly one, profiles and adapters aside."""
        models = self.models()
        if len(models) != 1:
            raise MoteError(f"server {self.url} lists {len(models)} models; name one: complete(..., model=...).")
        return models[0]

    def models(self) -> list[str]:
        """Return the names of the server's models, profiles and adapters aside. Raises MoteError for no answer."""
        listed, _ = self._asked(self.openai.models.with_raw_response.list, Models)
        return [one.id for one in listed.own()]

    def complete(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        profile: Profile | str | os.PathLike[str] | None = None,
        *,
        capture: str | Mapping[str, Any] | None = None,
        route: Route | None = None,
        model: str | None = None,
        **params: Any,
    ) -> Completion:
        """Return one answer of the model under a profile.

        ``messages`` are those of a chat, or the text of its only one. ``profile`` is one, the file of one, or None for
        the untouched model; ``capture`` is as in ``mote.patches.request_args`` ("prompt" for the prompt's activation
        map). ``route`` says whose experts the tokens take, as ``Route.of`` makes it of an answer whose rows were
        captured; a profile with edits does not go beside it. ``params`` go into the request as they are: temperature,
        max_tokens, seed, top_k, chat_template_kwargs.

        Raises MoteError where the server does not answer or refuses, and where the answer carries no receipt or that of
        another profile or route.
        """
        if wrong := next((name for name in params if name in _OURS), None):
            raise MoteError(f"complete() takes no {wrong}: {_OURS[wrong]}.")
        asked, tuned = _messages(messages), _profile(profile)
        name = model or self.model
        body = {**params, "vllm_xargs": {"mote": json.dumps(request_args(tuned, capture, route)["mote"])}}
        create: Any = self.openai.chat.completions.with_raw_response.create
        found, content = self._asked(lambda: create(model=name, messages=asked, extra_body=body), _Chat)
        if len(found.choices) != 1:
            raise MoteError(f"server {self.url} sent {len(found.choices)} answers to one request.")
        (choice,) = found.choices
        try:
            call = Call("the answer", [], tuned, params, capture, route)
            observation = checked_observation(call, choice.model_dump())
        except (MemoryError, OverflowError) as error:
            raise MoteError(f"server {self.url} sent a receipt that can't be read: {error}") from None
        if capture == "prompt" and "prompt" not in observation.maps:
            raise MoteError(f"server {self.url} sent no activation map of the prompt.")
        return Completion(
            text=choice.message.content or "",
            reasoning=choice.message.reasoning or "",
            finish_reason=choice.finish_reason or "",
            prompt_tokens=found.usage.prompt_tokens,
            generated_tokens=found.usage.completion_tokens,
            observation=observation,
            reply=json.loads(content),
        )

    def _asked(self, ask: Callable[[], Any], kind: type[_Read]) -> tuple[_Read, bytes]:
        """Return what was asked for, and the bytes that it was read from."""
        import openai

        try:
            content: bytes = ask().content
            return kind.model_validate_json(content), content
        except openai.OpenAIError as error:
            raise MoteError(f"server {self.url}: {_said(error)}") from None
        except ValidationError as error:
            raise MoteError(f"server {self.url} did not send what was asked for: {first_error(error)}.") from None


def _said(error: openai.OpenAIError) -> str:
    """Return what went wrong in one line: the server's own words where it has any."""
    return words_of(getattr(error, "body", None)) or in_one_line(error.__cause__ or error or type(error).__name__)


def _messages(given: str | Sequence[Mapping[str, Any]]) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else [dict(one) for one in given]


def _profile(given: Profile | str | os.PathLike[str] | None) -> Profile:
    if given is None:
        return EMPTY_PROFILE
    if isinstance(given, Profile):
        return given
    try:
        return Profile.read(os.fspath(given))
    except ProfileError as error:
        raise MoteError(f"profile: {error}") from None
