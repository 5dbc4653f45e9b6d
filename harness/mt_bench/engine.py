"""vLLM for MT-Bench: the study's engine, with a temperature of each request's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mote.harness.engine.vllm import Answer, Request, VllmEngine
from mote.harness.recipe.markers import MarkersPart
from mote.harness.recipe.schema import SamplingPart

if TYPE_CHECKING:
    from vllm.engine.arg_utils import EngineArgs


class VllmBenchEngine(VllmEngine):
    """vLLM in this process; temperatures by request."""

    _temperatures: Mapping[str, float]

    def generate_at(
        self, requests: Sequence[Request], temperatures: Sequence[float]
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Yield (index of the request, answer) as vLLM finishes them, each drawn at its own temperature."""
        self._temperatures = {
            request.prompt_id: temperature for request, temperature in zip(requests, temperatures, strict=True)
        }
        yield from self.generate(requests)

    def room(self, messages: Sequence[dict[str, str]]) -> int:
        """Return how many tokens the model's context leaves for an answer."""
        tokens = self._encode(self._render(messages))
        return self._context - len(tokens)

    def _params(self, request: Request) -> dict[str, Any]:
        return {**super()._params(request), "temperature": self._temperatures[request.prompt_id]}


def start_engine(arguments: EngineArgs, sampling: SamplingPart, markers: MarkersPart, log: Path) -> VllmBenchEngine:
    """Load the model. Raises MoteError where vLLM can't."""
    return VllmBenchEngine(arguments, sampling, markers.start, log)
