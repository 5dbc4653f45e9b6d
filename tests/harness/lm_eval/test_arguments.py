from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mote.harness.compare.run_answers import read_profile
from mote.harness.demo import MODEL_DIR
from mote.harness.errors import MoteError
from mote.harness.lm_eval.arguments import check_arguments
from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile
from tests.harness.lm_eval.fakes import OPTIONS
from tests.harness.report.written_run import WrittenRun, write_run

pytest.importorskip("vllm")
pytest.importorskip("lm_eval")


def demo_layout() -> ModelLayout:
    return ModelLayout.from_config(json.loads((MODEL_DIR / "config.json").read_text()))


def test_arguments_go_to_the_model_or_to_vllm_by_name(tmp_path: Path) -> None:
    profile = Profile("mine", (Edit(demo_layout().layers[0], 3, "suppress"),), model=demo_layout())
    profile.write(tmp_path / "mine.json")
    found = check_arguments(
        {**OPTIONS, "profile": str(tmp_path / "mine.json"), "seed": 7, "batch_size": 1, "device": "x"}
    )
    assert found.profile == profile
    assert found.seed == found.engine.seed == 7
    assert (found.engine.dtype, found.engine.max_model_len) == ("float32", 256)
    assert found.source.name == "demo"


def test_without_a_profile_the_model_is_untouched() -> None:
    assert check_arguments(OPTIONS).profile == EMPTY_PROFILE


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pretrained": None}, "pretrained= is missing"),
        ({"pretrained": "/no/such/model"}, "model_args: pretrained='/no/such/model' is neither a folder"),
        ({"profil": "x"}, "model_args: profil is neither ours nor an option of vLLM's engine. Did you mean 'profile'?"),
        ({"max_model_length": 9}, "Did you mean 'max_model_len'?"),
        ({"think_end_token": "</think>"}, "think_end_token is not taken: it would drop the reasoning"),
        ({"max_length": 9}, "max_model_len="),
        ({"tokenizer": "x"}, "tokenizer is not taken"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        ({"seed": True}, "seed=True must be a whole number from 0"),
        ({"max_gen_toks": 0}, "max_gen_toks=0 must be a whole number from 1"),
        ({"answer_only": "yes"}, "answer_only='yes' must be True or False"),
        ({"chat_template_args": "x"}, "chat_template_args='x' must be an object"),
        ({"markers": "thinks"}, "markers=thinks is unknown. Did you mean 'think'?"),
        ({"dtype": "float33"}, "model_args"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(given: dict[str, Any], said: str) -> None:
    with pytest.raises(MoteError) as raised:
        check_arguments({**OPTIONS, **given})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_profile_is_refused_by_another_model_and_out_of_range(tmp_path: Path) -> None:
    layout = demo_layout()
    Profile("far", (Edit(layout.layers[0], layout.experts, "suppress"),)).write(tmp_path / "far.json")
    with pytest.raises(MoteError, match=f"the nearest is {layout.experts - 1}"):
        check_arguments({**OPTIONS, "profile": str(tmp_path / "far.json")})
    other = ModelLayout("Qwen3MoeForCausalLM", (0, 1), 8, 2)
    Profile("other", (Edit(0, 1, "suppress"),), model=other).write(tmp_path / "other.json")
    with pytest.raises(MoteError, match="was made for Qwen3MoeForCausalLM"):
        check_arguments({**OPTIONS, "profile": str(tmp_path / "other.json")})


def test_a_profile_is_found_in_a_run_by_name_and_else_the_nearest_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", WrittenRun(prompts=8, controls=1))
    assert read_profile(f"{run}:suppress-10", "--profile ").name == "suppress-10"
    with pytest.raises(MoteError, match=r"has no profile 'supress-10'\. Did you mean 'suppress-10'"):
        read_profile(f"{run}:supress-10", "--profile ")
    with pytest.raises(MoteError, match="is a folder; name a profile"):
        read_profile(str(run), "--profile ")
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(MoteError, match=r"neither a profile file.*Did you mean 'mine.json'?"):
        read_profile(str(tmp_path / "mine.jsn"), "--profile ")
    with pytest.raises(MoteError, match="key 'format' is missing"):
        read_profile(str(tmp_path / "mine.json"), "--profile ")
