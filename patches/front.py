"""What front ends of others find on a server: profiles as a list and as models, and ``mote`` as an object.

``GET /v1/profiles`` lists the server's folder of profiles. Each is a model, too: ``demo:suppress-10`` is the model
``demo`` under the profile ``suppress-10``, listed by ``GET /v1/models``, for clients that can choose nothing else.
vLLM takes texts and numbers in ``vllm_xargs``; ``Front``, which ``mote serve`` puts before it, writes an object there
down as its JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mote.patches.errors import ProfileError
from mote.patches.messages import KEY
from mote.reading import UnreadableError, parse_json

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
PATH = "/v1/profiles"
_XARGS = "vllm_xargs"


class Front:
    """An ASGI middleware (vLLM's ``--middleware``): ``vllm_xargs.mote`` may be an object."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, with its body rewritten where it holds such an object."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] != "http.request":
                # The client has gone before its request was whole.
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        body = with_text(b"".join(parts))
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        length = (b"content-length", str(len(body)).encode())
        headers = [length if name == length[0] else (name, value) for name, value in scope["headers"]]
        return await self._app({**scope, "headers": headers}, replay, send)


def with_text(body: bytes) -> bytes:
    """Return a request's body with ``vllm_xargs.mote`` as a JSON text; unchanged where it is no object.

    A body that the strict reader refuses is left alone: what is wrong with it is vLLM's to say.
    """
    if _XARGS.encode() not in body:
        return body
    try:
        request = parse_json(body)
    except UnreadableError:
        return body
    extra = request.get(_XARGS) if isinstance(request, dict) else None
    if not isinstance(extra, dict) or not isinstance(extra.get(KEY), dict):
        return body
    extra[KEY] = json.dumps(extra[KEY])
    return json.dumps(request).encode()


def take_profile(request: Any, models: Any, admission: Any) -> str | None:
    """Put the profile that a request's model names into its ``vllm_xargs``; return why it is refused, or None.

    Args:
        request: the HTTP request; changed where its model is ``MODEL:PROFILE``.
        models: vLLM's list of the models that it serves.
        admission: the server's check of requests, which knows the profiles.
    """
    asked = getattr(request, "model", None)
    if not isinstance(asked, str) or models.is_base_model(asked):
        return None
    for base in models.base_model_paths:
        if asked.startswith(f"{base.name}:"):
            break
    else:
        return None
    name = asked.removeprefix(f"{base.name}:")
    given = getattr(request, _XARGS, None) or {}
    if KEY in given:
        return f"the model '{asked[:80]}' names a profile, and so does 'mote': name it once"
    try:
        admission.check_name(name)
    except ProfileError as error:
        return str(error)
    request.model = base.name
    setattr(request, _XARGS, {**given, KEY: json.dumps({"profile": name})})
    return None


def profiles_list(admission: Any, base: str) -> dict[str, Any]:
    """Return what ``GET /v1/profiles`` answers: of each profile its names, its digest, how much it edits and when."""
    return {
        "object": "list",
        "data": [
            {
                "id": file,
                "object": "mote.profile",
                "name": profile.name,
                "model": f"{base}:{file}",
                "digest": profile.digest,
                "edits": len(profile.canonical),
                "tokens": profile.tokens,
                "before_choice": profile.before_choice,
            }
            for file, profile in admission.profiles.items()
        ],
    }


def hook_front() -> None:
    """Let vLLM's server list profiles, apart and among its models."""
    from fastapi import Request
    from fastapi.responses import JSONResponse
    from vllm.entrypoints.openai.models import serving
    from vllm.entrypoints.openai.models.api_router import router

    async def show_profiles(raw: Request) -> JSONResponse:
        models = raw.app.state.openai_serving_models
        return JSONResponse(profiles_list(admission_of(models), models.base_model_paths[0].name))

    # Without postponed annotations FastAPI would not find the class of a parameter that is local here.
    show_profiles.__annotations__ = {"raw": Request}
    router.add_api_route(PATH, show_profiles, methods=["GET"])
    owner, card = serving.OpenAIServingModels, vars(serving)["ModelCard"]
    original = owner.show_available_models

    async def show_available_models(self: Any) -> Any:
        found = await original(self)
        base = self.base_model_paths[0].name
        admission = admission_of(self)
        found.data.extend(card(id=f"{base}:{file}", root=base, parent=base) for file in admission.profiles)
        return found

    setattr(owner, original.__name__, show_available_models)


def admission_of(serving: Any) -> Any:
    """Return the check of requests that the engine of a part of vLLM's server has."""
    return serving.engine_client.input_processor.mote_admission
