"""The second judge of a run: its rules, and the surprise of the untouched model at each answer (``mote.judges``).

Every answer that the text alone puts into a class is put before the untouched model once more, in the run's own engine
under the empty profile: one prefill for each distinct answer to a prompt. What came of it is in the table ``surprises``
of the run's store, written once, whoever asked; the labels are those of a judge of their own,
``rules+classifier+surprise``, beside those of the text alone. The threshold is set by the run's own baseline, whose
answers are all measured before any other is judged.

A run that was killed measures what is missing and ends with the same rows; log-probabilities of a batch that was cut
elsewhere may differ in the last of their seven digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from mote.harness.engine.vllm import Scoring
from mote.harness.progress import step
from mote.harness.recipe.label_sets import DECIDED_RULE
from mote.harness.store.run import LabelRow
from mote.harness.store.surprises import Key, add_surprises, baseline_texts, read_surprises, unjudged
from mote.harness.study.session import Session
from mote.judges import STATES, Evidence, Label, Measured, label_by_surprise, with_surprise
from mote.judges.surprise import measure, threshold
from mote.patches import EMPTY_PROFILE


def surprises(session: Session, wanted: Iterable[Key]) -> dict[Key, Measured | None]:
    """Return the surprise of all answers that were measured, after measuring those wanted that were not.

    None stands for an answer that did not fit the model's context. Raises MoteError for whatever the engine refuses;
    what was measured is stored as it comes.
    """
    known = read_surprises(session.store)
    missing = [key for key in dict.fromkeys(wanted) if key not in known]
    if not missing:
        return known
    messages = {row.prompt_id: row.messages for row in session.store.prompts()}
    for some in _measured(session, [Scoring(key, messages[key], EMPTY_PROFILE, raw) for key, raw in missing]):
        add_surprises(session.store, [(missing[at], found) for at, found in some])
    return read_surprises(session.store)


def run_threshold(session: Session) -> float:
    """Return the surprise below which an answer of the run is broken. The baseline has to be measured whole."""
    known = read_surprises(session.store)
    texts = baseline_texts(session.store, session.text_judge)
    found = [known[prompt, raw] for prompt, raw, label in texts if label not in STATES]
    return threshold([one.surprise for one in found if one is not None])


def label_run_by_surprise(session: Session, at_once: int) -> None:
    """Measure and label what the judge of the texts has labelled, and this one has not; ``at_once`` rows at a time.

    The baseline has to be there whole, labelled by the judge of the texts. Raises MoteError for whatever the engine
    refuses.
    """
    judge = session.text_judge
    missing = unjudged(session.store, judge, with_surprise(judge))
    if not missing:
        return
    # What was ended at its opening has no text that could surprise.
    ended = {one.generation_id for one in missing if any(entry["rule"] == DECIDED_RULE for entry in one.evidence)}
    texts = (one for one in missing if one.label not in STATES and one.generation_id not in ended)
    known = surprises(session, ((one.prompt_id, one.raw) for one in texts))
    below = run_threshold(session)
    # Equal answers have equal labels, whose evidence is then made once.
    made: dict[tuple[Key, str, tuple[Evidence, ...]], Label] = {}
    with step(session.console, "Labels by surprise", len(missing)) as advance:
        for start in range(0, len(missing), at_once):
            rows = []
            for one in missing[start : start + at_once]:
                key, evidence = (one.prompt_id, one.raw), tuple(Evidence(**entry) for entry in one.evidence)
                same = (key, one.label, evidence)
                if same not in made:
                    text = Label(one.label, judge, evidence, session.labels.classes)
                    made[same] = label_by_surprise(text, one.raw, known.get(key), below)
                label = made[same]
                entries = [asdict(entry) for entry in label.evidence]
                rows.append(LabelRow(one.generation_id, label.judge, label.label, entries))
            session.store.add_labels(rows)
            advance(len(rows))


def _measured(session: Session, requests: Sequence[Scoring]) -> Iterator[list[tuple[int, Measured | None]]]:
    """Yield (index of the request, surprise of its text) as they are done; first, and None, those that do not fit."""
    engine = session.engine
    fitting = [at for at, request in enumerate(requests) if engine.fits(request)]
    yield [(at, None) for at in sorted(set(range(len(requests))) - set(fitting))]
    with step(session.console, "Surprise of answers", len(fitting)) as advance:
        for some in engine.score([requests[at] for at in fitting]):
            yield [
                (fitting[index], measure(scored.request.continuation, scored.tokens, scored.logprobs))
                for index, scored in some
            ]
            advance(len(some))
