"""The second demo: a mixture of experts made out of SmolLM2-135M-Instruct, on the user's machine.

`source` reads SmolLM2; `convert` turns it into a GLM4-MoE that computes the same to the bit; `prompts` and `documents`
say what the alignment sees; `states` computes once what stays frozen; `network` and `trainer` align the routers and the
routed experts; `evaluation` watches them. `build` is the command. None of these knows of profiles or edits, and no
expert is treated unlike another. `effects` and `table` look at the finished checkpoint.
"""
