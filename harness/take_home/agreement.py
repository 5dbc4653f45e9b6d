"""``mote bake --check``: the baked model beside the patched engine, on a run's prompts.

Greedy answers first: the model untouched, the model under the profile, the baked model; each labelled by the judge of
the texts. Then the divergence: texts that the run drew under the profile are scored by both, so that the mean of the
difference of their log-probabilities estimates KL(patched || baked) a token at the run's own temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mote.harness.engine.model import ModelSource, resolve_model
from mote.harness.engine.servers import engine_starter
from mote.harness.engine.vllm import Engine, Request, Scored, Scoring, VllmEngine
from mote.harness.errors import MoteError
from mote.harness.preconditions import STATES, DataError
from mote.harness.progress import step
from mote.harness.science.equivalence import divergence
from mote.harness.science.splits import evenly
from mote.harness.science.tempered import text_at_temperature
from mote.harness.study.exact import MOST_TOKENS, TOP, unbounded
from mote.harness.study.session import LOG_NAME, Session, StartsEngine
from mote.harness.study.text_labels import TextLabels
from mote.harness.take_home.evidence import of_the_class
from mote.patches import EMPTY_PROFILE, Profile


class Asked(NamedTuple):
    """What is asked of both models: prompts by id, and of each a text that was drawn under the profile."""

    prompts: list[str]
    texts: dict[str, str]


class Heard(NamedTuple):
    """One model's greedy answers and log-probabilities of the texts, a list of tokens' each, by prompt."""

    answers: dict[str, str]
    labels: dict[str, str]
    logprobs: dict[str, list[float]]


def compare_baked(
    session: Session, profile: Profile, baked: Path, count: int, starter: StartsEngine = engine_starter
) -> dict[str, Any]:
    """Ask the run's model under one of its profiles, and the baked model, ``count`` prompts; return what differs.

    Raises MoteError as the engine does, and for a run on servers.
    """
    if session.recipe.model.servers is not None:
        raise MoteError("--check: the run was asked of servers, and a baked folder is loaded by vLLM in this process.")
    asked = _asked(session, profile.name, count)
    plain, patched = _hear(session, starter, session.model, (EMPTY_PROFILE, profile), asked)
    (found,) = _hear(session, starter, resolve_model(str(baked)), (EMPTY_PROFILE,), asked)
    return summary(asked.prompts, plain, patched, found, target=session.recipe.study.target)


def summary(prompts: Sequence[str], plain: Heard, patched: Heard, baked: Heard, *, target: str) -> dict[str, Any]:
    """Return the figures of a check; ``differing`` names the prompts whose greedy texts differ, the first ten."""
    differing = [key for key in prompts if patched.answers[key] != baked.answers[key]]
    labels = {name: {key: one.labels[key] for key in prompts} for name, one in _named(plain, patched, baked)}
    both = [key for key in prompts if key in patched.logprobs and key in baked.logprobs]
    kl: dict[str, Any]
    try:
        found = divergence([patched.logprobs[key] for key in both], [baked.logprobs[key] for key in both])
        kl = {"value": found.kl, "low": found.low, "high": found.high, "tokens": found.tokens, "texts": found.units}
    except DataError as error:
        kl = {"left_out": str(error)}
    ours = [key for key in prompts if labels["untouched"][key] == target]
    return {
        "prompts": len(prompts),
        "greedy_equal": len(prompts) - len(differing),
        "greedy_equal_untouched": sum(plain.answers[key] == patched.answers[key] for key in prompts),
        "labels_differ": sum(labels["patched"][key] != labels["baked"][key] for key in prompts),
        "of_the_class": len(ours),
        "flips": {
            name: sum(labels[name][key] not in (target, *STATES) for key in ours) for name in ("patched", "baked")
        },
        "broken": {
            name: sum(labels[name][key] in STATES and labels["untouched"][key] not in STATES for key in prompts)
            for name in ("patched", "baked")
        },
        "kl": kl,
        "differing": differing[:10],
    }


def _named(plain: Heard, patched: Heard, baked: Heard) -> list[tuple[str, Heard]]:
    return [("untouched", plain), ("patched", patched), ("baked", baked)]


def _asked(session: Session, name: str, count: int) -> Asked:
    """Return prompts of the measured half, evenly, half of them of the class where there are as many."""
    frame = session.store.generations_frame(session.labels.judge)
    split = session.store.split()
    rows = frame[frame["profile"] == name]
    texts = {str(key): str(raw) for key, raw in zip(rows["prompt_id"], rows["raw"], strict=True)}
    if not texts:
        raise MoteError(f"--check: {session.folder} has no answers under '{name}'.")
    labels = frame[frame["profile"] == "baseline"].set_index("prompt_id")["label"].to_dict()
    keys = [key for key in texts if split.get(key, "measure") == "measure"]
    ours = [key for key in keys if labels.get(key) == session.recipe.study.target]
    others = [key for key in keys if labels.get(key) != session.recipe.study.target]
    first = evenly(ours, of_the_class(count, len(others)))
    prompts = [*first, *evenly(others, count - len(first))]
    return Asked(prompts, {key: texts[key] for key in prompts})


def _hear(
    session: Session, starter: StartsEngine, model: ModelSource, profiles: Sequence[Profile], asked: Asked
) -> list[Heard]:
    """Load a model and ask it under each profile."""
    drawn = session.recipe.sampling.model_copy(update={"temperature": 0.0, "top_p": 1.0})
    greedy = session.recipe.model_copy(update={"sampling": drawn})
    engine = starter(greedy, model, session.folder / LOG_NAME, session.console)()
    try:
        return [_heard(session, engine, profile, asked, Path(model.name).name) for profile in profiles]
    finally:
        # The next model needs the memory.
        if isinstance(engine, VllmEngine):
            engine.close()


def _heard(session: Session, engine: Engine, profile: Profile, asked: Asked, model: str) -> Heard:
    rows = {row.prompt_id: row for row in session.store.prompts()}
    requests = [Request(key, rows[key].messages, profile, session.seed_of(key)) for key in asked.prompts]
    labels = TextLabels(session.labels, session.markers, rows, strict=False)
    answers: dict[str, str] = {}
    labelled: dict[str, str] = {}
    with step(session.console, f"Greedy, {model}, {profile.name}", len(requests)) as advance:
        for some in engine.generate(requests):
            for _, answer in some:
                key = answer.request.prompt_id
                answers[key] = answer.raw
                labelled[key] = labels.label(key, answer.raw, engine.prompt_opens, answer.finish_reason).label
            advance(len(some))
    scorings = [
        Scoring(key, rows[key].messages, profile, "".join(engine.pieces(text)[:MOST_TOKENS]), TOP)
        for key, text in asked.texts.items()
        if text
    ]
    fitting = [one for one in scorings if engine.fits(one)]
    logprobs: dict[str, list[float]] = {}
    tempered = _tempered(session)
    for found in engine.score(fitting) if tempered else ():
        for _, scored in found:
            logprobs[scored.request.prompt_id] = tempered(scored) if tempered else []
    return Heard(answers, labelled, logprobs)


def _tempered(session: Session) -> Callable[[Scored], list[float]] | None:
    """Return what gives each token's log-probability at the run's temperature; None where it cannot be known."""
    sampling = session.recipe.sampling
    if unbounded(sampling):
        return None

    def values(scored: Scored) -> list[float]:
        bounds = [
            text_at_temperature([one], [top], TOP, sampling.temperature)
            for one, top in zip(scored.logprobs, scored.tops, strict=True)
        ]
        return [min((one.low + one.high) / 2, 0.0) for one in bounds]

    return values
