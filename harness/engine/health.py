"""Which of several servers is asked next, and for how long one that failed is left alone.

A server that fails ``_TRIPS`` times in a row, or whose reply is in doubt, is taken out (a circuit breaker): it is asked
for nothing until one check of it has gone well, first after a second, then after ever longer pauses. A busy server
rests for as long as it says. The others go on meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Final

from mote.harness.engine.failures import AwayError, RefusedError, UnfitError
from mote.harness.engine.server import Server
from mote.harness.errors import MoteError

LONGEST_PAUSE: Final = 60.0
_LONGEST_ASKED: Final = 120.0
_TRIPS: Final = 3
_QUIET: Final = 60.0
_WATCHED: Final = 15.0


class NoServerError(MoteError):
    """No server is left, or none has answered for as long as the recipe waits."""


class Health:
    """How one server has fared.

    Attributes:
        failures: in a row.
        pauses: how often in a row it was taken out or was busy, by which pauses grow.
        doubts: checks in a row that found it to be none for the study.
        until: when it may be asked again, in the seconds of ``time.monotonic``.
        down: it is asked for nothing but a check.
        unfit: why it is never asked again; empty for one that may be.
        said: of the last failure.
        heard: when it last answered anything.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.pauses = 0
        self.doubts = 0
        self.until = 0.0
        self.down = False
        self.unfit = ""
        self.said = ""
        self.heard = time.monotonic()


def pause(times: int) -> float:
    """Return the seconds after the ``times``-th failure: 1, 2, 4, ... up to a minute, spread by chance.

    What failed together must not come back together.
    """
    return float(min(LONGEST_PAUSE, 2.0 ** min(times - 1, 10)) * random.uniform(0.5, 1.0))  # noqa: S311


