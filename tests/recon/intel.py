"""recon with its sources beside it: a mirror of the NVD and a whois server on loopback, on either engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import hypercorn.asyncio
import hypercorn.config
import restate
import uvicorn
from nacl.signing import SigningKey
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from apps.recon.api import create_api
from apps.recon.application import create_app
from apps.recon.enrich.mirror import PATH, create_mirror
from apps.recon.envelope import seal
from apps.recon.settings import Settings
from apps.recon.store import Store
from holdfast import Engine
from tests.support.restate_server import RunningRestate, free_ports

DATA = Path(__file__).resolve().parents[2] / "apps" / "recon" / "data"
FULLSCAN = DATA / "nmap" / "libnmap_fullscan.xml"
ASN_FILE = DATA / "geoip" / "GeoLite2-ASN-Test.mmdb"
CITY_FILE = DATA / "geoip" / "GeoLite2-City-Test.mmdb"
KEV_FILE = DATA / "vuln" / "kev" / "known_exploited_vulnerabilities.json"
PATIENCE_S = 30

LINKOPING, MILTON, LONDON, GOOGLE, NOWHERE = (
    "89.160.20.112", "216.160.83.56", "81.2.69.142", "1.0.0.1", "104.16.99.52"
)  # fmt: skip
"""Addresses of the test databases: both have the first two, one has London, the other Google's, none the last."""


@dataclass
class Mirror:
    """The mirror of the NVD, and what it does for the next requests instead of answering."""

    app: Any
    url: str = ""
    says: list[Callable[[], Response]] = field(default_factory=list[Callable[[], Response]])
    keys: list[str | None] = field(default_factory=list[str | None])
    """The API key of every request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.keys.append(Request(scope).headers.get("apikey"))
            if self.says:
                await self.says.pop(0)()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    @property
    def asked(self) -> list[str]:
        """The CPE names that were asked about and answered, in order, one for each page."""
        return [each["cpeName"] for each in self.app.state.asked]


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application on loopback; its URL."""
    [port] = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def nvd_mirror(directory: Path | None = None) -> AsyncIterator[Mirror]:
    mirror = Mirror(create_mirror(directory) if directory else create_mirror())
    async with serving(mirror) as url:
        mirror.url = url + PATH
        yield mirror


@dataclass
class Whois:
    """A server that speaks Team Cymru's bulk format."""

    knows: dict[str, str]
    """Address -> the line about it."""
    server: str = ""
    asked: list[list[str]] = field(default_factory=list[list[str]])
    """The addresses of every connection that was answered."""
    hang_ups: int = 0
    """So many connections are cut before the answer is complete."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"end\n")).decode().split("\n")
        assert lines[:2] == ["begin", "verbose"]
        addresses = lines[2:-2]
        writer.write(b"Bulk mode; whois.cymru.com [2026-01-01 00:00:00 +0000]\n")
        if self.hang_ups:
            self.hang_ups -= 1
        else:
            for address in addresses:
                nobody = f"NA      | {address} | NA | | other | | NA"
                writer.write((self.knows.get(address, nobody) + "\n").encode())
            self.asked.append(addresses)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def whois_server(knows: dict[str, str]) -> AsyncIterator[Whois]:
    whois = Whois(knows)
    server = await asyncio.start_server(whois.answer, "127.0.0.1", 0)
    async with server:
        whois.server = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield whois


@dataclass
class Intel:
    """A running recon."""

    http: httpx.AsyncClient
    store: Store
    settings: Settings

    async def know(self, *addresses: str) -> None:
        """Make hosts of these addresses known, without anything on them."""
        now = datetime.now(UTC)
        await self.store.write(
            "INSERT IGNORE INTO host $rows RETURN NONE",
            rows=[{"id": ip, "address": ip, "ip": ip, "first_seen": now, "last_seen": now} for ip in addresses],
        )

    async def ingest(self, scan: str | bytes, *, later_s: int = 0) -> str:
        """Submit a scan that was made now, or later, and wait for its job; returns the job id."""
        body = seal(scan, SigningKey.generate(), timestamp_s=int(time.time()) + later_s)
        answer = await self.http.post("/v1/mesh/ingest", content=body)
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]

        async def final() -> bool:
            return (await self.http.get(f"/v1/jobs/{job_id}")).json()["state"] in ("completed", "failed")

        await until(final)
        return job_id

    async def start(self, **body: Any) -> str:
        answer = await self.http.post("/v1/enrich", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    async def final(self, run_id: str) -> dict[str, Any]:
        """The run, once it has ended."""

        async def look() -> dict[str, Any] | None:
            answer = await self.http.get(f"/v1/enrich/{run_id}")
            return answer.json() if answer.status_code == 200 and answer.json()["state"] != "running" else None

        return await until(look)

    async def enrich(self, **body: Any) -> dict[str, Any]:
        """Start a run and wait for it; what came of it."""
        run = await self.final(await self.start(**body))
        assert run["state"] == "completed", run
        return run["result"]

    async def rows(self, sql: str, **params: Any) -> list[Any]:
        (found,) = await self.store.read(sql, **params)
        return found


async def until(look: Callable[[], Awaitable[Any]] | Callable[[], Any]) -> Any:
    """Look until the answer is true; returns it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = look()
            found = await found if isinstance(found, Awaitable) else found
            if found:
                return found
            await asyncio.sleep(0.01)  # between two looks at the condition


@asynccontextmanager
async def intel(directory: Path, settings: Settings, server: RunningRestate | None = None) -> AsyncIterator[Intel]:
    """recon in `directory`, on the embedded engine or on a Restate server."""
    store = Store(directory / "surreal")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store)
        app = create_app(store, settings)
        if server is None:
            engine = await stack.enter_async_context(Engine(app, db=directory / "engine.db"))
            client: restate.RestateClient = engine.client
        else:
            await stack.enter_async_context(_registered(app, server))
            client = await stack.enter_async_context(restate.create_client(server.ingress_url))
        transport = httpx.ASGITransport(app=create_api(store, client, settings))
        http = httpx.AsyncClient(transport=transport, base_url="http://recon", timeout=PATIENCE_S)
        await stack.enter_async_context(http)
        yield Intel(http, store, settings)


@asynccontextmanager
async def _registered(app: Any, server: RunningRestate) -> AsyncIterator[None]:
    [port] = free_ports(1)
    config = hypercorn.config.Config()
    config.bind, config.errorlog, config.graceful_timeout = [f"127.0.0.1:{port}"], None, 1.0
    stop = asyncio.Event()
    serving = asyncio.create_task(hypercorn.asyncio.serve(app, config, mode="asgi", shutdown_trigger=stop.wait))
    try:
        # In a thread, because the server asks the application, which runs here, before it answers.
        await asyncio.to_thread(server.register, f"http://127.0.0.1:{port}", force=True)
        yield
    finally:
        stop.set()
        await serving
