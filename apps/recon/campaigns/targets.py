"""Targets of a campaign: what a caller may write, and which of them may be scanned. Pure but for name resolution.

A name is resolved once, when the campaign begins. Whether it may be scanned is decided by the addresses that came out,
and one of these is what is scanned: a name that resolves to another address a moment later changes nothing.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from apps.recon.campaigns.model import TARGETS_MAX
from apps.recon.settings import Network

Address = IPv4Address | IPv6Address
Resolver = Callable[[str], Awaitable[Sequence[str]]]

RESOLVE_TIMEOUT_S = 10.0

# Labels of letters, digits and inner hyphens. The last one is no number: "127.1" and "0x7f.1" would be read as addresses
# by the resolver, but not by us.
_NAME = re.compile(
    r"(?=.{1,253}\.?$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?"
)


class TargetRejected(Exception):
    """The target will not be scanned; the text is the reason, for its owner."""

    status_code = 400


class TargetForbidden(TargetRejected):
    """It lies outside of the allowed networks."""

    status_code = 403


class TargetUnknown(TargetRejected):
    """The name does not exist."""

    status_code = 404


class ResolutionFailed(Exception):
    """The name server did not answer; it may later."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """Which addresses may be scanned, and which of them only when somebody approved."""

    allowed: tuple[Network, ...]
    sensitive: tuple[Network, ...] = ()

    def check(self, address: Address) -> None:
        """Raises: TargetForbidden, if no allowed network holds the address."""
        if not _is_in(address, self.allowed):
            networks = ", ".join(str(one) for one in self.allowed) or "none"
            raise TargetForbidden(f"{address} is not in the allowed networks ({networks}); see RECON_ALLOWED_NETWORKS")

    def is_sensitive(self, address: Address) -> bool:
        """Whether an approval is needed."""
        return _is_in(address, self.sensitive)


def parse_address(text: str) -> Address:
    """The address that `text` spells; IPv4 inside IPv6 counts as IPv4, so that no spelling evades the allow-list.

    Raises:
        ValueError: it is no address, or one with a zone.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text} has a zone")
        return address.ipv4_mapped or address
    return address


def expand(text: str) -> Iterator[str]:
    """The addresses or the name that one line stands for, canonically spelled.

    A network is spread out, its own and its broadcast address left out where there are others.

    Raises:
        TargetRejected: it is none of these, or a network of more than `TARGETS_MAX` addresses.
    """
    text = text.strip()
    if not text:
        raise TargetRejected("the target is empty")
    if "/" in text:
        yield from _spread(text)
        return
    try:
        yield str(parse_address(text))
    except ValueError:
        if not _NAME.fullmatch(text):
            raise TargetRejected("it is no address, no network and no host name") from None
        yield text.rstrip(".").lower()


def _spread(text: str) -> Iterator[str]:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise TargetRejected(f"it is no network: {error}") from None
    if network.num_addresses > TARGETS_MAX:
        raise TargetRejected(f"the network has {network.num_addresses} addresses; at most {TARGETS_MAX} are scanned")
    for address in network.hosts():
        yield str(parse_address(str(address)))


def count(texts: Sequence[str]) -> int:
    """How many targets these lines stand for at most, without spreading networks out."""
    return sum(_count(text) for text in texts)


def _count(text: str) -> int:
    try:
        addresses = ip_network(text.strip(), strict=False).num_addresses if "/" in text else 1
    except ValueError:
        return 1  # rejected later, and reported
    return addresses if addresses <= TARGETS_MAX else 1  # likewise


async def resolve(name: str) -> list[str]:
    """The addresses of a name, those of IPv4 first.

    Raises:
        TargetUnknown: there is no such name.
        ResolutionFailed: nobody could say.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise TargetUnknown(f"the name {name} has no address") from None
        raise ResolutionFailed(f"{name} could not be resolved: {error}") from error
    except TimeoutError:
        raise ResolutionFailed(f"{name} could not be resolved within {RESOLVE_TIMEOUT_S:g} s") from None
    found.sort(key=lambda entry: entry[0] is not socket.AF_INET)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def locate(target: str, allow: AllowList, resolver: Resolver = resolve) -> Address:
    """The one address to scan for a target that `expand` gave.

    Raises:
        TargetRejected: unknown, or any of its addresses is forbidden: then the name is not trusted for the others.
        ResolutionFailed: try again later.
    """
    try:
        addresses = [parse_address(target)]
    except ValueError:
        addresses = [parse_address(text) for text in await resolver(target)]
        if not addresses:
            raise TargetUnknown(f"the name {target} has no address") from None
    for address in addresses:
        allow.check(address)
    return addresses[0]


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
