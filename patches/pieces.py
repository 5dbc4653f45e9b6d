"""Prompt log-probabilities in pieces: what a score of a long answer needs beside the model stays under a bound.

vLLM's Model Runner V1 makes the logits of all of a request's tokens in a step at once, tokens x vocabulary, several
times over, and its memory profile does not count them: 6 GB for 8,000 tokens of a vocabulary of 129,280 (vLLM issue
5907). Model Runner V2 makes them for 1,024 tokens at a time. Here both make them for as many as fit ``BOUND``. Each
row is computed as before; what is returned is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

BOUND: Final = 16 << 20
"""Bytes of one piece's logits as float32; softmax, ranks and the largest take a few times that."""


def rows_at_once(vocabulary: int) -> int:
    """Return how many tokens' logits are made at once."""
    return max(1, BOUND // (4 * vocabulary))


def prompt_logprobs_v1(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Let V1's ``_get_prompt_logprobs_dict`` see a model and a sampler that work in pieces, for as long as it runs."""
    if self.mote_state is None or not self.num_prompt_logprobs:
        return original(self, *args, **kwargs)
    model, sampler = self.model, self.sampler
    rows = rows_at_once(self.model_config.get_vocab_size())
    self.model, self.sampler = _Model(model, rows), _Sampler(sampler)
    try:
        return original(self, *args, **kwargs)
    finally:
        self.model, self.sampler = model, sampler


def shrink_v2(vocabulary: int) -> None:
    """Lower the number of tokens that V2 takes at once, where it is above the bound's."""
    from vllm.v1.worker.gpu.sample import prompt_logprob

    prompt_logprob.CHUNK_SIZE = min(prompt_logprob.CHUNK_SIZE, rows_at_once(vocabulary))


class Scores:
    """What would be [tokens, vocabulary]: made piece by piece, each gone before the next is made."""

    def __init__(self, hidden: Any, rows: int, make: Callable[[Any], Any]) -> None:
        self._hidden = hidden
        self._rows = rows
        self._make = make

    def then(self, step: Callable[[Any], Any]) -> Scores:
        """Return these scores after one more step, which must leave rows apart."""
        return Scores(self._hidden, self._rows, lambda hidden: step(self._make(hidden)))

    def to(self, *args: Any) -> Scores:
        """Return these scores as another type."""
        return self.then(lambda scores: scores.to(*args))

    def pieces(self) -> Iterator[tuple[slice, Any]]:
        """Yield (tokens, their scores)."""
        for start in range(0, len(self._hidden), self._rows):
            part = slice(start, start + self._rows)
            yield part, self._make(self._hidden[part])


class _Model:
    def __init__(self, model: Any, rows: int) -> None:
        self._model = model
        self._rows = rows

    def compute_logits(self, hidden: Any) -> Scores:
        return Scores(hidden, self._rows, self._model.compute_logits)


class _Sampler:
    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def compute_logprobs(self, logits: Scores) -> Scores:
        return logits.then(self._sampler.compute_logprobs)

    def gather_logprobs(self, scores: Scores, number: int, tokens: Any) -> tuple[Any, Any, Any]:
        import torch

        parts = [self._sampler.gather_logprobs(found, number, tokens[part])[:3] for part, found in scores.pieces()]
        ids, values, ranks = (torch.cat(column) for column in zip(*parts, strict=True))
        return ids, values, ranks
