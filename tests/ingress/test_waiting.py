"""Callers who wait while something happens to the invocation. Like the table, against both engines."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlsplit

from tests.ingress.backend import ANSWER_TIMEOUT_S, Ask, Backend, Got
from tests.ingress.expect import Expect, compare, failed, ok
from tests.ingress.table import NOT_FOUND, get, post


def announced(backend: Backend, name: str) -> str:
    """The awakeable that `S/gate` made for `name`: once it is known, the invocation runs and waits for it."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < deadline:
        got = backend.ask(get(f"/Holder/{name}/announced"))
        if got.body not in (b"", b"null"):
            return json.loads(got.body)
    raise AssertionError(f"nothing was announced under {name}")


def invocation_id(backend: Backend, handler: str, idempotency_key: str) -> str:
    target = {"target": "idempotentInvocation", "service": "S", "handler": handler, "idempotencyKey": idempotency_key}
    return json.loads(backend.ask(post("/restate/lookup", target)).body)["invocationId"]


def expect(answer: Future[Got], expected: Expect, invocation: str) -> None:
    compare(answer.result(ANSWER_TIMEOUT_S), expected, {"it": invocation})


def test_everybody_who_waits_gets_the_result(backend: Backend) -> None:
    with ThreadPoolExecutor() as callers:
        call = post("/S/gate", "joined", idempotency_key="joined")
        first = callers.submit(backend.ask, call)
        awakeable = announced(backend, "joined")
        it = invocation_id(backend, "gate", "joined")
        second = callers.submit(backend.ask, call)
        attached = callers.submit(backend.ask, get(f"/restate/attach/{it}"))
        assert backend.ask(get(f"/restate/output/{it}")).status == 470
        compare(backend.ask(post(f"/restate/a/{awakeable}/resolve", "value")), Expect(202), {})
        expect(first, ok(b'"value"', invocation="it"), it)
        # Whether these two came before the result is a race that the test does not decide.
        for answer in (second, attached):
            expect(answer, Expect(200, {"content-type": "application/json"}, b'"value"', "it", expires=None), it)
        compare(backend.ask(call), ok(b'"value"', invocation="it", expires=True), {"it": it})


def test_a_rejected_awakeable_is_a_failure_with_the_body_as_message(backend: Backend) -> None:
    with ThreadPoolExecutor() as callers:
        waiting = callers.submit(backend.ask, post("/S/gate", "rejected"))
        awakeable = announced(backend, "rejected")
        compare(backend.ask(post(f"/restate/a/{awakeable}/reject", b"\xff nope", "text/plain")), Expect(202), {})
        compare(waiting.result(ANSWER_TIMEOUT_S), failed(500, "\ufffd nope"), {})


def test_an_awakeable_resolved_with_nothing(backend: Backend) -> None:
    with ThreadPoolExecutor() as callers:
        waiting = callers.submit(backend.ask, post("/S/gate", "nothing"))
        awakeable = announced(backend, "nothing")
        compare(backend.ask(post(f"/restate/awakeables/{awakeable}/resolve")), Expect(202), {})
        compare(waiting.result(ANSWER_TIMEOUT_S), ok(b"", None), {})


def test_killed_while_a_caller_waits(backend: Backend) -> None:
    with ThreadPoolExecutor() as callers:
        waiting = callers.submit(backend.ask, post("/S/gate", "killed", idempotency_key="killed"))
        announced(backend, "killed")
        it = invocation_id(backend, "gate", "killed")
        assert backend.ask_admin(Ask("PATCH", f"/invocations/{it}/kill")).status == 200
        expect(waiting, failed(409, "killed", invocation="it"), it)
        compare(
            backend.ask(get(f"/restate/output/{it}")), failed(409, "killed", invocation="it", expires=True), {"it": it}
        )


def test_cancelled_while_a_caller_waits(backend: Backend) -> None:
    with ThreadPoolExecutor() as callers:
        waiting = callers.submit(backend.ask, post("/S/gate", "cancelled", idempotency_key="cancelled"))
        announced(backend, "cancelled")
        it = invocation_id(backend, "gate", "cancelled")
        assert backend.ask_admin(Ask("PATCH", f"/invocations/{it}/cancel")).status == 202
        expect(waiting, failed(409, "cancelled", invocation="it"), it)


def test_cancelled_before_it_started(backend: Backend) -> None:
    it = backend.ask(post("/S/echo/send?delay=1h", "x")).headers["x-restate-id"]
    with ThreadPoolExecutor() as callers:
        waiting = callers.submit(backend.ask, get(f"/restate/attach/{it}"))
        assert backend.ask_admin(Ask("PATCH", f"/invocations/{it}/cancel")).status == 200
        answer = waiting.result(ANSWER_TIMEOUT_S)
    # Either it waited and was told, or it came after the invocation was gone.
    assert json.loads(answer.body)["message"] in ("canceled", "not found")
    compare(backend.ask(get(f"/restate/output/{it}")), NOT_FOUND, {})


def test_a_caller_who_hangs_up_does_not_stop_the_invocation(backend: Backend) -> None:
    url = urlsplit(backend.ingress_url)
    body = b'"gone"'
    head = (
        f"POST /S/gate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    )
    with socket.create_connection((url.hostname, url.port), timeout=ANSWER_TIMEOUT_S) as connection:
        connection.sendall(head.encode() + b"idempotency-key: gone\r\n\r\n" + body)
        awakeable = announced(backend, "gone")
    assert backend.ask(post(f"/restate/a/{awakeable}/resolve", "value")).status == 202
    it = invocation_id(backend, "gate", "gone")
    answer = backend.ask(get(f"/restate/attach/{it}"))
    compare(answer, Expect(200, {"content-type": "application/json"}, b'"value"', "it", expires=None), {"it": it})
