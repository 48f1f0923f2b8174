"""The API of leads on a test's engine, asked in process; or served by a process of its own, for the command line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from apps.leads.access import Keys
from apps.leads.api import create_api
from apps.leads.running import Leads
from tests.leads.world import World
from tests.support.served import environment_without, serving_process


def leads_of(world: World) -> Leads:
    return Leads(store=world.store, settings=world.settings, gateway=world.gateway, jobs=world.jobs, engine=None)


@asynccontextmanager
async def api_of(
    world: World, *, keys: Keys | None = None, key: str = "", **more: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API; `key` is sent as the bearer token."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    app = create_api(leads_of(world), keys=keys, **more)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers, timeout=60
    ) as client:
        yield client


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """The job, once its stream of events has ended."""
    answer = await client.get(f"/v1/jobs/{job_id}/stream")
    assert answer.status_code == 200, answer.text
    return [data for kind, data in events(answer.text) if kind == "job"][-1]


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events: (kind, data)."""
    found: list[tuple[str, dict[str, Any]]] = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines["event"], json.loads(lines["data"])))
    return found


@contextmanager
def served(folder: Path, *options: str, is_killed: bool = False, **variables: str) -> Iterator[str]:
    """`leads serve` on a free port, in a process; gives its address. `is_killed`: at the end by SIGKILL."""
    command = ("apps.leads", "serve", "--child", "--port", "0", "--dir", str(folder / "data"), *options)
    log = folder / "leads.log"
    with serving_process(*command, log=log, env=environment(**variables), is_killed=is_killed) as (url, _):
        yield url


def environment(**variables: str) -> dict[str, str]:
    """This process's, without settings of leads and of engines."""
    return environment_without("LEADS_", "RESTATE_") | variables
