"""How the rows of older versions of a run's store come into the tables of version 3 (``schema.MIGRATIONS``).

Tables whose columns are the same are left where they are. The others are renamed to ``old_*``, the tables of version 3
are made, and the rows are copied and keep their numbers. Nothing that a version kept is lost, but answers that a
ranking or pruning had drawn twice: a study's answer under the same profile and seed, the same to the letter, is enough.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import numpy as np

from mote.harness.files import canonical_json
from mote.harness.store.generations import GenerationRow, MapRow, fold, insert_generation, insert_maps, text_id
from mote.harness.store.sqlite import run_script

_CHANGED: Final = (
    *("profiles", "generation_rows", "generations", "labels", "activation_maps", "surprises", "prunings"),
    *("ranking_profiles", "ranking_answer_rows", "ranking_maps", "ranking_surprises"),
)


def from_version_1(db: sqlite3.Connection, tables: str) -> None:
    """Fold the plain rows of ``generations`` and ``labels``."""
    there = _set_aside(db, tables)
    _add_profiles(db)
    positions = dict(db.execute("select name, position from profiles"))
    with closing(db.cursor()) as cursor, closing(db.cursor()) as reader:
        reader.row_factory = sqlite3.Row
        for row in reader.execute("select * from old_generations"):
            given = dict(row)
            number = given.pop("generation_id")
            given |= {name: json.loads(given[name]) for name in ("sampling", "receipt", "mechanism")}
            given["prompt_opens"] = bool(given["prompt_opens"])
            insert_generation(cursor, GenerationRow(**given), positions[given["profile"]], number)
        for number, judge, label, evidence in db.execute("select * from old_labels"):
            cursor.execute(
                "insert into label_rows (generation_id, judge, label, evidence) values (?, ?, ?, ?)",
                (number, judge, label, text_id(cursor, evidence)),
            )
    _add_the_rest(db, there)


def from_version_2(db: sqlite3.Connection, tables: str) -> None:
    """Bring what rankings and prunings had in tables of their own to what the run has of the same kind."""
    there = _set_aside(db, tables)
    _add_profiles(db)
    db.execute("insert into generation_rows select * from old_generation_rows")
    if "ranking_answer_rows" in there:
        _add_ranking_answers(db)
    _add_the_rest(db, there)


def _set_aside(db: sqlite3.Connection, tables: str) -> set[str]:
    """Rename the tables that have changed, make those of version 3, and return which there were."""
    made = db.execute("select type, name from sqlite_master").fetchall()
    for kind, name in made:
        if kind in ("view", "trigger"):
            # A view takes its triggers along.
            db.execute(f"drop {kind} if exists {name}")
    there = {name for kind, name in made if kind == "table" and name in _CHANGED}
    for name in there:
        db.execute(f"alter table {name} rename to old_{name}")
    run_script(db, tables)
    return there


def _add_profiles(db: sqlite3.Connection) -> None:
    db.execute(
        "insert into profiles (position, purpose, name, digest, kind, part, seed, spec)"
        " select position, 'study', name, digest, kind, part, seed, spec from old_profiles"
    )


def _add_the_rest(db: sqlite3.Connection, there: set[str]) -> None:
    """Copy maps, surprise and prunings, which versions 1 and 2 had alike, and drop what was set aside."""
    db.execute(
        "insert into activation_maps (generation_id, role, quantity, layers, experts, counted, total, activations)"
        " select generation_id, role, 'choices', layers, experts, counted, total, counts from old_activation_maps"
    )
    if "ranking_maps" in there:
        _add_ranking_maps(db)
    if "surprises" in there:
        # Digests of 32 bytes, and those of texts are the first 16 of the same.
        db.create_function("half", 1, lambda digest: bytes.fromhex(digest)[:16], deterministic=True)
        columns = "insert into surprise_rows (prompt, raw, tokens, surprise, lowest) select p.position, t.text_id,"
        db.execute(
            f"{columns} s.tokens, s.surprise, s.lowest from old_surprises s join prompts p using (prompt_id)"
            " join texts t on t.digest = half(s.text_sha256)"
        )
    if "ranking_surprises" in there:
        # The study's own measurement of a text stands, where there are two.
        db.execute(
            "insert or ignore into surprise_rows (prompt, raw, tokens, surprise, lowest)"
            " select prompt, raw, tokens, surprise, lowest from old_ranking_surprises"
        )
    if "prunings" in there:
        db.execute(
            "insert into prunings (pruning_id, digest, settings, rounds)"
            " select pruning_id, digest, settings, rounds from old_prunings"
        )
    for name in there:
        db.execute(f"drop table old_{name}")


def _add_ranking_answers(db: sqlite3.Connection) -> None:
    """Store each profile of a ranking or pruning beside the study's, and its answers.

    Version 2 kept of their mechanism check the sums over all edits: each edit has them, under names that say so.
    """
    seed = db.execute("select seed from profiles where kind = 'baseline'").fetchone()[0]
    own: dict[str, list[int]] = {}
    for digest, position in db.execute("select digest, position from profiles"):
        own.setdefault(digest, []).append(position)
    with closing(db.cursor()) as cursor:
        for digest, text in db.execute("select digest, spec from old_ranking_profiles").fetchall():
            spec = json.loads(text)
            purpose = "pruning" if spec["name"] == "pruned" else "ranking"
            cursor.execute(
                "insert into profiles (purpose, name, digest, kind, part, seed, spec)"
                " values (?, ?, ?, 'suppress', 'asked', ?, ?)",
                (purpose, spec["name"], digest, seed, text),
            )
            about = {
                "digest": digest,
                "profile": cursor.lastrowid,
                "own": canonical_json(own.get(digest, [])),
                "receipt": text_id(cursor, canonical_json({"digest": digest})),
                "edits": text_id(cursor, fold(spec["edits"])[0]),
            }
            cursor.execute(
                "insert into generation_rows (prompt, profile, seed, sampling, prompt_opens, raw, prompt_tokens,"
                " generated_tokens, finish_reason, receipt, tokens_edited, edits, counts)"
                " select r.prompt, :profile, r.seed, r.sampling, r.prompt_opens, r.raw, r.prompt_tokens,"
                " r.generated_tokens, r.finish_reason, :receipt, r.tokens_edited, :edits,"
                " json_object('selected_in_all', r.selected, 'weight_after_in_all', r.weight_after)"
                " from old_ranking_answer_rows r where r.profile_digest = :digest and not exists ("
                "  select 1 from generation_rows g where g.prompt = r.prompt"
                "  and g.profile in (select value from json_each(:own)) and g.seed = r.seed and g.raw = r.raw)",
                about,
            )


def _add_ranking_maps(db: sqlite3.Connection) -> None:
    """Give the baseline's answers the router weights, and the choices of the last token, of their prompts."""
    rows: Sequence[tuple[int, int, int, int, bytes, bytes]] = db.execute(
        "select g.generation_id, m.layers, m.experts, a.total, m.weights, m.last from old_ranking_maps m"
        " join generation_rows g on g.prompt = m.prompt join profiles f on f.position = g.profile"
        " join activation_maps a on a.generation_id = g.generation_id and a.role = 'prompt'"
        " where f.kind = 'baseline' order by g.generation_id"
    ).fetchall()
    with closing(db.cursor()) as cursor:
        for number, layers, experts, tokens, weights, last in rows:
            shape = (layers, experts)
            maps = [
                MapRow("prompt", np.frombuffer(weights, "<f4").reshape(shape), tokens, tokens, "weights"),
                MapRow("prompt_last", np.frombuffer(last, "<i4").reshape(shape), 1, 1),
            ]
            insert_maps(cursor, number, maps)
