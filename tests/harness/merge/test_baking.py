"""Baked checkpoints as they lie on the disk: which bytes are scaled, in every layout, and that all others are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mote.harness.engine.model import resolve_model
from mote.harness.errors import MoteError
from mote.harness.merge.arithmetic import dequantise
from mote.harness.merge.baking import as_stored, plan_bake
from mote.harness.merge.child import Result, make_child
from mote.harness.merge.schema import BakeRecipe, Parent
from mote.harness.merge.verify import check_child, parentage
from tests.harness.merge.checkpoints import SMALL, random_deepseek, write_checkpoint
from tests.harness.merge.test_child import Tensors, same, tensors_of

Scales = Mapping[tuple[int, int], float]


def made(recipe: BakeRecipe, out: Path, experts: int = SMALL.experts, **options: Any) -> Result:
    return make_child(plan_bake(recipe, experts), out, threads=2, card=lambda plan, record: "", **options)


def baked(model: Path, scales: Scales, out: Path, experts: int) -> Tensors:
    recipe = BakeRecipe(
        name="baked",
        parent=Parent(path=str(model)),
        profile={"name": "p"},
        scales=[(layer, expert, as_stored(factor)) for (layer, expert), factor in scales.items()],
    )
    made(recipe, out, experts)
    check_child(out)
    return tensors_of(out)


def as_wide(values: torch.Tensor, factor: float) -> torch.Tensor:
    # The factor 0 writes zeros without a sign.
    return (values.double() * as_stored(factor)).float().to(values.dtype) if factor else torch.zeros_like(values)


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = random_deepseek(SMALL, 0)
    late = [name for name in tensors if ".experts.2." in name and name.endswith("_scale_inv")]
    apart = {name: tensors[name] for name in (*(name for name in tensors if name not in late), *late)}
    return write_checkpoint(tmp_path_factory.mktemp("deepseek") / "a", apart, SMALL.config(), shards=3)


def test_fp8_scales_its_block_scales_and_zeros_its_codes(deepseek: Path, tmp_path: Path) -> None:
    scales = {(1, 0): 0.0, (1, 1): 0.3, (1, 2): 2.0}
    before, got = tensors_of(deepseek), baked(deepseek, scales, tmp_path / "out", SMALL.experts)
    assert got.keys() == before.keys()
    for name, tensor in before.items():
        pair = next((pair for pair in scales if name.startswith(f"model.layers.1.mlp.experts.{pair[1]}.down_")), None)
        if pair is None or (name.endswith("_scale_inv") and not scales[pair]):
            assert same(got[name], tensor), name
        elif name.endswith("_scale_inv"):
            assert same(got[name], as_wide(tensor, scales[pair])), name
        elif scales[pair]:
            assert same(got[name], tensor), name
        else:
            assert not got[name].view(torch.uint8).any(), name
    name = "model.layers.1.mlp.experts.1.down_proj.weight"
    whole = dequantise(before[name], before[f"{name}_scale_inv"]).double() * as_stored(0.3)
    assert torch.allclose(dequantise(got[name], got[f"{name}_scale_inv"]).double(), whole, rtol=1e-6)


@pytest.mark.parametrize("family", ["glm4", "qwen3", "mixtral", "gpt-oss"])
def test_every_layout_of_experts_is_scaled_where_it_is_and_nowhere_else(
    family: str, checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    model = checkpoints(family)
    experts = resolve_model(str(model)).layout.experts
    scales = {(1, 2): 0.0, (3, 0): 0.3, (3, 5): 1.5}
    before, got = tensors_of(model), baked(model, scales, tmp_path / "out", experts)
    changed = {name for name, tensor in before.items() if not same(got[name], tensor)}
    for (layer, expert), factor in scales.items():
        slices = [name for name in before if f".layers.{layer}." in name and ".experts." in name and _is_output(name)]
        fused = [name for name in slices if f".experts.{expert}." not in name and _is_fused(name)]
        alone = [name for name in slices if f".experts.{expert}." in name]
        assert fused or alone
        for name in alone:
            assert same(got[name], as_wide(before[name], factor)), name
        for name in fused:
            assert same(got[name][expert], as_wide(before[name][expert], factor)), name
            kept = [other for other in range(experts) if (layer, other) not in scales]
            assert same(got[name][kept], before[name][kept]), name
        changed -= {*fused, *alone}
    assert not changed
    if family == "gpt-oss":
        assert not got["model.layers.1.mlp.experts.down_proj_bias"][2].any()


def _is_output(name: str) -> bool:
    return "down_proj" in name or ".w2." in name


def _is_fused(name: str) -> bool:
    return not name.rpartition(".experts.")[2][0].isdigit()


def test_a_bake_is_told_apart_from_its_model_and_from_other_bakes(
    deepseek: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mote.harness import tensors

    # Beyond the size that is hashed whole, samples and headers name a file.
    monkeypatch.setattr(tensors, "_WHOLE", 1 << 8)
    found = [resolve_model(str(deepseek)).files]
    for number, scales in enumerate(({(1, 0): 1.0}, {(1, 0): 0.5}, {(1, 1): 1.0}, {(1, 0): 0.5})):
        baked(deepseek, scales, tmp_path / str(number), SMALL.experts)
        found.append(resolve_model(str(tmp_path / str(number))).files)
    assert found[2] == found[4]
    for name in (name for name in found[0] if name.endswith(".safetensors")):
        assert len({one[name] for one in found[:4]}) == 4, name
    assert "bake.json" not in found[1]


def test_a_bake_says_what_it_was_made_from_and_a_bake_of_it_is_another(deepseek: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    baked(deepseek, {(1, 0): 0.5}, first, SMALL.experts)
    record = json.loads((first / "bake.json").read_text())
    assert record["format"] == "mote-bake/1"
    assert record["recipe"]["scales"] == [[1, 0, 0.5]]
    assert [one.state for one in parentage(record)] == ["the same"]
    baked(first, {(1, 0): 0.5}, second, SMALL.experts)
    name = "model.layers.1.mlp.experts.0.down_proj.weight_scale_inv"
    assert torch.equal(tensors_of(second)[name], tensors_of(deepseek)[name] / 4)
    assert json.loads((second / "bake.json").read_text())["child"]["digest"] != record["child"]["digest"]


def test_a_bake_that_was_stopped_goes_on_and_another_is_refused(deepseek: Path, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def recipe(factor: float) -> BakeRecipe:
        return BakeRecipe(name="b", parent=Parent(path=str(deepseek)), profile={}, scales=[(1, 1, factor)])

    out, done = tmp_path / "out", []

    def stop(count: int) -> None:
        done.append(count)
        if (out / "model-00002-of-00003.safetensors.part").exists():
            raise StoppedError

    with pytest.raises(StoppedError):
        made(recipe(0.5), out, advance=stop)
    assert not (out / "config.json").exists()
    with pytest.raises(MoteError, match="begun with another recipe"):
        made(recipe(0.25), out)
    first = (out / "model-00001-of-00003.safetensors").stat().st_mtime_ns
    made(recipe(0.5), out)
    assert (out / "model-00001-of-00003.safetensors").stat().st_mtime_ns == first
    check_child(out)
    whole = baked(deepseek, {(1, 1): 0.5}, tmp_path / "whole", SMALL.experts)
    assert all(same(tensor, whole[name]) for name, tensor in tensors_of(out).items())
    assert made(recipe(0.5), out).before


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"model.layers.0.mlp.experts.w_out": (4, 8, 8)}, "is not found under a name that is known"),
        ({"model.layers.0.mlp.experts.down_proj": (3, 8, 8)}, "should have the 4 experts first"),
        (
            {
                "model.layers.0.mlp.experts.1.down_proj.weight": (8, 8),
                "talker.model.layers.0.mlp.experts.1.down_proj.weight": (8, 8),
            },
            "is there 2 times",
        ),
    ],
)
def test_a_layout_that_is_not_known_is_refused(tensors: Any, said: str, tmp_path: Path) -> None:
    config = {"architectures": ["X"], "num_hidden_layers": 1}
    made = {name: torch.ones(shape) for name, shape in tensors.items()}
    model = write_checkpoint(tmp_path / "m", made, config)
    with pytest.raises(MoteError, match=said):
        plan_bake(BakeRecipe(name="b", parent=Parent(path=str(model)), profile={}, scales=[(0, 1, 0.5)]), 4)


def test_a_product_that_is_no_number_stops_and_zero_does_not_care(deepseek: Path, tmp_path: Path) -> None:
    tensors = tensors_of(deepseek)
    name = "model.layers.1.mlp.experts.1.down_proj.weight_scale_inv"
    tensors[name].view(-1)[0] = float("inf")
    model = write_checkpoint(tmp_path / "m", tensors, SMALL.config())
    with pytest.raises(MoteError, match="comes out with NaN or infinite"):
        baked(model, {(1, 1): 0.5}, tmp_path / "half", SMALL.experts)
    baked(model, {(1, 1): 0.0}, tmp_path / "none", SMALL.experts)
