"""A study over HTTP: any number of vLLM servers with the router patch, asked at once with the tokens of one tokenizer.

This is how a study leaves one machine. Every server holds the whole model (on as many GPUs as vLLM spreads it over,
``mote serve MODEL --tensor-parallel-size 8``); requests go to the server with the fewest under way. A busy, broken or
silent server is asked again later, another one first if there is one. Rows are those of vLLM in this process: the same
tokens, seeds and receipts.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mote.harness.engine.model import ModelSource
from mote.harness.engine.stepping import Call, Reply, checked_observation
from mote.harness.engine.vllm import Engine, TokenEngine, VllmEngine, check_options
from mote.harness.errors import MoteError
from mote.harness.recipe.schema import Recipe, SamplingPart, ServersPart
from mote.patches import EMPTY_PROFILE, ModelLayout, request_args

if TYPE_CHECKING:
    import openai
    from rich.console import Console

_LONGEST_WAIT = 60.0
_BUSY = frozenset({408, 409, 425, 429})
_UNFILLED = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM's server would else fill in from the model's generation_config.json, and vLLM in this process does not."""


class Server:
    """One server: where it is, what it calls its model, and how many requests it has under way."""

    def __init__(self, url: str, part: ServersPart) -> None:
        import openai

        from mote.judges.llm.http import http_client

        self.url = url
        self.part = part
        self.model = ""
        self.context = 0
        self.running = 0
        key = os.environ.get(part.key_env, "").strip() if part.key_env else "none"
        if not key:
            raise MoteError(f"the environment variable {part.key_env} is not set; it should hold the servers' key.")
        # Retries are ours: they go to another server first.
        self.client = openai.AsyncOpenAI(
            base_url=url, api_key=key, max_retries=0, timeout=part.timeout, http_client=http_client()
        )

    async def check(self, layout: ModelLayout) -> None:
        """Learn the model's name and context, and see that the patch is there; raise MoteError where it isn't."""
        import openai

        try:
            async with asyncio.timeout(30):
                models = (await self.client.models.list()).data
        except (TimeoutError, openai.OpenAIError) as error:
            raise MoteError(f"server {self.url}: nothing answers there ({_said(error)}).") from None
        if len(models) != 1:
            raise MoteError(f"server {self.url} lists {len(models)} models; a study needs a server of one model.")
        self.model = models[0].id
        self.context = int((models[0].model_extra or {}).get("max_model_len") or 0)
        if not self.context:
            raise MoteError(f"server {self.url} does not say its max_model_len: it is not vLLM's.")
        first = Call("a first request", [0], EMPTY_PROFILE, {"max_tokens": 1, "temperature": 0.0}, "prompt")
        try:
            reply = await self.ask(0, first)
        except openai.OpenAIError as error:
            raise MoteError(f"server {self.url} refused a first request: {_said(error)}") from None
        except MoteError as error:
            raise MoteError(f"server {self.url}: {error} Start it with `mote serve`.") from None
        layers, (_, experts) = reply.observation.layers, reply.observation.maps["prompt"].counts.shape
        if (layers, experts) != (layout.layers, layout.experts):
            raise MoteError(
                f"server {self.url} serves '{self.model}' with {experts} experts in layers {_span(layers)}; the"
                f" recipe's model.path has {layout.experts} in {_span(layout.layers)}: it is another model."
            )

    async def ask(self, number: int, call: Call) -> Reply:
        """Send one request and check its receipt. Raises MoteError without the right one, and the library's errors."""
        entry = json.dumps(request_args(call.profile, capture=call.capture)["mote"])
        params = {**_UNFILLED, **call.params}
        # What the OpenAI API does not know goes into the body beside it; a text is always made, so it is not asked for.
        params.pop("detokenize", None)
        known = {name: params.pop(name) for name in ("temperature", "top_p", "max_tokens", "seed") if name in params}
        create: Any = self.client.completions.create
        # The library's own time-out starts anew with each piece of the reply; a dripping server would never end.
        async with asyncio.timeout(self.part.timeout):
            raw = await create(
                model=self.model, prompt=call.tokens, extra_body={**params, "vllm_xargs": {"mote": entry}}, **known
            )
        body: dict[str, Any] = raw.model_dump() if hasattr(raw, "model_dump") else {}
        choices = body.get("choices") or []
        if len(choices) != 1 or not body.get("usage"):
            raise MoteError(f"{call.what} under '{call.profile.name}': {self.url} did not send one whole answer.")
        choice, usage = choices[0], body["usage"]
        if usage["prompt_tokens"] != len(call.tokens):
            raise MoteError(f"{call.what}: {self.url} read {usage['prompt_tokens']} of {len(call.tokens)} tokens.")
        generated = usage["completion_tokens"]
        room = min(int(call.params["max_tokens"]), self.context - len(call.tokens)) if self.context else generated
        if choice["finish_reason"] == "length" and generated < room:
            raise MoteError(
                f"{call.what}: {self.url} stopped after {generated} of {room} tokens; start it with"
                " --generation-config vllm, so that the model's own limit does not count."
            )
        return Reply(
            number=number,
            call=call,
            text=choice["text"],
            finish_reason=choice["finish_reason"],
            generated_tokens=generated,
            logprobs=_own_logprobs(call, choice.get("prompt_logprobs") or []),
            observation=checked_observation(call, choice),
            rows=choice.get("prompt_logprobs") or (),
        )


