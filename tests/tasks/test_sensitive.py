"""Our own set of history and politics questions, and promptfoo's, read from a file of the same shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mote.judges import language
from mote.tasks import Prompt, TaskError, ccp_sensitive, load_task


@pytest.fixture(scope="module")
def ours() -> list[Prompt]:
    return load_task("sensitive")


def test_half_of_at_least_240_questions_over_24_subjects_is_harmless(ours: list[Prompt]) -> None:
    assert len(ours) == len({p.text for p in ours}) == 408
    assert len({p.attributes["subject"] for p in ours}) >= 24
    counts = Counter((p.attributes["sensitive"], p.attributes["prompt_language"]) for p in ours)
    assert set(counts.values()) == {len(ours) // 4}


def test_a_twin_has_the_same_form_about_another_topic(ours: list[Prompt]) -> None:
    by_id = {p.id: p for p in ours}
    for p in ours:
        twin = by_id[str(p.attributes["twin"])]
        assert twin.attributes["twin"] == p.id
        assert twin.attributes["sensitive"] != p.attributes["sensitive"]
        form = p.text.replace(str(p.attributes["topic"]), "{x}")
        assert form == twin.text.replace(str(twin.attributes["topic"]), "{x}")
        assert "{x}" in form


def test_questions_are_in_the_language_they_say(ours: list[Prompt]) -> None:
    for p in ours:
        assert language(p.text).name == p.attributes["prompt_language"], p.text
        assert p.text.endswith(("?", "？"))
        assert "{" not in p.text


def shape() -> pd.DataFrame:
    """A table of the same shape as promptfoo's: 68 subjects of 20 prompts, in words of our own."""
    rows = [(f"Subject {s}", f'Question {n} on "subject" {s}, please?') for s in range(68) for n in range(20)]
    return pd.DataFrame(rows, columns=["subject", "prompt"])


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda rows, path: rows.to_csv(path, index=False),
    ".jsonl": lambda rows, path: rows.to_json(path, orient="records", lines=True),
    ".parquet": lambda rows, path: rows.to_parquet(path),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_the_set_is_read_from_any_kind_of_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[suffix](shape(), tmp_path / f"ccp-sensitive-prompts{suffix}")
    monkeypatch.setenv("MOTE_DATA", str(tmp_path))
    prompts = load_task("ccp_sensitive")
    assert len(prompts) == 1360
    assert prompts[21].id == "ccp_sensitive/subject-1/2"
    assert prompts[21].text == 'Question 1 on "subject" 1, please?'
    assert prompts[21].attributes["subject"] == "Subject 1"
    assert ccp_sensitive.fetch() == tmp_path / f"ccp-sensitive-prompts{suffix}"


def test_a_set_that_is_not_fetched_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTE_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        TaskError, match=r"not fetched\. Run `mote data --fetch ccp_sensitive`, or download https://\S+ to \S+\.csv"
    ):
        load_task("ccp_sensitive")
    with pytest.raises(TaskError, match="HF_HUB_OFFLINE forbids the network"):
        ccp_sensitive.fetch()
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.rename(columns={"prompt": "question"}),
            "column 'prompt' is missing. It has subject, question",
        ),
        (lambda rows: rows.head(1000), "it has 1000 rows, but the set has 1360"),
        (lambda rows: rows.assign(subject="one"), "it has 1 subjects, but the set has 68"),
        (lambda rows: rows.assign(prompt=rows["prompt"].mask(rows.index == 4, " ")), "row 5 has no text"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(
    change: Callable[[pd.DataFrame], pd.DataFrame], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "set.csv"
    change(shape()).to_csv(path, index=False)
    with pytest.raises(TaskError) as error:
        ccp_sensitive.prompts(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_none_or_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="is not a file"):
        ccp_sensitive.prompts(tmp_path / "absent.csv")
    (tmp_path / "set.txt").write_text("x")
    with pytest.raises(TaskError, match=r"'\.txt' is unknown"):
        ccp_sensitive.prompts(tmp_path / "set.txt")
    (tmp_path / "set.parquet").write_text("x")
    with pytest.raises(TaskError, match="cannot be read as parquet"):
        ccp_sensitive.prompts(tmp_path / "set.parquet")
