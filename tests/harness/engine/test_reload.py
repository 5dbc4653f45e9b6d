"""Weights reloaded in place are those that a fresh engine loads; what lacks tensors is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mote.harness.engine.reload import check_same_tensors, tensors_of
from mote.harness.engine.vllm import Request, VllmEngine, check_options
from mote.harness.errors import MoteError
from mote.harness.files import MODEL_DIR
from mote.harness.recipe.schema import load_recipe
from mote.harness.study.prompts import prompts_of
from mote.harness.sweep.engines import RELOADED, Engines, Loaded
from mote.patches import EMPTY_PROFILE, Edit, Profile
from tests.harness.sweep.scripted_sweep import parents_in


# Two engines and four loads: half a minute alone, and over 200 s beside other work.
@pytest.mark.timeout(1200)
def test_one_engine_answers_as_a_fresh_one_after_each_reload(tmp_path: Path) -> None:
    recipe = load_recipe(
        "demo", ["sampling.temperature=0", "sampling.max_tokens=24", "task.limit=12", "study.controls.retest=0"]
    )
    both = [Loaded(Path(folder), name) for name, folder in parents_in(tmp_path).items()]
    profile = Profile("two", (Edit(1, 3, "suppress"), Edit(2, 7, "suppress")))
    asked = [
        Request(row.prompt_id, row.messages, under, 1)
        for row in prompts_of(recipe)
        for under in (EMPTY_PROFILE, profile)
    ]
    started = []

    def start(folder: Path) -> VllmEngine:
        started.append(folder)
        return VllmEngine(check_options(recipe, str(folder)), recipe.sampling, "<think>", tmp_path / "log")

    engines = Engines(start)
    try:
        engines.prove(both, asked)
        assert (engines.how, len(started)) == (RELOADED, 2), engines.why
        # The prefix cache holds prompts of the other weights: the same prompts have to be computed anew.
        texts = [
            sorted((at, one.raw) for some in engines.of(child).generate(asked) for at, one in some) for child in both
        ]
        assert texts[0] != texts[1]
        assert engines.of(both[0]).parameter_digests() != engines.of(both[1]).parameter_digests()
        lacking = tmp_path / "lacking"
        shutil.copytree(both[1].folder, lacking)
        tensors = load_file(lacking / "model.safetensors")
        tensors.pop("lm_head.weight")
        save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(MoteError, match=r"lacks 'lm_head.weight'"):
            engines.of(Loaded(lacking, "lacking"))
    finally:
        engines.close()


def test_other_tensors_are_refused_by_name(tmp_path: Path) -> None:
    own = tensors_of(MODEL_DIR)
    check_same_tensors(own, MODEL_DIR)
    with pytest.raises(MoteError, match=r"lacks 'model.more', which the engine has"):
        check_same_tensors({**own, "model.more": ("BF16", (1,))}, MODEL_DIR)
    with pytest.raises(MoteError, match=r"has 'lm_head.weight' as BF16 .*, the engine as F32 \[2\]"):
        check_same_tensors({**own, "lm_head.weight": ("F32", (2,))}, MODEL_DIR)
    fewer = {name: one for name, one in own.items() if name != "model.norm.weight"}
    with pytest.raises(MoteError, match=r"has 'model.norm.weight', which the engine has not"):
        check_same_tensors(fewer, MODEL_DIR)
    with pytest.raises(MoteError, match="holds no safetensors file"):
        tensors_of(tmp_path)
