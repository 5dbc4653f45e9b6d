"""The tables of a run's store: every text once, and views that show the rows whole.

A study asks the same prompts under many profiles, so its rows repeat themselves: answers that are the same to the
letter, sampling parameters, receipts, the list of edits with each answer's counts. Each distinct text is kept once in
``texts``; ``generation_rows`` and ``label_rows`` hold numbers that point at it. Whoever reads a run reads the views
``generations`` and ``labels``, which have the same columns as the tables of version 1 had::

    pandas.read_sql("select * from generations", sqlite3.connect("run.sqlite"))
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mote.harness.files import canonical_json

SCHEMA_VERSION: Final = 2
READABLE: Final = (1, 2)
"""Version 1 had ``generations`` and ``labels`` as plain tables: it is read and judged, but no generation is added."""

SCHEMA: Final = """
create table prompts (
    prompt_id text primary key,
    position integer not null unique,
    task text not null,
    messages text not null,            -- JSON: [{"role": ..., "content": ...}]
    attributes text not null           -- JSON object
) without rowid;
create table splits (
    prompt_id text primary key references prompts,
    part text not null check (part in ('select', 'measure'))
) without rowid;
create table profiles (
    name text primary key,
    position integer not null unique,
    digest text not null,
    kind text not null,                -- baseline, retest, suppress, stimulate, scale, third, random-uniform, ...
    part text not null check (part in ('all', 'measure')),
    seed integer not null,
    spec text not null                 -- JSON: the profile
) without rowid;
create table texts (
    text_id integer primary key,
    digest blob not null unique,       -- the first 16 bytes of the text's sha256
    text text not null
);
create table generation_rows (
    generation_id integer primary key,
    prompt integer not null references prompts (position),
    profile integer not null references profiles (position),
    seed integer not null,             -- of this request: drawn from the profile's seed and the prompt
    sampling integer not null references texts,   -- JSON
    prompt_opens integer not null,     -- 1 where the chat template had opened the reasoning before the text
    raw integer not null references texts,
    reasoning integer not null references texts,
    answer integer not null references texts,
    prompt_tokens integer not null,
    generated_tokens integer not null,
    finish_reason text,
    receipt integer not null references texts,    -- JSON: digest applied, version of the patch
    tokens_edited integer,             -- of the receipt
    edits integer not null references texts,      -- JSON: the profile's edits, in order
    counts text not null,              -- JSON: what the patch counted; a list where edits differ
    unique (prompt, profile)
);
create view generations as select
    g.generation_id, p.prompt_id, f.name as profile, f.digest as profile_digest, g.seed, sampling.text as sampling,
    g.prompt_opens, raw.text as raw, reasoning.text as reasoning, answer.text as answer, g.prompt_tokens,
    g.generated_tokens, g.finish_reason,
    iif(g.tokens_edited is null, receipt.text, json_set(receipt.text, '$.tokens_edited', g.tokens_edited)) as receipt,
    coalesce((                         -- JSON: per edited expert, how often selected and its weight after
        select json_group_array(json_patch(edit.value, (
            select json_group_object(
                count.key, iif(count.type = 'array', json_extract(count.value, '$[' || edit.key || ']'), count.value)
            ) from json_each(g.counts) count
        ))) from json_each(edits.text) edit
    ), '[]') as mechanism
from generation_rows g
    join prompts p on p.position = g.prompt
    join profiles f on f.position = g.profile
    join texts sampling on sampling.text_id = g.sampling
    join texts raw on raw.text_id = g.raw
    join texts reasoning on reasoning.text_id = g.reasoning
    join texts answer on answer.text_id = g.answer
    join texts receipt on receipt.text_id = g.receipt
    join texts edits on edits.text_id = g.edits;
create table label_rows (
    generation_id integer not null references generation_rows,
    judge text not null,
    label text not null,
    evidence integer not null references texts,   -- JSON: [{"rule": ..., "span": ..., "start": ..., "end": ...}]
    primary key (generation_id, judge)
) without rowid;
create view labels as select l.generation_id, l.judge, l.label, t.text as evidence
from label_rows l join texts t on t.text_id = l.evidence;
-- mote writes a label once; a person at the file may mend or take back what a judge said.
create trigger labels_mended instead of update of label on labels begin
    update label_rows set label = new.label where generation_id = old.generation_id and judge = old.judge;
end;
create trigger labels_taken_back instead of delete on labels begin
    delete from label_rows where generation_id = old.generation_id and judge = old.judge;
end;
create table activation_maps (
    generation_id integer not null references generation_rows,
    role text not null,                -- prompt, reasoning, answer
    layers integer not null,
    experts integer not null,
    counted integer not null,          -- tokens in the map
    total integer not null,            -- tokens of that role in all
    counts blob not null,              -- int32, little-endian, [layers, experts]
    primary key (generation_id, role)
) without rowid;
"""

_FIXED: Final = ("layer", "expert", "action", "factor")
"""What of a mechanism check belongs to the edit; all else was counted."""


def text_id(cursor: sqlite3.Cursor, text: str) -> int:
    """Return the id of a text, stored now if it was not."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
    found = cursor.execute("select text_id from texts where digest = ?", (digest,)).fetchone()
    if found is None:
        cursor.execute("insert into texts (digest, text) values (?, ?)", (digest, text))
        return int(cursor.lastrowid or 0)
    return int(found[0])


def fold(mechanism: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return a mechanism check as (edits, counts): the edits in order, and each count as a number or a list of them.

    A count that some edits lack is null there. ``unfold`` and the view give back what was folded.
    """
    edits = [{name: entry[name] for name in _FIXED if name in entry} for entry in mechanism]
    names = dict.fromkeys(name for entry in mechanism for name in entry if name not in _FIXED)
    counts: dict[str, Any] = {}
    for name in names:
        values = [entry.get(name) for entry in mechanism]
        same = all(value == values[0] and type(value) is type(values[0]) for value in values)
        counts[name] = values[0] if same else values
    return canonical_json(edits), canonical_json(counts)


def unfold(edits: str, counts: str) -> list[dict[str, Any]]:
    """Return the mechanism check that ``fold`` was given."""
    found = [dict(edit) for edit in json.loads(edits)]
    for name, values in json.loads(counts).items():
        each = values if isinstance(values, list) else [values] * len(found)
        for entry, value in zip(found, each, strict=True):
            if value is not None:
                entry[name] = value
    return found
