"""How often a label is wrong, on what: replies of real models, by rules and classifier, models left out of training.

    python -m tests.benchmarks.refusal_labels DATA_FOLDER --written tests/judges/answers/development.yaml \
        --out results/judges

``DATA_FOLDER`` is the one that the classifier is trained on (``mote.judges.classifier.data``). Of the texts nothing is
written but ids. A reply counts where both LLM judges agree: DENIAL is a refusal, EVASIVE evasive, COMPLETE an answer.
Two ways to leave out: one model at a time; and blocks of five models and ten requests, so that neither the model nor
the request was seen in training. Hand-labelled replies of these models are labelled by the classifier without theirs.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mote.judges import ALIGNED, REASONED, REFUSED, STATES, label_by_rules, label_compliance, label_refusal
from mote.judges.classifier import data
from mote.judges.classifier.model import ANSWERS, EVADES, REFUSES, Classifier, Probabilities, as_probabilities, packaged
from mote.judges.classifier.train import Rows, fit, rows_of, written_rows
from mote.judges.decision import Seen, class_of, decide
from mote.judges.reasoning import split_reasoning
from mote.judges.refusal import read_clauses

CLASS_OF = {"DENIAL": REFUSES, "EVASIVE": EVADES, "COMPLETE": ANSWERS}
LANGUAGES = {"en": "English", "zh": "Chinese"}


class Old(NamedTuple):
    """What the rules alone say of a reply: a state or a class, and what they see of it."""

    label: str
    seen: Seen


class Judged(NamedTuple):
    """A reply with its label by rules and classifier, and the probabilities that were given it."""

    reply: data.Reply
    old: Old
    found: Probabilities
    new: str


def leave_models_out(replies: Sequence[data.Reply]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield (held out, trained on), one model at a time."""
    models = np.array([r.model for r in replies])
    for model in sorted(set(models)):
        yield models == model, models != model


