"""What to install where a package is missing: a plain install has reports and statistics, and no engine."""

from __future__ import annotations

from typing import Final

ENGINE: Final = 'for a GPU `pip install ".[vllm]"`, for a CPU `make .venv` (docs/installing.md), both in a clone'
EXTRAS: Final = {
    "vllm": ENGINE,
    "torch": ENGINE,
    "transformers": f'{ENGINE}; for servers elsewhere `pip install ".[server]"`',
    "safetensors": ENGINE,
    "openai": '`pip install ".[judge]"` for judges, `pip install ".[server]"` for a study on servers, in a clone',
    "datasets": '`pip install ".[judge]"` in a clone',
    "krippendorff": '`pip install ".[judge]"` in a clone',
    "tenacity": '`pip install ".[judge]"` in a clone',
    "inspect_ai": '`pip install ".[inspect]"` in a clone',
    "lm_eval": '`pip install ".[lm-eval]"` in a clone',
    "accelerate": '`pip install ".[smollm]"` in a clone',
    "optuna": '`pip install ".[search]"` in a clone',
    "gguf": '`pip install ".[smollm]"` in a clone',
}


def hint(error: ModuleNotFoundError) -> str | None:
    """Return what to install for a module that is not there; None for one that no extra brings: that is our mistake."""
    name = (error.name or "").partition(".")[0]
    return f"this needs {name}, which is not installed: {EXTRAS[name]}." if name in EXTRAS else None
