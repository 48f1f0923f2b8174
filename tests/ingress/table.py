"""The ingress behaviour table: requests and the answers of a Restate server 1.7.12, as literals.

A row is a list of steps on fresh keys, so rows do not depend on each other. `Differs` marks where holdfast answers
otherwise on purpose, and why.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from tests.ingress import durations
from tests.ingress.backend import BODY_BYTES_MAX, Ask
from tests.ingress.expect import JSON, Differs, Expect, Starts, Step, accepted, failed, ok, refused

UNKNOWN_ID = "inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG"
AWAKEABLE_ID = "sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SERVICES = {"S", "P", "O", "Holder", "W"}

BAD_INVOKE = "bad path, expected either /:service-name/:handler or /:object-name/:object-key/:handler"
BAD_RESTATE = (
    "bad path, expected /restate/call/:service/:handler, /restate/send/:service/:handler, "
    "/restate/scope/:scope/call/:service/:handler, /restate/attach/:invocation_id, "
    "/restate/output/:invocation_id, or /restate/lookup"
)
BAD_INVOCATION = (
    "bad path, expected either /restate/invocation/:invocation_id/output "
    "or /restate/invocation/:invocation_id/attach "
    "or /restate/invocation/:invocation_target/:idempotency_key/output "
    "or /restate/invocation/:invocation_target/:idempotency_key/attach"
)
BAD_WORKFLOW = (
    "bad path, expected either /restate/workflow/:workflow_name/:workflow_key/output "
    "or /restate/workflow/:workflow_name/:workflow_key/attach"
)
BAD_AWAKEABLE = "bad path, expected either /restate/awakeables/:id/resolve or /restate/awakeables/:id/reject"
BAD_DELAY = "bad delay query parameter, must be a ISO8601 duration: "
DELAY_ON_CALL = "cannot use the delay query parameter with calls. The delay is supported only with sends"
KEY_ON_WORKFLOW = (
    "cannot use the idempotency key with workflow handlers. "
    "The handler invocation will already be idempotent by the workflow key itself."
)
NO_SCOPES = "scoped invocations require vqueues to be enabled"
LIMIT_KEY = "limit-key requires a scope to be set"
NOT_PUBLIC = "the invoked service is not public"
NOT_FOUND = refused(404, "invocation not found")
NOT_READY = refused(470, "the invocation exists but has not completed yet")
NO_METHOD = refused(405, "method not allowed")
NO_ROUTE = refused(404, "not found")
ALREADY_INVOKED = "the workflow method was already invoked"


def post(path: str, body: Any = None, content_type: str | None = JSON, **headers: str | bytes) -> Ask:
    """POST; bytes go as they are, anything else as JSON; no content type without a body. `x_y` is header `x-y`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is None:
        return Ask("POST", path, None, named)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Ask("POST", path, raw, named if content_type is None else {"content-type": content_type, **named})


def get(path: str, **headers: str | bytes) -> Ask:
    return Ask("GET", path, None, {name.replace("_", "-"): value for name, value in headers.items()})


def no_service(name: str) -> Expect:
    return refused(404, f"service '{name}' not found, make sure to register the service before calling it.")


def no_handler(service: str, handler: str) -> Expect:
    return refused(
        404,
        f"the service '{service}' exists, but the handler '{handler}' was not found, "
        "check that the handler exists in the latest registered service version.",
    )


def invalid_input(reason: str) -> Expect:
    return refused(400, f"input validation error: {reason}")


def bad_id(kind: str, text: str, reason: str) -> Expect:
    return refused(400, f"bad {kind} id '{text}': {reason}")


def lookup(**target: Any) -> Ask:
    return post("/restate/lookup", target)


def found(name: str) -> Expect:
    """A lookup's answer."""
    return Expect(200, {"content-type": JSON}, b'{"invocationId":"{%s}"}' % name.encode())


