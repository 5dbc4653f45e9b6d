"""The families of models: which were proven, which are read but unproven, and which are refused, each with its reason.

A family is told by the ``model_type`` of the language model. A type that is not listed is read all the same where its
configuration says by a known key which layers have experts; it counts as unproven. When a model is loaded, its routers
are compared with what was read, so a misreading stops the engine and never edits a wrong expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mote.patches.errors import ProfileError
from mote.patches.placement import Placement, place, text_fields

Status = Literal["proven", "unproven", "refused"]


class Family(NamedTuple):
    """What is known of the models of one ``model_type``.

    Attributes:
        title: the models' name.
        status: ``proven``: by parity with an independent reference on a CPU; ``unproven``: the configuration is read,
            and the engine says that ``mote verify`` is to be run first; ``refused``.
        note: of a refusal its reason; else how it was proven, or what to know.
        every: whether all layers have experts where the configuration does not say which.
        cpu: why a CPU leaves the model alone; empty if it does not.
    """

    title: str
    status: Status = "unproven"
    note: str = ""
    every: bool = False
    cpu: str = ""


_NO_GROUPS = "vLLM's CPU router stops at sigmoid scores without expert groups"
_NO_BIAS = "vLLM's CPU router drops the correction bias, so that stock vLLM chooses other experts than the model's own"
_ZERO = (
    "its router chooses among experts and zero experts and maps all of the latter to one place, so that an id does not "
    "name one expert"
)
_MLA = "through MLA, without vLLM's CPU operator for rotary embedding"

FAMILIES: dict[str, Family] = {
    "glm4_moe": Family("GLM-4.5, GLM-4.6, GLM-4.7", "proven", "in CI"),
    "deepseek_v2": Family("DeepSeek-V2", "proven", f"in CI, {_MLA}"),
    "deepseek_v3": Family("DeepSeek-V3, DeepSeek-R1", "proven", f"in CI, {_MLA}"),
    "kimi_k2": Family("Kimi-K2", "proven", f"in CI, {_MLA}"),
    "qwen3_moe": Family("Qwen3-MoE", "proven", "in CI, with and without renormalised weights", every=True),
    "olmoe": Family("OLMoE", "proven", "in CI", every=True),
    "mixtral": Family("Mixtral", "proven", "in CI", every=True),
    "gpt_oss": Family("gpt-oss", "proven", "in CI; on a GPU its MXFP4 kernels mostly route by themselves", every=True),
    "qwen2_moe": Family("Qwen1.5-MoE, Qwen2-MoE", "proven", "in `make slow`", every=True),
    "qwen3_next": Family(
        "Qwen3-Next",
        note="by parity in `make slow` with full-attention layers alone; real ones mix in linear",
        every=True,
    ),
    "qwen3_5_moe": Family("Qwen3.5-MoE", every=True),
    "qwen3_vl_moe": Family("Qwen3-VL-MoE", every=True),
    "qwen3_omni_moe": Family("Qwen3-Omni-MoE", every=True),
    "qwen4_exp": Family("Qwen4 (experimental)", every=True),
    "glm4_moe_lite": Family("GLM-4.7-Flash", "proven", f"in `make slow`, {_MLA}"),
    "glm4v_moe": Family("GLM-4.5V, GLM-4.6V"),
    "glm_moe_dsa": Family("GLM-5", note="vLLM runs its sparse attention on GPUs only"),
    "glm5_next": Family("GLM-5 Next", note="vLLM runs it on GPUs only"),
    "deepseek_v32": Family("DeepSeek-V3.2", note="vLLM runs its sparse attention on GPUs only"),
    "deepseek_v4": Family("DeepSeek-V4", note="its first layers choose by a table of token ids"),
    "kimi_linear": Family("Kimi-Linear", note="vLLM runs it on GPUs only"),
    "dots1": Family("dots.llm1"),
    "exaone_moe": Family("EXAONE-MoE"),
    "llama4": Family("Llama-4", note="one expert a token: scale is refused, since a token's weights keep their sum"),
    "granitemoe": Family("Granite-MoE", "proven", "in `make slow`", every=True),
    "granitemoeshared": Family("Granite-MoE with shared experts", every=True),
    "granitemoehybrid": Family("Granite-4 hybrid", every=True),
    "lfm2_moe": Family("LFM2-MoE", cpu=_NO_GROUPS),
    "phimoe": Family("Phi-3.5-MoE", every=True),
    "jamba": Family("Jamba"),
    "nemotron_h": Family("Nemotron-H with experts"),
    "hunyuan_v1_moe": Family("Hunyuan-A13B", every=True),
    "hy_v3": Family("Hunyuan V3"),
    "hy_v4": Family("Hunyuan V4"),
    "afmoe": Family("Trinity (AFMoE)"),
    "bailing_moe": Family("Ling, Ring (Bailing)"),
    "bailing_hybrid": Family("Ling, Ring with linear attention"),
    "cohere2_moe": Family("Command with experts"),
    "laguna": Family("Laguna", cpu=_NO_GROUPS),
    "flex_olmo": Family("FlexOlmo", every=True),
    "mellum": Family("Mellum with experts"),
    "solar_open": Family("Solar Open", every=True),
    "mistral4": Family("Mistral 4"),
    "axk1": Family("A.X-K1"),
    "mimo_v2_flash": Family("MiMo-V2-Flash"),
    "mimo_v2": Family("MiMo-V2"),
    "step3_text": Family("Step-3"),
    "step3p5": Family("Step-3.5", cpu=_NO_GROUPS),
    "dbrx": Family("DBRX", every=True),
    "aria": Family("Aria", every=True),
    "gemma4": Family("Gemma-4 with experts", every=True),
    "minicpm": Family("MiniCPM-MoE", every=True),
    "minimax_m2": Family("MiniMax-M2", every=True, cpu=_NO_GROUPS),
    "minimax": Family("MiniMax-Text-01, MiniMax-M1", every=True),
    "minimax_m3_vl": Family("MiniMax-M3", note="vLLM runs it on GPUs only", every=True),
    "ernie4_5_moe": Family("ERNIE-4.5", cpu=_NO_BIAS),
    "ernie4_5_vl_moe": Family(
        "ERNIE-4.5-VL",
        "refused",
        "it has two sets of experts in a layer, for text and for images, under the same numbers",
    ),
    "longcat_flash": Family("LongCat-Flash", "refused", _ZERO),
    "jetmoe": Family("JetMoE", "refused", "its attention is a mixture of experts too, under the same numbers"),
    "qwen3_omni_moe_talker": Family("Qwen3-Omni's talker", "refused", "it generates sound codes, not text"),
}
_ALIASES = {
    "gemma4_unified": "gemma4",
    "bailing_moe_v2": "bailing_moe",
    "bailing_moe_linear": "bailing_hybrid",
    "longcat_flash_ngram": "longcat_flash",
    "deepseek": "deepseek_v2",
    "ling": "bailing_moe",
}


def family_of(fields: Mapping[str, Any]) -> Family | None:
    """Return the family of a language model's configuration; None if it is not listed."""
    model_type = str(fields.get("model_type", "")).removesuffix("_text")
    return FAMILIES.get(_ALIASES.get(model_type, model_type))


