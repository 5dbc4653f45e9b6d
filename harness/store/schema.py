"""The tables of a run's store and of a bench's, their versions, and how an older store is brought forward.

Every ``create`` of the harness stands here. A study asks the same prompts under many profiles, so its rows repeat
themselves: answers that are the same to the letter, sampling parameters, receipts, the list of edits with each answer's
counts. Each distinct text is kept once in ``texts``; the tables named ``*_rows`` hold numbers that point at it, and
whoever reads a run reads the view of the same rows::

    pandas.read_sql("select * from generations", sqlite3.connect("run.sqlite"))

``generation_rows`` holds every answer, whoever asked for it: the study, a comparison of rankings, a pruning or a
search, which the profile's ``purpose`` says. The view ``answers`` shows them all, ``generations`` those of the study.

A further version is a further ``Migration`` of plain SQL in ``MIGRATIONS``: ``RUN_TABLES`` stay those of version 3.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, NamedTuple

from mote.harness.store import older
from mote.harness.store.newer import VERSION_4, VERSION_6, VERSION_7, VERSION_8
from mote.harness.store.sqlite import Transaction, run_script

_SHOWN: Final = """
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
    join texts receipt on receipt.text_id = g.receipt
    join texts edits on edits.text_id = g.edits
"""

RUN_TABLES: Final = f"""
create table if not exists prompts (
    prompt_id text primary key,
    position integer not null unique,
    task text not null,
    messages text not null,            -- JSON: [{{"role": ..., "content": ...}}]
    attributes text not null           -- JSON object
) without rowid;
create table if not exists splits (
    prompt_id text primary key references prompts,
    part text not null check (part in ('select', 'measure'))
) without rowid;
create table if not exists profiles (
    position integer primary key,      -- in the order in which they were stored
    purpose text not null check (purpose in ('study', 'ranking', 'pruning')),   -- who asked for it first
    name text not null,                -- of the study's profiles each has its own
    digest text not null,
    kind text not null,                -- baseline, retest, suppress, stimulate, scale, third, random-uniform, ...
    part text not null check (part in ('all', 'measure', 'asked')),   -- asked: of prompts that a command names
    seed integer not null,
    spec text not null                 -- JSON: the profile
);
create unique index if not exists profiles_of_the_study on profiles (name) where purpose = 'study';
create unique index if not exists profiles_beside_the_study on profiles (digest, seed) where purpose <> 'study';
create table if not exists texts (
    text_id integer primary key,
    digest blob not null unique,       -- the first 16 bytes of the text's sha256
    text text not null
);
create table if not exists generation_rows (
    generation_id integer primary key,
    prompt integer not null references prompts (position),
    profile integer not null references profiles (position),
    seed integer not null,             -- of this request: drawn from the profile's seed and the prompt
    sampling integer not null references texts,   -- JSON
    prompt_opens integer not null,     -- 1 where the chat template had opened the reasoning before the text
    raw integer not null references texts,
    reasoning integer references texts,           -- null, as is answer, where version 2 kept the raw text alone
    answer integer references texts,
    prompt_tokens integer not null,
    generated_tokens integer not null,
    finish_reason text,
    receipt integer not null references texts,    -- JSON: digest applied, version of the patch
    tokens_edited integer,             -- of the receipt
    edits integer not null references texts,      -- JSON: the profile's edits, in order
    counts text not null,              -- JSON: what the patch counted; a list where edits differ
    unique (prompt, profile)
);
create view if not exists generations as select {_SHOWN}
    join texts reasoning on reasoning.text_id = g.reasoning
    join texts answer on answer.text_id = g.answer
where f.purpose = 'study';
create view if not exists answers as select f.purpose, {_SHOWN}
    left join texts reasoning on reasoning.text_id = g.reasoning
    left join texts answer on answer.text_id = g.answer;
create table if not exists label_rows (
    generation_id integer not null references generation_rows,
    judge text not null,
    label text not null,
    evidence integer not null references texts,   -- JSON: [{{"rule": ..., "span": ..., "start": ..., "end": ...}}]
    primary key (generation_id, judge)
) without rowid;
create view if not exists labels as select l.generation_id, l.judge, l.label, t.text as evidence
from label_rows l join texts t on t.text_id = l.evidence;
-- mote writes a label once; a person at the file may mend or take back what a judge said.
create trigger if not exists labels_mended instead of update of label on labels begin
    update label_rows set label = new.label where generation_id = old.generation_id and judge = old.judge;
