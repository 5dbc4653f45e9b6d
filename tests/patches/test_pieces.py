"""Prompt log-probabilities in pieces are those made at once, and no piece is above its bound."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("vllm")

from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.gpu.sample import prompt_logprob

from mote.patches import pieces
from tests.conftest import Engines

VOCABULARY = 50
WEIGHT = torch.randn(VOCABULARY, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()


class Runner:
    """The part of Model Runner V1 that computes them, as vLLM does: ``_get_prompt_logprobs_dict``."""

    def __init__(self, mode: str) -> None:
        self.mote_state: Any = object()
        self.num_prompt_logprobs = {"a": 1}
        self.model_config = SimpleNamespace(get_vocab_size=lambda: VOCABULARY)
        self.made: list[int] = []
        self.model = SimpleNamespace(compute_logits=self._logits)
        self.sampler: Any = Sampler()
        self._mode = mode

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        self.made.append(len(hidden))
        return hidden @ WEIGHT.T

    def get(self, hidden: torch.Tensor, number: int, tokens: torch.Tensor) -> Any:
        logits = self.model.compute_logits(hidden)
        scores = logits.to(torch.float32) if self._mode == "raw_logits" else self.sampler.compute_logprobs(logits)
        ids, values, ranks, *_ = self.sampler.gather_logprobs(scores, number, tokens)
        return ids, values, ranks


@given(
    st.integers(1, 40), st.integers(1, 45), st.integers(0, 5), st.integers(0, 9), st.sampled_from(["raw", "raw_logits"])
)
def test_pieces_are_the_whole(count: int, rows: int, number: int, seed: int, mode: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 4, generator=generator)
    tokens = torch.randint(0, VOCABULARY, (count,), generator=generator)
    runner = Runner(mode)
    ids, values, ranks = runner.get(hidden, number, tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "BOUND", 4 * VOCABULARY * rows)
        runner.made.clear()
        own = (runner.model, runner.sampler)
        found = pieces.prompt_logprobs_v1(Runner.get, runner, hidden, number, tokens)
    assert runner.made == [rows] * (count // rows) + [count % rows] * (count % rows > 0)
    assert (runner.model, runner.sampler) == own
    assert torch.equal(found[0][:, 0], ids[:, 0])
    torch.testing.assert_close(found[1], values)
    assert torch.equal(found[2], ranks)


def test_what_goes_wrong_leaves_the_runner_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BOUND", 1)
    runner = Runner("raw")
    own = (runner.model, runner.sampler)
    with pytest.raises(RuntimeError, match="index"):
        pieces.prompt_logprobs_v1(Runner.get, runner, torch.zeros(3, 4), 0, torch.full((3,), VOCABULARY + 1))
    assert (runner.model, runner.sampler) == own
    # A model that the patch leaves alone is left alone in this, too.
    runner.mote_state = None
    runner.made.clear()
    pieces.prompt_logprobs_v1(Runner.get, runner, torch.zeros(3, 4), 0, torch.zeros(3, dtype=torch.int64))
    assert runner.made == [3]


def test_a_piece_of_any_vocabulary_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for vocabulary in (32, 32_000, 129_280, 10**9):
        rows = pieces.rows_at_once(vocabulary)
        assert rows == 1 or rows * vocabulary * 4 <= pieces.BOUND
    monkeypatch.setattr(prompt_logprob, "CHUNK_SIZE", 1024)
    pieces.shrink_v2(100)
    assert prompt_logprob.CHUNK_SIZE == 1024
    pieces.shrink_v2(129_280)
    assert prompt_logprob.CHUNK_SIZE == 32


def test_the_engine_gives_the_same_in_pieces(
    engines: Engines, checkpoints: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm import SamplingParams
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    llm = engines(checkpoints("glm4"), max_model_len=256)
    prompts: list[Any] = [{"prompt_token_ids": [(7 * at + 3 * one) % 60 for at in range(90)]} for one in range(3)]
    params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=2)

    def values() -> list[list[tuple[int, float]]]:
        llm.reset_prefix_cache()
        found = llm.generate(prompts, params, use_tqdm=False)
        return [
            [(token, one.logprob) for row in output.prompt_logprobs[1:] for token, one in row.items()]
            for output in found
        ]

    made: list[int] = []
    make = pieces.Scores.pieces

    def counted(self: pieces.Scores) -> Any:
        for part, found in make(self):
            made.append(len(found))
            yield part, found

    monkeypatch.setattr(pieces.Scores, "pieces", counted)
    monkeypatch.setattr(pieces, "BOUND", 4 * llm.model_config.get_vocab_size() * 7)
    small = values()
    assert max(made) == 7
    assert sum(made) == 3 * 89
    original = GPUModelRunner._get_prompt_logprobs_dict.__wrapped__  # type: ignore[attr-defined]
    monkeypatch.setattr(GPUModelRunner, "_get_prompt_logprobs_dict", original)
    made.clear()
    whole = values()
    assert not made
    for one, other in zip(small, whole, strict=True):
        assert [token for token, _ in one] == [token for token, _ in other]
        assert all(math.isclose(a, b, abs_tol=1e-5) for (_, a), (_, b) in zip(one, other, strict=True))
