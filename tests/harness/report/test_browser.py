"""The report in a real browser: its own script runs, no other does, and nothing is wider than the window.

Skipped where no Chromium is installed; what can be told from the HTML alone is in test_report.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

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
    BROWSER is None, reason="no Chromium is in reach: `apt-get install chromium`, or have google-chrome on the PATH"
)

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=5000",
)

# What a test asks of the page: unfold everything, search, and measure.
MEASURE = """
<script>
setTimeout(() => {
  for (const one of document.querySelectorAll("details")) one.open = true;
  document.querySelector("#rows tbody tr").click();
  const rows = document.querySelectorAll("#rows tbody tr").length;
  const all = document.getElementById("count").textContent;
  const wide = [...document.querySelectorAll("body *")]
    .filter((one) => !one.closest(".scroll") && one.getBoundingClientRect().right > innerWidth + 1)
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
    result.questions = [...document.querySelectorAll("#rows tbody tr td:first-child")].map((one) => one.textContent);
    changed.value = "changed";
    changed.dispatchEvent(new Event("change"));
    result.changed = [...document.querySelectorAll("#rows tbody tr td:nth-child(3)")].map((one) => one.textContent);
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


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_acts_or_overflows_even_without_the_policy(report: Path, tmp_path: Path, width: int) -> None:
    """Escaping alone must hold: the content security policy is taken away before the page is opened."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text(encoding="utf-8"))
    page = tmp_path / "page.html"
    page.write_text(html.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    dom = browse(frame, tmp_path / "profile", 1500)
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.S)
    assert found is not None
    assert found[1], "the page's script did not get to its end"
    measured: dict[str, Any] = json.loads(unescape(found[1]))
    assert measured["title"] == "Which experts of written carry refusal?"
    assert measured["hidden"] == "block"
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
