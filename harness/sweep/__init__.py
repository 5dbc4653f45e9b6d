"""Sweeps: children of the same parents over a proportion, each asked the same prompts and labelled alike."""
