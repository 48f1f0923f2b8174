"""Campaigns and threats on the embedded engine and on a real Restate server: the same application, the same tests."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import restate

from apps.recon.api import create_api
from apps.recon.campaigns.assembly import Parts, assemble
from apps.recon.campaigns.scanning import ScanRetry
from apps.recon.control import control_service, sweeper, watcher
from apps.recon.settings import Settings
from apps.recon.store import Store
from apps.recon.workflow import ingest_workflow
from holdfast import Engine
from holdfast.endpoint import serve_endpoint
from tests.recon.campaigns.world import Mailbox, Witness
from tests.recon.conftest import GENEROUS
from tests.support.restate_server import RunningRestate

PATIENCE_S = 30.0
TOKEN = "tests-only"
HISTORY_KEEP, HISTORY_CHUNK = 10, 5
FINAL = ("complete", "failed", "cancelled")
SETTINGS = replace(GENEROUS, admin_token=TOKEN, scan_concurrency=8)
RETRY = ScanRetry(attempts=3, first=timedelta(milliseconds=20))
AUTHORISED = {"authorization": f"Bearer {TOKEN}"}

_numbers = itertools.count(1)


@dataclass
class Side:
    """recon with campaigns on one engine, by its HTTP interfaces."""

    api: httpx.AsyncClient
    client: restate.RestateClient
    ingress: httpx.AsyncClient
    admin: httpx.AsyncClient
    store: Store
    parts: Parts
    witness: Witness
    mailbox: Mailbox
    is_embedded: bool

    async def start(self, targets: list[str], *, key: str = "", status: int = 202, **options: Any) -> dict[str, Any]:
        """Start a campaign over the API; the answer."""
        body = {"targets": targets, "options": options, **({"campaign_id": key} if key else {})}
        answer = await self.api.post("/v1/campaigns", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def get(self, path: str, *, status: int = 200) -> Any:
        answer = await self.api.get(path)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def post(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        answer = await self.api.post(path, json=body)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    async def final(self, key: str) -> dict[str, Any]:
        """The campaign, once it is over."""

        async def look() -> dict[str, Any] | None:
            campaign = await self.get(f"/v1/campaigns/{key}")
            return campaign if campaign["status"] in FINAL else None

        return await until(look)

    async def run(self, targets: list[str], *, key: str = "", **options: Any) -> dict[str, Any]:
        """A campaign from beginning to end; its report."""
        started = await self.start(targets, key=key, **options)
        await self.final(started["id"])
        return await self.get(f"/v1/campaigns/{started['id']}/report")

    async def call(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        """A handler at the engine's ingress."""
        answer = await (self.ingress.post(path, json=body) if body is not None else self.ingress.post(path))
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        if status != 200:
            return answer.text
        return answer.json() if answer.content else None

    async def call_is_over(self, key: str) -> bool:
        """Whether the campaign's workflow has ended."""
        rows = await self.rows(
            f"SELECT status FROM sys_invocation WHERE target_service_name = 'Campaign' AND target_service_key = '{key}'"
        )
        return any(row["status"] == "completed" for row in rows)

    async def session(self, key: str, state: str) -> dict[str, Any] | None:
        """The scan session of a campaign, once it is in that state."""
        session = await self.call(f"/ScanSession/{key}/get")
        return session if session["state"] == state else None

    async def output(self, workflow: str, key: str) -> httpx.Response:
        """What a workflow answered, once it has ended."""
        return await self.ingress.get(f"/restate/workflow/{workflow}/{key}/attach")

    async def rows(self, query: str) -> list[dict[str, Any]]:
        """SQL over invocations, journals and state; the same tables on both engines."""
        answer = await self.admin.post("/query", json={"query": query}, headers={"accept": "application/json"})
        assert answer.status_code == 200, answer.text
        return answer.json()["rows"]


async def until(look: Callable[[], Awaitable[Any]] | Callable[[], Any]) -> Any:
    """Look until the answer is true; returns it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = look()
            found = await found if isinstance(found, Awaitable) else found
            if found:
                return found
            await asyncio.sleep(0.01)  # between two looks at the condition


StartSide = Callable[..., AbstractAsyncContextManager[Side]]


@pytest.fixture
def key() -> str:
    """A campaign id that no other test uses: a Restate server remembers those of earlier tests."""
    return f"c-{next(_numbers)}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(params=["holdfast", pytest.param("restate", marks=pytest.mark.restate_server)])
async def start_side(request: pytest.FixtureRequest, tmp_path: Path) -> StartSide:
    """Starts recon on either engine, with settings of the test's own."""
    server: RunningRestate | None = request.getfixturevalue("restate_server") if request.param == "restate" else None

    @asynccontextmanager
    async def start(settings: Settings = SETTINGS) -> AsyncIterator[Side]:
        witness, mailbox, store = Witness(), Mailbox(), Store(tmp_path / "surreal")
        parts = assemble(
            store,
            settings,
            scanners={"tcp": witness},
            notify=mailbox.notify,
            retry=RETRY,
            history_keep=HISTORY_KEEP,
            history_chunk=HISTORY_CHUNK,
        )
        app = restate.app(
            [
                ingest_workflow(store, settings),
                control_service,
                sweeper(store, settings).service,
                watcher(store),
                *parts.campaign_services(),
                *parts.threat_services(),
            ]
        )
        async with store:
            running = _embedded(app, tmp_path) if server is None else _on_restate(app, server)
            async with running as (client, ingress, admin):
                transport = httpx.ASGITransport(create_api(store, client, settings))
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://recon", headers=AUTHORISED, timeout=PATIENCE_S
                ) as api:
                    try:
                        yield Side(api, client, ingress, admin, store, parts, witness, mailbox, server is None)
                    finally:
                        witness.gate.set()

    return start


@pytest.fixture
async def side(start_side: StartSide) -> AsyncIterator[Side]:
    async with start_side() as side:
        yield side


@asynccontextmanager
async def _embedded(app: Any, home: Path) -> AsyncIterator[tuple[Any, httpx.AsyncClient, httpx.AsyncClient]]:
    async with (
        Engine(app, db=home / "engine.db") as engine,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(engine.ingress), base_url="http://engine", timeout=PATIENCE_S
        ) as ingress,
        httpx.AsyncClient(transport=httpx.ASGITransport(engine.admin), base_url="http://engine") as admin,
    ):
        yield engine.client, ingress, admin


@asynccontextmanager
async def _on_restate(
    app: Any, server: RunningRestate
) -> AsyncIterator[tuple[Any, httpx.AsyncClient, httpx.AsyncClient]]:
    async with serve_endpoint(app, drain_s=1.0) as endpoint:
        # In a thread, because the server asks the application, which runs here, before it answers.
        await asyncio.to_thread(server.register, endpoint.url, force=True)
        async with (
            restate.create_client(server.ingress_url) as client,
            httpx.AsyncClient(base_url=server.ingress_url, timeout=PATIENCE_S) as ingress,
            httpx.AsyncClient(base_url=server.admin_url, timeout=PATIENCE_S) as admin,
        ):
            yield client, ingress, admin
