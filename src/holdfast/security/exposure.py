"""Which addresses other machines can reach, and whether it is safe to listen on them."""

from __future__ import annotations

import ipaddress
import socket

from holdfast.errors import UnsafeAddress
from holdfast.security.tokens import TokenGate


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`, an address or a name. A name that cannot be resolved is not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)


def check_exposure(host: str, gate: TokenGate, *, make_one: str, insecure: bool, has_tls: bool) -> str | None:
    """Refuse to let other machines in without tokens; let nobody in without one where others can.

    Args:
        host: Where the API of `gate` is about to listen.
        make_one: How to come to a token, for the hint.
        insecure: It was said that this is meant.
    Returns:
        What to warn of, once it listens.
    Raises:
        UnsafeAddress: other machines could reach the API, and it has no token that could be asked for.
    """
    if is_loopback(host):
        return None
    if not gate.usable() and not gate.is_closed and insecure:
        return f"everybody who can reach {host} may use the {gate.scope}"
    if not gate.usable():
        raise UnsafeAddress(
            f"other machines could reach the {gate.scope} on {host}, and there is no token to ask them for",
            hint=f"make one: {make_one}; or listen on 127.0.0.1; or, where a proxy or a network of your own lets in only "
            "whom you trust: --insecure",
        )
    gate.close()
    return None if has_tls else f"tokens of the {gate.scope} travel unencrypted unless a proxy adds TLS: --tls-cert"
