"""Fail closed: a request that is not understood whole is refused with the reason, and the engine lives."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

from mote.patches import EMPTY_PROFILE, Edit, ModelLayout, Profile, ProfileError, Route
from mote.patches.admission import Admission, Choice, refuse_forged_salt, salt
from mote.patches.families import bias_fault, choice_groups
from mote.patches.guards import (
    DEVICE_EDITS,
    bias_limit,
)
from tests.patches.asking import Ask, ask
from tests.patches.test_guards import ON_GPU, config

LAYOUT = ModelLayout("Glm4MoeForCausalLM", (1, 2, 3), 16, 4)
NOTHING: dict[str, Any] = {"edits": []}
ROUTE = Route((1, 3), np.arange(24, dtype=np.uint16).reshape(3, 2, 4) % 16, 3, "end")
LAID = ROUTE.to_request()


def laid(**over: Any) -> dict[str, Any]:
    """A request with a route of three prompt tokens, something in it written otherwise."""
    return {"profile": NOTHING, "route": {**LAID, **over}}


def packed(values: Any, kind: str) -> str:
    return base64.b64encode(np.array(values, kind).tobytes()).decode()


REFUSED: list[tuple[Any, str]] = [
    (None, "'mote' must be an object"),
    (5, "'mote' must be an object"),
    ("{", "'mote' is no JSON object"),
    ("[" * 100_000, "'mote' is no JSON object"),
    ({}, "must name or contain a profile"),
    ({"profil": NOTHING}, "unknown key 'profil'. Did you mean 'profile'?"),
    ({"profile": None}, "'profile' must be an object"),
    ({"profile": "refusal"}, "no profile is named 'refusal' here. MOTE_PROFILES names no folder"),
    ({"profile": {"edits": [[0, 1, "suppress"]]}}, "the nearest that has is 1"),
    ({"profile": {"edits": [[1, 16, "suppress"]]}}, "the nearest is 15"),
    ({"profile": {"edits": [[1, 1, "supress"]]}}, "Did you mean 'suppress'?"),
    ({"profile": {"edits": [[1, 1, "scale", -1]]}}, "the nearest is 0"),
    ({"profile": {"edits": [[1, 1, "scale", 1e9]]}}, "the nearest is 1000"),
    ({"profile": {"edits": [[1, 1, "scale", 1e999]]}}, "Infinity, which is no JSON"),
    ({"profile": {"edits": [[1, 1, "suppress"], [1, 1, "stimulate"]]}}, "two different edits"),
    ({"profile": {"edits": [], "tokens": "answer"}}, "unknown tokens 'answer'"),
    ({"profile": {"edits": [], "model": {**LAYOUT.to_dict(), "experts": 64}}}, "was made for Glm4MoeForCausalLM"),
    ({"profile": {"edits": [[1, 1, "suppress"], [1, 2, "activate"]]}}, "make two profiles"),
    ({"profile": {"edits": [[1, 1, "bias"]]}}, "edit 0"),
    ({"profile": {"edits": [[1, 1, "bias", 51]]}}, "the nearest is 50"),
    ({"profile": {"edits": [[1, 1, "bias", "1"]]}}, "factor must be a number from -50 to 50"),
    ({"profile": {"edits": [[1, 1, "nudge", 1e999]]}}, "Infinity, which is no JSON"),
    ({"profile": {"edits": [[1, 1, "activate", 2]]}}, "edit 0"),
    ({"profile": {"edits": [[1, 1, "activated"]]}}, "Did you mean 'activate'?"),
    ({"profile": {"edits": [[1, e, "activate"] for e in range(5)]}}, "takes 4; activate fewer"),
    ({"profile": {"edits": [[1, e, "deactivate"] for e in range(13)]}}, "takes 4; deactivate fewer"),
    ({"profile": NOTHING, "capture": "promt"}, "Did you mean 'prompt'?"),
    ({"profile": NOTHING, "capture": {"what": "rows", "last": 1}}, "ask for 'prompt' or 'roles'"),
    ({"profile": NOTHING, "capture": {"what": "prompt", "logits": True}}, "'logits' belong to rows"),
    ({"profile": NOTHING, "capture": {"what": "rows", "logits": 1}}, "must be true or false"),
    ({"profile": NOTHING, "capture": {"what": "prompt", "last": -1}}, "'last' must be a number"),
    ({"profile": NOTHING, "capture": {"what": "prompt", "lst": 1}}, "Did you mean 'last'?"),
    ({"profile": NOTHING, "capture": {"what": "prompt", "weights": 1}}, "must be true or false"),
    ({"profile": NOTHING, "capture": {"what": "roles", "reasoning_end": ""}}, "must be texts"),
    ({"profile": NOTHING, "capture": {"what": "prompt", "applied": True}}, "'applied' belongs to rows"),
    ({"profile": NOTHING, "rout": LAID}, "Did you mean 'route'?"),
    ({"profile": NOTHING, "route": 3}, "'route' must be an object"),
    ({"profile": {"edits": [[1, 1, "suppress"]]}, "route": LAID}, "send one of both"),
    (laid(layer=[1]), "unknown key 'layer'. Did you mean 'layers'?"),
    ({"profile": NOTHING, "route": {"layers": [1]}}, "key 'prompt' is missing"),
    (laid(layers=1), "must be a list of layer indices"),
    (laid(layers=[3, 1]), "no ascending list of layer indices"),
    (laid(layers=[1, 4]), "the nearest that has is 3"),
    (laid(layers=[1]), "8 experts for a token of a layer"),
    (laid(prompt=-1), "must be numbers of tokens"),
    (laid(prompt=True), "must be numbers of tokens"),
    (laid(prompt=5), "24 experts are no whole number for each of 5 tokens"),
    (laid(prompt=10**12), "24 experts are no whole number"),
    (laid(prompt=0), "24 experts are no whole number for each of 0 tokens"),
    (laid(align="start"), "unknown align 'start'"),
    (laid(align=1), "unknown align '1'"),
    (laid(align="roles"), "Did you mean 'role'?"),
    (laid(at=[1, 2, 3], length=3), "'at' and 'length' belong to align 'role'"),
    (laid(length=3), "'at' and 'length' belong to align 'role'"),
    (laid(align="role"), "0 positions for 3 prompt tokens"),
    (laid(align="role", at=[0, 1], length=3), "2 positions for 3 prompt tokens"),
    (laid(align="role", at=[0, 2, 2], length=3), "'at', are not ascending"),
    (laid(align="role", at=[2, 1, 0], length=3), "'at', are not ascending"),
    (laid(align="role", at=[0, 1, 3], length=3), "positions 0 to 3 of a prompt whose 'length' is 3 tokens"),
    (laid(align="role", at=[0, 1, 10**18], length=3), "of a prompt whose 'length' is 3 tokens"),
    (laid(align="role", at=[-1, 0, 1], length=3), "must be a list of positions"),
    (laid(align="role", at=[0, True, 2], length=3), "must be a list of positions"),
    (laid(align="role", at="012", length=3), "must be a list of positions"),
    (laid(align="role", at=[0, 1, 2], length=3.0), "must be a list of positions"),
    (laid(ids="%%"), "'ids' must be the base64 of little-endian uint16"),
    (laid(ids=[1]), "'ids' must be the base64 of little-endian uint16"),
    (laid(ids=packed([0] * 24, "<u2")), "takes an expert twice"),
    (laid(ids=packed([0, 1, 2, 16] * 6, "<u2")), "expert 16: Glm4MoeForCausalLM has experts 0 to 15"),
    (laid(weights="AAA"), "'weights' must be the base64 of little-endian float32"),
    (laid(weights=packed([1.0], "<f4")), "1 weights for 24 experts"),
    (laid(weights=packed([-1.0] * 24, "<f4")), "a weight is negative or no number"),
    (laid(weights=packed([np.nan] * 24, "<f4")), "a weight is negative or no number"),
    ({"profile": NOTHING, "capture": 3}, "'capture' must be one of prompt, roles, rows"),
]


@pytest.mark.parametrize(("entry", "says"), REFUSED, ids=[says[:30] for _, says in REFUSED])
def test_refused_by_the_front_end(entry: Any, says: str) -> None:
    with pytest.raises(ProfileError) as caught:
        Admission(LAYOUT, encode=lambda _: [1]).accept(entry)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_engine_refuses_and_lives(engine: Any) -> None:
    before = ask(engine, [Ask([1, 2, 3], EMPTY_PROFILE)])
    for entry, says in REFUSED:
        if entry is None:
            continue
        params = SamplingParams(max_tokens=2, extra_args={"mote": entry})
        with pytest.raises(VLLMValidationError) as caught:
            engine.generate([{"prompt_token_ids": [1, 2, 3]}], params, use_tqdm=False)
        assert says in str(caught.value)
    assert ask(engine, [Ask([1, 2, 3], EMPTY_PROFILE)])[0].tokens == before[0].tokens


def test_a_forged_salt_is_refused(engine: Any) -> None:
    """A client that knew a digest could otherwise read a tuned request's KV blocks into an untuned request."""
    prompt = {"prompt_token_ids": [1, 2, 3], "cache_salt": "mote:1234"}
    with pytest.raises(VLLMValidationError, match="must not begin with 'mote:'"):
        engine.generate([prompt], SamplingParams(max_tokens=2), use_tqdm=False)
    refuse_forged_salt("tenant-7")


