"""Which ways of asking over HTTP are refused because no receipt could come back."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from mote.patches import Edit, Profile, ProfileError
from mote.patches.admission import Admission
from mote.patches.front import take_profile, with_text
from mote.patches.streams import BATCH, MESSAGES, RESPONSES, unfit


@pytest.mark.parametrize(
    ("asked", "no_place", "says"),
    [
        ({"vllm_xargs": {"mote": "{}"}}, RESPONSES, "the Responses API"),
        ({"vllm_xargs": {"mote": "{}"}}, MESSAGES, "the Messages API"),
        ({"vllm_xargs": {"mote": "{}"}}, BATCH, "send each to /v1/chat/completions"),
        ({"vllm_xargs": {"mote": "{}"}, "use_beam_search": True}, None, "use_beam_search"),
        ({"vllm_xargs": {"mote": "{}"}, "use_beam_search": False}, None, None),
        ({"vllm_xargs": {"other": 1}, "use_beam_search": True}, None, None),
        ({"vllm_xargs": None}, BATCH, None),
        ({}, RESPONSES, None),
    ],
)
def test_unfit(asked: dict[str, object], no_place: str | None, says: str | None) -> None:
    found = unfit(SimpleNamespace(**asked), no_place)
    assert found is None if says is None else found is not None and says in found


def test_an_object_is_written_down_as_its_text_and_nothing_else_changes() -> None:
    plain = {"model": "m", "prompt": "ü 😀", "temperature": 0.1, "seed": 2**40}
    asked = {**plain, "vllm_xargs": {"mote": {"profile": "top"}, "other": 1}}
    found = json.loads(with_text(json.dumps(asked).encode()))
    assert json.loads(found["vllm_xargs"].pop("mote")) == {"profile": "top"}
    assert found == {**plain, "vllm_xargs": {"other": 1}}
    for body in (
        json.dumps(plain).encode(),
        b'{"vllm_xargs": {"mote": "{}"}}',
        b'{"vllm_xargs": {"mote": {"profile": "a", "profile": "b"}}}',
        b'{"vllm_xargs": [{"mote": {}}]}',
        b'{"vllm_xargs": ',
        b'["vllm_xargs"]',
        b"\xff vllm_xargs",
    ):
        assert with_text(body) == body


def test_a_model_may_name_a_profile() -> None:
    models = SimpleNamespace(base_model_paths=[SimpleNamespace(name="a:b")], is_base_model=lambda name: name == "a:b")
    profile = Profile("top-10", (Edit(0, 0, "suppress"),))
    named: dict[str, Any] = {"ten": profile, "top-10": profile}

    def check_name(name: str) -> None:
        if name not in named:
            raise ProfileError(f"no profile is named '{name}'")

    admission = SimpleNamespace(check_name=check_name)

    def take(model: Any, xargs: Any = None) -> tuple[str | None, Any]:
        request = SimpleNamespace(model=model, vllm_xargs=xargs)
        return take_profile(request, models, admission), request

    for name in named:
        said, request = take(f"a:b:{name}", {"other": 1})
        assert (said, request.model) == (None, "a:b")
        assert request.vllm_xargs == {"other": 1, "mote": json.dumps({"profile": name})}
    for untouched in ("a:b", None, "a", "c:ten", 3):
        assert take(untouched)[0] is None
        assert take(untouched)[1].vllm_xargs is None
    assert "no profile is named 'far'" in str(take("a:b:far")[0])
    assert "name it once" in str(take("a:b:ten", {"mote": "{}"})[0])


def test_profiles_have_the_names_of_their_files_and_their_own(tmp_path: Any) -> None:
    Profile("top-10", (Edit(0, 0, "suppress"),)).write(tmp_path / "ten.json")
    assert list(Admission(None, tmp_path).profiles) == ["ten"]
    Profile("ten", (Edit(0, 1, "suppress"),)).write(tmp_path / "other.json")
    with pytest.raises(ProfileError, match=r"another profile of its folder is named 'ten' too"):
        Admission(None, tmp_path)
    Profile("baseline", (Edit(0, 1, "suppress"),)).write(tmp_path / "other.json")
    with pytest.raises(ProfileError, match="must not be called 'baseline'"):
        Admission(None, tmp_path)