def leave_both_out(replies: Sequence[data.Reply]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield (held out, trained on) of 25 blocks: neither the models nor the requests of a block are trained on."""
    models, requests = np.array([r.model for r in replies]), np.array([r.request for r in replies])
    names, asked = sorted(set(models)), sorted(set(requests))
    for i in range(5):
        for j in range(5):
            model, request = np.isin(models, names[i::5]), np.isin(requests, asked[j::5])
            yield model & request, ~model & ~request


def judged(
    replies: Sequence[data.Reply],
    rows: Rows,
    written: Rows | None,
    old: Sequence[Old],
    folds: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    keep: dict[str, Classifier] | None = None,
) -> list[Judged]:
    """Label every reply by a classifier that was not trained on its fold; keep that one by the fold's first model."""
    found: list[Probabilities | None] = [None] * len(replies)
    for held, kept in folds:
        at, out = np.flatnonzero(kept), np.flatnonzero(held)
        weights = fit(Rows(rows.matrix[at], rows.targets[at]), written)
        if keep is not None:
            keep[replies[out[0]].model.replace("/", "_")] = Classifier(weights, packaged().card)
        for place, scores in zip(out, (rows.matrix[out] @ weights.T), strict=True):
            found[place] = as_probabilities(float(scores[0]), float(scores[1]))
    threshold = packaged().threshold
    result = []
    for reply, one, given in zip(replies, found, old, strict=True):
        assert one is not None
        result.append(Judged(reply, given, one, _class(given, one, threshold)))
    return result


def _by_rules(answer: str) -> Old:
    reading = read_clauses(answer)
    label = label_by_rules(answer, finish_reason="stop").label
    return Old(label, Seen.of(reading))


def _class(old: Old, found: Probabilities, threshold: float) -> str:
    if old.label in STATES:
        return old.label
    return class_of(old.seen, found, threshold)


def table(rows: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return one row a language and verdict: how many replies get which label, new and old."""
    found = []
    for language in ("en", "zh", "both"):
        for verdict, name in CLASS_OF.items():
            some = [r for r in rows if r.reply.agreed == verdict and language in (r.reply.language, "both")]
            new, old = [r.new for r in some], [r.old.label for r in some]
            found.append(
                {
                    "language": language,
                    "judges say": name,
                    "replies": len(some),
                    **{label: new.count(label) for label in (REFUSES, EVADES, ANSWERS)},
                    "state": sum(label in STATES for label in new),
                    "rules alone: REFUSED": old.count(REFUSED),
                }
            )
    return found


def misses(rows: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return the refusals that are not seen and the answers that are called something else, by id."""
    return [
        {
            "id": r.reply.id,
            "language": r.reply.language,
            "judges say": CLASS_OF[r.reply.agreed],
            "label": r.new,
            "rules": r.old.label,
            "refused": f"{r.found.refused:.3f}",
            "evasive": f"{r.found.evasive:.3f}",
            "answered": f"{r.found.answered:.3f}",
        }
        for r in rows
        if r.reply.agreed in ("DENIAL", "COMPLETE") and r.new != CLASS_OF[r.reply.agreed]
    ]


def calibration(rows: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return, by tenths of each probability, its mean and the share of replies that the two judges call so."""
    found = []
    for place, name in enumerate((REFUSES, EVADES, ANSWERS)):
        given = np.array([r.found[place] for r in rows])
        verdict = data.VERDICTS[place]
        share = np.array([r.reply.verdicts.count(verdict) / 2 for r in rows])
        for low in np.arange(0, 1, 0.1):
            inside = (given >= low) & ((given < low + 0.1) | (low > 0.85))
            if inside.any():
                found.append(
                    {
                        "class": name,
                        "probability": f"{low:.1f} to {low + 0.1:.1f}",
                        "replies": int(inside.sum()),
                        "mean probability": f"{given[inside].mean():.3f}",
                        "share of verdicts": f"{share[inside].mean():.3f}",
                    }
                )
    return found


def by_hand(folder: Path, without: dict[str, Classifier]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the counts on labels by hand, and each miss.

    A reply of a model that was trained on is labelled by the classifier that was trained without that model.
    """
    counts, wrong = [], []
    sets = [
        ("hand-labelled", data.HAND_LABELLED, "input", "right"),
        ("minimal", data.MINIMAL, "input", "right"),
        ("Qwen2-7B before and after", data.BEFORE_AFTER, "answer", "label"),
    ]
    for name, file, text, label in sets:
        rows = data.read_lines(folder / file)
        for number, row in enumerate(rows, start=1):
            truth = {"refused": REFUSED, "answered": "1-ALIGNED"}.get(row[label], row[label])
            if truth in ("borderline", "partial"):
                continue
            reason, question = row.get("finish_reason", "stop"), row.get("question")
            classifier = without.get(row.get("model", ""), packaged())
            new = _labelled(row[text], reason, question, classifier)
            blind = _labelled(row[text], reason, None, classifier)
            old = label_by_rules(row[text], finish_reason=reason).label
            counts.append(
                {"set": name, "right": truth, "new": new == truth, "blind": blind == truth, "old": old == truth}
            )
            if new != truth:
                wrong.append(
                    {
                        "set": name,
                        "line": number,
                        "id": row.get("id", row.get("model", "")),
                        "right": truth,
                        "label": new,
                        "rules": old,
                    }
                )
    return counts, wrong


def _labelled(raw: str, reason: str | None, question: str | None, classifier: Classifier) -> str:
    """Return the label of ``label_refusal`` by another classifier than the packaged one."""
    packaged_label = label_refusal(raw, finish_reason=reason).label
    if packaged_label in STATES:
        return packaged_label
    split = split_reasoning(raw)
    if decide(split.answer, question, classifier).name == REFUSES:
        return REFUSED
    return REASONED if split.reasoned else ALIGNED


def degenerate(rows: Sequence[Judged], folder: Path) -> list[dict[str, Any]]:
    """Return how many sound replies are called broken: those that both judges call an answer, and known passages."""
    answers = [r for r in rows if r.reply.agreed == "COMPLETE"]
    broken = [r for r in answers if r.old.label == "DEGENERATE"]
    known = [label_refusal(row["input"], finish_reason="stop").label for row in data.read_lines(folder / data.SOUND)]
    return [
        {
            "texts": "replies that both judges call an answer",
            "sound": len(answers),
            "called DEGENERATE": len(broken),
            "ids": " ".join(r.reply.id for r in broken),
        },
        {
            "texts": "passages that were called so",
            "sound": len(known),
            "called DEGENERATE": known.count("DEGENERATE"),
            "ids": "",
        },
    ]


def speed(replies: Sequence[data.Reply], number: int = 500) -> dict[str, Any]:
    """Return the CPU seconds that 10,000 answers of 1,000 characters take, from a sample."""
    texts = [r.answer[:1_000] for r in replies if len(r.answer) >= 1_000][:number]
    label_compliance(texts[0], finish_reason="stop")
    start = time.process_time()
    for text in texts:
        label_refusal(text, finish_reason="stop")
    seconds = (time.process_time() - start) / len(texts) * 10_000
    return {"answers": len(texts), "CPU seconds for 10,000": f"{seconds:.1f}", "machine": platform.processor() or "CPU"}


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["none"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(row[key]) for key in head) + " |" for row in rows])


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.1f}%)" if whole else "none"


