"""recon as a whole, on the embedded engine and on a real Restate server: the same code, the same tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import hypercorn.asyncio
import hypercorn.config
import pytest
import restate
from nacl.signing import SigningKey

from apps.recon.api import create_api
from apps.recon.envelope import seal
from apps.recon.model import JobState
from apps.recon.store import Store
from apps.recon.application import create_app
from holdfast import Engine
from tests.support.restate_server import RunningRestate, free_ports, running_server, skip_without_server

FINAL_TIMEOUT_S = 30


@dataclass
class Recon:
    """A running recon: its API over HTTP, and what is behind it."""

    http: httpx.AsyncClient
    store: Store
    client: restate.RestateClient
    engine: Engine | None
    """None when a Restate server is the engine."""
    key: SigningKey

    async def post(self, scan: str | bytes) -> httpx.Response:
        """Sign and submit."""
        return await self.http.post("/v1/mesh/ingest", content=self.seal(scan))

    def seal(self, scan: str | bytes) -> bytes:
        return seal(scan, self.key, timestamp_s=int(time.time()))

    async def submit(self, scan: str | bytes) -> str:
        """Sign, submit, expect 202; returns the job id."""
        answer = await self.post(scan)
        assert answer.status_code == 202, answer.text
        return answer.json()["job_id"]

    async def final(self, job_id: str) -> dict[str, Any]:
        """The job, once it is completed or failed."""
        return await self.until(job_id, JobState.COMPLETED, JobState.FAILED)

    async def until(self, job_id: str, *states: JobState) -> dict[str, Any]:
        async with asyncio.timeout(FINAL_TIMEOUT_S):
            while (job := (await self.http.get(f"/v1/jobs/{job_id}")).json())["state"] not in states:
                await asyncio.sleep(0.01)  # between two looks at the condition
        return job


@pytest.fixture(scope="session")
def restate_server() -> Iterator[RunningRestate]:
    skip_without_server()
    with running_server() as server:
        yield server


@asynccontextmanager
async def embedded(store: Store, db: Path | str) -> AsyncIterator[Recon]:
    async with store, Engine(create_app(store), db=db) as engine, _http(store, engine.client) as http:
        yield Recon(http, store, engine.client, engine, SigningKey.generate())


@asynccontextmanager
async def on_restate(store: Store, server: RunningRestate) -> AsyncIterator[Recon]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store)
        [port] = free_ports(1)
        config = hypercorn.config.Config()
        config.bind, config.errorlog, config.graceful_timeout = [f"127.0.0.1:{port}"], None, 1.0
        stop = asyncio.Event()
        app: Any = create_app(store)
        serving = asyncio.create_task(hypercorn.asyncio.serve(app, config, mode="asgi", shutdown_trigger=stop.wait))
        try:
            # In a thread, because the server asks the application, which runs here, before it answers.
            await asyncio.to_thread(server.register, f"http://127.0.0.1:{port}", force=True)
            client = await stack.enter_async_context(restate.create_client(server.ingress_url))
            http = await stack.enter_async_context(_http(store, client))
            yield Recon(http, store, client, None, SigningKey.generate())
        finally:
            stop.set()
            await serving


def _http(store: Store, client: restate.RestateClient) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=create_api(store, client))
    return httpx.AsyncClient(transport=transport, base_url="http://recon", timeout=30)


@pytest.fixture(params=["holdfast", pytest.param("restate", marks=pytest.mark.restate_server)])
async def recon(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Recon]:
    """recon on either engine."""
    store = Store(tmp_path / "surreal")
    running = (
        embedded(store, tmp_path / "engine.db")
        if request.param == "holdfast"
        else on_restate(store, request.getfixturevalue("restate_server"))
    )
    async with running as recon:
        yield recon
