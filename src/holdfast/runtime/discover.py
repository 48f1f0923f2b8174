"""Ask an in-process application what it serves."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from holdfast.errors import InvalidApp
from holdfast.protocol.discovery import ACCEPT
from holdfast.runtime.attempt import AsgiApp, AsgiEvent


async def fetch_manifest(app: AsgiApp) -> bytes:
    """The body of the application's discovery answer.

    Raises:
        InvalidApp: it is no restate-sdk application, or it answered with an error.
    """
    statuses: list[int] = []
    body = bytearray()
    received = False

    async def receive() -> AsgiEvent:
        nonlocal received
        if received:
            await asyncio.Event().wait()  # nothing more comes; a disconnect would be read as an abort
        received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: AsgiEvent) -> None:
        if event["type"] == "http.response.start":
            statuses.append(event["status"])
        body.extend(event.get("body", b""))

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "GET",
        "path": "/discover",
        "raw_path": b"/discover",
        "query_string": b"",
        "http_version": "2",  # with 1.1 the SDK offers request/response only: one attempt per step
        "scheme": "http",
        "headers": [(b"accept", ACCEPT)],
    }
    hint = "pass what restate.app([...]) returns, with at least one service in the list"
    try:
        await app(scope, receive, send)
    except Exception as error:
        raise InvalidApp(
            f"the application did not answer discovery: {type(error).__name__}: {error}", hint=hint
        ) from error
    status = statuses[0] if statuses else 0
    if status != 200:
        text = bytes(body[:200]).decode(errors="replace")
        raise InvalidApp(f"the application answered discovery with status {status}: {text}".rstrip(": "), hint=hint)
    return bytes(body)


@contextmanager
def sigterm_kept() -> Generator[None]:
    """The SDK puts a SIGTERM handler of its own in place at its first request; the host's must stay."""
    # The SDK installs its handler once per loop and keeps a list of what to call. With that list in place it only adds to
    # it; what it would call tells running attempts to hurry, which a drain does anyway.
    hooks: Any = getattr(sys.modules.get("restate.server"), "_shutdown_hooks", None)
    if hooks is not None:
        hooks.setdefault(asyncio.get_running_loop(), {}).setdefault(signal.SIGTERM, [])
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and before is not None and signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)
