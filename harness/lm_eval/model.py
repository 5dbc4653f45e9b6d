"""The lm_eval model ``mote``: vLLM in this process with the router patch, every request under one profile.

``generate_until``, ``loglikelihood`` and ``loglikelihood_rolling``, so that generative, multiple-choice and perplexity
tasks all run tuned. Prompts are rendered and seeds are drawn as a study does it, so the same prompt under the same
profile and seed gives the same answer here and in ``mote run``. Every answer's receipt is checked, and goes to the
sample log with it (``arguments``, last entry, key ``mote``); profile and model stand in the results' ``config``.

Left out on purpose: lm_eval's response cache (its key knows neither model nor profile), and ``think_end_token`` (it
would drop the reasoning from the log).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, cast

from lm_eval.api.instance import Instance  # type: ignore[import-untyped]
from lm_eval.api.model import CacheHook, TemplateLM  # type: ignore[import-untyped]
from lm_eval.api.registry import register_model  # type: ignore[import-untyped]
from lm_eval.utils import (  # type: ignore[import-untyped]
    get_rolling_token_windows,
    handle_non_serializable,
    make_disjoint_window,
)
from tqdm import tqdm

from mote import __version__
from mote.harness.compare.lm_eval_log import prompt_id
from mote.harness.engine.vllm import request_seed
from mote.harness.errors import MoteError
from mote.harness.lm_eval import NAME
from mote.harness.lm_eval.answers import Note, Rendered, Scored, Text
from mote.harness.lm_eval.arguments import check_arguments
from mote.harness.lm_eval.batch import Batch, Done, Job
from mote.harness.lm_eval.sampling import cut_at, generation
from mote.judges import split_reasoning

_log = logging.getLogger(__name__)
_Pair = tuple[tuple[str, str], list[int], list[int]]


@register_model(NAME)
class MoteLM(TemplateLM):  # type: ignore[misc]
    """lm_eval's view of a tuned model.

    Takes ``pretrained`` (demo, a folder, a Hugging Face id), ``profile`` (a file, ``RUN:PROFILE``, or baseline),
    ``seed``, ``markers``, ``max_gen_toks``, ``add_bos_token``, ``answer_only``, ``enable_thinking``,
    ``chat_template_args``, and vLLM's engine options by name. Raises MoteError for anything else.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.arguments = check_arguments(given)
        self._batch = Batch(self.arguments)
        self.tokenizer = self._batch.tokenizer

    # What lm_eval asks about a model.

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        found = self.tokenizer.eos_token_id
        if found is None:
            raise MoteError(f"the tokenizer of {self.arguments.source.name} names no eos_token.")
        return int(found)

    @property
    def prefix_token_id(self) -> int:
        """The token that an empty context is replaced by."""
        found = self.tokenizer.bos_token_id
        return self.eot_token_id if found is None else int(found)

    @property
    def max_length(self) -> int:
        """Tokens that prompt and generation may have together."""
        return self._batch.context_length

    @property
    def tokenizer_name(self) -> str:
        """Name of tokenizer and template arguments, which lm_eval puts into the key of its cache of requests."""
        name = str(self.tokenizer.name_or_path).replace("/", "__")
        arguments = self.arguments.template
        return name + "".join(f"__{key}={arguments[key]}" for key in sorted(arguments))

    def get_model_info(self) -> dict[str, Any]:
        """Return what the results file says of the model beside ``model_args``."""
        ours = self.arguments
        return {
            "mote": {
                "version": __version__,
                "profile": ours.profile.name,
                "profile_digest": ours.profile.digest,
                "profile_spec": ours.profile.to_dict(),
                "model": ours.source.manifest(),
                "seed": ours.seed,
                "chat_template_args": ours.template,
                "answer_only": ours.answer_only,
            }
        }

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Refuse lm_eval's response cache, whose keys know neither the model nor what was done to it."""
        if cache_hook.dbdict is not None:
            raise MoteError(USE_CACHE)
        super().set_cache_hook(cache_hook)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the messages as the model's template writes them, as a study does."""
        try:
            text = self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **self.arguments.template,
            )
        # No template at all (ValueError), or one that refuses these messages (jinja's TemplateError).
        except Exception as error:
            name = self.arguments.source.name
            raise MoteError(f"the chat template of {name} did not take the messages: {error}") from None
        return Rendered(text)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the tokens of a text; what a chat template wrote gets no further token in front."""
        if not string:
            return []
        wanted = self.arguments.add_bos_token if add_special_tokens is None else add_special_tokens
        start = self.tokenizer.bos_token
        if isinstance(string, Rendered) or (start and string.startswith(start)):
            wanted = False
        options = {} if wanted is None else {"add_special_tokens": wanted}
        return [int(token) for token in self.tokenizer.encode(str(string), **options)]

    # What lm_eval asks of a model.

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return a text a request, drawn with the request's own seed; the n-th repeat of a request has its own."""
        asked: dict[int, int] = {}
        jobs, untils = [], []
        for request in requests:
            repeat = asked[id(request)] = asked.get(id(request), -1) + 1
            job, until = self._generation(request, repeat)
            jobs.append(job)
            untils.append(until)
        done = self._run(jobs, "Generating", disable_tqdm)
        texts = [self._text(*each) for each in zip(requests, done, untils, strict=True)]
        _attach(requests, [[text.note] for text in texts])
        return list(texts)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-probability, whether greedy) of each request's continuation."""
        for request in requests:
            self._check_closed(str(request.task_name), request.args[0])
        scores = cast(list[Scored], super().loglikelihood(requests, disable_tqdm=disable_tqdm))
        _attach(requests, [[score.note] for score in scores])
        return list(scores)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each request's text, in windows of the model's context, all in one batch."""
        pairs: list[_Pair] = []
        owners = []
        for index, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                # One token is left for the context, one for the token that vLLM always generates.
                max_seq_len=self.max_length - 2,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, windows):
                pairs.append((("", str(request.task_name)), context, continuation))
                owners.append(index)
        sums = [0.0] * len(requests)
        notes: list[list[Note]] = [[] for _ in requests]
        for owner, score in zip(owners, self._loglikelihood_tokens(pairs, disable_tqdm=disable_tqdm), strict=True):
            sums[owner] += score[0]
            notes[owner].append(cast(Scored, score).note)
        _attach(requests, notes)
        return sums

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        # lm_eval's own joins the two as plain text, which would forget that a template wrote the context.
        spaces = len(context) - len(context.rstrip())
        kind = Rendered if isinstance(context, Rendered) else str
        whole = self.tok_encode(kind(context + continuation))
        before = self.tok_encode(kind(context[: len(context) - spaces]))
        # A context of blanks alone has no tokens, and the first token of a prompt has no log-probability.
        return (before, whole[len(before) :]) if before else ([self.prefix_token_id], whole)

    def _loglikelihood_tokens(
        self, requests: list[_Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        profile = self.arguments.profile
        if profile.canonical and profile.tokens == "generated":
            raise MoteError(
                f"profile '{profile.name}' edits generated tokens, and a log-likelihood has none: nothing would be"
                " tuned. Take a profile with tokens 'all'."
            )
        room = self.max_length - 1  # vLLM always generates one token
        jobs, starts = [], []
        for (context, name), before, after in requests:
            if len(after) > room or not after:
                raise MoteError(
                    f"a continuation of {len(after)} tokens does not fit a context of {self.max_length}: {name[:60]!r}"
                    if after
                    else f"a continuation has no tokens: {name[:60]!r}"
                )
            cut = max(0, len(before) + len(after) - room)
            # Without a temperature of 0 a seed would be drawn; the one generated token is thrown away.
            params = {"prompt_logprobs": 1, "max_tokens": 1, "temperature": 0.0, "detokenize": False}
            jobs.append(Job(f"the continuation of {context[-40:]!r}", [*before[cut:], *after], params, cut=cut))
            starts.append(len(before) - cut)
        done = self._run(jobs, "Scoring", disable_tqdm)
        return [_score(*each) for each in zip(jobs, starts, done, strict=True)]

    # Inside.

    def _generation(self, request: Instance, repeat: int) -> tuple[Job, list[str]]:
        context, given = request.args[0], request.args[1]
        drawn = generation(given, self.arguments.max_gen_toks)
        name = prompt_key(request)
        seed = request_seed(self.arguments.seed, f"{name}#{repeat}" if repeat else name)
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        cut = max(0, len(tokens) - (self.max_length - 1))
        stop = [] if self._answer_only(request) else drawn.until
        params = {**drawn.params, "stop": stop, "seed": seed}
        opens = str(context).rstrip().endswith(self.arguments.markers.open)
        return Job(f"prompt '{name[:80]}'", tokens[cut:], params, opens, cut), drawn.until

    def _answer_only(self, request: Instance) -> bool:
        # In our own tasks the reasoning is what is measured.
        return self.arguments.answer_only and not prompt_id(request.doc)

    def _text(self, request: Instance, done: Done, until: Sequence[str]) -> Text:
        if not self._answer_only(request):
            return Text(done.text, done.note)
        split = split_reasoning(done.text, self.arguments.markers, prompt_opens=done.note.prompt_opens)
        return Text(cut_at(split.answer, list(until)), done.note._replace(raw=done.text))

    def _check_closed(self, task: str, context: str) -> None:
        if isinstance(context, Rendered) and context.rstrip().endswith(self.arguments.markers.open):
            raise MoteError(
                f"task {task}: the chat template opens the reasoning, so the choices would be scored inside it. Leave"
                " --apply_chat_template away, or close it with model_args enable_thinking=False if the template has it."
            )

    def _run(self, jobs: Sequence[Job], title: str, quiet: bool) -> list[Done]:
        done: list[Done | None] = [None] * len(jobs)
        cut = sum(job.cut > 0 for job in jobs)
        if cut:
            _log.warning("%d of %d prompts are longer than the context and were cut at the left", cut, len(jobs))
        with tqdm(total=len(jobs), desc=f"{title} under '{self.arguments.profile.name}'", disable=quiet) as bar:
            for index, one in self._batch.run(jobs):
                done[index] = one
                bar.update()
        return cast(list[Done], done)


USE_CACHE = (
    "--use_cache is refused: lm_eval's cache knows an answer by its prompt alone, so it would give one profile's"
    " answers for another's, and text without a receipt."
)


def prompt_key(request: Instance) -> str:
    """Return what a request's seed is made of: the prompt's id in our tasks, task and document elsewhere.

    Not the document's number: under ``--limit`` and ``--samples`` that counts what is asked, not what there is.
    """
    document = json.dumps(request.doc, sort_keys=True, default=handle_non_serializable)
    return prompt_id(request.doc) or f"{request.task_name}/{document}"


def _score(job: Job, start: int, done: Done) -> Scored:
    rows = done.prompt_logprobs
    if rows is None or len(rows) != len(job.tokens):
        raise MoteError(f"{job.name}: vLLM gave log-probabilities of {len(rows or [])} of {len(job.tokens)} tokens.")
    total, greedy = 0.0, True
    for token, row in zip(job.tokens[start:], rows[start:], strict=True):
        mine = row[token].logprob
        total += mine
        greedy = greedy and mine >= max(other.logprob for other in row.values())
    return Scored(total, greedy, done.note)


def _attach(requests: Sequence[Instance], notes: Sequence[list[Note]]) -> None:
    """Add the notes to the requests' arguments, which lm_eval writes to its sample log; repeats share a request."""
    together: dict[int, tuple[Instance, list[Note]]] = {}
    for request, some in zip(requests, notes, strict=True):
        together.setdefault(id(request), (request, []))[1].extend(some)
    for request, all_notes in together.values():
        request.arguments = (*request.args, {NAME: [note.to_dict() for note in all_notes]})
