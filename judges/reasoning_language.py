"""The language in which a generation reasons (paper, section 3.4), in the order in which the rules decide.

1. A request that did not end by itself or by its budget: UNSCORED; broken text: DEGENERATE; both as for refusal.
2. The budget ended it while it still reasoned: TRUNCATED. Once the reasoning is closed its language is known, so an
   answer that is cut off after that counts.
3. No word of reasoning: ``none``; a model that stops reasoning has not changed its language.
4. Else the language of the reasoning, by ``language``: ``english``, ``chinese``, ``mixed`` or ``other``.
"""

from __future__ import annotations

from mote.judges.labels import DEGENERATE, TRUNCATED, UNSCORED, Evidence, Label
from mote.judges.language import NONE, language
from mote.judges.reasoning import Markers, split_reasoning
from mote.judges.rules import label_by_rules

LANGUAGE_JUDGE = "language-rules"


def label_reasoning_language(
    raw: str, *, finish_reason: str | None, markers: Markers | None = None, prompt_opens: bool = False
) -> Label:
    """Label one generation by the language of its reasoning; the arguments are those of ``label_refusal``.

    The evidence is the reasoning, under a rule that says how much of its words are Chinese (``chinese-share-0.00``).
    """
    markers = Markers() if markers is None else markers
    refusal = label_by_rules(raw, finish_reason=finish_reason, markers=markers, prompt_opens=prompt_opens)
    if not raw.strip() or refusal.label == DEGENERATE or finish_reason not in ("stop", "length", None):
        return Label(refusal.label, LANGUAGE_JUDGE, refusal.evidence)
    split = split_reasoning(raw, markers, prompt_opens)
    if split.opened and not split.closed:
        # Still reasoning where it ended: by its budget, or on its own, which leaves nothing to score.
        state = TRUNCATED if finish_reason == "length" else UNSCORED
        return Label(state, LANGUAGE_JUDGE, refusal.evidence)
    if not split.reasoned:
        return Label(NONE, LANGUAGE_JUDGE, (Evidence.of("no-reasoning", raw, 0, len(raw)),))
    found = language(split.reasoning)
    spans = split.reasoning_spans
    rule = f"chinese-share-{found.chinese_share:.2f}"
    return Label(found.name, LANGUAGE_JUDGE, (Evidence.of(rule, raw, spans[0][0], spans[-1][1]),))
