"""What is wrong with a profile, or with the model that it is meant for."""

from __future__ import annotations


class ProfileError(ValueError):
    """A profile, or the model it is meant for, is wrong. One line: what, where, and the nearest right value."""


class NoExpertsError(ProfileError):
    """The model is dense: it has no routed experts, so there is nothing to edit and nothing to capture."""
