"""Input rules, stored headers, query parameters, target bodies and rendering: everything pure besides paths."""

from __future__ import annotations

import json

import pytest

from holdfast.core.model import Failure, Receipt
from holdfast.errors import InvalidRequest
from holdfast.ingress import responses
from holdfast.ingress.rules import StoredHeaders, check_input, delay_and_limit_key, header_fields
from holdfast.ingress.targets import IdempotentTarget, InvocationTarget, Target, WorkflowTarget, parse_target
from holdfast.protocol.discovery import InputRules

ANYTHING = InputRules(any_body=True)
NOTHING = InputRules(empty=True)
JSON = InputRules(content_type="application/json", non_empty=True)
OPTIONAL_JSON = InputRules(empty=True, content_type="application/json", non_empty=True)
MAYBE_EMPTY_TEXT = InputRules(content_type="text/*")
ANY_TYPE = InputRules(content_type="*/*", non_empty=True)

INPUT = {  # rules, content type, body -> the reason why it is refused, or None
    "anything: nothing": (ANYTHING, None, b"", None),
    "anything: a body without type": (ANYTHING, None, b"x", "Empty content-type"),
    "anything: a type without body": (ANYTHING, b"a/b", b"", None),
    "nothing: nothing": (NOTHING, None, b"", None),
    "nothing: a body": (NOTHING, None, b"x", "Expected body and content-type to be empty, but wasn't with content-type 'None'"),
    "nothing: a type": (NOTHING, b"a/b", b"", "Expected body and content-type to be empty, but wasn't with content-type 'Some(\"a/b\")'"),
    "json: json": (JSON, b"application/json", b"1", None),
    "json: parameters": (JSON, b"application/json ; charset=utf-8", b"1", None),
    "json: nothing": (JSON, None, b"", "Empty content-type"),
    "json: no body": (JSON, b"application/json", b"", "Empty body not allowed"),
    "json: another type": (JSON, b"a/b;c", b"1", "Content-type 'a/b;c' does not match 'application/json'"),
    "json: case": (JSON, b"Application/Json", b"1", "Content-type 'Application/Json' does not match 'application/json'"),
    "optional json: nothing": (OPTIONAL_JSON, None, b"", None),
    "optional json: no type": (OPTIONAL_JSON, None, b"1", "Empty content-type"),
    "optional json: no body": (OPTIONAL_JSON, b"application/json", b"", "Empty body not allowed"),
    "text: text": (MAYBE_EMPTY_TEXT, b"text/plain", b"x", None),
    "text: no body": (MAYBE_EMPTY_TEXT, b"text/plain", b"", None),
    "text: another type": (MAYBE_EMPTY_TEXT, b"texts/plain", b"x", "Content-type 'texts/plain' does not match 'text/*'"),
    "any type: rubbish": (ANY_TYPE, b"rubbish", b"x", None),
    "any type: none": (ANY_TYPE, None, b"x", "Empty content-type"),
}  # fmt: skip


@pytest.mark.parametrize("case", INPUT)
def test_input(case: str) -> None:
    rules, content_type, body, reason = INPUT[case]
    if reason is None:
        check_input(rules, content_type, body)
    else:
        with pytest.raises(InvalidRequest) as refusal:
            check_input(rules, content_type, body)
        assert refusal.value.message == f"input validation error: {reason}"


def test_headers_that_are_stored() -> None:
    fields = header_fields(
        [
            (b"host", b"x"),
            (b"x-a", b" 1\t"),
            (b"connection", b"close"),
            (b"x-b", b""),
            (b"x-a", b"2"),
            (b"idempotency-key", "é".encode()),
            (b"idempotency-expires", b"x"),
        ]
    )
    assert StoredHeaders().of(fields, "/S/h?x") == [("x-restate-ingress-path", "/S/h?x"), ("x-a", "1"), ("x-b", "")]


def test_a_header_that_is_not_ascii() -> None:
    with pytest.raises(InvalidRequest, match="bad header x-b: "):
        StoredHeaders().of({b"x-a": b"1", b"x-b": "é".encode()}, "/S/h")


