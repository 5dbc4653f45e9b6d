"""The router patch for vLLM: profiles (what to tune), the edit, capture, and the plugin that hooks them in.

What a client needs is here and imports no engine: profiles, the model layout they are checked against, the arguments
of a request, and the observation that comes back. The engine's side is loaded by vLLM itself, through the entry point
``vllm.general_plugins`` (``mote.patches.plugin``).
"""

from mote.patches.layout import ModelLayout, ProfileError
from mote.patches.observation import (
    ActivationMap,
    EditEffect,
    Observation,
    ObservationError,
    Receipt,
    read_observation,
    request_args,
)
from mote.patches.profile import EMPTY_PROFILE, Action, Edit, Profile, Tokens
from mote.patches.routes import Pairs, Route

__all__ = [
    "EMPTY_PROFILE",
    "Action",
    "ActivationMap",
    "Edit",
    "EditEffect",
    "ModelLayout",
    "Observation",
    "ObservationError",
    "Pairs",
    "Profile",
    "ProfileError",
    "Receipt",
    "Route",
    "Tokens",
    "read_observation",
    "request_args",
]
