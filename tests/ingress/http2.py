"""An HTTP/2 client that sends what it is told to, byte for byte: one request per connection, without TLS."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

from tests.ingress.backend import ANSWER_TIMEOUT_S, Ask, Got

HOP_BY_HOP = {"connection", "transfer-encoding", "te", "upgrade"}


@dataclass(slots=True)
class Http2Client:
    """One connection, open."""

    socket: socket.socket
    http: h2.connection.H2Connection
    ended: list[h2.events.Event] = field(default_factory=list)

    def begin(self, ask: Ask, *, end: bool = True, length: int | None = None) -> int:
        """Send a request's head; its stream."""
        stream = self.http.get_next_available_stream_id()
        lines: list[tuple[bytes, bytes]] = [
            (b":method", ask.method.encode()),
            (b":scheme", b"http"),
            (b":authority", b"localhost"),
            (b":path", ask.path.encode()),
        ]
        for name, value in ask.headers.items():
            raw = value if isinstance(value, bytes) else value.encode()
            lines.append((name.lower().encode(), raw.strip()))
        size = len(ask.body) if ask.body is not None and length is None else length
        if size is not None and "content-length" not in {name.lower() for name in ask.headers}:
            lines.append((b"content-length", b"%d" % size))
        self.http.send_headers(stream, lines, end_stream=end)
        self.flush()
        return stream

    def flush(self) -> None:
        self.socket.sendall(self.http.data_to_send())

    def events(self) -> list[Any]:
        """What came, after waiting for something. Empty when the server has hung up."""
        data = self.socket.recv(65_536)
        if not data:
            return []
        events = self.http.receive_data(data)
        with suppress(ConnectionError):  # what it said may be why it hung up
            self.flush()
        return events

    def answer(self, stream: int) -> Got:
        """What a request that was sent to its end is answered."""
        status, headers, body = 0, dict[str, str](), b""
        while True:
            for event in self.events():
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    status, headers = _head(event)
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data or b""
                elif isinstance(event, h2.events.StreamEnded):
                    return Got(status, headers, body)

    def ask(self, ask: Ask) -> Got:
        """A whole exchange."""
        body = ask.body or b""
        stream = self.begin(ask, end=not body)
        status, headers, answer = 0, dict[str, str](), b""
        while True:
            while body:
                room = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size)
                if not room:
                    break
                self.http.send_data(stream, body[:room], end_stream=len(body) <= room)
                body = body[room:]
                self.flush()
            events = self.events()
            assert events or status, "the server hung up"
            for event in events:
                match event:
                    case h2.events.ResponseReceived():
                        status, headers = _head(event)
                    case h2.events.DataReceived():
                        answer += event.data
                        self.http.acknowledge_received_data(event.flow_controlled_length, stream)
                    case h2.events.StreamEnded():
                        return Got(status, headers, answer)
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        raise AssertionError(f"{ask}: {event}")
                    case _:
                        pass
            self.flush()


def _head(event: Any) -> tuple[int, dict[str, str]]:
    pairs = [(bytes(name).decode(), bytes(value).decode()) for name, value in event.headers]
    return int(dict(pairs)[":status"]), {name: value for name, value in pairs if not name.startswith(":")}


@contextmanager
def connected(url: str) -> Iterator[Http2Client]:
    """A connection to the server at `url`, which is known to speak HTTP/2."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=ANSWER_TIMEOUT_S) as connection:
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        client = Http2Client(connection, h2.connection.H2Connection(config))
        client.http.initiate_connection()
        client.flush()
        yield client
