"""What the lm-eval YAML files of our tasks call by ``!function``: documents, labels by our rules, rates.

A document is a prompt: its id, the question, and its attributes. The sample log keeps the whole generation, reasoning
and markers included (``resps``), and beside it what the rules made of it, with evidence (``filtered_resps``). Rates are
means of 0 and 1 over the documents that have them, so lm-eval gives each its standard error.

The rules need to know how a generation ended. The model ``mote`` says so (its answers carry ``finish_reason`` and
``prompt_opens``); other models of lm-eval hand over bare text, where a text cut off inside its reasoning is UNSCORED
instead of TRUNCATED and one cut off in its answer is not noticed. For them ``--metadata`` takes ``prompt_opens`` (the
chat template ends inside the reasoning) and ``markers`` (a name such as "mistral").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from mote.judges import (
    CLASSES,
    LABELS,
    LANGUAGES,
    TRUNCATED,
    Label,
    Markers,
    ReasoningSplit,
    label_refusal,
    language,
    split_reasoning,
)
from mote.tasks.prompt import Prompt, TaskError
from mote.tasks.reasoning_language.sums import states_sum
from mote.tasks.registry import load_task

Document = dict[str, Any]
Judgment = dict[str, Any]
_NARROWED_BY = ("place_group", "decade", "sensitive", "prompt_language")
_READ_WITH = ("prompt_opens", "markers")


def refusal_grid(**given: Any) -> dict[str, Any]:
    """Return the documents of the grid; ``place_group`` or ``decade`` narrows them."""
    return _dataset("refusal_grid", given)


def sensitive(**given: Any) -> dict[str, Any]:
    """Return the documents of our sensitive questions; ``sensitive`` or ``prompt_language`` narrows them."""
    return _dataset("sensitive", given)


def ccp_sensitive(**given: Any) -> dict[str, Any]:
    """Return the documents of promptfoo's set, which must have been fetched."""
    return _dataset("ccp_sensitive", given)


def reasoning_language(**given: Any) -> dict[str, Any]:
    """Return the documents of the 600 sums; ``prompt_language`` narrows them."""
    return _dataset("reasoning_language", given)


def documents(prompts: Iterable[Prompt], given: Mapping[str, Any]) -> list[Document]:
    """Return the prompts as documents: those whose attributes are as ``given``, with how their answers are to be read.

    lm-eval hands over its metadata too (version, model arguments); what is not about documents is left alone.
    """
    wanted = {name: given[name] for name in _NARROWED_BY if name in given}
    reading = {name: given[name] for name in _READ_WITH if name in given}
    if "markers" in reading:
        Markers.named(reading["markers"])
    found = [
        {"prompt_id": p.id, "question": p.text, **p.attributes, **reading}
        for p in prompts
        if all(p.attributes.get(name) == value for name, value in wanted.items())
    ]
    if not found:
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise TaskError(f"no prompt has {asked}.")
    return found


def _dataset(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    import datasets  # type: ignore[import-untyped]

    return {"test": datasets.Dataset.from_list(documents(load_task(task), given))}


def labels(resps: Sequence[Sequence[str]], docs: Sequence[Document]) -> list[list[Judgment]]:
    """Filter: each generation becomes its label with the evidence."""
    return _judged(resps, docs, lambda doc, label, split: {})


def languages(resps: Sequence[Sequence[str]], docs: Sequence[Document]) -> list[list[Judgment]]:
    """Filter: each generation becomes its label, the languages of reasoning and answer, whether the sum is right."""
    return _judged(resps, docs, _spoken)


def _judged(
    resps: Sequence[Sequence[str]],
    docs: Sequence[Document],
    more: Callable[[Document, Label, ReasoningSplit], Judgment],
) -> list[list[Judgment]]:
    return [[_judgment(raw, doc, more) for raw in some] for some, doc in zip(resps, docs, strict=True)]


def _judgment(raw: str, doc: Document, more: Callable[[Document, Label, ReasoningSplit], Judgment]) -> Judgment:
    opens = bool(getattr(raw, "prompt_opens", doc.get("prompt_opens", False)))
    markers = Markers.named(cast(str, doc.get("markers", "think")))
    finish_reason: str | None = getattr(raw, "finish_reason", None)
    label = label_refusal(str(raw), finish_reason=finish_reason, markers=markers, prompt_opens=opens)
    split = split_reasoning(str(raw), markers, opens)
    evidence = [asdict(each) for each in label.evidence]
    return {"label": label.label, "judge": label.judge, "evidence": evidence, **more(doc, label, split)}


def _spoken(doc: Document, label: Label, split: ReasoningSplit) -> Judgment:
    reasoning, answer = language(split.reasoning), language(split.answer)
    return {
        "reasoning_language": reasoning.name,
        "reasoning_chinese_share": round(reasoning.chinese_share, 4),
        "answer_language": answer.name,
        "answer_chinese_share": round(answer.chinese_share, 4),
        "sum_right": states_sum(split.answer, doc["number_a"], doc["number_b"]),
    }


def rates(doc: Document, results: Sequence[Judgment]) -> dict[str, Any]:
    """Return the label and one 0 or 1 for each label: ``refused``, ``aligned``, ... ``unscored``.

    Where the document says whether it is sensitive, ``refused_sensitive`` or ``refused_harmless`` as well.
    """
    label = results[0]["label"]
    found: dict[str, Any] = {"label": label, **{metric_name(one): int(label == one) for one in LABELS}}
    if "sensitive" in doc:
        found["refused_sensitive" if doc["sensitive"] else "refused_harmless"] = found["refused"]
    return found


def language_rates(doc: Document, results: Sequence[Judgment]) -> dict[str, Any]:
    """Return the rates of the labels, of the languages of reasoning and answer, and of right sums.

    Broken and unscored text has no language, cut-off text none of the answer and no sum: these documents are left out
    of those rates and counted by their label.
    """
    judged = results[0]
    found = rates(doc, results)
    if judged["label"] in (*CLASSES, TRUNCATED):
        found |= {f"reasoning_{one}": int(judged["reasoning_language"] == one) for one in LANGUAGES}
    if judged["label"] in CLASSES:
        found |= {f"answer_{one}": int(judged["answer_language"] == one) for one in LANGUAGES}
        found["answer_as_asked"] = int(judged["answer_language"] in (doc["asked_language"], "none"))
        found["sum_right"] = int(judged["sum_right"])
    return found


def metric_name(label: str) -> str:
    """Return the metric of a label: ``refused`` for ``0-REFUSED``."""
    return label.split("-")[-1].lower()


def share_classed(labels_given: Sequence[str]) -> float:
    """Aggregation of the metric ``label``: the share of answers that have one of the paper's three classes."""
    return sum(label in CLASSES for label in labels_given) / len(labels_given)
