"""Whether a profile can lie in weights, and whether the weights then do what the patch does.

The patch edits a token's routing weights and rescales them to the sum that they had (``patches.edit``). Weights of a
checkpoint can multiply an expert's output, whoever else was chosen; they cannot give its share to the others that a
token chose, since those differ from token to token. So a baked model leaves out what the patch hands on, and the two
are the same only where there is nobody to hand it to: one expert a token, or a whole layer.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from mote.harness.errors import MoteError
from mote.patches import ModelLayout, Profile


class Bakeable(NamedTuple):
    """Whether a baked model computes what the patched one does, and why, in a sentence."""

    exact: bool
    why: str


def bakeable(profile: Profile, layout: ModelLayout) -> Bakeable:
    """Return how a profile goes into weights; raise MoteError, with the reason, for one that does not go at all."""
    _refuse(profile)
    suppressed = Counter(edit.layer for edit in profile.canonical if edit.action == "suppress")
    layers = {edit.layer for edit in profile.canonical}
    if layout.top_k == 1 and all(edit.action == "suppress" for edit in profile.canonical):
        return Bakeable(True, "a token takes one expert, so that nothing of a suppressed one goes to another")
    if all(suppressed[layer] == layout.experts for layer in layers):
        return Bakeable(True, "all experts of these layers are suppressed, so that nothing of them goes to another")
    return Bakeable(
        False,
        "the patch keeps the sum of a token's routing weights and gives what is taken from an expert to those that the"
        " token chose beside it; the baked model leaves it out",
    )


def _refuse(profile: Profile) -> None:
    name = f"profile '{profile.name}'"
    if not profile.canonical:
        raise MoteError(f"{name} edits nothing: the checkpoint would be the model's own.")
    other = next((edit for edit in profile.canonical if edit.action not in ("suppress", "scale")), None)
    if other is not None:
        raise MoteError(
            f"{name} cannot be baked: {other.action} of ({other.layer}, {other.expert}) changes which experts a token"
            " takes, which depends on the token, and weights of an expert cannot."
        )
    if profile.tokens != "all":
        raise MoteError(
            f"{name} cannot be baked: it edits {profile.tokens} tokens only, and a checkpoint treats all tokens alike."
        )
