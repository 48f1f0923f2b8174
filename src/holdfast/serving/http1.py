"""HTTP/1.1: uvicorn's protocol on the C parser, with the limits that it leaves to a proxy in front of it.

Nothing here runs once per header, and there is no timer per request: what a request costs is two assignments and two
calls more than plain uvicorn.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from holdfast.serving.limits import Limits, WriteStall, plain_answer


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
        self._in_head = True
        self._in_body = False
        self._seconds = 0
        """In the head, or the body, of the present request."""
        self._received_bytes = 0
        """Since the present head, or body, began."""
        self._chunk_bytes = 0
        self._begun = 0
        """Requests that began in the present chunk."""
        self._stall = WriteStall()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._chunk_bytes = len(data)
        self._begun = 0
        was_in_body = self._in_body
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
        # Of a chunk in which something else came to its end as well, the little there is of the head is not counted.
        if self._begun == 0 or (self._begun == 1 and not was_in_body):
            self._received_bytes += self._chunk_bytes
            if self._in_head and self._received_bytes > self._limits.head_bytes_max:
                self._refuse(431, self._limits.too_large_head)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._begun += 1
        self._seconds = self._received_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # see `_stay`
        limits = self._limits
        if len(self.headers) > limits.headers_max:
            raise _HeadRefused(limits.too_many_headers)
        if self._received_bytes + self._chunk_bytes > limits.head_bytes_max:
            # Only now it is worth counting: the chunks may have held much else.
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > limits.head_bytes_max:
                raise _HeadRefused(limits.too_large_head)
        self._in_head = False
        self._in_body = True
        self._seconds = self._received_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._in_head:
            self._in_body = False
            super().on_message_complete()

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
