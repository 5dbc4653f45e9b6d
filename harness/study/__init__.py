"""A run, from recipe to labelled answers."""
