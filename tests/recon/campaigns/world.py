"""What campaigns meet in tests: listeners on loopback addresses, and scanners that keep count of what they did."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from apps.recon.campaigns.approval import Approval
from apps.recon.campaigns.scanners import Found, TcpScanner

Look = Callable[[str], Awaitable[None]]


class Witness:
    """The real TCP scanner, watched: it counts its calls, and can be made to wait or to fail."""

    def __init__(self) -> None:
        self._scanner = TcpScanner(timedelta(seconds=10), timedelta(milliseconds=200))
        self.calls: Counter[str] = Counter()
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.faults: dict[str, list[Exception]] = {}
        """What the next calls for an address raise."""
        self.look: Look | None = None
        """Called before each scan."""

    async def scan(self, address: str, ports: Sequence[int], *, limit_s: float) -> Found:
        self.calls[address] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.look is not None:
                await self.look(address)
            await self.gate.wait()
            if self.faults.get(address):
                raise self.faults[address].pop(0)
            return await self._scanner.scan(address, ports, limit_s=limit_s)
        finally:
            self.running -= 1


class Mailbox:
    """Notices about approvals that were sent."""

    def __init__(self) -> None:
        self.notices: list[Approval] = []

    async def notify(self, approval: Approval) -> None:
        self.notices.append(approval)


@asynccontextmanager
async def listening(*addresses: str, greeting: bytes = b"") -> AsyncIterator[int]:
    """A listener on each address, all on one port, which is yielded. It says its greeting and hangs up."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    servers: list[asyncio.Server] = []
    port = 0
    try:
        for address in addresses:
            servers.append(await asyncio.start_server(greet, address, port))
            port = servers[0].sockets[0].getsockname()[1]
        yield port
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()


def loopback(count: int, *, third: int = 7) -> list[str]:
    """So many different addresses of this machine."""
    return [f"127.{third}.{number // 250}.{number % 250 + 1}" for number in range(count)]


def names(rows: list[dict[str, Any]]) -> list[str]:
    """Targets of a report."""
    return [row["target"] for row in rows]
