"""Profiles: one identity for one computation, and errors that name the wrong thing and the nearest right one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.patches import EMPTY_PROFILE, Action, Edit, ModelLayout, Profile, ProfileError
from mote.patches import profile as profile_module

ACTIONS: tuple[Action, ...] = get_args(Action)
AFTER, BEFORE = ACTIONS[:3], ACTIONS[3:]
LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 2, 3), 64, 6)
SCHEMA = json.loads((Path(profile_module.__file__).parent / "profile.schema.json").read_text())


@st.composite
def edits(draw: st.DrawFn, actions: tuple[Action, ...]) -> Edit:
    action: Action = draw(st.sampled_from(actions))
    least, most = (0, 1000) if action == "scale" else (-50, 50)
    factor = draw(st.floats(least, most, allow_subnormal=False)) if action in ("scale", "bias", "nudge") else 0.0
    return Edit(draw(st.sampled_from(LAYOUT.layers)), draw(st.integers(0, 63)), action, factor)


def profiles_of(actions: tuple[Action, ...], most: int) -> st.SearchStrategy[Profile]:
    return st.builds(
        Profile,
        st.just("p"),
        st.lists(edits(actions), max_size=most, unique_by=lambda edit: (edit.layer, edit.expert)).map(tuple),
        st.sampled_from([None, LAYOUT]),
        st.sampled_from(["all", "prompt", "generated"]),
    )


profiles = st.one_of(profiles_of(AFTER, 12), profiles_of(BEFORE, 6))  # more may activate more than a token takes


@given(profiles, st.randoms())
def test_order_and_duplicates_do_not_matter(profile: Profile, random: Any) -> None:
    shuffled = list(profile.edits) * 2
    random.shuffle(shuffled)
    assert Profile("other name", tuple(shuffled), None, profile.tokens).digest == profile.digest


@given(profiles)
def test_every_way_of_writing_keeps_the_digest(profile: Profile) -> None:
    file = json.loads(json.dumps(profile.to_dict()))
    jsonschema.validate(file, SCHEMA)
    assert Profile.from_dict(file) == profile
    assert Profile.from_request(json.loads(json.dumps(profile.to_request()))).digest == profile.digest
    assert Profile.from_request(json.loads(profile.spec)).spec == profile.spec


@given(profiles, st.data())
def test_one_more_effective_edit_is_another_digest(profile: Profile, data: st.DataObject) -> None:
    edit = data.draw(edits(BEFORE if profile.before_choice else AFTER))
    if any((e.layer, e.expert) == (edit.layer, edit.expert) for e in profile.edits) or edit.is_nothing:
        return
    assert Profile("p", (*profile.edits, edit), None, profile.tokens).digest != profile.digest


def test_equal_computations_have_equal_digests() -> None:
    suppress = Profile("a", (Edit(1, 2, "suppress"),))
    assert Profile("b", (Edit(1, 2, "scale", 0),)).digest == suppress.digest
    assert Profile("c", (Edit(1, 2, "scale", 1.0),)).digest == EMPTY_PROFILE.digest
    assert Profile("d", (), None, "prompt").digest == EMPTY_PROFILE.digest
    assert Profile("e", (Edit(1, 2, "suppress"),), None, "prompt").digest != suppress.digest
    assert Profile("h", (Edit(1, 2, "bias", 0), Edit(1, 3, "nudge", -0.0))).digest == EMPTY_PROFILE.digest
    assert Profile("i", (Edit(1, 2, "bias", 1),)).digest != Profile("j", (Edit(1, 2, "nudge", 1),)).digest
    assert Profile("f", (Edit(1, 2, "scale", 2),)).digest == Profile("g", (Edit(1, 2, "scale", 2.0),)).digest


def test_the_digest_is_pinned() -> None:
    """Digests are in caches, rows and manifests: a change of the canonical form must be noticed, not slip in."""
    assert Profile("p", (Edit(3, 4, "scale", 0.5), Edit(1, 2, "suppress"))).spec == (
        '{"edits":[[1,2,"suppress"],[3,4,"scale",0.5]],"tokens":"all"}'
    )
    assert EMPTY_PROFILE.digest == "52f57729e69dcd588ff190ed4141be1b5b6422bfa5ef9c3a6e548f32b8b4a0e4"


def test_file_round_trip(tmp_path: Path) -> None:
    profile = Profile("süß", (Edit(1, 2, "suppress"),), LAYOUT)
    profile.write(tmp_path / "p.json")
    assert Profile.read(tmp_path / "p.json") == profile


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Edit(1, 2, "supress"), "Did you mean 'suppress'?"),  # type: ignore[arg-type]
        (lambda: Edit(-1, 2, "suppress"), "layer must be a whole number from 0"),
        (lambda: Edit(1, True, "suppress"), "expert must be a whole number"),
        (lambda: Edit(1, 2, "scale", 2000.0), "the nearest is 1000"),
        (lambda: Edit(1, 2, "scale", float("nan")), "the nearest is 0"),
        (lambda: Edit(1, 2, "scale", "1"), "factor must be a number"),  # type: ignore[arg-type]
        (lambda: Edit(1, 2, "suppress", 0.5), "only 'scale', 'bias' and 'nudge' take a factor"),
        (lambda: Edit(1, 2, "activate", 0.5), "only 'scale', 'bias' and 'nudge' take a factor"),
        (lambda: Edit(1, 2, "bias", -51), "factor must be from -50 to 50; the nearest is -50"),
        (lambda: Edit(1, 2, "nudge", float("inf")), "the nearest is 50"),
        (lambda: Profile("p", (Edit(1, 2, "suppress"), Edit(1, 3, "bias", 1))), "make two profiles"),
        (lambda: Profile("p", tuple(Edit(1, e, "activate") for e in range(7)), LAYOUT), "takes 6; activate fewer"),
        (lambda: Profile("p", tuple(Edit(1, e, "deactivate") for e in range(59)), LAYOUT), "takes 6; deactivate fewer"),
        (lambda: Profile.from_request({"edits": [[1, 2, "bias"]]}), "edit 0"),
        (lambda: Profile.from_request({"edits": [[1, 2, "activate", 1.0]]}), "edit 0"),
        (lambda: Profile.from_request({"edits": [{"layer": 1, "expert": 2, "action": "nudge"}]}), "needs a factor"),
        (lambda: Profile(" ", ()), "needs a name"),
        (lambda: Profile("p", (), None, "promt"), "Did you mean 'prompt'?"),  # type: ignore[arg-type]
        (lambda: Profile("p", (Edit(1, 2, "suppress"), Edit(1, 2, "stimulate"))), "two different edits"),
        (lambda: Profile("p", (Edit(9, 2, "suppress"),), LAYOUT), "the nearest that has is 3"),
        (lambda: Profile("p", (Edit(0, 2, "suppress"),), LAYOUT), "the nearest that has is 1"),
        (lambda: Profile("p", (Edit(1, 64, "suppress"),), LAYOUT), "the nearest is 63"),
        (lambda: Profile.from_dict([]), "a profile is a JSON object"),
        (lambda: Profile.from_dict({"format": "mote-profile/1", "name": "p"}), "'edits' is missing"),
        (lambda: Profile.from_dict({"format": "mote-profile/2", "name": "p", "edits": []}), "reads 'mote-profile/1'"),
        (lambda: Profile.from_request({"edit": []}), "Did you mean 'edits'?"),
        (lambda: Profile.from_request({"edits": {}}), "'edits' must be a list"),
        (lambda: Profile.from_request({"edits": [[1, 2]]}), "edit 0"),
        (lambda: Profile.from_request({"edits": [[1, 2, "scale"]]}), "edit 0"),
        (lambda: Profile.from_request({"edits": [{"layer": 1, "expert": 2, "action": "scale"}]}), "needs a factor"),
        (lambda: Profile.from_request({"edits": [], "model": {"layers": [1]}}), "'model' must be an object"),
    ],
)
def test_errors_are_one_line_and_name_the_remedy(make: Any, says: str) -> None:
    with pytest.raises(ProfileError) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_profiles(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no such profile file"):
        Profile.read(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ProfileError, match="not a readable profile"):
        Profile.read(tmp_path / "bad.json")


def test_a_profile_is_refused_on_another_model() -> None:
    profile = Profile("p", (Edit(1, 2, "suppress"),), LAYOUT)
    profile.check(LAYOUT)
    with pytest.raises(ProfileError, match="was made for Glm4MoeForCausalLM with 3 expert layers"):
        profile.check(ModelLayout("Glm4MoeForCausalLM", (1, 2), 64, 6))
    with pytest.raises(ProfileError, match="the nearest that has is 2"):
        Profile("p", (Edit(3, 2, "suppress"),)).check(ModelLayout("Glm4MoeForCausalLM", (1, 2), 64, 6))


def test_scale_is_refused_where_a_token_takes_one_expert() -> None:
    single = ModelLayout("Llama4ForCausalLM", (1, 3), 16, 1)
    Profile("p", (Edit(1, 2, "suppress"), Edit(3, 2, "stimulate"))).check(single)
    with pytest.raises(ProfileError, match="scale would do nothing; suppress or stimulate"):
        Profile("p", (Edit(1, 2, "scale", 0.5),)).check(single)


@pytest.mark.parametrize(
    ("config", "layers", "experts", "top_k"),
    [
        (
            {"model_type": "glm4_moe", "num_hidden_layers": 4, "first_k_dense_replace": 1, "n_routed_experts": 64}
            | {"num_experts_per_tok": 6},
            (1, 2, 3),
            64,
            6,
        ),
        (
            {"model_type": "deepseek_v3", "num_hidden_layers": 61, "first_k_dense_replace": 3, "moe_layer_freq": 1}
            | {"n_routed_experts": 256, "num_experts_per_tok": 8},
            tuple(range(3, 61)),
            256,
            8,
        ),
        (
            {"model_type": "qwen3_moe", "num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
            | {"num_experts": 128, "num_experts_per_tok": 8},
            (1, 5),
            128,
            8,
        ),
        ({"model_type": "olmoe", "num_hidden_layers": 2, "num_experts": 64, "num_experts_per_tok": 8}, (0, 1), 64, 8),
        (
            {"model_type": "mixtral", "num_hidden_layers": 2, "num_local_experts": 8, "num_experts_per_tok": 2},
            (0, 1),
            8,
            2,
        ),
        (
            {"model_type": "gpt_oss", "num_hidden_layers": 2, "num_local_experts": 32, "num_experts_per_tok": 4},
            (0, 1),
            32,
            4,
        ),
    ],
)
def test_layouts(config: dict[str, Any], layers: tuple[int, ...], experts: int, top_k: int, tmp_path: Path) -> None:
    config = config | {"architectures": ["SomeForCausalLM"]}
    expected = ModelLayout("SomeForCausalLM", layers, experts, top_k)
    assert ModelLayout.from_config(config) == expected
    assert ModelLayout.from_config({"architectures": ["SomeForCausalLM"], "text_config": config}) == expected
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ModelLayout.from_config(tmp_path) == expected == ModelLayout.from_config(tmp_path / "config.json")
    assert ModelLayout.from_dict(expected.to_dict()) == expected


def test_layout_errors(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no such file"):
        ModelLayout.from_config(tmp_path)
    with pytest.raises(ProfileError, match="model_type 'llama': the model is dense"):
        ModelLayout.from_config({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    with pytest.raises(ProfileError, match="names no architecture"):
        ModelLayout.from_config({"model_type": "olmoe"})
    with pytest.raises(ProfileError, match="says nowhere how many experts a token takes"):
        ModelLayout.from_config(
            {"architectures": ["X"], "model_type": "olmoe", "num_hidden_layers": 1, "num_experts": 4}
        )


def test_groups_limit_what_can_be_activated_and_deactivated() -> None:
    """64 experts in 8 groups of 8, of which a token takes 6 from 2 groups."""
    four = Profile("p", tuple(Edit(1, expert, "activate") for expert in (0, 1, 8, 9)))
    four.check_groups(LAYOUT, 8, 2)
    with pytest.raises(ProfileError, match=r"5 experts of 3 groups are activated.*of the 2 of 8 groups"):
        Profile("p", (*four.edits, Edit(1, 63, "activate"))).check_groups(LAYOUT, 8, 2)
    off = tuple(Edit(1, expert, "deactivate") for expert in (*range(5), *range(8, 13)))
    Profile("p", off).check_groups(LAYOUT, 8, 2)
    with pytest.raises(ProfileError, match="11 experts are deactivated, which may leave 5"):
        Profile("p", (*off, Edit(1, 13, "deactivate"))).check_groups(LAYOUT, 8, 2)


def test_the_schema_knows_the_two_kinds() -> None:
    mixed: dict[str, Any] = {"format": "mote-profile/1", "name": "p"}
    mixed["edits"] = [
        {"layer": 1, "expert": 2, "action": "suppress"},
        {"layer": 1, "expert": 3, "action": "activate"},
    ]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(mixed, SCHEMA)
    for edit in ({"action": "scale", "factor": -1}, {"action": "bias"}, {"action": "activate", "factor": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**mixed, "edits": [{"layer": 1, "expert": 2, **edit}]}, SCHEMA)
    jsonschema.validate({**mixed, "edits": [{"layer": 1, "expert": 2, "action": "bias", "factor": -2}]}, SCHEMA)