end;
create trigger if not exists labels_taken_back instead of delete on labels begin
    delete from label_rows where generation_id = old.generation_id and judge = old.judge;
end;
create table if not exists activation_maps (
    generation_id integer not null references generation_rows,
    role text not null,                -- prompt, prompt_last, reasoning, answer
    quantity text not null check (quantity in ('choices', 'weights')),   -- tokens that chose; router weights, summed
    layers integer not null,
    experts integer not null,
    counted integer not null,          -- tokens in the map
    total integer not null,            -- tokens of that role in all
    activations blob not null,         -- choices int32, weights float32, little-endian, [layers, experts]
    primary key (generation_id, role, quantity)
) without rowid;
create table if not exists surprise_rows (
    prompt integer not null references prompts (position),   -- the context: the text follows this prompt
    raw integer not null references texts,
    tokens integer not null,           -- of the text, tokenised apart from its prompt
    surprise real,                     -- nats, of the k-th least likely token; null where the text did not fit
    lowest text not null,              -- JSON: [[nats, start, end], ...], those k tokens and their places in raw
    primary key (prompt, raw)
) without rowid;
create view if not exists surprises as select p.prompt_id, t.text as raw, s.tokens, s.surprise, s.lowest
from surprise_rows s join prompts p on p.position = s.prompt join texts t on t.text_id = s.raw;
create table if not exists token_rows (
    prompt_id text not null references prompts,
    position integer not null,         -- of the token in the rendered prompt, from 0
    token text not null,               -- its text; of a token that is no whole character the replacement character
    layers integer not null,
    top_k integer not null,
    experts blob not null,             -- uint16, little-endian, [layers, top_k], in the router's order
    primary key (prompt_id, position)
) without rowid;
create table if not exists scans (
    scan_id integer primary key,
    digest text not null unique,       -- sha256 of the settings
    settings text not null,            -- JSON: action, factor, target, judge, prompts with their openings, alternatives
    session text not null              -- JSON: when it was first started, with which versions, on what
);
create table if not exists scan_score_rows (
    scan_id integer not null references scans,
    prompt integer not null references prompts (position),
    layer integer,                     -- the edited expert; null where the model was untouched
    expert integer,
    opening integer not null,          -- 0 the prompt's own, 1 and up the alternatives
    logprob real not null,             -- natural log, of the whole opening
    tokens integer not null references texts,     -- JSON: the opening's tokens, as texts
    logprobs text not null,            -- JSON: of each token
    selected integer not null,         -- tokens of prompt and opening for which the edited expert was chosen
    profile_digest integer not null references texts,  -- of the receipt
    tokens_edited integer not null     -- of the receipt
);
create unique index if not exists scan_scores_once
    on scan_score_rows (scan_id, prompt, coalesce(layer, -1), coalesce(expert, -1), opening);
create view if not exists scan_scores as select
    s.scan_id, p.prompt_id, s.layer, s.expert, s.opening, s.logprob, tokens.text as tokens, s.logprobs, s.selected,
    digest.text as profile_digest, s.tokens_edited
from scan_score_rows s
    join prompts p on p.position = s.prompt
    join texts tokens on tokens.text_id = s.tokens
    join texts digest on digest.text_id = s.profile_digest;