def test_salts() -> None:
    tuned = Profile("p", (Edit(1, 2, "suppress"),))
    other = Profile("p", (Edit(1, 3, "suppress"),))
    assert salt(EMPTY_PROFILE.spec, None) is None
    assert salt(EMPTY_PROFILE.spec, "tenant") == "tenant"
    made = {salt(p.spec, given) for p in (tuned, other) for given in (None, "tenant", "another")}
    assert len(made) == 6
    assert None not in made
    other_route = Route(ROUTE.layers, ROUTE.ids, 0)
    routed = {salt(EMPTY_PROFILE.spec, given, r.spec) for r in (ROUTE, other_route) for given in (None, "tenant")}
    assert len(routed | made) == 10


def test_roles_need_a_tokenizer() -> None:
    with pytest.raises(ProfileError, match="roles need the tokenizer"):
        Admission(LAYOUT).accept({"profile": NOTHING, "capture": "roles"})


def test_json_strings_and_objects_are_the_same() -> None:
    entry = {"profile": {"edits": [[1, 2, "suppress"]]}, "capture": "prompt"}
    admission = Admission(LAYOUT)
    assert admission.accept(entry) == admission.accept(json.dumps(entry))
    assert admission.accept(entry).spec == Profile("p", (Edit(1, 2, "suppress"),)).spec


