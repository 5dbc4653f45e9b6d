"""Recipes: a study written down in YAML, checked before anything is loaded or written.

A recipe is a file, or the name of one that the package carries (``demo``). ``--set study.top_k=5`` overrides one value.
Whatever is wrong in it becomes one line that names the value's place and the nearest right one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from mote.harness.errors import MoteError, nearest
from mote.harness.files import canonical_json, digest_of
from mote.harness.recipe.label_sets import LABEL_SETS, label_set, set_of_task
from mote.harness.recipe.llm_judge import LlmPart, resolved
from mote.harness.recipe.markers import MarkersPart
from mote.harness.recipe.own_classes import OWN, first_class
from mote.harness.recipe.roles import SPOKEN
from mote.harness.recipe.strict import Number, Part, Positive, explain, read_yaml, yaml_value
from mote.harness.recipe.study_part import StudyPart
from mote.harness.recipe.task import TaskPart
from mote.harness.secrets import redacted
from mote.judges import Markers
from mote.reading import UnreadableError, check_http_url

RECIPES = Path(__file__).parent / "recipes"

_RENDERING = frozenset(
    {"conversation", "messages", "chat_template", "tokenize", "add_generation_prompt", "return_dict"}
)


def _url(text: str) -> str:
    try:
        check_http_url(text)
    except UnreadableError as error:
        raise ValueError(f"the URL of a server {error}") from None
    return text


class ServersPart(Part):
    """vLLM servers with the patch: ``window`` requests under way at each, each given up after ``timeout`` seconds.

    What a busy, broken or silent server did not answer is asked again for ``patience`` seconds, of all servers; a
    request whose replies are no answers is given up after ``attempts`` of them.
    """

    urls: list[Annotated[str, AfterValidator(_url)]] = Field(min_length=1)
    window: Positive = 256
    timeout: Annotated[Number, Field(gt=0, le=1e9)] = 3600.0
    patience: Annotated[Number, Field(gt=0, le=1e9)] = 1800.0
    attempts: Positive = 6
    key_env: str | None = Field(default=None, description="the environment variable that holds the servers' key")


class ModelPart(Part):
    """The model under study and the engine that runs it; ``options`` go to vLLM by name.

    With the engine ``server`` vLLM runs elsewhere, under ``servers``, and has its options there. ``template`` holds
    arguments of the chat template, such as ``{enable_thinking: false}``; every row says them.
    """

    path: str = Field(min_length=1)
    engine: Literal["vllm", "server"] = "vllm"
    options: dict[str, Any] = Field(default_factory=dict)
    servers: ServersPart | None = None
    markers: MarkersPart = MarkersPart()
    template: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda template: not template)

    @model_validator(mode="after")
    def _template_is_arguments(self) -> ModelPart:
        for name in self.template:
            if name in _RENDERING:
                raise ValueError(f"template.{name} is the harness's to give, not an argument of a chat template")
        try:
            canonical_json(self.template)
        except (TypeError, ValueError):
            raise ValueError("template holds a value that is not JSON, which no row could keep") from None
        return self

    @model_validator(mode="after")
    def _one_place(self) -> ModelPart:
        if self.engine == "server" and self.servers is None:
            raise ValueError("the engine 'server' needs servers.urls, for instance [http://127.0.0.1:8000/v1]")
        if self.engine == "server" and self.options:
            raise ValueError("options are for vLLM in this process; give them to `mote serve` where the servers run")
        if self.engine == "vllm" and self.servers is not None:
            raise ValueError("servers are given, and the engine is 'vllm' in this process; set engine: server")
        return self


class SamplingPart(Part):
    """How answers are drawn. Each request's own seed is made of ``seed`` and its prompt."""

    temperature: Annotated[Number, Field(ge=0)] = 0.6
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    max_tokens: Positive = 512
    seed: Annotated[int, Field(ge=0, le=2**62)] = 0  # SQLite's integers have 63 bits, and retests count up from here


class JudgesPart(Part):
    """Who labels the answers.

    ``text`` says how the refusal is read from a text: by rules and classifier together, or by the rules alone.
    ``surprise`` asks the untouched model how likely each distinct answer is: one prefill, a small part of what the
    answer itself took, and most spliced text is seen. Without it the labels are those of the texts alone. ``llm`` is a
    language model, at an endpoint or ``self``, whose labels the run then goes by; the others' stand beside them.
    """

    text: Literal["rules+classifier", "rules"] = "rules+classifier"
    surprise: bool = True
    llm: LlmPart | None = None


