"""HTTP/1.1: uvicorn's protocol on the C parser, with the limits that it leaves to a proxy in front of it.

Nothing here runs once per header, and there is no timer per request: on top of what uvicorn does for it, a request costs
half a microsecond.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from holdfast.serving.limits import STATUS_MAX, Limits, WriteStall, plain_answer

# uvicorn has lines up to 599. A handler may fail with any code, and a Restate server sends it as it is.
STATUS_LINE.update({status: b"HTTP/1.1 %d \r\n" % status for status in range(600, STATUS_MAX + 1)})

# Called for every request; by way of `super()` they would cost twice as much.
_on_message_begin = HttpToolsProtocol.on_message_begin
_on_headers_complete = HttpToolsProtocol.on_headers_complete


class _HeadRefused(Exception):
    """Raised inside the parser to end the parsing."""


class Http1Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._head_bytes_max = limits.head_bytes_max
        self._in_head = True
        self._in_body = False
        self._begun = 0
        """Requests so far."""
        self._seconds = 0
        """In the head, or the body, of the present request."""
        self._received_bytes = 0
        """Of the present head, or body, in chunks that did not complete it."""
        self._has_large_chunk = False
        self._stall = WriteStall()

    def data_received(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if len(data) > self._head_bytes_max:
            self._has_large_chunk = True
        begun, was_in_body = self._begun, self._in_body
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data, upgrade)
        except httptools.HttpParserError as error:
            refusal = error.__context__
            if isinstance(refusal, _HeadRefused):
                self._refuse(431, str(refusal))
            else:
                self._refuse(400, "not a valid HTTP request")
        if self._in_head or self._in_body:
            # Of a chunk in which something else came to its end as well, the little there is of a head is not counted.
            if self._begun == begun or (self._begun == begun + 1 and not was_in_body):
                self._received_bytes += len(data)
            if self._in_head and self._received_bytes > self._head_bytes_max:
                self._refuse(431, self._limits.too_large_head)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._begun += 1
        self._seconds = self._received_bytes = 0
        _on_message_begin(self)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # see `_stay`
        if len(self.headers) > self._limits.headers_max:
            raise _HeadRefused(self._limits.too_many_headers)
        if self._has_large_chunk or self._received_bytes:
            # Only now it is worth counting: the chunks may have held much else.
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._head_bytes_max:
                raise _HeadRefused(self._limits.too_large_head)
            self._has_large_chunk = False
            self._received_bytes = 0
        self._in_head = False
        self._in_body = True
        self._seconds = 0
        _on_headers_complete(self)

    def on_message_complete(self) -> None:
        if self._in_head:
            return  # see `_stay`
        self._in_body = False
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def sweep(self) -> None:
        """Called once a second: end the connection if it takes too long over something."""
        cycle = self.cycle
        if self._in_head:
            self._seconds += 1
            if self._seconds > self._limits.head_s:
                self._refuse(408, self._limits.late_head)
        elif self._in_body and not self.flow.read_paused:
            self._seconds += 1
            if self._limits.body_is_late(self._seconds, self._received_bytes):
                self._refuse(408, self._limits.late_body)
                cycle.disconnected = True
                cycle.message_event.set()
        if self._stall.is_too_long(self.transport):
            self.transport.abort()

    def _stay(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> None:
        """Answer in HTTP/1.1 a client that asks for another protocol, as a Restate server does.

        Java's client asks for h2c with its first request, which may have a body. The parser takes everything behind the
        head for the other protocol; so a fresh one gets the head again, without the wish.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, "not a proxy")
            return
        lines = [b"%s %s HTTP/1.1" % (method, self.url)]
        for name, value in self.headers:
            tokens = [token.strip() for token in value.split(b",")] if name == b"connection" else [value]
            lines.append(name + b": " + b", ".join(token for token in tokens if token.lower() != b"upgrade"))
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + data[upgrade.args[0] :])

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        cycle = cast(RequestResponseCycle | None, self.cycle)  # none before the first request, whatever its type says
        if self._in_body and cycle is not None:
            is_expected = not cycle.response_started and not self.pipeline
        else:
            is_expected = cycle is None or cycle.response_complete
        if (
            is_expected
        ):  # in the middle of another answer, or behind its own, this one would be taken for what it is not
            self.transport.write(plain_answer(status, message))
        self.transport.close()
