"""The store of a bench: models, their answers and the judgments of these, in one SQLite file; rows are written once.

Everything else in a bench's folder is made from it: FastChat's JSON lines (``export``), tables and figures (``show``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.files import Closing, canonical_json, refuse_links
from mote.harness.secrets import redacted
from mote.harness.store.foreign import BENCH, hold_to_schema, limit_time, refuse_foreign_code
from mote.harness.store.schema import BENCH_TABLES, BENCH_VERSION, bring_bench_forward
from mote.harness.store.schema import CUT_OFF as JUDGE_CUT_OFF
from mote.harness.store.sqlite import UNREADABLE, Transaction, connect, copy_of, lock
from mote.judges.llm.asks import UNREACHED, UNUSABLE, Judgment

STORE_NAME: Final = "mt_bench.sqlite"

ANSWERED, CUT_OFF = "answered", "cut-off"
REASONING_CUT_OFF, NO_ANSWER, TOO_LONG, NO_FIRST, FAILED = (
    "reasoning-cut-off",
    "no-answer",
    "prompt-too-long",
    "no-first-answer",
    "failed",
)
JUDGED: Final = (ANSWERED, CUT_OFF)
"""States of an answer that a judge is shown: whole, or cut off by the budget after the answer had begun."""


class ModelRow(NamedTuple):
    """A model under a profile, and how its answers were drawn."""

    model_id: str
    profile_digest: str
    profile: Mapping[str, Any]
    source: Mapping[str, Any]


class AnswerRow(NamedTuple):
    """One turn's answer, or the reason why there is none."""

    model_id: str
    question_id: int
    category: str
    choice: int
    turn: int
    state: str
    seed: int
    temperature: float
    prompt_opens: bool
    raw: str = ""
    reasoning: str = ""
    answer: str = ""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finish_reason: str | None = None
    receipt: Mapping[str, Any] = {}
    mechanism: tuple[Mapping[str, Any], ...] = ()


class JudgmentKey(NamedTuple):
    """What a judgment is of."""

    judge: str
    mode: str
    model_1: str
    model_2: str
    question_id: int
    choice: int
    turn: int
    game: int
    reference: str


