"""The JSON forms: what is read, what is refused with the field's name, what comes out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.providers import (
    ExecutionState,
    ExecutionStatus,
    InvalidSpec,
    Page,
    RetryPolicy,
    SubState,
    WorkflowSpec,
)
from holdfast.providers.validation import check_spec

RIGHT: dict[str, Any] = {"workflow_id": "w", "name": "W", "definition": "m:a"}


def test_a_spec_survives_its_json_form() -> None:
    spec = WorkflowSpec(
        workflow_id="w",
        name="W",
        description="does it",
        definition={"reference": "m:a", "handler": "run", "version": "2"},
        timeout=timedelta(hours=1, minutes=30),
        retry_policy=RetryPolicy(max_attempts=0, max_interval=timedelta(milliseconds=250)),
        tags={"team": "a"},
        provider_type="restate",
        provider_config={"service_name": "W"},
    )
    document = spec.to_json()
    assert document["timeout"] == "1h 30m"
    assert document["retry_policy"]["max_interval"] == "250ms"
    assert WorkflowSpec.from_json(json.loads(json.dumps(document))) == spec


@pytest.mark.parametrize(("timeout", "seconds"), [("30m", 1800), (90, 90), (0.5, 0.5), ("PT2H", 7200), ("1h 1s", 3601)])
def test_durations(timeout: Any, seconds: float) -> None:
    assert WorkflowSpec.from_json({**RIGHT, "timeout": timeout}).timeout == timedelta(seconds=seconds)


REFUSED: dict[str, tuple[Any, str, str]] = {
    "no object": ([], "spec", "must be a JSON object"),
    "unknown field": ({**RIGHT, "workflow": 1}, "workflow", "is no field of a workflow"),
    "id of another type": ({**RIGHT, "workflow_id": 7}, "workflow_id", "must be text, not int"),
    "definition of another type": ({**RIGHT, "definition": 7}, "definition", "must be text or an object"),
    "timeout without unit": ({**RIGHT, "timeout": "30"}, "timeout", "write one with its unit"),
    "negative timeout": ({**RIGHT, "timeout": -1}, "timeout", "is not above zero"),
    "timeout of another type": ({**RIGHT, "timeout": True}, "timeout", "is no duration"),
    "endless timeout": ({**RIGHT, "timeout": float("inf")}, "timeout", "is no duration"),
    "unknown policy": ({**RIGHT, "retry_policy": {"tries": 3}}, "retry_policy.tries", "is unknown"),
    "attempts in words": ({**RIGHT, "retry_policy": {"max_attempts": "3"}}, "retry_policy.max_attempts", "number"),
    "half an attempt": ({**RIGHT, "retry_policy": {"max_attempts": 0.5}}, "retry_policy.max_attempts", "number"),
    "interval": ({**RIGHT, "retry_policy": {"max_interval": "soon"}}, "retry_policy.max_interval", "is no duration"),
    "tags": ({**RIGHT, "tags": ["a"]}, "tags", "must be an object, not list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_json_of_another_form_is_refused(case: str) -> None:
    document, field, text = REFUSED[case]
    with pytest.raises(InvalidSpec, match=text) as refusal:
        WorkflowSpec.from_json(document)
    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"{field}: ")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"workflow_id": ""}, "workflow_id: is required"),
    "long id": ({"workflow_id": "x" * 129}, "workflow_id"),
    "no name": ({"name": ""}, "name: is required"),
    "long name": ({"name": "x" * 257}, "name: has 257 characters, at most 256 are allowed"),
    "long description": ({"description": "ü" * 600}, "description: is longer than 1024 bytes"),
    "no definition": ({"definition": ""}, "definition: is required"),
    "a file": ({"definition": "flows.py"}, "definition: 'flows.py' is not of the form module:attribute"),
    "unknown part": ({"definition": {"refrence": "m:a"}}, "definition.refrence: is unknown"),
    "handler of another type": ({"definition": {"reference": "m:a", "handler": 1}}, "definition.handler: must be text"),
    "long definition": ({"definition": {"reference": "m:a", "version": "x" * 300_000}}, "definition: is longer"),
    "long tag": ({"tags": {"t": "x" * 129}}, "tags: .* is longer than 128 bytes"),
    "tag of another type": ({"tags": {"t": 1}}, "tags: 't': 1 must be text"),
    "no interval": ({"retry_policy": RetryPolicy(initial_interval=timedelta(0))}, "retry_policy.initial_interval"),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_out_of_their_limits_are_refused(case: str) -> None:
    changes, text = WRONG[case]
    with pytest.raises(InvalidSpec, match=text):
        check_spec(WorkflowSpec(**{**RIGHT, **changes}))


def test_what_is_right_passes() -> None:
    check_spec(WorkflowSpec(**RIGHT))


def test_a_status_as_json() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    status = ExecutionStatus(
        execution_id="w.n",
        workflow_id="w",
        execution_name="n",
        provider_type="embedded",
        state=ExecutionState.RUNNING,
        sub_state=SubState.BACKING_OFF,
        created_at=at,
    )
    document = Page(items=(status,), next_cursor="c").to_json()
    assert document["next_cursor"] == "c"
    [item] = document["items"]
    assert (item["state"], item["sub_state"], item["created_at"]) == (
        "running",
        "backing-off",
        "2026-01-02T03:04:05.678Z",
    )
    assert {"input", "output", "history", "error", "start_time", "stop_time"} <= set(item)
    json.dumps(document)
