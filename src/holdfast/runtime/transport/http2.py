"""HTTP/2 requests whose two bodies flow at the same time, on connections that are kept.

The protocol's rules are h2's (a library without I/O); here are the sockets, the flow of bytes and the ends. No HTTP client
library for asyncio lets a caller go on writing a request body while it reads the answer, which is how notifications reach a
running handler. Limits and times are those a Restate server uses towards its services.
"""

from __future__ import annotations

import asyncio
import ssl
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
_CANCEL = 8


class Unreachable(Exception):
    """No connection could be made."""


class NotHttp2(Exception):
    """The other side speaks TLS, but not HTTP/2."""


class Sink(Protocol):
    """Who takes a response."""

    def response(self, status: int, headers: dict[str, str]) -> None: ...
    def received(self, body: bytes) -> None: ...
    def ended(self, failure: str | None) -> None:
        """The response is complete, or was cut off for the reason given. Called once, and nothing after it."""
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

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        initial = {
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
        }
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self.streams: dict[int, Stream] = {}
        self.is_open = False
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set when the connection is made
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_pinged = False
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the socket is closed."""

    @property
    def has_room(self) -> bool:
        limit = min(STREAMS_MAX, self.h2.remote_settings.max_concurrent_streams)
        return self.is_open and len(self.streams) < limit

    def request(self, headers: list[tuple[str, str]], sink: Sink) -> Stream:
        """Open a request; the caller made sure that there is room, and sends or ends its body at once.

        The two leave together: an endpoint that refuses by the headers alone may have closed the stream already when its
        body arrives, and not all of them take that well.
        """
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
            events = self.h2.receive_data(data)
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
            self._end(event.stream_id, f"stream reset by the endpoint (HTTP/2 error {int(event.error_code or 0)})")
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for stream in list(self.streams.values()):
                stream.write()
        elif isinstance(event, h2.events.PingAckReceived):
            self._is_pinged = False
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.is_open = False  # nothing new on it; what the endpoint took, it finishes
            for stream_id in [number for number in self.streams if number > (event.last_stream_id or 0)]:
                self._end(stream_id, "the endpoint is going away")

    def _end(self, stream_id: int, failure: str | None) -> None:
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            stream.sink.ended(failure)
            self._freed()

    def _freed(self) -> None:
        if not self.streams:
            if self.is_open:
                self._look_again(IDLE_S)
            else:
                self._transport.close()

    def _lose(self, reason: str) -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.sink.ended(reason)

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
        self._connecting: asyncio.Task[Connection] | None = None

    async def connection(self) -> Connection:
        """A connection with room for a request, which the caller must open before it waits again.

        Raises:
            Unreachable, NotHttp2: there is none, and none can be made.
        """
        while True:
            self._connections = [c for c in self._connections if not c.lost.done()]
            for connection in self._connections:
                if connection.has_room:
                    return connection
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
                self._connecting.add_done_callback(self._connected)
            # Shared: whoever comes meanwhile waits for the same connection, and is not cancelled with another waiter.
            await asyncio.shield(self._connecting)

    def _connected(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if not task.cancelled() and task.exception() is None:
            self._connections.append(task.result())

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    Connection, self._host, self._port, ssl=self._tls
                )
        except TimeoutError as error:
            raise Unreachable(f"no connection within {self._connect_timeout_s:g} s") from error
        except (OSError, ssl.SSLError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        session = transport.get_extra_info("ssl_object")
        if session is not None and session.selected_alpn_protocol() != "h2":
            transport.abort()
            raise NotHttp2
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
