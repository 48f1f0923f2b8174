"""Clients that are slow, greedy or broken: each ends with a clear answer, and others do not notice."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import h2.errors
import h2.events
import httpx
import pytest

from holdfast.config import EngineConfig, SecurityConfig
from holdfast.server import Serving
from tests.ingress.backend import Ask
from tests.ingress.http2 import connected
from tests.ingress.table import post
from tests.security.support import serving_here

PATIENCE_S = 20.0
CALM = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
BODY_BYTES_MAX = 4 << 20
STRICT = SecurityConfig(
    head_timeout_ms=1_000, body_timeout_ms=1_000, head_bytes_max=8_192, headers_max=20, connections_max=50
)
HEAD = b"POST /S/echo HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving_here(EngineConfig(body_bytes_max=BODY_BYTES_MAX, drain_ms=0), STRICT) as serving:
        yield serving


@contextmanager
def connection(served: Serving, url: str | None = None) -> Iterator[socket.socket]:
    address = urlsplit(url or served.ingress_url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as opened:
        yield opened


def everything(opened: socket.socket) -> bytes:
    """What comes until the server hangs up."""
    received = b""
    while chunk := _receive(opened):
        received += chunk
    return received


def _receive(opened: socket.socket) -> bytes:
    try:
        return opened.recv(65_536)
    except ConnectionResetError:
        return b""


def answer_of(received: bytes) -> tuple[int, str]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), body.decode()


def works(served: Serving) -> bool:
    return httpx.post(f"{served.ingress_url}/S/echo", json="x").text == '"x"'


# ---- too slow ----------------------------------------------------------------------------------------------------------

LATE_HEAD = (408, "the head of the request did not arrive within 1 s")
LATE_BODY = (408, "the body of the request did not arrive within 1 s and a second for each KiB")


def test_a_head_that_does_not_come(served: Serving):
    with ExitStack() as stack:
        waiting: list[socket.socket] = []
        for url in (served.ingress_url, served.admin_url):
            for sent in (b"", b"P", b"PRI * HTTP/2.0\r\n\r\nSM", b"POST /S/echo HTTP/1.1\r\nhost:", HEAD):
                waiting.append(stack.enter_context(connection(served, url)))
                waiting[-1].sendall(sent)
        assert [answer_of(everything(opened)) for opened in waiting] == [LATE_HEAD] * 10


def test_a_head_that_comes_drop_by_drop(served: Serving):
    with connection(served) as opened:
        opened.settimeout(0.1)
        opened.sendall(HEAD)
        received = b""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                opened.sendall(b"x")
                received = opened.recv(65_536)
                break
            except TimeoutError:
                continue
        assert answer_of(received) == LATE_HEAD


def test_a_second_request_that_does_not_come_to_its_end(served: Serving):
    with connection(served) as opened:
        opened.sendall(HEAD + b'content-length: 3\r\n\r\n"x"')
        first = opened.recv(65_536)
        assert first.startswith(b"HTTP/1.1 200")
        opened.sendall(HEAD)
        assert answer_of(everything(opened)) == LATE_HEAD


def test_a_body_that_does_not_come(served: Serving):
    with connection(served) as announced, connection(served) as chunked, connection(served) as unwanted:
        announced.sendall(HEAD + b'content-length: 1000\r\n\r\n"x')
        chunked.sendall(HEAD + b'transfer-encoding: chunked\r\n\r\n2\r\n"x\r\n')
        unwanted.sendall(b"POST /Nope/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nx")
        assert answer_of(everything(announced)) == LATE_BODY
        assert answer_of(everything(chunked)) == LATE_BODY
        # This one was refused at once; only the connection was left to end.
        refusal = everything(unwanted)
        assert refusal.startswith(b"HTTP/1.1 404")
        assert refusal.endswith(b'"source":"ingress"}')


def test_a_large_body_on_a_slow_line_gets_through(served: Serving):
    """Slower than the time-out, but not slower than a KiB a second."""
    body = b'"' + b"x" * 200_000 + b'"'
    with connection(served) as opened:
        opened.sendall(HEAD + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        begun = time.monotonic()
        sent = 0
        while time.monotonic() - begun < 2.5:  # more than the second that bodies have
            opened.sendall(body[sent : sent + 4_000])
            sent += 4_000
            time.sleep(0.1)  # the slow line
        opened.sendall(body[sent:])
        received = everything(opened)
    assert received.startswith(b"HTTP/1.1 200")
    assert received.endswith(body)


def test_waiting_for_a_result_is_not_slowness(served: Serving):
    with httpx.Client(base_url=served.ingress_url, timeout=PATIENCE_S) as client:
        awakeable = ""
        with connection(served) as opened:
            body = b'"patience"'
            gate = HEAD.replace(b"/S/echo", b"/S/gate")
            opened.sendall(gate + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
            deadline = time.monotonic() + PATIENCE_S
            while not awakeable and time.monotonic() < deadline:
                text = client.get("/Holder/patience/announced").text
                awakeable = "" if text in ("", "null") else text.strip('"')
            opened.settimeout(2.5)  # longer than any time-out of this server
            with pytest.raises(TimeoutError):
                opened.recv(1)
            opened.settimeout(PATIENCE_S)
            assert client.post(f"/restate/a/{awakeable}/resolve", json="done").status_code == 202
            assert everything(opened).endswith(b'"done"')


def test_others_are_served_meanwhile(served: Serving):
    with connection(served) as slow, connection(served) as slower:
        slow.sendall(HEAD)
        slower.sendall(HEAD + b"content-length: 1000\r\n\r\n")
        assert works(served)


# ---- too much ----------------------------------------------------------------------------------------------------------


def test_too_many_headers(served: Serving):
    with connection(served) as opened:
        opened.sendall(HEAD + b"".join(b"x-%d: 1\r\n" % number for number in range(19)) + b"\r\n")
        assert answer_of(everything(opened)) == (431, "the request has more than 20 headers")


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_header_that_is_too_long(served: Serving, is_complete: bool):
    with connection(served) as opened:
        opened.sendall(HEAD + b"x-long: " + b"x" * 9_000 + (b"\r\n\r\n" if is_complete else b""))
        if not is_complete:
            opened.sendall(b"x" * 9_000)
        assert answer_of(everything(opened)) == (431, "the head of the request is larger than 8192 bytes")


def test_a_path_that_is_too_long(served: Serving):
    with connection(served) as opened:
        opened.sendall(b"GET /S/echo?" + b"x" * 9_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert answer_of(everything(opened)) == (431, "the head of the request is larger than 8192 bytes")


def test_a_head_that_never_ends(served: Serving):
    with connection(served) as opened:
        opened.sendall(HEAD)
        with pytest.raises(ConnectionError):
            send_for_ever(opened, b"x-more: 1\r\n" * 100)
    assert works(served)


def send_for_ever(opened: socket.socket, data: bytes) -> None:
    """Until the server hangs up."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        opened.sendall(data)


