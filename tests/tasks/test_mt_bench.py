"""MT-Bench's loader on the real files where they are at hand, on files of the same shape elsewhere; the corrections."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mote.tasks import TaskError, data, load_task, mt_bench
from mote.tasks.data import RemoteFile

REAL = Path(os.environ.get("MOTE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mt_bench"
needs_real = pytest.mark.skipif(
    not (REAL / "question.jsonl").is_file(), reason=f"FastChat's MT-Bench data is not in {REAL} (see MOTE_TEST_DATA)"
)


@needs_real
def test_the_real_files_give_80_questions_30_references_8_judge_prompts() -> None:
    questions = mt_bench.questions(REAL)
    assert [q.id for q in questions] == list(range(81, 161))
    assert set(Counter(q.category for q in questions).values()) == {10}
    assert set(mt_bench.references("gpt-4", REAL)) == set(range(101, 131))
    assert len(mt_bench.judge_prompts(REAL)) == 8
    prompts = mt_bench.prompts(REAL)
    assert prompts[0].id == "mt_bench/writing/81"
    assert prompts[0].attributes["second_turn"] == questions[0].turns[1]


@needs_real
def test_corrected_references_replace_the_thirteen_wrong_ones_only() -> None:
    original, corrected = mt_bench.references("gpt-4", REAL), mt_bench.references("corrected", REAL)
    assert original.keys() == corrected.keys()
    changed = {number for number in original if original[number] != corrected[number]}
    assert changed == set(mt_bench.WRONG_REFERENCES)


@needs_real
def test_the_cached_files_are_the_pinned_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOTE_DATA", str(tmp_path))
    for file in mt_bench.FILES:
        assert file.state(mt_bench.folder()) == "missing"
        data.write_whole(mt_bench.folder() / file.name, (REAL / file.name).read_bytes())
        assert file.state(mt_bench.folder()) == "cached"
    assert mt_bench.fetch() == tmp_path / "mt_bench"
    assert len(load_task("mt_bench")) == 80


def test_missing_and_changed_files_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOTE_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        TaskError, match=r"question\.jsonl is missing\. Run `mote data --fetch mt_bench`, or download https://raw\."
    ):
        load_task("mt_bench")
    with pytest.raises(TaskError, match="HF_HUB_OFFLINE forbids the network"):
        mt_bench.fetch()
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench" / "question.jsonl").write_text("{}")
    assert mt_bench.QUESTIONS.state(mt_bench.folder()) == "changed"
    with pytest.raises(TaskError, match="is pinned"):
        load_task("mt_bench")


def test_a_set_of_the_same_shape_is_read_and_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Our own 80 questions, one of them with a line separator inside, which is no end of a row."""
    rows = [
        {"question_id": n, "category": "math", "turns": [f"First \u2028 {n}?", f"Second {n}?"]} for n in range(81, 161)
    ]
    for count in (80, 79):
        content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows[:count]).encode()
        file = RemoteFile("question.jsonl", "https://example.org/q", hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(mt_bench, "QUESTIONS", file)
        (tmp_path / "question.jsonl").write_bytes(content)
        if count == 80:
            assert mt_bench.questions(tmp_path)[79].turns == ("First \u2028 160?", "Second 160?")
        else:
            with pytest.raises(TaskError, match="it has 79 questions"):
                mt_bench.questions(tmp_path)


def test_fetching_checks_what_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "MOTE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    source = tmp_path / "source.txt"
    source.write_bytes(b"right")
    file = RemoteFile("file.txt", source.as_uri(), hashlib.sha256(b"right").hexdigest())
    cache = tmp_path / "cache"
    assert file.fetch(cache).read_bytes() == b"right"
    source.write_bytes(b"wrong")
    assert file.fetch(cache).read_bytes() == b"right", "a cached file is not fetched again"
    (cache / "file.txt").unlink()
    with pytest.raises(TaskError, match="is pinned"):
        file.fetch(cache)
    source.unlink()
    with pytest.raises(TaskError, match=r"cannot be reached .* put it at"):
        file.fetch(cache)
    assert not (cache / "file.txt").exists()


def test_an_unknown_reference_set_is_named() -> None:
    with pytest.raises(TaskError, match="'gpt4' is unknown"):
        mt_bench.references("gpt4")  # type: ignore[arg-type]


CORRECTIONS = mt_bench.corrections()


def code(number: int, turn: int) -> dict[str, Any]:
    """The names that the Python code of a corrected reference defines: our own text, run to see that it is right."""
    found = re.search(r"```python\n(.*?)```", CORRECTIONS[number].turns[turn], re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found[1], names)  # noqa: S102 - our own corrections.yaml
    return names


def test_all_thirteen_are_corrected_with_both_turns_and_a_reason() -> None:
    assert set(CORRECTIONS) == set(mt_bench.WRONG_REFERENCES)
    assert all(len(c.turns) == 2 and all(c.turns) and c.why for c in CORRECTIONS.values())


def test_105_the_parking_puzzle_has_the_one_solution_that_is_given() -> None:
    people, colours = ("Alice", "Bert", "Cheryl", "David", "Enid"), ("yellow", "green", "purple", "red", "blue")
    solutions = [
        (who, cars)
        for cars in itertools.permutations(colours)
        for who in itertools.permutations(people)
        if cars[0] == "red"
        and abs(cars.index("blue") - cars.index("red")) == abs(cars.index("blue") - cars.index("green")) == 1
        and cars[4] == "purple"
        and cars[3] == "yellow"
        and abs(who.index("Alice") - who.index("David")) == 1
        and cars[who.index("Enid")] == "green"
        and abs(who.index("Bert") - who.index("Cheryl")) == abs(who.index("Bert") - who.index("Enid")) == 1
        and who[4] == "David"
    ]
    assert solutions == [(("Cheryl", "Bert", "Enid", "Alice", "David"), ("red", "blue", "green", "yellow", "purple"))]
    assert CORRECTIONS[105].turns[0].startswith("The secretary is Alice.")
    assert CORRECTIONS[105].turns[1].endswith("purple, yellow, green, blue, red.")


def test_the_numbers_of_the_mathematical_ones() -> None:
    a, b, c = (0, 0), (-1, 1), (3, 3)
    area = abs(a[0] * (b[1] - c[1]) + b[0] * (c[1] - a[1]) + c[0] * (a[1] - b[1])) / 2
    assert area == 3
    assert "area is 3." in CORRECTIONS[111].turns[0]
    centre = ((b[0] + c[0]) / 2, (b[1] + c[1]) / 2)
    assert {(x - centre[0]) ** 2 + (y - centre[1]) ** 2 for x, y in (a, b, c)} == {5.0}
    assert "5*pi" in CORRECTIONS[111].turns[1]
    rolls = [x + y for x in range(1, 7) for y in range(1, 7)]
    assert sum(total >= 3 for total in rolls) == 35
    assert "35/36" in CORRECTIONS[114].turns[0]
    assert all(total % 2 == 0 or total >= 3 for total in rolls)
    for x in (2, complex(-1, 3**0.5 / 2), complex(-1, -(3**0.5) / 2)):
        assert abs(4 * x**3 - 9 * x - 14) < 1e-9


def test_124_the_function_is_broken_as_stated_and_the_mended_one_is_right() -> None:
    longest: Callable[[str, str], int] = code(124, 1)["longest_common_subsequence"]
    assert (longest("AGGTAB", "GXTXAYB"), longest("", "x"), longest("abc", "abc")) == (4, 0, 3)
    assert "TypeError" in CORRECTIONS[124].turns[1]


def test_125_the_highest_common_ancestor_is_the_root() -> None:
    binary = code(125, 0)
    node = binary["TreeNode"]
    leaf, other = node(6), node(4)
    root = node(3, node(5, leaf, other), node(1))
    assert binary["highest_common_ancestor"](root, leaf, other) is root
    assert binary["highest_common_ancestor"](root, leaf, node(6)) is None
    general = code(125, 1)
    node = general["TreeNode"]
    leaves = [node(5), node(6), node(7)]
    root = node(1, [node(2, leaves[:2]), node(3, leaves[2:])])
    assert general["highest_common_ancestor"](root, leaves[0], leaves[1]) is root


@pytest.mark.parametrize("turn", [0, 1])
def test_126_the_median_is_that_of_the_merged_arrays(turn: int) -> None:
    median = code(126, turn)["median_of_two_sorted"]
    values = [[], [1], [2, 2], [1, 5, 9], [0, 3, 3, 8], [-4, 10, 11, 12, 13]]
    for a, b in itertools.product(values, values):
        if a or b:
            assert median(a, b) == statistics.median(a + b)
    with pytest.raises(ValueError, match="empty"):
        median([], [])


def test_128_counts_full_trees() -> None:
    binary, ternary = code(128, 0)["full_binary_trees"], code(128, 1)["full_ternary_trees"]
    assert [binary(n) for n in range(10)] == [0, 1, 0, 1, 0, 2, 0, 5, 0, 14]
    assert [ternary(n) for n in range(14)] == [0, 1, 0, 0, 1, 0, 0, 3, 0, 0, 12, 0, 0, 55]


def test_130_common_elements_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    code(130, 0)["print_common"]([1, 3, 3, 4, 9], [3, 4, 4, 3, 7])
    assert capsys.readouterr().out.split() == ["3", "4"]
    assert code(130, 1)["common_elements"]([1, 3, 3, 4], [3, 4, 4]) == {3, 4}
