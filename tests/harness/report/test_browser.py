"""The report in a real browser: its own script runs, no other does, and nothing is wider than the window.

Skipped where no Chromium is installed; what can be told from the HTML alone is in test_report.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from mote.harness.report import make_report
from tests.harness.report.written_run import WrittenRun, write_run

HOSTILE = (
    "</think><script>document.title='PWNED'</script></bdi></div></article>"
    "<img src=x onerror=\"document.title='PWNED'\">"
    "<style>body{display:none}</style>\u202eevil\u2066 \u05e9\u05dc\u05d5\u05dd \x00 <!-- ]]> {{ 7*7 }} </script>"
    + "x" * 20_000
    + " word" * 6_000
)

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium, which `apt-get install chromium` brings (on other systems, Chrome)"
)

ROOT = Path(__file__).parents[3]
AXE = next(
    (
        path
        for path in (Path(os.environ.get("AXE", "")), ROOT / "node_modules" / "axe-core" / "axe.min.js")
        if path.is_file()
    ),
    None,
)
NO_AXE = "needs axe-core: `npm install --no-save axe-core` in the clone, or AXE=path/to/axe.min.js"

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=15000",
)

# What a test asks of the page: unfold everything, search, and measure.
MEASURE = """
<script>
setTimeout(() => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  document.querySelector("#rows .row").click();
  const rows = document.querySelectorAll("#rows .row").length;
  const all = document.getElementById("count").textContent;
  const wide = [...document.querySelectorAll("body *")]
    .filter((one) => !one.closest(".scroll, nav ol") && one.getBoundingClientRect().right > innerWidth + 1)
    .map((one) => one.tagName + "." + one.className);
  const result = {
    width: innerWidth, content: document.documentElement.scrollWidth, wide: wide.slice(0, 5), rows, all,
    title: document.title, hidden: getComputedStyle(document.body).display,
    images: [...document.images].filter((one) => !one.src.startsWith("data:")).length,
  };
  const words = document.getElementById("pick-words");
  words.value = "Heathrow";
  words.dispatchEvent(new Event("input"));
  setTimeout(() => {
    const changed = document.getElementById("pick-changed");
    result.found = document.getElementById("count").textContent;
    result.questions = [...document.querySelectorAll("#rows .row td:first-child")].map((one) => one.textContent);
    changed.value = "changed";
    changed.dispatchEvent(new Event("change"));
    result.changed = [...document.querySelectorAll("#rows .row td:nth-child(3)")].map((one) => one.textContent);
    parent.postMessage(JSON.stringify(result), "*");
  }, 600);
}, 1500);
</script>
"""


# A window is never narrower than 500 pixels; a frame may be.
FRAME = """<!doctype html><pre id="measured"></pre>
<script>onmessage = (event) => { document.getElementById("measured").textContent = event.data; };</script>
<iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""