def test_a_large_body_before_the_next_head_is_not_taken_for_it(served: Serving):
    body = b'"' + b"x" * 100_000 + b'"'
    whole = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    with connection(served) as opened:
        opened.sendall(whole * 3 + HEAD + b'content-length: 3\r\nconnection: close\r\n\r\n"x"')
        received = everything(opened)
    assert received.count(b"HTTP/1.1 200") == 4


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"content-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1), "length limit exceeded"),
        (b"content-length: 99999999999999999999\r\n\r\n", "not a valid HTTP request"),
    ],
)
def test_a_body_that_says_that_it_is_too_long(served: Serving, head: bytes, expected: str):
    with connection(served) as opened:
        opened.sendall(HEAD + head)
        received = everything(opened)
    assert received.split(b"\r\n\r\n")[1].decode() == expected


def test_too_many_connections_and_room_again(served: Serving):
    opened: list[socket.socket] = []
    address = urlsplit(served.ingress_url)
    try:
        while len(opened) < 60:
            opened.append(socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S))
            opened[-1].sendall(HEAD)
        refused = [one for one in opened[50:] if _receive(one).startswith(b"HTTP/1.1 503")]
        assert len(refused) >= 9
    finally:
        for one in opened:
            one.close()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            assert works(served)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline


# ---- broken ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS where none is spoken
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"x\x00y: 1\r\n\r\n",
        HEAD + b"x-folded: 1\r\n 2\r\n\r\n",
        b"POST /S/echo HTTP/1.1\nhost: localhost\n\n",
    ],
)
def test_what_is_not_http_is_refused(served: Serving, sent: bytes):
    with connection(served) as opened:
        opened.sendall(sent)
        received = everything(opened)
    assert received.count(b"HTTP/1.1 ") == 1  # nothing is smuggled behind it
    assert answer_of(received) == (400, "not a valid HTTP request")


def test_a_client_that_asks_to_upgrade_is_answered_in_http_1_1_again_and_again(served: Serving):
    """Java's client asks so with the first request of every connection."""
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    request = HEAD + upgrade + b'content-length: 3\r\n\r\n"x"'
    with connection(served) as opened:
        for _ in range(3):
            opened.sendall(request)
            received = b""
            while not received.endswith(b'"x"'):
                received += opened.recv(65_536)
            assert received.startswith(b"HTTP/1.1 200")
        opened.sendall(request * 2)
        received = b""
        while received.count(b"HTTP/1.1 200") < 2:
            chunk = opened.recv(65_536)
            assert chunk
            received += chunk


