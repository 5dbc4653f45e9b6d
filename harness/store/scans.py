"""The causal scan's tables in a run's store: what was scanned under which settings, and every log-probability.

One row a forward pass, written once; passes under a mask of several experts have a table of their own. A scan is known
by the digest of its settings; started again with the same ones it goes on, with other ones it is another scan beside
the first. The list of experts is no part of the settings: a scan of the fifty likeliest experts is the beginning of the
scan of all. Margins and effects are not stored: they follow from the rows (``causal.py``), by whatever definition.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import pandas as pd

from mote.harness.files import canonical_json, digest_of
from mote.harness.science.causal import Measurement
from mote.harness.science.controls import Expert
from mote.harness.science.openings import telling_openings, with_untouched
from mote.harness.store.generations import text_id
from mote.harness.store.run import RunStore
from mote.harness.store.sqlite import Transaction


class ScoreRow(NamedTuple):
    """One forward pass: the log-probability of each token of an opening, and what the patch says of it."""

    measurement: Measurement
    tokens: Sequence[tuple[str, float]]
    selected: int
    profile_digest: str
    tokens_edited: int


class MaskMeasurement(NamedTuple):
    """One forward pass under a mask: a prompt with one opening, and the sorted experts that were edited together."""

    prompt_id: str
    experts: tuple[Expert, ...]
    opening: int


class MaskRow(NamedTuple):
    """A pass under a mask: the log-probability of the whole opening, and what the patch says of it."""

    measurement: MaskMeasurement
    logprob: float
    selected: int
    profile_digest: str
    tokens_edited: int


class StoredScan(NamedTuple):
    """A scan that is in the store, by its settings."""

    scan_id: int
    settings: Mapping[str, Any]
    passes: int

    @property
    def openings(self) -> int:
        """How many openings each prompt has, its own among them."""
        return 1 + len(self.settings["alternatives"])

    @property
    def title(self) -> str:
        """The scan in a few words."""
        factor = f" by {self.settings['factor']:g}" if self.settings["action"] == "scale" else ""
        masks = ", masks" if self.by_masks else ", halving" if self.by_halving else ""
        shape = f"{len(self.settings['prompts'])} prompts, {self.openings} openings"
        return f"{self.settings['action']}{factor}{masks}, {shape}"

    @property
    def by_masks(self) -> bool:
        """Whether it is a group scan."""
        return "share" in self.settings

    @property
    def by_halving(self) -> bool:
        """Whether it is a scan by halving."""
        return self.telling_only and not self.by_masks

    @property
    def telling_only(self) -> bool:
        """Whether it scores the telling openings of a prompt alone, as scans by masks and by halving do."""
        return "mass" in self.settings


class Scans:
    """The tables ``scans`` and ``scan_scores`` of a run."""

    def __init__(self, store: RunStore) -> None:
        self._db = store.db

    def begin(self, settings: Mapping[str, Any], session: Mapping[str, Any]) -> int:
        """Return the number of the scan with these settings, which is stored if it is new."""
        digest = digest_of(dict(settings))
        with Transaction(self._db):
            self._db.execute(
                "insert or ignore into scans (digest, settings, session) values (?, ?, ?)",
                (digest, canonical_json(dict(settings)), canonical_json(dict(session))),
            )
        return int(self._db.execute("select scan_id from scans where digest = ?", (digest,)).fetchone()[0])

    def add(self, scan_id: int, rows: Iterable[ScoreRow]) -> None:
        """Store forward passes, all or none."""
        with closing(self._db.cursor()) as cursor, Transaction(self._db):
            for row in rows:
                _insert(cursor, scan_id, row)

    def done(self, scan_id: int) -> set[Measurement]:
        """Return the forward passes that a scan has."""
        cursor = self._db.execute(
            "select prompt_id, layer, expert, opening from scan_scores where scan_id = ?", (scan_id,)
        )
        return {
            Measurement(prompt_id, None if layer is None else (layer, expert), opening)
            for prompt_id, layer, expert, opening in cursor
        }

    def scans(self) -> list[StoredScan]:
        """Return the scans of the run, in the order in which they were first started; none if it was never scanned."""
        cursor = self._db.execute(
            "select scan_id, settings, (select count(*) from scan_score_rows s where s.scan_id = scans.scan_id)"
            " + (select count(*) from mask_score_rows m where m.scan_id = scans.scan_id)"
            " from scans order by scan_id"
        )
        return [StoredScan(scan_id, json.loads(settings), passes) for scan_id, settings, passes in cursor]

    def scores(self, scan_id: int) -> pd.DataFrame:
        """Return the forward passes of a scan, as ``causal.scan_margins`` takes them, with the column ``selected``.

        Where telling openings alone are scored, others have the untouched log-probability, and null ``selected``.
        """
        query = "select layer, expert, prompt_id, opening, logprob, selected from scan_scores where scan_id = ?"
        scores = pd.read_sql(query, self._db, params=(scan_id,))
        return self._filled(scan_id, scores, ["layer", "expert"])

    def made(self, scan_id: int) -> int:
        """Return how many rows of single experts are forward passes; the others are the untouched pass's again.

        Such an expert was chosen by no token, and its row has the untouched pass's receipt.
        """
        query = (
            "select count(*) from scan_score_rows where scan_id = ? and (layer is null or profile_digest not in"
            " (select profile_digest from scan_score_rows where scan_id = ? and layer is null))"
        )
        return int(self._db.execute(query, (scan_id, scan_id)).fetchone()[0])

    def own_scores(self, scan_id: int) -> pd.DataFrame:
        """Return the passes with a prompt's own opening: layer, expert (null: untouched), prompt_id, logprob (nats)."""
        query = "select layer, expert, prompt_id, logprob from scan_scores where scan_id = ? and opening = 0"
        return pd.read_sql(query, self._db, params=(scan_id,))

    def add_masks(self, scan_id: int, rows: Iterable[MaskRow]) -> None:
        """Store forward passes under masks, all or none."""
        with closing(self._db.cursor()) as cursor, Transaction(self._db):
            for row in rows:
                _insert_mask(cursor, scan_id, row)

    def done_masks(self, scan_id: int) -> set[MaskMeasurement]:
        """Return the forward passes under masks that a scan has."""
        cursor = self._db.execute("select prompt_id, experts, opening from mask_scores where scan_id = ?", (scan_id,))
        return {MaskMeasurement(prompt, _experts(text), opening) for prompt, text, opening in cursor}

    def mask_scores(self, scan_id: int) -> pd.DataFrame:
        """Return the passes under masks: experts (JSON, sorted), prompt_id, opening, logprob; filled as ``scores``."""
        query = "select experts, prompt_id, opening, logprob from mask_scores where scan_id = ?"
        return self._filled(scan_id, pd.read_sql(query, self._db, params=(scan_id,)), ["experts"])

    def telling(self, scan_id: int) -> dict[str, list[int]]:
        """Return for each prompt the openings that tell; prompts that are not measured untouched are left out."""
        scan = self._scan(scan_id)
        return telling_openings(self._untouched(scan_id), scan.openings, float(scan.settings["mass"]))

    def _scan(self, scan_id: int) -> StoredScan:
        row = self._db.execute("select settings from scans where scan_id = ?", (scan_id,)).fetchone()
        return StoredScan(scan_id, json.loads(row[0]), 0)

    def _untouched(self, scan_id: int) -> pd.DataFrame:
        query = "select prompt_id, opening, logprob from scan_scores where scan_id = ? and layer is null"
        return pd.read_sql(query, self._db, params=(scan_id,))

    def _filled(self, scan_id: int, scores: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
        scan = self._scan(scan_id)
        if not scan.telling_only:
            return scores
        edited = scores[scores[keys[0]].notna()]
        filled = with_untouched(edited, self._untouched(scan_id), self.telling(scan_id), keys, scan.openings)
        return pd.concat([scores[scores[keys[0]].isna()], filled], ignore_index=True)


def mask_text(experts: Iterable[Expert]) -> str:
    """Return the text by which a mask of experts is known in the store."""
    return canonical_json([list(expert) for expert in sorted(experts)])


def _experts(text: str) -> tuple[Expert, ...]:
    return tuple((int(layer), int(expert)) for layer, expert in json.loads(text))


def _insert_mask(cursor: sqlite3.Cursor, scan_id: int, row: MaskRow) -> None:
    cursor.execute(
        "insert into mask_score_rows (scan_id, prompt, experts, opening, logprob, selected, profile_digest,"
        " tokens_edited) values (?, (select position from prompts where prompt_id = ?), ?, ?, ?, ?, ?, ?)",
        (
            scan_id,
            row.measurement.prompt_id,
            text_id(cursor, mask_text(row.measurement.experts)),
            row.measurement.opening,
            float(f"{row.logprob:.7g}"),
            row.selected,
            text_id(cursor, row.profile_digest),
            row.tokens_edited,
        ),
    )


def _insert(cursor: sqlite3.Cursor, scan_id: int, row: ScoreRow) -> None:
    layer, expert = row.measurement.expert or (None, None)
    # Six digits are more than a float32 model has; their sum is kept whole.
    logprobs = [float(f"{logprob:.6g}") for _, logprob in row.tokens]
    cursor.execute(
        "insert into scan_score_rows (scan_id, prompt, layer, expert, opening, logprob, tokens, logprobs, selected,"
        " profile_digest, tokens_edited)"
        " values (?, (select position from prompts where prompt_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            scan_id,
            row.measurement.prompt_id,
            layer,
            expert,
            row.measurement.opening,
            sum(logprob for _, logprob in row.tokens),
            text_id(cursor, canonical_json([text for text, _ in row.tokens])),
            canonical_json(logprobs),
            row.selected,
            text_id(cursor, row.profile_digest),
            row.tokens_edited,
        ),
    )
