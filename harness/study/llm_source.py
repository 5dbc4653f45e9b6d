"""A language model as the source of a study's labels (``judges.llm`` of the recipe): at an endpoint, or the run's own.

The run goes by this judge's labels: experts are chosen by them, controls counted, the report made. So no step may go
on from labels that are not all there; where a budget, a cut-off or a silent server leaves some over, the run ends in
one line, and the same command goes on.
"""

from __future__ import annotations

from typing import Final

from mote.harness.errors import MoteError
from mote.harness.recipe.llm_judge import SELF, LlmPart, own_classes
from mote.harness.recipe.schema import Recipe
from mote.harness.store.judgments import Judge, Judgments
from mote.harness.study.llm_labels import Work, check_free, check_name, prompt_of, tasks_of
from mote.harness.study.session import Session
from mote.judges.llm.asks import Tally
from mote.judges.llm.endpoint import Endpoint, JudgeError

_URL: Final = "http://127.0.0.1:8000/v1"
"""Where vLLM's server listens unless told otherwise, as for ``mote judge ask``."""


def check_llm(recipe: Recipe) -> None:
    """Raise MoteError for a judge that can't be asked: its prompt, its endpoint, a key that is not set."""
    part = recipe.judges.llm
    if part is None:
        return
    prompt = prompt_of(str(part.kind), part.prompt)
    if part.classes is not None and part.classes != own_classes(prompt):
        raise MoteError(
            f"judges.llm.classes: {part.prompt} has {own_classes(prompt)}, not {part.classes}; leave it out."
        )
    check_free(part.name, "judges.llm.name")
    if part.model != SELF:
        _endpoint(part)


def label_run_by_llm(session: Session) -> None:
    """Label what the recipe's language model has not labelled yet.

    Raises MoteError where answers are left without a label, saying why and how to go on, and for whatever the endpoint
    or the engine refuses; what was replied is stored.
    """
    part = session.recipe.judges.llm
    if part is None or not session.store.unlabelled(str(part.name)):
        return
    kind, prompt = str(part.kind), prompt_of(str(part.kind), part.prompt)
    own = part.model == SELF
    judge = Judge(str(part.name), kind, SELF if own else part.url or _URL, prompt.name, prompt.sha256)
    judgments = Judgments(session.store)
    check_name(judgments, judge)
    work = Work(session.store, judge, part.max_tokens)
    work.plan(tasks_of(session.store.generations_frame(judge.name), kind, prompt, session.markers))
    left = None if part.budget is None else max(0, part.budget - judgments.replies(judge.name))
    tally = work.ask_model(session, left) if own else work.ask(_endpoint(part), left, session.console)
    if tally.unusable:
        session.console.print(
            f"{judge.name}: {tally.unusable} of {tally.total} replies held no verdict as the prompt asks for; their"
            " answers are UNSCORED.",
            soft_wrap=True,
        )
    if part.missing == "unscored" and not tally.left and (given := work.give_up()):
        session.console.print(f"{judge.name}: {given} answers without a verdict are UNSCORED.", soft_wrap=True)
    if waiting := len(session.store.unlabelled(judge.name)):
        raise MoteError(_unfinished(part, tally, work.cut, waiting))


def _endpoint(part: LlmPart) -> Endpoint:
    try:
        endpoint = Endpoint(
            part.url or _URL,
            part.model,
            part.key_env,
            structured=part.structured,
            concurrency=part.concurrency,
            timeout=part.timeout,
            max_tokens=part.max_tokens,
            body=part.body,
        )
        endpoint.key()
    except JudgeError as error:
        raise MoteError(f"judges.llm: {error}") from None
    return endpoint


def _unfinished(part: LlmPart, tally: Tally, cut: int, waiting: int) -> str:
    """Say in one line what keeps labels away, and how to go on."""
    why = []
    if tally.left:
        why.append(f"the budget of {part.budget} replies is spent: raise judges.llm.budget")
    if cut:
        why.append(f"{cut} replies were cut off at {part.max_tokens} tokens: raise judges.llm.max_tokens")
    if tally.unreached:
        why.append(f"{tally.unreached} judgments got no reply: they are asked for again")
    if not tally.left and part.missing == "stop":
        why.append("or let them be UNSCORED: judges.llm.missing=unscored")
    return (
        f"judge {part.name}: {waiting} answers wait for a label; {'; '.join(why)}. All replies are stored; the same"
        " command goes on, and asks for none of them twice."
    )
