"""The built-in scanner: a full TCP connection to each port, closed at once or after its greeting was read.

It needs no privileges and no program. It cannot tell a filtered port from a host that is not there.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from apps.recon.campaigns.model import OpenPort
from apps.recon.campaigns.scanners.base import Found, ScanFailed, ScanTimedOut

BANNER_BYTES_MAX = 2048
PORTS_AT_A_TIME = 32
"""Per target. Sixteen targets at a time, the default, then use 512 files at the most: half of what a shell allows."""

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

# What tells the service of a port without asking: the beginning of its greeting.
_GREETINGS = ((b"SSH-", "ssh"), (b"+OK", "pop3"), (b"* OK", "imap"), (b"RFB ", "vnc"), (b"HTTP/", "http"))
_NAMES = {
    21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 53: "domain", 80: "http", 110: "pop3", 143: "imap", 443: "https",
    445: "microsoft-ds", 993: "imaps", 995: "pop3s", 1433: "ms-sql-s", 2375: "docker", 3306: "mysql",
    3389: "ms-wbt-server", 5432: "postgresql", 5900: "vnc", 6379: "redis", 8080: "http-proxy",
}  # fmt: skip
"""By convention, as nmap without version detection does it."""


class TcpScanner:
    """Connects to every port, `PORTS_AT_A_TIME` at a time."""

    def __init__(
        self, connect_timeout: timedelta = timedelta(seconds=1), banner_timeout: timedelta = timedelta(0)
    ) -> None:
        """`banner_timeout`: how long to wait for a greeting on an open port; 0 does not wait."""
        self._connect_s = connect_timeout.total_seconds()
        self._banner_s = banner_timeout.total_seconds()

    async def scan(self, address: str, ports: Sequence[int], *, limit_s: float) -> Found:
        """See `Scanner.scan`."""
        turns = asyncio.Semaphore(PORTS_AT_A_TIME)

        async def look(port: int) -> tuple[bool, OpenPort | None]:
            async with turns:
                return await self._look(address, port)

        try:
            async with asyncio.timeout(limit_s), asyncio.TaskGroup() as group:
                looks = [group.create_task(look(port)) for port in dict.fromkeys(ports)]
        except TimeoutError:
            raise ScanTimedOut(f"{address} took longer than {limit_s:g} s") from None
        except BaseExceptionGroup as failed:
            raise ScanFailed(f"{address}: {failed.exceptions[0]}") from failed
        found = [task.result() for task in looks]
        opened = sorted((port for _, port in found if port is not None), key=lambda port: port.number)
        return Found(any(answered for answered, _ in found), opened)

    async def _look(self, address: str, port: int) -> tuple[bool, OpenPort | None]:
        """Whether anything answered, and the port if it is open."""
        try:
            async with asyncio.timeout(self._connect_s):
                reader, writer = await asyncio.open_connection(address, port)
        except ConnectionRefusedError:
            return True, None
        except TimeoutError:
            return False, None
        except OSError as error:
            if error.errno in _OURS:
                raise  # we are out of files or ports: not a finding about the target
            return False, None
        try:
            banner = await self._greeting(reader)
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._connect_s):
                    await writer.wait_closed()
        return True, OpenPort(port, service=name_service(port, banner), banner=_text(banner))

    async def _greeting(self, reader: asyncio.StreamReader) -> bytes:
        if not self._banner_s:
            return b""
        try:
            async with asyncio.timeout(self._banner_s):
                return await reader.read(BANNER_BYTES_MAX)
        except (TimeoutError, OSError):
            return b""  # open, but it waits for us to speak first


def name_service(port: int, banner: bytes) -> str | None:
    """What runs there, by its greeting and else by the number of the port."""
    for greeting, name in _GREETINGS:
        if banner.startswith(greeting):
            return name
    return _NAMES.get(port)


def _text(banner: bytes) -> str | None:
    """Printable: it comes from a stranger and ends up in terminals and pages."""
    text = "".join(c if c.isprintable() else " " for c in banner.decode("utf-8", "replace")).strip()
    return text or None