STORED = {  # deny, allow -> what is stored of a, b and c
    "all": ((), None, "abc"),
    "denied": (("b",), None, "ac"),
    "allowed": ((), ("a", "C "), "ac"),
    "denied and allowed": (("A",), ("a", "b"), "b"),
    "nothing": ((), (), ""),
}


@pytest.mark.parametrize("case", STORED)
def test_headers_that_are_denied_or_allowed(case: str) -> None:
    deny, allow, expected = STORED[case]
    fields = {b"a": b"1", b"b": b"2", b"c": b"3"}
    assert "".join(name for name, _ in StoredHeaders(deny, allow).of(fields, "/")[1:]) == expected


def test_a_denied_header_may_hold_anything() -> None:
    assert StoredHeaders(["x-b"]).of({b"x-b": "é".encode()}, "/S/h") == [("x-restate-ingress-path", "/S/h")]


QUERIES = {
    b"": (None, False),
    b"delay=2s": (2_000, False),
    b"a&delay=1+day&delay=zz": (86_400_000, False),
    b"DELAY=5": (5, False),
    b"d%65lay=5%20ms": (5, False),
    b"limit-key=": (None, False),
    b"limit-key=a&delay=1s": (1_000, True),
    b"Limit-Key=a": (None, True),
    b"%ff=%ff&=&&": (None, False),
}


@pytest.mark.parametrize("query", QUERIES)
def test_query(query: bytes) -> None:
    assert delay_and_limit_key(query) == QUERIES[query]


TARGETS: dict[str, Target] = {
    '{"target":"invocation","invocationId":"inv_x","more":1}': InvocationTarget("inv_x"),
    '{"target":"workflow","workflowName":"W","workflowKey":""}': WorkflowTarget("W", "", None),
    '{"target":"workflow","workflowName":"W","workflowKey":"k","scope":"s"}': WorkflowTarget("W", "k", "s"),
    '{"target":"idempotentInvocation","service":"S","handler":"h","idempotencyKey":"i"}': IdempotentTarget(
        "S", None, "h", "i", None
    ),
    '{"target":"idempotentInvocation","service":"O","key":"k","handler":"h","idempotencyKey":"i"}': IdempotentTarget(
        "O", "k", "h", "i", None
    ),
}


@pytest.mark.parametrize("body", TARGETS)
def test_target(body: str) -> None:
    assert parse_target(body.encode(), "lookup") == TARGETS[body]


def test_a_target_without_a_field_names_it() -> None:
    with pytest.raises(InvalidRequest, match="cannot read body: invalid request body: missing field `workflowKey`"):
        parse_target(b'{"target":"workflow","workflowName":"W"}', "request")


STATUSES = {-1: 500, 0: 500, 99: 500, 100: 500, 199: 500, 200: 200, 404: 404, 599: 599, 600: 500, 65_536: 500}


@pytest.mark.parametrize("code", STATUSES)
def test_status_of_a_failure(code: int) -> None:
    assert responses.failure_status(Failure(code, "m")) == STATUSES[code]


def test_bodies() -> None:
    invocation_id = "inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG"
    sent = responses.receipt_body(Receipt(invocation_id, is_new=True, execution_time_ms=1_795_247_406_007))
    assert sent == (
        b'{"invocationId":"inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG",'
        b'"executionTime":"2026-11-21T07:50:06.007000000Z","status":"Accepted"}'
    )
    on_the_second = responses.receipt_body(Receipt(invocation_id, is_new=True, execution_time_ms=1_795_247_406_000))
    assert json.loads(on_the_second)["executionTime"] == "2026-11-21T07:50:06Z"
    assert json.loads(responses.receipt_body(Receipt(invocation_id, is_new=False)))["status"] == "PreviouslyAccepted"
    assert responses.expires(1_795_333_805_500) == (b"idempotency-expires", b"2026-11-22T07:50:05.500+00:00")
    assert responses.error_body(400, "half of a pair: \ud800", "ingress") == (
        b'{"code":400,"message":"half of a pair: ?","source":"ingress"}'
    )
