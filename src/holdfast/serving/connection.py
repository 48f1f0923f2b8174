"""A new connection, before it is known which HTTP it speaks: over TLS the handshake tells, else the first bytes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

from holdfast.serving.http1 import Http1Protocol
from holdfast.serving.limits import Limits, plain_answer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""With these a client that knows that we speak HTTP/2 begins (RFC 9113, section 3.4)."""

ALPN_PROTOCOLS = ["h2", "http/1.1"]


class NewConnection(asyncio.Protocol):
    """Hands the connection over to the protocol that it speaks, with the first bytes."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
    ) -> None:
        self._server = config, server_state, app_state, _loop
        self._connections = cast(set[Any], server_state.connections)
        self._limits = limits
        self._transport: asyncio.Transport
        self._first_bytes = b""
        self._seconds = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._connections) >= self._limits.connections_max:
            self._transport.write(plain_answer(503, "too many connections"))
            self._transport.close()
            return
        self._connections.add(self)
        if is_ssl(self._transport):
            alpn = self._transport.get_extra_info("ssl_object").selected_alpn_protocol()
            if alpn is not None:
                self._become(is_http2=alpn == "h2")

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._first_bytes += data
        if len(self._first_bytes) >= len(PREFACE) or not PREFACE.startswith(self._first_bytes):
            self._become(is_http2=self._first_bytes.startswith(PREFACE))

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def shutdown(self) -> None:
        """The server stops."""
        self._transport.close()

    def sweep(self) -> None:
        """Called once a second."""
        self._seconds += 1
        if self._seconds > self._limits.head_s:
            self._transport.write(plain_answer(408, self._limits.late_head))
            self._transport.close()

    def _become(self, *, is_http2: bool) -> None:
        if is_http2:
            from holdfast.serving.http2 import Http2Protocol  # here, because few clients speak it

            protocol = Http2Protocol(*self._server, limits=self._limits)
        else:
            protocol = Http1Protocol(*self._server, limits=self._limits)
        self._connections.discard(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._first_bytes:
            protocol.data_received(self._first_bytes)


def protocol_class(limits: Limits) -> type[asyncio.Protocol]:
    """What to give uvicorn as `http`."""
    return cast(type[asyncio.Protocol], partial(NewConnection, limits=limits))
