"""Our tasks for the stock ``lm_eval`` command: reading one of the YAML files beside this module registers ``mote``.

lm_eval 0.4.13 looks for no models outside itself, but it reads a task that is given by path, and what its ``!function``
names, before it makes the model. So each file here is one of our tasks, with its documents taken through this module.
Other tasks may stand beside it on the same command line, lm_eval's own too.
"""

from __future__ import annotations

from mote.harness.lm_eval import register
from mote.tasks.lm_eval_functions import ccp_sensitive, reasoning_language, refusal_grid, sensitive

register()

__all__ = ["ccp_sensitive", "reasoning_language", "refusal_grid", "sensitive"]
