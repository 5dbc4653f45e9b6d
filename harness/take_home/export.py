"""``mote export-profile``: a profile in the form that another engine reads, with what is lost said a line each.

What each engine reads was verified in its own source, named at each format. All three act before the choice, so that a
further expert enters for one that is pushed out, as under the patch's own edits before the choice. None has receipts.
Whatever a format cannot say is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from mote.harness.errors import MoteError, nearest
from mote.harness.files import write_atomic
from mote.patches import ModelLayout, Profile


class Exported(NamedTuple):
    """The text of the file, what is lost, and how the other engine is given the file."""

    text: str
    lost: list[str]
    use: str


class Format(NamedTuple):
    """One format: where it was verified, the actions it can say, the architectures it is known to fit (empty: all)."""

    verified: str
    actions: tuple[str, ...]
    tokens: tuple[str, ...]
    architectures: tuple[str, ...]
    make: Callable[[Profile, ModelLayout], Exported]


_REPLACED: Final = (
    "before the choice, not after: a further expert enters for each that is taken out, where the patch gives the share"
    " to those that the token chose beside it"
)
_OUT: Final = ("suppress", "deactivate")
_ACTIONS: Final = (*_OUT, "stimulate", "activate")
"""What EasySteer and SteerMoE can say. Our ``activate`` and ``deactivate`` are their own rule (``patches.choice``)."""
_UNPROVEN: Final = (
    "no receipts: that an expert was taken out is not counted there, and the run's controls were not run there"
)
_SOFTMAX: Final = ("Qwen3MoeForCausalLM", "OlmoeForCausalLM", "MixtralForCausalLM", "GptOssForCausalLM")
"""Routers by softmax, whose scores bear the log-softmax that SteerMoE's rule takes first."""


def export_profile(profile: Profile, layout: ModelLayout, to: str) -> Exported:
    """Return a profile in a format by its name; raise MoteError, with the reason, for what the format cannot say."""
    form = FORMATS.get(to)
    if form is None:
        raise MoteError(f"--to {to}: no such format was verified.{nearest(to, FORMATS)}")
    name = f"profile '{profile.name}'"
    if not profile.canonical:
        raise MoteError(f"{name} edits nothing: there is nothing to export.")
    other = next((edit for edit in profile.canonical if edit.action not in form.actions), None)
    if other is not None:
        raise MoteError(
            f"{name} cannot be said in the format {to}: it knows {' and '.join(form.actions)}, not {other.action} of"
            f" ({other.layer}, {other.expert})."
        )
    if profile.tokens not in form.tokens:
        raise MoteError(f"{name} edits {profile.tokens} tokens only, and the format {to} is for all tokens.")
    if form.architectures and layout.architecture not in form.architectures:
        raise MoteError(
            f"{layout.architecture} is not known to bear the format {to} ({form.verified}), whose rule is for"
            f" {', '.join(form.architectures)}."
        )
    return form.make(profile, layout)


def write_exported(found: Exported, out: Path) -> None:
    """Write an exported profile atomically."""
    write_atomic(out, found.text)


def _vllm_mask(profile: Profile, layout: ModelLayout) -> Exported:
    content = {
        "version": 1,
        "model": layout.architecture,
        "workload": profile.name,
        "pruned_experts": [[edit.layer, edit.expert] for edit in profile.canonical],
    }
    _leave_enough(profile, layout)
    return Exported(
        json.dumps(content) + "\n",
        [
            "the whole server, not a request: no untouched answers beside it, no controls in one batch",
            _REPLACED,
            "of a router with a correction bias (GLM4-MoE, DeepSeek-V3) the score becomes 0 before the bias is added,"
            " so that a large bias can still choose the expert, at weight 0",
            _UNPROVEN,
        ],
        "vllm serve MODEL --riy-expert-profile FILE, in a vLLM built from pull request 37824; 0.32 does not have it",
    )


def _leave_enough(profile: Profile, layout: ModelLayout) -> None:
    """A layer must keep as many experts as a token takes, or vLLM refuses to start."""
    for layer in {edit.layer for edit in profile.canonical}:
        left = layout.experts - sum(edit.layer == layer for edit in profile.canonical)
        if left < layout.top_k:
            raise MoteError(
                f"profile '{profile.name}' leaves layer {layer} {left} experts, and a token takes {layout.top_k}: vLLM"
                " does not start with fewer."
            )


