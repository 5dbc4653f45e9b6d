"""Pairs of parents and recipes that cannot be merged: each is one line that says why, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mote.harness.cli import main as cli
from mote.harness.merge.checkpoint import INDEX
from tests.harness.merge.checkpoints import SMALL, random_deepseek, write_checkpoint

SHARD = "model-00002-of-00003.safetensors"
Break = Callable[[Path, dict[str, Any]], object]
"""Breaks parent b's folder, or the recipe."""
CASES: list[tuple[str, Break, str]] = []


def case(said: str) -> Callable[[Break], Break]:
    def keep(function: Break) -> Break:
        CASES.append((function.__name__.strip("_"), function, said))
        return function

    return keep


def in_recipe(name: str, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    CASES.append((name, lambda folder, recipe: change(recipe), said))


def in_config(key: str, value: Any, said: str) -> None:
    CASES.append((f"config_{key}", lambda folder, recipe: _config(folder, **{key: value}), said))


def in_header(name: str, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    CASES.append((f"header_{name}", lambda folder, recipe: _header(folder / SHARD, change), said))


def in_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any], said: str) -> None:
    CASES.append((f"tensors_{name}", lambda folder, recipe: _tensors(folder, change), said))


def _config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def _tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change tensors, and write them as one file."""
    found = {name: one for path in sorted(folder.glob("*.safetensors")) for name, one in load_file(path).items()}
    _remove_weights(folder)
    change(found)
    save_file(found, folder / "model.safetensors")


def _remove_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()


def _index(folder: Path, change: Callable[[dict[str, str]], Any]) -> None:
    content = json.loads((folder / INDEX).read_text())
    change(content["weight_map"])
    (folder / INDEX).write_text(json.dumps(content))


def _first(header: dict[str, Any]) -> Any:
    return next(value for name, value in header.items() if name != "__metadata__")


NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"
UP = "model.layers.1.mlp.experts.2.up_proj.weight"

# The folder.
case("config.json is not there")(lambda folder, recipe: (folder / "config.json").unlink())
case("config.json is not JSON")(lambda folder, recipe: (folder / "config.json").write_text("{"))
case("should hold a JSON object")(lambda folder, recipe: (folder / "config.json").write_text("[]"))
case("has neither model.safetensors.index.json")(lambda folder, recipe: _remove_weights(folder))
case("is neither a folder nor a Hugging Face id")(lambda folder, recipe: shutil.rmtree(folder))


@case("only safetensors are read")
def _bin(folder: Path, recipe: dict[str, Any]) -> None:
    _remove_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")


# The index.
case("has no 'weight_map'")(lambda folder, recipe: (folder / INDEX).write_text("{}"))
case("index.json is not JSON")(lambda folder, recipe: (folder / INDEX).write_text("x"))
case(f"{SHARD} is not there")(lambda folder, recipe: (folder / SHARD).unlink())
case("names 'ghost', which")(lambda folder, recipe: _index(folder, lambda found: found.update(ghost=SHARD)))
case(f"does not name '{NORM}'")(lambda folder, recipe: _index(folder, lambda found: found.pop(NORM)))
case(f"has '{EMBED}' in {SHARD}")(lambda folder, recipe: _index(folder, lambda found: found.update({EMBED: SHARD})))
case("no safetensors file of this folder")(
    lambda folder, recipe: _index(folder, lambda found: found.update({EMBED: "../x.safetensors"}))
)


@case("lies in model-00001-of-00003.safetensors and in")
def _twice(folder: Path, recipe: dict[str, Any]) -> None:
    held = load_file(folder / SHARD) | {EMBED: torch.zeros(2)}
    save_file(held, folder / SHARD)


# A shard.
case("is no safetensors file: of 0 bytes")(lambda folder, recipe: (folder / SHARD).write_bytes(b""))
case("its header claims")(lambda folder, recipe: (folder / SHARD).write_bytes(b"\xff" * 100))
case("its header is not JSON")(lambda folder, recipe: (folder / SHARD).write_bytes((2).to_bytes(8, "little") + b"{]"))
case("its header is no JSON object")(
    lambda folder, recipe: (folder / SHARD).write_bytes((2).to_bytes(8, "little") + b"[]")
)
case("it is cut off")(lambda folder, recipe: (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-1]))
case("or has more in it")(lambda folder, recipe: (folder / SHARD).write_bytes((folder / SHARD).read_bytes() + b"x"))
in_header("type", lambda header: _first(header).update(dtype="Q8"), "is of the type Q8, which is not known")
in_header("fp4", lambda header: _first(header).update(dtype="F4"), "is of the type F4, which is not known")
in_header("shape", lambda header: _first(header).update(shape=[3]), "of shape [3], which are not")
in_header("negative", lambda header: _first(header).update(shape=[-1, -1]), "which are not")
in_header("words", lambda header: _first(header).update(shape=["a"]), "which are not")
in_header("nothing", lambda header: header.update({NORM: None}), "is incomplete")
in_header("no_places", lambda header: _first(header).pop("data_offsets"), "is incomplete")
in_header("odd_places", lambda header: _first(header).update(data_offsets=[1]), "is incomplete")
in_header("metadata", lambda header: header.update(__metadata__={"a": 1}), "no mapping of strings")


@case("the tensor before it ends at")
def _overlap(folder: Path, recipe: dict[str, Any]) -> None:
    def change(header: dict[str, Any]) -> None:
        for value in header.values():
            if "data_offsets" in value:
                begin, end = value["data_offsets"]
                value["data_offsets"] = [begin + 4, end + 4] if begin else [begin, end]

    _header(folder / SHARD, change)


# What cannot be mixed.
for method in ("mxfp4", "gptq", "awq", "bitsandbytes", "compressed-tensors", "modelopt"):
    CASES.append(
        (
            f"method_{method}",
            lambda folder, recipe, method=method: _config(folder, quantization_config={"quant_method": method}),  # type: ignore[misc]
            f"is quantised as '{method}', which cannot be mixed: write it out in bfloat16",
        )
    )
in_config("quantization_config", {"quant_method": "fp8"}, "blocks of [128, 128] are known")
case("weight_block_size [64, 64]")(
    lambda folder, recipe: _config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [64, 64]})
)
in_tensors("no_scale", lambda found: found.pop(f"{UP}_scale_inv"), "has no block scales")
in_tensors("scale_shape", lambda found: found.update({f"{UP}_scale_inv": torch.ones(3, 3)}), "the weight needs F32 of")
in_tensors("scale_type", lambda found: found.update({f"{UP}_scale_inv": torch.ones(1, 2).half()}), "is F16 of shape")
in_tensors("int4", lambda found: found.update({f"{UP}_packed": torch.ones(3, dtype=torch.int32)}), "packed in few bits")
in_tensors("mxfp4", lambda found: found.update({"x_blocks": torch.ones(3, dtype=torch.uint8)}), "packed in few bits")
in_tensors("int8", lambda found: found.update({NORM: torch.ones(256, dtype=torch.int8)}), "is of the type I8")
in_tensors("e5m2", lambda found: found.update({NORM: torch.ones(256).to(torch.float8_e5m2)}), "is of the type F8_E5M2")
in_tensors(
    "fp8_row", lambda found: found.update({NORM: torch.ones(256).to(torch.float8_e4m3fn)}), "has no block scales"
)

# Not of one architecture.
in_config("architectures", ["Glm4MoeForCausalLM"], "of the architecture Glm4MoeForCausalLM")
in_config("num_hidden_layers", 3, "has num_hidden_layers 3, and the base 'a' 2")
in_config("num_hidden_layers", "two", "no whole number under 'num_hidden_layers'")
in_config("n_routed_experts", 8, "has n_routed_experts 8")
in_config("num_experts_per_tok", 2, "has num_experts_per_tok 2")
in_config("hidden_size", 512, "has hidden_size 512")
in_config("vocab_size", 65, "has vocab_size 65")
in_config("first_k_dense_replace", 0, "has first_k_dense_replace 0")
in_tensors("missing", lambda found: found.pop(NORM), f"lacks '{NORM}', which the base 'a' has")
in_tensors(
    "extra", lambda found: found.update({"model.new.weight": torch.ones(2)}), "has 'model.new.weight', which the"
)
in_tensors("shape", lambda found: found.update({NORM: torch.ones(255).bfloat16()}), f"has '{NORM}' in the shape [255]")
in_tensors("scalar", lambda found: found.update({NORM: torch.ones(())}), f"has '{NORM}' in the shape []")
in_tensors("vocabulary", lambda found: found.update({EMBED: torch.ones(65, 256)}), "in the shape [65, 256]")


def _vocabulary(folder: Path, words: list[str], added: tuple[str, ...] = ()) -> None:
    content = {
        "model": {"type": "WordLevel", "vocab": {word: number for number, word in enumerate(words)}},
        "added_tokens": [{"id": len(words) + number, "content": word} for number, word in enumerate(added)],
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))


def _pair_of_vocabularies(folder: Path, ours: list[str], theirs: list[str]) -> None:
    _vocabulary(folder.parent / "a", ours)
    _vocabulary(folder, theirs)


case("another tokenizer: its token 'x' is 1, the base 'a' has it as 0")(
    lambda folder, recipe: _pair_of_vocabularies(folder, ["x", "y"], ["y", "x"])
)
case("the token 'z' is in one vocabulary only")(
    lambda folder, recipe: _pair_of_vocabularies(folder, ["x", "y"], ["x", "y", "z"])
)


@case("is no tokenizer's file")
def _tokenizer_file(folder: Path, recipe: dict[str, Any]) -> None:
    _vocabulary(folder.parent / "a", ["x"])
    (folder / "tokenizer.json").write_text("{}")


# The recipe.
in_recipe("unknown_key", lambda r: r.update(bse="a"), "Did you mean 'base'?")
in_recipe("no_rules", lambda r: r.pop("rules"), "'rules' is missing")
in_recipe("empty_rules", lambda r: r.update(rules=[]), "'rules'")
in_recipe("one_parent", lambda r: r["parents"].pop("b"), "at least 2")
in_recipe("base", lambda r: r.update(base="c"), "base: 'c' is no parent")
in_recipe("tokenizer", lambda r: r.update(tokenizer="c"), "tokenizer: 'c' is no parent")
in_recipe("weights_of", lambda r: r["rules"][0].update(weights={"bb": 1}), "Did you mean 'b'?")
in_recipe("weight", lambda r: r["rules"][0].update(weights={"b": 1.5}), "less than or equal to 1")
in_recipe("sum", lambda r: r["rules"][0].update(weights={"a": 0.5, "b": 0.4}), "add up to 0.9")
in_recipe("nan", lambda r: r["rules"][0].update(weights={"b": float("nan")}), "which is no number (line")
in_recipe("rule_key", lambda r: r["rules"][0].update(group=["all"]), "Did you mean 'groups'?")
in_recipe("group", lambda r: r["rules"][0].update(groups=["router_experts"]), "Did you mean 'routed_experts'?")
in_recipe("pattern", lambda r: r["rules"][0].update(pattern="("), "is not a regular expression")
in_recipe("backwards", lambda r: r["rules"][0].update(layers=["5-2"]), "runs backwards")
in_recipe("both", lambda r: r["rules"][0].update(keep="base"), "either weights")
in_recipe("everything", lambda r: r["rules"][0].pop("groups"), "names no tensors")
in_recipe("threshold", lambda r: r.update(threshold={"distance": "cosine", "above": 0}), "'relative' or 'rms'")
in_recipe("layers", lambda r: r["rules"][0].update(layers=[9]), "the base has the layers 0 to 2")
in_recipe("no_such_group", lambda r: r["rules"][0].update(groups=["other"]), "the base has no tensor of other")
in_recipe("no_such_name", lambda r: r["rules"][0].update(pattern="q_prj"), "no name fits the pattern 'q_prj'")
in_recipe("no_such_expert", lambda r: r["rules"][0].update(experts=[[1, 4]]), "the base has no routed expert (1, 4)")
in_recipe("shadowed", lambda r: r["rules"].append({"groups": ["norms"], "keep": "base"}), "rules.1 decides no tensor")
in_recipe(
    "linear", lambda r: r["rules"][0].update(weights={"b": {"first": 0, "last": 1}}), "goes over layers, and the rule"
)
in_recipe(
    "no_ranking",
    lambda r: r["rules"][0].update(experts={"file": "/nowhere.csv", "top": 3}),
    "'/nowhere.csv' cannot be read",
)
in_recipe("no_run", lambda r: r["rules"][0].update(experts={"run": "/nowhere", "top": 3}), "is not the folder of a run")
in_recipe("hub", lambda r: r["parents"].update(b="owner/nothing"), "Hugging Face did not give it")
in_recipe("revision", lambda r: r["parents"].update(b={"path": r["parents"]["b"], "revision": "x"}), "is a folder, and")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate("ab"):
        write_checkpoint(folder / name, random_deepseek(SMALL, seed), SMALL.config(), shards=3)
    return folder


def run(folder: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, out: str = "child") -> int:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["mote", "merge", str(folder / "recipe.yaml"), "--out", str(folder / out)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def recipe_in(folder: Path) -> dict[str, Any]:
    return {
        "name": "child",
        "parents": {"a": str(folder / "a"), "b": str(folder / "b")},
        "base": "a",
        "rules": [{"groups": ["all"], "weights": {"b": 0.5}}],
    }


@pytest.fixture
def copied(pair: Path, tmp_path: Path) -> Path:
    shutil.copytree(pair, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize(
    ("broken", "said"), [pytest.param(one[1], one[2], id=f"{i}-{one[0]}") for i, one in enumerate(CASES)]
)
def test_a_broken_pair_is_one_line_and_nothing_is_written(
    broken: Break, said: str, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_in(copied)
    broken(copied / "b", recipe)
    assert run(copied, recipe, monkeypatch) == 2
    out, err = capsys.readouterr()
    assert err.startswith("mote: ")
    assert err.count("\n") == 1
    assert said in err
    assert out == ""
    assert not (copied / "child").exists()


def test_the_unbroken_pair_merges(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(copied, recipe_in(copied), monkeypatch) == 0
    assert (copied / "child" / "config.json").is_file()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("a", "lies in, or above, the parent 'a'"),
        ("a/x", "lies in"),
        (".", "lies in"),
        ("full", "is not empty"),
        ("f", "a file"),
    ],
)
def test_a_target_that_is_taken_is_left_alone(
    out: str, said: str, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "full").mkdir()
    (copied / "full" / "thesis.tex").write_text("x")
    (copied / "f").write_text("x")
    before = sorted(copied.rglob("*"))
    recipe = recipe_in(copied)
    (copied / "recipe.yaml").write_text("")
    assert run(copied, recipe, monkeypatch, out) == 2
    assert said in capsys.readouterr().err
    assert sorted(copied.rglob("*")) == sorted({*before, copied / "recipe.yaml"})


def test_another_recipe_does_not_go_on_with_a_child(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_in(copied)
    assert run(copied, recipe, monkeypatch) == 0
    recipe["rules"][0]["weights"]["b"] = 0.4
    assert run(copied, recipe, monkeypatch) == 2
    assert "child of another recipe or other parents" in capsys.readouterr().err


def test_a_full_disk_is_said_before_anything_is_written(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = shutil.disk_usage(copied)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert run(copied, recipe_in(copied), monkeypatch) == 2
    assert "GB are free" in capsys.readouterr().err
    assert not (copied / "child").exists()
