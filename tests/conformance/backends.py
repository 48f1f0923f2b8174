"""The two engines behind one narrow face: an ingress, an admin API, and the status of an invocation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from holdfast import Engine

TIMEOUT_S = 30.0


class Backend(Protocol):
    name: str
    ingress: httpx.AsyncClient
    admin: httpx.AsyncClient

    async def invocation(self, invocation_id: str) -> dict[str, Any] | None:
        """`status`, `completion_result`, `completion_failure` …; None when unknown."""
        ...

    async def commands(self, invocation_ids: list[str]) -> dict[str, list[str]]:
        """Invocation id -> the commands of its journal in order, as `Run step 1`."""
        ...

    async def idempotency_key(self, invocation_id: str) -> str | None:
        """As operators see it."""
        ...

    async def events(self, invocation_id: str) -> list[dict[str, Any]]:
        """What happened beside the journal, oldest first; fields as in `sys_journal_events.event_json`."""
        ...


def _command(entry_type: str, name: str) -> str:
    return f"{entry_type.removeprefix('Command: ')} {name}".rstrip(" ")


@dataclass(slots=True)
class RestateBackend:
    """A real server, asked by SQL."""

    ingress: httpx.AsyncClient
    admin: httpx.AsyncClient
    name: str = "restate"

    async def invocation(self, invocation_id: str) -> dict[str, Any] | None:
        columns = "id, status, completion_result, completion_failure, journal_size, retry_count, last_failure"
        rows = await self._rows(f"SELECT {columns} FROM sys_invocation WHERE id = '{invocation_id}'")
        return rows[0] if rows else None

    async def commands(self, invocation_ids: list[str]) -> dict[str, list[str]]:
        wanted = ", ".join(f"'{one}'" for one in invocation_ids)
        rows = await self._rows(
            f"SELECT id, entry_type, name FROM sys_journal WHERE id IN ({wanted}) "
            "AND entry_type LIKE 'Command%' ORDER BY id, index"
        )
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["id"], []).append(_command(row["entry_type"], row.get("name") or ""))
        return found

    async def idempotency_key(self, invocation_id: str) -> str | None:
        [row] = await self._rows(f"SELECT idempotency_key FROM sys_invocation WHERE id = '{invocation_id}'")
        return row.get("idempotency_key")

    async def events(self, invocation_id: str) -> list[dict[str, Any]]:
        rows = await self._rows(
            f"SELECT event_json FROM sys_journal_events WHERE id = '{invocation_id}' ORDER BY appended_at"
        )
        return [json.loads(row["event_json"]) for row in rows]

    async def _rows(self, query: str) -> list[dict[str, Any]]:
        response = await self.admin.post("/query", json={"query": query}, headers={"accept": "application/json"})
        response.raise_for_status()
        return response.json()["rows"]


@asynccontextmanager
async def restate_backend(ingress_url: str, admin_url: str) -> AsyncIterator[RestateBackend]:
    async with AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=200)
        ingress = httpx.AsyncClient(base_url=ingress_url, timeout=TIMEOUT_S, limits=limits)
        admin = httpx.AsyncClient(base_url=admin_url, timeout=TIMEOUT_S, limits=limits)
        yield RestateBackend(await stack.enter_async_context(ingress), await stack.enter_async_context(admin))


@dataclass(slots=True)
class HoldfastBackend:
    """The embedded engine, through its ASGI apps, in the event loop of the test."""

    ingress: httpx.AsyncClient
    admin: httpx.AsyncClient
    engine: Engine
    name: str = "holdfast"

    async def invocation(self, invocation_id: str) -> dict[str, Any] | None:
        response = await self.admin.get(f"/invocations/{invocation_id}")
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return response.json()

    async def commands(self, invocation_ids: list[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for invocation_id in invocation_ids:
            response = await self.admin.get(f"/invocations/{invocation_id}/journal")
            if response.status_code == 404:
                continue
            entries = response.json()["entries"]
            names = [_command(one["entry_type"], one["name"]) for one in entries if "Command" in one["entry_type"]]
            if names:
                found[invocation_id] = names
        return found

    async def idempotency_key(self, invocation_id: str) -> str | None:
        return (await self.admin.get(f"/invocations/{invocation_id}")).json()["idempotency_key"]

    async def events(self, invocation_id: str) -> list[dict[str, Any]]:
        response = await self.admin.get(f"/invocations/{invocation_id}/journal")
        return response.json()["events"]


@asynccontextmanager
async def holdfast_backend(app: Any, db: Path, **settings: Any) -> AsyncIterator[HoldfastBackend]:
    """Start an engine for `app` on a database file; `settings` as for `Engine`."""
    async with AsyncExitStack() as stack:
        # A Restate server lets a handler wait for itself for ever, and retries one whose journal does not fit; to compare
        # with it, so must we.
        as_server: dict[str, Any] = {"refuse_deadlocks": False, "pause_on_mismatch": False}
        engine = await stack.enter_async_context(Engine(app, db=db, **{**as_server, **settings}))
        ingress = httpx.AsyncClient(
            transport=httpx.ASGITransport(engine.ingress), base_url="http://engine", timeout=TIMEOUT_S
        )
        admin = httpx.AsyncClient(transport=httpx.ASGITransport(engine.admin), base_url="http://engine")
        yield HoldfastBackend(await stack.enter_async_context(ingress), await stack.enter_async_context(admin), engine)
