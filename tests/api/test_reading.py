"""Requests are read by their types: what is refused, and that the refusal names the field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.api.documents import ExecutionsQuery, PageQuery, SignalRequest, StartRequest, StopRequest, WaitQuery
from holdfast.api.reading import from_answer, from_json, from_query, parse_json
from holdfast.errors import InvalidRequest
from holdfast.providers.errors import InvalidInput
from holdfast.providers.types import (
    ExecutionError,
    ExecutionState,
    ExecutionStatus,
    HistoryEvent,
    Page,
    RetryPolicy,
    StateChange,
    SubState,
    WorkflowInfo,
)

NOW = datetime(2025, 12, 31, 23, 59, 0, 250_000, tzinfo=UTC)

ACCEPTED: dict[str, tuple[Any, Any, Any]] = {
    "nothing": (StartRequest, {}, StartRequest()),
    "all fields": (
        StartRequest,
        {"execution_name": "n", "input": [1], "tags": {"a": "b"}, "metadata": {"c": [None]}, "trigger_source": "x"},
        StartRequest(execution_name="n", input=[1], tags={"a": "b"}, metadata={"c": [None]}, trigger_source="x"),
    ),
    "null where a field is optional": (StartRequest, {"execution_name": None}, StartRequest()),
    "a duration as text": (StopRequest, {"grace": "1m 30s"}, StopRequest(grace=timedelta(seconds=90))),
    "a duration as seconds": (StopRequest, {"grace": 2.5}, StopRequest(grace=timedelta(seconds=2.5))),
    "a duration as ISO 8601": (StopRequest, {"grace": "PT2M"}, StopRequest(grace=timedelta(minutes=2))),
    "a required field": (SignalRequest, {"name": "go"}, SignalRequest(name="go")),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_bodies_that_are_accepted(case: str) -> None:
    kind, document, expected = ACCEPTED[case]
    assert from_json(kind, document) == expected


REFUSED: dict[str, tuple[Any, Any, str, str]] = {
    "a list": (StartRequest, [], "body", "must be a JSON object, not a list"),
    "text": (StartRequest, "x", "body", "not the text 'x'"),
    "an empty name": (SignalRequest, {"name": ""}, "name", "must not be empty"),
    "an unknown field": (StartRequest, {"name": "x"}, "name", "is no field of this request"),
    "a missing field": (SignalRequest, {}, "name", "is required"),
    "null where a field is not optional": (StopRequest, {"reason": None}, "reason", "must be text, not null"),
    "a number for text": (StartRequest, {"execution_name": 7}, "execution_name", "must be text, not the number 7"),
    "text for true or false": (StopRequest, {"kill": "yes"}, "kill", "must be true or false, not the text 'yes'"),
    "a number for true or false": (StopRequest, {"kill": 1}, "kill", "must be true or false"),
    "a tag that is no text": (StartRequest, {"tags": {"a": 1}}, "tags.a", "must be text"),
    "tags that are no object": (StartRequest, {"tags": ["a"]}, "tags", "must be an object, not a list"),
    "a duration without unit": (StopRequest, {"grace": "30"}, "grace", "unit"),
    "a duration below zero": (StopRequest, {"grace": -1}, "grace", "not above zero"),
    "a duration beyond all limits": (StopRequest, {"grace": 1e300}, "grace", ""),
    "a duration below a millisecond": (StopRequest, {"grace": 0.0001}, "grace", "from 1ms to 2500000d"),
    "a duration of true": (StopRequest, {"grace": True}, "grace", "no duration"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bodies_that_are_refused(case: str) -> None:
    kind, document, field, message = REFUSED[case]
    with pytest.raises(InvalidInput) as refusal:
        from_json(kind, document)
    assert refusal.value.field == field
    assert message in refusal.value.message


QUERIES: dict[str, tuple[Any, list[tuple[str, str]], Any]] = {
    "nothing": (ExecutionsQuery, [], ExecutionsQuery()),
    "a state": (ExecutionsQuery, [("state", "running")], ExecutionsQuery(state=(ExecutionState.RUNNING,))),
    "several states": (
        ExecutionsQuery,
        [("state", "running"), ("state", "failed")],
        ExecutionsQuery(state=(ExecutionState.RUNNING, ExecutionState.FAILED)),
    ),
    "a time": (ExecutionsQuery, [("created_after", "2025-12-31T23:59:00.250Z")], ExecutionsQuery(created_after=NOW)),
    "a time whose plus became a blank": (
        ExecutionsQuery,
        [("created_after", "2026-01-01T00:59:00.250 01:00")],
        ExecutionsQuery(created_after=NOW),
    ),
    "a page": (PageQuery, [("limit", "7"), ("cursor", "x")], PageQuery(limit=7, cursor="x")),
    "seconds": (WaitQuery, [("timeout", "1.5")], WaitQuery(timeout=timedelta(seconds=1.5))),
    "a duration": (WaitQuery, [("timeout", "2m")], WaitQuery(timeout=timedelta(minutes=2))),
}


@pytest.mark.parametrize("case", QUERIES)
def test_queries_that_are_accepted(case: str) -> None:
    kind, items, expected = QUERIES[case]
    assert from_query(kind, items) == expected


REFUSED_QUERIES: dict[str, tuple[Any, list[tuple[str, str]], str, str]] = {
    "an unknown parameter": (PageQuery, [("page", "1")], "page", "is no parameter of this request"),
    "a parameter given twice": (PageQuery, [("limit", "1"), ("limit", "2")], "limit", "is given 2 times"),
    "a limit of zero": (PageQuery, [("limit", "0")], "limit", "must be 1 to 1000, not 0"),
    "a limit that is too large": (PageQuery, [("limit", "1001")], "limit", "must be 1 to 1000, not 1001"),
    "a limit beyond all limits": (PageQuery, [("limit", "9" * 5000)], "limit", "must be a whole number"),
    "a limit in other digits": (PageQuery, [("limit", "٣")], "limit", "must be a whole number"),
    "an unknown state": (ExecutionsQuery, [("state", "done")], "state", "pending, running, paused, succeeded"),
    "a time without zone": (ExecutionsQuery, [("created_after", "2025-12-31T23:59:00")], "created_after", "zone"),
    "a time before all others": (
        ExecutionsQuery,
        [("created_before", "0001-01-01T00:00:00+23:00")],
        "created_before",
        "zone",
    ),
    "no time": (ExecutionsQuery, [("created_before", "yesterday")], "created_before", "'yesterday' is no time"),
    "no waiting": (WaitQuery, [("timeout", "0")], "timeout", "not above zero"),
}


@pytest.mark.parametrize("case", REFUSED_QUERIES)
def test_queries_that_are_refused(case: str) -> None:
    kind, items, field, message = REFUSED_QUERIES[case]
    with pytest.raises(InvalidInput) as refusal:
        from_query(kind, items)
    assert refusal.value.field == field
    assert message in refusal.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b'{"input": NaN}',
        b'{"input": 1e999}',
        b'{"input": "\\ud83d"}',
        b"[" * 100_000,
        b'{"input": ' + b"9" * 10_000 + b"}",
    ],
    ids=["open", "not UTF-8", "NaN", "infinite", "half a surrogate pair", "nested", "digits"],
)
def test_bodies_that_are_not_json_everywhere(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the body is") as refusal:
        parse_json(body)
    assert refusal.value.status == 400


STATUS = ExecutionStatus(
    execution_id="w.e",
    workflow_id="w",
    execution_name="e",
    provider_type="embedded",
    state=ExecutionState.FAILED,
    sub_state=SubState.FAILED,
    created_at=NOW,
    start_time=NOW,
    stop_time=NOW,
    input={"a": [1]},
    error=ExecutionError(code=418, message="teapot", failed_at=NOW),
    kv_state={"progress": 1},
    history=(HistoryEvent(timestamp=NOW, type="Command: Run", name="greet", details={"index": 1}),),
    tags={"a": "b"},
)
INFO = WorkflowInfo(
    workflow_id="w",
    provider_type="embedded",
    name="W",
    definition={"reference": "a:b"},
    service_name="w",
    service_type="workflow",
    handler="run",
    handlers=("run", "ask"),
    deployment_id="dp_1",
    created_at=NOW,
    timeout=timedelta(minutes=90),
    retry_policy=RetryPolicy(max_attempts=2, max_interval=timedelta(seconds=5)),
)
CHANGE = StateChange(
    execution_id="w.e", from_state=None, to_state=ExecutionState.PAUSED, sub_state=SubState.PAUSED, at=NOW, progress=[1]
)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(ExecutionStatus, STATUS), (WorkflowInfo, INFO), (StateChange, CHANGE)],
    ids=["status", "info", "change"],
)
def test_answers_are_read_back_as_they_were(kind: Any, value: Any) -> None:
    assert from_answer(kind, value.to_json()) == value


def test_pages_are_read_back_as_they_were() -> None:
    page = Page(items=(STATUS, STATUS), next_cursor="x")
    assert from_answer(Page[ExecutionStatus], page.to_json()) == page


def test_a_newer_server_may_tell_more() -> None:
    assert from_answer(StateChange, CHANGE.to_json() | {"mood": "good"}) == CHANGE
