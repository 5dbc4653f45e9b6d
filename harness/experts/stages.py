"""What scans in stages share: a stage asks for what the store lacks of it, and what is asked next follows from that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import pandas as pd

from mote.harness.errors import MoteError
from mote.harness.experts.rankings import causal_effects
from mote.harness.experts.scan import Known, OpenScan, ScanOptions, measure_singles
from mote.harness.science.causal import Measurement
from mote.harness.science.controls import Expert
from mote.harness.store.scans import StoredScan

TOP: Final = 20
"""How many of the leading experts are shown, and compared with a full scan's."""


class EnoughError(Exception):
    """The passes of this start are used up."""


def check_stages(method: str, options: ScanOptions, budget: float) -> None:
    """Raise MoteError for a choice of experts, which such scans make themselves, and for a budget that can't be."""
    if options.top is not None:
        raise MoteError(f"--method {method} scans all experts: leave --experts out, and say the cost with --budget.")
    if not 0 < budget <= 1:
        raise MoteError(f"--budget {budget:g}: a share of the full scan's passes lies above 0 and up to 1.")


class Stages:
    """The stages of one scan. ``max_passes`` bounds the passes of this start; None: no bound."""

    def __init__(self, opened: OpenScan, max_passes: int | None) -> None:
        self.opened = opened
        self.session, self.scans, self.scan, self.halves, self.scan_id = opened
        self.prompts = list(self.scan.plan.prompts)
        self.all = [(layer, expert) for layer in self.halves.layers for expert in range(self.halves.experts)]
        self.known: Known = {}
        self._left = max_passes

    @cached_property
    def telling(self) -> dict[str, list[int]]:
        """The openings to score after each prompt; known, and asked for, once the untouched model was measured."""
        return self.scans.telling(self.scan_id)

    def singles(
        self, wanted: Iterable[tuple[Expert | None, Sequence[str]]], what: str, openings: Sequence[int] | None = None
    ) -> None:
        """Measure experts alone on prompts, with the telling openings or with these. Raises EnoughError."""
        telling: Mapping[str, Sequence[int]] = (
            self.telling if openings is None else dict.fromkeys(self.prompts, openings)
        )
        done = self.scans.done(self.scan_id)
        asked = dict.fromkeys(
            Measurement(key, expert, at) for expert, keys in wanted for key in keys for at in telling[key]
        )
        some, all_of_them = self.allowed([each for each in asked if each not in done])
        measure_singles(self.opened, some, what, self.known)
        if not all_of_them:
            raise EnoughError

    def allowed(self, missing: list[Any]) -> tuple[list[Any], bool]:
        """Return what of the missing passes this start may make, and whether that is all of them."""
        if self._left is None:
            return missing, True
        some = missing[: self._left]
        self._left -= len(some)
        return some, len(some) == len(missing)

    def alone(self) -> pd.DataFrame:
        """Return what experts do alone, by the passes that are stored: prompts, effect, low, high (95%), p_alone."""
        found = causal_effects(self.scans, StoredScan(self.scan_id, self.scan.settings, 0))
        return found[["layer", "expert", "prompts", "effect", "low", "high", "p"]].rename(columns={"p": "p_alone"})

    def shared(self, table: pd.DataFrame) -> int | None:
        """Return how many of a full scan's leading experts lead here too; None where there is no such scan."""
        same = [name for name in self.scan.settings if name not in ("share", "mass")]
        for other in self.scans.scans():
            if not other.telling_only and all(other.settings[name] == self.scan.settings[name] for name in same):
                full = causal_effects(self.scans, other)
                if int(full["complete"].sum()) == len(self.all):
                    return len(_top(full) & _top(table))
        return None


def _top(table: pd.DataFrame) -> set[Expert]:
    best = table.head(TOP)
    return set(zip(best["layer"].astype(int), best["expert"].astype(int), strict=True))
