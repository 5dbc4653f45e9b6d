"""Model arguments of the provider: a mistake is one line, before anything is asked or started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mote.harness.errors import MoteError
from mote.harness.inspect_ai.arguments import check_arguments
from mote.harness.inspect_ai.own_server import arguments_of
from mote.harness.inspect_ai.sampling import params_of
from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile
from tests.test_docs import ROOT

URL = "http://127.0.0.1:1/v1"
RUN = f"{ROOT / 'results' / 'demo'}:suppress-10"


def test_the_label_keeps_profiles_apart_and_is_no_part_of_the_model() -> None:
    plain, tuned = check_arguments("demo", None, {}), check_arguments("demo", None, {"profile": RUN})
    sham = check_arguments("demo", None, {"profile": RUN, "sham": 2})
    assert plain.label == f"demo@baseline-{EMPTY_PROFILE.digest[:8]}"
    assert len({one.label for one in (plain, tuned, sham)}) == 3
    assert sham.sham is not None
    assert sham.sham.of == tuned.profile.digest != sham.profile.digest
    for one, given in ((plain, {}), (tuned, {"profile": RUN}), (sham, {"profile": RUN, "sham": 2})):
        # Inspect tries an evaluation again with the model's name as its log has it.
        assert check_arguments(one.label, None, given) == one


def test_engine_options_are_the_servers_own() -> None:
    given = {"dtype": "float32", "enforce_eager": True, "enable_prefix_caching": False, "max_model_len": 256, "seed": 3}
    found = check_arguments("demo", None, given)
    assert found.seed == 3
    assert arguments_of(found.server) == (
        *("--dtype", "float32", "--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", "256"),
    )


@pytest.mark.parametrize(
    ("name", "url", "given", "said"),
    [
        ("demo", URL, {"dtype": "float32"}, "dtype is not ours, and the server at"),
        ("demo", URL, {"profil": RUN}, "Did you mean 'profile'"),
        ("demo", None, {"port": 8000}, "port is not taken: a server of our own takes a free one"),
        ("demo", None, {"profile": f"{RUN}0"}, "has no profile 'suppress-100'"),
        ("demo", None, {"sham": -1}, "sham=-1 must be a whole number from 0"),
        ("demo", None, {"sham": True}, "sham=True must be a whole number from 0"),
        ("demo", None, {"sham": 1}, "profile 'baseline' edits nothing"),
        ("demo", None, {"profile": RUN, "sham": 1, "sham_kind": "masses"}, "Did you mean 'mass'"),
        ("demo", None, {"markers": "thinks"}, "Did you mean 'think'"),
        ("demo", None, {"template": "x"}, "template='x' must be an object"),
        ("/nowhere", None, {}, "'/nowhere' is neither a folder"),
    ],
)
def test_a_wrong_argument_is_one_line(name: str, url: str | None, given: dict[str, Any], said: str) -> None:
    with pytest.raises(MoteError) as raised:
        check_arguments(name, url, given)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_shams_of_a_served_model_need_its_layout(tmp_path: Path) -> None:
    edits = (Edit(0, 1, "suppress"),)
    Profile("bare", edits).write(tmp_path / "bare.json")
    Profile("of", edits, ModelLayout("Qwen3MoeForCausalLM", (0, 1), 8, 2)).write(tmp_path / "of.json")
    with pytest.raises(MoteError, match="which experts 'm' has is not known here"):
        check_arguments("m", URL, {"profile": str(tmp_path / "bare.json"), "sham": 1})
    assert check_arguments("m", URL, {"profile": str(tmp_path / "of.json"), "sham": 1}).sham is not None
    with pytest.raises(MoteError, match="was made for Qwen3MoeForCausalLM"):
        check_arguments("demo", None, {"profile": str(tmp_path / "of.json")})


def test_a_config_is_passed_on_by_name_and_nothing_is_dropped() -> None:
    config = {"temperature": 0.0, "stop_seqs": ["x"], "max_retries": 2, "num_choices": 1, "extra_body": {"min_p": 0.1}}
    assert params_of(config, [], "auto") == {
        "skip_special_tokens": False,
        "temperature": 0.0,
        "stop": ["x"],
        "min_p": 0.1,
    }
    tool = {"name": "add", "description": "Add.", "parameters": {"type": "object"}}
    found = params_of({"parallel_tool_calls": False}, [tool], "any")
    assert found["tools"] == [{"type": "function", "function": tool}]
    assert (found["tool_choice"], found["parallel_tool_calls"]) == ("required", False)
    schema = {"name": "s", "json_schema": {"type": "object"}, "strict": True}
    assert params_of({"response_schema": schema}, [], "auto")["response_format"]["json_schema"]["schema"] == {
        "type": "object"
    }


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_choices": 3}, "does not take num_choices: a receipt is one answer's; ask several times with --epochs"),
        ({"reasoning_tokens": 5}, "does not take reasoning_tokens: a request to vLLM has no place for it"),
    ],
)
def test_what_would_be_dropped_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(MoteError, match=said):
        params_of(config, [], "auto")
