"""A run as pandas frames: ``mote.open("results/runs/demo")``. Shapes and units: ``docs/frames.md``.

Nothing is read before it is asked for, and what was read is kept: a run that goes on is opened anew. Labels are those
of the judge that the run goes by; ``labels`` has those of all.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mote.harness.compare.run_answers import profile_of_run
from mote.harness.errors import MoteError, nearest
from mote.harness.experts.rankings import run_rankings
from mote.harness.preconditions import STATES
from mote.harness.recipe.label_sets import label_set
from mote.harness.recipe.manifest import read_manifest
from mote.harness.recipe.sides import sides_of
from mote.harness.recipe.study_part import StudyPart
from mote.harness.report.analysis import StudyResult, analyse
from mote.harness.report.expert import ExpertPage, expert_page
from mote.harness.report.lead import lead
from mote.harness.science.controls import BASELINE
from mote.harness.science.maps import ranked_maps
from mote.harness.science.resonance import resonance
from mote.harness.science.splits import units_of
from mote.harness.store.questions import last_question
from mote.harness.store.run import RunStore
from mote.patches import Profile

if TYPE_CHECKING:
    from mote.harness.report.plots import Plots

_GENERATIONS: Final = [
    *("generation_id", "prompt_id", "profile", "kind", "part", "label", "raw", "reasoning", "answer"),
    *("prompt_tokens", "generated_tokens", "finish_reason", "seed"),
]


def open_run(run: str | os.PathLike[str]) -> Run:
    """Return the run in a folder. Raises MoteError where the folder holds none."""
    return Run(Path(run))


class Run:
    """A run, read as frames; each is a ``pandas.DataFrame``, made when it is first asked for."""

    def __init__(self, folder: Path, answers: pd.DataFrame | None = None) -> None:
        """Open a run; ``answers`` is its ``generations_frame`` by its own judge, where it was read already."""
        self.folder = folder
        self._read = answers
        self.manifest: Mapping[str, Any] = read_manifest(folder)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe as the run resolved it."""
        found: Mapping[str, Any] = self.manifest["recipe"]
        return found

    @property
    def judge(self) -> str:
        """The judge whose labels the run goes by."""
        return label_set(self.recipe).judge

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the run's label set."""
        return label_set(self.recipe).classes

    @property
    def target(self) -> str:
        """The class under study."""
        return str(self.recipe["study"]["target"])

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have routed experts, numbered as the model does."""
        return tuple(int(layer) for layer in self.manifest["model"]["layout"]["layers"])

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """One row a prompt, by prompt_id: question, part ('select', 'measure', '' without a split), its attributes."""
        found, split = self._store.prompts(), self._store.split()
        rows = [
            {
                "prompt_id": row.prompt_id,
                "question": last_question(list(row.messages)),
                "part": split.get(row.prompt_id, ""),
            }
            | {name: value for name, value in row.attributes.items() if name not in ("question", "part")}
            for row in found
        ]
        return pd.DataFrame(rows, columns=None if rows else ["prompt_id", "question", "part"]).set_index("prompt_id")

    @cached_property
    def profiles(self) -> pd.DataFrame:
        """One row a profile of the study, by name: kind, part, action, k, experts [(layer, expert), ...], digest."""
        found = self._store.profiles()
        rows = []
        for row in found:
            edits: Sequence[Mapping[str, Any]] = row.spec["edits"]
            actions = "+".join(sorted({str(edit["action"]) for edit in edits}))
            experts = [(int(edit["layer"]), int(edit["expert"])) for edit in edits]
            rows.append((row.name, row.kind, row.part, actions, len(edits), experts, row.digest))
        columns = ["profile", "kind", "part", "action", "k", "experts", "digest"]
        return pd.DataFrame(rows, columns=columns).set_index("profile")

    @cached_property
    def generations(self) -> pd.DataFrame:
        """One row an answer of the study: prompt_id, profile, kind, part, label, texts, tokens, finish_reason, seed."""
        return self._answers[_GENERATIONS].copy()

    @cached_property
    def labels(self) -> pd.DataFrame:
        """One row a label: prompt_id, profile, judge, label, rule, span, start, end; of every judge.

        The rule and its span are those of the first evidence, which decided.
        """
        query = (
            "select g.prompt_id, g.profile, l.judge, l.label, json_extract(l.evidence, '$[0].rule') as rule,"
            " json_extract(l.evidence, '$[0].span') as span, json_extract(l.evidence, '$[0].start') as start,"
            " json_extract(l.evidence, '$[0].end') as end"
            " from labels l join generations g using (generation_id) order by l.judge, g.profile, g.prompt_id"
        )
        return pd.read_sql(query, self._store.db)

    @cached_property
    def flips(self) -> pd.DataFrame:
        """One row a prompt and profile: prompt_id, unit, part, profile, kind, before, after, flipped.

        ``before`` is the label of the untouched model's answer. ``flipped``: from the class under study to another
        class; to broken, cut-off or unscored text is no flip. ``unit`` is the prompt itself where nothing is shared.
        """
        frame = self._answers[self._answers["label"].notna()]
        before = frame[frame["profile"] == BASELINE].set_index("prompt_id")["label"].rename("before")
        found = frame[frame["profile"] != BASELINE].join(before, on="prompt_id", how="inner")
        found = found.rename(columns={"label": "after"}).assign(part=found["part"].fillna(""))
        attributes = {
            str(key): json.loads(text) for key, text in zip(frame["prompt_id"], frame["attributes"], strict=True)
        }
        units = units_of(attributes)[1]
        other = (found["after"] != self.target) & ~found["after"].isin(STATES)
        found = found.assign(
            unit=[units.get(key, key) for key in found["prompt_id"]], flipped=(found["before"] == self.target) & other
        )
        columns = ["prompt_id", "unit", "part", "profile", "kind", "before", "after", "flipped"]
        return found[columns].reset_index(drop=True)

    @cached_property
    def resonance(self) -> pd.DataFrame:
        """The map that chose the experts, [layer, expert], on the prompts that chose: the study's ranking.

        In activations a prompt, or a token where ``study.ranking`` says so; of a contrast, the first set minus the
        other. Raises DataError where the baseline's labels do not allow a map yet.
        """
        study = StudyPart.model_validate(self.recipe["study"])
        ids, maps, counted = self._store.maps(BASELINE, study.role)
        split, frame = self._store.split(), self._store.labels_frame(self.judge)
        baseline = frame[frame["profile"] == BASELINE]
        labels = dict(zip(baseline["prompt_id"].map(str), baseline["label"].map(str), strict=True))
        sides = sides_of(labels, {row.prompt_id: row.attributes for row in self._store.prompts()}, study)
        ranked = ranked_maps(study.ranking, maps, [seen for seen, _ in counted])
        at = [i for i, key in enumerate(ids) if key in sides.marks and split.get(key, "select") == "select"]
        return self._by_expert(resonance(ranked[at], [sides.marks[ids[i]] for i in at], sides.target))

    @cached_property
    def rankings(self) -> dict[str, pd.DataFrame]:
        """Every ranking of the experts by the sides that the study's own goes by, [layer, expert] each, by name.

        As ``mote rankings`` has them. ``causal`` is there where a scan was made, NaN for experts that it left out.
        Raises MoteError for a run without a split, or whose experts are not chosen yet.
        """
        return {name: self._by_expert(found) for name, found in run_rankings(self.folder).items()}

    def ranking(self, name: str) -> pd.DataFrame:
        """Return one of ``rankings``; raise MoteError, with the nearest name, for another."""
        if name not in self.rankings:
            raise MoteError(f"There is no ranking '{name}'.{nearest(name, self.rankings)}")
        return self.rankings[name]

    @cached_property
    def result(self) -> StudyResult:
        """All that the report says, as numbers: seconds of bootstraps, once."""
        return analyse(self._store, self.manifest, self.judge, self._answers)

    @property
    def verdict(self) -> str:
        """What the run found, in the sentence that its report begins with: whether it is chance, and what changed."""
        return lead(self.result)

    @property
    def experts(self) -> pd.DataFrame:
        """The tuned experts, best first: layer, expert, rank, resonance with its interval, how sure the place is."""
        return self.result.experts.distinctive

    @property
    def controls(self) -> pd.DataFrame:
        """One row a random set that answered every target prompt: kind, profile, flips, of, share."""
        return self.result.chance.sets

    @property
    def effects(self) -> pd.DataFrame:
        """One row a profile and view: flips, reverse flips, broken answers, with exact intervals and paired tests."""
        return self.result.changes.effects

    def profile(self, name: str) -> Profile:
        """Return a profile of the study by its name, as ``mote.client`` sends it; raise MoteError for another name."""
        return profile_of_run(self.folder, name)

    def expert(self, layer: int, expert: int, top: int = 10) -> ExpertPage:
        """Return what the run says of one expert, as frames: what it is seen for, and what it is needed for."""
        return expert_page(self, layer, expert, top)

    @property
    def plot(self) -> Plots:
        """The report's figures, drawn into an Axes: ``run.plot.resonance()``, ``transition``, ``null``, ``dose``."""
        # pyplot takes as long to load as pandas.
        from mote.harness.report.plots import Plots

        return Plots(self)

    def maps(self, role: str = "prompt") -> tuple[list[str], NDArray[Any]]:
        """Return prompt ids and the untouched model's activation maps of a role, int32 [prompts, layers, experts]."""
        ids, maps, _ = self._store.maps(BASELINE, role)
        return ids, maps

    @cached_property
    def _answers(self) -> pd.DataFrame:
        return self._store.generations_frame(self.judge) if self._read is None else self._read

    @cached_property
    def _store(self) -> RunStore:
        # Kept open: an older run's rows are brought forward in memory, which takes seconds.
        store = RunStore(self.folder, read_only=True)
        weakref.finalize(self, store.close)
        return store

    def _by_expert(self, values: NDArray[np.float64]) -> pd.DataFrame:
        layers, experts = pd.Index(self.layers, name="layer"), pd.RangeIndex(values.shape[1], name="expert")
        return pd.DataFrame(values, index=layers, columns=experts)

    def __repr__(self) -> str:
        """Return what the run is, in a few lines; only rows are counted."""
        model, prompts = self.manifest["model"], self.manifest["prompts"]
        layout = model["layout"]
        state = "finished" if self.manifest.get("finished") else "to go on with: mote run"
        return "\n".join(
            (
                f"Run {self.folder} ({state})",
                f"  model    {model['name']}: {len(layout['layers'])} layers of {layout['experts']} experts,"
                f" {layout['top_k']} a token",
                f"  prompts  {prompts['count']:,} of {prompts['task']}",
                f"  studied  {self.target} of {', '.join(self.classes)}, by {self.judge}",
                f"  answers  {self._counted()}",
                "  frames   prompts profiles generations labels flips resonance rankings experts controls effects",
            )
        )

    def _counted(self) -> str:
        try:
            profiles = [row.name for row in self._store.profiles()]
            (answers,) = self._store.db.execute("select count(*) from generations").fetchone()
        except MoteError as error:
            return str(error)
        tuned = next((name for name in profiles if name.startswith("suppress-")), None)
        return f"{answers:,} under {len(profiles):,} profiles" + (f"; tuned: {tuned}" if tuned else "; none tuned yet")