class ServerEngine(TokenEngine):
    """Servers with the patch, under the interface of vLLM in this process.

    ``path`` is the model's folder or Hugging Face id, for its tokenizer. Raises MoteError where a server isn't there,
    has no patch, or serves another model.
    """

    def __init__(
        self,
        part: ServersPart,
        path: str,
        layout: ModelLayout,
        sampling: SamplingPart,
        markers_start: str,
        template: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        try:
            import openai  # noqa: F401
            from transformers import AutoTokenizer
        except ImportError as error:
            raise MoteError(f"a study on servers needs {error.name}: pip install 'mote-harness[server]'.") from None
        self._part = part
        self._runner = asyncio.Runner()
        self._servers = [Server(url, part) for url in part.urls]
        self._runner.run(self._check(layout))
        context = min(server.context for server in self._servers)
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path)
        # No files of one (OSError), or one whose own code would have to be trusted (ValueError).
        except (OSError, ValueError) as error:
            raise MoteError(f"model.path '{path}' has no tokenizer that can be read: {_said(error)}") from None
        super().__init__(tokenizer, context, sampling, markers_start, template)

    async def _check(self, layout: ModelLayout) -> None:
        await asyncio.gather(*(server.check(layout) for server in self._servers))

    def _drive(self, calls: Iterable[Call]) -> Iterator[list[Reply]]:
        waiting = iter(enumerate(calls))
        window = self._part.window * len(self._servers)
        running: set[asyncio.Task[Reply]] = set()
        try:
            while True:
                # The loop only runs inside `_some`; meanwhile replies wait in the sockets.
                done, running = self._runner.run(self._some(waiting, running, window))
                if not done:
                    return
                failed = [error for task in done if (error := task.exception())]
                if answered := [task.result() for task in done if not task.exception()]:
                    yield answered
                if failed:
                    raise failed[0]
        finally:
            self._runner.run(_cancel(running))

    async def _some(
        self, waiting: Iterator[tuple[int, Call]], running: set[asyncio.Task[Reply]], window: int
    ) -> tuple[set[asyncio.Task[Reply]], set[asyncio.Task[Reply]]]:
        """Fill the window and wait until something is done; return what is done and what is running."""
        while len(running) < window and (item := next(waiting, None)) is not None:
            running.add(asyncio.create_task(self._ask(*item)))
        if not running:
            return set(), running
        done, still = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        return done, still

    async def _ask(self, number: int, call: Call) -> Reply:
        """Ask until a server answers; raise MoteError where none does, or one refuses the request as such."""
        import openai

        failed: Server | None = None
        for attempt in range(1, self._part.attempts + 1):
            others = [server for server in self._servers if server is not failed] or self._servers
            server = min(others, key=lambda one: one.running)
            server.running += 1
            try:
                return await server.ask(number, call)
            except (openai.OpenAIError, TimeoutError) as error:
                if isinstance(error, openai.APIStatusError) and not _passes_by(error):
                    raise MoteError(
                        f"{server.url} refused {call.what} under '{call.profile.name}': {_said(error)}"
                    ) from None
                if attempt == self._part.attempts:
                    raise MoteError(
                        f"{call.what} under '{call.profile.name}' got no answer in {attempt} attempts, the last from"
                        f" {server.url}: {_said(error)}. What was answered is stored; the same command goes on."
                    ) from None
                failed = server
                await asyncio.sleep(_wait(attempt, error))
            finally:
                server.running -= 1
        raise AssertionError("the last attempt returns or raises")


def engine_starter(recipe: Recipe, model: ModelSource, log: Path, console: Console) -> Callable[[], Engine]:
    """Return what gives the recipe's engine: made when it is first asked for, and once.

    ``log`` is the file that has vLLM's own words. What is returned raises MoteError where no engine can be had.
    """

    @cache
    def start() -> Engine:
        markers, servers = recipe.model.markers.start, recipe.model.servers
        if servers is not None:
            with console.status("Asking the servers"):
                return ServerEngine(servers, model.path, model.layout, recipe.sampling, markers, recipe.model.template)
        with console.status("Starting vLLM"):
            return VllmEngine(check_options(recipe, model.path), recipe.sampling, markers, log, recipe.model.template)

    return start


async def _cancel(tasks: set[asyncio.Task[Reply]]) -> None:
    """Stop what nobody waits for: vLLM aborts a request whose client has gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _passes_by(error: openai.APIStatusError) -> bool:
    return error.status_code in _BUSY or error.status_code >= 500


def _wait(attempt: int, error: Exception) -> float:
    # Requests that failed together must not come back together.
    wait = min(_LONGEST_WAIT, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
    response = getattr(error, "response", None)
    asked = response.headers.get("retry-after", "") if response is not None else ""
    return (
        max(wait, min(float(asked), 2 * _LONGEST_WAIT))
        if asked.isascii() and asked.replace(".", "", 1).isdigit()
        else wait
    )


def _said(error: BaseException) -> str:
    """Return what went wrong in one line: the server's own words where it has any."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    text = inner.get("message") if isinstance(inner, Mapping) else None
    return " ".join(str(text or error.__cause__ or error or type(error).__name__).split())[:300]


def _own_logprobs(call: Call, rows: list[dict[str, Any] | None]) -> list[float]:
    """The log-probability of each of the prompt's own tokens; nan where there is none, as for the first."""
    if not rows:
        return []
    return [
        float(row[str(token)]["logprob"]) if row else math.nan for token, row in zip(call.tokens, rows, strict=True)
    ]


def _span(layers: Iterable[int]) -> str:
    found = list(layers)
    return f"{found[0]} to {found[-1]} ({len(found)})" if found else "none"
