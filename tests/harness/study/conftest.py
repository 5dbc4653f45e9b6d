"""What all tests of a study share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mote.harness.study import foresight


@pytest.fixture(scope="package", autouse=True)
def quick_power() -> Iterator[None]:
    """Foretell power from few simulated studies: these tests ask where it is written, `science` whether it is right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foresight, "SIMULATIONS", 40)
        yield
