"""The same tests on three engines: embedded, embedded with a suspension at every wait, and a real Restate server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import Engine
from tests.patterns import world
from tests.patterns.program import application
from tests.support.restate_server import RunningRestate, running_restate, skip_without_server

PATIENCE_S = 30.0


@dataclass
class Side:
    """One engine with the test application, by its HTTP interfaces."""

    ingress: httpx.AsyncClient
    admin: httpx.AsyncClient
    is_embedded: bool

    async def call(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        """The answer's JSON, or for a `status` other than 200 the text of the error."""
        answer = await (self.ingress.post(path, json=body) if body is not None else self.ingress.post(path))
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        if status != 200:
            return answer.text
        return answer.json() if answer.content else None

    async def send(self, path: str, body: Any = None) -> str:
        """Start it; the invocation's id."""
        answer = await (
            self.ingress.post(path + "/send", json=body) if body is not None else self.ingress.post(path + "/send")
        )
        assert answer.status_code in (200, 202), answer.text
        return answer.json()["invocationId"]

    async def cancel(self, invocation_id: str) -> None:
        answer = await self.admin.patch(f"/invocations/{invocation_id}/cancel")
        assert answer.status_code in (200, 202), answer.text

    async def unfinished(self, service: str) -> list[str]:
        """Ids of the service's invocations that have not completed."""
        if self.is_embedded:
            rows = (await self.admin.get("/invocations", params={"service": service})).json()["invocations"]
        else:
            query = f"SELECT id, status FROM sys_invocation WHERE target_service_name = '{service}'"
            answer = await self.admin.post("/query", json={"query": query}, headers={"accept": "application/json"})
            rows = answer.json()["rows"]
        return [row["id"] for row in rows if row["status"] != "completed"]

    async def attach(self, workflow: str, key: str) -> httpx.Response:
        """The answer of a workflow's main handler, once it has ended."""
        return await self.ingress.get(f"/restate/workflow/{workflow}/{key}/attach")


async def until(look: Callable[[], Awaitable[Any]] | Callable[[], Any]) -> Any:
    """Look until the answer is true; returns it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = look()
            found = await found if isinstance(found, Awaitable) else found
            if found:
                return found
            await asyncio.sleep(0.01)  # between two looks at the condition


@pytest.fixture
def key() -> Iterator[str]:
    """A key that no other test uses; its gate is opened at the end, so that nothing keeps waiting."""
    key = uuid.uuid4().hex
    yield key
    world.gates[key] = True


@pytest.fixture(scope="package")
def patterns_on_restate() -> Iterator[RunningRestate]:
    skip_without_server()
    with running_restate(application(inactivity_timeout=timedelta(milliseconds=50))) as server:
        yield server


@pytest.fixture(params=["holdfast", "holdfast-suspending", pytest.param("restate", marks=pytest.mark.restate_server)])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    if request.param == "restate":
        server: RunningRestate = request.getfixturevalue("patterns_on_restate")
        async with (
            httpx.AsyncClient(base_url=server.ingress_url, timeout=PATIENCE_S) as ingress,
            httpx.AsyncClient(base_url=server.admin_url, timeout=PATIENCE_S) as admin,
        ):
            yield Side(ingress, admin, is_embedded=False)
        return
    app = application(inactivity_timeout=timedelta(0) if request.param == "holdfast-suspending" else None)
    async with (
        Engine(app, db=tmp_path / "engine.db") as engine,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(engine.ingress), base_url="http://engine", timeout=PATIENCE_S
        ) as ingress,
        httpx.AsyncClient(transport=httpx.ASGITransport(engine.admin), base_url="http://engine") as admin,
    ):
        yield Side(ingress, admin, is_embedded=True)
