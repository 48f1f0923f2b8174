"""The local mechanism: workflows served from this process, for a Restate server to call.

One port, HTTP/2; each workflow under a path of its own, and so a deployment of its own: it can be registered, moved to
another port after a restart, and removed, without touching the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from holdfast.endpoint import serve_endpoint
from holdfast.errors import CannotListen
from holdfast.runtime.discover import fetch_manifest, sigterm_kept

SYSTEM_PATH = "holdfast.system"
"""Of the system services. No workflow id has a dot."""

_NOT_FOUND = b"no workflow is served here"


class LocalEndpoint:
    """Applications of this process by path, on a port that is opened when the first one comes.

    Args:
        host, port: Where to listen; 0 takes a free port.
        advertised_url: Where the server reaches it; None: `host` and `port`.
        drain: How long running handlers may take when it is closed.
    """

    def __init__(self, host: str, port: int, advertised_url: str | None, drain: timedelta) -> None:
        self._host = host
        self._port = port
        self._url = advertised_url
        self._drain_s = drain.total_seconds()
        self._apps: dict[str, Callable[..., Any]] = {}
        self._stack = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._is_open = False

    async def add(self, path: str, app: Callable[..., Any]) -> str:
        """Serve an application under a path, in place of the one that was there; returns its URL.

        Raises:
            CannotListen: the port is taken.
        """
        async with self._starting:
            if not self._is_open:
                await self._open()
        with sigterm_kept():  # its first request, before one comes from outside
            await fetch_manifest(app)
        self._apps[path] = app
        return f"{self._url}/{path}"

    def remove(self, path: str) -> None:
        """Serve it no more."""
        self._apps.pop(path, None)

    def has(self, path: str) -> bool:
        """Whether something is served under the path."""
        return path in self._apps

    def owns(self, url: str) -> bool:
        """Whether the URL is one of this process."""
        return self._is_open and url.startswith(f"{self._url}/")

    async def close(self) -> None:
        """Let running handlers end or suspend, then close the port."""
        await self._stack.aclose()
        self._is_open = False

    async def _open(self) -> None:
        try:
            endpoint = await self._stack.enter_async_context(
                serve_endpoint(self._dispatch, host=self._host, port=self._port, drain_s=self._drain_s)
            )
        except OSError as error:
            raise CannotListen(
                f"cannot serve workflows on {self._host}:{self._port}: {error.strerror or error}",
                hint="choose another workflow.restate.listen_port, or 0 for a free one",
            ) from error
        self._url = self._url or endpoint.url
        self._is_open = True

    async def _dispatch(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("no lifespan")  # as the SDK's own applications answer it
        first, _, rest = scope["path"].lstrip("/").partition("/")
        app = self._apps.get(first)
        if app is None or not rest:
            await _not_found(receive, send)
        else:
            await app(scope, receive, send)  # the SDK looks at the end of the path only


async def _not_found(receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": _NOT_FOUND})
