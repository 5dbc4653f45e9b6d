"""The second demo: a mixture of experts made out of SmolLM2-135M-Instruct, on the user's machine.

`source` reads SmolLM2, `convert` turns it into a GLM4-MoE that computes the same to the bit, `prompts` and `corpus`
say what the alignment sees, `states` computes once what stays frozen, `network` and `trainer` align the routers and
the routed experts, `evaluation` measures. `build` is the command. Nothing that trains knows of profiles or edits, and no
expert is treated unlike another.
"""
