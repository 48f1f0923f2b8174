"""nmap as a scanner: its program is run with an argument vector, its XML read by recon's own parser.

Only a TCP connect scan (`-sT`), which needs no privileges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

from apps.recon.campaigns.model import OpenPort
from apps.recon.campaigns.scanners.base import Found, ScanFailed, ScannerMissing, ScanTimedOut
from apps.recon.parsers.errors import ScanRejected
from apps.recon.parsers.nmap import parse_nmap

VERSIONS_SHARE = 0.75
"""Of the time for a target. A service that never answers takes nmap half a minute to give up; the rest of the time is
enough to report its port without a version, which is better than nothing."""

OUTPUT_BYTES_MAX = 8 << 20
"""A report of one host is some kilobytes; more than this is not nmap's."""


class NmapScanner:
    """Runs `nmap` once per target."""

    def __init__(self, program: str = "nmap", *, with_versions: bool = True) -> None:
        """
        Args:
            program: Name on the PATH, or a path.
            with_versions: Ask open ports for product and version (`-sV`), which takes seconds per port.
        """
        self._program = program
        self._with_versions = with_versions

    async def scan(self, address: str, ports: Sequence[int], *, limit_s: float) -> Found:
        """See `Scanner.scan`. When there is no time for products and versions, the open ports are found without."""
        quick_s = limit_s
        try:
            if self._with_versions:
                quick_s = limit_s * (1 - VERSIONS_SHARE)
                with suppress(TimeoutError):
                    return await self._run(command(address, ports, with_versions=True), limit_s - quick_s)
            return await self._run(command(address, ports, with_versions=False), quick_s)
        except TimeoutError:
            raise ScanTimedOut(f"{address} took longer than {limit_s:g} s") from None

    async def _run(self, arguments: list[str], limit_s: float) -> Found:
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise ScannerMissing(
                f"{self._program} cannot be run ({error.strerror}); install it (apt-get install nmap) or set RECON_NMAP"
            ) from error
        try:
            async with asyncio.timeout(limit_s):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:  # also when this task was cancelled: no orphan goes on scanning
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = errors.decode(errors="replace").strip().splitlines()
            raise ScanFailed(f"nmap ended with {process.returncode}: {said[-1] if said else 'no message'}")
        return read_report(output)


def command(address: str, ports: Sequence[int], *, with_versions: bool) -> list[str]:
    """nmap's arguments. `address` is parsed again, so that nothing else can ever stand there, least of all an option.

    Raises:
        ValueError: `address` is none.
    """
    parsed = ip_address(address)
    arguments = ["-oX", "-", "-n", "-Pn", "-sT", "-p", ",".join(str(port) for port in dict.fromkeys(ports))]
    if with_versions:
        arguments += ["-sV", "--version-light"]
    if parsed.version == 6:
        arguments.append("-6")
    return [*arguments, str(parsed)]


def read_report(output: bytes) -> Found:
    """What nmap's XML says of its one host. With `-Pn` every host counts as up; we want to know whether it answered.

    Raises:
        ScanFailed: it is no report of nmap's.
    """
    if len(output) > OUTPUT_BYTES_MAX:
        raise ScanFailed(f"nmap wrote {len(output)} bytes; that is no report of one host")
    try:
        scan = parse_nmap(output.decode(errors="replace"))
    except ScanRejected as error:
        raise ScanFailed(f"nmap's report cannot be read: {error}") from error
    ports = [
        OpenPort(port.number, port.protocol, port.service, port.product, port.version)
        for host in scan.hosts.values()
        for port in host.ports.values()
    ]
    ports.sort(key=lambda port: port.number)
    return Found(bool(ports) or b'reason="conn-refused"' in output, ports)