class Pool:
    """Servers and their health. ``patience`` are the seconds without any answer after which ``take`` gives up.

    ``say`` is told of servers that go and come back.
    """

    def __init__(self, servers: Sequence[Server], window: int, patience: float, say: Callable[[str], None]) -> None:
        self.servers = list(servers)
        self.context = 0
        self._window = window
        self._patience = patience
        self._say = say
        self._health = {server: Health() for server in servers}
        self._tasks: set[asyncio.Task[None]] = set()
        self._probed: set[Server] = set()
        self._changed = asyncio.Event()
        self._answered = time.monotonic()

    async def start(self) -> None:
        """Check all servers; those that are away are left for later as long as one is there.

        Raises MoteError where a server is none for the study, and where none is there.
        """
        found = await asyncio.gather(*(server.check() for server in self.servers), return_exceptions=True)
        for server, error in zip(self.servers, found, strict=True):
            if isinstance(error, AwayError):
                self._take_out(server, str(error))
            elif isinstance(error, RefusedError):
                raise MoteError(f"server {server.url} refused a first request: {error}")
            elif error is not None:
                raise error
        there = [server.context for server in self.servers if not self._health[server].down]
        if not there:
            others = f" None of {len(self.servers)} servers can be asked." if len(self.servers) > 1 else ""
            raise MoteError(f"{self._health[self.servers[0]].said}{others}")
        self.context = min(there)
        for server in self.servers:
            if self._health[server].down:
                self._say(f"{self._health[server].said} {len(there)} of {len(self.servers)} servers can be asked.")

    def begin(self) -> None:
        """Begin to wait for answers; ``end`` belongs to it."""
        self._answered = time.monotonic()
        for health in self._health.values():
            health.heard = self._answered
        self._spawn(self._watch())

    async def end(self) -> None:
        """Stop all checks."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def up(self) -> int:
        """How many servers may be asked, busy ones among them."""
        return sum(not health.down and not health.unfit for health in self._health.values())

    async def take(self, but: Collection[Server] = (), rather_not: Server | None = None) -> Server | None:
        """Return the server to ask next, its ``running`` counted up, waiting until there is one.

        ``but`` have refused the request; ``rather_not`` failed it last, and is taken where there is no other. Returns
        None where all that are left have refused it. Raises NoServerError.
        """
        while True:
            now = time.monotonic()
            left = [server for server in self.servers if not self._health[server].unfit]
            if not left:
                reasons = next(iter(self._health.values())).unfit
                raise NoServerError(f"no server is left. {reasons}")
            up = [server for server in left if server not in but and not self._health[server].down]
            if not up and all(server in but for server in left):
                return None
            self._probe_due(now)
            ready = [server for server in up if self._health[server].until <= now and server.running < self._window]
            if ready:
                server = min(ready, key=lambda one: (one is rather_not, one.running))
                server.running += 1
                return server
            if not any(server.running for server in up) and now - self._answered > self._patience:
                said = next((self._health[one].said for one in left if self._health[one].said), "")
                raise NoServerError(f"no server has answered for {self._patience:g} s; the last said: {said}")
            await self._news(now)

    def is_another(self, server: Server) -> bool:
        """Return whether there is a server to ask at once beside this one."""
        now = time.monotonic()
        return any(
            one is not server and not health.down and not health.unfit and health.until <= now
            for one, health in self._health.items()
        )

    def give_back(self, server: Server) -> None:
        """Count a request as no longer under way."""
        server.running -= 1
        self._notify()

    def answered(self, server: Server) -> None:
        """Note that a server answered as it should."""
        health, now = self._health[server], time.monotonic()
        health.failures = 0
        # What was under way when it asked for rest is answered meanwhile, and does not end the rest.
        if health.until <= now:
            health.pauses = 0
        self._answered = health.heard = now

    def busy(self, server: Server, wait: float, said: str) -> None:
        """Leave a busy server alone for as long as it asked for, or a little longer each time."""
        health, now = self._health[server], time.monotonic()
        health.said, health.heard = said, now
        if health.until <= now:
            health.pauses += 1
            health.until = now + max(pause(health.pauses), min(wait, _LONGEST_ASKED))

    def failed(self, server: Server, said: str, *, at_once: bool = False) -> None:
        """Note a failure; enough of them in a row, or one that is in doubt, and the server is asked for no more."""
        health = self._health[server]
        health.failures += 1
        health.said = said
        if not health.down and (at_once or health.failures >= _TRIPS):
            self._take_out(server, said)
            if len(self.servers) > 1:
                self._say(f"{server.url} is left alone for a while: {said}")

    def unfit(self, server: Server, said: str) -> None:
        """Never ask a server again."""
        self._health[server].unfit = said
        self._say(f"{server.url} is not asked again: {said}")
        self._notify()

    def _take_out(self, server: Server, said: str) -> None:
        health = self._health[server]
        health.down, health.said = True, said
        health.pauses += 1
        health.until = time.monotonic() + pause(health.pauses)
        self._notify()

    def _probe_due(self, now: float) -> None:
        for server, health in self._health.items():
            if health.down and not health.unfit and health.until <= now and server not in self._probed:
                self._probed.add(server)
                self._spawn(self._probe(server))

    async def _probe(self, server: Server) -> None:
        health = self._health[server]
        try:
            await server.check(self.context)
        # What stands before a server that starts anew refuses everything meanwhile.
        except (AwayError, RefusedError) as error:
            self._take_out(server, str(error))
        except UnfitError as error:
            # One reply may be damaged on its way; a server that is none for the study says so again.
            health.doubts += 1
            if health.doubts >= _TRIPS:
                self.unfit(server, str(error))
            else:
                self._take_out(server, str(error))
        else:
            health.down, health.failures, health.doubts = False, 0, 0
            self._answered = health.heard = time.monotonic()
            if len(self.servers) > 1:
                self._say(f"{server.url} answers again.")
        finally:
            self._probed.discard(server)
            self._notify()

    async def _watch(self) -> None:
        """See that silence is work: a machine that was switched off does not close its connections."""
        while True:
            await asyncio.sleep(_WATCHED)
            for server, health in self._health.items():
                if server.running and time.monotonic() - health.heard > _QUIET:
                    if await server.answers() or await server.answers():
                        health.heard = time.monotonic()
                    else:
                        self.failed(server, f"{server.url} is silent", at_once=True)
                        server.let_go()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _news(self, now: float) -> None:
        """Wait until something changes, or a pause or the patience ends."""
        ends = [health.until for health in self._health.values() if health.until > now and not health.unfit]
        ends += [end] if (end := self._answered + self._patience) > now else []
        first = min([*ends, now + LONGEST_PAUSE])
        try:
            async with asyncio.timeout(max(0.01, first - now + 0.01)):
                await self._changed.wait()
        except TimeoutError:
            return
