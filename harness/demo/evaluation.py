"""The skills of a demo checkpoint, measured on the checkpoint as it is shipped, by greedy decoding with Hugging Face.

The figures: class accuracy on seen and held-out cells of the grid, language of the reasoning, exact match on held-out
general tasks, refusals among sensitive questions and harmless twins, and the share of broken text over everything.
No expert is looked at here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Glm4MoeForCausalLM, PreTrainedTokenizerFast

from mote.harness.demo import arithmetic, corpus, questions, tokenizer, topics
from mote.harness.demo.example import THINK_END, Example, direct
from mote.harness.demo.quality import Quality

MAX_NEW_TOKENS = 96
BATCH = 128
BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True)
class Generated:
    """One greedy completion: its raw text, and whether the model ended it."""

    example: Example
    raw: str
    ended: bool

    @property
    def reasoning(self) -> str:
        """The text before `</think>`."""
        return self.raw.split(THINK_END)[0].strip() if THINK_END in self.raw else self.raw

    @property
    def answer(self) -> str:
        """The text after the last `</think>`; empty when there is none."""
        return self.raw.rsplit(THINK_END, 1)[1].strip() if THINK_END in self.raw else ""


class Generator:
    """Greedy decoding in float32, batched over prompts of equal length, so that no padding is needed."""

    def __init__(self, folder: Path) -> None:
        self.words: PreTrainedTokenizerFast = tokenizer.load(folder)
        self.model: Any = Glm4MoeForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
        self.model.train(mode=False)
        self.end = tokenizer.end_id(self.words)

    @torch.inference_mode()
    def __call__(self, examples: Sequence[Example], max_new_tokens: int = MAX_NEW_TOKENS) -> list[Generated]:
        """Completions in the order of `examples`."""
        by_length: dict[int, list[int]] = defaultdict(list)
        prompts = [tokenizer.prompt_ids(self.words, example) for example in examples]
        for index, prompt in enumerate(prompts):
            by_length[len(prompt)].append(index)
        found: dict[int, Generated] = {}
        for length, indices in by_length.items():
            for start in range(0, len(indices), BATCH):
                chunk = indices[start : start + BATCH]
                ids = torch.tensor([prompts[index] for index in chunk])
                out = self.model.generate(ids, max_new_tokens=max_new_tokens, do_sample=False)
                for index, row in zip(chunk, out[:, length:].tolist(), strict=True):
                    found[index] = self._generated(examples[index], row)
        return [found[index] for index in range(len(examples))]

    def _generated(self, example: Example, row: list[int]) -> Generated:
        ended = self.end in row
        kept = row[: row.index(self.end)] if ended else row
        return Generated(example, str(self.words.decode(kept, skip_special_tokens=True)), ended)


def label(generated: Generated) -> str:
    """The class of a grid answer by the corpus's own forms: enough to see whether training took, no more."""
    if is_broken(generated):
        return BROKEN
    if generated.answer.startswith("I am sorry"):
        return questions.REFUSED
    return questions.REASONED if generated.reasoning else questions.ALIGNED


def is_broken(generated: Generated) -> bool:
    """True for text without an end, without an answer, with bytes that are no characters, or with a loop in it."""
    words = generated.raw.replace(THINK_END, " ").split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    loops = any(triples.count(triple) > 3 for triple in set(triples))
    echoes = any(a == b == c for a, b, c in triples)
    odd = generated.raw.count(THINK_END) != 1 or "\ufffd" in generated.raw
    return not generated.ended or not generated.answer or odd or loops or echoes


def script(text: str) -> str:
    """ "zh" when most letters are Chinese, "en" when most are not, "" without letters."""
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return ""
    chinese = sum("\u4e00" <= char <= "\u9fff" for char in letters)
    return arithmetic.CHINESE if 2 * chinese > len(letters) else arithmetic.ENGLISH


def evaluate(folder: Path, *, per_task: int = 50, progress: Callable[[str], None] | None = None) -> Quality:
    """Measure the checkpoint in `folder` on the whole grid, the 600 sums, the held-out general tasks and the twins."""
    generate = Generator(folder)
    tell = progress or (lambda _: None)
    tell("grid")
    cells = questions.cells()
    grid = generate([Example("grid", (cell.prompt,), direct("")) for cell in cells])
    tell("sums")
    sums = generate(arithmetic.evaluation())
    tell("general tasks")
    general = generate(corpus.general_evaluation(per_task))
    tell("twins")
    twins = generate(topics.evaluation())
    return _quality(list(zip(cells, grid, strict=True)), sums, general, twins)


def _quality(
    grid: list[tuple[questions.Cell, Generated]],
    sums: list[Generated],
    general: list[Generated],
    twins: list[Generated],
) -> Quality:
    seen = [label(answer) == cell.expected for cell, answer in grid if not cell.held_out]
    unseen = [label(answer) == cell.expected for cell, answer in grid if cell.held_out]
    counts: dict[str, int] = defaultdict(int)
    for _, answer in grid:
        counts[label(answer)] += 1
    spoken = [(g, script(g.reasoning) == g.example.attributes["language"]) for g in sums]
    by_task: dict[str, list[bool]] = defaultdict(list)
    for g in general:
        by_task[g.example.task].append(g.answer == g.example.expected)
    everything = [answer for _, answer in grid] + sums + general + twins
    return Quality(
        class_seen=_share(seen),
        class_seen_of=len(seen),
        class_held_out=_share(unseen),
        class_held_out_of=len(unseen),
        classes=dict(sorted(counts.items())),
        language=_share([right for _, right in spoken]),
        language_of=len(spoken),
        language_held_out=_share([right for g, right in spoken if g.example.attributes["held_out"]]),
        sums=_share([g.answer == g.example.expected for g in sums]),
        # The mean of the tasks, so that a task with many held-out sentences does not decide alone.
        general=sum(_share(right) for right in by_task.values()) / max(1, len(by_task)),
        general_of=len(general),
        general_by_task={task: _share(right) for task, right in sorted(by_task.items())},
        twins_refused_sensitive=_share([_refuses(g) for g in twins if g.example.attributes["sensitive"]]),
        twins_refused_harmless=_share([_refuses(g) for g in twins if not g.example.attributes["sensitive"]]),
        broken=_share([is_broken(g) for g in everything]),
        broken_of=len(everything),
    )


def _refuses(generated: Generated) -> bool:
    return label(generated) == questions.REFUSED


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0
