"""What a comparison of rankings and a pruning share: answers under sets of experts, asked once, and their labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from mote.harness.engine.vllm import Answer, Request, request_seed
from mote.harness.errors import MoteError
from mote.harness.experts.rankings import Halves
from mote.harness.science.controls import Expert
from mote.harness.store.answers import Answers
from mote.harness.store.run import GenerationRow, Purpose
from mote.harness.study.session import Session
from mote.harness.study.surprise import run_threshold, surprises
from mote.harness.study.text_labels import TextLabels
from mote.judges import STATES, label_by_surprise, split_reasoning
from mote.patches import Edit, EditEffect, ModelLayout, Profile

Asked = tuple[Profile, str]
"""A profile and the id of a prompt."""


Off = Literal["suppress", "deactivate"]
"""How experts are switched off: their weight after the router's choice, or their score before it."""


class Asking:
    """Asks an open run's model for answers under profiles, as the run draws its own, and labels them as it does.

    ``seed`` is that of the sampling; the run's own unless another is given.
    """

    def __init__(self, session: Session, halves: Halves, purpose: Purpose, seed: int | None = None) -> None:
        if session.recipe.judges.llm is not None:
            raise MoteError(
                f"{session.folder} goes by the labels of '{halves.label_set.judge}', and answers under further sets of"
                " experts are labelled by the run's rules alone: make a run without judges.llm for this."
            )
        if halves.label_set.by_function and session.function is None:
            raise MoteError(
                f"{session.folder} was labelled by a function, {session.text_judge}, which is code, and a run's folder"
                " does not decide what is run: if you trust it, name it with --function FILE.py:NAME."
            )
        self.session, self.halves = session, halves
        own = session.recipe.sampling.seed if seed is None else seed
        self._seeds = {key: request_seed(own, key) for key in halves.prompts}
        self._answers = Answers(session.store, purpose, own, self._seeds)
        self._texts = TextLabels(session.labels, session.markers, halves.prompts, strict=False)

    def missing(self, profiles: Collection[Profile], prompts: Collection[str]) -> list[Asked]:
        """Return what neither the study nor a ranking nor a pruning has asked for yet."""
        done = self._answers.done([profile.digest for profile in profiles])
        return [(profile, key) for profile in profiles for key in prompts if (profile.digest, key) not in done]

    def ask(self, missing: Collection[Asked]) -> Iterator[int]:
        """Generate and store answers; yield how many as they are stored. Raises MoteError as the engine does."""
        self._answers.add_profiles({profile.digest: profile for profile, _ in missing}.values())
        prompts = self.halves.prompts
        requests = [Request(key, prompts[key].messages, profile, self._seeds[key]) for profile, key in missing]
        for some in self.session.engine.generate(requests):
            self._answers.add(self._row(answer) for _, answer in some)
            yield len(some)

    def labelled(self, profiles: Iterable[Profile], prompts: Collection[str]) -> pd.DataFrame:
        """Return the answers: profile_digest, prompt_id, raw, prompt_opens, finish_reason, label."""
        frame = self._answers.answers([profile.digest for profile in profiles], prompts)
        return frame.assign(label=self.labels(frame))

    def answer_of(self, raw: str, opens: bool) -> str:
        """Return what of a text is the answer, without its reasoning."""
        return split_reasoning(raw, self.session.markers, prompt_opens=opens).answer

    def _row(self, answer: Answer) -> GenerationRow:
        row = self.session.row_of(answer, answer.request.profile.name)
        return row._replace(mechanism=summed(answer.request.profile, answer.observation.mechanism))

    def labels(self, frame: pd.DataFrame) -> list[str]:
        """Return the label of each answer (prompt_id, raw, prompt_opens, finish_reason), as the run gives it."""
        columns = (frame[name] for name in ("prompt_id", "raw", "prompt_opens", "finish_reason"))
        texts = [
            self._texts.label(str(key), raw, bool(opens), reason)
            for key, raw, opens, reason in zip(*columns, strict=True)
        ]
        # The run's own record decides: one that is older than the second judge has the default in its recipe by now.
        if self.halves.label_set.judge == self.session.text_judge:
            return [label.label for label in texts]
        keys = list(zip(frame["prompt_id"], frame["raw"], strict=True))
        classed = [key for key, label in zip(keys, texts, strict=True) if label.label not in STATES]
        found = surprises(self.session, sorted(classed))
        return [
            label_by_surprise(label, key[1], found.get(key), self._below).label
            for key, label in zip(keys, texts, strict=True)
        ]

    @cached_property
    def _below(self) -> float:
        # The baseline, which sets it, is complete.
        return run_threshold(self.session)


def switched_off(name: str, experts: Iterable[Expert], layout: ModelLayout, off: Off = "suppress") -> Profile:
    """Return the profile that switches a set of experts off: after the router's choice, or before it."""
    return Profile(name, tuple(Edit(*expert, off) for expert in experts), model=layout)


def summed(profile: Profile, mechanism: Iterable[EditEffect]) -> list[Mapping[str, Any]]:
    """Return a mechanism check of sums over all edits, which each edit has, under names that say so.

    The hundreds of sets of a comparison are its controls: that each was applied has to be on record, and how often each
    of its experts was chosen would be most of the store.
    """
    effects = list(mechanism)
    sums = {
        "selected_in_all": sum(effect.selected for effect in effects),
        "weight_after_in_all": float(sum(effect.weight_after for effect in effects)),
    }
    edits = profile.to_dict()["edits"]
    return [{**edit, **sums} for edit in edits]
