"""Who asks, and may they: keys of users, the master key, host names, origins, and what every answer carries.

    no key is configured   open: for a program on your own machine; a request says whose wallet it means (`local` if not)
    a user's key           that user's jobs and wallet, nothing else; limits of the wallet's tier hold
    the master key         everything, for any user, and not charged unless it asks for that

Keys come as a bearer token, or as the password of basic authentication (any name), which browsers can do.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.leads.errors import LeadsError, checked_user_id
from apps.serving.origins import host_name, is_same_origin

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_USER = "local"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SIGNED = frozenset({"/discord/interactions"})
"""Has a signature of its own instead of a key."""
WITHOUT_KEY = frozenset({"/health", "/openapi.json"}) | SIGNED


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    user_id: str | None
    """None: may act for any user."""
    is_master: bool = False

    def user(self, wanted: str | None) -> str:
        """Whose wallet and jobs this request is about.

        Raises:
            LeadsError: 403 somebody else's, 422 nobody's, or none that a user can have.
        """
        if self.user_id is None:
            if wanted is None and self.is_master:
                raise LeadsError(422, "user_id: is required with the master key")
            return OPEN_USER if wanted is None else checked_user_id(wanted)
        if wanted not in (None, self.user_id):
            raise LeadsError(403, f"this key is not one of user {wanted}")
        return self.user_id

    def may_see(self, user_id: str) -> bool:
        return self.user_id is None or self.user_id == user_id


class Keys:
    """The keys there are; only their digests are kept.

    Args:
        of_users: Key -> user id.
        master: May do everything.
    """

    def __init__(self, of_users: Mapping[str, str] | None = None, master: str = "") -> None:
        self._users = {_digest(key): user_id for key, user_id in (of_users or {}).items()}
        self._master = _digest(master) if master else None

    @property
    def is_open(self) -> bool:
        """Nobody needs a key."""
        return not self._users and self._master is None

    def caller(self, headers: Headers) -> Caller:
        """Who sends these headers.

        Raises:
            LeadsError: 401.
        """
        if self.is_open:
            return Caller(user_id=None)
        digest = _digest(_key_in(headers))
        if digest == self._master:
            return Caller(user_id=None, is_master=True)
        if digest in self._users:
            return Caller(user_id=self._users[digest])
        raise LeadsError(401, "the key is missing or wrong; next: send it as `Authorization: Bearer KEY`")


def _digest(key: str) -> bytes:
    # Looking up a digest tells nothing about the key by the time it takes.
    return hashlib.sha256(key.encode()).digest()


def _key_in(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


class Guard:
    """ASGI middleware in front of all routes: host names, origins, and headers of every answer.

    Args:
        hosts: Names that requests may be addressed to, without port; none means any. It keeps web pages of strangers
            from reaching a port of this machine by a name of theirs that they let point here.
        csp: Content-Security-Policy of every answer.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] = (), csp: str) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._headers = [
            (b"content-security-policy", csp.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        scope["leads_refusal"] = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        await self._app(scope, receive, with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> LeadsError | None:
        """Left for the routes to raise, so that it is answered like every other error."""
        host = headers.get("host", "")
        if self._hosts and host_name(host) not in self._hosts and path != "/health":  # platforms ask by address
            return LeadsError(421, f"{host!r} is not a name of this server; allow it with --allow-host")
        if method not in SAFE_METHODS and path not in SIGNED and not is_same_origin(headers, host):
            return LeadsError(403, "pages of other origins may not do this")
        return None
