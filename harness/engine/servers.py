"""A study over HTTP: any number of vLLM servers with the router patch, asked at once with the tokens of one tokenizer.

This is how a study leaves one machine. Every server holds the whole model (on as many GPUs as vLLM spreads it over,
``mote serve MODEL --tensor-parallel-size 8``); requests go to the server with the fewest under way among those that are
well (``health``). What a busy, broken or silent server did not answer is asked again, another one first if there is
one. Rows are those of vLLM in this process: the same tokens, seeds and receipts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mote.harness.engine.failures import AwayError, BrokenReplyError, RefusedError, UnfitError
from mote.harness.engine.health import NoServerError, Pool, pause
from mote.harness.engine.model import ModelSource
from mote.harness.engine.server import Server
from mote.harness.engine.stepping import Call, Reply
from mote.harness.engine.vllm import Engine, TokenEngine, VllmEngine, check_options
from mote.harness.engine.wire import Wire
from mote.harness.errors import MoteError, one_line
from mote.harness.recipe.schema import Recipe, SamplingPart, ServersPart
from mote.patches import ModelLayout

if TYPE_CHECKING:
    from rich.console import Console

_GOES_ON = "What was answered is stored; the same command goes on."


class _GivenUpError(Exception):
    """One request that got no answer, where others do."""


class _UnderWay:
    """Requests in a fixed window, and those done since one last looked: a request costs the same, however many run."""

    def __init__(self, waiting: Iterator[tuple[int, Call]]) -> None:
        self.waiting = waiting
        self.running: set[asyncio.Task[Reply]] = set()
        self._done: list[asyncio.Task[Reply]] = []
        self._news = asyncio.Event()

    def add(self, task: asyncio.Task[Reply]) -> None:
        self.running.add(task)
        task.add_done_callback(self._ended)

    async def done(self) -> list[asyncio.Task[Reply]]:
        """Return what is done since the last call, waiting for something; empty where nothing runs."""
        if not self._done and self.running:
            self._news.clear()
            await self._news.wait()
        done, self._done = self._done, []
        return done

    def _ended(self, task: asyncio.Task[Reply]) -> None:
        self.running.discard(task)
        self._done.append(task)
        self._news.set()


class ServerEngine(TokenEngine):
    """Servers with the patch, under the interface of vLLM in this process.

    ``path`` is the model's folder or Hugging Face id, for its tokenizer; ``say`` is told, in a line, of servers that go
    and come back. Raises MoteError where no server is there, and where one has no patch or serves another model.
    """

    def __init__(
        self,
        part: ServersPart,
        path: str,
        layout: ModelLayout,
        sampling: SamplingPart,
        markers_start: str,
        template: Mapping[str, Any] = MappingProxyType({}),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        try:
            import aiohttp  # noqa: F401
            import msgspec  # noqa: F401
            from transformers import AutoTokenizer
        except ImportError as error:
            raise MoteError(f'a study on servers needs {error.name}: pip install ".[server]".') from None
        self._part = part
        self._runner = asyncio.Runner()
        self._wire = Wire()
        self._servers = [Server(url, part, layout, self._wire) for url in part.urls]
        self._pool = Pool(self._servers, part.window, part.patience, say)
        self._runner.run(self._start())
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path)
        # No files of one (OSError), or one whose own code would have to be trusted (ValueError).
        except (OSError, ValueError) as error:
            raise MoteError(f"model.path '{path}' has no tokenizer that can be read: {error}") from None
        super().__init__(tokenizer, self._pool.context, sampling, markers_start, template)

    def _drive(self, calls: Iterable[Call]) -> Iterator[list[Reply]]:
        under_way = _UnderWay(enumerate(calls))
        given_up: list[BaseException] = []
        try:
            self._runner.run(self._begin())
            while True:
                # The loop only runs inside `_some`; meanwhile replies wait in the sockets.
                done = self._runner.run(self._some(under_way))
                if not done:
                    break
                failed = [error for task in done if (error := task.exception())]
                if answered := [task.result() for task in done if not task.exception()]:
                    yield answered
                for error in failed:
                    if not isinstance(error, _GivenUpError):
                        raise error
                given_up += failed
        finally:
            self._runner.run(self._end(under_way))
        if given_up:
            raise MoteError(f"{len(given_up)} requests got no answer; {given_up[0]} {_GOES_ON}")

    async def _start(self) -> None:
        await self._wire.open()
        try:
            await self._pool.start()
        finally:
            await self._wire.close()

    async def _begin(self) -> None:
        await self._wire.open()
        self._pool.begin()

    async def _end(self, under_way: _UnderWay) -> None:
        """Stop what nobody waits for: vLLM aborts a request whose client has gone."""
        for task in under_way.running:
            task.cancel()
        await asyncio.gather(*under_way.running, self._pool.end(), return_exceptions=True)
        await self._wire.close()

    async def _some(self, under_way: _UnderWay) -> list[asyncio.Task[Reply]]:
        """Fill the windows of the servers that can be asked, and return what is done once anything is."""
        room = self._part.window * max(1, self._pool.up)
        while len(under_way.running) < room and (item := next(under_way.waiting, None)) is not None:
            under_way.add(asyncio.create_task(self._ask(*item)))
        return await under_way.done()

    async def _ask(self, number: int, call: Call) -> Reply:
        """Ask until a server answers.

        Raises _GivenUpError where this request alone gets no answer, and MoteError where all servers refuse it or none
        is left to ask.
        """
        what = f"{call.what} under '{call.profile.name}'"
        refused: dict[Server, str] = {}
        failed: Server | None = None
        since, failures, broken = 0.0, 0, 0
        while True:
            try:
                server = await self._pool.take(refused, failed)
            except NoServerError as error:
                raise MoteError(f"{what} got no answer: {error} {_GOES_ON}") from None
            if server is None:
                first, said = next(iter(refused.items()))
                raise MoteError(f"{first.url} refused {what}: {said}")
            try:
                reply = await server.ask(number, call)
            except AwayError as error:
                if error.busy:
                    self._pool.busy(server, error.wait, str(error))
                else:
                    self._pool.failed(server, str(error))
                since = since or time.monotonic()
                if time.monotonic() - since > self._part.patience:
                    raise _GivenUpError(f"{what} was last asked of {server.url}: {error}.") from None
            except BrokenReplyError as error:
                self._pool.failed(server, str(error), at_once=error.doubt)
                broken += 1
                if broken >= self._part.attempts:
                    raise _GivenUpError(f"{what} was asked {broken} times, the last reply: {error}") from None
            except RefusedError as error:
                refused[server] = str(error)
                continue
            except UnfitError as error:
                self._pool.unfit(server, str(error))
                continue
            else:
                self._pool.answered(server)
                return reply
            finally:
                self._pool.give_back(server)
            failed, failures = server, failures + 1
            if not self._pool.is_another(server):
                await asyncio.sleep(pause(failures))


def engine_starter(recipe: Recipe, model: ModelSource, log: Path, console: Console) -> Callable[[], Engine]:
    """Return what gives the recipe's engine: made when it is first asked for, and once.

    ``log`` is the file that has vLLM's own words. What is returned raises MoteError where no engine can be had.
    """

    def say(line: str) -> None:
        console.print(one_line(line), markup=False, highlight=False, soft_wrap=True)

    @cache
    def start() -> Engine:
        markers, servers = recipe.model.markers.start, recipe.model.servers
        if servers is not None:
            with console.status("Asking the servers"):
                return ServerEngine(
                    servers, model.path, model.layout, recipe.sampling, markers, recipe.model.template, say
                )
        with console.status("Starting vLLM"):
            return VllmEngine(check_options(recipe, model.path), recipe.sampling, markers, log, recipe.model.template)

    return start
