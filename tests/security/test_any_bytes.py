"""Whatever a client sends, in whatever pieces: the connection ends or waits, and nothing escapes into the server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import h2.config
import h2.connection
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from holdfast.config import SecurityConfig
from holdfast.serving.connection import PREFACE, NewConnection
from holdfast.serving.limits import Limits

LIMITS = Limits.of(SecurityConfig(head_bytes_max=2_000, headers_max=10))


class Transport(asyncio.Transport):
    """The socket's side of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.written = b""
        self.is_closed = False

    def write(self, data: Any) -> None:
        if not self.is_closed:  # else it goes nowhere, as with asyncio's own: whoever still answers cannot know
            self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, answers with what it saw."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if message["type"] == "http.request":
        body = f"{scope['method']} {scope['path']} {size}".encode("utf-8", "replace")
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


def http2_conversation() -> bytes:
    """What a well-behaved client would send: two requests, one with a body, and what belongs around them."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    client.initiate_connection()
    head = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", b"/S/echo?x=1")]
    client.send_headers(1, [*head, (b"content-type", b"application/json"), (b"cookie", b"a=b")])
    client.send_headers(3, head, end_stream=True)
    client.send_data(1, b'"' + b"x" * 500 + b'"', end_stream=True)
    client.ping(b"12345678")
    client.increment_flow_control_window(1_000)
    return client.data_to_send()


HTTP2 = http2_conversation()
HTTP1 = (
    b'POST /S/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\n"x"'
    b"GET /S/void HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n"
    b"POST /S/echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
)
# Whole, so that what follows is looked at by the protocol that was chosen.
STARTS = st.sampled_from([b"", PREFACE, HTTP2, HTTP1, HTTP1 + b"GET /", HTTP2[:-20]])


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """A conversation with some bytes changed, cut out or put in, in pieces."""
    data = bytearray(draw(STARTS))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "cut", "insert"]))
        if kind == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 30))]
        else:
            data[at:at] = draw(st.binary(max_size=60))
    data += draw(st.binary(max_size=100))
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)))
    return [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def play(pieces: list[bytes]) -> Transport:
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state, transport = ServerState(), Transport()
    connection = NewConnection(config, state, {}, asyncio.get_running_loop(), limits=LIMITS)
    transport.protocol = connection
    connection.connection_made(transport)
    for piece in pieces:
        if transport.is_closed:
            break
        transport.protocol.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    for _ in range(70):
        if not transport.is_closed:
            transport.protocol.sweep()
    assert transport.is_closed or transport.written or not any(pieces) or state.connections
    transport.protocol.connection_lost(None)
    tasks = cast(set[asyncio.Task[None]], state.tasks)
    if tasks:
        await asyncio.wait(tasks, timeout=30)
    assert not state.tasks, "a request was left behind"
    assert not state.connections
    return transport


@settings(max_examples=400, deadline=None)
@given(streams())
def test_any_bytes(pieces: list[bytes]):
    asyncio.run(play(pieces))


def test_the_conversations_are_answered_as_they_stand():
    assert asyncio.run(play([HTTP1])).written.count(b"HTTP/1.1 200 OK") == 3
    assert b"POST /S/echo 502" in asyncio.run(play([HTTP2])).written
    assert b"POST /S/echo 502" in asyncio.run(play([HTTP2[at : at + 1] for at in range(len(HTTP2))])).written
