"""Loopback listeners to find, and a campaign that finds them; shared by the two demos."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from apps.recon.demo_scans import DemoFailed

PATIENCE_S = 180
"""For anything: minutes on a machine that does much else; a real server also waits between two attempts."""

POLL_S = 0.05

_FINAL = ("complete", "failed", "cancelled")


@dataclass
class Listeners:
    """Services on addresses of this machine that only a scan can know."""

    port: int
    addresses: list[str]
    connections: dict[str, int] = field(default_factory=dict[str, int])
    """How often each was connected to."""


@asynccontextmanager
async def listening(addresses: list[str]) -> AsyncGenerator[Listeners]:
    """Listen on one port of each address until the block ends."""
    with socket.create_server((addresses[0], 0)) as probe:
        port = probe.getsockname()[1]
    listeners = Listeners(port, addresses)

    async with AsyncExitStack() as stack:
        for address in addresses:

            def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str = address) -> None:
                listeners.connections[address] = listeners.connections.get(address, 0) + 1
                writer.write(b"220 demo ready\r\n")
                writer.close()

            server = await asyncio.start_server(greet, address, port)
            stack.push_async_callback(_closed, server)
        yield listeners


async def _closed(server: asyncio.Server) -> None:
    server.close()


async def start_campaign(http: httpx.AsyncClient, name: str, targets: list[str], port: int) -> None:
    """Raises: DemoFailed, when it was not accepted."""
    # Two ports that nobody listens on, for the scanner to be told so.
    options = {"ports": sorted({port, 9, 17}), "batch_size": 16}
    answer = await http.post("/v1/campaigns", json={"campaign_id": name, "targets": targets, "options": options})
    if answer.is_error:
        raise DemoFailed(f"the campaign was answered with {answer.status_code}: {answer.text}")


async def campaign_status(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    return (await http.get(f"/v1/campaigns/{name}/status")).raise_for_status().json()


async def campaign_over(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """Its last status."""

    async def look() -> dict[str, Any] | None:
        status = await campaign_status(http, name)
        return status if status["status"] in _FINAL else None

    return await until(look, f"campaign {name} did not end")


async def open_ports(http: httpx.AsyncClient, name: str) -> dict[str, list[int]]:
    """What the report says is open, by address."""
    found: dict[str, list[int]] = {}
    after: str | None = None
    while True:
        query = {"limit": 100, **({"after": after} if after else {})}
        report = (await http.get(f"/v1/campaigns/{name}/report", params=query)).raise_for_status().json()
        for result in report["results"]:
            if result["ports"]:
                found[result["address"]] = sorted(port["number"] for port in result["ports"])
        after = report["next"]
        if after is None:
            return found


async def until(look: Callable[[], Awaitable[Any]], what: str, *, patience_s: float = PATIENCE_S) -> Any:
    """Look until there is something; returns it.

    Raises:
        DemoFailed: `what`, after `patience_s`.
    """
    deadline_s = time.monotonic() + patience_s
    while not (found := await look()):
        if time.monotonic() > deadline_s:
            raise DemoFailed(f"{what} within {patience_s:.0f} s")
        await asyncio.sleep(POLL_S)
    return found
