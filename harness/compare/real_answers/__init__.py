"""Published answers of real large models: their transitions, and how far labels can be trusted there.

``python -m mote.harness.compare.real_answers DATA`` makes ``results/real-answers``. DATA is a folder with SpeechMap's
replies of 25 models and the verdicts of two LLM judges (``speechmap-25-models.jsonl.xz``), replies labelled by hand
(``hand-labelled.jsonl``), and answers of a model and its abliterated twin (``qwen2-7b-before-after.jsonl``). Tables and
figures hold counts; no text of a reply is written.
"""
