"""The one SQLite file of a run, and what reads it."""
