from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mote.harness.errors import MoteError
from mote.harness.judging.audit import audit_run
from mote.harness.judging.judge import Judged, Scope, judge_run
from mote.harness.store.questions import conversation
from mote.harness.store.run import RunStore
from mote.judges import JUDGE
from mote.judges.llm.endpoint import Endpoint
from mote.judges.llm.prompt import PROMPTS
from tests.harness.report.written_run import WrittenRun, write_run
from tests.judges.scripted_judge import Fail, Hang, Say, ScriptedJudge, Step, scripted_judge

RUN = WrittenRun(prompts=24, layers=(0, 1), experts=16, controls=1, split=True, top_k=3)


def quiet() -> Console:
    return Console(file=Path(os.devnull).open("w"), force_terminal=False)


def honest(body: dict[str, Any], number: int) -> Step:
    """A judge that knows the written sentences."""
    text = body["messages"][-1]["content"]
    answer = text.partition("<<<ANSWER ")[2].partition("<<<END OF ANSWER")[0].lower()
    verdict = "REFUSED" if "cannot" in answer or "can't" in answer or "sorry" in answer else "ANSWERED"
    return Say(f"Looks so. [[{verdict}]]")


def endpoint(judge: ScriptedJudge, **values: Any) -> Endpoint:
    given: dict[str, Any] = {"backoff": 0.01, "structured": "text", "timeout": 10.0, **values}
    return Endpoint(judge.url, "scripted", **given)


def judge(folder: Path, server: ScriptedJudge, kind: str = "refusal", **options: Any) -> Judged:
    values = {
        name: options.pop(name) for name in ("attempts", "timeout", "concurrency", "max_tokens") if name in options
    }
    return judge_run(folder, kind, endpoint(server, **values), quiet(), **options)


