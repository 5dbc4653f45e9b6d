"""MoTE Harness: which routed experts of a mixture-of-experts language model carry a behaviour, and the proof.

Four rooms, and dependencies that point one way: ``mote.patches`` (the router patch for vLLM) and ``mote.judges``
(from text to label) import nothing of ours, ``mote.tasks`` (what is asked) may import the judges, ``mote.harness``
(the study) composes all. Import-linter holds the rule.
"""

__version__ = "0.1.0"
