"""The workflow of imports on both engines, in the test's own process and event loop, on a database of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from apps.imports.app import create_app
from apps.imports.files import Batch
from apps.imports.generator import Register
from apps.imports.generator_sql import Changes
from apps.imports.jobs import BatchDone
from apps.imports.model import ImportResult, Progress
from apps.imports.settings import Settings
from apps.imports.store import Store
from holdfast import Engine
from holdfast.endpoint import serve_endpoint
from tests.support.restate_server import RunningRestate, running_server, skip_without_server

PATIENCE_S = 60.0

# So many that a small register has some of each kind.
CHANGES = Changes(
    ceased=0.04, renamed=0.05, moved=0.05, other_activities=0.05, other_contacts=0.05, other_form=0.04, added=0.05
)


class GatedStore(Store):
    """A store that waits before or after a batch, if the test says so: the real one otherwise."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._before: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
        self._after: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}

    def hold(self, batch_name: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Two events: set when the batch is reached; to be set when it may go on."""
        return self._before.setdefault(batch_name, (asyncio.Event(), asyncio.Event()))

    def hold_after(self, batch_name: str) -> tuple[asyncio.Event, asyncio.Event]:
        """The same, when the batch is committed and the workflow does not know it yet."""
        return self._after.setdefault(batch_name, (asyncio.Event(), asyncio.Event()))

    async def apply(self, job_id: str, batch: Batch, path: Path) -> BatchDone:
        await self._pass(self._before.get(batch.name))
        done = await super().apply(job_id, batch, path)
        await self._pass(self._after.get(batch.name))
        return done

    async def _pass(self, gate: tuple[asyncio.Event, asyncio.Event] | None) -> None:
        if gate is not None:
            gate[0].set()
            await gate[1].wait()


@dataclass
class World:
    """imports on one engine."""

    ingress: httpx.AsyncClient
    admin: httpx.AsyncClient
    store: GatedStore
    settings: Settings
    prefix: str
    """Of import ids: tests share a server."""
    _ids: dict[str, str] = field(default_factory=dict[str, str])

    async def start(self, name: str, source: Any) -> str:
        """Returns the invocation's id."""
        answer = await self.ingress.post(f"/KboImport/{self.prefix}{name}/run/send", json=_json(source))
        assert answer.status_code in (200, 202), answer.text
        return answer.json()["invocationId"]

    async def run(self, name: str, source: Any, *, status: int = 200) -> Any:
        """The result; or, for a `status` other than 200, the error's message."""
        answer = await self.ingress.post(f"/KboImport/{self.prefix}{name}/run", json=_json(source))
        assert answer.status_code == status, answer.text
        if status != 200:
            return answer.json()["message"]
        return msgspec.json.decode(answer.content, type=ImportResult)

    async def over(self, name: str) -> httpx.Response:
        return await self.ingress.get(f"/restate/workflow/KboImport/{self.prefix}{name}/attach")

    async def progress(self, name: str) -> Progress:
        answer = await self.ingress.post(f"/KboImport/{self.prefix}{name}/getProgress")
        return msgspec.json.decode(answer.content, type=Progress)

    async def cancel(self, invocation_id: str) -> None:
        answer = await self.admin.patch(f"/invocations/{invocation_id}/cancel")
        assert answer.status_code in (200, 202), answer.text

    async def steps(self, invocation_id: str) -> list[str]:
        """Names of the recorded steps, in their order."""
        query = (
            f"SELECT name FROM sys_journal WHERE id = '{invocation_id}' AND entry_type = 'Command: Run' ORDER BY index"
        )
        answer = await self.admin.post("/query", json={"query": query}, headers={"accept": "application/json"})
        return [row["name"] for row in answer.json()["rows"]]

    async def rows(self) -> dict[str, int]:
        """Rows of every table, whoever may see them."""
        tables = [
            name for (name,) in await self.store.query("SELECT table_name FROM duckdb_tables() WHERE NOT temporary")
        ]
        return {name: (await self.store.query(f"SELECT count(*) FROM {name}"))[0][0] for name in tables}

    def job_name(self, name: str) -> str:
        return f"{self.prefix}{name}"


def _json(source: Any) -> Any:
    return str(source) if isinstance(source, Path) else source


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Look until the answer is true; returns it."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await look()):
            await asyncio.sleep(0.02)  # between two looks at the condition
    return found


@pytest.fixture(scope="package")
def imports_server() -> Iterator[RunningRestate]:
    skip_without_server()
    with running_server() as server:
        yield server


@pytest.fixture
def overrides() -> dict[str, Any]:
    """Settings of a test's own: parametrize it."""
    return {}


@pytest.fixture(params=["embedded", pytest.param("restate", marks=pytest.mark.restate_server)])
async def world(request: pytest.FixtureRequest, tmp_path: Path, overrides: dict[str, Any]) -> AsyncIterator[World]:
    """Small batches, so that every table has several."""
    defaults = {"batch_rows": 1000, "delete_batch_rows": 5, "fetch_patience_s": 30.0}
    settings = Settings.load(
        environ={}, database=str(tmp_path / "kbo.duckdb"), files=tmp_path / "files", **(defaults | overrides)
    )
    store = GatedStore(settings)
    running = _embedded if request.param == "embedded" else _on_restate
    async with store, running(request, tmp_path, store, settings) as world:
        yield world


@asynccontextmanager
async def _embedded(
    request: pytest.FixtureRequest, folder: Path, store: GatedStore, settings: Settings
) -> AsyncIterator[World]:
    async with (
        Engine(create_app(store, settings), db=folder / "engine.db") as engine,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(engine.ingress), base_url="http://engine", timeout=PATIENCE_S
        ) as ingress,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(engine.admin), base_url="http://engine", timeout=PATIENCE_S
        ) as admin,
    ):
        yield World(ingress, admin, store, settings, "")


@asynccontextmanager
async def _on_restate(
    request: pytest.FixtureRequest, folder: Path, store: GatedStore, settings: Settings
) -> AsyncIterator[World]:
    server: RunningRestate = request.getfixturevalue("imports_server")
    async with (
        serve_endpoint(create_app(store, settings), port=0) as endpoint,
        httpx.AsyncClient(base_url=server.ingress_url, timeout=PATIENCE_S) as ingress,
        httpx.AsyncClient(base_url=server.admin_url, timeout=PATIENCE_S) as admin,
    ):
        registered = await admin.post("/deployments", json={"uri": endpoint.url, "force": True})
        assert registered.is_success, registered.text
        yield World(ingress, admin, store, settings, f"{folder.name[:100]}-".replace("[", "").replace("]", ""))


@dataclass(frozen=True)
class Extracts:
    """A full extract, and the two updates after it."""

    full: Path
    update: Path
    second_update: Path
    later_full: Path
    """Of the state after the updates, with the next number."""


@pytest.fixture(scope="session")
def extracts(tmp_path_factory: pytest.TempPathFactory) -> Extracts:
    """Of 300 enterprises: several batches of every larger table."""
    folder = tmp_path_factory.mktemp("extracts")
    with Register(300, seed=7, nace_codes=60) as register:
        full, update, second = (
            register.write_full(folder),
            register.write_update(folder, CHANGES),
            register.write_update(folder, CHANGES),
        )
        register.extract_number += 1
        return Extracts(full, update, second, register.write_full(folder))
