"""recon as a whole, on the embedded engine and on a real Restate server: the same code, the same tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import restate
from nacl.signing import SigningKey

from apps.recon.api import create_api
from apps.recon.application import create_app
from apps.recon.envelope import seal
from apps.recon.model import JobState
from apps.recon.settings import Settings
from apps.recon.store import Store
from holdfast import Engine
from holdfast.endpoint import serve_endpoint
from tests.support.restate_server import RunningRestate, running_server, skip_without_server

FINAL_TIMEOUT_S = 90

GENEROUS = Settings(
    ingest_per_minute=100_000, address_per_minute=100_000, read_per_minute=1_000_000, enrich_after_ingest=False
)
"""Limits out of the way; no enrichment, whose work would end after the test."""

StartRecon = Callable[..., AbstractAsyncContextManager["Recon"]]


@dataclass
class Recon:
    """A running recon: its API over HTTP, and what is behind it."""

    http: httpx.AsyncClient
    store: Store
    client: restate.RestateClient
    engine: Engine | None
    """None when a Restate server is the engine."""
    key: SigningKey
    admin_url: str = ""
    """Of the Restate server."""

    async def kill(self, invocation_id: str) -> None:
        """What an operator does who does not care for cleaning up."""
        if self.engine is not None:
            await self.engine.kill(invocation_id)
            return
        async with httpx.AsyncClient() as http:
            (await http.patch(f"{self.admin_url}/invocations/{invocation_id}/kill")).raise_for_status()

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


@pytest.fixture(scope="package")
def restate_server() -> Iterator[RunningRestate]:
    skip_without_server()
    with running_server() as server:
        yield server


@asynccontextmanager
async def embedded(store: Store, db: Path | str, settings: Settings | None = None) -> AsyncIterator[Recon]:
    settings = settings or GENEROUS
    async with (
        store,
        Engine(create_app(store, settings), db=db) as engine,
        serving(store, engine.client, settings) as http,
    ):
        yield Recon(http, store, engine.client, engine, SigningKey.generate())


@asynccontextmanager
async def on_restate(store: Store, server: RunningRestate, settings: Settings | None = None) -> AsyncIterator[Recon]:
    settings = settings or GENEROUS
    async with store, serve_endpoint(create_app(store, settings), drain_s=1.0) as endpoint:
        # In a thread, because the server asks the application, which runs here, before it answers.
        await asyncio.to_thread(server.register, endpoint.url, force=True)
        async with (
            restate.create_client(server.ingress_url) as client,
            serving(store, client, settings) as http,
        ):
            yield Recon(http, store, client, None, SigningKey.generate(), server.admin_url)


@asynccontextmanager
async def serving(
    store: Store, client: restate.RestateClient, settings: Settings = GENEROUS, *, address: str = "203.0.113.9"
) -> AsyncIterator[httpx.AsyncClient]:
    """The API, spoken to in process by somebody at `address`."""
    api = create_api(store, client, settings)
    transport = httpx.ASGITransport(app=api, client=(address, 40000))
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=transport, base_url="http://recon", timeout=30) as http,
    ):
        yield http


@pytest.fixture(params=["holdfast", pytest.param("restate", marks=pytest.mark.restate_server)])
async def start_recon(request: pytest.FixtureRequest, tmp_path: Path) -> StartRecon:
    """Starts recon on either engine with settings of the test's own."""
    server: RunningRestate | None = request.getfixturevalue("restate_server") if request.param == "restate" else None

    def start(settings: Settings = GENEROUS, store: Store | None = None) -> AbstractAsyncContextManager[Recon]:
        store = store or Store(tmp_path / "surreal")
        if server is None:
            return embedded(store, tmp_path / "engine.db", settings)
        return on_restate(store, server, settings)

    return start


@pytest.fixture
async def recon(start_recon: StartRecon) -> AsyncIterator[Recon]:
    """recon on either engine."""
    async with start_recon() as recon:
        yield recon
