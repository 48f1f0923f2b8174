"""The two engines that the behaviour table runs against, behind the same few facts, and the HTTP client used on both."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from holdfast.config import EngineConfig
from holdfast.server import Serving, serve
from tests.ingress.sample_app import make_app
from tests.support.restate_server import running_restate

BODY_BYTES_MAX = 64 * 1024
"""Small, so that the table can go over it."""

ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, sent byte for byte."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str | bytes] = field(default_factory=dict[str, "str | bytes"])


@dataclass(frozen=True, slots=True)
class Got:
    """A response. Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Backend:
    name: str
    ingress_url: str
    admin_url: str

    def ask(self, ask: Ask) -> Got:
        """Send a request to the ingress and read the whole answer."""
        return _exchange(self.ingress_url, ask)

    def ask_admin(self, ask: Ask) -> Got:
        return _exchange(self.admin_url, ask)


def _exchange(url: str, ask: Ask) -> Got:
    # http.client sends path and headers as they are; httpx would normalise both.
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.putrequest(ask.method, ask.path, skip_accept_encoding=True)
        names = {name.lower() for name in ask.headers}
        for name, value in ask.headers.items():
            connection.putheader(name, value)
        if ask.body is not None and not names & {"content-length", "transfer-encoding"}:
            connection.putheader("content-length", str(len(ask.body)))
        connection.endheaders(ask.body)
        response = connection.getresponse()
        return Got(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@contextmanager
def restate_backend(app: Any = None) -> Iterator[Backend]:
    """A real server with the sample application, or another."""
    env = {"RESTATE_INGRESS__REQUEST_SIZE_LIMIT": str(BODY_BYTES_MAX)}
    with running_restate(make_app() if app is None else app, env=env) as server:
        yield Backend("restate", server.ingress_url, server.admin_url)


AS_RESTATE = EngineConfig(body_bytes_max=BODY_BYTES_MAX, allowed_origins=("*",), stored_headers_deny=())
"""What a Restate server does to every page and with every header, holdfast does when it is told to."""


@contextmanager
def holdfast_backend(app: Any = None, config: EngineConfig = AS_RESTATE) -> Iterator[Backend]:
    """Our server with the sample application, or another, in a thread."""
    ready: Future[Serving] = Future()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        stop = asyncio.Event()

        async def run() -> None:
            serving = asyncio.create_task(
                serve(
                    make_app() if app is None else app,
                    db=":memory:",
                    ingress_port=0,
                    admin_port=0,
                    config=replace(config, drain_ms=0),
                    on_ready=ready.set_result,
                )
            )
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

        def thread_main() -> None:
            try:
                runner.run(run())
            except Exception as error:  # noqa: BLE001  # raised in the test's thread
                ready.set_exception(error)

        thread = threading.Thread(target=thread_main, name="holdfast", daemon=True)
        thread.start()
        try:
            served = ready.result(ANSWER_TIMEOUT_S)
            yield Backend("holdfast", served.ingress_url, served.admin_url)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
