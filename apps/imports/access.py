"""Who may use the API and the page: host names, origins, a token; and that a form is one that we made.

The defaults suit a program on your own machine. Behind a name, set the host; where others can reach the port, set a token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from apps.serving.origins import host_name, is_same_origin

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
WITHOUT_TOKEN = frozenset({"/health"})
"""What a platform asks, which has no token."""

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        (
            b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; "
            b"base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
)


class Guard:
    """ASGI middleware in front of all routes.

    Args:
        app: What is guarded.
        token: If set, asked of every request but `/health`: as a bearer token, or as the password of basic
            authentication (any user name), which browsers can do.
        hosts: Names that requests may be addressed to, without port; none means any. It keeps web pages of strangers
            from reaching a port of this machine by a name of theirs that they let point here.
    """

    def __init__(self, app: ASGIApp, *, token: str | None = None, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._token = token
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))

        async def with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]  # type: ignore[misc]
            await send(message)

        await (refusal or self._app)(scope, receive, with_headers)  # type: ignore[arg-type]

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._hosts and host_name(host) not in self._hosts:
            return PlainTextResponse(f"{host!r} is not a name of this server; allow it with --allow-host\n", 421)
        if self._token is not None and path not in WITHOUT_TOKEN and not _carries(headers, self._token):
            challenge = {"www-authenticate": 'Basic realm="imports", charset="UTF-8"'}
            return PlainTextResponse("the token is missing or wrong\n", 401, challenge)
        if method not in SAFE_METHODS and not is_same_origin(headers, host):
            return PlainTextResponse("pages of other origins may not do this\n", 403)
        return None


class FormKey:
    """Makes and checks the hidden field of a form, so that only forms of this process are accepted."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, action: str) -> str:
        """The field's value for what the form does, e.g. `cancel import-147`."""
        return hmac.new(self._secret, action.encode(), hashlib.sha256).hexdigest()

    def fits(self, action: str, value: str) -> bool:
        """Whether `value` came from a form of ours for this action."""
        return hmac.compare_digest(self.of(action).encode(), value.encode())


def _carries(headers: Headers, token: str) -> bool:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            given = value.strip()
        case "basic":
            try:
                given = base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
        case _:
            return False
    return hmac.compare_digest(given.encode(), token.encode())
