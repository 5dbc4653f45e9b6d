"""Children are told apart by the digests that name a model's files, below and above what is hashed whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from mote.harness import tensors
from mote.harness.engine.model import resolve_model
from mote.harness.merge.child import make_child
from mote.harness.merge.plan import make_plan
from mote.harness.merge.schema import MergeRecipe
from tests.harness.sweep.scripted_sweep import parents_in


@pytest.mark.parametrize("whole", [1 << 28, 1 << 12])
def test_children_of_neighbouring_proportions_have_other_digests(
    whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "_WHOLE", whole)
    parents = parents_in(tmp_path)
    found = []
    for number, weight in enumerate((0.5, 0.5, 0.501)):
        content = {"name": "child", "parents": parents, "base": "a"}
        rules = [{"groups": ["routed_experts"], "weights": {"b": weight}}]
        out = tmp_path / f"child-{number}"
        make_child(make_plan(MergeRecipe.model_validate({**content, "rules": rules})), out)
        found.append(resolve_model(str(out)).files)
    assert found[0] == found[1]
    assert found[0]["model.safetensors"] != found[2]["model.safetensors"]
    assert found[0]["model.safetensors"].startswith("size:") == (whole < 1 << 20)