class Recipe(Part):
    """A whole study."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    model: ModelPart
    task: TaskPart
    sampling: SamplingPart = SamplingPart()
    study: StudyPart = StudyPart()
    judges: JudgesPart = JudgesPart()

    @model_validator(mode="before")
    @classmethod
    def _label_set(cls, content: Any) -> Any:
        """Write down what the task decides: the label set, the class that is studied, what a language model judges."""
        if not isinstance(content, dict) or not isinstance(content.get("task"), dict):
            return content
        judges = content.get("judges", {})
        llm = judges.get("llm") if isinstance(judges, dict) else None
        own = content["task"].get("classes") is not None or (isinstance(llm, dict) and llm.get("kind") == OWN)
        label = OWN if own else set_of_task(str(content["task"].get("name")))
        task = {"label": label, **content["task"]}
        if llm is not None:
            llm = resolved(llm, str(task["label"]))
            judges = {**judges, "llm": llm}
        study = content.get("study", {})
        known = LABEL_SETS[task["label"]].target if task["label"] in tuple(LABEL_SETS) else None
        target = first_class(task.get("classes"), llm) if task["label"] == OWN else known
        if isinstance(study, dict) and target is not None:
            study = {"target": target, **study}
        return {**content, "task": task, "study": study, "judges": judges}

    @model_validator(mode="after")
    def _own_classes_are_said(self) -> Recipe:
        own, llm = self.task.classes, self.judges.llm
        classes = () if own is None else own.reading().classes
        if own is not None and self.task.label != OWN:
            raise ValueError(f"task.classes are given, and task.label is '{self.task.label}': leave one of them out")
        if self.task.label == OWN and own is None and llm is None:
            raise ValueError("task.label: classes needs task.classes, or judges.llm with a prompt of your own")
        if own is not None and llm is not None and {*classes} != {*(llm.classes or ())}:
            raise ValueError(
                f"the prompt of judges.llm has the classes {', '.join(llm.classes or ())}, task.classes"
                f" {', '.join(classes)}: they label the same answers and need the same classes"
            )
        return self

    @model_validator(mode="after")
    def _target_is_a_class(self) -> Recipe:
        found = label_set(self.model_dump(mode="json"))
        named = [("target", self.study.target), *(("against", name) for name in self.study.against or ())]
        for key, name in named:
            if name not in found.classes:
                raise ValueError(
                    f"study.{key}: '{name}' is no class of the label set '{found.name}'.{nearest(name, found.classes)}"
                )
        return self

    @model_validator(mode="after")
    def _tokens_have_roles(self) -> Recipe:
        if self.model.markers.reading.harmony and self.study.role in SPOKEN:
            raise ValueError(
                f"study.role: {self.study.role} divides what is said at two markers, and model.markers: harmony has"
                " channels instead; take prompt or prompt_last"
            )
        return self

    @model_validator(mode="after")
    def _factors_are_doses(self) -> Recipe:
        for place, factor in enumerate(self.study.factors):
            if factor == 1:
                raise ValueError(f"study.factors.{place}: a factor of 1 is the untouched model, which is always there")
        return self

    @model_validator(mode="after")
    def _retest_needs_noise(self) -> Recipe:
        if self.sampling.temperature == 0 and self.study.controls.retest:
            raise ValueError(
                "study.controls.retest draws the untouched model again with another seed, which is the same text at"
                " sampling.temperature 0: set the one to 0 or the other above 0"
            )
        return self

    @model_validator(mode="after")
    def _samples_share_their_prompt(self) -> Recipe:
        if self.task.samples > 1 and self.sampling.temperature == 0:
            raise ValueError("task.samples draws the same text again at sampling.temperature 0: leave one of them out")
        if self.task.samples > 1 and self.study.split == "half":
            raise ValueError(
                "task.samples: answers to one prompt are not independent, and half would choose experts on some of them"
                " and measure on the others; set study.split: units"
            )
        return self

    @property
    def drawn(self) -> dict[str, Any]:
        """How answers are drawn, as every row keeps it: sampling, and the arguments of the chat template if any."""
        template = {"template": self.model.template} if self.model.template else {}
        return {**self.sampling.model_dump(mode="json"), **template}

    @property
    def digest(self) -> str:
        """The sha256 of the resolved recipe; a secret in it makes no other study."""
        return digest_of(redacted(self.model_dump(mode="json")))


def recipe_of(stored: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a run's manifest holds.

    Keys that came later stand at their defaults, which leave a study what it was, but for surprise: runs older than
    that judge were judged without. Raises MoteError for a recipe that this mote can't read.
    """
    try:
        return Recipe.model_validate({"judges": {"surprise": False}, **stored})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise MoteError(f"the run's recipe is not one of this mote: {place}: {first['msg']}") from None


