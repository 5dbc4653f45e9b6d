"""The part of a recipe that says what is studied: class, rankings, doses, split, controls, and what may be left out."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from mote.harness.recipe.contrast import ContrastPart
from mote.harness.recipe.roles import MAPPED, PATTERN, PROMPT, SPOKEN, known_role, last_tokens
from mote.harness.recipe.strict import Count, Number, Part, Positive, absent
from mote.harness.science.controls import KINDS, MOST_SETS
from mote.harness.science.noise import RETESTS
from mote.judges import REFUSED
from mote.patches.edits import MAX_FACTOR

Factor = Annotated[Number, Field(gt=0, le=MAX_FACTOR)]


class ControlsPart(Part):
    """How many profiles that should do nothing special: the empty one with other seeds, and random experts."""

    retest: Count = RETESTS
    mass: Count = 50
    layers: Count = 50
    uniform: Count = 0
    frequency: Count = 0

    @model_validator(mode="after")
    def _cap(self) -> ControlsPart:
        for kind in KINDS:
            count: int = getattr(self, kind)
            if count > MOST_SETS:
                raise ValueError(
                    f"{kind}: {count} sets; at most {MOST_SETS}, with which p can reach 1 / {MOST_SETS + 1}"
                )
        return self


class EconomyPart(Part):
    """Which control answers are left out because the verdict does not need them; with all off, none is.

    ``targets_only``: random sets answer the measured target prompts; the first ``whole`` sets of a family also
    ``others`` prompts outside the class. ``sequential``: controls end once significance is out of reach.
    ``curtailed``: a set ends once it has reached the tuned count or can't any more, but for the first ``whole`` ones.
    ``stop_decided``: an answer that opens as only the class's answers do ends there, but for those of the first
    ``whole`` sets, which have to show it; sets are then not curtailed, since what is left of them costs little.
    """

    targets_only: bool = True
    others: Count = 60
    sequential: bool = True
    curtailed: bool = True
    stop_decided: bool = True
    whole: Count = 5


WITHOUT_ECONOMY = EconomyPart(targets_only=False, sequential=False, curtailed=False, stop_decided=False)
"""Every control answers all measured prompts, as in runs older than economies."""


Ranking = Literal[
    "resonance",
    "resonance_per_token",
    "risk_difference",
    "log_odds",
    "smd",
    "auc",
    "router_weight_resonance",
    "resonance_last_token",
    "resonance_prompt",
    "resonance_reasoning",
    "resonance_answer",
    "pair_signs",
    "frequency",
    "causal",
]
"""The rankings of experts that a run can measure side by side (``mote rankings``)."""


class StudyPart(Part):
    """Which class is studied, how experts are ranked and tuned, and what it is compared with.

    ``contrast`` ranks experts by two sets of prompts instead of by classes; left out, the ranking is then the one a
    token, since the prompts of one set may be longer, whatever further rankings there are.
    """

    target: str = Field(default=REFUSED, description="a class of the label set; left out, the set's own")
    against: list[str] | None = Field(
        default=None,
        exclude_if=absent,
        description="the classes that experts are set against; left out, all others. Measured is every change out of"
        " the target either way",
    )
    ranking: Literal["resonance", "resonance_per_token"] = "resonance"
    rankings: list[Ranking] = Field(
        default_factory=list,
        description="several rankings: the first is the study's own unless ranking says otherwise, and each further"
        " one's top experts are measured after it, among random sets of their own",
        exclude_if=lambda rankings: not rankings,
    )
    ranking_sets: Annotated[int, Field(ge=0, le=MOST_SETS)] = Field(
        default=39,
        description="random sets for each further ranking, chosen as often in sum",
        exclude_if=lambda sets: sets == 39,
    )
    scan_prompts: Annotated[int, Field(ge=2)] = Field(
        default=24,
        description="prompts of the causal scan, where it is one of the rankings",
        exclude_if=lambda prompts: prompts == 24,
    )
    contrast: ContrastPart | None = Field(default=None, exclude_if=lambda contrast: contrast is None)
    role: Annotated[str, AfterValidator(known_role)] = Field(
        default=PROMPT,
        description="whose tokens' choices rank experts: prompt, prompt_last (its last token), prompt_last_5 (its last"
        " five), reasoning or answer",
        json_schema_extra={"pattern": f"^({PATTERN})$"},
    )
    top_k: Positive = 10
    doses: list[Positive] = Field(default_factory=list, description="further k to suppress, beside top_k")
    stimulate: bool = False
    factors: list[Factor] = Field(
        default_factory=list, description="scale the same experts by these; 0 is suppression, 1 the untouched model"
    )
    thirds: bool = Field(
        default=False, description="suppress only those in the early, middle, late third of the layers"
    )
    third_sets: Annotated[int, Field(ge=0, le=MOST_SETS)] = Field(
        default=0,
        description="random sets for the experts of each third, chosen as often in sum, asked after the study",
        exclude_if=lambda sets: sets == 0,
    )
    deactivated_sets: Annotated[int, Field(ge=0, le=MOST_SETS)] = Field(
        default=0,
        description="random sets that are suppressed and, once more, deactivated before the router's choice (SteerMoE's"
        " lever), as the tuned experts are; asked after the study",
        exclude_if=lambda sets: sets == 0,
    )
    tokens: Count = Field(default=0, description="prompts of which the choice of every token is kept")
    experts: list[Annotated[tuple[Count, Count], Field(strict=False)]] | None = Field(
        default=None, description="(layer, expert) to tune instead of the ranking's top k"
    )
    split: Literal["half", "units", "none"] = Field(
        default="half",
        description="experts are chosen on one half of the prompts and measured on the other; with units, no place "
        "(subject, topic) is on both sides",
    )
    fold: Literal[1, 2] = Field(
        default=1,
        description="with 2 the halves change places: what chose measures. `mote cross` pools a run of each",
        exclude_if=lambda fold: fold == 1,
    )
    controls: ControlsPart = ControlsPart()
    economy: EconomyPart = EconomyPart()
    margin: Annotated[Number, Field(gt=0, lt=1)] = Field(
        default=0.05, description="the share by which the others may change and still be called equivalent"
    )
    exact: bool = Field(default=True, description="teacher-forced probabilities of the class, where it has a stem")
    seed: Count = 0

    def chooses(self, label: str) -> bool:
        """Return whether answers of a label choose experts, where classes do: for the target, or against it."""
        return self.against is None or label == self.target or label in self.against

    @model_validator(mode="before")
    @classmethod
    def _contrast_a_token(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("contrast") is not None:
            return {"ranking": "resonance_per_token", **content}
        return content

    @model_validator(mode="before")
    @classmethod
    def _first_of_rankings(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("contrast") is None:
            named = content.get("rankings")
            if isinstance(named, list) and named:
                return {"ranking": named[0], **content}
        return content

    @model_validator(mode="after")
    def _rankings_differ(self) -> StudyPart:
        if twice := [name for name, times in Counter(self.rankings).items() if times > 1]:
            raise ValueError(f"rankings: '{twice[0]}' is named twice")
        if "pair_signs" in self.rankings and (self.contrast is None or self.contrast.pair is None):
            raise ValueError("rankings: pair_signs counts within pairs, and nothing pairs prompts: set contrast.pair")
        return self

    @model_validator(mode="after")
    def _against_others(self) -> StudyPart:
        if self.against is None:
            return self
        if self.contrast is not None:
            raise ValueError("against names classes, and contrast ranks by prompts: leave one of them out")
        if not self.against or self.target in self.against:
            raise ValueError(f"against needs classes other than the target '{self.target}', or to be left out")
        return self

    @model_validator(mode="after")
    def _roles_are_mapped(self) -> StudyPart:
        there = {PROMPT} if last_tokens(self.role) else {*MAPPED} if self.role in SPOKEN else set()
        for role in MAPPED:
            name = f"resonance_{role}"
            if name in self.rankings and role == self.role:
                raise ValueError(f"rankings: {name} is the ranking by study.role itself: name resonance")
            if name in self.rankings and role not in there:
                raise ValueError(
                    f"rankings: {name} needs maps of the {role}'s tokens: set study.role to reasoning or answer, which"
                    " keep all three"
                )
        return self

    @model_validator(mode="after")
    def _pairs_stay_together(self) -> StudyPart:
        if self.contrast is not None and self.contrast.pair is not None and self.split == "half":
            raise ValueError("contrast.pair: half would part the pairs; set study.split: units")
        return self
