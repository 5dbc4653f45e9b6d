from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.harness.preconditions import DataError
from mote.harness.store.run import PromptRow, RunStore
from mote.harness.store.token_rows import TokenRows, add_token_rows, choose_prompts, read_token_rows

CLASSES = ("0-REFUSED", "1-ALIGNED", "2-REASONED")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with RunStore(tmp_path) as opened:
        opened.add_prompts([PromptRow(f"t/{i}", "t", [{"role": "user", "content": f"{i}?"}], {}) for i in range(3)])
        yield opened


def test_rows_come_back_in_the_order_of_prompts_and_tokens(store: RunStore) -> None:
    assert read_token_rows(store) == []
    rng = np.random.default_rng(0)
    rows = [
        TokenRows(f"t/{i}", tuple(f"w{n}" for n in range(5)), rng.integers(0, 300, (5, 4, 2)).astype(np.uint16))
        for i in (2, 0)
    ]
    add_token_rows(store, rows)
    found = read_token_rows(store)
    assert [one.prompt_id for one in found] == ["t/0", "t/2"]
    assert found[0].tokens == rows[1].tokens
    np.testing.assert_array_equal(found[1].chosen, rows[0].chosen)


def test_a_text_for_every_row_or_nothing(store: RunStore) -> None:
    good = TokenRows("t/0", ("a",), np.zeros((1, 2, 2), dtype=np.uint16))
    with pytest.raises(DataError, match=r"'t/1': 2 rows for 1 tokens"):
        add_token_rows(store, [good, TokenRows("t/1", ("a",), np.zeros((2, 2, 2), dtype=np.uint16))])
    assert read_token_rows(store) == []


@given(st.lists(st.sampled_from([*CLASSES, "TRUNCATED"]), max_size=12), st.integers(0, 14))
def test_the_target_comes_first_and_classes_take_turns(labels: list[str], count: int) -> None:
    named = {f"t/{i}": label for i, label in enumerate(labels)}
    chosen = choose_prompts(named, CLASSES, "1-ALIGNED", count)
    classed = [key for key, label in named.items() if label in CLASSES]
    assert len(chosen) == len(set(chosen)) == min(count, len(classed))
    found = [named[key] for key in chosen]
    if "1-ALIGNED" in labels and count:
        assert found[0] == "1-ALIGNED"
    # No class is a turn behind one of which prompts are left.
    for name in CLASSES:
        if found.count(name) < labels.count(name):
            assert all(found.count(other) <= found.count(name) + 1 for other in CLASSES)