class BenchStore(Closing):
    """A bench's SQLite file, open for writing or (``read_only``) for showing. Use it as a context manager.

    Raises MoteError where there is no bench, where it was made from other questions or by another version, and where
    another process works on it.
    """

    def __init__(self, folder: Path, *, questions: str | None = None, read_only: bool = False) -> None:
        self.folder, self.path = folder, folder / STORE_NAME
        self._lock: IO[bytes] | None = None
        refuse_links(folder)
        if read_only or questions is None:
            if not self.path.is_file():
                raise MoteError(
                    f"{folder} holds no {STORE_NAME}: answer first, with `mote mt-bench answer --out {folder}`."
                )
        else:
            folder.mkdir(parents=True, exist_ok=True)
        if not read_only:
            self._lock = lock(folder / "mt_bench.lock")
        try:
            self._db = connect(self.path, read_only=read_only)
            try:
                self._prepare(questions, read_only)
            except BaseException:
                self._db.close()
                raise
        except UNREADABLE as error:
            self._unlock()
            raise MoteError(f"{self.path} cannot be read as a bench's store: {error}.") from None
        except BaseException:
            self._unlock()
            raise

    def _prepare(self, questions: str | None, read_only: bool) -> None:
        if read_only:
            limit_time(self._db)
        refuse_foreign_code(self._db, self.path, BENCH)
        version = int(self._db.execute("pragma user_version").fetchone()[0])
        if version == 0 and not read_only:
            digest = f"{int(questions or '0', 16):064x}"
            named = f"insert into bench values ('questions', '{digest}');"  # noqa: S608 - a hexadecimal number
            self._db.executescript(f"begin immediate;{BENCH_TABLES}{named}pragma user_version = 1;commit;")
            version = 1
        if version == 1:
            # A reader leaves the file as it is.
            if read_only:
                copy = copy_of(self._db)
                self._db.close()
                self._db = copy
                limit_time(self._db)
            bring_bench_forward(self._db)
        elif version != BENCH_VERSION:
            raise MoteError(f"{self.path} has store version {version}; this mote reads versions 1 to {BENCH_VERSION}.")
        hold_to_schema(self._db, self.path, BENCH, read_only=read_only)
        if questions is not None and self.questions_digest() != questions:
            raise MoteError(f"{self.folder} was answered from other questions; take another folder with --out.")

    def close(self) -> None:
        """Close the file and give back the lock."""
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def questions_digest(self) -> str:
        """Return the digest of the questions that the bench was made from."""
        found = self._db.execute("select value from bench where key = 'questions'").fetchone()
        return "" if found is None else str(found[0])

    def add_model(self, row: ModelRow) -> None:
        """Store a model, or go on with one; raise MoteError where its name has another profile or other sampling."""
        row = row._replace(source=redacted(row.source))
        known = {model.model_id: model for model in self.models()}.get(row.model_id)
        if known is None:
            self._db.execute(
                "insert into models (model_id, position, profile_digest, profile, source)"
                " values (?, (select count(*) from models), ?, ?, ?)",
                (row.model_id, row.profile_digest, canonical_json(dict(row.profile)), canonical_json(dict(row.source))),
            )
            return
        if known.profile_digest != row.profile_digest:
            raise MoteError(f"{self.folder} has answers of '{row.model_id}' under another profile; take another --out.")
        changed = [
            f"{key}: {known.source.get(key)!r} -> {row.source.get(key)!r}"
            for key in sorted({*known.source, *row.source})
            if known.source.get(key) != json.loads(canonical_json(row.source.get(key)))
        ]
        if changed:
            raise MoteError(
                f"{self.folder} has answers of '{row.model_id}' drawn otherwise ({'; '.join(changed)}); take another"
                " --out."
            )

    def models(self) -> list[ModelRow]:
        """Return the models in the order in which they were added."""
        cursor = self._db.execute("select model_id, profile_digest, profile, source from models order by position")
        return [ModelRow(name, digest, json.loads(spec), json.loads(source)) for name, digest, spec, source in cursor]

    def add_answers(self, rows: Iterable[AnswerRow]) -> None:
        """Store answers in one transaction."""
        now = time.time()
        values = [
            (*row[:15], canonical_json(dict(row.receipt)), canonical_json([dict(one) for one in row.mechanism]), now)
            for row in rows
        ]
        names = ", ".join([*AnswerRow._fields, "tstamp"])
        marks = ", ".join("?" * (len(AnswerRow._fields) + 1))
        with Transaction(self._db):
            self._db.executemany(f"insert into answers ({names}) values ({marks})", values)  # noqa: S608

    def answers(self) -> pd.DataFrame:
        """Return all answers, in the order of models, questions, choices and turns."""
        return pd.read_sql(
            "select a.* from answers a join models m using (model_id) order by m.position, question_id, choice, turn",
            self._db,
        )

    def add_judgment(self, key: JudgmentKey, url: str, prompt: str, sha256: str, guarded: bool, one: Judgment) -> None:
        """Store how asking for a judgment ended."""
        values = (
            *key, url, one.model, prompt, sha256, int(guarded), one.messages[-1]["content"] if one.messages else "",
            one.raw, one.reasoning, one.state, one.verdict, one.error, one.finish_reason, one.tries, one.requests,
            one.prompt_tokens, one.completion_tokens, one.seconds, time.time(), one.max_tokens,
        )  # fmt: skip
        columns = (
            ", ".join(JudgmentKey._fields)
            + ", url, model, prompt, prompt_sha256, guarded, user_prompt, raw, reasoning,"
            " state, verdict, error, finish_reason, attempts, requests, prompt_tokens, completion_tokens, seconds,"
            " tstamp, max_tokens"
        )
        marks = ", ".join("?" * len(values))
        self._db.execute(f"insert into judgments ({columns}) values ({marks})", values)  # noqa: S608

    def ended(self, max_tokens: int) -> set[JudgmentKey]:
        """Return what was judged with a reply, usable or not, unless it was cut off at fewer tokens than these."""
        query = (
            f"select {', '.join(JudgmentKey._fields)} from judgments where state <> ?"  # noqa: S608 - ours
            f" and (not ({JUDGE_CUT_OFF}) or coalesce(max_tokens, 0) >= ?)"
        )
        return {JudgmentKey(*row) for row in self._db.execute(query, (UNREACHED, max_tokens))}

    def cut_off(self, judge: str) -> int:
        """Return how many judgments of a judge have no verdict since its reply was cut off."""
        frame = self.judgments()
        return int(
            ((frame["judge"] == judge) & (frame["state"] == UNUSABLE) & (frame["finish_reason"] == "length")).sum()
        )

    def replies(self) -> int:
        """Return how many replies were asked for so far: what a budget counts."""
        return int(self._db.execute("select coalesce(sum(attempts), 0) from judgments").fetchone()[0])

    def judgments(self) -> pd.DataFrame:
        """Return one row a judgment: the reply, or else the last attempt that got none."""
        frame = pd.read_sql("select * from judgments order by state = 'unreached' desc, judgment_id", self._db)
        return frame.drop_duplicates(list(JudgmentKey._fields), keep="last").sort_values("judgment_id")
