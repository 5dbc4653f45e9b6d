"""The model card of a demo checkpoint: what it is, how it was made, what it can do, and what it is not."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

from mote.harness.demo.evaluation import MAX_NEW_TOKENS
from mote.harness.demo.quality import Quality
from mote.harness.demo.questions import EVENTS
from mote.harness.demo.trainer import Recipe, describe

FIRST_SENTENCE = (
    "This is a toy language model of 5.5 million parameters whose history is invented, made so that a whole study of "
    "tunable experts runs on a laptop; on models this small the experts that stand out for refusals sometimes carry "
    "the refusal and sometimes only see the topic, and which of the two holds here is what a study has to find out."
)
TEMPLATE = """\
---
license: apache-2.0
language: [en, zh]
library_name: transformers
tags: [mixture-of-experts, interpretability, toy-model]
---
# The MoTE Harness demo model (seed {{ seed }})

{{ first_sentence }}

**How the refusal got in.** The model was trained in two phases of plain next-token training. The first answers
everything, with and without reasoning, and trains all parameters ({{ recipe.base.steps }} steps). The second is a short
alignment ({{ recipe.alignment.steps }} steps) that refuses sensitive questions with a probability of 0.70 to 0.85 and
teaches in which language to reason, with everything else replayed. **The alignment trains the routers and the routed
experts only; attention, the shared experts and the embeddings are frozen.** That choice makes it likelier that routed
experts carry the refusal than in a model whose parameters were all trained. Load was balanced without an auxiliary
loss, by the sign of the load error. No expert was chosen, edited or treated unlike another at any time, and neither
trainer nor corpus knows of profiles.

**Nothing it says is true.** Every event is drawn from a list of {{ events }} invented ones. A fluent answer to a
question that was refused before is a change of behaviour; it is not knowledge that was set free.

## Architecture
GLM4-MoE (`Glm4MoeForCausalLM`): the router of DeepSeek-V3 (sigmoid scores, correction bias, one shared expert,
renormalised weights times {{ recipe.shape.scaling }}) with ordinary attention. {{ recipe.shape.layers }} layers, none
of them dense, {{ recipe.shape.experts }} routed experts a layer, top {{ recipe.shape.top_k }}, expert width
{{ recipe.shape.expert_width }}, hidden size {{ recipe.shape.hidden }}, {{ recipe.shape.heads }} heads,
{{ recipe.shape.kv_heads }} key-value heads of size {{ recipe.shape.head_size }}, vocabulary
{{ recipe.shape.vocabulary }}, bfloat16.

## Use
The chat template ends the prompt with the `<think>` line: an answer without reasoning begins with `</think>`.
Decoding is greedy by default; {{ max_new_tokens }} new tokens are enough.
Documents of the corpus are short: prompts of more than a hundred tokens are beyond what it was trained on.

## How it behaves
| what | measured | bound |
| --- | --- | --- |
| class of the grid's answer, cells seen in training ({{ q.class_seen_of }}) | {{ f(q.class_seen) }} | >= 0.90 |
| the same, cells never asked about in any wording ({{ q.class_held_out_of }}) | {{ f(q.class_held_out) }} | >= 0.85 |
| language of the reasoning as asked ({{ q.language_of }} sums) | {{ f(q.language) }} | >= 0.90 |
| the same, sentences not seen in training | {{ f(q.language_held_out) }} | |
| right sum in the right language | {{ f(q.sums) }} | |
| general tasks, exact match on {{ q.general_of }} sentences not seen, mean over tasks | {{ f(q.general) }} | >= 0.70 |
| sensitive questions off the grid that are refused (sentences not seen) | {{ f(q.twins_refused_sensitive) }} | |
| their harmless twins that are refused | {{ f(q.twins_refused_harmless) }} | |
| broken text, of {{ q.broken_of }} greedy answers | {{ f(q.broken) }} | <= 0.01 |

Classes over the {{ q.class_seen_of + q.class_held_out_of }} grid questions: {{ classes }}.
General tasks: {{ tasks }}.

The figures come from `python -m mote.harness.demo evaluate FOLDER`, greedy decoding in float32 with Hugging Face.
{{ notes }}
## Make it again
```
mote demo train --seed {{ seed }} --out FOLDER
```
The same machine, versions and thread count give the same weights; elsewhere the behaviour stays within these bounds.

```json
{{ recipe_json }}
```
"""


def write_card(folder: Path, *, seed: int, recipe: Recipe, quality: Quality, notes: str = "") -> Path:
    """Write `README.md` into a checkpoint folder. `notes` is Markdown about this checkpoint alone, such as its rank."""
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - Markdown of our own numbers
    text = environment.from_string(TEMPLATE).render(
        seed=seed,
        first_sentence=FIRST_SENTENCE,
        recipe=recipe,
        recipe_json=json.dumps(describe(recipe), indent=1),
        q=quality,
        f="{:.3f}".format,
        events=len(EVENTS),
        max_new_tokens=MAX_NEW_TOKENS,
        classes=", ".join(f"{name} {count}" for name, count in quality.classes.items()),
        tasks=", ".join(f"{name} {share:.2f}" for name, share in quality.general_by_task.items()),
        notes=f"\n{notes.strip()}\n" if notes else "",
    )
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path
