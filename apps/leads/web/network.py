"""Which address may be connected to, decided where the connection is made.

A name is resolved once, the answer is judged, and the judged address itself is connected to. TLS and the Host header
keep the name. So a name that points inside, a redirect to one, `http://2130706433/`, and a name that resolves
differently the second time (DNS rebinding) all end here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, cast

import httpcore
import httpx

from apps.leads.web.types import NetworkPolicy

IPAddress = IPv4Address | IPv6Address

# Beyond what `is_global` says, which differs between versions of Python.
_NOT_PUBLIC: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier NAT; some clouds keep their metadata here
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "::/128",
        "::1/128",
        "100::/64",  # discard
        "fc00::/7",  # unique local, fd00:ec2::254 among them
        "fe80::/10",
        "fec0::/10",  # site-local of old
        "ff00::/8",
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_NAT64_LOCAL = ip_network("64:ff9b:1::/48")
_IPV4_COMPATIBLE = ip_network("::/96")
_IPV4_TRANSLATED = ip_network("::ffff:0:0:0/96")


class AddressRefused(Exception):
    """The policy does not allow this address. Never worth another attempt."""


class NameNotFound(Exception):
    """The name has no address, or the name servers did not answer."""

    def __init__(self, message: str, *, is_transient: bool) -> None:
        super().__init__(message)
        self.is_transient = is_transient


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address only wraps: mapped, compatible, translated, 6to4, Teredo, NAT64."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in (_NAT64, _NAT64_LOCAL, _IPV4_COMPATIBLE, _IPV4_TRANSLATED)):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def is_public(address: IPAddress) -> bool:
    """Whether `address` is on the public internet, also when one family wraps the other."""
    if any(address.version == network.version and address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, IPv6Address) and (inner := embedded_ipv4(address)) is not None:
        return is_public(inner)
    return address.is_global


def is_address_allowed(address: IPAddress, port: int, policy: NetworkPolicy) -> bool:
    """Whether `policy` lets us connect to `address` at `port`."""
    candidates: list[IPAddress] = [address]
    if isinstance(address, IPv6Address) and (inner := embedded_ipv4(address)) is not None:
        candidates.append(inner)
    networks = [ip_network(text) for text in policy.allowed_networks]
    if any(one.version == network.version and one in network for one in candidates for network in networks):
        return True
    return port in policy.ports and is_public(address)


async def resolve(host: str, port: int, policy: NetworkPolicy) -> list[str]:
    """The addresses of `host` that `policy` allows, in the resolver's order.

    Raises:
        AddressRefused: It has addresses, none of them allowed.
        NameNotFound: It has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        is_transient = error.errno == socket.EAI_AGAIN
        raise NameNotFound(f"{host} has no address: {error.strerror}", is_transient=is_transient) from error
    except (UnicodeError, ValueError) as error:
        raise NameNotFound(f"{host[:80]!r} is not a host name", is_transient=False) from error
    # A zone (`fe80::1%eth0`) only exists on link-local addresses, which are refused anyway.
    addresses = list(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found))
    allowed = [text for text in addresses if is_address_allowed(ip_address(text), port, policy)]
    if not allowed:
        raise AddressRefused(f"{host} port {port} is {', '.join(addresses)}: not a public web address")
    return allowed


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to allowed addresses only."""

    def __init__(self, policy: NetworkPolicy) -> None:
        self._policy = policy
        self._inner = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        problem: Exception | None = None
        for address in await resolve(host, port, self._policy):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem or httpcore.ConnectError(f"{host} has no address")


@lru_cache(maxsize=8)
def _ssl_context(ca_file: str | None, *, is_certificate_checked: bool) -> ssl.SSLContext:
    """Kept: to read the usual certificates takes longer than to fetch a page. httpcore sets ALPN on it, always alike."""
    context = ssl.create_default_context(cafile=ca_file)
    if not is_certificate_checked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx over `GuardedBackend`. Errors are httpcore's, or those of this module."""

    def __init__(self, policy: NetworkPolicy, *, is_certificate_checked: bool = True) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_ssl_context(policy.ca_file, is_certificate_checked=is_certificate_checked),
            max_connections=4,
            network_backend=GuardedBackend(policy),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