create table if not exists prunings (
    pruning_id integer primary key,    -- a row each time that one is asked for, unless the last row is the same
    digest text not null,              -- sha256 of the settings
    settings text not null,            -- JSON: experts, keep, target, judge
    rounds text not null               -- JSON: one entry a round (COLUMNS), written when it is done
);
create table if not exists judgments (
    judgment_id integer primary key,
    generation_id integer not null,
    judge text not null,               -- as in labels
    kind text not null,                -- refusal, language, side-by-side
    part integer not null,             -- 1; for side-by-side 1 and 2, the two orders
    text_sha256 text not null,         -- of what was put into the prompt
    url text not null,
    model text not null,               -- as the server names it
    prompt text not null,
    prompt_sha256 text not null,       -- of the prompt's file
    structured integer not null,       -- 1 where the reply was asked for as JSON
    messages text not null,            -- JSON: as sent, the last time
    raw text not null,                 -- the reply, the last one
    reasoning text not null,           -- the judge's own, where its server delivers it apart
    state text not null check (state in ('scored', 'unusable', 'unreached')),
    verdict text,                      -- null unless scored
    error text not null,
    finish_reason text,
    attempts integer not null,         -- replies asked for
    requests integer not null,         -- sent in all, repetitions after 429, 5xx and time-outs included
    prompt_tokens integer not null,
    completion_tokens integer not null,
    seconds real not null
);
create unique index if not exists judgments_once on judgments (judge, part, text_sha256) where state <> 'unreached';
create table if not exists samples (
    sample text not null,
    item text not null,                -- the code on the sheet; answers of the same text share one
    generation_id integer not null,
    kind text not null,                -- refusal, language
    stratum text not null,             -- a judge's label / kind of profile
    stratum_size integer not null,
    primary key (sample, generation_id)
) without rowid;
"""  # noqa: S608 - ours

CUT_OFF: Final = "state = 'unusable' and finish_reason is 'length'"
"""The condition, in either table of judgments, of a judgment that waits for more tokens than ``max_tokens``."""

_WITH_BUDGET: Final = f"""
-- What the judge might write, null where that was not noted.
alter table judgments add column max_tokens integer;
drop index judgments_once;
create unique index judgments_once on judgments ({{key}}) where state <> 'unreached' and not ({CUT_OFF});
"""
# What was labelled UNSCORED since its reply was cut off is to wait for its label, as others do.
_JUDGED_AGAIN: Final = f"""{_WITH_BUDGET.format(key="judge, part, text_sha256")}
delete from label_rows where label = 'UNSCORED' and exists (
    select 1 from judgments j join texts t on t.text_id = label_rows.evidence
    where j.judge = label_rows.judge and j.{CUT_OFF.replace("finish", "j.finish")}
        and instr(t.text, '(judgment ' || j.judgment_id || ')')
);
"""  # noqa: S608 - ours

BENCH_VERSION: Final = 2
BENCH_TABLES: Final = """
create table bench (key text primary key, value text not null) without rowid;
create table models (
    model_id text primary key,
    position integer not null unique,
    profile_digest text not null,
    profile text not null,             -- JSON: the profile
    source text not null               -- JSON: model, engine options, sampling, choices, seed
) without rowid;
create table answers (
    answer_id integer primary key,
    model_id text not null references models,
    question_id integer not null,
    category text not null,
    choice integer not null,
    turn integer not null check (turn in (1, 2)),
    state text not null,               -- answered, cut-off, reasoning-cut-off, no-answer, prompt-too-long, ...
    seed integer not null,
    temperature real not null,
    prompt_opens integer not null,
    raw text not null,
    reasoning text not null,
    answer text not null,
    prompt_tokens integer not null,
    generated_tokens integer not null,
    finish_reason text,
    receipt text not null,             -- JSON; {} where nothing was generated
    mechanism text not null,           -- JSON
    tstamp real not null,
    unique (model_id, question_id, choice, turn)
);
create table judgments (
    judgment_id integer primary key,
    judge text not null,
    mode text not null check (mode in ('single', 'pair')),
    model_1 text not null,
    model_2 text not null,             -- '' for a single rating
    question_id integer not null,
    choice integer not null,
    turn integer not null,
    game integer not null,             -- 1; for a pair 2 has the answers in the other order
    reference text not null,           -- none, gpt-4, corrected
    url text not null,
    model text not null,               -- the judge's, as its server names it
    prompt text not null,              -- the name of FastChat's prompt
    prompt_sha256 text not null,
    guarded integer not null,          -- 1 where an answer held the form's own marks, and the form got a code
    user_prompt text not null,         -- as sent, the last time
    raw text not null,
    reasoning text not null,
    state text not null check (state in ('scored', 'unusable', 'unreached')),
    verdict text,
    error text not null,
    finish_reason text,
    attempts integer not null,
    requests integer not null,
    prompt_tokens integer not null,
    completion_tokens integer not null,
    seconds real not null,
    tstamp real not null
);
create unique index judgments_once
    on judgments (judge, mode, model_1, model_2, question_id, choice, turn, game, reference)
    where state <> 'unreached';
