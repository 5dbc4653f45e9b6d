"""The model card of a baked checkpoint: what is in its weights, by which evidence, and how near it is to the patch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mote.harness.engine.model import ModelSource
from mote.harness.merge.card import heading
from mote.harness.take_home.card import Card, Control, Interval
from mote.patches import Profile

_SHOWN = 60


def readme(model: ModelSource, profile: Profile, card: Card | None, record: Mapping[str, Any]) -> str:
    """Return the card as Markdown with the hub's front matter; a model that is a folder is named without its path."""
    hub = "revision" in model.files
    base = model.name if hub else Path(model.name).name
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["mixture-of-experts", "mote-harness"]}
    if hub:
        front["base_model"] = model.name
    lines = [
        *heading(front, record["name"]),
        f"`{base}` with the profile `{profile.name}` in its weights: the outputs of {len(profile.canonical)} routed"
        " experts are multiplied, everything else is the model's own. The model's licence holds for it.",
        "",
        *_edits(profile),
        "",
        "## The same as the profile?",
        f"{'Yes' if record['exact'] else 'Not exactly'}: {record['why']}.",
        *check_lines(record["check"]),
        "",
        "## Evidence",
        *(["None: the profile was baked from a file, without a run."] if card is None else _evidence(card)),
        "",
        f"Child `{record['child']['digest']}` of profile `{profile.digest}`. `bake.json` has the digests of every file"
        " and of the model's; `mote merge check` verifies them.",
        "",
    ]
    return "\n".join(lines)


def _edits(profile: Profile) -> Iterator[str]:
    yield "| layer | expert | factor |"
    yield "| --- | --- | --- |"
    for edit in profile.canonical[:_SHOWN]:
        yield f"| {edit.layer} | {edit.expert} | {edit.factor if edit.action == 'scale' else 0.0:g} |"
    if (more := len(profile.canonical) - _SHOWN) > 0:
        yield f"| and {more} more | in `bake.json` | |"


def check_lines(check: Mapping[str, Any] | None) -> list[str]:
    """Return what a check measured, in sentences."""
    if check is None:
        return ["Not measured: `mote bake --check N` asks both."]
    count, kl = check["prompts"], check["kl"]
    lines = [
        f"Greedy answers to {count} prompts: {check['greedy_equal']} equal those of the model under the profile"
        f" ({check['greedy_equal_untouched']} of the untouched model's do), and {check['labels_differ']} have another"
        " label.",
        f"Of {check['of_the_class']} prompts of the class under study {check['flips']['patched']} leave it under the"
        f" profile, {check['flips']['baked']} in the baked model; {check['broken']['patched']} and"
        f" {check['broken']['baked']} of all texts break.",
    ]
    if "value" in kl:
        lines.append(
            f"KL(patched || baked) is {kl['value']:.4f} nats a token ({kl['low']:.4f} to {kl['high']:.4f}), over"
            f" {kl['tokens']:,} tokens of {kl['texts']} texts drawn under the profile."
        )
    else:
        lines.append(f"The divergence was not measured: {kl['left_out']}")
    return lines


def _evidence(card: Card) -> Iterator[str]:
    effect, harm = card.effect, card.harm
    yield f"Run `{card.run}`: {card.prompts.count:,} prompts of {card.prompts.task}, labels by `{card.judge}`."
    yield ""
    if card.verdict is None:
        yield f"No verdict: the run's controls are of another profile than `{card.profile['name']}`."
    else:
        yield f"**{card.verdict.kind}** ({_p(card.verdict.p)}): {card.verdict.reason}"
    yield ""
    if effect is not None:
        yield (
            f"- Effect: {effect.flips} of {effect.of} measured prompts of {card.target} leave the class,"
            f" {_share(effect.share)} over {effect.units} units"
        )
        if effect.net is not None:
            yield f"- Net fall of the class's share: {_share(effect.net)}"
        if effect.chance is not None:
            yield f"- Fall of its exact probability: {effect.chance:.1%}"
    yield from (f"- Control {_control(one)}" for one in card.controls)
    if harm is not None:
        yield (
            f"- Harm: {harm.broken} of {harm.of} texts of the class break, {harm.broken_others} of {harm.of_others}"
            " others"
        )
        if harm.kl is not None:
            low, high = harm.kl.low, harm.kl.high
            yield f"- KL from the untouched model: {harm.kl.value:.4f} nats a token ({low:.4f} to {high:.4f})"
        if harm.entered is not None:
            yield f"- Prompts outside the class that enter it, net: {_share(harm.entered)}"
    yield f"- {card.rows.count:,} answers of the digest `{card.rows.digest[:16]}`"


def _p(p: float | None) -> str:
    return "p not known" if p is None else f"p = {p:.3f}"


def _share(found: Interval) -> str:
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def _control(one: Control) -> str:
    if one.kind == "noise":
        return f"`noise` (the untouched model under {one.sets} other seeds): {_p(one.p)}"
    stopped = ", stopped early" if one.stopped else ""
    return f"`{one.kind}`: {_p(one.p)}, {one.reached} of {one.sets} random sets do as much{stopped}"