CALLS: dict[str, list[Step]] = {
    "a call": [(post("/S/echo", "hi"), ok(b'"hi"'))],
    "a call by GET has no body": [(get("/S/echo"), ok(b"", None))],
    "a call by GET may have one": [
        (Ask("GET", "/S/echo", b'"hi"', {"content-type": JSON}), ok(b'"hi"')),
    ],
    "a trailing slash": [(post("/S/echo/", "hi"), ok(b'"hi"'))],
    "several slashes around": [(post("//S/echo//", "hi"), ok(b'"hi"'))],
    "an object": [(post("/O/one/add", 2), ok(b"2")), (post("/O/one/add", 3), ok(b"5"))],
    "a shared handler": [(post("/O/two/add", 2), ok(b"2")), (get("/O/two/total"), ok(b"2"))],
    "a workflow": [(post("/W/call/run", "x"), ok(b'"x"'))],
    "an explicit call": [(post("/restate/call/S/echo", "hi"), ok(b'"hi"'))],
    "an explicit call, slash": [(post("/restate/call/S/echo/", "hi"), ok(b'"hi"'))],
    "an explicit call of an object": [(get("/restate/call/O/k/key"), ok(b'"k"'))],
    "slashes before an explicit call": [(post("//restate/call/S/echo", "hi"), ok(b'"hi"'))],
    "a key is decoded": [(get("/O/a%2Fb%20c+d%C3%A9/key"), ok(b'"a/b c+d\\u00e9"'))],
    "a key with a stray percent sign": [(get("/O/%zz/key"), ok(b'"%zz"')), (get("/O/%/key"), ok(b'"%"'))],
    "an empty key": [(get("/O//key"), ok(b'""')), (get("/restate/call/O//key"), ok(b'""'))],
    "a key called send": [(get("/O/send/key"), ok(b'"send"'))],
    "a key that is not UTF-8": [
        (get("/O/%ff/key"), refused(400, Starts("bad path, cannot decode key: "))),
        (get("/O/%ff/nope"), refused(400, Starts("bad path, cannot decode key: "))),
    ],
    "a result without type": [(post("/S/untyped", 1), ok(b"1", None))],
    "no result": [(post("/S/void"), ok(b"", None))],
    "bytes": [
        (post("/S/raw", b"\x00\xff", "application/octet-stream"), ok(b"\x00\xff", "application/octet-stream")),
    ],
    "bytes, none": [(post("/S/raw"), ok(b"", None))],
    "a body that is no JSON is the handler's matter": [
        (
            post("/S/echo", b"{bad"),
            failed(
                500,
                "Unable to parse an input argument. "
                "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            ),
        ),
    ],
    "content-encoding is not looked at": [(post("/S/echo", "hi", content_encoding="gzip"), ok(b'"hi"'))],
    "another protocol is offered": [
        (post("/S/echo", "hi", connection="Upgrade, HTTP2-Settings", upgrade="h2c", http2_settings="AAM"), ok(b'"hi"')),
        (get("/S/void", connection="upgrade", upgrade="websocket", sec_websocket_version="13"), ok(b"", None)),
    ],
    "other parameters are not looked at": [(post("/S/echo?x&y=%ff&=&&", "hi"), ok(b'"hi"'))],
}

SENDS: dict[str, list[Step]] = {
    "a send": [(post("/S/echo/send", "hi"), accepted())],
    "a send by GET": [(get("/S/echo/send"), accepted())],
    "a send, trailing slash": [(post("/S/echo/send/", "hi"), accepted())],
    "a send to an object": [(get("/O/x/key/send"), accepted())],
    "an explicit send": [(post("/restate/send/S/echo", "hi"), accepted())],
    "an explicit send to an object": [(get("/restate/send/O/x/key"), accepted())],
    "an explicit send, delayed": [(get("/restate/send/O/x/key?delay=PT1H"), accepted(due_in=HOUR))],
    "a delay": [(post("/S/echo/send?delay=1h", "hi"), accepted(due_in=HOUR))],
    "a delay in words": [(post("/S/echo/send?delay=1+day%202h", "hi"), accepted(due_in=timedelta(hours=26)))],
    "no delay at all": [(post("/S/echo/send?delay=0s", "hi"), accepted(due_in=timedelta()))],
    "zero needs no unit": [(post("/S/echo/send?delay=0", "hi"), accepted(due_in=timedelta()))],
    "the first delay counts": [(post("/S/echo/send?delay=1h&delay=1d", "hi"), accepted(due_in=HOUR))],
    "delay in any case": [(post("/S/echo/send?Delay=1h", "hi"), accepted(due_in=HOUR))],
    "delay, encoded": [(post("/S/echo/send?d%65lay=1h", "hi"), accepted(due_in=HOUR))],
    "a bare number": [
        (
            post("/S/echo/send?delay=3600000", "hi"),
            Differs(
                restate=refused(400, Starts(BAD_DELAY)),
                holdfast=accepted(due_in=HOUR),
                why="the SDK's client sends milliseconds",
            ),
        ),
    ],
    "an empty delay": [
        (post("/S/echo/send?delay", "hi"), refused(400, Starts(BAD_DELAY))),
        (post("/S/echo/send?delay=", "hi"), refused(400, Starts(BAD_DELAY))),
    ],
    "a negative delay": [(post("/S/echo/send?delay=-1s", "hi"), refused(400, Starts(BAD_DELAY)))],
    "months have no fixed length": [
        (post("/S/echo/send?delay=P1M", "hi"), refused(400, BAD_DELAY + "please use units of days or smaller")),
        (post("/S/echo/send?delay=1y", "hi"), refused(400, BAD_DELAY + "please use units of days or smaller")),
    ],
    "rubbish after the delay": [(post("/S/echo/send?delay=2s;", "hi"), refused(400, Starts(BAD_DELAY)))],
    "a delay that is not UTF-8": [(post("/S/echo/send?delay=%ff", "hi"), refused(400, Starts(BAD_DELAY)))],
    "a delay on a call": [(post("/S/echo?delay=1s", "hi"), refused(400, DELAY_ON_CALL))],
    "a delay on an explicit call": [(get("/restate/call/O/x/key?delay=PT1S"), refused(400, DELAY_ON_CALL))],
    "a bad delay on a call": [(post("/S/echo?delay=zz", "hi"), refused(400, Starts(BAD_DELAY)))],
}

IDEMPOTENCY: dict[str, list[Step]] = {
    "the same key again": [
        (post("/S/echo", "a", idempotency_key="i1"), ok(b'"a"', invocation="first")),
        (post("/S/echo", "b", idempotency_key="i1"), ok(b'"a"', invocation="first", expires=True)),
        (post("/S/echo/send", "c", idempotency_key="i1"), accepted("PreviouslyAccepted", invocation="first")),
        (post("/S/echo/send?delay=1h", "c", idempotency_key="i1"), accepted("PreviouslyAccepted", invocation="first")),
    ],
    "the same key for another handler": [
        (post("/S/echo", "a", idempotency_key="i2"), ok(b'"a"', invocation="first")),
        (post("/S/untyped", "b", idempotency_key="i2"), ok(b'"b"', None)),
    ],
    "an object": [
        (post("/O/i1/add", 2, idempotency_key="i"), ok(b"2", invocation="first")),
        (post("/O/i1/add", 2, idempotency_key="i"), ok(b"2", invocation="first", expires=True)),
        (post("/O/i2/add", 3, idempotency_key="i"), ok(b"3")),
    ],
    "a shared handler of a workflow": [
        (post("/W/i1/go", "x", idempotency_key="i"), ok(b"", None, invocation="first")),
        (post("/W/i1/go", "y", idempotency_key="i"), ok(b"", None, invocation="first", expires=True)),
    ],
    "a scheduled one": [
        (
            post("/S/echo/send?delay=1h", "a", idempotency_key="i3"),
            accepted(invocation="first", due_in=HOUR),
        ),
        (
            post("/S/echo/send?delay=2h", "a", idempotency_key="i3"),
            accepted("PreviouslyAccepted", invocation="first", due_in=HOUR),
        ),
        (
            post("/S/echo/send", "a", idempotency_key="i3"),
            accepted("PreviouslyAccepted", invocation="first", due_in=HOUR),
        ),
    ],
    "a failed one": [
        (post("/S/fail", {"code": 418, "message": "m"}, idempotency_key="i4"), failed(418, "m", invocation="first")),
        (
            post("/S/fail", {"code": 400, "message": "n"}, idempotency_key="i4"),
            failed(418, "m", invocation="first", expires=True),
        ),
    ],
    "an empty key is a key": [
        (post("/S/echo", "a", idempotency_key=""), ok(b'"a"', invocation="first")),
        (post("/S/echo", "b", idempotency_key=""), ok(b'"a"', invocation="first", expires=True)),
        (get("/restate/invocation/S/echo//output"), ok(b'"a"', invocation="first", expires=True)),
    ],
    "space around a key": [
        (post("/S/echo", "a", idempotency_key=" a b "), ok(b'"a"', invocation="first")),
        (post("/S/echo", "b", idempotency_key="a b"), ok(b'"a"', invocation="first", expires=True)),
    ],
    "not ASCII": [
        (post("/S/echo", "a", idempotency_key="é".encode()), refused(400, Starts("bad header idempotency-key: "))),
    ],
    "on a workflow run": [
        (post("/W/i2/run", "x", idempotency_key="i"), refused(400, KEY_ON_WORKFLOW)),
        (post("/W/i2/run/send", "x", idempotency_key="i"), refused(400, KEY_ON_WORKFLOW)),
        (get("/restate/workflow/W/i2/output"), NOT_FOUND),
    ],
}

FAILURES: dict[str, list[Step]] = {
    **{
        f"code {code}": [(post("/S/fail", {"code": code, "message": "bad thing"}), failed(code, "bad thing"))]
        for code in (200, 205, 299, 400, 409, 418, 470, 500, 599, 600, 999)
    },
    **{
        f"code {code} is no status": [
            (post("/S/fail", {"code": code, "message": "m"}), failed(code, "m", status=500)),
        ]
        for code in (99, 1000, 65535)
    },
    **{
        f"code {code} has no body": [
            (
                post("/S/fail", {"code": code, "message": "m"}),
                Expect(code, {"x-restate-error-source": "invocation", "content-type": JSON}, b"", invocation="new"),
            ),
        ]
        for code in (204, 304)
    },
    "code 100": [
        (
            post("/S/fail", {"code": 100, "message": "m"}),
            Differs(
                restate=Expect(500, body=b"", cors=False),
                holdfast=failed(100, "m", status=500),
                why="1xx cannot be an answer; the server breaks off, we show it as other codes that are no status",
            ),
        ),
    ],
    "a message of any characters": [
        (
            post("/S/fail", {"code": 400, "message": 'm é "q" \u2028 </x> \x01'}),
            Expect(
                400,
                {"x-restate-error-source": "invocation", "content-type": JSON},
                '{"code":400,"message":"m é \\"q\\" \u2028 </x> \\u0001","source":"invocation"}'.encode(),
                invocation="new",
            ),
        ),
    ],
    "metadata, sorted": [
        (
            post("/S/fail", {"code": 418, "message": "", "metadata": {"z": "1", "b": "2", "a": "3"}}),
            Expect(
                418,
                {"x-restate-error-source": "invocation", "content-type": JSON},
                b'{"code":418,"message":"","metadata":{"a":"3","b":"2","z":"1"},"source":"invocation"}',
                invocation="new",
            ),
        ),
    ],
    "no metadata": [
        (post("/S/fail", {"code": 418, "message": "m", "metadata": {}}), failed(418, "m")),
    ],
}

WORKFLOWS: dict[str, list[Step]] = {
    "run again": [
        (post("/W/w1/run", "x"), ok(b'"x"', invocation="run")),
        (post("/W/w1/run", "x"), failed(409, ALREADY_INVOKED, invocation="run")),
        (post("/W/w1/run/send", "x"), accepted("PreviouslyAccepted", invocation="run")),
    ],
    "run again while live": [
        (post("/W/w2/run/send", "wait"), accepted(invocation="run")),
        (post("/W/w2/run/send", "wait"), accepted("PreviouslyAccepted", invocation="run")),
        (post("/W/w2/run", "wait"), failed(409, ALREADY_INVOKED, invocation="run")),
        (get("/restate/workflow/W/w2/output"), NOT_READY),
        (post("/W/w2/go", "done"), ok(b"", None)),
        (get("/restate/workflow/W/w2/attach"), Expect(200, {"content-type": JSON}, b'"done"', "run", expires=None)),
        (get("/restate/workflow/W/w2/output"), ok(b'"done"', invocation="run", expires=True)),
    ],
    "scheduled": [
        (post("/W/w3/run/send?delay=1h", "x"), accepted(invocation="run", due_in=HOUR)),
        (post("/W/w3/run/send?delay=2h", "x"), accepted("PreviouslyAccepted", invocation="run", due_in=HOUR)),
        (post("/W/w3/run", "x"), failed(409, ALREADY_INVOKED, invocation="run")),
        (get("/restate/workflow/W/w3/output"), NOT_READY),
    ],
    "the key is decoded": [
        (post("/W/w%204/run", "x"), ok(b'"x"', invocation="run")),
        (get("/restate/workflow/W/w%20%34/output"), ok(b'"x"', invocation="run", expires=True)),
    ],
}

RESULTS: dict[str, list[Step]] = {
    "what is kept without a journal": [
        (post("/S/unlogged", "x"), ok(b'"x"', invocation="a")),
        (get("/restate/output/{a}"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/attach/{a}"), ok(b'"x"', invocation="a", expires=True)),
    ],
    "what is not kept": [
        (post("/S/forgotten", "x"), ok(b'"x"', invocation="a")),
        (get("/restate/output/{a}"), NOT_FOUND),
        (get("/restate/attach/{a}"), failed(404, "not found", invocation="a")),
        (post("/S/forgotten", "x", idempotency_key="r9"), ok(b'"x"', invocation="b")),
        (get("/restate/output/{b}"), NOT_FOUND),
    ],
    "by id": [
        (post("/S/echo", "x"), ok(b'"x"', invocation="a")),
        (get("/restate/attach/{a}"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/output/{a}"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/output/{a}/"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/invocation/{a}/attach"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/invocation/{a}/output"), ok(b'"x"', invocation="a", expires=True)),
        (
            post("/restate/output", {"target": "invocation", "invocationId": "{a}"}),
            ok(b'"x"', invocation="a", expires=True),
        ),
        (
            post("/restate/attach", {"target": "invocation", "invocationId": "{a}"}),
            ok(b'"x"', invocation="a", expires=True),
        ),
        (post("/restate/lookup", {"target": "invocation", "invocationId": "{a}"}), found("a")),
    ],
    "by idempotency key": [
        (post("/S/echo", "x", idempotency_key="r1"), ok(b'"x"', invocation="a")),
        (get("/restate/invocation/S/echo/r1/attach"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/invocation/S/echo/r1/output"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/invocation/S/echo/r1/output/more"), ok(b'"x"', invocation="a", expires=True)),
        (
            post(
                "/restate/output",
                {"target": "idempotentInvocation", "service": "S", "handler": "echo", "idempotencyKey": "r1"},
            ),
            ok(b'"x"', invocation="a", expires=True),
        ),
        (
            post(
                "/restate/lookup",
                {
                    "target": "idempotentInvocation",
                    "service": "S",
                    "key": None,
                    "handler": "echo",
                    "idempotencyKey": "r1",
                },
                None,
            ),
            found("a"),
        ),
    ],
    "an idempotency key in a path is taken literally": [
        (post("/S/echo", "x", idempotency_key="r%202"), ok(b'"x"', invocation="a")),
        (post("/S/echo", "y", idempotency_key="r 2"), ok(b'"y"', invocation="b")),
        (get("/restate/invocation/S/echo/r%202/output"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/invocation/S/echo/%ff/output"), NOT_FOUND),
    ],
    "by key and idempotency key": [
        (post("/O/k%20r/key", idempotency_key="r3"), ok(b'"k r"', invocation="a")),
        (get("/restate/invocation/O/k%20r/key/r3/output"), ok(b'"k r"', invocation="a", expires=True)),
        (
            post(
                "/restate/output",
                {
                    "target": "idempotentInvocation",
                    "service": "O",
                    "key": "k r",
                    "handler": "key",
                    "idempotencyKey": "r3",
                },
            ),
            ok(b'"k r"', invocation="a", expires=True),
        ),
    ],
    "by workflow": [
        (post("/W/r1/run", "x"), ok(b'"x"', invocation="a")),
        (get("/restate/workflow/W/r1/output"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/workflow/W/r1/attach"), ok(b'"x"', invocation="a", expires=True)),
        (get("/restate/workflow/W/r1/output/more"), ok(b'"x"', invocation="a", expires=True)),
        (
            post("/restate/attach", {"target": "workflow", "workflowName": "W", "workflowKey": "r1"}),
            ok(b'"x"', invocation="a", expires=True),
        ),
        (lookup(target="workflow", workflowName="W", workflowKey="r1", scope=None, more=1), found("a")),
    ],
    "of every output type": [
        (post("/S/raw", b"x", "application/octet-stream"), ok(b"x", "application/octet-stream", invocation="a")),
        (get("/restate/output/{a}"), ok(b"x", "application/octet-stream", invocation="a", expires=True)),
        (get("/restate/attach/{a}"), ok(b"x", "application/octet-stream", invocation="a", expires=True)),
        (post("/S/untyped", 1), ok(b"1", None, invocation="b")),
        (get("/restate/output/{b}"), ok(b"1", None, invocation="b", expires=True)),
        (post("/S/void"), ok(b"", None, invocation="c")),
        (get("/restate/output/{c}"), ok(b"", None, invocation="c", expires=True)),
    ],
    "of a failed one": [
        (
            post("/S/fail", {"code": 418, "message": "m", "metadata": {"a": "b"}}),
            failed(418, "m", metadata={"a": "b"}, invocation="a"),
        ),
        (get("/restate/output/{a}"), failed(418, "m", metadata={"a": "b"}, invocation="a", expires=True)),
        (get("/restate/attach/{a}"), failed(418, "m", metadata={"a": "b"}, invocation="a", expires=True)),
    ],
    "of a live one": [
        (post("/S/wait/send", "x"), accepted(invocation="a")),
        (get("/restate/output/{a}"), NOT_READY),
        (get("/restate/invocation/{a}/output"), NOT_READY),
        (post("/restate/output", {"target": "invocation", "invocationId": "{a}"}), NOT_READY),
    ],
    "of an unknown one": [
        (get(f"/restate/output/{UNKNOWN_ID}"), NOT_FOUND),
        (get(f"/restate/invocation/{UNKNOWN_ID}/output"), NOT_FOUND),
        (get(f"/restate/attach/{UNKNOWN_ID}"), failed(404, "not found")),
        (get(f"/restate/invocation/{UNKNOWN_ID}/attach"), failed(404, "not found")),
        (get("/restate/invocation/S/echo/unknown/output"), NOT_FOUND),
        (get("/restate/invocation/S/nope/unknown/output"), NOT_FOUND),
        (get("/restate/invocation/P/hidden/unknown/output"), NOT_FOUND),
        (get("/restate/invocation/O//key//output"), NOT_FOUND),
        (get("/restate/invocation/O/x/add/unknown/attach"), failed(404, "not found")),
        (get("/restate/workflow/W/unknown/output"), NOT_FOUND),
        (get("/restate/workflow/Nope/unknown/output"), NOT_FOUND),
        (get("/restate/workflow/S/unknown/output"), NOT_FOUND),
        (get("/restate/workflow//x/output"), NOT_FOUND),
        (get("/restate/workflow/W/unknown/attach"), failed(404, "not found")),
        (post("/restate/output", {"target": "invocation", "invocationId": UNKNOWN_ID}), NOT_FOUND),
        (post("/restate/attach", {"target": "invocation", "invocationId": UNKNOWN_ID}), failed(404, "not found")),
        (
            post("/restate/output", {"target": "workflow", "workflowName": "W", "workflowKey": "r1", "scope": "s"}),
            NOT_FOUND,
        ),
    ],
    "lookup does not ask whether it exists": [
        (
            lookup(target="invocation", invocationId=UNKNOWN_ID),
            Expect(200, {"content-type": JSON}, b'{"invocationId":"%s"}' % UNKNOWN_ID.encode()),
        ),
        (
            lookup(target="workflow", workflowName="W", workflowKey="w1"),
            Expect(200, {"content-type": JSON}, b'{"invocationId":"inv_12kpUQONmeFb0f6RCQUL06M6iQaCnI02st"}'),
        ),
    ],
    "targets that are none": [
        (Ask("POST", "/restate/lookup", body), refused(500, Starts("cannot read body: invalid lookup body: ")))
        for body in (
            b"",
            b"{",
            b"\xff",
            b"[]",
            b'"x"',
            b"null",
            b"{}",
            b'{"target":null}',
            b'{"target":"nope"}',
            b'{"target":"workflow"}',
            b'{"target":"workflow","workflowName":1,"workflowKey":"w"}',
            b'{"target":"workflow","workflowName":"W","workflowKey":"w","scope":5}',
            b'{"target":"invocation"}',
            b'{"target":"invocation","invocationId":5}',
            b'{"target":"idempotentInvocation","service":"O","key":5,"handler":"h","idempotencyKey":"k"}',
            b'{"target":"workflow","workflowName":"W","workflowKey":"w"} x',
        )
    ],
    "targets that are none, of attach and output": [
        (post("/restate/attach", b"{"), refused(500, Starts("cannot read body: invalid request body: "))),
        (post("/restate/output", b"{"), refused(500, Starts("cannot read body: invalid request body: "))),
    ],
    "targets with a bad id": [
        (
            post(f"/restate/{verb}", {"target": "invocation", "invocationId": "inv_bad"}),
            bad_id("invocation", "inv_bad", "unrecognized codec version"),
        )
        for verb in ("attach", "output", "lookup")
    ],
}

_MALFORMED_INVOCATIONS = {
    "bad": "bad format",
    "inv_bad": "unrecognized codec version",
    "inv_": "bad length",
    "inv_1": "bad length",
    "inv_2drmoFJNGl3m6thcNbXQRBKccQJos4eYDG": "unrecognized codec version",
    "inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYD": "bad length",
    "inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDGG": "bad length",
    "inv_1!rmoFJNGl3m6thcNbXQRBKccQJos4eYDG": "base62 decode error",
    "inv_1ZZZZZZZZZZZ6thcNbXQRBKccQJos4eYDG": "base62 decode error",
    "inv_1drmoFJNGl3mZZZZZZZZZZZZZZZZZZZZZZ": "base62 decode error",
    "dp_14Ky6dLCXPKnOHrq4f8Dp97": "id doesn't match the expected type",
    "dp_1": "id doesn't match the expected type",
    AWAKEABLE_ID: "id doesn't match the expected type",
    "xx_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG": "unrecognized resource type: xx",
    "INV_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG": "unrecognized resource type: INV",
    "_1abc": "unrecognized resource type: ",
    "inv-1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG": "bad format",
    "inv_%31drmoFJNGl3m6thcNbXQRBKccQJos4eYDG": "unrecognized codec version",
    "in%20v": "bad format",
}
_MALFORMED_AWAKEABLES = {
    "": "bad length",
    "bogus": "bad format",
    "sign_": "bad length",
    "sign_bad": "unrecognized codec version",
    "sign_2h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ": "unrecognized codec version",
    "sign_1": "id doesn't match the expected type",
    "sign_1zz": "id doesn't match the expected type",
    "sign_1!!!!": "id doesn't match the expected type",
    "sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAE": "id doesn't match the expected type",
    "sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQA": "id doesn't match the expected type",
    UNKNOWN_ID: "id doesn't match the expected type",
    "xx_1h8K": "unrecognized resource type: xx",
    "sign%5F1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ": "bad format",
}

IDS: dict[str, list[Step]] = {
    **{
        f"invocation id {text!r}": [(get(f"/restate/output/{text}"), bad_id("invocation", text, reason))]
        for text, reason in _MALFORMED_INVOCATIONS.items()
    },
    **{
        f"awakeable id {text!r}": [
            (post(f"/restate/awakeables/{text}/resolve", 1), bad_id("awakeable", text, reason)),
        ]
        for text, reason in _MALFORMED_AWAKEABLES.items()
    },
    "in every place": [
        (get("/restate/attach/inv_bad"), bad_id("invocation", "inv_bad", "unrecognized codec version")),
        (get("/restate/invocation/inv_bad/attach"), bad_id("invocation", "inv_bad", "unrecognized codec version")),
        (get("/restate/invocation/inv_bad/output"), bad_id("invocation", "inv_bad", "unrecognized codec version")),
        (get("/restate/invocation/O/output"), bad_id("invocation", "O", "bad format")),
        (get("/restate/invocation//output"), bad_id("invocation", "", "bad length")),
        (post("/restate/a/bogus/reject", b"x"), bad_id("awakeable", "bogus", "bad format")),
    ],
    "an id is looked at before the method, an awakeable's after": [
        (Ask("PUT", "/restate/attach/bad"), bad_id("invocation", "bad", "bad format")),
        (Ask("PUT", "/restate/invocation/bad/output"), bad_id("invocation", "bad", "bad format")),
        (Ask("PUT", "/restate/awakeables/bogus/resolve"), NO_METHOD),
    ],
}

AWAKEABLES: dict[str, list[Step]] = {
    "of an unknown invocation": [
        (post(f"/restate/awakeables/{AWAKEABLE_ID}/resolve", "x"), Expect(202)),
        (post(f"/restate/awakeables/{AWAKEABLE_ID}/reject", b"nope", "text/plain"), Expect(202)),
        (post(f"/restate/a/{AWAKEABLE_ID}/resolve", "x"), Expect(202)),
        (post(f"/restate/a/{AWAKEABLE_ID}/reject", b"\xff\xfe", None), Expect(202)),
    ],
    "any body and type, also none": [
        (post(f"/restate/a/{AWAKEABLE_ID}/resolve"), Expect(202)),
        (post(f"/restate/a/{AWAKEABLE_ID}/resolve", b"\xff", "text/weird"), Expect(202)),
        (post(f"/restate/a/{AWAKEABLE_ID}/reject"), Expect(202)),
    ],
    "more path": [(post(f"/restate/a/{AWAKEABLE_ID}/resolve/more"), Expect(202))],
    "other paths": [
        (post(f"/restate/a/{AWAKEABLE_ID}/foo"), NO_ROUTE),
        (post(f"/restate/awakeables/{AWAKEABLE_ID}"), refused(400, BAD_AWAKEABLE)),
        (post(f"/restate/awakeables/{AWAKEABLE_ID}/"), refused(400, BAD_AWAKEABLE)),
        (post("/restate/awakeables"), refused(400, BAD_AWAKEABLE)),
        (post("/restate/a"), refused(400, BAD_AWAKEABLE)),
    ],
    "other methods": [
        (get(f"/restate/awakeables/{AWAKEABLE_ID}/resolve"), NO_METHOD),
        (Ask("PUT", f"/restate/awakeables/{AWAKEABLE_ID}/reject"), NO_METHOD),
    ],
}

PATHS: dict[str, list[Step]] = {
    **{
        f"bad path {path}": [(post(path, 1), refused(400, f"bad path: {shown}"))]
        for path, shown in {
            "/": "/",
            "//": "/",
            "/openapi": "/openapi",
            "/openapi.json": "/openapi.json",
            "/restate": "/restate",
            "/restate/": "/restate",
            "/S": "/S",
            "/S/": "/S",
            "/Nope": "/Nope",
            "//Nope//": "/Nope",
        }.items()
    },
    **{
        f"bad path {path}": [(post(path, 1), refused(400, BAD_INVOKE))]
        for path in (
            "/S//echo",
            "/S/echo/x",
            "/S/echo/x/y",
            "/S/echo/send/x",
            "/S/echo/send/send",
            "/S/echo/%73end",
            "/O/a",
            "/O/a/",
            "/O/add",
            "/O/a/add/x",
            "/O/a/add/send/x",
        )
    },
    **{
        f"bad path {path}": [(post(path, 1), refused(400, BAD_RESTATE))]
        for path in (
            "/restate/call",
            "/restate/call/",
            "/restate/call/S",
            "/restate/call/S/echo/x",
            "/restate/call/O/key",
            "/restate/send",
            "/restate/send/S/echo/send",
            "/restate/scope",
            "/restate/scope/x",
            "/restate/scope/x/call",
            "/restate/scope/x/call/S",
            "/restate/scope/x/call/O/echo",
            "/restate/scope/x/foo/S/echo",
            "/restate/scope/x/attach",
            "/restate/lookup/x",
            f"/restate/attach/{UNKNOWN_ID}/x",
            f"/restate/output/{UNKNOWN_ID}/x",
        )
    },
    **{
        f"bad path {path}": [(get(path), refused(400, BAD_INVOCATION))]
        for path in (
            "/restate/invocation",
            "/restate/invocation/S",
            f"/restate/invocation/{UNKNOWN_ID}",
            f"/restate/invocation/{UNKNOWN_ID}/",
            "/restate/invocation/S/echo/k",
            "/restate/invocation/O/echo/k/output",
            "/restate/invocation/O/x/output",
            "/restate/invocation/O/x/add/output",
            "/restate/invocation/O/x/add/k",
        )
    },
    **{
        f"bad path {path}": [(get(path), refused(400, BAD_WORKFLOW))]
        for path in ("/restate/workflow", "/restate/workflow/W", "/restate/workflow/W/w1")
    },
    **{
        f"no such path {path}": [(get(path), NO_ROUTE)]
        for path in (
            "/restate/foo",
            "/restate/openapi",
            "/restate/services/S/openapi",
            f"/restate/signals/{UNKNOWN_ID}/name",
            "/restate/promises/W/w1/name/resolve",
            f"/restate/cancel/{UNKNOWN_ID}",
            "/restate//call/S/echo",
            f"/restate/invocation/{UNKNOWN_ID}/foo",
            "/restate/invocation/S/echo",
            "/restate/invocation/S/echo/k/foo",
            "/restate/invocation/O/x/add/k/foo",
            "/restate/workflow/W/w1/foo",
        )
    },
    **{
        f"unknown service {path}": [(post(path, 1), no_service(name))]
        for path, name in {
            "/Nope/x": "Nope",
            "/Nope/a/b/c/d": "Nope",
            "/%53/echo": "%53",
            "/Restate/call/S/echo": "Restate",
            "/restate/call/Nope": "Nope",
            "/restate/send/Nope/x": "Nope",
            "/restate/call//S/echo": "",
            "/restate/scope/x/call/Nope/echo": "Nope",
            "/restate/scope//call/Nope/echo": "Nope",
            "/restate/invocation/Nope/echo/k/output": "Nope",
            f"/restate/invocation/{UNKNOWN_ID}/output/x": UNKNOWN_ID,
        }.items()
    },
    **{
        f"unknown handler {path}": [(post(path, 1), no_handler(service, handler))]
        for path, service, handler in (
            ("/S/nope", "S", "nope"),
            ("/S/nope/send", "S", "nope"),
            ("/S/send", "S", "send"),
            ("/S/%65cho", "S", "%65cho"),
            ("/O/a/nope", "O", "nope"),
            ("/O/a/send", "O", "send"),
            ("/P/nope", "P", "nope"),
            ("/restate/call/W/x/nope", "W", "nope"),
        )
    },
    "private": [
        (post("/P/hidden", "x"), refused(400, NOT_PUBLIC)),
        (post("/P/hidden/send", "x"), refused(400, NOT_PUBLIC)),
        (post("/S/inner", "x"), refused(400, NOT_PUBLIC)),
        (get("/restate/call/P/hidden"), refused(400, NOT_PUBLIC)),
    ],
    "scopes": [
        (post("/restate/scope/x/call/S/echo", "x"), refused(400, NO_SCOPES)),
        (post("/restate/scope/x/send/S/echo", "x"), refused(400, NO_SCOPES)),
        (post("/restate/scope//call/S/echo", "x"), refused(400, "bad scope value: value cannot be empty")),
        (post("/restate/scope/%ff/call/S/echo", "x"), refused(400, Starts("bad path, cannot decode key: "))),
    ],
    "limit keys": [
        (post("/S/echo", "x", x_restate_limit_key="a"), refused(400, LIMIT_KEY)),
        (post("/S/echo?limit-key=a", "x"), refused(400, LIMIT_KEY)),
        (post("/S/echo?Limit-Key=a", "x"), refused(400, LIMIT_KEY)),
        (post("/S/echo/send?limit-key=a", "x"), refused(400, LIMIT_KEY)),
        (post("/S/echo", "x", x_restate_limit_key=""), ok(b'"x"')),
        (post("/S/echo?limit-key=", "x"), ok(b'"x"')),
    ],
    "health": [
        (get(path), Expect(200, {"content-type": JSON}, None, services=SERVICES))
        for path in ("/restate/health", "/restate/health/", "/restate/health/x", "/restate/health?x")
    ],
}

METHODS: dict[str, list[Step]] = {
    **{
        f"{method} is no call": [(Ask(method, "/S/echo", b'"x"', {"content-type": JSON}), NO_METHOD)]
        for method in ("PUT", "DELETE", "PATCH", "TRACE")
    },
    "HEAD is no call": [
        (Ask("HEAD", "/S/echo"), Expect(405, {"x-restate-error-source": "ingress", "content-type": JSON}, b"")),
    ],
    "of the other paths": [
        (Ask("PUT", "/restate/call/S/echo"), NO_METHOD),
        (Ask("PUT", "/S/echo/send?delay=zz"), NO_METHOD),
        (post(f"/restate/attach/{UNKNOWN_ID}"), NO_METHOD),
        (post(f"/restate/output/{UNKNOWN_ID}"), NO_METHOD),
        (post(f"/restate/invocation/{UNKNOWN_ID}/output"), NO_METHOD),
        (post("/restate/invocation/S/echo/k/output"), NO_METHOD),
        (post("/restate/workflow/W/w1/output"), NO_METHOD),
        (get("/restate/attach"), NO_METHOD),
        (get("/restate/output/"), NO_METHOD),
        (get("/restate/lookup"), NO_METHOD),
        (Ask("PUT", "/restate/lookup", b"{"), NO_METHOD),
        (post("/restate/health"), NO_METHOD),
        (Ask("DELETE", "/restate/health"), NO_METHOD),
    ],
    "looked at after the path": [
        (Ask("PUT", "/openapi"), refused(400, "bad path: /openapi")),
        (Ask("PUT", "/Nope/x"), no_service("Nope")),
        (Ask("PUT", "/S/nope"), no_handler("S", "nope")),
        (Ask("PUT", "/P/hidden"), refused(400, NOT_PUBLIC)),
        (Ask("PUT", "/restate/foo"), NO_ROUTE),
        (Ask("PUT", "/restate/call"), refused(400, BAD_RESTATE)),
        (Ask("PUT", "/restate/scope/x/call/S/echo"), refused(400, NO_SCOPES)),
        (Ask("PUT", "/restate/workflow/W/k/foo"), NO_ROUTE),
        (Ask("PUT", "/restate/workflow/W/%ff/foo"), refused(400, Starts("bad path, cannot decode key: "))),
        (Ask("DELETE", "/restate/a/x"), refused(400, BAD_AWAKEABLE)),
        (Ask("PUT", "/restate/invocation/S/echo/k"), refused(400, BAD_INVOCATION)),
    ],
}

_NO_BODY_HERE = "Expected body and content-type to be empty, but wasn't with content-type "


def _typed(path: str, content_type: str, body: bytes | None = b'"x"') -> Ask:
    return Ask("POST", path, body, {"content-type": content_type})


INPUT: dict[str, list[Step]] = {
    "content type, with parameters": [
        (_typed("/S/echo", "application/json; charset=utf-8"), ok(b'"x"')),
        (_typed("/S/echo", "application/json;"), ok(b'"x"')),
        (_typed("/S/echo", " application/json "), ok(b'"x"')),
    ],
    "content type, another": [
        (_typed("/S/echo", given), invalid_input(f"Content-type '{given}' does not match 'application/json'"))
        for given in ("text/plain", "text/html;x=y", "APPLICATION/JSON", "application/*", "*/*", "garbage", "")
    ],
    "content type, another, no body": [
        (
            _typed("/S/echo", "text/plain", None),
            invalid_input("Content-type 'text/plain' does not match 'application/json'"),
        ),
    ],
    "content type, not ASCII": [
        (
            Ask("POST", path, b"x", {"content-type": b"\xff/x"}),
            refused(400, Starts("bad header content-type: ")),
        )
        for path in ("/S/echo", "/S/void", "/S/anything")
    ],
    "content type without body": [
        (_typed("/S/echo", JSON, None), invalid_input("Empty body not allowed")),
        (_typed("/S/echo", JSON, b""), invalid_input("Empty body not allowed")),
        (_typed("/S/untyped", JSON, None), invalid_input("Empty body not allowed")),
    ],
    "body without content type": [
        (Ask("POST", "/S/echo", b'"x"'), invalid_input("Empty content-type")),
        (Ask("GET", "/S/echo", b'"x"'), invalid_input("Empty content-type")),
        (Ask("POST", "/S/anything", b'"x"'), invalid_input("Empty content-type")),
    ],
    "neither body nor content type": [
        (post("/S/echo"), ok(b"", None)),
        (Ask("POST", "/S/echo", b""), ok(b"", None)),
        (post("/S/anything"), ok(b"", None)),
    ],
    "input to a handler that has none": [
        (_typed("/S/void", JSON), invalid_input(_NO_BODY_HERE + "'Some(\"application/json\")'")),
        (_typed("/S/void", JSON, None), invalid_input(_NO_BODY_HERE + "'Some(\"application/json\")'")),
        (_typed("/S/void", ""), invalid_input(_NO_BODY_HERE + "'Some(\"\")'")),
        (Ask("POST", "/S/void", b"x"), invalid_input(_NO_BODY_HERE + "'None'")),
    ],
    "any type": [
        *(
            (_typed("/S/anything", given), ok(b'"x"', "text/plain"))
            for given in (JSON, "text/plain; charset=utf-8", "*/*", "garbage", "")
        ),
        (_typed("/S/anything", "text/plain", None), invalid_input("Empty body not allowed")),
    ],
    "any text": [
        (_typed("/S/text", "text/plain"), ok(b'"x"', "text/plain")),
        (_typed("/S/text", "text/html;x=y"), ok(b'"x"', "text/plain")),
        (_typed("/S/text", JSON), invalid_input("Content-type 'application/json' does not match 'text/*'")),
        (_typed("/S/text", ""), invalid_input("Content-type '' does not match 'text/*'")),
    ],
    "sends are checked alike": [
        (
            _typed("/S/echo/send", "text/plain"),
            invalid_input("Content-type 'text/plain' does not match 'application/json'"),
        ),
    ],
}

_LATIN = b"\xe9"

ORDER: dict[str, list[Step]] = {
    "private before all but the path": [
        (
            Ask("PUT", "/P/hidden?delay=zz", b"x", {"content-type": "text/plain", "idempotency-key": _LATIN}),
            refused(400, NOT_PUBLIC),
        ),
        (post("/restate/scope//call/P/hidden", "x"), refused(400, NOT_PUBLIC)),
    ],
    "idempotency key before scope and method": [
        (
            Ask("PUT", "/S/echo", None, {"idempotency-key": _LATIN}),
            refused(400, Starts("bad header idempotency-key: ")),
        ),
        (Ask("PUT", "/W/o1/run", None, {"idempotency-key": "a"}), refused(400, KEY_ON_WORKFLOW)),
        (
            post("/restate/scope/x/call/W/o1/run", "x", idempotency_key="a"),
            refused(400, KEY_ON_WORKFLOW),
        ),
        (
            post("/W/o1/run", "x", idempotency_key=_LATIN),
            refused(400, Starts("bad header idempotency-key: ")),
        ),
    ],
    "method before input": [(Ask("PUT", "/S/echo?limit-key=a", b"x", {"x-a": _LATIN}), NO_METHOD)],
    "input before delay, limit key and headers": [
        (
            Ask("POST", "/S/echo?delay=zz&limit-key=a", b"x", {"content-type": "text/plain", "x-a": _LATIN}),
            invalid_input("Content-type 'text/plain' does not match 'application/json'"),
        ),
    ],
    "the form of the delay before limit key": [
        (post("/S/echo?limit-key=a&delay=zz", "x"), refused(400, Starts(BAD_DELAY))),
    ],
    "limit key before headers": [(post("/S/echo?limit-key=a", "x", x_a=_LATIN), refused(400, LIMIT_KEY))],
    "headers before a delay on a call": [
        (post("/S/echo?delay=1s", "x", x_a=_LATIN), refused(400, Starts("bad header x-a: "))),
        (post("/S/echo?delay=1s&limit-key=a", "x"), refused(400, LIMIT_KEY)),
    ],
}


def _stored(*pairs: tuple[str, str]) -> Expect:
    return ok(json.dumps([list(pair) for pair in pairs]).encode())


HEADERS: dict[str, list[Step]] = {
    "what the handler sees": [
        (
            Ask(
                "POST",
                "/S/headers?x=1&y=%20",
                None,
                {
                    "X-Foo": "Bar",
                    "Accept": "*/*",
                    "Idempotency-Key": "h1",
                    "idempotency-expires": "1",
                    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                    "tracestate": "a=b",
                    "User-Agent": "u",
                    "x-restate-id": "spoof",
                    "x-restate-limit-key": "",
                    "te": "trailers",
                    "connection": "close",
                    "cookie": "a=b; c=d",
                    "content-length": "0",
                    "x-empty": "",
                    "authorization": "Bearer x",
                    "accept-encoding": "gzip",
                    "x-space": "  a  b  ",
                    "x-tab": "a\tb",
                },
            ),
            _stored(
                ("x-restate-ingress-path", "/S/headers?x=1&y=%20"),
                ("x-foo", "Bar"),
                ("accept", "*/*"),
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                ("tracestate", "a=b"),
                ("user-agent", "u"),
                ("x-restate-id", "spoof"),
                ("x-restate-limit-key", ""),
                ("te", "trailers"),
                ("cookie", "a=b; c=d"),
                ("content-length", "0"),
                ("x-empty", ""),
                ("authorization", "Bearer x"),
                ("accept-encoding", "gzip"),
                ("x-space", "a  b"),
                ("x-tab", "a\tb"),
            ),
        ),
    ],
    "the path, tidied": [
        (get("//S/headers//?a"), _stored(("x-restate-ingress-path", "/S/headers?a"))),
        (get("/restate/call/S/headers?a=b"), _stored(("x-restate-ingress-path", "/restate/call/S/headers?a=b"))),
    ],
    "a caller's own path header comes second": [
        (
            post("/S/headers", x_restate_ingress_path="/spoof"),
            _stored(("x-restate-ingress-path", "/S/headers"), ("x-restate-ingress-path", "/spoof")),
        ),
    ],
    "of several with one name the first": [
        (
            Ask("POST", "/S/headers", None, {"x-a": "1", "x-b": "2", "X-A": "3"}),
            _stored(("x-restate-ingress-path", "/S/headers"), ("x-a", "1"), ("x-b", "2")),
        ),
        (
            Ask("POST", "/S/echo", b'"x"', {"content-type": "text/plain", "Content-Type": JSON}),
            invalid_input("Content-type 'text/plain' does not match 'application/json'"),
        ),
    ],
    "not ASCII": [
        (post("/S/headers", x_a=_LATIN), refused(400, Starts("bad header x-a: "))),
        (post("/S/headers", x_a="é".encode()), refused(400, Starts("bad header x-a: "))),
        (post("/S/headers", x_restate_limit_key=_LATIN), refused(400, Starts("bad header x-restate-limit-key: "))),
        (post("/S/void", idempotency_expires=_LATIN), ok(b"", None)),
        (get("/restate/health", x_a=_LATIN), Expect(200, {"content-type": JSON}, None, services=SERVICES)),
    ],
}

_ORIGIN = {"access-control-allow-origin": "http://page"}


def _with_origin(expected: Expect) -> Expect:
    return Expect(
        expected.status,
        {**expected.headers, **_ORIGIN},
        expected.body,
        invocation=expected.invocation,
        error=expected.error,
        receipt=expected.receipt,
        services=expected.services,
    )


CROSS_ORIGIN: dict[str, list[Step]] = {
    "preflight": [
        (
            Ask(
                "OPTIONS",
                "/S/echo",
                None,
                {
                    "origin": "http://page",
                    "access-control-request-method": "POST",
                    "access-control-request-headers": "content-type, x-foo",
                },
            ),
            Expect(
                200,
                {
                    **_ORIGIN,
                    "access-control-allow-methods": "POST",
                    "access-control-allow-headers": "content-type, x-foo",
                },
            ),
        ),
    ],
    "OPTIONS of anything": [
        (Ask("OPTIONS", "/nope"), Expect(200)),
        (Ask("OPTIONS", "/nope", None, {"origin": "null"}), Expect(200, {"access-control-allow-origin": "null"})),
    ],
    "every answer names the origin": [
        (post("/S/echo", "x", origin="http://page"), _with_origin(ok(b'"x"'))),
        (post("/S/echo/send", "x", origin="http://page"), _with_origin(accepted())),
        (post("/S/nope", "x", origin="http://page"), _with_origin(no_handler("S", "nope"))),
        (
            post("/S/fail", {"code": 418, "message": "m"}, origin="http://page"),
            _with_origin(failed(418, "m")),
        ),
        (get(f"/restate/output/{UNKNOWN_ID}", origin="http://page"), _with_origin(NOT_FOUND)),
        (
            get("/restate/health", origin="http://page"),
            _with_origin(Expect(200, {"content-type": JSON}, None, services=SERVICES)),
        ),
    ],
}

_TOO_LARGE = Expect(413, {"content-type": "text/plain; charset=utf-8"}, b"length limit exceeded", cors=False)
_AT_LIMIT = b'"' + b"x" * (BODY_BYTES_MAX - 2) + b'"'

LIMITS: dict[str, list[Step]] = {
    "a body of exactly the limit": [(post("/S/echo", _AT_LIMIT), ok(_AT_LIMIT))],
    "a byte more, whatever is asked for": [
        (Ask(method, path, _AT_LIMIT + b" ", {"content-type": JSON, "origin": "http://page"}), _TOO_LARGE)
        for method, path in (
            ("POST", "/S/echo"),
            ("POST", "/S/echo/send"),
            ("POST", "/Nope/echo"),
            ("PUT", "/openapi"),
            ("GET", "/restate/health"),
            ("OPTIONS", "/S/echo"),
            ("POST", "/restate/lookup"),
            ("POST", f"/restate/a/{AWAKEABLE_ID}/resolve"),
        )
    ],
    "chunked": [
        (
            Ask(
                "POST",
                path,
                b"10001\r\n" + _AT_LIMIT + b" \r\n0\r\n\r\n",
                {"content-type": JSON, "transfer-encoding": "chunked"},
            ),
            expected,
        )
        for path, expected in {
            "/S/echo": refused(413, "cannot read body: LengthLimitError"),
            "/S/void/send": refused(413, "cannot read body: LengthLimitError"),
            "/restate/lookup": refused(413, "cannot read body: LengthLimitError"),
            f"/restate/a/{AWAKEABLE_ID}/resolve": refused(413, "cannot read body: LengthLimitError"),
            "/Nope/echo": no_service("Nope"),
            "/P/hidden": refused(400, NOT_PUBLIC),
        }.items()
    ],
    "chunked, of exactly the limit": [
        (
            Ask(
                "POST",
                "/S/echo",
                b"10000\r\n" + _AT_LIMIT + b"\r\n0\r\n\r\n",
                {"content-type": JSON, "transfer-encoding": "chunked"},
            ),
            ok(_AT_LIMIT),
        ),
    ],
}

DELAYS: dict[str, list[Step]] = {
    **{
        f"{text!r}": [
            (
                post(f"/S/echo/send?delay={quote(text)}", "x"),
                accepted(due_in=timedelta(milliseconds=delay_ms)),
            ),
        ]
        for text, delay_ms in durations.VALID.items()
    },
    **{
        f"{text!r} is none": [(post(f"/S/echo/send?delay={quote(text)}", "x"), refused(400, Starts(BAD_DELAY)))]
        for text in durations.INVALID
        if text not in durations.BARE_NUMBERS
    },
}

SECTIONS = {
    "delays": DELAYS,
    "calls": CALLS,
    "sends": SENDS,
    "idempotency": IDEMPOTENCY,
    "failures": FAILURES,
    "workflows": WORKFLOWS,
    "results": RESULTS,
    "ids": IDS,
    "awakeables": AWAKEABLES,
    "paths": PATHS,
    "methods": METHODS,
    "input": INPUT,
    "order": ORDER,
    "headers": HEADERS,
    "cross-origin": CROSS_ORIGIN,
    "limits": LIMITS,
}
TABLE: dict[str, list[Step]] = {
    f"{section}: {name}": steps for section, rows in SECTIONS.items() for name, steps in rows.items()
}
