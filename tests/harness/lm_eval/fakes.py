"""A stand-in for the engine behind the lm_eval model, and two small tasks on local data: lm_eval itself is real."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mote.harness.demo import MODEL_DIR
from mote.harness.lm_eval.answers import Note
from mote.harness.lm_eval.arguments import Arguments
from mote.harness.lm_eval.batch import Done, Job

OPTIONS: dict[str, Any] = {"pretrained": "demo", "dtype": "float32", "enforce_eager": True, "max_model_len": 256}
"""Model arguments with which the demo model starts."""


class Row(NamedTuple):
    """A log-probability as vLLM gives it."""

    logprob: float


class FakeBatch:
    """Answers by rule, in reverse order; keeps the jobs it was given. A tuned model adds one too many."""

    seen: ClassVar[list[Job]] = []
    each: ClassVar[float | None] = None
    """The log-probability of every token; by place without it."""

    def __init__(self, arguments: Arguments) -> None:
        from transformers import AutoTokenizer

        self._arguments = arguments
        self.tokenizer: Any = AutoTokenizer.from_pretrained(MODEL_DIR)
        self.context_length = 256

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Done]]:
        FakeBatch.seen.extend(jobs)
        for index in reversed(range(len(jobs))):
            yield index, self._done(jobs[index])

    def _done(self, job: Job) -> Done:
        profile = self._arguments.profile
        note = Note(
            profile=profile.name,
            digest=profile.digest,
            tokens_edited=len(job.tokens) if profile.edits else 0,
            patch_version="0",
            model="m",
            seed=job.params.get("seed"),
            finish_reason="stop",
            prompt_opens=job.prompt_opens,
            prompt_tokens=len(job.tokens),
            generated_tokens=1,
            cut=job.cut,
            mechanism=[],
        )
        if "prompt_logprobs" in job.params:
            return Done("", self._rows(job), note)
        numbers = [int(word) for word in self.tokenizer.decode(job.tokens).replace("?", " ").split() if word.isdigit()]
        total = sum(numbers) + bool(profile.edits and sum(numbers) % 2)
        return Done(f"I add the numbers.\n\nThat is all.</think>It is {total}.", None, note)

    def _rows(self, job: Job) -> list[dict[int, Row] | None]:
        """Each token has -1/4 of its place; odd places are not the greedy choice."""
        rows: list[dict[int, Row] | None] = [None]
        for place, token in enumerate(job.tokens[1:], start=1):
            mine = Row(-place / 4 if self.each is None else self.each)
            rows.append({token: mine, -1: Row(mine.logprob + 1)} if place % 2 else {token: mine})
        return rows


def write_tasks(folder: Path) -> tuple[Path, Path]:
    """Write a generative and a multiple-choice task on local files, as a user would; return their YAML files."""
    sums = [{"a": a, "b": b} for a in range(1, 6) for b in range(1, 4)]
    choices = [{"question": f"{n} plus {n} is", "choices": [str(2 * n), "the sea"], "answer": 0} for n in range(1, 9)]
    for name, rows in (("sums", sums), ("choices", choices)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = "dataset_path: json\ndataset_kwargs: {data_files: {test: '%s'}}\ntest_split: test\n"
    generative, choice = folder / "local_sums.yaml", folder / "local_choice.yaml"
    generative.write_text(
        "task: local_sums\n" + data % (folder / "sums.jsonl") + "output_type: generate_until\n"
        "doc_to_text: 'What is {{a}} plus {{b}} equal to?'\ndoc_to_target: '{{a + b}}'\n"
        "generation_kwargs: {until: [], max_gen_toks: 64, do_sample: false}\n"
        "filter_list:\n"
        "  - name: last-number\n"
        "    filter:\n"
        "      - {function: regex, regex_pattern: '(\\d+)', group_select: -1}\n"
        "      - {function: take_first}\n"
        "metric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true}\n",
        encoding="utf-8",
    )
    choice.write_text(
        "task: local_choice\n" + data % (folder / "choices.jsonl") + "output_type: multiple_choice\n"
        "doc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\ndoc_to_target: '{{answer}}'\n"
        "metric_list:\n"
        "  - {metric: acc, aggregation: mean, higher_is_better: true}\n",
        encoding="utf-8",
    )
    return generative, choice
