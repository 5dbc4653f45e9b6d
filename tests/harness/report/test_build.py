"""The report of written runs: what is made, what it says, and what becomes of states, hostile text and stale files."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from mote.harness.errors import MoteError
from mote.harness.report import build, make_report
from mote.harness.report.catalogue import CATALOGUE, catalogue
from mote.harness.report.figures import PNG_DPI
from mote.harness.report.paper_index import paper_index
from mote.harness.store.prunings import add_pruning
from mote.harness.store.run import LabelRow, RunStore
from tests.harness.report.small_report import SMALL, Page, no_figures, nothing_drawn  # noqa: F401 - a fixture
from tests.harness.report.written_run import WrittenRun, write_run

HOSTILE = "<script>alert(1)</script><img src=http://x.invalid onerror=alert(1)>\u202e\x00</script>&amp;{{ 7*7 }}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_run(tmp_path_factory.mktemp("run"), SMALL)
    prune(path)
    (path / "tables").mkdir()
    (path / "tables" / "rankings.csv").write_text(RANKINGS)
    make_report(path)
    return path


RANKINGS = """ranking,k,spearman,spearman_low,spearman_high,share,low,high,matched_mean,matched_max
resonance,5,0.07,0.02,0.12,0.1,0.05,0.2,0.01,0.03
causal,5,,,,0.4,0.3,0.5,0.02,0.04
"""


def prune(folder: Path) -> None:
    """Finish an invented pruning: of four experts two are needed."""
    common = {"floor": 0.27, "keep": 0.9, "experts": "(1, 5) (3, 9)"}
    nobody = {"measured_hits": 8, "measured_total": 20, "measured_share": 0.4, "whole_hits": 9}
    left = [(0, 4, 0.3, ""), (1, 3, 0.31, "(2, 1)"), (2, 2, 0.28, "(3, 4)")]
    rounds = [
        {"round": n, "left": k, "effect": effect, "dropped": gone, **common, **nobody} for n, k, effect, gone in left
    ]
    with RunStore(folder) as store:
        add_pruning(store, {"k": 4}, pd.DataFrame(rounds))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    run = WrittenRun(
        prompts=28,
        layers=(1, 2),
        experts=8,
        top_k=2,
        controls=1,
        write=lambda k, p, label: f"{p} {HOSTILE}{'x' * 50_000}",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "draw_all", nothing_drawn)
        return Page(make_report(write_run(tmp_path_factory.mktemp("hostile"), run)))


def test_figures_are_written_in_all_formats_with_their_numbers(folder: Path) -> None:
    names = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert names == set(CATALOGUE) - {"fig14-mt-bench"}
    for kind in ("png", "pdf"):
        assert names == {path.stem for path in (folder / "figures").glob(f"*.{kind}")}
    for name in names:
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        png = (folder / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        svg = (folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        # At 200 dots to the inch: the vector formats, drawn before, are at 72.
        points = re.search(r'<svg [^>]*width="([0-9.]+)pt"', svg)
        assert points is not None
        assert int.from_bytes(png[16:20]) == pytest.approx(float(points[1]) / 72 * PNG_DPI, abs=1)
        assert "font-family: 'Arial', 'Helvetica', 'Liberation Sans', 'DejaVu Sans', sans-serif" in svg
    tables = {path.stem for path in (folder / "tables").glob("*.csv")}
    # The matrices of suppression and stimulation stand in one table.
    assert names - tables == {"fig10-stimulation"}
    assert (folder / "tables" / "rankings.csv").read_text() == RANKINGS


def test_page_asks_the_network_for_nothing(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "href", "action", "data"):
            if name in attributes:
                own = ("#", "data:image/svg+xml;base64,", *(("figures/", "tables/") if tag == "a" else ()))
                assert attributes[name].startswith(own), (tag, name)
    policy = next(page.all("meta") and (m for m in page.all("meta") if "http-equiv" in m))
    assert "default-src 'none'" in policy["content"]


def test_every_link_has_its_target(page: Page, folder: Path) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {link["href"] for link in page.all("a")}
    files = {link for link in links if not link.startswith("#")}
    assert all((folder / link).is_file() for link in files)
    assert {f"figures/{name}.pdf" for name in set(CATALOGUE) - {"fig14-mt-bench"}} <= files
    assert {f"tables/{path.name}" for path in (folder / "tables").iterdir()} <= files
    rows = {link for link in links if link.startswith("#row/")}
    assert {link[1:] for link in links - files - rows} <= set(ids)
    known = {(page.packet["profiles"][f], page.packet["prompts"][p][0]) for p, f, *_ in page.packet["rows"]}
    assert rows
    assert {tuple(unquote(part) for part in link.split("/", 2)[1:]) for link in rows} <= known


def test_alternative_texts_name_files_that_are_there(page: Page, folder: Path) -> None:
    alts = [image["alt"] for image in page.all("img")]
    assert all(alts)
    named = {name for alt in alts for name in re.findall(r"[\w./-]+\.(?:csv|svg|png|pdf)\b", alt)}
    assert "tables/fig08-transitions.csv" in named
    assert all((folder / name).is_file() for name in named)


def test_a_picture_stands_at_the_top_and_the_matrices_are_tables_too(page: Page, folder: Path) -> None:
    head = page.html[page.html.index("<header>") : page.html.index("</header>")]
    assert '<a class="first" href="#null-distribution"><img src="data:image/svg+xml' in head
    long = pd.read_csv(folder / "tables" / "fig08-transitions.csv")
    own = long[(long["profile"] == "suppress-4") & (long["view"] == "measured")]
    cell = own[(own["before"] == "0-REFUSED") & (own["after"] == "1-ALIGNED")].iloc[0]
    table = re.search(r"<h3>Top 4 suppressed, .*?</table>", page.html, re.S)
    assert table is not None
    of = int(own.loc[own["before"] == "0-REFUSED", "count"].sum())
    row = re.search(rf'<th scope="row">Refused \({of}\)</th>(.*?)</tr>', table[0], re.S)
    assert row is not None
    cells = re.findall(r">([\d,]+) \(", row[1])
    assert int(cells[1]) == cell["count"]


def test_the_rankings_are_a_table_too(page: Page) -> None:
    assert re.search(r'<th scope="row">resonance</th><td class="n">0\.07 \(0\.02 to 0\.12\)</td>', page.html)


def test_rows_carry_the_unit_that_the_table_filters_by(page: Page) -> None:
    packet = page.packet
    assert any(one.get("id") == "pick-unit" for one in page.all("select"))
    units = {prompt[1]: packet["units"][prompt[2]] for prompt in packet["prompts"]}
    assert len(set(units.values())) > 5
    assert all(unit.lower() in question.lower() for question, unit in units.items())


def test_sections_answer_in_order(page: Page) -> None:
    names = [attributes["id"] for attributes in page.all("h2")]
    assert names[:7] == ["asked", "changed", "chance", "broke", "experts", "dose-direction", "examples"]


def test_index_has_every_figure_of_the_paper(page: Page) -> None:
    rows = re.findall(r"<tr><td>(\d+)</td><td>[^<]*</td><td>(.*?)</td></tr>", page.html)
    assert [number for number, _ in rows] == [str(number) for number in range(1, 15)]
    for number, here in rows:
        assert ('<a href="#' in here) or "Not in this run" in here or number == "1", number
    linked = {number for number, here in rows if '<a href="#' in here}
    assert {"2", "3", "4", "5", "8", "10"} <= linked
    assert not linked & {"1", "9", "11", "12", "13", "14"}


def test_the_paper_numbers_the_same_figure_anew_for_each_of_its_sets() -> None:
    for task in ("refusal_grid", "sensitive", "ccp_sensitive", "reasoning_language"):
        index = paper_index(task, catalogue(task), {}, {("english", "chinese"), ("0-REFUSED", "1-ALIGNED")})
        linked = {row.number for row in index if row.anchor}
        own = {"refusal_grid": {"5", "8", "10"}, "reasoning_language": {"11", "12"}}.get(task, {"5", "9", "10"})
        assert linked - {"2", "3", "4", "6", "13", "14"} == own, task
        assert all(row.anchor in {*catalogue(task), "examples", ""} for row in index)


def test_figures_name_the_run_that_would_give_them(page: Page) -> None:
    assert "mote run demo-language" in page.text
    assert "--set task.name=sensitive" in page.text
    assert "mote report RUN --mt-bench FOLDER" in page.text


def test_another_judges_labels_are_shown_only_when_asked_for(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", SMALL.changed(prompts=28, controls=1, doses=(), tokens=0))
    with RunStore(folder) as store:
        frame = store.generations_frame("rules+classifier")
        store.add_labels(LabelRow(int(number), "other", "0-REFUSED", []) for number in frame["generation_id"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "draw_all", nothing_drawn)
        page = Page(make_report(folder))
        assert "by the labels of the judge “rules+classifier”" in page.text
        assert re.search(
            r'<tr><th scope="row">other</th><td class="n">(\d+)</td><td class="n">\1</td><td class="n">[\d.]+%',
            page.html,
        )
        own = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        other = make_report(folder, judge="other")
        assert "by the labels of the judge “other”" in Page(other).text
        # Beside the run's own report, of which nothing changes.
        assert other == folder / "report-other" / "report.html"
        assert {path: path.read_bytes() for path in own} == own
        assert (other.parent / "tables" / "summary.csv").is_file()
        assert make_report(folder, judge="rules+classifier") == folder / "report.html"
        with pytest.raises(MoteError, match="Did you mean 'other'"):
            make_report(folder, judge="othr")


def test_every_generation_is_in_the_table_once(folder: Path, page: Page) -> None:
    packet = page.packet
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        query = "select prompt_id, profile, label, raw from generations join labels using (generation_id)"
        stored = sorted(db.execute(query).fetchall())
    found = sorted(
        (packet["prompts"][p][0], packet["profiles"][f], packet["labels"][label], packet["texts"][t])
        for p, f, label, t, _ in packet["rows"]
    )
    assert found == stored


def test_same_run_gives_the_same_bytes(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.suffix in (".html", ".svg", ".png", ".csv")]
    before = {path: path.read_bytes() for path in files}
    make_report(folder)
    assert {path: path.read_bytes() for path in files} == before


def test_hostile_text_is_text(hostile: Page) -> None:
    scripts = list(hostile.all("script"))
    assert [one.get("id") for one in scripts] == ["colours", "packet", None]
    assert not any(name.startswith("on") for _, attributes in hostile.elements for name in attributes)
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in hostile.all("img"))
    assert (
        "<script>alert(1)</script><img src=http://x.invalid onerror=alert(1)>[U+202E][U+0000]</script>" in hostile.text
    )
    assert "\x00" not in hostile.html
    assert "\u202e" not in hostile.html


def test_long_text_is_clipped_and_says_so(hostile: Page) -> None:
    assert re.search(r"Show the rest of 50,\d{3} characters", hostile.text)
    assert max(len(text) for text in hostile.packet["texts"]) < 7000
    assert "run.sqlite has them whole" in hostile.text


def test_model_text_is_isolated(hostile: Page) -> None:
    inside = False
    for match in re.finditer(r"<bdi[^>]*>|</bdi>|&lt;script&gt;alert", hostile.html):
        if match[0].startswith("<"):
            inside = match[0] != "</bdi>"
        else:
            assert inside


def test_nothing_of_another_state_stays_behind(folder: Path, tmp_path: Path) -> None:
    whole, early = tmp_path / "whole", write_run(tmp_path / "early", SMALL.changed(stop_after=1))
    shutil.copytree(folder, whole)
    (whole / "figures" / "notes.txt").write_text("mine")
    (whole / "figures" / "mine.png").write_bytes(b"mine")
    (whole / "tables" / "mine.csv").write_text("mine")
    (whole / "figures" / "old-name.png").write_bytes(b"old")
    with (whole / "run.report-files").open("a") as made:
        made.write("figures/old-name.png\n../outside.png\nfigures/../../outside.png\nmanifest.json\n")
    (tmp_path / "outside.png").write_bytes(b"another's")
    for name in ("run.sqlite", "manifest.json"):
        shutil.copy(early / name, whole / name)
    for name in ("run.sqlite-wal", "run.sqlite-shm"):
        (whole / name).unlink(missing_ok=True)
    make_report(whole)
    left = {path.name for path in (whole / "figures").iterdir()}
    kept = {
        f"{name}{suffix}"
        for name in ("fig03-prompt-map", "fig04-tsne", "fig05-resonance", "rankings")
        for suffix in (".png", ".svg", ".pdf")
    }
    assert left == kept | {"notes.txt", "mine.png"}
    assert (whole / "tables" / "mine.csv").exists()
    assert (tmp_path / "outside.png").exists()
    assert not (whole / "tables" / "summary.csv").exists()


@pytest.mark.usefixtures("no_figures")
def test_report_that_fails_leaves_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}

    def broken(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(build, "_render", broken)
    with pytest.raises(RuntimeError):
        make_report(folder)
    assert {path: path.read_bytes() for path in before} == before
