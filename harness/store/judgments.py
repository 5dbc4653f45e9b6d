"""The table of raw judgments in a run's store: what a judge was asked, what it wrote, and what came of it.

Labels say what a judge found; this table says how, so that every label can be looked up and no reply is lost or paid
for twice. One row an ended judgment, written once; one whose reply was cut off at ``max_tokens`` may have a further
row, of a start that allowed more. A text is judged once: generations with the same text to judge
(many, where an edit changed nothing) share the row, whose ``generation_id`` is the first of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mote.harness.files import digest_of
from mote.harness.store.run import RunStore
from mote.harness.store.schema import CUT_OFF
from mote.judges.llm.asks import UNREACHED, Judgment

_COLUMNS = (
    "generation_id, judge, kind, part, text_sha256, url, model, prompt, prompt_sha256, structured, messages, raw,"
    " reasoning, state, verdict, error, finish_reason, attempts, requests, prompt_tokens, completion_tokens, seconds,"
    " max_tokens"
)


class Ended(NamedTuple):
    """A stored judgment that needs no asking again: its id, and its verdict or None where it was unusable.

    One that was ``cut`` off makes no label: it waits for a start that allows the judge more tokens.
    """

    judgment_id: int
    verdict: str | None
    cut: bool = False


class Judge(NamedTuple):
    """A judge as its rows name it."""

    name: str
    kind: str
    url: str
    prompt: str
    prompt_sha256: str


class Judgments:
    """The table ``judgments`` of a run."""

    def __init__(self, store: RunStore) -> None:
        self._db = store.db

    def ended(self, judge: str, max_tokens: int) -> dict[tuple[str, int], Ended]:
        """Return (text digest, part) -> judgment, for all that a judge need not be asked again.

        What was cut off at ``max_tokens`` or more is among them; what was cut off at fewer is not.
        """
        cut = f"({CUT_OFF})"
        cursor = self._db.execute(
            f"select text_sha256, part, judgment_id, verdict, {cut} from judgments"  # noqa: S608 - ours
            f" where judge = ? and state <> ? and (not {cut} or coalesce(max_tokens, 0) >= ?)"
            # Of two rows of one text the later stands: a reply to a judge that was allowed more.
            f" order by {cut} desc, judgment_id",
            (judge, UNREACHED, max_tokens),
        )
        return {(text, part): Ended(number, verdict, bool(cut)) for text, part, number, verdict, cut in cursor}

    def replies(self, judge: str) -> int:
        """Return how many replies a judge was asked for so far: what the budget of a study counts."""
        found = self._db.execute("select coalesce(sum(attempts), 0) from judgments where judge = ?", (judge,))
        return int(found.fetchone()[0])

    def other_prompt(self, judge: Judge) -> str | None:
        """Return the prompt under which the judge's name was used before, if it is not this judge's."""
        found = self._db.execute(
            "select prompt || ', ' || substr(prompt_sha256, 1, 8) || ', ' || kind from judgments"
            " where judge = ? and (prompt_sha256 <> ? or kind <> ?) limit 1",
            (judge.name, judge.prompt_sha256, judge.kind),
        ).fetchone()
        return None if found is None else str(found[0])

    def add(self, generation_id: int, judge: Judge, part: int, text_sha256: str, one: Judgment) -> Ended:
        """Store a judgment."""
        values = (
            generation_id,
            judge.name,
            judge.kind,
            part,
            text_sha256,
            judge.url,
            one.model,
            judge.prompt,
            judge.prompt_sha256,
            int(one.as_json),
            json.dumps(one.messages, ensure_ascii=False),
            one.raw,
            one.reasoning,
            one.state,
            one.verdict,
            one.error,
            one.finish_reason,
            one.tries,
            one.requests,
            one.prompt_tokens,
            one.completion_tokens,
            one.seconds,
            one.max_tokens,
        )
        marks = ", ".join("?" * len(values))
        cursor = self._db.execute(f"insert into judgments ({_COLUMNS}) values ({marks})", values)  # noqa: S608
        return Ended(int(cursor.lastrowid or 0), one.verdict, one.cut_off)


def text_digest(values: Mapping[str, Any]) -> str:
    """Return the sha256 of what is put into a prompt: the identity of a text to judge."""
    return digest_of(dict(values))
