"""The part of a recipe that makes a language model the source of a study's labels: an endpoint, or the model itself.

``judges.llm: self`` is short for ``{model: self}``. The judge's name is written into the resolved recipe, with the
digest of its prompt: it stands in the run's manifest, so that whoever reads the run finds its labels though the
prompt's file may be gone, and another version of the prompt is another judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from mote.harness.recipe.strict import Number, Part
from mote.judges.llm.kinds import ALL_KINDS, BROKEN, KINDS, OWN_CLASSES
from mote.judges.llm.prompt import JudgePrompt, load_prompt

SELF: Final = "self"
"""The model of a judge that is the run's own, untouched."""

ASKING: Final = ("prompt", "url", "key_env", "concurrency", "timeout", "max_tokens", "budget", "missing")
"""What may differ from start to start of one run: how its judge is asked, not what it says.

The prompt's file may lie elsewhere: its digest is in the judge's name, and beside each judgment.
"""
_FOR_ENDPOINTS: Final = ("url", "key_env", "body")


class LlmPart(Part):
    """A language model that labels a study's answers; options are named as those of ``mote judge ask``.

    ``budget`` bounds the replies that are asked for over the whole run. ``missing`` says what becomes of answers that
    the judge gave no reply to or was cut off at: the run stops and asks them again at the next start, or they are
    UNSCORED for good.
    """

    model: str = Field(min_length=1, description="as its server names it, or self")
    url: str | None = None
    key_env: str | None = Field(default=None, description="the environment variable that holds the server's key")
    kind: str | None = Field(default=None, description="what is judged; the label set's")
    name: str | None = Field(default=None, description="the judge's name; left out, model/prompt@digest")
    prompt: str | None = Field(default=None, description="a prompt file of one's own")
    classes: list[str] | None = Field(
        default=None, exclude_if=lambda classes: classes is None, description="of one's own: the prompt's verdicts"
    )
    structured: Literal["auto", "json", "text"] = "auto"
    concurrency: Annotated[int, Field(ge=1)] = 8
    timeout: Annotated[Number, Field(gt=0, le=1e9)] = 180.0
    max_tokens: Annotated[int, Field(ge=1)] = 2048
    body: dict[str, Any] = Field(default_factory=dict)
    budget: Annotated[int, Field(ge=0)] | None = None
    missing: Literal["stop", "unscored"] = "stop"

    @model_validator(mode="after")
    def _own_engine(self) -> LlmPart:
        if self.model == SELF and (given := next((name for name in _FOR_ENDPOINTS if getattr(self, name)), None)):
            raise ValueError(f"judges.llm.{given} is for a judge at an endpoint; the model itself has the run's engine")
        return self


def resolved(content: Any, kind: str) -> Any:
    """Return ``judges.llm`` as written in a recipe with what is left out in it: kind, the judge's name, own classes.

    ``kind`` is the name of the label set. Raises ValueError for another kind, for classes of one's own without a prompt
    that says them, and as ``load_prompt`` does.
    """
    part = {"model": SELF} if content == SELF else content
    if not isinstance(part, Mapping):
        return part
    given = part.get("kind") or kind
    if given != kind:
        raise ValueError(f"judges.llm.kind: '{given}' makes no labels of the set '{kind}' (task.label); leave it out")
    part = {**part, "kind": given}
    model, source = part.get("model"), part.get("prompt")
    if not isinstance(model, str) or not isinstance(source, str | None) or given not in ALL_KINDS:
        return part
    own = given == OWN_CLASSES
    if own and source is None:
        raise ValueError("judges.llm: classes of your own are the verdicts of a prompt of your own: judges.llm.prompt")
    if not part.get("name") or (own and not part.get("classes")):
        prompt = load_prompt(source or KINDS[given])
        part["name"] = part.get("name") or f"{model}/{prompt.name}@{prompt.sha256[:8]}"
        if own:
            part["classes"] = part.get("classes") or own_classes(prompt)
    return part


def own_classes(prompt: JudgePrompt) -> list[str]:
    """Return the classes that a prompt's verdicts are; BROKEN is none, but a state."""
    return [verdict for verdict in prompt.verdicts if verdict != BROKEN]