def read_placement(config: Mapping[str, Any]) -> Placement:
    """Read where a model has its experts.

    Raises:
        NoExpertsError: the model is dense.
        ProfileError: it is refused as a family, or its configuration does not say where its experts are.
    """
    fields = text_fields(config)
    family = family_of(fields)
    name = _name(config, fields)
    if family is not None and family.status == "refused":
        raise ProfileError(f"{family.title} ({name}) is refused: {family.note}; use a model of another family")
    zero = fields.get("zero_expert_num") or 0
    if zero:
        raise ProfileError(f"{name} is refused: {_ZERO}; use a model of another family")
    try:
        return place(fields, every=family is not None and family.every)
    except ProfileError as error:
        raise type(error)(f"{name}: {error}") from None
    except (
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
        IndexError,
        OverflowError,
    ) as error:  # values of kinds that no known configuration has
        raise ProfileError(f"{name}: the model's config is not understood: {error}") from None


def cpu_fault(config: Mapping[str, Any]) -> str:
    """Return why a CPU leaves a model of this configuration alone; empty if it does not."""
    fields = text_fields(config)
    family = family_of(fields)
    if family is None or not family.cpu:
        return ""
    return (
        f"{family.title} is left alone on a CPU: {family.cpu}, with the patch and without it; run this model on a GPU, "
        "or another model here"
    )


def is_proven(config: Mapping[str, Any]) -> bool:
    """Return whether a model's family was proven by parity, as a text model of its own."""
    fields = text_fields(config)
    family = family_of(fields)
    return fields is config and family is not None and family.status == "proven"


def choice_groups(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return into how many groups a router divides its experts, and of how many of these a token may choose."""
    fields = text_fields(config)
    groups, kept = fields.get("n_group") or 1, fields.get("topk_group") or 1
    return (groups, kept) if isinstance(groups, int) and isinstance(kept, int) else (1, 1)


def bias_fault(config: Mapping[str, Any]) -> str:
    """Return why a model's scores cannot be edited before the choice on a CPU; empty if they can."""
    if is_proven(config):
        return ""
    proven = ", ".join(family.title for family in FAMILIES.values() if family.status == "proven")
    return f"edits before the choice are proven for {proven} only"


def _name(config: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    names = config.get("architectures") or ["a model without architectures"]
    return f"{names[0]}, model_type '{fields.get('model_type', '')}'"


def to_markdown() -> str:
    """Return the table of all families; ``make families`` writes it to ``results/reach/families.md``."""
    said = {
        "proven": "proven on a CPU by parity",
        "unproven": "read; unproven: run `mote verify MODEL`, which then is the proof",
        "refused": "refused",
    }
    lines = ["| family | model_type | status | on a CPU | note |", "| --- | --- | --- | --- | --- |"]
    order = list(said)
    for model_type, family in sorted(FAMILIES.items(), key=lambda item: (order.index(item[1].status), item[1].title)):
        cpu = f"left alone: {family.cpu}" if family.cpu else ""
        lines.append(f"| {family.title} | `{model_type}` | {said[family.status]} | {cpu} | {family.note} |")
    return "\n".join(lines) + "\n"
