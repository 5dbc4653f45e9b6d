"""The SQL of versions after 3, each of which brings a store of the version before to it (``schema.MIGRATIONS``)."""

from __future__ import annotations

from typing import Final

# SQLite can't alter a check: the table is made anew. Views that name it must not be looked at meanwhile, which
# legacy_alter_table is for; foreign keys go by the table's name and stay.
_WIDER_PROFILES: Final = """
create table wider_profiles (
    position integer primary key,
    purpose text not null check (purpose in ({purposes})),
    name text not null,
    digest text not null,
    kind text not null,
    part text not null check (part in ('all', 'measure', 'asked', 'targets')),  -- targets: random sets, by the economy
    seed integer not null,
    spec text not null
);
insert into wider_profiles select position, purpose, name, digest, kind, part, seed, spec from profiles;
drop table profiles;
alter table wider_profiles rename to profiles;
create unique index profiles_of_the_study on profiles (name) where purpose = 'study';
create unique index profiles_beside_the_study on profiles (digest, seed) where purpose <> 'study';
"""
VERSION_4: Final = (
    _WIDER_PROFILES.format(purposes="'study', 'ranking', 'pruning'")
    + """
create table chance_rows (
    prompt integer not null references prompts (position),
    profile integer not null references profiles (position),
    stems text not null,               -- sha256 of the openings whose chances were summed
    chance real,                       -- of an answer that begins with one of them, at the sampling temperature; null
                                       -- where it could not be bounded, or prompt and opening do not fit the context
    primary key (prompt, profile, stems)
) without rowid;
create view chances as select p.prompt_id, f.name as profile, c.stems, c.chance
from chance_rows c join prompts p on p.position = c.prompt join profiles f on f.position = c.profile
where c.chance is not null;
create table divergence_rows (
    prompt integer not null references prompts (position),
    profile integer not null references profiles (position),
    tokens integer not null,           -- of the baseline's own answer; 0 where it does not fit the context again
    logp_untouched real not null,      -- nats, of the whole answer under the sampling temperature
    logp_tuned real not null,          -- the same under the profile
    primary key (prompt, profile)
) without rowid;
create view divergences as select p.prompt_id, f.name as profile, d.tokens, d.logp_untouched, d.logp_tuned
from divergence_rows d join prompts p on p.position = d.prompt join profiles f on f.position = d.profile
where d.tokens > 0;
"""
)

VERSION_6: Final = """
create table mask_score_rows (
    scan_id integer not null references scans,
    prompt integer not null references prompts (position),
    experts integer not null references texts,    -- JSON: [[layer, expert], ...] edited together, sorted
    opening integer not null,          -- 0 the prompt's own, 1 and up the alternatives
    logprob real not null,             -- natural log, of the whole opening
    selected integer not null,         -- how often the edited experts were chosen by tokens of prompt and opening
    profile_digest integer not null references texts,  -- of the receipt
    tokens_edited integer not null,    -- of the receipt
    primary key (scan_id, prompt, experts, opening)
) without rowid;
create view mask_scores as select
    m.scan_id, p.prompt_id, experts.text as experts, m.opening, m.logprob, m.selected, digest.text as profile_digest,
    m.tokens_edited
from mask_score_rows m
    join prompts p on p.position = m.prompt
    join texts experts on experts.text_id = m.experts
    join texts digest on digest.text_id = m.profile_digest;
"""

VERSION_7: Final = """
create table children (
    child text primary key,            -- a profile of this child is named CHILD, or CHILD/PROFILE
    subset text not null,              -- what is taken over; '' of the base itself
    proportion real not null,
    weights text not null,             -- sha256 over the names and sha256 of the child's files of weights
    recipe text not null               -- JSON: what it was merged from, and how
) without rowid;
create table part_tokens (
    generation_id integer primary key references generation_rows,
    reasoning integer not null,        -- tokens, each part tokenised apart
    answer integer not null
);
create view child_generations as select c.child, c.subset, c.proportion, c.weights,
    substr(g.profile, length(c.child) + 2) as under, g.*
from generations g join children c
    on c.child = substr(g.profile, 1, instr(g.profile || '/', '/') - 1);
"""

VERSION_8: Final = (
    _WIDER_PROFILES.format(purposes="'study', 'ranking', 'pruning', 'search'")
    + """
create table search_pass_rows (
    prompt integer not null references prompts (position),
    profile_digest integer not null references texts,  -- of the receipt
    length integer not null,           -- tokens of the baseline's own answer that were to be scored, at most
    edits integer not null references texts,      -- JSON: the profile's edits, in order
    tokens integer not null,           -- that were scored
    logprob real not null,             -- nats, of all of them, at temperature 1
    tokens_edited integer not null,    -- of the receipt
    primary key (prompt, profile_digest, length)
) without rowid;
create view search_passes as select p.prompt_id, digest.text as profile_digest, s.length, edits.text as edits,
    s.tokens, s.logprob, s.tokens_edited
from search_pass_rows s
    join prompts p on p.position = s.prompt
    join texts digest on digest.text_id = s.profile_digest
    join texts edits on edits.text_id = s.edits;
"""
)
