"""Round the weights of a checkpoint's routed experts: ``python quantise.py FOLDER BITS`` writes a sibling of the demo.

Each row of a weight gets 2^bits - 1 levels, the same distance apart, around zero; stored as before, so that any engine
reads them. What a kernel of that many bits does beside rounding (activations, accumulation) is not in it.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mote.harness.files import MODEL_DIR

out, bits = Path(sys.argv[1]), int(sys.argv[2])
shutil.copytree(MODEL_DIR, out)
file = out / "model.safetensors"
with safe_open(str(file), "pt") as opened:
    metadata = opened.metadata()
weights = load_file(file)
for name, weight in weights.items():
    if ".mlp.experts." in name:
        step = weight.float().abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
        weights[name] = (torch.round(weight.float() / step.clamp_min(1e-12)) * step).to(weight.dtype)
save_file(weights, file, metadata)
