"""A function of one's own that classes answers: where its code lies, the digest of that, and the code itself.

Finding a function and its file's digest runs nothing, nor does reading a recipe that names one. ``load_function`` runs
the file, and is called for what a user names herself: her recipe, or an option of her command. A run's manifest is
never handed to it.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from mote.harness.errors import MoteError, nearest
from mote.judges.functions import Classify
from mote.reading import UnreadableError, read_bytes

_NAMED: Final = re.compile(r"(?P<where>[^:]+|.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)")
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MOST_BYTES: Final = 4 << 20


class Named(NamedTuple):
    """A function as a recipe names it: a file's path or a module's dotted name, and the name within."""

    where: str
    name: str

    @property
    def is_file(self) -> bool:
        """Whether ``where`` is a path, not a module."""
        return self.where.endswith(".py")

    @property
    def called(self) -> str:
        """What evidence and errors call the function: ``mine.py:classify``, wherever the file lies."""
        return f"{Path(self.where).name if self.is_file else self.where}:{self.name}"


def parse_function(text: str) -> Named:
    """Return the parts of ``FILE.py:NAME`` or ``package.module:NAME``. Raises ValueError for any other text."""
    found = _NAMED.fullmatch(text) if text.isprintable() else None
    if found is None or not (found["where"].endswith(".py") or _MODULE.fullmatch(found["where"])):
        raise ValueError(f"the function {text[:120]!r} is neither FILE.py:NAME nor package.module:NAME")
    return Named(found["where"], found["name"])


def function_digest(text: str) -> str:
    """Return the sha256 (hex) of the file that a function stands in; runs nothing. Raises MoteError as it is read."""
    return hashlib.sha256(_source(parse_function(text))[1]).hexdigest()


def load_function(text: str, sha256: str) -> Classify:
    """Run the file of a function, which is code, and return the function.

    Raises MoteError where the file is not the one of that digest, where it does not run, and where it has no such
    function.
    """
    named = parse_function(text)
    path, source = _source(named)
    if hashlib.sha256(source).hexdigest() != sha256:
        raise MoteError(f"task.classes.function: {path} is another file than the one of the digest {sha256[:8]}.")
    try:
        module = _module_of(path, source, sha256) if named.is_file else importlib.import_module(named.where)
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:200]
        raise MoteError(f"task.classes.function: {path} does not run: {type(error).__name__}: {said}") from error
    found = getattr(module, named.name, None)
    if not callable(found):
        names = [name for name, one in vars(module).items() if callable(one) and not name.startswith("_")]
        raise MoteError(f"task.classes.function: {path} has no function '{named.name}'.{nearest(named.name, names)}")
    classify: Classify = found
    return classify


def _source(named: Named) -> tuple[Path, bytes]:
    path = Path(named.where) if named.is_file else _file_of_module(named.where)
    try:
        return path, read_bytes(path, _MOST_BYTES)
    except UnreadableError as error:
        raise MoteError(f"task.classes.function: {path} {error}.") from None


def _file_of_module(dotted: str) -> Path:
    """Find a module's file without importing its packages, which would run them."""
    path, at, spec = None, "", None
    for part in dotted.split("."):
        at = f"{at}.{part}".lstrip(".")
        spec = PathFinder.find_spec(at, path)
        if spec is None:
            raise MoteError(f"task.classes.function: there is no module '{at}' here.")
        path = spec.submodule_search_locations
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise MoteError(f"task.classes.function: the module '{dotted}' is no Python file.")
    return Path(spec.origin)


def _module_of(path: Path, source: bytes, sha256: str) -> ModuleType:
    """Run the very bytes that were digested, under a name that no other module has."""
    module = ModuleType(f"mote_own_{sha256[:16]}")
    module.__file__ = str(path)
    # Dataclasses and the like look their module up.
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own code, as she asked
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module
