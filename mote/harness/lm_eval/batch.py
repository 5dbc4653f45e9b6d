"""vLLM in this process for lm_eval's requests: one continuous batch, and a receipt for every answer.

Requests go in through a bounded window and are reduced as they finish: log-probabilities of every prompt token, for
tens of thousands of prompts at once, would not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mote.harness.engine_options import start_llm
from mote.harness.errors import MoteError
from mote.harness.files import digest_of
from mote.harness.lm_eval.answers import Note
from mote.harness.lm_eval.arguments import Arguments
from mote.patches import Observation, ObservationError, ProfileError, read_observation, request_args

if TYPE_CHECKING:
    from vllm import LLM


class Job(NamedTuple):
    """One request: what it is called in errors, its prompt's tokens, and the keyword arguments of SamplingParams."""

    name: str
    tokens: Sequence[int]
    params: dict[str, Any]
    prompt_opens: bool = False
    cut: int = 0


class Done(NamedTuple):
    """What came back for one job: the text as generated, log-probabilities of the prompt if asked for, and the note."""

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
        engine = self._llm.llm_engine
        window = 2 * engine.vllm_config.scheduler_config.max_num_seqs
        waiting = iter(enumerate(jobs))
        running: dict[str, Job] = {}
        exhausted = False
        try:
            while running or not exhausted:
                while len(running) < window and not exhausted:
                    item = next(waiting, None)
                    exhausted = item is None
                    if item is not None:
                        self._submit(str(item[0]), item[1])
                        running[str(item[0])] = item[1]
                for output in engine.step():
                    if output.finished:
                        yield int(output.request_id), self._done(running.pop(output.request_id), output)
        finally:
            # Also when the caller stops early: the engine must not go on with what nobody waits for.
            if running:
                engine.abort_request(list(running))

    def _submit(self, key: str, job: Job) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        extra = {**(job.params.get("extra_args") or {}), **request_args(self._profile)}
        values = {**job.params, "extra_args": extra, "output_kind": RequestOutputKind.FINAL_ONLY}
        try:
            params = SamplingParams(**values)
            self._llm.llm_engine.add_request(key, TokensPrompt(prompt_token_ids=list(job.tokens)), params)
        except (ValueError, TypeError, ProfileError) as error:
            raise MoteError(f"vLLM refused {job.name} under '{self._profile.name}': {error}") from None

    def _done(self, job: Job, output: Any) -> Done:
        completion = output.outputs[0]
        try:
            observation = read_observation(completion)
        except ObservationError as error:
            raise MoteError(f"{job.name} under '{self._profile.name}': {error}") from None
        if observation.receipt.digest != self._profile.digest:
            raise MoteError(
                f"{job.name} was answered under profile {observation.receipt.digest[:12]}, not under"
                f" '{self._profile.name}' ({self._profile.digest[:12]}); nothing was scored."
            )
        note = Note(
            profile=self._profile.name,
            digest=observation.receipt.digest,
            tokens_edited=observation.receipt.tokens_edited,
            patch_version=observation.receipt.patch_version,
            model=self._model,
            seed=job.params.get("seed"),
            finish_reason=completion.finish_reason,
            prompt_opens=job.prompt_opens,
            prompt_tokens=len(output.prompt_token_ids),
            generated_tokens=len(completion.token_ids),
            cut=job.cut,
            mechanism=_mechanism(observation),
        )
        return Done(completion.text, output.prompt_logprobs, note)


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
