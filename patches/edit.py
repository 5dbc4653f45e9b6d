"""The edit: what a profile does to the routing of a batch of tokens. Arithmetic alone, no engine.

The rule, for one token of one layer whose router chose k experts with weights w (sum S, largest m):

1. A suppressed expert's weight becomes 0, a scaled one's is multiplied, a stimulated one's becomes m.
2. Each stimulated expert that the router did not choose takes a slot, with weight m. Slots are given up in this order:
   those of suppressed experts first, then by the router's weight, lowest first; among equal weights the highest expert
   number first. A stimulated expert never gives up its slot. If there are more stimulated experts than slots, the
   lowest expert numbers enter.
3. The weights are rescaled so that their sum is S again; if all are 0 they stay 0.

Ties are broken by expert number, not by slot, because engines order the k slots differently. Keeping S makes the rule
right for routers that renormalise (S is the routed scaling factor), for those that do not (S is what the router gave),
and wherever a scaling factor is applied. No replacement enters for a suppressed expert. The rule is the paper's
(its sections on suppression and on stimulation of distinctive experts); scaling is ours, with 0 as suppression.

Sums are taken in float64, so that a very small factor cannot overflow the rescaling, and rounded to float32 once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STIMULATE = float("inf")
"""The gain that means "as much as the token's largest weight" instead of a factor."""


class Edited(NamedTuple):
    """Routing after the edit, and what happened on the way.

    Attributes:
        weights: float32 [rows, k].
        ids: [rows, k], as given but for the slots that stimulated experts took.
        displaced: bool [rows, k], slots whose expert was replaced by a stimulated one; None where there can be none.
        entered: (row, column of ``wanted``, slot) of every stimulated expert that took a slot; None as above.
    """

    weights: NDArray[np.float32]
    ids: NDArray[Any]
    displaced: NDArray[np.bool_] | None = None
    entered: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]] | None = None


def edit_rows(
    weights: NDArray[np.floating[Any]],
    ids: NDArray[Any],
    gain: NDArray[np.float32],
    wanted: NDArray[np.int32] | None = None,
) -> Edited:
    """Apply the rule above to rows of one layer.

    Args:
        weights: float32 [rows, k], the router's weights, not negative; or the same numbers in float64.
        ids: integers [rows, k], the experts they belong to, distinct within a row.
        gain: float32 [rows, k]: 0 suppresses the slot's expert, 1 leaves it, ``STIMULATE`` stimulates it, any other
            number scales it.
        wanted: int32 [rows, n], the experts that are stimulated in each row, ascending, padded with -1 at the end.
            None where no row stimulates.
    """
    before = np.asarray(weights, np.float64)
    total = np.add.reduce(before, axis=1)
    if wanted is None:
        after, displaced, entered = before * gain, None, None
    else:
        largest = before.max(axis=1)
        stimulated = np.isinf(gain)
        after = np.where(stimulated, largest[:, None], before * np.where(stimulated, 1.0, gain))
        ids = ids.copy()
        row, column, slot = entered = _entrances(before, ids, gain, wanted)
        displaced = np.zeros(ids.shape, np.bool_)
        displaced[row, slot] = True
        ids[row, slot] = wanted[row, column]
        after[row, slot] = largest[row]
    remaining = np.add.reduce(after, axis=1)
    some = remaining > 0
    scale = total / remaining if some.all() else np.divide(total, remaining, out=np.ones_like(total), where=some)
    after *= scale[:, None]
    return Edited(after.astype(np.float32), ids, displaced, entered)


def _entrances(
    weights: NDArray[np.float64], ids: NDArray[Any], gain: NDArray[np.float32], wanted: NDArray[np.int32]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return (row, column of ``wanted``, slot) for each absent stimulated expert that finds a slot."""
    absent = (wanted >= 0) & ~(ids[:, :, None] == wanted[:, None, :]).any(axis=1)
    # 0: suppressed, goes first; 1: any other; 2: stimulated, stays.
    group = np.where(gain == 0, 0, np.where(np.isinf(gain), 2, 1))
    order = np.lexsort((-ids.astype(np.int64), weights, group), axis=1)
    rank = np.cumsum(absent, axis=1) - 1
    enters = absent & (rank < (group < 2).sum(axis=1)[:, None])
    row, column = np.nonzero(enters)
    return row, column, order[row, rank[row, column]]
