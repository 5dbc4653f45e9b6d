"""The engines of a sweep: one for each child, or one whose weights are reloaded in place, where that is proven first.

The proof: the base, and the child that takes everything over, are each loaded by an engine of their own; then their
weights go in place into the engine that is left. Answers to a few prompts, drawn as the sweep draws them with the same
seeds, and the digest of every parameter must be those of the engine of their own. Where one differs, or vLLM refuses,
each child has an engine of its own. What was proven of two children is checked of further ones as a sweep goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mote.harness.engine.vllm import Engine, Request
from mote.harness.errors import MoteError

EACH = "an engine a child"
RELOADED = "one engine, weights reloaded in place"


class SweepEngine(Engine, Protocol):
    """What a sweep needs of an engine beside its answers."""

    def name_weights(self, weights: str) -> None:
        """Name the weights that the engine has: KV blocks are shared under one name alone."""
        ...

    def take_weights(self, folder: Path, weights: str) -> None:
        """Put the weights of another checkpoint in the place of the engine's."""
        ...

    def parameter_digests(self) -> Mapping[str, str]:
        """Return the sha256 of every parameter in memory, by name."""
        ...

    def close(self) -> None:
        """Give back the engine's memory."""
        ...


Starts = Callable[[Path], SweepEngine]
"""Starts an engine on a checkpoint's folder."""


class Loaded(NamedTuple):
    """A checkpoint and the digest of its weights."""

    folder: Path
    weights: str


class Engines:
    """Gives the engine of one child after the other; ``how`` says by which way, and ``why`` for what reason.

    ``start`` loads a folder. Close it in the end.
    """

    def __init__(self, start: Starts) -> None:
        self._start = start
        self._engine: SweepEngine | None = None
        self._has: str | None = None
        self._reloads = False
        self.why = "model.reload is false"

    @property
    def how(self) -> str:
        """The way: an engine a child, or one engine for all."""
        return RELOADED if self._reloads else EACH

    def of(self, child: Loaded) -> SweepEngine:
        """Return an engine that has a child's weights."""
        engine = self._engine
        if engine is not None and self._has == child.weights:
            return engine
        if self._reloads and engine is not None:
            self._has = None
            engine.take_weights(child.folder, child.weights)
        else:
            self.close()
            engine = self._engine = self._start(child.folder)
            engine.name_weights(child.weights)
        self._has = child.weights
        return engine

    def prove(self, both: Sequence[Loaded], requests: Sequence[Request]) -> None:
        """Find out whether weights can be reloaded in place, and do so from now on if they can."""
        fresh = [_seen(self.of(one), requests) for one in both]
        self._reloads, self.why = True, f"proven: answers to {len(requests)} prompts, and all parameters, are as loaded"
        for one, (answers, digests) in zip(both, fresh, strict=True):
            try:
                again, changed = _seen(self.of(one), requests)
            except MoteError as error:
                return self._renounce(str(error).rstrip("."))
            texts, others = _apart((answers, digests), (again, changed))
            if texts or others:
                return self._renounce(
                    f"after a reload {texts} of {len(answers)} answers and {others} of {len(digests)} parameters were"
                    " not those of a fresh engine"
                )
        return None

    def check(self, child: Loaded, requests: Sequence[Request]) -> tuple[int, int]:
        """Load a child that was reloaded in place with a fresh engine, which is used from then on.

        Returns how many answers, and how many parameters, are not those that the engine before had.
        """
        before = _seen(self.of(child), requests)
        self.close()
        return _apart(_seen(self.of(child), requests), before)

    def _renounce(self, why: str) -> None:
        self._reloads, self.why = False, why
        self.close()

    def close(self) -> None:
        """Give back the engine that is left."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._has = None, None


_Seen = tuple[list[str], dict[str, str]]
"""Answers in the order of their requests, and the digest of each parameter."""


def _apart(fresh: _Seen, other: _Seen) -> tuple[int, int]:
    """Return how many answers and how many parameters differ from those of a fresh engine."""
    texts = sum(first != second for first, second in zip(fresh[0], other[0], strict=True))
    return texts, sum(other[1].get(name) != digest for name, digest in fresh[1].items())


def _seen(engine: SweepEngine, requests: Sequence[Request]) -> _Seen:
    """Return an engine's answers in the order of the requests, and its parameters' digests."""
    answers: dict[int, str] = {}
    for some in engine.generate(requests):
        answers.update((index, answer.raw) for index, answer in some)
    return [answers[index] for index in range(len(requests))], dict(engine.parameter_digests())