def browse(page: Path, profile: Path, width: int) -> str:
    assert BROWSER is not None
    command = [
        BROWSER,
        *OPTIONS,
        f"--user-data-dir={profile}",
        f"--window-size={width},1000",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = WrittenRun(
        prompts=42,
        layers=(1, 2, 3),
        experts=16,
        top_k=4,
        controls=2,
        write=lambda key, profile, label: f"{label} of {profile} {HOSTILE}",
    )
    return make_report(write_run(tmp_path_factory.mktemp("hostile"), run))


def test_only_the_own_script_runs(report: Path, tmp_path: Path) -> None:
    dom = browse(report, tmp_path / "profile", 1400)
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    assert title[1] == "Which experts of written carry refusal?"
    body = re.search(r'<table id="rows">.*?<tbody>(.*?)</tbody>', dom, re.S)
    assert body is not None
    assert body[1].count("<tr") == 25


def asked(report: Path, folder: Path, width: int, script: str, *, css: tuple[str, str] = ("", ""), to: str = "") -> Any:
    """What a script says in a frame of the page: without its policy, with a piece of its style exchanged."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text(encoding="utf-8"))
    assert css[0] in html
    html = html.replace(*css) if css[0] else html
    (folder / "page.html").write_text(html.replace("</body>", script + "</body>"), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("page.html", f"page.html{to}"), encoding="utf-8")
    dom = browse(frame, folder / "profile", 1500)
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.S)
    assert found is not None
    assert found[1], "the page's script did not get to its end"
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_acts_or_overflows_even_without_the_policy(report: Path, tmp_path: Path, width: int) -> None:
    """Escaping alone must hold: the content security policy is taken away before the page is opened."""
    measured: dict[str, Any] = asked(report, tmp_path, width, MEASURE)
    assert measured["title"] == "Which experts of written carry refusal?"
    assert measured["hidden"] == ("grid" if width == 1400 else "block")
    assert measured["images"] == 0
    assert measured["width"] == width
    assert measured["content"] <= width
    assert measured["wide"] == []
    assert measured["rows"] == 25
    assert measured["found"] != measured["all"]
    assert measured["questions"]
    assert all("Heathrow" in question for question in measured["questions"])
    assert measured["changed"]
    assert all(" → " in labels for labels in measured["changed"])


# A4 between the page's margins is 182 mm, 688 CSS pixels; there, nothing scrolls.
PRINT = """
<script>
setTimeout(() => {
  const wide = [...document.querySelectorAll("body *")]
    .filter((one) => one.getClientRects().length && !one.matches(".skip, .unseen"))
    .filter((one) => one.getBoundingClientRect().right > innerWidth + 1 ||
      (one.matches(".scroll, table") && one.scrollWidth > one.clientWidth + 1))
    .map((one) => one.tagName + "." + one.className + " " + one.textContent.slice(0, 40));
  const seen = (name) => document.querySelector(name).getClientRects().length > 0;
  parent.postMessage(JSON.stringify({
    width: innerWidth, wide: wide.slice(0, 5), tables: document.querySelectorAll(".scroll table").length,
    seen: ["nav", "#rows", ".pager", ".only-print", "main table"].filter(seen),
    back: getComputedStyle(document.body).backgroundColor,
  }), "*");
}, 1500);
</script>
"""


def test_no_table_is_cut_on_a4(report: Path, tmp_path: Path) -> None:
    measured = asked(report, tmp_path, 688, PRINT, css=("@media print {", "@media all {"))
    assert measured["width"] == 688
    assert measured["tables"] > 5
    assert measured["wide"] == []
    assert measured["seen"] == [".only-print", "main table"]


def test_the_print_is_a4_and_white_whatever_the_scheme(report: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    target = tmp_path / "print.pdf"
    command = [BROWSER, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={target}"]
    subprocess.run([*command, report.as_uri()], capture_output=True, timeout=120, check=True)
    boxes = set(re.findall(rb"/MediaBox \[([^]]*)\]", target.read_bytes()))
    assert [tuple(round(float(side)) for side in box.split()) for box in boxes] == [(0, 0, 595, 842)]
    # Darkness is asked for on screens only.
    assert report.read_text(encoding="utf-8").count("prefers-color-scheme") == 1
    assert "@media screen and (prefers-color-scheme: dark)" in report.read_text(encoding="utf-8")


# What a reader does without a mouse: the contents, sorting, filters by unit and profile, a row unfolded, its link.
KEYS = """
<script>
setTimeout(() => {
  const column = (n) => [...document.querySelectorAll(`#rows .row td:nth-child(${n})`)].map((one) => one.textContent);
  const pick = (id, word) => {
    const box = document.getElementById(id);
    box.value = [...box.options].find((one) => one.textContent === word).value;
    box.dispatchEvent(new Event("change"));
  };
  const found = { opened: document.querySelectorAll("#rows .detail").length };
  found.focus = document.activeElement.closest(".row") ? "row" : document.activeElement.tagName;
  found.sides = [...document.querySelectorAll("#rows .detail .side p:first-child")].map((one) => one.textContent);
  found.link = document.querySelector("#rows .detail a").hash;
  found.wanted = location.hash;
  const buttons = document.querySelectorAll("#rows .row button[aria-expanded]");
  found.mice = document.querySelectorAll("#rows .row").length - buttons.length;
  document.querySelector('#rows .sort[data-order="profile"]').click();
  found.up = column(2);
  document.querySelector('#rows .sort[data-order="profile"]').click();
  found.down = column(2);
  found.sorted = [...document.querySelectorAll("#rows th")].map((one) => one.getAttribute("aria-sort"));
  pick("pick-profile", "suppress-4");
  pick("pick-unit", "at Heathrow");
  found.profiles = [...new Set(column(2))];
  found.questions = [...new Set(column(1))];
  const nav = document.querySelector("nav");
  // Without frames no browser scrolls smoothly, nor says that it scrolled.
  scrollTo({ top: document.body.scrollHeight / 2, behavior: "instant" });
  dispatchEvent(new Event("scroll"));
  setTimeout(() => {
    found.top = Math.round(nav.getBoundingClientRect().top);
    found.now = document.querySelectorAll("nav [aria-current]").length;
    parent.postMessage(JSON.stringify(found), "*");
  }, 300);
}, 1500);
</script>
"""


@pytest.mark.parametrize("width", [1400, 400])
def test_the_table_sorts_filters_and_finds_a_row_by_its_link(report: Path, tmp_path: Path, width: int) -> None:
    linked = re.search(r'href="(#row/suppress-4/[^"]*)"', report.read_text(encoding="utf-8"))
    assert linked is not None
    found = asked(report, tmp_path, width, KEYS, to=linked[1])
    assert found["opened"] == 1
    assert found["focus"] == "row"
    assert unquote(found["link"]) == unquote(found["wanted"]) == unquote(linked[1])
    # The untouched answer stands first, beside the tuned one.
    assert [side.split()[0] for side in found["sides"]] == ["untouched", "suppress-4"]
    assert found["mice"] == 0
    assert found["up"][0] == "baseline"
    assert found["down"][0] == "suppress-4"
    assert found["sorted"] == ["none", "descending", "none", "none"]
    assert found["profiles"] == ["suppress-4"]
    assert found["questions"]
    assert all("Heathrow" in question for question in found["questions"])
    # The contents stay in sight, and say where one is.
    assert found["top"] == 0
    assert found["now"] == 1


AXE_RUN = """
<script>
setTimeout(async () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  document.querySelector("#rows .row button").click();
  const found = await axe.run(document, { resultTypes: ["violations"] });
  const said = found.violations.map((one) => `${one.impact} ${one.id}: ${one.nodes[0].target} (${one.nodes.length})`);
  parent.postMessage(JSON.stringify({ said, checked: found.passes.length }), "*");
}, 1500);
</script>
"""


@pytest.mark.skipif(AXE is None, reason=NO_AXE)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_axe_finds_nothing(report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    assert AXE is not None
    css = ("@media screen and (prefers-color-scheme: dark)", "@media screen") if scheme == "dark" else ("", "")
    script = f"<script>{AXE.read_text(encoding='utf-8')}</script>{AXE_RUN}"
    found = asked(report, tmp_path, width, script, css=css)
    assert found["checked"] > 10
    assert found["said"] == []
