"""The proof on the user's machine passes where the patch works, and fails where a part of it is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm.v1.engine.input_processor import InputProcessor

from mote.patches import ModelLayout, host
from mote.patches.capture import CaptureBuffer
from mote.patches.choice import ScoreEdits
from mote.patches.edit import edit_rows
from mote.patches.forcing import Laid
from mote.patches.verify import Report, Stock, ask_stock, verify
from tests.conftest import Engines

Examine = Callable[..., Report]


@pytest.fixture
def plain(checkpoints: Callable[..., Path], engines: Engines) -> Stock:
    """Untuned answers, here of the same engine; ``mote verify`` takes them from a process that has no patch."""
    return ask_stock(engines(checkpoints("glm4"), block_size=32), rounds=1)


@pytest.fixture
def examine(checkpoints: Callable[..., Path], engines: Engines) -> Examine:
    folder = checkpoints("glm4")
    llm = engines(folder, block_size=32)

    def run(stock: Stock | None = None) -> Report:
        llm.reset_prefix_cache()
        return verify(llm, ModelLayout.from_config(folder), rounds=1, stock=stock)

    return run


def results(report: Report) -> dict[str, bool]:
    return {check.name: check.passed for check in report.checks}


def test_it_passes(examine: Examine, plain: Stock) -> None:
    report = examine(plain)
    assert report.passed, report.to_markdown()
    assert len(report.checks) == 12
    text = report.to_markdown()
    assert "| 16 of 16 answers are those of vLLM without the patch, which repeats 16 itself |" in text
    assert "of that without the patch" in text
    assert "| suppression | passed |" in text
    assert "the weight is smaller 0 times |" in text
    assert "| before the choice | passed | activated: entered" in text
    assert "tokens chosen again by edited scores" in text
    assert "| route transplant | passed | own route: 0 of" in text
    assert "tokens of routes, largest difference" in text
    assert "Glm4MoeForCausalLM" in text


def test_it_notices_untuned_answers_that_are_not_those_without_the_patch(examine: Examine, plain: Stock) -> None:
    other = [[[answer[0] ^ 1, *answer[1:]] for answer in plain.tokens[0][:1]] + plain.tokens[0][1:]] * 2
    report = examine(Stock(other, plain.seconds))
    assert [check.name for check in report.checks if not check.passed] == ["untouched requests"]


def test_it_notices_an_edit_that_is_too_weak(examine: Examine, monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    def weak(weights: Any, ids: Any, gain: Any, wanted: Any) -> Any:
        return edit_rows(weights, ids, np.where(gain == 0, np.float32(0.5), gain), wanted)

    monkeypatch.setattr(host, "edit_rows", weak)
    assert not results(examine())["suppression"]


@pytest.mark.parametrize("what", ["weights", "logits"])
def test_it_notices_rows_of_other_tokens(
    what: str, examine: Callable[[], Report], monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    original = CaptureBuffer.put

    def shifted(self: Any, layer: int, weights: Any, ids: Any, logits: Any) -> None:
        if what == "weights":
            original(self, layer, weights.roll(1, 0), ids, logits)
        else:
            original(self, layer, weights, ids, None if logits is None else logits.roll(1, 0))

    monkeypatch.setattr(CaptureBuffer, "put", shifted)
    found = results(examine())
    assert not found["rows of weights and logits"]
    assert found["route transplant"]


def test_it_notices_a_choice_by_untouched_scores(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    monkeypatch.setattr(ScoreEdits, "apply", lambda _self, scores, **_: scores)
    found = results(examine())
    assert not found["edit against the slow rule"]
    assert not found["before the choice"]
    assert found["stimulation"]


def test_it_notices_a_route_that_is_not_taken(examine: Examine, monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    original = Laid.__init__

    def late(self: Any, *args: Any) -> None:
        original(self, *args)
        self.at = self.at + 1

    monkeypatch.setattr(Laid, "__init__", late)
    found = results(examine())
    assert not found["edit against the slow rule"]
    assert not found["route transplant"]
    assert found["before the choice"]


def test_it_notices_a_shared_cache(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = InputProcessor.process_inputs

    def unsalted(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = ours(self, *args, **kwargs)
        request.cache_salt = None
        return request

    monkeypatch.setattr(InputProcessor, "process_inputs", unsalted)
    found = results(examine())
    assert not found["prefix cache"]
    assert found["receipts"]
