"""HTTP/2 requests whose two bodies flow at the same time, on connections that are kept.

The protocol's rules are h2's (a library without I/O); here are the sockets, the flow of bytes and the ends. No HTTP client
library for asyncio lets a caller go on writing a request body while it reads the answer, which is how notifications reach a
running handler. Limits and times are those a Restate server uses towards its services.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

CONNECT_TIMEOUT_S = 10.0
GOODBYE_S = 1.0
KEEP_ALIVE_S, KEEP_ALIVE_TIMEOUT_S = 40.0, 20.0
IDLE_S = 300.0
STREAMS_MAX = 128
"""Requests on one connection at a time; the other side may allow fewer."""
STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES = 2 << 20, 5 << 20
_DEFAULT_WINDOW_BYTES = 65_535
_REFUSED_STREAM, _CANCEL = 7, 8
_GOAWAY = 7
_HEADER_BYTES = 9
_FRAME_BYTES_MAX = _HEADER_BYTES + (1 << 14)
"""We allow no larger frames; one that claims to be larger is left to h2 to refuse."""


class Unreachable(Exception):
    """No connection could be made."""


class NotHttp2(Exception):
    """The other side speaks TLS, but not HTTP/2."""


class Sink(Protocol):
    """Who takes a response."""

    def response(self, status: int, headers: dict[str, str]) -> None: ...
    def received(self, body: bytes) -> None: ...
    def ended(self, failure: str | None, *, is_untouched: bool = False) -> None:
        """The response is complete, or was cut off for the reason given. Called once, and nothing after it.

        Args:
            is_untouched: The other side promises that it did nothing with the request.
        """
        ...


class Stream:
    """One request on a connection."""

    __slots__ = ("_connection", "_ended", "_ending", "_pending", "id", "sink")

    def __init__(self, connection: Connection, stream_id: int, sink: Sink) -> None:
        self._connection = connection
        self._pending = bytearray()
        self._ending = False
        self._ended = False
        self.id = stream_id
        self.sink = sink

    def send(self, body: bytes) -> None:
        """Send more of the request body, as fast as the other side takes it."""
        if not self._ending:
            self._pending += body
            self._flush()

    def end(self) -> None:
        """The request body is complete."""
        if not self._ending:
            self._ending = True
            self._flush()

    def reset(self) -> None:
        """Give up the request. The sink hears nothing more."""
        self._connection.reset(self)

    def _flush(self) -> None:
        if self.write():
            self._connection.flush()

    def write(self) -> bool:
        """Hand on what the windows allow; whether there was anything."""
        if self._ended:
            return False
        h2c, wrote = self._connection.h2, False
        try:
            while self._pending:
                size = min(h2c.local_flow_control_window(self.id), h2c.max_outbound_frame_size, len(self._pending))
                if size <= 0:
                    return wrote
                h2c.send_data(self.id, bytes(self._pending[:size]))
                del self._pending[:size]
                wrote = True
            if self._ending:
                self._ended = True
                h2c.end_stream(self.id)
                wrote = True
        except h2.exceptions.ProtocolError:  # the stream was closed by the other side: it says so itself
            self._ended = True
        return wrote


class Connection(asyncio.Protocol):
    """One connection and the requests on it."""

    def __init__(self, on_room: Callable[[], None]) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        initial = {
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
        }
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self.streams: dict[int, Stream] = {}
        self.is_open = False
        self.reserved = 0
        """Requests that somebody is about to open."""
        self.is_settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the other side has said what it allows, or is gone."""
        self._streams_max = 0
        self._incoming = b""
        self._on_room = on_room
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set when the connection is made
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_pinged = False
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the socket is closed."""

    @property
    def has_room(self) -> bool:
        return self.is_open and len(self.streams) + self.reserved < self._streams_max

    def request(self, headers: list[tuple[str, str]], sink: Sink) -> Stream:
        """Open a request where a place is reserved. The caller sends or ends its body at once.

        The two leave together: an endpoint that refuses by the headers alone may have closed the stream already when its
        body arrives, and not all of them take that well.
        """
        self.reserved -= 1
        stream_id = self.h2.get_next_available_stream_id()
        stream = self.streams[stream_id] = Stream(self, stream_id, sink)
        self.h2.send_headers(stream_id, headers)
        self._look_again(KEEP_ALIVE_S)
        return stream

    def flush(self) -> None:
        """Send what h2 has made of it."""
        outgoing = self.h2.data_to_send()
        if outgoing and not self._transport.is_closing():
            self._transport.write(outgoing)

    def reset(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is None:
            return
        try:
            self.h2.reset_stream(stream.id, _CANCEL)
            self.flush()
        except h2.exceptions.ProtocolError:
            pass  # it was over on the wire already
        self._freed()

    def retire(self) -> None:
        """Close when the last request on it is over."""
        if self.streams:
            self.is_open = False
        else:
            self.close()

    def close(self) -> None:
        """Say goodbye and close; requests on it end with a failure."""
        if self.is_open:
            self.is_open = False
            try:
                self.h2.close_connection()
                self.flush()
            except h2.exceptions.ProtocolError:
                pass
        self._transport.close()

    # ---- asyncio's side ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - _DEFAULT_WINDOW_BYTES)
        self.flush()
        self._look_again(IDLE_S)

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(self._without_goodbye(data))
        except h2.exceptions.ProtocolError as error:
            self.flush()
            self._lose(f"the endpoint broke the HTTP/2 protocol: {error}")
            self._transport.abort()
            return
        for event in events:
            self._handle(event)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(f"connection lost: {exc}" if exc else "connection closed by the endpoint")
        if not self.lost.done():
            self.lost.set_result(None)

    async def wait_closed(self) -> None:
        """Wait until the socket is closed, also if the endpoint does not play along."""
        done, _ = await asyncio.wait([self.lost], timeout=GOODBYE_S)
        if not done:
            self._transport.abort()
            await self.lost

    def _handle(self, event: Any) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.sink.received(event.data)
        elif isinstance(event, h2.events.ResponseReceived):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                headers = dict(cast(list[tuple[str, str]], event.headers))
                stream.sink.response(int(headers.pop(":status", "0")), headers)
        elif isinstance(event, h2.events.StreamEnded):
            self._end(event.stream_id, None)
        elif isinstance(event, h2.events.StreamReset):
            error_code = int(event.error_code or 0)
            reason = f"stream reset by the endpoint (HTTP/2 error {error_code})"
            self._end(event.stream_id, reason, is_untouched=error_code == _REFUSED_STREAM)
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for stream in list(self.streams.values()):
                stream.write()
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self._streams_max = min(STREAMS_MAX, self.h2.remote_settings.max_concurrent_streams)
                self._settle()
                self._on_room()
        elif isinstance(event, h2.events.PingAckReceived):
            self._is_pinged = False
            self._look_again(KEEP_ALIVE_S)

    def _without_goodbye(self, data: bytes) -> bytes:
        """Whole frames of what arrived, without GOAWAY: h2 takes that for the end, but what was begun is finished."""
        incoming, self._incoming = self._incoming + data, b""
        kept, position = bytearray(), 0
        while len(incoming) - position >= _HEADER_BYTES:
            size = _HEADER_BYTES + int.from_bytes(incoming[position : position + 3])
            frame = incoming[position : position + size]
            if len(frame) < size <= _FRAME_BYTES_MAX:
                break
            position += size
            if frame[3] == _GOAWAY and len(frame) >= _HEADER_BYTES + 8:
                self._leave(int.from_bytes(frame[9:13]) & 0x7FFF_FFFF)
            else:
                kept += frame
        self._incoming = incoming[position:]
        return bytes(kept)

    def _leave(self, last_stream_id: int) -> None:
        """The endpoint takes nothing new on this connection."""
        self.is_open = False
        for stream_id in [number for number in self.streams if number > last_stream_id]:
            self._end(stream_id, "the endpoint is going away", is_untouched=True)
        if self.streams and not self._is_pinged:  # some servers go on to say nothing at all: see whether it lives
            self._ping()
        elif not self.streams:
            self._transport.close()

    def _end(self, stream_id: int, failure: str | None, *, is_untouched: bool = False) -> None:
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            stream.sink.ended(failure, is_untouched=is_untouched)
            self._freed()

    def _freed(self) -> None:
        if not self.streams:
            if self.is_open:
                self._look_again(IDLE_S)
            else:
                self._transport.close()
        self._on_room()

    def _settle(self) -> None:
        if not self.is_settled.done():
            self.is_settled.set_result(None)

    def _lose(self, reason: str) -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.sink.ended(reason)
        self._settle()
        self._on_room()

    # ---- looking after a silent connection -----------------------------------------------------------------------------

    def _look_again(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        if self._is_pinged:
            self._lose("the endpoint does not answer")
            self._transport.abort()
        elif not self.streams:
            self.close()
        else:
            self._ping()

    def _ping(self) -> None:
        self._is_pinged = True
        self.h2.ping(b"holdfast")
        self.flush()
        self._look_again(KEEP_ALIVE_TIMEOUT_S)


class Pool:
    """Connections to one endpoint."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, connect_timeout_s: float) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._connect_timeout_s = connect_timeout_s
        self._connections: list[Connection] = []
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: deque[asyncio.Future[Connection]] = deque()

    async def connection(self) -> Connection:
        """A connection with a place reserved for one request, which the caller must open before it waits again.

        Raises:
            Unreachable, NotHttp2: there is none, and none can be made.
        """
        waiter: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._hand_out()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().reserved -= 1
            raise

    def _hand_out(self) -> None:
        """Give places to those who wait, first come, first served; make one more connection when there are too few."""
        waiting = self._waiting
        for connection in self._connections:
            while waiting and connection.has_room:
                waiter = waiting.popleft()
                if not waiter.done():
                    connection.reserved += 1
                    waiter.set_result(connection)
        while waiting and waiting[0].done():
            waiting.popleft()
        if waiting and self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        failure: Exception | None = None
        try:
            connection = await self._connected()
        except (Unreachable, NotHttp2) as error:
            failure = error
        else:
            self._connections = [*(c for c in self._connections if not c.lost.done()), connection]
        finally:
            self._connecting = None
        if failure is not None:
            waiting, self._waiting = self._waiting, deque()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(failure)
        self._hand_out()

    async def _connected(self) -> Connection:
        """A new connection that knows what the other side allows."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._hand_out), self._host, self._port, ssl=self._tls
                )
                session = transport.get_extra_info("ssl_object")
                if session is not None and session.selected_alpn_protocol() != "h2":
                    transport.abort()
                    raise NotHttp2
                await connection.is_settled
        except TimeoutError as error:
            raise Unreachable(f"no HTTP/2 connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:  # of the network, or of TLS
            raise Unreachable(str(error) or type(error).__name__) from error
        if connection.lost.done() or not connection.is_open:
            raise Unreachable("the endpoint closed the connection at once; it may speak HTTP/1.1 only (use_http_11)")
        return connection

    def retire(self) -> None:
        """Close connections as soon as they are idle."""
        for connection in self._connections:
            connection.retire()

    async def close(self) -> None:
        """Close every connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.wait_closed()
