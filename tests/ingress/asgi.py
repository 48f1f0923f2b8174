"""Calls an ASGI application directly, so that a test decides what every message says and when it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from tests.ingress.backend import Ask, Got


def scope_of(ask: Ask, **changes: Any) -> dict[str, Any]:
    """The HTTP scope that a server makes of a request."""
    path, _, query = ask.path.partition("?")
    headers = [
        (name.lower().encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in ask.headers.items()
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": ask.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        **changes,
    }


class Caller:
    """The HTTP server's side of one request: messages to give out, and what came back."""

    def __init__(self, messages: Iterable[dict[str, Any]] = ()) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)
        self.sent: list[Any] = []

    def hang_up(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self.messages.get()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def got(self) -> Got:
        start, *rest = self.sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Got(start["status"], headers, b"".join(message["body"] for message in rest))


def request(body: bytes | None, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body or b"", "more_body": more}


async def exchange(app: Any, ask: Ask, **changes: Any) -> Got:
    """One whole request."""
    caller = Caller([request(ask.body)])
    await app(scope_of(ask, **changes), caller.receive, caller.send)
    return caller.got
