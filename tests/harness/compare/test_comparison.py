from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from mote.harness.cli.compare import mount
from mote.harness.compare.answers import Answers
from mote.harness.compare.comparison import compare, to_dict
from mote.harness.compare.run_answers import split_run
from mote.harness.compare.sources import Reading, read_answers, read_sides
from mote.harness.errors import MoteError
from mote.harness.science.transitions import flip_rates
from mote.harness.store.run import LabelRow, RunStore
from mote.judges import JUDGE, LANGUAGE_JUDGE, with_surprise
from tests.harness.report.written_run import WrittenRun, write_run

REFUSED, ALIGNED = "0-REFUSED", "1-ALIGNED"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "demo", WrittenRun(prompts=84, controls=1))


def sample(key: str, label: str = ALIGNED, digest: str = "d1", **more: Any) -> dict[str, Any]:
    """A line of a log of one of our tasks, as lm_eval 0.4.13 writes it with the model mote."""
    note = {"profile": "p", "digest": digest, "seed": 5, "finish_reason": "stop", "model": "m"}
    given = {"until": [], "do_sample": True, "temperature": 0.6, "max_gen_toks": 200}
    return {
        "doc_id": key,
        "doc": {"prompt_id": key, "question": f"About {key}?"},
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": "prompt", "arg_1": given, "arg_2": {"mote": [note]}}},
        "resps": [[f"</think>{label} text"]],
        "filtered_resps": ["{'label': '" + label + "'}"],
        "filter": "rules",
        "metrics": ["label", "refused"],
        "doc_hash": f"hash-{key}",
        "prompt_hash": "ph",
        "target_hash": "th",
        "label": label,
        "refused": int(label == REFUSED),
        **more,
    }


Log = Callable[[str, Iterable[dict[str, Any]]], Path]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    def write(name: str, samples: Iterable[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(one) + "\n" for one in samples), encoding="utf-8")
        return path

    return write


def sides(before: Path, after: Path) -> tuple[Answers, Answers]:
    return read_answers(str(before)), read_answers(str(after))


def test_a_run_and_its_profile_give_the_matrix_of_its_labels(run: Path) -> None:
    found = compare(read_answers(str(run)), read_answers(f"{run}:suppress-10"))
    with sqlite3.connect(run / "run.sqlite") as db:
        frame = pd.read_sql(
            "select g.prompt_id, g.profile, l.label from generations g join labels l using (generation_id)", db
        )
    wide = frame.pivot_table(index="prompt_id", columns="profile", values="label", aggfunc="first")
    expected = pd.crosstab(wide["baseline"], wide["suppress-10"])
    assert found.matrix is not None
    assert found.matrix.to_numpy().sum() == len(found.pairs) == 84
    for before in expected.index:
        for after in expected.columns:
            assert found.matrix.loc[before, after] == expected.loc[before, after]
    assert found.rates == flip_rates(found.matrix)
    assert found.mcnemar is not None
    assert found.mcnemar.p < 0.05
    assert any("another seed" in caveat for caveat in found.caveats)


def test_a_log_and_a_run_pair_by_prompt_and_count_the_lonely(run: Path, log: Log) -> None:
    baseline = read_answers(str(run))
    keys = baseline.rows["prompt_id"].tolist()[:20]
    labels = baseline.rows["label"].tolist()[:20]
    path = log("samples_x.jsonl", [sample(k, lab) for k, lab in zip(keys, labels, strict=True)][:19])
    extra = log(
        "more.jsonl", [json.loads(line) for line in path.read_text().splitlines()] + [sample("refusal_grid/x/y")]
    )
    found = compare(baseline, read_answers(str(extra)))
    assert (len(found.pairs), found.unpaired) == (19, (65, 1))
    assert (found.pairs["before"] == found.pairs["after"]).all()


def test_a_profile_is_compared_on_the_prompts_that_did_not_choose_its_experts(run: Path) -> None:
    with sqlite3.connect(run / "run.sqlite") as db:
        parts = dict(db.execute("select prompt_id, part from splits").fetchall())
    tuned = (str(run), f"{run}:suppress-10")
    for part, expected in (("measure", {"measure"}), ("select", {"select"}), ("all", {"measure", "select"})):
        found = compare(*read_sides(*tuned, Reading(part=part)))
        assert {parts[key] for key in found.pairs["key"]} == expected
    found = compare(*read_sides(*tuned))
    assert {parts[key] for key in found.pairs["key"]} == {"measure"}
    said = [caveat for caveat in found.caveats if "measure, not choose, the experts" in caveat]
    assert len(said) == 2
    assert "left out (--part all)" in said[0]
    assert len(compare(*read_sides(str(run), str(run))).pairs) == len(parts)
    with pytest.raises(MoteError, match=r"--part mesure is unknown\. Did you mean 'measure'\?"):
        read_sides(*tuned, Reading(part="mesure"))


