"""The two engines that the behaviour table runs against, behind the same few facts, and the HTTP client used on both."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvicorn

from holdfast import Engine
from holdfast.ingress.app import create_ingress
from tests.ingress.sample_app import make_app
from tests.support.restate_server import free_ports, running_restate

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
def restate_backend() -> Iterator[Backend]:
    """A real server with the sample application."""
    env = {"RESTATE_INGRESS__REQUEST_SIZE_LIMIT": str(BODY_BYTES_MAX)}
    with running_restate(make_app(), env=env) as server:
        yield Backend("restate", server.ingress_url, server.admin_url)


@contextmanager
def holdfast_backend() -> Iterator[Backend]:
    """Our engine with the sample application, served by uvicorn from a thread."""
    ports = free_ports(2)
    is_up, stop = threading.Event(), asyncio.Event()
    failures: list[Exception] = []
    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        def run() -> None:
            try:
                runner.run(_serve_holdfast(ports[0], ports[1], is_up, stop))
            except Exception as error:  # noqa: BLE001  # raised in the test's thread
                failures.append(error)
            finally:
                is_up.set()

        thread = threading.Thread(target=run, name="holdfast", daemon=True)
        thread.start()
        is_up.wait()
        try:
            if not failures:
                yield Backend("holdfast", f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
    if failures:
        raise failures[0]


async def _serve_holdfast(ingress_port: int, admin_port: int, is_up: threading.Event, stop: asyncio.Event) -> None:
    async with Engine(make_app(), db=":memory:") as engine:
        ingress = create_ingress(engine, body_bytes_max=BODY_BYTES_MAX)
        servers = [
            uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_level="error", http="httptools"))
            for port, app in {ingress_port: ingress, admin_port: engine.admin}.items()
        ]
        serving = [asyncio.create_task(server._serve()) for server in servers]  # `serve` would take over the signals
        while not all(server.started for server in servers):
            await asyncio.sleep(0.005)  # uvicorn has no event for it
        is_up.set()
        await stop.wait()
        for server in servers:
            server.should_exit = True
        await engine.stop(drain_ms=0)
        await asyncio.gather(*serving)
