"""Two sets of answers to the same prompts."""
