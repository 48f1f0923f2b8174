"""What a row of the behaviour table expects of an answer, and how an answer is held against it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tests.ingress.backend import Ask, Got

JSON = "application/json"
CORS = {
    "vary": "origin, access-control-request-method, access-control-request-headers",
    "access-control-allow-credentials": "true",
}
# Of the HTTP server, or implied by the body.
_NOT_COMPARED = {"date", "server", "content-length", "connection"}
_ID = re.compile(r"inv_1[0-9A-Za-z]{33}")
# One instant in a thousand has no fraction.
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?)(?:000000)?Z")
_EXPIRY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00")
RETENTION = timedelta(days=1)
TOLERANCE = timedelta(seconds=30)
"""Between a clock read by the server and one read by the test."""


@dataclass(frozen=True, slots=True)
class Starts:
    """A message of which only the beginning is compared: the rest is the wording of a parser."""

    text: str


@dataclass(frozen=True, slots=True)
class Expect:
    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = b""
    """Exact bytes; None: the answer is `error`, `receipt` or `services`."""
    invocation: str | None = None
    """Name for the id in `x-restate-id`; the same name means the same id. None: no such header."""
    expires: bool | None = False
    """Whether `idempotency-expires` is there, one retention from now. None: it may be, a race decides."""
    error: dict[str, Any] | None = None
    receipt: str | None = None
    """`Accepted` or `PreviouslyAccepted`."""
    due_in: timedelta | None = None
    """With `receipt`: the delay that `executionTime` shows."""
    services: set[str] | None = None
    cors: bool = True
    """Whether the headers for pages of other origins are there."""


@dataclass(frozen=True, slots=True)
class Differs:
    """Where we differ from a Restate server on purpose."""

    restate: Expect
    holdfast: Expect
    why: str


class Asked(Protocol):
    """What answers: a `Backend`, however it is reached."""

    @property
    def name(self) -> str: ...
    def ask(self, ask: Ask) -> Got: ...


Step = tuple[Ask, Expect | Differs]


def ok(body: bytes, content_type: str | None = JSON, *, invocation: str = "new", expires: bool = False) -> Expect:
    """A call, attach or output with a result."""
    headers = {} if content_type is None else {"content-type": content_type}
    return Expect(200, headers, body, invocation=invocation, expires=expires)


def accepted(receipt: str = "Accepted", *, invocation: str = "new", due_in: timedelta | None = None) -> Expect:
    """A send."""
    return Expect(202, {"content-type": JSON}, None, invocation=invocation, receipt=receipt, due_in=due_in)


def refused(status: int, message: str | Starts) -> Expect:
    """Refused by the ingress."""
    error = {"code": status, "message": message, "source": "ingress"}
    return Expect(status, {"x-restate-error-source": "ingress", "content-type": JSON}, None, error=error)


def failed(
    code: int,
    message: str,
    *,
    status: int | None = None,
    metadata: dict[str, str] | None = None,
    invocation: str = "new",
    expires: bool = False,
) -> Expect:
    """The invocation ended with a failure. `status` where it is not the code."""
    error: dict[str, Any] = {"code": code, "message": message}
    if metadata:
        error["metadata"] = metadata
    error["source"] = "invocation"
    headers = {"x-restate-error-source": "invocation", "content-type": JSON}
    return Expect(status or code, headers, None, invocation=invocation, expires=expires, error=error)


def play(backend: Asked, steps: list[Step]) -> None:
    """Send the requests of a row one after the other and compare every answer."""
    ids: dict[str, str] = {}
    for ask, expected in steps:
        if isinstance(expected, Differs):
            expected = expected.holdfast if backend.name == "holdfast" else expected.restate  # noqa: PLW2901
        body = ask.body
        for name, invocation_id in ids.items():
            placeholder = b"{%s}" % name.encode()
            body = body and body.replace(placeholder, invocation_id.encode())
            if expected.body is not None:
                expected = replace(expected, body=expected.body.replace(placeholder, invocation_id.encode()))  # noqa: PLW2901
        path = ask.path.format(**ids) if ids else ask.path  # no row has braces of its own
        asked = Ask(ask.method, path, body, ask.headers)
        compare(backend.ask(asked), expected, ids, asked)


def compare(got: Got, expected: Expect, ids: dict[str, str], asked: Ask | None = None) -> None:
    """Assert that an answer is as expected. Ids are looked up in `ids`, or added."""
    what = f"{asked} -> {got}"
    assert got.status == expected.status, what
    headers = {name: value for name, value in got.headers.items() if name not in _NOT_COMPARED}
    _compare_id(headers.pop("x-restate-id", None), expected.invocation, ids, what)
    _compare_expiry(headers.pop("idempotency-expires", None), expected.expires, what)
    without_cors = {name: value for name, value in headers.items() if name not in CORS}
    assert {name: headers[name] for name in CORS if name in headers} == (CORS if expected.cors else {}), what
    assert without_cors == expected.headers, what
    _compare_body(got, expected, what)


def _compare_id(value: str | None, name: str | None, ids: dict[str, str], what: str) -> None:
    if name is None:
        assert value is None, what
        return
    assert value is not None, what
    assert _ID.fullmatch(value), what
    if name == "new":
        assert value not in ids.values(), what
    else:
        assert ids.setdefault(name, value) == value, what


def _compare_expiry(value: str | None, is_expected: bool | None, what: str) -> None:
    assert is_expected is None or (value is not None) is is_expected, what
    if value is not None:
        assert _EXPIRY.fullmatch(value), what
        assert abs(datetime.fromisoformat(value) - datetime.now(UTC) - RETENTION) < TOLERANCE, what


def _compare_body(got: Got, expected: Expect, what: str) -> None:
    if expected.body is not None:
        assert got.body == expected.body, what
    elif expected.error is not None:
        error, message = json.loads(got.body), expected.error["message"]
        assert list(error) == list(expected.error), what  # the order of the fields as well
        if isinstance(message, Starts):
            assert error["message"].startswith(message.text), what
            message = error["message"]
        assert error == {**expected.error, "message": message}, what
    elif expected.services is not None:
        assert set(json.loads(got.body)["services"]) == expected.services, what
    else:
        _compare_receipt(json.loads(got.body), expected, got.headers["x-restate-id"], what)


def _compare_receipt(receipt: dict[str, str], expected: Expect, invocation_id: str, what: str) -> None:
    due = receipt.pop("executionTime", None)
    assert receipt == {"invocationId": invocation_id, "status": expected.receipt}, what
    assert (due is not None) is (expected.due_in is not None), what
    if due is not None and expected.due_in is not None:
        instant = _INSTANT.fullmatch(due)
        assert instant is not None, what
        shown = datetime.fromisoformat(instant[1] + "+00:00")
        assert abs(shown - datetime.now(UTC) - expected.due_in) < TOLERANCE, what
