"""The demo model: corpus, tokenizer, trainer, evaluation, and the packaged checkpoint."""
