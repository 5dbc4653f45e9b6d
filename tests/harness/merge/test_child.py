"""Children as they lie on the disk: whose bytes they have, in every layout, and what they say of themselves."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mote.harness.engine.model import resolve_model
from mote.harness.errors import MoteError
from mote.harness.merge.arithmetic import dequantise, quantise
from mote.harness.merge.child import Result, make_child
from mote.harness.merge.difference import distances, open_pair, summed, write_distances
from mote.harness.merge.plan import Plan, make_plan
from mote.harness.merge.schema import MergeRecipe
from mote.harness.merge.verify import check_child, parentage
from tests.harness.merge.checkpoints import SMALL, random_deepseek, write_checkpoint

Tensors = dict[str, torch.Tensor]
ALL = [{"groups": ["all"], "weights": {"b": 0.5}}]


def recipe(parents: Mapping[str, Path], rules: list[dict[str, Any]], **more: Any) -> MergeRecipe:
    content = {"name": "child", "parents": {name: str(path) for name, path in parents.items()}, "base": "a"}
    return MergeRecipe.model_validate(content | {"rules": rules} | more)


def merged(
    parents: Mapping[str, Path], rules: list[dict[str, Any]], out: Path, **more: Any
) -> tuple[Tensors, Result, Plan]:
    plan = make_plan(recipe(parents, rules, **more))
    result = make_child(plan, out, threads=2)
    check_child(out)
    return tensors_of(out), result, plan


def tensors_of(folder: Path) -> Tensors:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and bool(
        np.array_equal(left.contiguous().view(torch.uint8).numpy(), right.contiguous().view(torch.uint8).numpy())
    )


def _scales_apart(tensors: Tensors) -> Tensors:
    """Put some scales at the end, so that they lie in another shard than their weights."""
    late = [name for name in tensors if name.endswith("_scale_inv") and ".layers.0." in name]
    return {name: tensors[name] for name in (*(name for name in tensors if name not in late), *late)}


@pytest.fixture(scope="module")
def deepseeks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("deepseek")
    return {
        name: write_checkpoint(folder / name, _scales_apart(random_deepseek(SMALL, seed)), SMALL.config(), shards=3)
        for seed, name in enumerate("abc")
    }


@pytest.mark.parametrize("weight", [0, 1])
def test_weights_0_and_1_give_the_parents_bytes_fp8_too(
    weight: int, deepseeks: dict[str, Path], tmp_path: Path
) -> None:
    got, _, plan = merged(
        {"a": deepseeks["a"], "b": deepseeks["b"]}, [{"groups": ["all"], "weights": {"b": weight}}], tmp_path / "child"
    )
    wanted = tensors_of(deepseeks["ab"[weight]])
    assert got.keys() == wanted.keys()
    assert [name for name in got if not same(got[name], wanted[name])] == []
    assert plan.bytes_of("mixed") == plan.bytes_of("converted") == 0
    assert plan.total == sum(tensor.nbytes for tensor in wanted.values())
    index = "model.safetensors.index.json"
    assert (tmp_path / "child" / index).read_bytes() == (deepseeks["a"] / index).read_bytes()


def test_the_r1t_pattern_takes_routed_experts_only(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    got, _, _ = merged(
        {"a": deepseeks["a"], "b": deepseeks["b"]},
        [{"groups": ["routed_experts"], "weights": {"b": 1}}],
        tmp_path / "child",
    )
    first, second = (tensors_of(deepseeks[name]) for name in "ab")
    for name, tensor in got.items():
        ours = ".mlp.experts." in name and ".layers.2." not in name  # layer 2 predicts a further token
        assert same(tensor, (second if ours else first)[name]), name


def test_fp8_weights_are_mixed_as_what_they_stand_for_wherever_their_scales_lie(
    deepseeks: dict[str, Path], tmp_path: Path
) -> None:
    got, _, plan = merged({"a": deepseeks["a"], "b": deepseeks["b"]}, ALL, tmp_path / "child")
    apart = [
        name
        for name, entry in plan.base.tensors.items()
        if name.endswith("_scale_inv") and plan.base.tensors[name.removesuffix("_scale_inv")].file != entry.file
    ]
    assert apart, "no weight of this checkpoint has its scales in another shard"
    first, second = (tensors_of(deepseeks[name]) for name in "ab")
    for name, tensor in got.items():
        if tensor.dtype == torch.float8_e4m3fn:
            scale = f"{name}_scale_inv"
            plain = [dequantise(one[name], one[scale]) for one in (first, second)]
            codes, scales = quantise(torch.lerp(plain[0], plain[1], 0.5))
            assert same(tensor, codes), name
            assert same(got[scale], scales), name
        elif not name.endswith("_scale_inv"):
            exact = (0.5 * first[name].double() + 0.5 * second[name].double()).float().to(tensor.dtype)
            assert same(tensor, exact), name
    assert got["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32


def _plain(tensors: Tensors) -> Tensors:
    return {
        name: dequantise(tensor, tensors[f"{name}_scale_inv"]).bfloat16()
        if tensor.dtype == torch.float8_e4m3fn
        else tensor
        for name, tensor in tensors.items()
        if not name.endswith("_scale_inv")
    }


def _fused(tensors: Tensors) -> Tensors:
    """Return a checkpoint with experts as transformers 5 holds them."""
    found = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    stems = {name.partition(".experts.")[0] for name in tensors if ".experts." in name}
    for stem in sorted(stems):
        experts = {part: [] for part in ("gate", "up", "down")}  # type: dict[str, list[torch.Tensor]]
        for expert in range(SMALL.experts):
            for part, listed in experts.items():
                listed.append(tensors[f"{stem}.experts.{expert}.{part}_proj.weight"])
        both = [torch.cat(pair) for pair in zip(experts["gate"], experts["up"], strict=True)]
        found[f"{stem}.experts.gate_up_proj"] = torch.stack(both)
        found[f"{stem}.experts.down_proj"] = torch.stack(experts["down"])
    return found


@pytest.mark.parametrize("base_fused", [False, True])
def test_parents_with_fused_and_with_single_experts_give_one_child(
    base_fused: bool, deepseeks: dict[str, Path], tmp_path: Path
) -> None:
    config = SMALL.config() | {"quantization_config": None}
    plain = [_plain(tensors_of(deepseeks[name])) for name in "ab"]
    folders = {
        (name, fused): write_checkpoint(tmp_path / f"{name}-{fused}", _fused(one) if fused else one, config)
        for name, one in zip("ab", plain, strict=True)
        for fused in (False, True)
    }
    rules: list[dict[str, Any]] = [
        {"experts": [[1, 2]], "groups": ["routed_experts"], "weights": {"b": 1}},
        {"groups": ["routed_experts", "mtp"], "weights": {"b": 0.25}},
    ]
    alike, _, _ = merged({name: folders[name, False] for name in "ab"}, rules, tmp_path / "alike")
    crossed, _, _ = merged(
        {"a": folders["a", base_fused], "b": folders["b", not base_fused]}, rules, tmp_path / "crossed"
    )
    wanted = _fused(alike) if base_fused else alike
    assert crossed.keys() == wanted.keys()
    assert [name for name in wanted if not same(crossed[name], wanted[name])] == []
    assert same(
        alike["model.layers.1.mlp.experts.2.up_proj.weight"], plain[1]["model.layers.1.mlp.experts.2.up_proj.weight"]
    )


def test_an_fp8_base_takes_a_bfloat16_parent(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    config = SMALL.config() | {"quantization_config": None}
    other = write_checkpoint(tmp_path / "b", _plain(tensors_of(deepseeks["b"])), config)
    got, _, plan = merged(
        {"a": deepseeks["a"], "b": other}, [{"groups": ["attention"], "weights": {"b": 1}}], tmp_path / "child"
    )
    name = "model.layers.0.self_attn.q_b_proj.weight"
    codes, scales = quantise(load_file(other / "model.safetensors")[name].float())
    assert same(got[name], codes)
    assert same(got[f"{name}_scale_inv"], scales)
    assert plan.tensors["attention", "converted"] == 10


@pytest.mark.parametrize("experts_of", ["fused", "one a tensor"])
def test_fused_fp8_experts_are_read_with_their_own_scales(experts_of: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    stem, experts, rows = "model.layers.0.mlp.experts", 3, 192  # an expert's last block has 64 rows
    values = torch.randn(experts, 256, rows, generator=generator) * torch.tensor([1.0, 30.0, 0.1]).view(3, 1, 1)
    down = values.transpose(1, 2).contiguous()
    pairs = [quantise(one) for one in down]
    other = {f"{stem}.down_proj": torch.stack([codes for codes, _ in pairs])}
    other[f"{stem}.down_proj_scale_inv"] = torch.stack([scales for _, scales in pairs])
    zeros = torch.zeros(experts, rows, 256, dtype=torch.bfloat16)
    base = {f"{stem}.down_proj": zeros}
    if experts_of == "one a tensor":
        base = {f"{stem}.{expert}.down_proj.weight": zeros[expert].clone() for expert in range(experts)}
    config = {"architectures": ["X"], "num_hidden_layers": 1}
    parents = {
        "a": write_checkpoint(tmp_path / "a", base, config),
        "b": write_checkpoint(tmp_path / "b", other, config),
    }
    got, _, _ = merged(parents, ALL, tmp_path / "child")
    for expert, (codes, scales) in enumerate(pairs):
        wanted = (dequantise(codes, scales).double() / 2).float().bfloat16()
        found = got[f"{stem}.down_proj"][expert] if experts_of == "fused" else got[f"{stem}.{expert}.down_proj.weight"]
        assert torch.equal(found, wanted)  # but for the sign of a zero


def test_gpt_oss_experts_are_slices(checkpoints: Any, tmp_path: Path) -> None:
    from tests.tiny_models import make_model

    first, second = checkpoints("gpt-oss"), make_model("gpt-oss", tmp_path / "b", seed=9)
    got, _, _ = merged(
        {"a": first, "b": second}, [{"experts": [[2, 5], [3, 0]], "weights": {"b": 1}}], tmp_path / "child"
    )
    left, right = tensors_of(first), tensors_of(second)
    for name, tensor in got.items():
        wanted = left[name].clone()
        for layer, expert in ((2, 5), (3, 0)):
            if f".layers.{layer}.mlp.experts." in name:
                wanted[expert] = right[name][expert]
        assert same(tensor, wanted), name


def test_three_parents_layers_and_linear_weights(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [
        {"groups": ["norms"], "layers": [1], "keep": "base"},
        {"groups": ["norms"], "layers": ["0-1"], "weights": {"b": {"first": 0.5, "last": 1.0}, "c": 0}},
        {"pattern": r"embed_tokens\.weight$", "weights": {"b": 0.25, "c": 0.5}},
        {"groups": ["head"], "weights": {"a": 0, "b": 0.5, "c": 0.5}},
    ]
    got, _, _ = merged({name: deepseeks[name] for name in "abc"}, rules, tmp_path / "child")
    one, two, three = (tensors_of(deepseeks[name]) for name in "abc")
    norm = "input_layernorm.weight"
    assert same(got[f"model.layers.1.{norm}"], one[f"model.layers.1.{norm}"])
    assert same(
        got[f"model.layers.0.{norm}"], torch.lerp(one[f"model.layers.0.{norm}"], two[f"model.layers.0.{norm}"], 0.5)
    )
    name = "model.embed_tokens.weight"
    exact = 0.25 * one[name].double() + 0.25 * two[name].double() + 0.5 * three[name].double()
    assert same(got[name], exact.float().bfloat16())
    assert same(got["lm_head.weight"], torch.lerp(two["lm_head.weight"], three["lm_head.weight"], 0.5))


@pytest.mark.parametrize("distance", ["relative", "rms"])
def test_a_threshold_takes_what_is_far_and_names_the_groups_that_it_cuts(
    distance: str, deepseeks: dict[str, Path], tmp_path: Path
) -> None:
    frame = distances(*open_pair(str(deepseeks["a"]), str(deepseeks["b"]))[:2])
    cut = float(frame[frame["group"] == "routed_experts"][distance].median())
    rules = [{"groups": ["all"], "weights": {"b": 1}}]
    got, result, _ = merged(
        {"a": deepseeks["a"], "b": deepseeks["b"]},
        rules,
        tmp_path / "child",
        threshold={"distance": distance, "above": cut},
    )
    first, second = (tensors_of(deepseeks[name]) for name in "ab")
    for row in frame.to_dict("records"):
        wanted = second if row[distance] > cut else first
        for name in (row["tensor"], f"{row['tensor']}_scale_inv"):
            assert name not in got or same(got[name], wanted[name]), name
    found = result.record["threshold"]
    assert "routed_experts" in found["cut"]
    assert sum(one["taken"] for one in found["groups"].values()) == int((frame[distance] > cut).sum())


def test_a_file_s_ranking_names_experts(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("layer,expert,score\n1,3,9\n1,0,5\n1,1,2\n")
    (tmp_path / "r.json").write_text("[[1, 3], [1, 0], [1, 1]]")
    (tmp_path / "p.json").write_text(
        json.dumps({"edits": [{"layer": 1, "expert": 3, "action": "suppress"}, {"layer": 1, "expert": 0}]})
    )
    parents = {"a": deepseeks["a"], "b": deepseeks["b"]}
    children = [
        merged(
            parents, [{"experts": {"file": str(tmp_path / file), "top": 2}, "weights": {"b": 1}}], tmp_path / file[:3]
        )[0]
        for file in ("r.csv", "r.json", "p.json")
    ]
    first, second = (tensors_of(deepseeks[name]) for name in "ab")
    for child in children:
        for name, tensor in child.items():
            ours = name.startswith(("model.layers.1.mlp.experts.3.", "model.layers.1.mlp.experts.0."))
            assert same(tensor, (second if ours else first)[name]), name


@pytest.mark.parametrize("stored", [False, True])
def test_tied_embeddings_stay_tied(stored: bool, deepseeks: dict[str, Path], tmp_path: Path) -> None:
    config = SMALL.config() | {"tie_word_embeddings": True}
    parents = {}
    for name in "ab":
        tensors = tensors_of(deepseeks[name])
        if stored:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        else:
            del tensors["lm_head.weight"]
        parents[name] = write_checkpoint(tmp_path / name, tensors, config)
    got, _, _ = merged(parents, ALL, tmp_path / "child")
    if stored:
        assert same(got["lm_head.weight"], got["model.embed_tokens.weight"])
        with pytest.raises(MoteError, match="ties its head"):
            make_plan(recipe(parents, [{"groups": ["embeddings"], "weights": {"b": 1}}]))
    else:
        assert "lm_head.weight" not in got
        with pytest.raises(MoteError, match="head is tied to the embeddings"):
            make_plan(recipe(parents, [{"groups": ["head"], "weights": {"b": 1}}]))


def test_a_parent_that_ties_gives_its_embeddings_as_the_head(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    tensors = tensors_of(deepseeks["b"])
    del tensors["lm_head.weight"]
    tied = write_checkpoint(tmp_path / "b", tensors, SMALL.config() | {"tie_word_embeddings": True})
    got, _, _ = merged({"a": deepseeks["a"], "b": tied}, [{"groups": ["head"], "weights": {"b": 1}}], tmp_path / "c")
    assert same(got["lm_head.weight"], tensors["model.embed_tokens.weight"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.self_attn.o_proj.weight"])
def test_a_result_that_is_no_number_stops_with_the_tensor_s_name(
    bad: float, name: str, deepseeks: dict[str, Path], tmp_path: Path
) -> None:
    tensors = tensors_of(deepseeks["b"])
    broken = f"{name}_scale_inv" if f"{name}_scale_inv" in tensors else name
    tensors[broken].view(-1)[0] = bad
    other = write_checkpoint(tmp_path / "b", tensors, SMALL.config())
    plan = make_plan(recipe({"a": deepseeks["a"], "b": other}, ALL))
    with pytest.raises(MoteError, match=f"'{name}' comes out with NaN or infinite"):
        make_child(plan, tmp_path / "child")
    assert not (tmp_path / "child" / "config.json").exists()


def test_a_page_that_the_disk_loses_is_no_child_and_is_told(
    deepseeks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(recipe({"a": deepseeks["a"], "b": deepseeks["b"]}, ALL))
    told, fsync = Event(), os.fsync

    def lose(file: int) -> None:
        # As a system does: the error is told once, and the next fsync hears nothing of it.
        if told.is_set() or current_thread().name != "flush":
            return fsync(file)
        told.set()
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lose)
        with pytest.raises(MoteError, match=r"Input/output error\. The same command goes on when that is mended"):
            make_child(plan, tmp_path / "child", advance=lambda count: wait_for(told))
    assert not list((tmp_path / "child").glob("*.safetensors"))
    make_child(plan, tmp_path / "child")
    check_child(tmp_path / "child")


def wait_for(event: Event) -> None:
    assert event.wait(10)


def test_a_child_says_what_it_was_made_from(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    parents = {"a": deepseeks["a"], "b": deepseeks["b"]}
    (deepseeks["a"] / "generation_config.json").write_text('{"of": "a"}')
    (deepseeks["b"] / "tokenizer_config.json").write_text('{"of": "b"}')
    _, result, plan = merged(parents, ALL, tmp_path / "child", tokenizer="b")
    record = json.loads((tmp_path / "child" / "merge.json").read_text())
    assert record == result.record
    assert record["recipe"]["rules"][0]["weights"] == {"b": 0.5}
    assert record["parents"]["a"]["files"].keys() == {shard.path.name for shard in plan.base.shards}
    assert [one.state for one in parentage(record)] == ["the same", "the same"]
    card = (tmp_path / "child" / "README.md").read_text()
    assert "`a`: a (the base)" in card
    assert str(tmp_path) not in card
    assert (tmp_path / "child" / "tokenizer_config.json").is_file()
    assert not (tmp_path / "child" / "generation_config.json").exists()
    assert not list((tmp_path / "child").glob("*.part"))
    assert not (tmp_path / "child" / "merge.journal").exists()
    again = make_child(make_plan(recipe(parents, ALL, tokenizer="b")), tmp_path / "child")
    assert again.before
    assert again.record == record


def test_check_names_the_file_that_changed(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "child"
    merged({"a": deepseeks["a"], "b": deepseeks["b"]}, ALL, out)
    shard = out / "model-00002-of-00003.safetensors"
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(MoteError, match="model-00002-of-00003"):
        check_child(out)
    shard.unlink()
    with pytest.raises(MoteError, match="is not there"):
        check_child(out)
    with pytest.raises(MoteError, match="holds no merge"):
        check_child(deepseeks["a"])


def test_children_of_other_recipes_or_parents_have_other_digests(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    copied = [{"groups": ["norms"], "weights": {"b": 0}}]  # the base's weights, all of them
    merged({"a": deepseeks["a"], "b": deepseeks["b"]}, copied, tmp_path / "one")
    merged({"a": deepseeks["a"], "b": deepseeks["c"]}, copied, tmp_path / "two")
    merged({"a": deepseeks["a"], "b": deepseeks["b"]}, copied, tmp_path / "three")
    one, two, three = (resolve_model(str(tmp_path / name)).files for name in ("one", "two", "three"))
    shards = [name for name in one if name.endswith(".safetensors")]
    assert all(one[name] != two[name] for name in shards)
    assert one == three


def test_diff_adds_up_and_is_drawn(deepseeks: dict[str, Path], tmp_path: Path) -> None:
    left, right, _ = open_pair(str(deepseeks["a"]), str(deepseeks["b"]))
    frame = distances(left, right, threads=2)
    assert set(frame["tensor"]) == set(_plain(tensors_of(deepseeks["a"])))
    row = frame[frame["tensor"] == "model.layers.1.mlp.experts.2.up_proj.weight"].iloc[0]
    assert (row["layer"], row["expert"], row["group"]) == (1, 2, "routed_experts")
    pair = [tensors_of(deepseeks[name]) for name in "ab"]
    a, b = (dequantise(one[row["tensor"]], one[f"{row['tensor']}_scale_inv"]).double() for one in pair)
    assert row["relative"] == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-5)
    assert row["rms"] == pytest.approx(float((b - a).square().mean().sqrt()), rel=1e-5)
    groups = summed(frame, ["group"]).set_index("group")
    own = frame[frame["group"] == "attention"]
    whole = (own["squares_apart"].sum() / own["squares"].sum()) ** 0.5
    assert groups.loc["attention", "relative"] == pytest.approx(whole)
    names = {path.name for path in write_distances(frame, tmp_path / "out")}
    assert names == {"distances.parquet", "groups.csv", "layers.csv", "experts.csv", "distances.svg"}
    assert b"<svg" in (tmp_path / "out" / "distances.svg").read_bytes()
    same_pair = distances(*open_pair(str(deepseeks["a"]), str(deepseeks["a"]))[:2])
    assert (same_pair["relative"] == 0).all()
