"""Where a run's rows lie in its folder, and those of a result that is kept packed for others to read."""

from __future__ import annotations

import lzma
import os
import tempfile
from pathlib import Path
from typing import IO, Final

from mote.harness.errors import MoteError

STORE_NAME: Final = "run.sqlite"
PACKED_NAME: Final = f"{STORE_NAME}.xz"
"""The rows of a result that is kept for others to read: `xz run.sqlite`."""

_RATIO: Final = 100
"""The rows of a study with thousands of answers that repeat themselves become 20 times smaller."""
_ALWAYS: Final = 64 << 20
_MEMORY: Final = 192 << 20
"""What unpacking may take: xz's own largest dictionary, of `xz -9`, needs 65 MiB."""
_CHUNK: Final = 1 << 20
_MAGIC: Final = b"SQLite format 3\0"


def unpack(folder: Path) -> bool:
    """Unpack the rows of a result that is kept packed; return whether there are any.

    They may be a stranger's, so they are unpacked up to 100 times their packed size (64 MiB in any case), under a name
    of their own first, which goes again where unpacking fails. Raises MoteError if it can't be done.
    """
    packed, store = folder / PACKED_NAME, folder / STORE_NAME
    if packed.is_symlink() or not packed.is_file():
        return False
    part: str | None = None
    try:
        with packed.open("rb") as source:
            handle, part = tempfile.mkstemp(dir=folder, prefix=f".{STORE_NAME}.")
            with os.fdopen(handle, "wb") as target:
                _unpack(source, target, max(_ALWAYS, _RATIO * os.fstat(source.fileno()).st_size))
        os.chmod(part, 0o666 & ~_umask())
        # Unlike a rename, a link does not take the place of what another process has unpacked and opened meanwhile.
        os.link(part, store)
    except FileExistsError:
        pass
    except (OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise MoteError(f"{packed} could not be unpacked beside itself: {error}") from None
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)
    return True


def _unpack(source: IO[bytes], target: IO[bytes], most: int) -> None:
    decompressor = lzma.LZMADecompressor(memlimit=_MEMORY)
    size, data = 0, b""
    while not decompressor.eof:
        if decompressor.needs_input:
            data = source.read(_CHUNK)
            if not data:
                raise EOFError("it is cut off")
        got = decompressor.decompress(data, _CHUNK)
        data = b""
        if not size and got and not got.startswith(_MAGIC):
            raise ValueError("what is packed in it is no SQLite file")
        size += len(got)
        if size > most:
            raise ValueError(f"it holds more than {most:,} bytes, which no rows of its packed size do")
        target.write(got)
    if not size:
        raise EOFError("it is empty")


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
