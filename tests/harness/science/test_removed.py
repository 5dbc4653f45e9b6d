from __future__ import annotations

import numpy as np
import pytest

from mote.harness.preconditions import DataError
from mote.harness.science.removed import removed, target_mass


def test_by_hand() -> None:
    maps = np.array([[[2, 0, 4]], [[0, 1, 5]], [[9, 9, 0]]])
    assert target_mass(maps, ["a", "a", "b"], "a").tolist() == [[1.0, 0.5, 4.5]]
    weights = maps / 10
    found = removed({"tuned": [(7, 0), (7, 2)], "none": []}, maps[:2], [3, 3], [7], weights[:2])
    assert found.iloc[0].tolist() == ["tuned", 2, 11 / 2, pytest.approx(11 / 6), pytest.approx(1.1 / 6)]
    assert found.iloc[1].tolist() == ["none", 0, 0, 0, 0]
    assert removed({"tuned": [(7, 0)]}, maps, [3, 3, 9], [7])["weight_token"].isna().all()


def test_names_what_does_not_fit() -> None:
    maps = np.ones((2, 1, 3), dtype=int)
    with pytest.raises(DataError, match=r"'x' holds \(8, 0\)"):
        removed({"x": [(8, 0)]}, maps, [1, 1], [7])
    with pytest.raises(DataError, match="weights have the shape"):
        removed({}, maps, [1, 1], [7], maps[:1])
    with pytest.raises(DataError, match="No prompt has the label 'c'"):
        target_mass(maps, ["a", "b"], "c")
