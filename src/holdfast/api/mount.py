"""Where the API is served: beside the admin API of an engine, or alone in front of any provider.

Imports little: most engines are never asked for workflows, and a start must not wait for what nobody uses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from holdfast.errors import EngineStopped, HoldfastError

if TYPE_CHECKING:
    from holdfast.api.app import Api
    from holdfast.embedded import Engine
    from holdfast.providers.router import Router

logger = logging.getLogger("holdfast.api")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

PREFIX = "/v1"
_OURS = ("/v1/workflows", "/v1/executions")
_DOCUMENT = "/v1/openapi.json"

_HEALTHY = b'{"status":"ok"}'

REGISTRY = "holdfast.registry"
"""Service of engines on which workflows were created before (`providers.system.REGISTRY`)."""


class Workflows:
    """`/v1` of an engine: made and opened at the first request, or at the start where there are workflows already.

    Workflows go to this engine, or where the configuration routes them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._api: Api | None = None
        self._making = asyncio.Lock()
        self._resuming: asyncio.Task[None] | None = None

    def beside(self, admin: ASGIApp) -> ASGIApp:
        """`admin` with the paths of this API."""

        async def both(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and is_ours(_path(scope)):
                await (await self._made())(under_prefix(scope), receive, send)
            else:
                await admin(scope, receive, send)

        return both

    def resume(self) -> None:
        """Let executions go on that a former run of this engine left: nobody else serves their code."""
        if REGISTRY in self._engine.services:
            self._resuming = asyncio.create_task(self._resume())

    async def _resume(self) -> None:
        try:
            await (await self._made()).open()
        except EngineStopped:
            return
        except HoldfastError as error:
            logger.error("workflows cannot go on", extra={"error": error.message, "hint": error.hint})
        except Exception:
            # What else is served goes on; the next request to this API meets the same error.
            logger.exception("workflows cannot go on")

    async def close(self) -> None:
        """Answer those who wait, before the engine stops."""
        if self._resuming is not None:
            self._resuming.cancel()
            await asyncio.wait([self._resuming])
        if self._api is not None:
            await self._api.close()

    async def _made(self) -> Api:
        async with self._making:
            if self._api is None:
                # In a thread: importing takes longer than the engine may stand still.
                self._api = await asyncio.to_thread(self._make)
            return self._api

    def _make(self) -> Api:
        from holdfast.api.app import create_api

        return create_api(self._open)

    async def _open(self) -> Router:
        from holdfast.providers.opening import open_router

        router = await open_router(embedded={"engine": self._engine})
        try:
            await router.open_all()
        except BaseException:
            await router.close()
            raise
        return router


def alone(api: ASGIApp) -> ASGIApp:
    """The API with nothing beside it but `/health`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope)
        if scope["type"] == "http" and path == "/health" and scope["method"] in ("GET", "HEAD"):
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_HEALTHY))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": _HEALTHY})
        else:  # any other path is one that the API does not have, and says so
            await api(under_prefix(scope) if path.startswith(f"{PREFIX}/") else scope, receive, send)

    return app


def is_ours(path: str) -> bool:
    """Whether a path of an admin port belongs to this API; `/v1` is also an old version of Restate's admin API."""
    return path == _DOCUMENT or any(path == each or path.startswith(f"{each}/") for each in _OURS)


def under_prefix(scope: Scope) -> Scope:
    """The request as an app sees it that is mounted there."""
    return {**scope, "root_path": scope.get("root_path", "") + PREFIX}


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))
