"""HTTP/2, with TLS or without: uvicorn's server, python-hyper's h2 for the protocol, one ASGI call per stream.

A client that resets a stream, or goes away, is an `http.disconnect` for the application, as with HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from holdfast.serving.limits import WRITE_STALL_S, Limits, WriteStall

log = logging.getLogger("holdfast.server")

STREAMS_MAX = 200
"""Requests at the same time on one connection; a Restate server allows as many."""

STREAM_WINDOW_BYTES = 256 << 10
CONNECTION_WINDOW_BYTES = 1 << 20
"""What a client may send before the application has taken what came earlier: bounds what a connection holds."""

_OUTPUT_BYTES_MAX = 256 << 10
"""Of one stream, waiting for the client to make room; the application waits when there is more."""

_RESETS_PER_S_MAX = 200
"""Streams that a client may open and reset in a second. Each frees its place before its work is done, so without a limit
`STREAMS_MAX` would bound nothing (CVE-2023-44487)."""

# RFC 9113, section 8.2.2: belong to a connection of HTTP/1.1.
_NOT_OF_HTTP2 = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})

Headers = Iterable[tuple[bytes, bytes]]


class _Stream:
    """One request and its answer: the `receive` and `send` of an ASGI call."""

    def __init__(self, protocol: Http2Protocol, stream_id: int, scope: dict[str, Any]) -> None:
        self.id = stream_id
        self.scope = scope
        self.body = bytearray()
        self.has_all = False
        """The request has arrived to its end ..."""
        self.has_told_all = False
        """... and the application knows."""
        self.is_gone = False
        """The client has reset the stream or left."""
        self.news = asyncio.Event()
        self.answer: tuple[int, Headers] | None = None
        self.is_answered = False
        self.output = bytearray()
        self.is_output_complete = False
        self.room = asyncio.Event()
        self.seconds = 0
        self.received_bytes = 0
        self.stalled_seconds = 0
        self._protocol = protocol

    async def receive(self) -> dict[str, Any]:
        while not (self.is_gone or self.is_output_complete or self.body or (self.has_all and not self.has_told_all)):
            self.news.clear()
            await self.news.wait()
        if self.is_gone or self.is_output_complete:
            return {"type": "http.disconnect"}
        body = bytes(self.body)
        self.body.clear()
        self.has_told_all = self.has_all
        self._protocol.taken(self, len(body))
        return {"type": "http.request", "body": body, "more_body": not self.has_all}

    async def send(self, message: dict[str, Any]) -> None:
        if self.is_gone:
            return
        if message["type"] == "http.response.start":
            self.answer = message["status"], message.get("headers", ())
            self._protocol.answer_soon(self)
            return
        if self.answer is None or self.is_output_complete:
            raise RuntimeError(f"unexpected {message['type']}")
        self.output += message.get("body", b"")
        self.is_output_complete = not message.get("more_body", False)
        self._protocol.answer(self)
        while len(self.output) > _OUTPUT_BYTES_MAX and not self.is_gone and not self.is_output_complete:
            self.room.clear()
            await self.room.wait()

    def leave(self) -> None:
        """Nobody is there any more."""
        self.is_gone = True
        self.news.set()
        self.room.set()


class Http2Protocol(asyncio.Protocol):
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
        self._app = cast(Any, config).loaded_app
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._limits = limits
        self._connections = cast(set[Any], server_state.connections)
        self._streams: dict[int, _Stream] = {}
        self._draining: dict[int, int] = {}
        """Streams answered before their request was complete -> for how many seconds. The rest is read and thrown away,
        as with HTTP/1.1: some clients send it all before they look at the answer."""
        self._is_writable = True
        self._is_stopping = False
        self._idle_seconds = 0
        self._resets = 0
        self._unfinished_bytes = 0
        self._stall = WriteStall()
        self._transport: asyncio.Transport
        self._http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None, logger=None)
        )

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._server, self._client = get_local_addr(self._transport), get_remote_addr(self._transport)
        self._scheme = "https" if is_ssl(self._transport) else "http"
        codes = h2.settings.SettingCodes
        # Set afterwards they would count only once the client has confirmed them.
        self._http.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                codes.MAX_HEADER_LIST_SIZE: self._limits.head_bytes_max,
            },
        )
        self._http.decoder.max_header_list_size = self._limits.head_bytes_max
        self._http.initiate_connection()
        self._http.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65_535)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        try:
            events = self._http.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            log.debug("not valid HTTP/2", extra={"error": str(error)})
            self._flush()  # the connection has put down why
            self._transport.close()
            return
        self._unfinished_bytes = 0 if events else self._unfinished_bytes + len(data)
        if self._unfinished_bytes > CONNECTION_WINDOW_BYTES:
            # h2 looks at the length of a frame only when it has it all, and that may be 16 MiB.
            self._http.close_connection(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
            self._flush()
            self._transport.close()
            return
        for event in events:
            self._handle(event)
        self._flush()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event)
            case h2.events.DataReceived():
                self._take(event)
            case h2.events.StreamEnded():
                self._draining.pop(event.stream_id, None)
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.has_all = True
                    stream.news.set()
            case h2.events.StreamReset():
                self._resets += 1
                self._draining.pop(event.stream_id, None)
                self._forget(event.stream_id)
                self._close_if_done()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for stream in list(self._streams.values()):
                    self._pump(stream)
            case h2.events.ConnectionTerminated():
                self._transport.close()
            case _:
                pass

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        for stream in self._streams.values():
            stream.leave()
        self._streams.clear()

    def pause_writing(self) -> None:
        # Answers to pings and settings also fill the buffer, so nothing more is read meanwhile.
        self._is_writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_writable = True
        self._transport.resume_reading()
        for stream in list(self._streams.values()):
            self._pump(stream)
        self._flush()

    def shutdown(self) -> None:
        """Take no more requests, answer those that are here, close."""
        self._is_stopping = True
        self._close_if_done()

    def sweep(self) -> None:
        """Called once a second: end what takes too long."""
        self._idle_seconds = 0 if self._streams else self._idle_seconds + 1
        if self._idle_seconds > self._config.timeout_keep_alive:
            self.shutdown()
        if self._resets > _RESETS_PER_S_MAX:
            self._http.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self._flush()
            self._transport.close()
        self._resets = 0
        for stream in list(self._streams.values()):
            self._sweep(stream)
        for stream_id, seconds in list(self._draining.items()):
            self._draining[stream_id] = seconds + 1
            if seconds >= self._limits.body_s:
                del self._draining[stream_id]
                self._reset(stream_id, h2.errors.ErrorCodes.NO_ERROR)
        if self._stall.is_too_long(self._transport):
            self._transport.abort()

    def _sweep(self, stream: _Stream) -> None:
        if not stream.has_all and not stream.body and stream.answer is None:
            stream.seconds += 1
            if self._limits.body_is_late(stream.seconds, stream.received_bytes):
                self._refuse(stream.id, 408, self._limits.late_body)
                return
        stalled = bool(stream.output) and self._is_writable
        stream.stalled_seconds = stream.stalled_seconds + 1 if stalled else 0
        if stream.stalled_seconds > WRITE_STALL_S:
            self._reset(stream.id, h2.errors.ErrorCodes.CANCEL)

    def _close_if_done(self) -> None:
        if self._is_stopping and not self._streams:
            # After the answers: clients that are made with h2, as httpx is, take none after a GOAWAY. What comes before it
            # is refused stream by stream, which says as well that it may be sent again.
            self._http.close_connection()
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        data = self._http.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _forget(self, stream_id: int) -> None:
        """A stream is over, one way or the other."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.leave()
            if stream.body:
                # Nobody will read it, but what it took of the connection's window must be given back.
                self._http.acknowledge_received_data(len(stream.body), stream_id)

    # --- requests

    def _begin(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id
        pseudo, headers = _split(cast(Headers, event.headers))
        raw_path, _, query = pseudo.get(b":path", b"").partition(b"?")
        if self._is_stopping:
            self._reset(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif len(headers) > self._limits.headers_max:
            self._refuse(stream_id, 431, self._limits.too_many_headers)
        elif not raw_path.isascii():
            self._refuse(stream_id, 400, "the path must be ASCII")
        else:
            stream = _Stream(
                self,
                stream_id,
                {
                    "type": "http",
                    "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
                    "http_version": "2",
                    "server": self._server,
                    "client": self._client,
                    "scheme": self._scheme,
                    "method": pseudo.get(b":method", b"").decode("latin-1"),
                    "root_path": "",
                    "path": unquote(raw_path.decode()),
                    "raw_path": raw_path,
                    "query_string": query,
                    "headers": headers,
                    "state": self._app_state.copy(),
                },
            )
            self._streams[stream_id] = stream
            task = self._loop.create_task(self._run(stream))
            task.add_done_callback(self._state.tasks.discard)
            self._state.tasks.add(task)

    def _take(self, event: h2.events.DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        size = event.flow_controlled_length or 0
        if stream is None:
            self._http.acknowledge_received_data(size, event.stream_id)
            return
        data = event.data or b""
        stream.body += data
        stream.received_bytes += len(data)
        if size > len(data):
            self._http.acknowledge_received_data(size - len(data), stream.id)  # padding
        stream.news.set()

    def taken(self, stream: _Stream, size: int) -> None:
        """The application has `size` bytes of the body: the client may send as many more."""
        if size:
            self._http.acknowledge_received_data(size, stream.id)
            self._flush()

    async def _run(self, stream: _Stream) -> None:
        try:
            await self._app(stream.scope, stream.receive, stream.send)
        except Exception:
            log.exception("the application failed")
        if stream.is_gone or stream.is_output_complete:
            return
        if stream.is_answered:
            self._reset(stream.id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        else:
            self._refuse(stream.id, 500, "Internal Server Error")

    # --- answers

    def answer(self, stream: _Stream) -> None:
        """Send what the application has said so far, as far as there is room for it."""
        self._pump(stream)
        self._flush()
        self._close_if_done()

    def answer_soon(self, stream: _Stream) -> None:
        """Send the head of the answer with the body if that comes at once, else alone."""
        self._loop.call_soon(self.answer, stream)

    def _pump(self, stream: _Stream) -> None:
        try:
            self._write(stream)
        except h2.exceptions.ProtocolError:
            self._forget(stream.id)  # the client was quicker to leave

    def _write(self, stream: _Stream) -> None:
        """Turn the answer into frames while client and socket have room."""
        if stream.answer is None or stream.is_gone:
            return
        if not stream.is_answered:
            status, headers = stream.answer
            lines = [(b":status", b"%d" % status)]
            lines += [(name.lower(), value) for name, value in headers if name.lower() not in _NOT_OF_HTTP2]
            stream.is_answered = True
            has_body = bool(stream.output) or not stream.is_output_complete
            self._http.send_headers(stream.id, lines, end_stream=not has_body)
            if not has_body:
                self._end(stream)
                return
        while self._is_writable and (stream.output or stream.is_output_complete):
            size = len(stream.output)
            if size:
                room = self._http.local_flow_control_window(stream.id)
                size = min(size, room, self._http.max_outbound_frame_size)
                if size <= 0:
                    return
            chunk = bytes(stream.output[:size])
            del stream.output[:size]
            stream.stalled_seconds = 0
            is_end = stream.is_output_complete and not stream.output
            self._http.send_data(stream.id, chunk, end_stream=is_end)
            if is_end:
                self._end(stream)
                return
        if len(stream.output) <= _OUTPUT_BYTES_MAX:
            stream.room.set()

    def _end(self, stream: _Stream) -> None:
        """The answer is complete."""
        self._state.total_requests += 1
        self._forget(stream.id)
        if not stream.has_all:
            self._draining[stream.id] = 0

    def _refuse(self, stream_id: int, status: int, message: str) -> None:
        body = message.encode("ascii", "replace")
        lines = [
            (b":status", b"%d" % status),
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
        stream = self._streams.get(stream_id)
        try:
            self._http.send_headers(stream_id, lines)
            self._http.send_data(stream_id, body, end_stream=True)
            if stream is None or not stream.has_all:
                self._draining[stream_id] = 0
        except h2.exceptions.ProtocolError:
            pass  # the client was quicker to leave, or has no room even for this
        self._forget(stream_id)
        self._flush()
        self._close_if_done()

    def _reset(self, stream_id: int, reason: h2.errors.ErrorCodes) -> None:
        self._forget(stream_id)
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._http.reset_stream(stream_id, reason)
        self._flush()
        self._close_if_done()


def _split(received: Headers) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Pseudo-headers by name, and the others as an application of HTTP/1.1 would see them."""
    pseudo: dict[bytes, bytes] = {}
    headers: list[tuple[bytes, bytes]] = []
    cookies: list[bytes] = []
    for name, value in received:
        if name.startswith(b":"):
            pseudo[name] = value
        elif name == b"cookie":
            cookies.append(value)  # browsers send one header for each (RFC 9113, section 8.2.3)
        else:
            headers.append((name, value))
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))
    if b":authority" in pseudo and not any(name == b"host" for name, _ in headers):
        headers.insert(0, (b"host", pseudo[b":authority"]))
    return pseudo, headers