def judged(run: Path, copy: Path, judge: str, **recipe: Any) -> Path:
    """A copy of a run that goes by another judge, which calls every answer broken."""
    shutil.copytree(run, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for part, values in recipe.items():
        manifest["recipe"].setdefault(part, {}).update(values)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with RunStore(copy) as store:
        numbers = [int(number) for number in store.generations_frame(JUDGE)["generation_id"]]
        store.add_labels(LabelRow(number, judge, "DEGENERATE", []) for number in numbers)
    return copy


def test_sides_whose_judges_differ_are_read_by_the_text_and_it_is_said(run: Path, log: Log, tmp_path: Path) -> None:
    surprised = judged(run, tmp_path / "surprised", with_surprise(JUDGE), judges={"surprise": True})
    before, after = read_sides(str(run), str(surprised))
    assert (before.judge, after.judge) == (JUDGE, JUDGE)
    assert before.rows["label"].tolist() == after.rows["label"].tolist()
    said = "surprised:baseline is read by the judge 'rules+classifier', not by its own, 'rules+classifier+surprise'."
    assert said in compare(before, after).caveats
    before, after = read_sides(str(surprised), str(surprised))
    assert before.judge == with_surprise(JUDGE)
    assert not any("judge" in caveat for caveat in compare(before, after).caveats)
    apart = compare(read_answers(str(run)), read_answers(str(surprised)))
    assert any("of different judges" in caveat for caveat in apart.caveats)
    key = str(before.rows["prompt_id"].iloc[0])
    assert read_sides(str(surprised), str(log("x.jsonl", [sample(key)])))[0].judge == JUDGE


def test_beside_a_log_a_language_run_is_read_by_its_own_texts_judge(run: Path, log: Log, tmp_path: Path) -> None:
    language = judged(
        run, tmp_path / "language", LANGUAGE_JUDGE, task={"label": "language"}, study={"target": "english"}
    )
    path = log("x.jsonl", [sample("refusal_grid/1/a")])
    assert read_sides(str(language), str(path))[0].judge == LANGUAGE_JUDGE
    with pytest.raises(MoteError, match=r"of different sets: .* Name a --judge that labelled both"):
        read_sides(str(run), str(language))
    assert [side.judge for side in read_sides(str(run), str(language), Reading(judge=JUDGE))] == [JUDGE, JUDGE]


def test_documents_of_another_hash_do_not_pair(log: Log) -> None:
    before = log("b.jsonl", [sample("refusal_grid/1/a", REFUSED), sample("refusal_grid/1/b", REFUSED)])
    after = log("a.jsonl", [sample("refusal_grid/1/a"), sample("refusal_grid/1/b", doc_hash="changed")])
    found = compare(*sides(before, after))
    assert (len(found.pairs), found.unpaired) == (1, (1, 1))
    assert found.rates is not None
    assert (found.rates.flips.hits, found.rates.flips.total) == (1, 1)


def test_whatever_else_differs_is_said(log: Log) -> None:
    def other(key: str) -> dict[str, Any]:
        one = sample(key, digest="d2", prompt_hash="other")
        arguments = one["arguments"]["gen_args_0"]
        arguments["arg_1"]["temperature"] = 0.9
        arguments["arg_2"]["mote"][0] |= {"seed": 6, "model": "n"}
        return one

    keys = ["refusal_grid/1/a", "refusal_grid/1/b"]
    same = compare(*sides(log("b.jsonl", map(sample, keys)), log("c.jsonl", map(sample, keys))))
    assert same.caveats == ("Both sides have the same profile: what changed is noise, or what else differs.",)
    said = " ".join(compare(*sides(log("b.jsonl", map(sample, keys)), log("a.jsonl", map(other, keys)))).caveats)
    for part in ("model's files differ", "2 of 2 prompts were rendered", '"temperature": 0.9', "with another seed"):
        assert part in said


def test_languages_come_from_their_metrics_and_states_stay_states(log: Log) -> None:
    def spoken(name: str, reasoning: str | None, label: str = "2-REASONED") -> dict[str, Any]:
        given: dict[str, Any] = {f"reasoning_{one}": int(one == reasoning) for one in ("english", "chinese", "mixed")}
        return sample(f"reasoning_language/{name}", label, **(given if reasoning else {}))

    before = log("b.jsonl", [spoken("a", "english"), spoken("b", "english"), spoken("c", "chinese")])
    after = log("a.jsonl", [spoken("a", "chinese"), spoken("b", None, "DEGENERATE"), spoken("c", "chinese")])
    found = compare(*(read_answers(str(path), Reading(label="reasoning_language")) for path in (before, after)))
    assert found.target == "english"
    assert found.rates is not None
    assert (found.rates.flips.hits, found.rates.broken.hits, found.rates.flips.total) == (1, 1, 2)


def test_examples_are_changes_only_and_bounded(run: Path) -> None:
    left, right = read_answers(str(run)), read_answers(f"{run}:suppress-10")
    some = compare(left, right, examples=1).examples
    assert {(one.before, one.after) for one in some} == {
        (before, after)
        for before, after in compare(left, right).pairs[["before", "after"]].itertuples(index=False)
        if before != after
    }
    assert len(some) == len({(one.before, one.after) for one in some})
    assert compare(left, right, examples=0).examples == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one["arguments"]["gen_args_0"].pop("arg_2"), "1 of 2 answers carry no receipt"),
        (lambda one: one.pop("doc_hash"), "has no 'doc_hash'"),
        (lambda one: one.update(filterd=one.pop("filter")), "line 2 has no 'filter'. Did you mean 'filterd'?"),
        (lambda one: one.pop("doc"), "has no 'doc': it is not a sample log"),
        (lambda one: one.pop("refused"), "the metric 'refused' of 'refusal_grid/1/b' is missing"),
        (
            lambda one: one["arguments"]["gen_args_0"]["arg_2"]["mote"][0].update(digest="x"),
            "mixes answers of 2 profiles",
        ),
        (lambda one: one["doc"].update(prompt_id="refusal_grid/1/a"), "has several answers to 'refusal_grid/1/a'"),
        (lambda one: one.update(doc_id="refusal_grid/1/a"), "has several answers to 'refusal_grid/1/b'"),
    ],
)
def test_a_log_that_cannot_be_trusted_is_one_line(log: Log, change: Callable[[Any], Any], said: str) -> None:
    wrong = sample("refusal_grid/1/b", REFUSED)
    change(wrong)
    path = log("samples.jsonl", [sample("refusal_grid/1/a"), wrong])
    with pytest.raises(MoteError) as raised:
        read_answers(str(path))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_log_without_receipts_passes_on_request_and_says_so(log: Log) -> None:
    def bare(key: str) -> dict[str, Any]:
        one = sample(key)
        del one["arguments"]["gen_args_0"]["arg_2"]
        return one

    path = log("b.jsonl", [bare("refusal_grid/1/a")])
    found = compare(*(read_answers(str(path), Reading(receipts=False)) for _ in range(2)))
    assert "No receipts in b.jsonl and b.jsonl" in found.caveats[0]


