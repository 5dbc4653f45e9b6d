"""Triton's interpreter as a device of vLLM, so that what needs Triton runs on a CPU. Import it before vLLM.

vLLM for CPUs turns Triton off where it has no backend for CPUs, and Triton from PyPI has none. The interpreter needs
none: it runs kernels as Python. Naming a backend is all vLLM asks for, and then its Model Runner V2 runs on a CPU too.
Where there is an NVIDIA GPU and no interpreter was asked for, kernels are compiled and run there.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

triton: Any = pytest.importorskip("triton", reason="needs Triton: run `make kernel`")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs TRITON_INTERPRET=1 before Triton is imported: run `make kernel`", allow_module_level=True)

from triton.backends import backends  # type: ignore[import-not-found, unused-ignore] # noqa: E402

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
if INTERPRETED:
    backends.setdefault("cpu", SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True)))
