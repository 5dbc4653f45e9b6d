"""Logs of Inspect as the provider's answers leave them, written by hand: what is read of them, and no more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mote.patches import Profile


def note(profile: Profile, sham_of: str = "", **more: Any) -> dict[str, Any]:
    """A receipt in an output's metadata."""
    sham = {"of": sham_of, "number": 1, "kind": "layers", "seed": 0} if sham_of else None
    return {"profile": profile.name, "digest": profile.digest, "model": "m", "seed": 1, "sham": sham, **more}


def output(text: str, metadata: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "stop_reason": "stop"}
    return {"model": "demo", "choices": [choice], "metadata": None if metadata is None else {"mote": metadata}}


def sample(name: str, metadata: Any, score: Any, epoch: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "epoch": epoch,
        "input": f"What is {name}?",
        "output": output("Yes.", metadata),
        "scores": {} if score is None else {"match": {"value": score}},
        **more,
    }


def write_log(path: Path, samples: Sequence[dict[str, Any]], task: str = "sums", epochs: int = 1) -> Path:
    header = {"model": "mote/demo@x", "task": task, "config": {"epochs": epochs}}
    path.write_text(json.dumps({"status": "success", "eval": header, "samples": list(samples)}), encoding="utf-8")
    return path