def _easysteer(profile: Profile, layout: ModelLayout) -> Exported:
    layers: dict[str, dict[str, Any]] = {}
    for edit in profile.canonical:
        entry = layers.setdefault(str(edit.layer), {"mode": "deactivate", "activate_ids": [], "deactivate_ids": []})
        entry["deactivate_ids" if edit.action in _OUT else "activate_ids"].append(edit.expert)
    where = {"all": 'prompt="all", generation="all"', "prompt": 'prompt="all"', "generated": 'generation="all"'}
    lost = _replaced(profile)
    if any(edit.action == "stimulate" for edit in profile.canonical):
        lost.append(
            "a stimulated expert's score is set 0.01 above the token's largest and the weights are made of the scores"
            " anew; the patch gives it the largest weight, in place of the expert with the smallest"
        )
    return Exported(
        json.dumps({"layer_configs": layers}, indent=2) + "\n",
        [*lost, "tokens and layers stand in the request, not in the file: give them as below", _UNPROVEN],
        f'VectorSpec(source="FILE", algorithm="moe_router", layers={sorted(map(int, layers))},'
        f" apply=ApplySpec({where[profile.tokens]})), in EasySteer's fork of vLLM",
    )


def _steermoe(profile: Profile, layout: ModelLayout) -> Exported:
    """Their function reads a pickled frame; this is its CSV, since no pickle is written here."""
    edits = {(edit.layer, edit.expert): -1 if edit.action in _OUT else 1 for edit in profile.canonical}
    # Their weights are indexed by the layer's own number, in a table with a row for each layer of the frame.
    rows = [
        f"{layer},{expert},{(value := edits.get((layer, expert), 0))},{abs(value)}"
        for layer in range(layout.layers[-1] + 1)
        for expert in range(layout.experts)
    ]
    up, down = (sum(value == sign for value in edits.values()) for sign in (1, -1))
    _not_too_many(profile, layout)
    return Exported(
        "\n".join(["layer,expert,risk_diff,risk_diff_abs", *rows]) + "\n",
        [
            "the whole engine, one request at a time (their max_num_seqs=1)",
            *_replaced(profile),
            "their function reads a pickle, and none is written here: make it yourself of this CSV, as below",
            _UNPROVEN,
        ],
        f'pandas.read_csv("FILE").to_pickle("a.pkl"); steer_moe(llm, "a.pkl", num_pos_experts={up},'
        f' num_neg_experts={down}, reverse_effect=False, strategy="risk_diff"), in SteerMoE on vLLM 0.10.1',
    )


def _replaced(profile: Profile) -> list[str]:
    return [] if profile.before_choice else [_REPLACED]


def _not_too_many(profile: Profile, layout: ModelLayout) -> None:
    for layer in layout.layers:
        found = sum(edit.layer == layer and edit.action not in _OUT for edit in profile.canonical)
        if found > layout.top_k:
            raise MoteError(
                f"profile '{profile.name}' brings {found} experts of layer {layer} in: SteerMoE takes"
                f" {layout.top_k} of a layer and passes over the rest."
            )


FORMATS: Final[dict[str, Format]] = {
    "vllm-mask": Format(
        "vllm-project/vllm, pull request 37824, fused_moe/riy.py: load_profile",
        ("suppress",),
        ("all",),
        (),
        _vllm_mask,
    ),
    "easysteer": Format(
        "ZJU-REAL/EasySteer-vllm-v1 6267ca0, steer_vectors/algorithms/moe_router.py: load_from_path",
        _ACTIONS,
        ("all", "prompt", "generated"),
        _SOFTMAX,
        _easysteer,
    ),
    "steermoe": Format(
        "adobe-research/SteerMoE 0c7e6b5, src/utils.py: steer_moe",
        _ACTIONS,
        ("all",),
        (*_SOFTMAX, "PhiMoEForCausalLM"),
        _steermoe,
    ),
}