def test_a_document_that_a_set_holds_twice_pairs_in_order(log: Log) -> None:
    def line(number: int, right: int, filter_name: str = "none") -> dict[str, Any]:
        one = sample(str(number), doc={"q": "same"}, doc_hash="h", metrics=["acc"], acc=right, filter=filter_name)
        del one["label"]
        return one

    before = log("b.jsonl", [line(0, 1), line(1, 0), line(0, 1, "strict"), line(1, 0, "strict")])
    after = log("a.jsonl", [line(0, 1), line(1, 1), line(0, 0, "strict"), line(1, 0, "strict")])
    found = compare(*sides(before, after))
    assert len(found.pairs) == 2
    rows = found.scores.set_index("filter")
    assert rows[["pairs", "up", "down"]].to_numpy().tolist() == [[2, 1, 0], [2, 0, 1]]


def test_what_is_neither_run_nor_log_is_one_line(tmp_path: Path, run: Path, log: Log) -> None:
    with pytest.raises(MoteError, match=r"neither a run .* Did you mean 'demo'\?"):
        read_answers(str(run.parent / "dmo"))
    with pytest.raises(MoteError, match=r"has no profile 'suppres-10'\. Did you mean 'suppress-10'\?"):
        read_answers(f"{run}:suppres-10")
    with pytest.raises(MoteError, match="has no labels of the judge 'nobody'"):
        read_answers(str(run), Reading(judge="nobody"))
    with pytest.raises(MoteError, match=r"--label langage is unknown"):
        read_answers(str(run), Reading(label="langage"))
    with pytest.raises(MoteError, match=r"holds neither a run"):
        read_answers(str(tmp_path))
    with pytest.raises(MoteError, match=r"notes.txt is no file of answers: it ends in none of \.eval"):
        read_answers(str(_text(tmp_path)))
    with pytest.raises(MoteError, match=r"line 1 is not JSON"):
        read_answers(str(_text(tmp_path).rename(tmp_path / "notes.jsonl")))
    log("samples_a.jsonl", [])
    log("samples_b.jsonl", [])
    with pytest.raises(MoteError, match=r"holds 2 sample logs; name one, or its --task: samples_a.jsonl, samples_b"):
        read_answers(str(tmp_path))
    with pytest.raises(MoteError, match="is empty"):
        read_answers(str(tmp_path / "samples_a.jsonl"))


