"""Whether a request may be answered at all: which host it names, which page it comes from, which token it brings. Pure
but for the tokens file.

Two kinds of attack come from the browser of somebody who can reach the engine. A page of another origin can send
requests to it (the page cannot read the answers, but a call is a call). And with DNS rebinding a page's own host name
begins to mean 127.0.0.1, which makes the engine the page's own origin. The first is stopped by `Origin` and
`Sec-Fetch-Site`, which pages cannot forge; the second by `Host`: addresses cannot be rebound, only names can, so
addresses and the names of this machine pass and every other name must be allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.security.tokens import TokenGate

ANY_ORIGIN = "*"

_GOOD_HOSTS_MAX = 64
"""Host headers remembered; a client has a handful, and the parsing takes ten times longer than the look-up."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Origins:
    """The pages that may send requests to an API from a browser.

    Args:
        allowed: Origins (`https://ui.example.com`); `*` stands for every page.
        allow_links: A link on any page may be followed to here. Only where a GET changes nothing.
    """

    def __init__(self, allowed: Iterable[str] = (), *, allow_links: bool = False) -> None:
        self._allowed = frozenset(origin.rstrip("/").encode() for origin in allowed)
        self._allow_links = allow_links
        self.is_any = ANY_ORIGIN.encode() in self._allowed

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin were allowed by name, or all are."""
        return self.is_any or origin in self._allowed

    def refusal(self, fields: Mapping[bytes, bytes]) -> Refusal | None:
        """Why this request of a page is refused. Requests of programs, and of pages that we serve, are not."""
        origin = fields.get(b"origin")
        if origin is not None:
            if self.is_any or origin in self._allowed or _is_same(origin, fields.get(b"host")):
                return None
            page = origin.decode("latin-1")
            return Refusal(403, f"pages of {page} may not send requests here; allow them: --allow-origin {page}")
        # Images and links of a page have no Origin; what browsers send for them instead tells no name to allow.
        if not self.is_any and fields.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            if self._allow_links and fields.get(b"sec-fetch-dest") == b"document":
                return None
            return Refusal(403, "pages of other origins may not send requests here")
        return None


class Guard:
    """Every check of one API, in the order host, page, token.

    Args:
        what: `ingress` or `admin`, for messages.
        origins: Pages that may send requests.
        tokens: Who may; None: everybody who can reach it.
        hosts: Names besides those of this machine under which the API is known; None: any name.
    """

    def __init__(
        self, what: str, *, origins: Origins, tokens: TokenGate | None = None, hosts: Iterable[str] | None = None
    ) -> None:
        self._what = what
        self._origins = origins
        self._tokens = tokens
        self._hosts = None if hosts is None else frozenset(host.lower().rstrip(".") for host in hosts)
        self._good_hosts: set[bytes | None] = set()

    def refusal(self, fields: Mapping[bytes, bytes]) -> Refusal | None:
        """Why a request is refused, None if it is not. 401: the token is all that it lacks.

        Args:
            fields: Its headers by lower-case name.
        """
        tokens = self._tokens
        is_closed = tokens is not None and tokens.is_closed
        # A page cannot know a token, so names need no check where tokens are asked for.
        if self._hosts is not None and not is_closed:
            host = fields.get(b"host")
            if host not in self._good_hosts and host is not None and (refusal := self._host_refusal(host)) is not None:
                return refusal
        if (b"origin" in fields or b"sec-fetch-site" in fields) and (refusal := self._origins.refusal(fields)):
            return refusal
        if tokens is None or not is_closed or tokens.admits(fields.get(b"authorization")):
            return None
        return self._token_refusal(has_token=b"authorization" in fields)

    @property
    def takes_tokens(self) -> bool:
        """The `authorization` header is ours: it is none of the handler's business."""
        return self._tokens is not None and self._tokens.is_closed

    def _host_refusal(self, host: bytes) -> Refusal | None:
        assert self._hosts is not None
        name = host_name(host)
        if is_local_name(name) or name in self._hosts:
            if len(self._good_hosts) < _GOOD_HOSTS_MAX:
                self._good_hosts.add(host)
            return None
        return Refusal(403, f"this {self._what} is not known as '{name}'; if it should be: --allow-host {name}")

    def _token_refusal(self, *, has_token: bool) -> Refusal:
        challenge = f'Bearer realm="holdfast {self._what}"'
        if has_token:
            message = f"the token is not one of the {self._what}: unknown, expired, revoked, or made for the other API"
            challenge += ', error="invalid_token"'
        else:
            message = f"the {self._what} asks for a token: send 'authorization: Bearer TOKEN'"
        return Refusal(401, message, ((b"www-authenticate", challenge.encode()),))


def host_name(host: bytes) -> str:
    """`Name.example:8080` -> `name.example`; `[::1]:80` -> `::1`."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def is_local_name(name: str) -> bool:
    """An address, or a name that every machine resolves to itself (RFC 6761)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same(origin: bytes, host: bytes | None) -> bool:
    """Whether a page of `origin` was served by `host`. The scheme is left out: a proxy may have taken off the TLS."""
    return host is not None and origin.partition(b"://")[2].lower() == host.lower()
