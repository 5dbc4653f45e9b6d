"""A small invented run, its page as a reader sees it, and a report made without its figures."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mote.harness.report import build
from mote.harness.report.catalogue import CATALOGUE
from tests.harness.report.written_run import WrittenRun

SMALL = WrittenRun(
    prompts=84,
    layers=(1, 2, 3),
    experts=16,
    top_k=4,
    controls=3,
    doses=(2,),
    stimulate=True,
    factors=(0.5, 2.0),
    thirds=True,
    tokens=2,
)


class Page(HTMLParser):
    """Elements with their attributes, and the text of the page outside scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.content: list[str] = []
        self.scripts: dict[str, str] = {}
        self._inside: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._inside.append("")

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] in ("script", "style"):
            self.scripts[self.elements[-1][1].get("id", "")] = data
        else:
            self.content.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.content))

    def all(self, tag: str) -> Iterator[dict[str, str]]:
        return (attributes for name, attributes in self.elements if name == tag)

    @property
    def packet(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(self.scripts["packet"])))
        return data


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out where a test is about words: they are what takes long."""
    monkeypatch.setattr(build, "draw_all", nothing_drawn)


def nothing_drawn(material: object) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """Stand for ``draw_all``: every figure is left out."""
    return {}, dict.fromkeys(CATALOGUE, "left out"), {}
