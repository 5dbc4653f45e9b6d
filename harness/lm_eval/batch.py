"""vLLM in this process for lm_eval's requests: one continuous batch, and a receipt for every answer.

Requests go in through a bounded window and are reduced as they finish: log-probabilities of every prompt token, for
tens of thousands of prompts at once, would not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mote.harness.engine.options import start_llm
from mote.harness.engine.stepping import Call, Reply, drive
from mote.harness.errors import MoteError
from mote.harness.files import digest_of
from mote.harness.lm_eval.answers import Note
from mote.harness.lm_eval.arguments import Arguments
from mote.patches import Observation

if TYPE_CHECKING:
    from vllm import LLM


class Job(NamedTuple):
    """A request: its name in errors, its prompt's tokens, and the keyword arguments of SamplingParams."""

    name: str
    tokens: Sequence[int]
    params: dict[str, Any]
    prompt_opens: bool = False
    cut: int = 0


class Done(NamedTuple):
    """The result of a job: the text as generated, log-probabilities of the prompt if asked for, and the note."""

    text: str
    prompt_logprobs: Any
    note: Note


class Batch:
    """The engine with one profile for all requests.

    Raises MoteError where vLLM can't start with the model.
    """

    def __init__(self, arguments: Arguments) -> None:
        self._profile = arguments.profile
        self._model = digest_of(arguments.source.files)
        try:
            self._llm: LLM = start_llm(arguments.engine, Path("the terminal"))
        except MoteError as error:
            # In lm_eval vLLM's words go to the terminal, as the user's own log level has it.
            raise MoteError(str(error).partition(" Its log:")[0]) from error
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.context_length = int(self._llm.llm_engine.vllm_config.model_config.max_model_len)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Done]]:
        """Yield (index of the job, what came back) in the order in which vLLM finishes them.

        Raises MoteError for a request that vLLM refuses, and at the first answer whose receipt isn't the profile's.
        """
        calls = (Call(job.name, list(job.tokens), self._profile, job.params) for job in jobs)
        for replies in drive(self._llm, calls):
            for reply in replies:
                yield reply.number, self._done(jobs[reply.number], reply)

    def _done(self, job: Job, reply: Reply) -> Done:
        receipt = reply.observation.receipt
        note = Note(
            profile=self._profile.name,
            digest=receipt.digest,
            tokens_edited=receipt.tokens_edited,
            patch_version=receipt.patch_version,
            model=self._model,
            seed=job.params.get("seed"),
            finish_reason=reply.finish_reason,
            prompt_opens=job.prompt_opens,
            prompt_tokens=len(reply.call.tokens),
            generated_tokens=reply.generated_tokens,
            cut=job.cut,
            mechanism=_mechanism(reply.observation),
        )
        return Done(reply.text, reply.rows, note)


def _mechanism(observation: Observation) -> list[dict[str, Any]]:
    return [
        {
            "layer": effect.layer,
            "expert": effect.expert,
            "action": effect.action,
            "tokens": effect.tokens,
            "selected": effect.selected,
            "entered": effect.entered,
            "weight_after": effect.weight_after,
        }
        for effect in observation.mechanism
    ]
