"""Team Cymru's bulk whois: which network announces an address. The text format, and a client for it.

begin            ->   Bulk mode; whois.cymru.com [2025-01-01 00:00:00 +0000]
verbose               15169   | 8.8.8.8   | 8.8.8.0/24 | US | arin | 2023-12-28 | GOOGLE, US
8.8.8.8               NA      | 10.0.0.1  | NA         |    | other |           | NA
10.0.0.1
end
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import msgspec

HOST, PORT = "whois.cymru.com", 43
BATCH_MAX = 50
ANSWER_BYTES_MAX = 1024 * 1024


class BadAnswer(Exception):
    """The server answered something else than one line per address; it may do better the next time."""


class Origin(msgspec.Struct, frozen=True):
    """Who announces an address."""

    number: int
    """Of the autonomous system."""
    organisation: str | None = None
    country: str | None = None
    """Where the prefix is registered: two capitals. Not where the address is."""
    prefix: str | None = None


def question(addresses: Sequence[str]) -> bytes:
    """What to send for these addresses."""
    return ("\n".join(["begin", "verbose", *addresses, "end"]) + "\n").encode("ascii")


def parse_answer(text: str, addresses: Sequence[str]) -> dict[str, Origin | None]:
    """The answer for each address; None for one that nobody announces.

    An address may have several lines when several systems announce it: the first counts.

    Raises:
        BadAnswer: an address is not in it at all, as when the connection was cut.
    """
    wanted = {ipaddress.ip_address(address): address for address in addresses}
    found: dict[str, Origin | None] = {}
    for line in text.splitlines():
        values = [value.strip() for value in line.split("|", 6)]
        if len(values) < 3:
            continue  # the greeting, or an error that names a line and no address
        address = wanted.get(ip) if (ip := _address(values[1])) is not None else None
        if address is not None and found.get(address) is None:
            found[address] = _origin(values)
    missing = [address for address in addresses if address not in found]
    if missing:
        raise BadAnswer(f"the whois server left out {len(missing)} of {len(addresses)} addresses, {missing[0]} first")
    return found


async def ask(addresses: Sequence[str], *, host: str, port: int, timeout_s: float) -> dict[str, Origin | None]:
    """Ask about up to `BATCH_MAX` addresses over one connection.

    Raises:
        OSError, TimeoutError: the server cannot be reached or is silent.
        BadAnswer: see `parse_answer`.
    """
    assert len(addresses) <= BATCH_MAX
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(question(addresses))
            await writer.drain()
            body = await reader.read(ANSWER_BYTES_MAX)
            while more := await reader.read(ANSWER_BYTES_MAX - len(body)):
                body += more
        finally:
            writer.close()
    return parse_answer(body.decode("utf-8", "replace"), addresses)


def _origin(values: list[str]) -> Origin | None:
    number = values[0].split()[0] if values[0] else ""
    if not number.isdigit():
        return None
    values = [*values, "", "", "", ""]
    return Origin(int(number), _known(values[6]), _known(values[3]), _known(values[2]))


def _known(value: str) -> str | None:
    return value if value not in ("", "NA") else None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