def markers_of(recipe: Mapping[str, Any]) -> Markers:
    """Return what opens and closes the reasoning of a run's model by its resolved recipe."""
    return MarkersPart.model_validate(recipe["model"].get("markers") or {}).reading


def load_recipe(source: str, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Recipe:
    """Read a recipe by name or path, apply overrides, and check it.

    Overrides are ``key.path=value`` texts (values are YAML), or values by key path. Raises MoteError, with one line,
    for a recipe that isn't there, isn't YAML, or says something wrong.
    """
    path = _find(source)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise MoteError(f"{path} is not a recipe: it should hold a mapping with {', '.join(Recipe.model_fields)}.")
    from_its_folder(content, path.parent)
    return _checked(content, source, overrides)


def resolve_recipe(content: Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Check a recipe given as a mapping, as YAML would hold it; files in it are found from where one stands.

    ``overrides`` are values by key path. Raises MoteError, with one line, for what is wrong in it.
    """
    if isinstance(content, Recipe):
        content = content.model_dump(mode="json")
    if not isinstance(content, Mapping):
        raise MoteError(f"{type(content).__name__} is no recipe: give a name, a path, or a mapping of its parts.")
    return _checked(copy.deepcopy(dict(content)), "the recipe", overrides or {})


def _checked(content: dict[str, Any], source: str, overrides: Iterable[str] | Mapping[str, Any]) -> Recipe:
    set_values(content, overrides)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise MoteError(f"{source}: {explain(error, Recipe)}") from None


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return ``key.path: old -> new`` for each value in which two resolved recipes differ."""
    lines = []
    for key in sorted({*old, *new}):
        left, right = old.get(key), new.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {left!r} -> {right!r}")
    return lines


def _find(source: str) -> Path:
    packaged = RECIPES / f"{source}.yaml"
    if source in recipe_names():
        return packaged
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        raise MoteError(f"{source} is a folder; a recipe is a YAML file or one of: {', '.join(recipe_names())}.")
    raise MoteError(
        f"There is no recipe '{source}', neither a file nor a packaged one.{nearest(source, recipe_names())}"
    )


def from_its_folder(content: dict[str, Any], folder: Path) -> None:
    """Have the files that a recipe names found from its folder; what ``--set`` names is found from where one stands."""
    task, judges = content.get("task"), content.get("judges")
    if isinstance(task, dict) and isinstance(task.get("file"), str):
        task["file"] = str(folder / task["file"])
    hub = task.get("hub") if isinstance(task, dict) else None
    # A dataset that is no folder beside the recipe is one of the hub.
    if isinstance(hub, dict) and isinstance(hub.get("dataset"), str) and (folder / hub["dataset"]).is_dir():
        hub["dataset"] = str(folder / hub["dataset"])
    classes = task.get("classes") if isinstance(task, dict) else None
    if isinstance(classes, dict) and isinstance(classes.get("function"), str) and ".py:" in classes["function"]:
        classes["function"] = str(folder / classes["function"])
    llm = judges.get("llm") if isinstance(judges, dict) else None
    if isinstance(llm, dict) and isinstance(llm.get("prompt"), str) and (folder / llm["prompt"]).is_file():
        llm["prompt"] = str(folder / llm["prompt"])


def set_values(content: dict[str, Any], overrides: Iterable[str] | Mapping[str, Any]) -> None:
    """Put overrides into a recipe's content: ``key.path=value`` texts (values are YAML), or values by key path.

    Raises MoteError for what is neither.
    """
    for key, value in overrides.items() if isinstance(overrides, Mapping) else map(_parsed, overrides):
        _override(content, key, value)


def _parsed(override: str) -> tuple[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise MoteError(f"--set {override}: write key.path=value, for instance --set study.top_k=5.")
    return key, yaml_value(text, f"--set {key}")


def _override(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise MoteError(f"--set {key}={value}: '{parent}' has a value, not parts of its own.")
    content[last] = value
