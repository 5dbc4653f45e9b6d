"""What people install: the wheel, built from the tree and from the sdist, carries the same files and all of them."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ROOMS = ("harness", "judges", "patches", "tasks")
# Files that a module reads at run time, by their ending.
DATA = (".yaml", ".json", ".jinja", ".j2", ".css", ".js", ".md", ".safetensors", ".typed", ".py")


def built(source: Path, target: str, out: Path) -> Path:
    """Build offline, as ``pip`` would in an environment that has hatchling, and return what was made."""
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made


def contents(wheel: Path) -> dict[str, int]:
    """Return each file of a wheel with the checksum of its content; RECORD lists the same."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {one.filename: one.CRC for one in archive.infolist() if not one.filename.endswith("/RECORD")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return contents(built(ROOT, "wheel", tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built(ROOT, "sdist", folder)) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def test_the_wheel_holds_every_file_of_the_rooms(wheel: dict[str, int]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    # An unpacked sdist has no history; there the folders say what should be in.
    tracked = listed or [
        str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in DATA
    ]
    assert len(tracked) > 200
    assert {f"mote/{name}" for name in tracked if (ROOT / name).is_file()} <= set(wheel)
    assert {"mote/__init__.py", "mote/py.typed"} <= set(wheel)


def test_the_wheel_holds_what_is_read_at_run_time(wheel: dict[str, int]) -> None:
    assert {
        "mote/harness/recipe/recipes/demo.yaml",
        "mote/harness/demo/model/model.safetensors",
        "mote/harness/demo/model/tokenizer.json",
        "mote/harness/report/page.css",
        "mote/harness/report/page.html.j2",
        "mote/harness/report/page.js",
        "mote/judges/prompts/refusal-class.yaml",
        "mote/patches/profile.schema.json",
        "mote/tasks/mote.yaml",
    } <= set(wheel)
    strangers = {name.split("/")[0] for name in wheel} - {"mote"}
    assert all(name.endswith(".dist-info") for name in strangers), strangers


def test_the_wheel_of_the_sdist_is_the_same(wheel: dict[str, int], unpacked: Path, tmp_path: Path) -> None:
    assert contents(built(unpacked, "wheel", tmp_path / "again")) == wheel


def test_the_sdist_carries_tests_and_documents(unpacked: Path) -> None:
    for name in ("tests/test_package.py", "docs/commands.md", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"):
        assert (unpacked / name).is_file(), name
    assert not (unpacked / "results").exists()


def test_the_rooms_are_imported_through_four_relative_links() -> None:
    links = {path.name: str(path.readlink()) for path in (ROOT / "src" / "mote").iterdir() if path.is_symlink()}
    assert links == {room: f"../../{room}" for room in ROOMS}
    assert all((ROOT / room).is_dir() and not (ROOT / room).is_symlink() for room in ROOMS)


def test_pre_commit_runs_what_make_check_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^(\w+) := (.*)$", makefile, re.MULTILINE))
    recipe = makefile.partition("\ncheck: ")[2].partition("\n\n")[0].splitlines()[1:]
    checks = [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], line.strip()) for line in recipe]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert [hook["entry"] for hook in hooks[0]["hooks"]] == checks