"""
"""Those of version 1; ``bring_bench_forward`` makes the others."""
_BENCH_FORWARD: Final = _WITH_BUDGET.format(
    key="judge, mode, model_1, model_2, question_id, choice, turn, game, reference"
)


class Migration(NamedTuple):
    """A version of the run's store: why it was made, and what brings a store of the version before to it.

    ``forward`` is SQL, or a function of the connection and ``RUN_TABLES`` where rows have to be made anew; both run
    within one transaction, with foreign keys unchecked until its end.
    """

    version: int
    why: str
    forward: str | Callable[[sqlite3.Connection, str], None]


MIGRATIONS: Final = (
    Migration(
        2,
        "Version 1 repeated each text, sampling and list of edits in every row: texts are kept once, behind views.",
        older.from_version_1,
    ),
    Migration(
        3,
        "Version 2 kept answers, maps and surprise of rankings and prunings in tables of their own: a table each.",
        older.from_version_2,
    ),
    Migration(
        4,
        "Random sets answer the target prompts alone; exact probabilities and divergences have tables.",
        VERSION_4,
    ),
    Migration(
        5,
        "Version 4 kept a judge's reply that was cut off as its last word: it is asked for again with a larger budget.",
        _JUDGED_AGAIN,
    ),
    Migration(
        6, "Version 5 knew scans of one expert at a time alone: passes under masks of many have a table.", VERSION_6
    ),
    Migration(7, "Version 6 did not say of which child a generation is: a sweep has many.", VERSION_7),
    Migration(8, "Version 7 knew no search: its passes have a table, and its answers' profiles a purpose.", VERSION_8),
)
BASE_VERSION: Final = 3
"""The version that ``RUN_TABLES`` make; ``older.from_version_1`` leads to it directly, without a version 2 between."""
SCHEMA_VERSION: Final = MIGRATIONS[-1].version


def create_tables(db: sqlite3.Connection) -> None:
    """Make the tables of this version in an empty database, all in one transaction."""
    db.execute("pragma legacy_alter_table = on")
    try:
        with Transaction(db):
            run_script(db, RUN_TABLES)
            _migrate(db, BASE_VERSION)
    finally:
        db.execute("pragma legacy_alter_table = off")


def bring_forward(db: sqlite3.Connection, version: int) -> None:
    """Make an older version's store one of this version, in one transaction; rows keep their numbers.

    Raises sqlite3.DatabaseError where the store's rows do not hold together; the store is then as it was.
    """
    # Pragmas of the connection: within a transaction SQLite would ignore them.
    db.execute("pragma foreign_keys = off")
    db.execute("pragma legacy_alter_table = on")
    try:
        with Transaction(db):
            _migrate(db, version)
            broken = db.execute("pragma foreign_key_check").fetchone()
            if broken is not None:
                raise sqlite3.IntegrityError(f"a row of {broken[0]} names one of {broken[2]} that is not there")
    finally:
        db.execute("pragma legacy_alter_table = off")
        db.execute("pragma foreign_keys = on")


def _migrate(db: sqlite3.Connection, version: int) -> None:
    for step in MIGRATIONS:
        if step.version <= version:
            continue
        if isinstance(step.forward, str):
            run_script(db, step.forward)
        else:
            step.forward(db, RUN_TABLES)
            version = max(step.version, BASE_VERSION)
    db.execute(f"pragma user_version = {SCHEMA_VERSION}")


def bring_bench_forward(db: sqlite3.Connection) -> None:
    """Make a bench's store of version 1 one of this version, in one transaction."""
    with Transaction(db):
        run_script(db, _BENCH_FORWARD)
        db.execute(f"pragma user_version = {BENCH_VERSION}")


def names_of_tables() -> list[str]:
    """Return the names of all tables and views of a run's store, in the order in which they are made."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        create_tables(db)
        found = db.execute("select name from sqlite_master where type in ('table', 'view') order by rowid")
        return [str(name) for (name,) in found]
    finally:
        db.close()
