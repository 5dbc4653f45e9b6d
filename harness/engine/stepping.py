"""vLLM driven step by step: a bounded window of requests in one continuous batch, and a receipt for every answer.

Whatever asks vLLM in this process for something asks through here, so that no answer is taken for a profile's that was
not made under it, an answer is handed on as soon as it is done, and a caller who stops leaves nothing running.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mote.harness.errors import MoteError
from mote.patches import Observation, ObservationError, Profile, ProfileError, Route, read_observation, request_args

if TYPE_CHECKING:
    from vllm import LLM


class Call(NamedTuple):
    """One request to vLLM: what it is called in errors, the prompt's tokens, the profile, and vLLM's parameters.

    ``params`` are keyword arguments of SamplingParams; ``capture`` and ``route`` are as in
    ``mote.patches.request_args``.
    """

    what: str
    tokens: list[int]
    profile: Profile
    params: dict[str, Any]
    capture: Any = None
    route: Route | None = None


class Reply(NamedTuple):
    """What came back for the call of that number; ``logprobs`` are the prompt's tokens' own, if they were asked for.

    Attributes:
        number: the call's, counted from 0.
        call: what was asked.
        text: as generated.
        finish_reason: vLLM's.
        generated_tokens: how many came back.
        logprobs: [prompt tokens], natural logs, nan for the first; empty where none were asked for.
        observation: what the patch observed, its receipt checked.
        rows: [prompt tokens], all log-probabilities that vLLM gave, as it gave them.
    """

    number: int
    call: Call
    text: str
    finish_reason: str | None
    generated_tokens: int
    logprobs: list[float]
    observation: Observation
    rows: Sequence[Any] = ()


def drive(llm: LLM, calls: Iterable[Call], salt: str | None = None) -> Iterator[list[Reply]]:
    """Yield the replies of each step in which some are finished; ``calls`` is read only as far as the window reaches.

    KV blocks are shared only between requests of the same ``salt``: an engine whose weights change names them so.

    Raises MoteError for a request that vLLM refuses, and at the first answer whose receipt isn't that of its profile.
    """
    engine = llm.llm_engine
    window = 2 * engine.vllm_config.scheduler_config.max_num_seqs
    waiting = iter(enumerate(calls))
    running: dict[str, Call] = {}
    exhausted = False
    try:
        while running or not exhausted:
            while len(running) < window and not exhausted:
                item = next(waiting, None)
                if item is None:
                    exhausted = True
                else:
                    _submit(llm, str(item[0]), item[1], salt)
                    running[str(item[0])] = item[1]
            finished = [output for output in engine.step() if output.finished]
            if finished:
                yield [_reply(running.pop(output.request_id), output) for output in finished]
    finally:
        # Also when the caller stops early: the engine must not go on with what nobody waits for.
        if running:
            engine.abort_request(list(running))


def _submit(llm: LLM, key: str, call: Call, salt: str | None) -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    extra = {**(call.params.get("extra_args") or {}), **request_args(call.profile, call.capture, call.route)}
    values = {**call.params, "extra_args": extra, "output_kind": RequestOutputKind.FINAL_ONLY}
    try:
        # Over HTTP the same stands in the request's body as an object.
        if structured := call.params.get("structured_outputs"):
            values["structured_outputs"] = StructuredOutputsParams(**structured)
        params = SamplingParams(**values)
        prompt = TokensPrompt(prompt_token_ids=call.tokens)
        if salt is not None:
            prompt["cache_salt"] = salt
        llm.llm_engine.add_request(key, prompt, params)
    # VLLMValidationError is no ValueError.
    except (ValueError, TypeError, ProfileError, VLLMValidationError) as error:
        raise MoteError(f"vLLM refused {call.what} under '{call.profile.name}': {error}") from None


def _reply(call: Call, output: Any) -> Reply:
    completion, rows = output.outputs[0], output.prompt_logprobs or ()
    return Reply(
        number=int(output.request_id),
        call=call,
        text=completion.text,
        finish_reason=completion.finish_reason,
        generated_tokens=len(completion.token_ids),
        logprobs=[
            float(row[token].logprob) if row else math.nan
            for token, row in zip(output.prompt_token_ids, rows, strict=bool(rows))
        ],
        observation=checked_observation(call, completion),
        rows=rows,
    )


def checked_observation(call: Call, choice: Any) -> Observation:
    """Return what the patch observed of one answer (offline, or a choice's JSON object over HTTP).

    Raises MoteError where it carries no receipt, or that of another profile or route.
    """
    try:
        observation = read_observation(choice)
    except ObservationError as error:
        raise MoteError(f"{call.what} under '{call.profile.name}': {error}") from None
    if observation.receipt.digest != call.profile.digest:
        raise MoteError(
            f"{call.what} was answered under profile {observation.receipt.digest[:12]}, not under"
            f" '{call.profile.name}' ({call.profile.digest[:12]}); nothing of it was kept."
        )
    route = "" if call.route is None else call.route.digest
    if observation.receipt.route != route:
        raise MoteError(
            f"{call.what} took the route {observation.receipt.route[:12] or 'of its own'}, not"
            f" {route[:12] or 'its own'}; nothing of it was kept."
        )
    return observation
