"""One side of a comparison: answers, whatever tool made them, in one shape."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from mote.judges import MARKERS, Markers

LABELLINGS: Final = ("label", "reasoning_language", "answer_language")
"""What an answer can be labelled by: its class, or the language of its reasoning or of its answer."""

ROW: Final[Mapping[str, Any]] = {
    "key": "",
    "prompt_id": "",
    "doc_hash": "",
    "prompt": "",
    "question": "",
    "raw": "",
    "label": None,
    "seed": -1,
    "sampling": "",
    "finish_reason": None,
    "opens": False,
    "unit": "",
}
"""The columns of ``Answers.rows``, and what stands where nothing is known."""

SCORE: Final = ("key", "metric", "filter", "value")

_FINISHED: Final = {
    **dict.fromkeys(("stop", "end_turn", "eos", "eos_token", "stop_sequence", "complete", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_output_tokens"), "length"),
}


@dataclass(frozen=True)
class Answers:
    """One side of a comparison.

    ``rows`` has one row an answer, with the columns of ``ROW``: key (what it is paired by), prompt_id ("" where there
    is none), doc_hash and prompt (hashes of the document and of what was rendered, by lm_eval), question, raw
    (reasoning and answer with the markers around the reasoning), label (None where nothing labels), seed (-1 where none
    is known), sampling (canonical JSON), finish_reason (None where unknown), opens (the prompt ended inside the
    reasoning) and unit (what is independent of the others, where several answers share one question). ``scores`` has
    one row a document, metric and filter: key, metric, filter, value.

    ``digests`` are the profile's by the receipts, empty without; ``model`` is the digest of the model's files.
    ``sham_of`` is the digest of the profile that this one is a sham of: random experts matched to it; "" elsewhere.
    ``judge`` gave the labels; ``own_judge`` is the one that a run goes by, ``text_judge`` that of its label set which
    reads the text alone, ``labels`` the name of the set; all "" elsewhere. ``keyed`` says what ``key`` is: "id" or
    "question". ``notes`` are what a reader of the comparison has to know of this side, one sentence each.
    """

    name: str
    source: str
    rows: pd.DataFrame
    scores: pd.DataFrame
    task: str = ""
    profile: str = ""
    digests: frozenset[str] = frozenset()
    model: str = ""
    sham_of: str = ""
    judge: str = ""
    own_judge: str = ""
    text_judge: str = ""
    labels: str = ""
    keyed: str = "id"
    markers: Markers = MARKERS["think"]
    notes: tuple[str, ...] = ()


def rows_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a frame with the columns of ``ROW``, filled where a row does not name one."""
    return pd.DataFrame([{**ROW, **row} for row in rows], columns=list(ROW)).astype({"label": object})


def scores_of(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Return scores as a frame: key, metric, filter, value."""
    return pd.DataFrame(list(rows), columns=list(SCORE))


def finish_of(reason: Any) -> str | None:
    """Return how an answer ended in vLLM's words (stop, length), another tool's own word, or None where unknown."""
    if reason is None or reason != reason or not str(reason).strip():
        return None
    return _FINISHED.get(str(reason).strip().casefold(), str(reason).strip())


def raw_of(answer: str, reasoning: str, markers: Markers) -> str:
    """Return answer and reasoning as one text with the markers between them, as the model would have written it."""
    if not reasoning.strip():
        return answer
    if markers.harmony:
        return f"<|channel|>analysis<|message|>{reasoning}<|end|><|start|>assistant<|channel|>final<|message|>{answer}"
    return f"{markers.open}{reasoning}{markers.close}{answer}"


def sampling_of(given: Mapping[str, Any]) -> str:
    """Return the parts of sampling that both a run and a task have, in one spelling."""
    temperature = float(given.get("temperature", 0.0) or 0.0)
    if given.get("do_sample") is False:
        temperature = 0.0
    budget = next((given[name] for name in ("max_gen_toks", "max_new_tokens", "max_tokens") if given.get(name)), None)
    found = {"temperature": temperature, "top_p": float(given.get("top_p", 1.0) or 1.0), "max_tokens": budget}
    template = {"template": given["template"]} if given.get("template") else {}
    return json.dumps({**found, **template}, sort_keys=True)