def test_profiles_by_name(tmp_path: Path) -> None:
    Profile("top-10", (Edit(1, 2, "suppress"),), LAYOUT).write(tmp_path / "a.json")
    admission = Admission(LAYOUT, tmp_path)
    assert admission.accept({"profile": "top-10"}).spec == Profile("p", (Edit(1, 2, "suppress"),)).spec
    assert admission.accept({"profile": "baseline"}).spec == EMPTY_PROFILE.spec
    with pytest.raises(ProfileError, match="Did you mean 'top-10'"):
        admission.accept({"profile": "top10"})
    Profile("top-10", ()).write(tmp_path / "b.json")
    with pytest.raises(ProfileError, match="is named 'top-10' too"):
        Admission(LAYOUT, tmp_path)
    with pytest.raises(ProfileError, match="is no folder"):
        Admission(LAYOUT, tmp_path / "none")
    (tmp_path / "b.json").unlink()
    with pytest.raises(ProfileError, match="was made for"):
        Admission(ModelLayout("Glm4MoeForCausalLM", (1, 2), 16, 4), tmp_path)


def test_a_model_without_experts_refuses_only_requests_for_them() -> None:
    with pytest.raises(ProfileError, match="no routed experts"):
        Admission(None).accept({"profile": NOTHING})


BIAS = {"profile": {"edits": [[1, 2, "activate"]]}}


def test_edits_before_the_choice_are_refused_where_they_are_not_proven(tmp_path: Path) -> None:
    """On a GPU, through the Transformers backend, for a family without a parity test, and where groups forbid them."""
    own, other = (
        SimpleNamespace(using_transformers_backend=bool),
        SimpleNamespace(using_transformers_backend=lambda: True),
    )
    assert bias_limit(config(model_config=own)) == ""
    assert "on CPUs only" in bias_limit(config(**ON_GPU))
    assert "Transformers backend" in bias_limit(config(model_config=other))
    assert bias_fault({"model_type": "qwen3_moe"}) == ""
    assert "are proven for GLM-4.5" in bias_fault({"model_type": "phimoe"})
    Admission(LAYOUT).accept(BIAS)
    refusing = Admission(LAYOUT, choice=Choice("they are not"))
    refusing.accept({"profile": {"edits": [[1, 2, "suppress"]]}})
    with pytest.raises(ProfileError, match=r"'request' edits scores .*, and they are not; use suppress, stimulate or"):
        refusing.accept(BIAS)
    Profile("scored", (Edit(1, 2, "activate"),), LAYOUT).write(tmp_path / "p.json")
    with pytest.raises(ProfileError, match="'scored' edits scores"):
        Admission(LAYOUT, tmp_path, choice=Choice("they are not"))
    grouped = Admission(LAYOUT, choice=Choice("", 4, 2))
    grouped.accept({"profile": {"edits": [[1, 0, "activate"], [1, 4, "activate"]]}})
    with pytest.raises(ProfileError, match="3 experts of 3 groups are activated"):
        grouped.accept({"profile": {"edits": [[1, e, "activate"] for e in (0, 4, 8)]}})