def _figures(name: str, rows: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return the figures that the issue asks for."""

    def count(verdict: str, language: str, *labels: str) -> str:
        some = [r for r in rows if r.reply.agreed == verdict and language in (r.reply.language, "both")]
        return _share(sum(r.new in labels for r in some), len(some))

    return [
        {"left out": name, "figure": figure, "new": count(verdict, language, *labels)}
        for figure, verdict, language, labels in (
            ("refusals seen", "DENIAL", "both", (REFUSES,)),
            ("refusals seen, English", "DENIAL", "en", (REFUSES,)),
            ("refusals seen, Chinese", "DENIAL", "zh", (REFUSES,)),
            ("refusals not read as an answer", "DENIAL", "both", (REFUSES, EVADES, *STATES)),
            ("answers right (ANSWERED)", "COMPLETE", "both", (ANSWERS,)),
            ("answers not called a refusal", "COMPLETE", "both", (ANSWERS, EVADES, *STATES)),
            ("evasive replies called EVASIVE", "EVASIVE", "both", (EVADES,)),
            ("evasive replies called REFUSED", "EVASIVE", "both", (REFUSES,)),
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the refusal labels.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--written", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    replies = data.readable(data.read_replies(given.data))
    rows, written = rows_of(replies), written_rows(given.written) if given.written else None
    measure(given.data, given.out, replies, rows, written, [_by_rules(r.answer) for r in replies])


def measure(
    folder: Path,
    out: Path,
    replies: Sequence[data.Reply],
    rows: Rows,
    written: Rows | None,
    old: Sequence[Old],
) -> None:
    """Label every reply by classifiers that were not trained on it, and write the tables."""
    without: dict[str, Classifier] = {}
    models = judged(replies, rows, written, old, leave_models_out(replies), without)
    both = judged(replies, rows, written, old, leave_both_out(replies))
    write_tables(folder, out, models, both, without)


def write_tables(
    folder: Path, out: Path, models: Sequence[Judged], both: Sequence[Judged], without: dict[str, Classifier]
) -> None:
    """Write the tables of replies labelled with models, and with models and requests, left out of training."""
    counts, wrong = by_hand(folder, without)
    pieces = {
        "figures": _figures("a model", models) + _figures("models and requests", both),
        "leave-one-model-out": table(models),
        "leave-models-and-requests-out": table(both),
        "misses": misses(models),
        "by-hand-misses": wrong,
        "calibration": calibration(models),
        "degenerate": degenerate(models, folder),
        "speed": [speed([r.reply for r in models])],
        "by-hand": [
            {
                "set": name,
                "right label": truth,
                "replies": len(some),
                "new": sum(c["new"] for c in some),
                "new, question unknown": sum(c["blind"] for c in some),
                "rules alone": sum(c["old"] for c in some),
            }
            for name, truth in sorted({(c["set"], c["right"]) for c in counts})
            for some in [[c for c in counts if (c["set"], c["right"]) == (name, truth)]]
        ],
    }
    for name, content in pieces.items():
        write_csv(out / f"{name}.csv", content)
        if name not in ("misses", "by-hand-misses"):
            print(f"\n## {name}\n\n{_markdown(content)}")


if __name__ == "__main__":
    main()
