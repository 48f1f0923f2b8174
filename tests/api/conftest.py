"""The API over a provider in memory, over the embedded one, and over one on a Restate server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import uvicorn

from holdfast import providers
from holdfast.api.app import Api, create_api
from holdfast.api.mount import alone
from holdfast.providers.base import WorkflowProvider
from tests.api.memory import MemoryProvider
from tests.support.restate_server import RunningRestate, running_server, skip_without_server

PATIENCE_S = 30.0
"""For what takes milliseconds on an idle machine."""


def client_of(api: Any) -> httpx.AsyncClient:
    """A client without a network. It reads whole answers: streams need `served`."""
    transport = httpx.ASGITransport(app=alone(api))
    return httpx.AsyncClient(transport=transport, base_url="http://holdfast", timeout=PATIENCE_S)


async def becomes_true(condition: Callable[[], bool], otherwise: str) -> None:
    """Look again until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        await asyncio.sleep(0.005)  # between two looks


class Served:
    """An API behind a real socket, in this process."""

    def __init__(self, api: Api, port: int = 0) -> None:
        config = uvicorn.Config(
            alone(api), port=port, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None
        self.api = api
        self.url = ""

    async def __aenter__(self) -> Served:
        self._task = asyncio.create_task(self._server.serve())
        await becomes_true(lambda: self._server.started, "the server did not start")
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        assert self._task is not None
        await self.api.close()
        self._server.should_exit = True
        await self._task


@pytest.fixture
def memory() -> MemoryProvider:
    return MemoryProvider()


@pytest.fixture
async def client(memory: MemoryProvider) -> AsyncIterator[httpx.AsyncClient]:
    """The API over the provider in memory."""
    async with client_of(create_api(memory)) as client:
        yield client


@pytest.fixture
async def served(memory: MemoryProvider) -> AsyncIterator[Served]:
    """The same behind a socket, with a heartbeat that a test can wait for."""
    async with Served(create_api(memory, heartbeat_s=0.05)) as served:
        yield served


@pytest.fixture(scope="package")
def restate() -> Iterator[RunningRestate]:
    skip_without_server()
    with running_server() as server:
        yield server


@pytest.fixture(params=["embedded", pytest.param("restate", marks=pytest.mark.restate_server)])
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[WorkflowProvider]:
    """A provider on a real engine."""
    async with AsyncExitStack() as stack:
        if request.param == "embedded":
            opened = await providers.open("embedded", db=":memory:")
        else:
            server: RunningRestate = request.getfixturevalue("restate")
            opened = await providers.open("restate", endpoint=server.ingress_url, admin_endpoint=server.admin_url)
        yield await stack.enter_async_context(opened)
