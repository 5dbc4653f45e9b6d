"""Where a run's rows lie in its folder, and those of a result that is kept packed for others to read."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path
from typing import Final

from mote.harness.errors import MoteError

STORE_NAME: Final = "run.sqlite"
PACKED_NAME: Final = f"{STORE_NAME}.xz"
"""The rows of a result that is kept for others to read: `xz run.sqlite`."""


def unpack(folder: Path) -> bool:
    """Unpack the rows of a result that is kept packed; return whether there are any. Raises MoteError if it can't."""
    packed = folder / PACKED_NAME
    if not packed.is_file():
        return False
    part = folder / f"{STORE_NAME}.part"
    try:
        with lzma.open(packed) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
        part.replace(folder / STORE_NAME)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise MoteError(f"{packed} could not be unpacked beside itself: {error}") from None
    return True