def _text(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("no JSON")
    return path


def test_sides_that_do_not_belong_together_are_one_line(log: Log, run: Path) -> None:
    grid = log("g.jsonl", [sample("refusal_grid/1/a")])
    sums = log("s.jsonl", [sample("reasoning_language/english-plain/1-1")])
    with pytest.raises(MoteError, match=r"of the task 'refusal_grid', s\.jsonl of 'reasoning_language'"):
        compare(*sides(grid, sums))
    with pytest.raises(MoteError, match="share no prompt or document"):
        compare(read_answers(str(run)), read_answers(str(grid)))
    with pytest.raises(
        MoteError, match=r"--target 0-REFUSE is not a class of these answers\. Did you mean '0-REFUSED'"
    ):
        compare(read_answers(str(run)), read_answers(f"{run}:suppress-10"), target="0-REFUSE")
    numberless = sample("other/1", doc={"q": "x"}, metrics=["words"], words=[1, 2])
    del numberless["label"]
    with pytest.raises(MoteError, match="nothing to compare: neither labels nor a common number"):
        compare(*sides(log("x.jsonl", [numberless]), log("y.jsonl", [numberless])))


def test_a_forged_receipt_of_a_run_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", WrittenRun(prompts=8, controls=1))
    with sqlite3.connect(folder / "run.sqlite") as db:
        db.execute("insert into texts (text_id, digest, text) values (0, 'x', '{\"digest\": \"x\"}')")
        db.execute("update generation_rows set receipt = 0 where generation_id = 3")
    with pytest.raises(MoteError, match=r"the receipt of .* is not that of profile 'baseline'"):
        read_answers(str(folder))


def test_a_folder_of_a_group_is_read_by_task(log: Log, tmp_path: Path) -> None:
    stamp = "2026-01-01T10-00-00.5"
    log(f"samples_mote_refusal_grid_{stamp}.jsonl", [sample("refusal_grid/1/a")])
    log(f"samples_mote_sensitive_{stamp}.jsonl", [sample("sensitive/x/y")])
    assert read_answers(str(tmp_path), Reading(task="mote_sensitive")).task == "sensitive"
    with pytest.raises(MoteError, match=r"no log of the task 'mote_sensible'\. Did you mean 'mote_sensitive'"):
        read_answers(str(tmp_path), Reading(task="mote_sensible"))


def test_a_folder_with_a_colon_in_its_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert split_run(str(tmp_path / "a:b")) == (tmp_path / "a:b", None)
    assert split_run(f"{tmp_path}/a:b:suppress-10") == (tmp_path / "a:b", "suppress-10")
    assert split_run("run") == (Path("run"), None)


def test_the_command_prints_and_writes_the_same_numbers(run: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    mount(app)
    arguments = [str(run), f"{run}:suppress-10", "--json", str(tmp_path / "c.json"), "--csv", str(tmp_path / "csv")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "c.json").read_text())
    expected = compare(*read_sides(str(run), f"{run}:suppress-10"), examples=1)
    assert found == json.loads(json.dumps(to_dict(expected)))
    flips = found["rates"]["flips"]
    assert f"{flips['hits']} of {flips['total']}" in result.output
    matrix = pd.read_csv(tmp_path / "csv" / "matrix.csv", index_col=0)
    assert matrix.to_numpy().tolist() == found["matrix"]["counts"]
    assert len(pd.read_csv(tmp_path / "csv" / "pairs.csv")) == found["pairs"] == 43
    assert pd.read_csv(tmp_path / "csv" / "rates.csv", index_col=0).loc["flips", "hits"] == flips["hits"]
    alone = CliRunner().invoke(app, [*arguments[:2], "--json", "-"])
    assert json.loads(alone.output) == found
    assert 0 < found["same_output"] < 84
    for wrong in (["--json", str(tmp_path / "no" / "c.json")], ["--csv", str(tmp_path / "c.json")]):
        refused = CliRunner().invoke(app, [*arguments[:2], *wrong])
        assert isinstance(refused.exception, MoteError)


def test_text_of_a_model_is_never_markup(log: Log, tmp_path: Path) -> None:
    app = typer.Typer()
    mount(app)
    hostile = sample("refusal_grid/1/a", resps=[["[bold]mote[/bold] [/nothing]"]])
    before = log("b.jsonl", [sample("refusal_grid/1/a", REFUSED)])
    result = CliRunner().invoke(app, [str(before), str(log("a.jsonl", [hostile]))])
    assert result.exit_code == 0, result.output
    assert "[bold]mote[/bold] [/nothing]" in result.output
