"""Profiles as other engines read them: each file is read back by that engine's rule, in our own words."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from mote.harness.errors import MoteError
from mote.harness.take_home.export import FORMATS, export_profile
from mote.patches import Edit, ModelLayout, Profile

QWEN = ModelLayout("Qwen3MoeForCausalLM", (0, 1, 2), 8, 2)
GLM = ModelLayout("Glm4MoeForCausalLM", (1, 2), 8, 4)
OFF = Profile("off", (Edit(2, 7, "suppress"), Edit(1, 3, "suppress"), Edit(1, 0, "suppress")))
BOTH = Profile("both", (*OFF.edits, Edit(1, 5, "stimulate")))


def test_vllms_mask_has_the_pairs_of_layer_and_expert() -> None:
    found = export_profile(OFF, GLM, "vllm-mask")
    content = json.loads(found.text)
    assert sorted(map(tuple, content["pruned_experts"])) == [(1, 0), (1, 3), (2, 7)]
    assert all(len(pair) == 2 and all(type(one) is int for one in pair) for pair in content["pruned_experts"])
    assert any("before the choice" in line for line in found.lost)


def test_easysteer_has_both_directions_of_a_layer() -> None:
    content = json.loads(export_profile(BOTH, QWEN, "easysteer").text)
    read = {}
    for layer, entry in content["layer_configs"].items():
        assert entry["mode"] in ("activate", "deactivate")
        assert entry["activate_ids"] or entry["deactivate_ids"], "their loader refuses an entry without ids"
        read[int(layer)] = (set(entry["activate_ids"]), set(entry["deactivate_ids"]))
    assert read == {1: ({5}, {0, 3}), 2: (set(), {7})}
    use = export_profile(Profile("p", OFF.edits, tokens="generated"), QWEN, "easysteer").use
    assert 'ApplySpec(generation="all")' in use
    assert "layers=[1, 2]" in use


def test_steermoes_frame_picks_these_experts_by_its_own_rule() -> None:
    found = export_profile(BOTH, QWEN, "steermoe")
    frame = pd.read_csv(io.StringIO(found.text))
    assert (frame["layer"].nunique(), frame["expert"].nunique(), len(frame)) == (3, 8, 24)
    ranked = frame.sort_values("risk_diff_abs", ascending=False)
    up = ranked[ranked["risk_diff"] > 0].head(1)
    down = ranked[ranked["risk_diff"] < 0].head(3)
    assert list(zip(up["layer"], up["expert"], strict=True)) == [(1, 5)]
    assert sorted(zip(down["layer"], down["expert"], strict=True)) == [(1, 0), (1, 3), (2, 7)]
    assert "num_pos_experts=1, num_neg_experts=3" in found.use
    assert any("pickle" in line for line in found.lost)


@pytest.mark.parametrize("to", ["easysteer", "steermoe"])
def test_edits_before_the_choice_are_these_engines_own(to: str) -> None:
    off = (Edit(2, 7, "deactivate"), Edit(1, 3, "deactivate"), Edit(1, 0, "deactivate"))
    ours = Profile("both", (*off, Edit(1, 5, "activate")))
    after, before = export_profile(BOTH, QWEN, to), export_profile(ours, QWEN, to)
    assert before.text == after.text
    assert any("before the choice" in line for line in after.lost)
    assert not any("before the choice" in line for line in before.lost)
    with pytest.raises(MoteError, match="not deactivate of"):
        export_profile(ours, QWEN, "vllm-mask")


@pytest.mark.parametrize("to", FORMATS)
def test_what_a_format_cannot_say_is_refused(to: str) -> None:
    scaled = Profile("p", (Edit(1, 3, "scale", 0.5),))
    with pytest.raises(MoteError, match=r"not scale of \(1, 3\)"):
        export_profile(scaled, QWEN, to)
    with pytest.raises(MoteError, match="edits nothing"):
        export_profile(Profile("p", ()), QWEN, to)


@pytest.mark.parametrize(
    ("profile", "layout", "to", "said"),
    [
        (OFF, GLM, "easysteer", "Glm4MoeForCausalLM is not known to bear the format easysteer"),
        (OFF, GLM, "steermoe", "Glm4MoeForCausalLM is not known"),
        (BOTH, QWEN, "vllm-mask", r"it knows suppress, not stimulate of \(1, 5\)"),
        (Profile("p", OFF.edits, tokens="prompt"), QWEN, "vllm-mask", "edits prompt tokens only"),
        (Profile("p", OFF.edits, tokens="prompt"), QWEN, "steermoe", "edits prompt tokens only"),
        (
            Profile("p", tuple(Edit(1, expert, "suppress") for expert in range(7))),
            QWEN,
            "vllm-mask",
            "leaves layer 1 1 experts, and a token takes 2",
        ),
        (
            Profile("p", tuple(Edit(1, expert, "stimulate") for expert in range(3))),
            QWEN,
            "steermoe",
            "brings 3 experts of layer 1 in",
        ),
        (OFF, QWEN, "vllm-masks", "Did you mean 'vllm-mask'"),
    ],
)
def test_a_model_or_profile_that_an_engine_would_take_wrongly_is_refused(
    profile: Profile, layout: ModelLayout, to: str, said: str
) -> None:
    with pytest.raises(MoteError, match=said):
        export_profile(profile, layout, to)
