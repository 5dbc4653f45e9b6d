"""Many judgments: a bounded window of requests, a budget, and an end where the judge is plainly not there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mote.judges.llm.asks import SCORED, UNREACHED, UNUSABLE, Ask, Judgment, State, Tally
from mote.judges.llm.client import JudgeClient, Reply, UnreachedError
from mote.judges.llm.endpoint import Endpoint, JudgeError

A = TypeVar("A", bound=Ask)

_GIVE_UP = 8
"""So many judgments in a row without a reply (or two windows full of them), and the judge is taken to be gone."""


class _Budget:
    """How many more replies may be asked for; None is without end."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit

    def take(self) -> bool:
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0


def judge_all(
    asks: Iterable[A],
    endpoint: Endpoint,
    done: Callable[[A, Judgment], None],
    *,
    max_judgments: int | None = None,
) -> Tally:
    """Ask for all judgments and hand each to ``done`` as it ends, in the order in which they end.

    ``max_judgments`` bounds the replies that are asked for, second tries included; what it leaves over is not begun,
    and a judgment whose second try it cuts off is not handed on, so that it is asked for as a whole next time.

    Raises JudgeError where the endpoint can't be used: the key or the model is refused, or nothing is reached at all.
    What was handed to ``done`` before stays.
    """
    return asyncio.run(ask_all(asks, endpoint, done, max_judgments=max_judgments))


async def ask_all(
    asks: Iterable[A],
    endpoint: Endpoint,
    done: Callable[[A, Judgment], None],
    *,
    max_judgments: int | None = None,
) -> Tally:
    """Do what ``judge_all`` does, inside a running event loop."""
    waiting: Iterator[A] = iter(asks)
    budget = _Budget(max_judgments)
    counts: dict[State, int] = {SCORED: 0, UNUSABLE: 0, UNREACHED: 0}
    left = silent = cut = 0
    give_up = max(_GIVE_UP, 2 * endpoint.concurrency)

    async with JudgeClient(endpoint) as client:
        await client.check()

        async def work() -> None:
            nonlocal left, silent, cut
            for ask in waiting:
                judgment = await _judge(client, ask, budget)
                if judgment is None:
                    left += 1
                    continue
                counts[judgment.state] += 1
                cut += judgment.cut_off
                done(ask, judgment)
                silent = silent + 1 if judgment.state == UNREACHED else 0
                if silent >= give_up:
                    raise JudgeError(
                        f"judge {endpoint.model} at {endpoint.url} gave no reply to {silent} judgments in a row, the"
                        f" last: {judgment.error}"
                    )

        workers = [asyncio.create_task(work()) for _ in range(endpoint.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return Tally(counts[SCORED], counts[UNUSABLE] - cut, counts[UNREACHED], left, cut)


async def _judge(client: JudgeClient, ask: Ask, budget: _Budget) -> Judgment | None:
    """Ask until a reply holds a verdict, as often as the endpoint allows; None where the budget ran out."""
    started = time.monotonic()
    tries = requests = prompt_tokens = completion_tokens = 0
    messages: list[dict[str, str]] = []
    reply: Reply | None = None
    verdict, error = None, ""
    while verdict is None and tries < client.endpoint.tries:
        if not budget.take():
            return None
        tries += 1
        try:
            messages, reply = await _reply(client, ask, again=tries > 1)
        except UnreachedError as failure:
            requests += failure.requests
            reply, error = None, str(failure)
            break
        requests += reply.requests
        prompt_tokens += reply.prompt_tokens
        completion_tokens += reply.completion_tokens
        # A reply that was cut off may have gone on to another verdict.
        if reply.finish_reason != "length":
            verdict = ask.verdict(reply.text, as_json=reply.as_json, markers=client.endpoint.markers)
        error = "" if verdict is not None else _why(reply)
    state: State = UNREACHED if reply is None else UNUSABLE if verdict is None else SCORED
    return Judgment(
        state=state,
        verdict=verdict,
        raw=reply.text if reply else "",
        reasoning=reply.reasoning if reply else "",
        error=error,
        messages=messages,
        model=reply.model if reply else client.endpoint.model,
        as_json=reply.as_json if reply else client.as_json,
        finish_reason=reply.finish_reason if reply else None,
        tries=tries,
        requests=requests,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=time.monotonic() - started,
        max_tokens=client.endpoint.max_tokens,
    )


async def _reply(client: JudgeClient, ask: Ask, again: bool) -> tuple[list[dict[str, str]], Reply]:
    schema = ask.schema if client.as_json else None
    messages = ask.messages(as_json=schema is not None, again=again)
    if schema is None:
        return messages, await client.complete(messages)
    try:
        return messages, await client.complete(messages, (ask.prompt_name, schema))
    except UnreachedError as failure:
        if not failure.rejected or client.endpoint.structured != "auto":
            raise
    # Rejected with a schema: if text is taken, it was the schema, and nobody needs to offer it again.
    messages = ask.messages(as_json=False, again=again)
    reply = await client.complete(messages)
    client.refuse_json()
    return messages, reply


def _why(reply: Reply) -> str:
    if reply.finish_reason == "length":
        return "the reply was cut off at max_tokens"
    if not reply.text.strip():
        return "the reply is empty"
    return "the reply holds no verdict in the form asked for"
