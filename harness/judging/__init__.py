"""Other judges and people over the same answers."""
