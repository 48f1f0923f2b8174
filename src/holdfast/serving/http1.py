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
        """Since the present request began, but for the chunk in which it did; likewise since its body began."""
        self._chunk_bytes = 0
        self._has_begun = False
        self._stall = WriteStall()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._chunk_bytes = len(data)
        self._has_begun = False
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
        if not self._has_begun:
            self._received_bytes += self._chunk_bytes
            if self._in_head and self._received_bytes > self._limits.head_bytes_max:
                self._refuse(431, self._limits.too_large_head)

    def on_message_begin(self) -> None:
        self._in_head = self._has_begun = True
        self._seconds = self._received_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
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
        # Java's client asks for h2c with its first request. As on a Restate server it gets its answer in HTTP/1.1;
        # the parser has stopped for a protocol that does not come, so a fresh one takes what follows.
        self.parser = httptools.HttpRequestParser(self)
        rest = data[upgrade.args[0] :]
        if rest:
            self.data_received(rest)

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        cycle = cast(RequestResponseCycle | None, self.cycle)  # none before the first request, whatever its type says
        is_waiting = self._in_body and cycle is not None and not cycle.response_started and not self.pipeline
        # In the middle of another answer this one would be taken for a part of it.
        if cycle is None or cycle.response_complete or is_waiting:
            self.transport.write(plain_answer(status, message))
        self.transport.close()