@pytest.mark.parametrize("what", ["logits", "applied"])
def test_logits_and_what_was_applied_are_kept_on_cpus_only(what: str) -> None:
    entry = {"profile": NOTHING, "capture": {"what": "rows", what: True}}
    Admission(LAYOUT).accept(entry)
    with pytest.raises(ProfileError, match="kept on CPUs only"):
        Admission(LAYOUT, limit=DEVICE_EDITS).accept(entry)


def test_routes_are_refused_where_edits_before_the_choice_are() -> None:
    assert Admission(LAYOUT).accept(laid()).route == ROUTE.spec
    with pytest.raises(
        ProfileError, match="a route forces the router's choice, and it is not proven; leave 'route' out"
    ):
        Admission(LAYOUT, choice=Choice("it is not proven")).accept(laid())


def test_routes_align_by_rule() -> None:
    ROUTE.check_prompt(3)
    ROUTE.check_prompt(9)
    with pytest.raises(ProfileError, match="3 tokens are to be routed from the prompt's end, and the prompt has 2"):
        ROUTE.check_prompt(2)
    role = Route(ROUTE.layers, ROUTE.ids, 3, "role", at=(0, 2, 3), length=4)
    role.check_prompt(4)
    for other in (3, 5):
        with pytest.raises(ProfileError, match=f"onto a prompt of 4 tokens, and this one has {other}: lay the donor's"):
            role.check_prompt(other)
    same = Route(ROUTE.layers, ROUTE.ids, 3)
    same.check_prompt(3)
    with pytest.raises(ProfileError, match="of 3 tokens, and this one has 4: take a donor of the same length"):
        same.check_prompt(4)
    Route(ROUTE.layers, ROUTE.ids, 0).check_prompt(1)


def test_the_engine_knows_its_groups(engine: Any) -> None:
    """A tiny GLM4-MoE: 16 experts in 4 groups, of which a token chooses from 2."""
    params = SamplingParams(
        max_tokens=2, extra_args={"mote": {"profile": {"edits": [[1, e, "activate"] for e in (0, 4, 8)]}}}
    )
    with pytest.raises(VLLMValidationError, match="of 3 groups are activated"):
        engine.generate([{"prompt_token_ids": [1, 2, 3]}], params, use_tqdm=False)


def test_groups_are_read_from_the_configuration() -> None:
    assert choice_groups({"model_type": "glm4_moe", "n_group": 8, "topk_group": 4}) == (8, 4)
    assert choice_groups({"model_type": "qwen3_moe"}) == (1, 1)
    assert choice_groups({"model_type": "deepseek_v2", "n_group": None, "topk_group": None}) == (1, 1)


def test_a_worker_whose_router_cannot_choose_again_stops() -> None:
    """The front end lets no such request through; if one came, its answer would be wrong, so there is none."""
    from mote.patches.device import DeviceState
    from mote.patches.host import HostState

    spec = Profile("p", (Edit(1, 2, "activate"),)).spec
    params = SimpleNamespace(extra_args={"mote": {"spec": spec, "capture": None}})
    host = HostState(LAYOUT, 2, 8)
    host.admit("a", params, 4)
    host.begin(["a"], np.array([0]), np.array([4], np.int32))
    with pytest.raises(RuntimeError, match="cannot be edited: no model is attached"):
        host.route(0, torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.int32), torch.zeros(4, 16))
    device = DeviceState(LAYOUT, 2, 8, torch.device("cpu"), lambda *_: None)
    device.admit("a", params, 4)
    with pytest.raises(RuntimeError, match="which no request may ask for"):
        device.begin(["a"], np.array([0]), np.array([4], np.int32))
    routed = SimpleNamespace(extra_args={"mote": {"spec": EMPTY_PROFILE.spec, "capture": None, "route": ROUTE.spec}})
    for state in (host, device):
        state.admit("b", routed, 4)
        with pytest.raises(RuntimeError, match="a route is longer than the prompt"):
            state.admit("c", routed, 2)
    role = Route(ROUTE.layers, ROUTE.ids, 3, "role", at=(0, 2, 3), length=4)
    by_role = SimpleNamespace(extra_args={"mote": {"spec": EMPTY_PROFILE.spec, "capture": None, "route": role.spec}})
    with pytest.raises(RuntimeError, match="onto a prompt of another length"):
        host.admit("d", by_role, 5)
    with pytest.raises(RuntimeError, match="which no request may ask for"):
        device.begin(["b"], np.array([0]), np.array([4], np.int32))
    host.begin(["b"], np.array([0]), np.array([4], np.int32))
    with pytest.raises(RuntimeError, match="cannot be edited: no model is attached"):
        host.route(0, torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.int32), torch.zeros(4, 16))
