"""Which openings of a scan have to be scored: those that hold the alternatives' probability of a prompt.

The margin of a prompt's own opening is taken against all alternatives together (``causal.margins``). After a given
prompt most of them are next to impossible, and a pass for each would tell the same. Those that hold nearly all of the
untouched probability are scored; the others keep the log-probability that they have untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from scipy import special

from mote.harness.preconditions import DataError

MASS: Final = 0.99
"""The share of the alternatives' untouched probability that the scored ones hold at least."""


def telling_openings(untouched: pd.DataFrame, openings: int, mass: float = MASS) -> dict[str, list[int]]:
    """Return for each prompt the openings to score: its own (0) and the likeliest alternatives, in their order.

    `untouched` has the columns prompt_id, opening and logprob. A prompt of which not all `openings` are there is left
    out. Raises `DataError` for a `mass` that is no share.
    """
    if not 0 < mass <= 1:
        raise DataError(f"A share of the probability lies above 0 and up to 1, not {mass:g}.")
    wide = untouched.pivot(index="prompt_id", columns="opening", values="logprob").reindex(columns=range(openings))
    found = {}
    for prompt, row in wide.dropna().iterrows():
        others = row.to_numpy(dtype=np.float64)[1:]
        shares = np.exp(others - special.logsumexp(others))
        best = np.argsort(-shares, kind="stable")
        enough = int(np.searchsorted(np.cumsum(shares[best]), mass - 1e-12)) + 1
        found[str(prompt)] = [0, *sorted(int(at) + 1 for at in best[:enough])]
    return found


def with_untouched(
    scores: pd.DataFrame,
    untouched: pd.DataFrame,
    telling: Mapping[str, Sequence[int]],
    keys: Sequence[str],
    openings: int,
) -> pd.DataFrame:
    """Return the scores of edited passes with the untouched log-probability for each opening that was not to be scored.

    `keys` are the columns that say which edit a pass had. Rows of an edit and prompt are added whether or not all of
    the telling openings are there yet, so that what is missing stays missing.
    """
    plain = untouched[["prompt_id", "opening", "logprob"]]
    quiet = pd.DataFrame(
        [(prompt, at) for prompt, said in telling.items() for at in range(openings) if at not in said],
        columns=["prompt_id", "opening"],
    ).merge(plain, on=["prompt_id", "opening"])
    edits = scores[[*keys, "prompt_id"]].drop_duplicates()
    added = edits.merge(quiet, on="prompt_id")
    known = scores[[*keys, "prompt_id", "opening"]]
    new = added.merge(known, on=[*keys, "prompt_id", "opening"], how="left", indicator=True)
    new = new[new["_merge"] == "left_only"].drop(columns="_merge")
    return pd.concat([scores, new], ignore_index=True) if len(new) else scores.reset_index(drop=True)
