"""The demo model: corpus, tokenizer, trainer, evaluation, and the packaged checkpoint.

`MODEL_DIR` is the packaged checkpoint, a Hugging Face folder that vLLM loads as it is. `train` makes one from a seed.
The training side imports torch and transformers and is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mote.harness.files import MODEL_DIR

if TYPE_CHECKING:
    from mote.harness.demo.trainer import train as train

__all__ = ["MODEL_DIR", "train"]


def __getattr__(name: str) -> Any:
    # `MODEL_DIR` is needed where no torch is installed (reports, statistics), so the trainer is imported late.
    if name == "train":
        from mote.harness.demo.trainer import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