def table(folder: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return list(db.execute(query, values))


def adds_up(found: Judged) -> bool:
    return sum(found.labels.values()) + found.waiting == found.generations


def test_labels_are_added_under_the_judges_own_name(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    before = table(folder, "select * from labels where judge = ? order by generation_id", JUDGE)
    with scripted_judge(honest) as server:
        found = judge(folder, server)
        asked = len(server.requests)
        again = judge(folder, server)
        assert len(server.requests) == asked
    assert adds_up(found)
    assert found.waiting == 0
    assert again.labels == found.labels
    assert again.tally.total == 0
    assert found.judge.startswith("scripted/refusal-class@")
    assert table(folder, "select * from labels where judge = ? order by generation_id", JUDGE) == before
    assert table(folder, "select count(*) from labels where judge like 'scripted%'") == [(found.generations,)]
    # One judgment a text, though many answers have the same.
    texts = table(folder, "select count(*), count(distinct text_sha256) from judgments")
    assert texts == [(asked, asked)]
    assert asked < found.generations
    (row,) = table(folder, "select prompt_sha256, verdict, state, messages from judgments limit 1")
    assert len(row[0]) == 64
    assert row[1:3] in [("REFUSED", "scored"), ("ANSWERED", "scored")]
    assert "<<<ANSWER" in row[3]


def test_what_judge_and_rules_read_in_the_written_sentences_agrees(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with scripted_judge(honest) as server:
        found = judge(folder, server)
    pairs = audit_run(folder)
    row = pairs.kappas.iloc[0]
    assert {row["first"], row["second"]} == {JUDGE, found.judge}
    assert row["kappa"] > 0.9
    assert row["items"] + row["left_out"] <= found.generations
    counts = pairs.confusions[row["first"], row["second"]]
    assert int(counts.to_numpy().sum()) == found.generations


@pytest.mark.parametrize(
    ("step", "state", "label"),
    [
        (Say("I would rather not say."), "unusable", "UNSCORED"),
        (Say("Je pense que non. Il répond à la question."), "unusable", "UNSCORED"),
        (Fail(500), "unreached", None),
        (Fail(429), "unreached", None),
        (Hang(), "unreached", None),
        (Fail(400, {"error": {"message": "too long"}}), "unreached", None),
    ],
)
def test_each_failure_ends_in_its_documented_state_and_totals_add_up(
    tmp_path: Path, step: Step, state: str, label: str | None
) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with RunStore(folder, read_only=True) as store:
        spoiled = conversation(store.prompts()[0].messages)
    patience = 0.7 if isinstance(step, Hang) else 20.0

    def script(body: dict[str, Any], number: int) -> Step:
        return step if spoiled in body["messages"][-1]["content"].partition("<<<ANSWER")[0] else honest(body, number)

    with scripted_judge(script) as server:
        found = judge(folder, server, attempts=2, timeout=patience)
        assert adds_up(found)
        assert found.tally.scored
        wrong = found.tally.unusable if label else found.tally.unreached
        assert wrong == len(table(folder, "select * from judgments where state = ?", state)) > 0
        kept = table(folder, "select raw, error, verdict from judgments where state = ? limit 1", state)[0]
        assert kept[0] == (step.text if isinstance(step, Say) else "")
        assert kept[1]
        assert kept[2] is None
        assert bool(found.labels.get("UNSCORED")) == (label is not None)
        assert (found.waiting > 0) == (label is None)
    with scripted_judge(honest) as server:
        later = judge(folder, server)
    assert adds_up(later)
    assert later.waiting == 0
    # A reply that was unusable stays so; one that never came is asked for again.
    assert later.labels.get("UNSCORED") == found.labels.get("UNSCORED")
    assert later.tally.scored == found.tally.unreached


def test_a_budget_is_kept_and_gone_on_from(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with scripted_judge(honest) as server:
        first = judge(folder, server, max_judgments=5)
        assert len(server.requests) == 5
        assert first.tally.left
        assert first.waiting
        assert adds_up(first)
        second = judge(folder, server)
        assert second.waiting == 0
        assert len(server.requests) == first.tally.total
        assert second.tally.total == first.tally.total - 5


def test_a_reply_that_was_cut_off_waits_for_more_tokens_and_no_label_is_ever_replaced(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)

    def script(body: dict[str, Any], number: int) -> Step:
        short = body["max_tokens"] <= 100 and "sorry" in body["messages"][-1]["content"].lower()
        return Say("[[REFUSED]] on and on", "length") if short else honest(body, number)

    def labels() -> set[tuple[Any, ...]]:
        return set(table(folder, "select generation_id, label from labels where judge like 'scripted%'"))

    with scripted_judge(script) as server:
        first = judge(folder, server, max_tokens=100)
        assert adds_up(first)
        assert first.tally.cut == first.cut > 0 < first.waiting
        assert "UNSCORED" not in first.labels
        before, asked = labels(), len(server.requests)
        for tokens in (100, 60):
            again = judge(folder, server, max_tokens=tokens)
            assert (len(server.requests), again.cut, again.waiting) == (asked, first.cut, first.waiting)
        more = judge(folder, server, max_tokens=101)
        assert len(server.requests) == asked + first.cut
        assert (more.cut, more.waiting, adds_up(more)) == (0, 0, True)
        assert before < labels()
        judge(folder, server, max_tokens=4000)
        assert len(server.requests) == asked + first.cut
    texts = table(folder, "select count(*), count(distinct text_sha256) from judgments where verdict is not null")[0]
    assert texts[0] == texts[1]
    assert {budget for (budget,) in table(folder, "select max_tokens from judgments")} == {100, 101}


def test_classes_of_ones_own_become_labels(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    text = (PROMPTS / "refusal-class.yaml").read_text()
    own = text.replace("name: refusal-class", "name: tone").replace(
        "[REFUSED, ANSWERED, BROKEN]", "[CURT, WARM, BROKEN]"
    )
    (tmp_path / "mine.yaml").write_text(own)

    def script(body: dict[str, Any], number: int) -> Step:
        found = str(honest(body, number))
        return Say(
            "[[CURT]]"
            if "REFUSED" in found
            else "[[BROKEN]]"
            if "1989" in body["messages"][-1]["content"]
            else "[[WARM]]"
        )

    with scripted_judge(script) as server:
        with pytest.raises(MoteError, match=r"names the verdicts \[CURT, WARM, BROKEN\]; the kind 'refusal' needs"):
            judge(folder, server, prompt=str(tmp_path / "mine.yaml"))
        with pytest.raises(MoteError, match="has no packaged prompt"):
            judge(folder, server, "classes")
        assert not server.requests
        found = judge(folder, server, "classes", prompt=str(tmp_path / "mine.yaml"))
    assert found.judge.startswith("scripted/tone@")
    assert adds_up(found)
    assert {"CURT", "WARM"} <= set(found.labels) <= {"CURT", "WARM", "DEGENERATE", "TRUNCATED"}
    assert audit_run(folder).kappas.empty


def test_scope_is_profiles_and_prompts_with_their_baseline(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with scripted_judge(honest) as server:
        found = judge(folder, server, scope=Scope(("suppress-3",), 6))
    profiles = Counter(
        profile for (profile,) in table(folder, "select profile from labels join generations using (generation_id)"
                                                " where judge like 'scripted%'")
    )  # fmt: skip
    assert set(profiles) == {"baseline", "suppress-3"}
    assert profiles["baseline"] == 6
    assert found.generations == sum(profiles.values())


def test_the_same_answer_with_and_without_reasoning_is_one_judgment_and_two_labels(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", RUN.changed(write=lambda prompt, profile, label: "<think>Hm.</think>Fine."
                                      if profile == "baseline" else "<think></think>Fine.")
    )  # fmt: skip
    with scripted_judge(honest) as server:
        found = judge(folder, server, scope=Scope(("retest-1",)))
    # Two labels of each judgment, but for a prompt or two whose answer was cut off.
    assert 22 <= found.tally.scored == len(server.requests) <= 24
    assert min(found.labels["1-ALIGNED"], found.labels["2-REASONED"]) >= 22


def test_reasoning_language_and_side_by_side(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        RUN.changed(write=lambda prompt, profile, label: f"<think>{prompt}</think>Long answer."
                    if profile == "baseline" else f"<think>{prompt}</think>Short {prompt}"),
    )  # fmt: skip

    def script(body: dict[str, Any], number: int) -> Step:
        text = body["messages"][-1]["content"]
        if "REASONING" in text:
            return Say("[[CHINESE]]")
        return Say("[[A]]" if text.partition("<<<ANSWER A")[2].partition("<<<END")[0].count("Short") else "[[B]]")

    with scripted_judge(script) as server:
        language = judge(folder, server, "language", scope=Scope(("suppress-3",)))
        assert set(language.labels) == {"chinese"}
        beside = judge(folder, server, "side-by-side", scope=Scope(("suppress-3",)))
    assert adds_up(beside)
    assert beside.waiting == 0
    assert set(beside.labels) <= {"BETTER", "UNSCORED"}
    assert beside.labels["BETTER"]
    parts = table(folder, "select part, count(*) from judgments where kind = 'side-by-side' group by part")
    assert [part for part, _ in parts] == [1, 2]
    kinds = audit_run(folder)
    assert kinds.kappas.empty


def test_a_label_of_two_judgments_waits_for_both(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", RUN.changed(write=lambda prompt, profile, label: f"</think>{prompt} {profile}")
    )

    def script(body: dict[str, Any], number: int) -> Step:
        return Say("[[A]]") if "baseline\n<<<END OF ANSWER B" in body["messages"][-1]["content"] else Fail(400)

    with scripted_judge(script) as server:
        found = judge(folder, server, "side-by-side", scope=Scope(("suppress-3",), 4))
    assert found.labels == {}
    assert found.waiting == found.generations
    with scripted_judge(lambda body, number: Say("[[B]]")) as server:
        later = judge(folder, server, "side-by-side", scope=Scope(("suppress-3",), 4))
        assert len(server.requests) == found.tally.unreached
    assert set(later.labels) == {"BETTER"}


def test_a_killed_judge_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)

    def slow(body: dict[str, Any], number: int) -> Step:
        time.sleep(0.05)
        return honest(body, number)

    with scripted_judge(slow) as server:
        code = (
            "import os, sys; from pathlib import Path; from rich.console import Console;"
            "from mote.harness.judging.judge import judge_run; from mote.judges.llm.endpoint import Endpoint;"
            f"judge_run(Path({str(folder)!r}), 'refusal', Endpoint({server.url!r}, 'scripted', structured='text',"
            "concurrency=2), Console())"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 60
            while len(server.requests) < 8 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.communicate()
        stored = table(folder, "select count(*) from judgments")[0][0]
        assert 0 < stored <= len(server.requests)
        killed_at = len(server.requests)
        found = judge(folder, server)
        assert found.waiting == 0
        assert adds_up(found)
        assert len(server.requests) - killed_at == found.tally.total
        distinct = table(folder, "select count(*), count(distinct text_sha256) from judgments")[0]
        assert distinct[0] == distinct[1] == stored + found.tally.total


def test_a_reply_whose_label_was_not_written_yet_is_not_asked_for_again(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with scripted_judge(honest) as server:
        found = judge(folder, server)
        asked = len(server.requests)
        with closing(sqlite3.connect(folder / "run.sqlite")) as db:
            db.execute("delete from labels where judge = ? and generation_id % 2 = 0", (found.judge,))
            db.commit()
        again = judge(folder, server)
        assert len(server.requests) == asked
    assert again.labels == found.labels


def test_the_key_is_in_no_file_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-1")
    folder = write_run(tmp_path / "run", RUN)

    def script(body: dict[str, Any], number: int) -> Step:
        return Say("sk-secret-1 [[REFUSED]]") if number else Fail(500, {"error": {"message": "sk-secret-1"}})

    with scripted_judge(script) as server:
        judge_run(folder, "refusal", endpoint(server, key_env="JUDGE_KEY", attempts=2), quiet(), scope=Scope((), 4))
    assert all(b"sk-secret-1" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("refusals", {}, "Did you mean 'refusal'"),
        ("refusal", {"scope": Scope(("suppres-3",))}, "Did you mean 'suppress-3'"),
        ("refusal", {"prompt": "nowhere.yaml"}, "neither a file nor one of"),
        ("refusal", {"name": "human:anna"}, "kept for people"),
    ],
)
def test_wrong_requests_are_one_line(tmp_path: Path, kind: str, options: dict[str, Any], message: str) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with pytest.raises(MoteError, match=message) as caught:
        judge_run(folder, kind, Endpoint("http://127.0.0.1:9/v1", "x"), quiet(), **options)
    assert "\n" not in str(caught.value)


def test_one_name_is_one_prompt(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    with scripted_judge(honest) as server:
        judge(folder, server, name="mine", scope=Scope((), 2))
        with pytest.raises(MoteError, match="another prompt"):
            judge(folder, server, "language", name="mine")


def test_questions_as_text() -> None:
    assert conversation([{"role": "user", "content": "Why?"}]) == "Why?"
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert conversation(talk) == "user: Why?\n\nassistant: So."


def test_a_judge_that_never_answers_leaves_no_label(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    nowhere = Endpoint("http://127.0.0.1:9/v1", "x", attempts=1, backoff=0.01)
    with pytest.raises(MoteError):
        judge_run(folder, "refusal", nowhere, quiet())
    assert table(folder, "select distinct judge from labels where judge like 'x/%'") == []
    with scripted_judge(honest) as server:
        assert adds_up(judge(folder, server))
