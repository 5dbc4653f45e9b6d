"""From requests to answers: vLLM in this process, or servers elsewhere."""
