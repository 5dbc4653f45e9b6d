"""What is taken home from a study: a checkpoint, a file for another engine, a card that others can run again."""
