"""A reverse proxy that records what passes, and can get in the way: a bearer token, errors, slowness, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from tests.support.restate_server import free_ports

Fault = Callable[["Passed"], tuple[int, str] | None]
"""A request -> the answer to give in place of the server's; None lets it pass."""


@dataclass(slots=True)
class Passed:
    """A request that came by."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Proxy:
    """A running proxy. Its faults may be changed at any time."""

    target: str
    url: str = ""
    required_token: str | None = None
    delay_s: float = 0.0
    fault: Fault | None = None
    passed: list[Passed] = field(default_factory=list[Passed])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        request = Passed(scope["method"], scope["path"] + (f"?{query}" if query else ""), headers, body)
        self.passed.append(request)
        status, answer_headers, answer = await self._answer(request)
        await send({"type": "http.response.start", "status": status, "headers": answer_headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, request: Passed) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        plain = [(b"content-type", b"application/json")]
        if self.required_token is not None and request.headers.get("authorization") != f"Bearer {self.required_token}":
            return 401, plain, b'{"message":"who are you?"}'
        if self.fault is not None and (found := self.fault(request)) is not None:
            return found[0], plain, found[1].encode()
        kept = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        try:
            plain_text = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loading certificates would take longer than the rest
            async with httpx.AsyncClient(timeout=None, trust_env=False, verify=plain_text) as client:
                answer = await client.request(
                    request.method, f"{self.target}{request.path}", headers=kept, content=request.body
                )
        except httpx.HTTPError as error:
            return 502, plain, json.dumps({"message": f"nobody there: {error!r}"}).encode()
        kept_back = [
            (name, value)
            for name, value in answer.headers.raw
            if name.lower() not in (b"content-length", b"content-encoding", b"transfer-encoding", b"connection")
        ]
        return answer.status_code, kept_back, answer.content


@contextmanager
def running_proxy(target: str, *, certificate: Path | None = None, port: int | None = None) -> Iterator[Proxy]:
    """A proxy in front of `target`, on a thread of its own.

    Args:
        certificate: PEM file with key and certificate; TLS then.
    """
    if port is None:
        [port] = free_ports(1)
    proxy = Proxy(target)
    config = uvicorn.Config(
        proxy, host="127.0.0.1", port=port, log_config=None, access_log=False, lifespan="off", ws="none", http="httptools",
        ssl_certfile=None if certificate is None else str(certificate), timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    proxy.url = f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}"
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), name="proxy", daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        yield proxy
    finally:
        server.should_exit = True
        thread.join(10)