# ---- HTTP/2 ------------------------------------------------------------------------------------------------------------


def test_http2_a_body_that_does_not_come(served: Serving):
    with connected(served.ingress_url) as client:
        slow = client.begin(post("/S/echo", "x"), end=False, length=1_000)
        late = client.answer(slow)
        assert (late.status, late.body.decode()) == LATE_BODY
        assert client.ask(post("/S/echo", "x")).body == b'"x"'  # the connection lives


def test_http2_too_many_headers(served: Serving):
    with connected(served.ingress_url) as client:
        ask = Ask("POST", "/S/echo", None, {f"x-{number}": "1" for number in range(21)})
        assert client.ask(ask).status == 431
        assert client.ask(post("/S/echo", "x")).body == b'"x"'


def test_http2_a_head_that_is_too_large_ends_the_connection(served: Serving):
    with connected(served.ingress_url) as client:
        client.begin(Ask("POST", "/S/echo", None, {"x-long": "x" * 9_000}))
        events = client.events()
        while not any(isinstance(event, h2.events.ConnectionTerminated) for event in events):
            events = client.events()
        assert events


def test_http2_opening_and_resetting_streams_without_end(served: Serving):
    with connected(served.ingress_url) as client:
        client.socket.settimeout(0.02)
        ends: list[object] = []
        deadline = time.monotonic() + PATIENCE_S
        while not ends:
            assert time.monotonic() < deadline, "it goes on for ever"
            try:
                for _ in range(150):
                    stream = client.begin(post("/S/echo", "x"), end=False, length=1_000)
                    client.http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                client.flush()
                ends = [event for event in client.events() if isinstance(event, h2.events.ConnectionTerminated)]
            except TimeoutError:
                pass
            except ConnectionError as error:  # it hung up while we were talking
                ends = [error]
        assert all(getattr(end, "error_code", CALM) == CALM for end in ends)
    assert works(served)


def test_http2_what_the_client_may_have_open_is_bounded(served: Serving):
    with connected(served.ingress_url) as client:
        while client.http.remote_settings.max_concurrent_streams > 1_000:
            client.events()
        assert client.http.remote_settings.max_concurrent_streams == 200
        assert client.http.remote_settings.initial_window_size == 256 << 10


def test_http2_a_large_answer_waits_for_room(served: Serving):
    """More than the windows hold, taken piece by piece."""
    body = '"' + "x" * 1_000_000 + '"'
    with connected(served.ingress_url) as client:
        assert client.ask(post("/S/echo", body.encode())).body == body.encode()


def test_http2_a_stream_that_takes_nothing_does_not_hold_up_the_others(served: Serving):
    body = b'"' + b"x" * 200_000 + b'"'
    with connected(served.ingress_url) as client:
        stuck = client.begin(post("/S/echo", body), end=False)
        sent = 0
        while sent < len(body):
            room = min(client.http.local_flow_control_window(stuck), client.http.max_outbound_frame_size)
            if not room:
                client.events()
                continue
            piece = body[sent : sent + room]
            sent += len(piece)
            client.http.send_data(stuck, piece, end_stream=sent == len(body))
            client.flush()
        taken = 0
        while taken < 65_535:  # its window, which is not opened again; the connection's is
            for event in client.events():
                if isinstance(event, h2.events.DataReceived) and event.stream_id == stuck:
                    taken += len(event.data)
                    client.http.increment_flow_control_window(len(event.data))
            client.flush()
        assert taken == 65_535
        assert client.ask(post("/S/echo", "quick")).body == b'"quick"'


def test_http2_a_client_that_resets_is_gone_and_its_invocation_is_not(served: Serving):
    with connected(served.ingress_url) as client:
        stream = client.begin(post("/S/gate", "reset"), end=False)
        client.http.send_data(stream, b'"reset"', end_stream=True)
        client.flush()
        awakeable = ""
        while not awakeable:
            text = httpx.get(f"{served.ingress_url}/Holder/reset/announced").text
            awakeable = "" if text in ("", "null") else text.strip('"')
        client.http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.flush()
        assert client.ask(post(f"/restate/a/{awakeable}/resolve", "done")).status == 202


GOAWAY = b"\x07"


def test_http2_rubbish_after_the_preface(served: Serving):
    data_on_the_connection_itself = b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x"
    with connection(served) as opened:
        opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + data_on_the_connection_itself)
        received = everything(opened)
    assert GOAWAY in received
    assert works(served)


def test_http2_a_frame_that_never_ends(served: Serving):
    with connection(served) as opened:
        opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9)
        with pytest.raises(ConnectionError):
            send_for_ever(opened, b"\xff" * 65_536)
    assert works(served)
