"""What the engine knows of an execution -> its state: a table."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.providers.access import InvocationRow
from holdfast.providers.status import Facts, status_of
from holdfast.providers.types import ExecutionState, HistoryEvent, SubState

START = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = {"service": "enrich", "handler": "run", "key": "n", "tags": {"a": "b"}, "metadata": {"hash": "1"}}


def row(status: str, **changes: Any) -> InvocationRow:
    """A supervisor that waits, or a handler's invocation."""
    made = InvocationRow(
        id="inv_1x",
        service="enrich",
        handler="run",
        key="n",
        status=status,
        created_at=START,
        started_at=None,
        completed_at=None,
        has_run=status not in ("scheduled", "pending", "ready"),
        retry_count=1,
        last_failure=None,
        completion_result=None,
        completion_failure=None,
        deployment_id="dp_1x",
    )
    return replace(made, **changes)


def facts(target: InvocationRow | None, supervisor: str = "suspended", **notes: Any) -> Facts:
    values: dict[str, Any] = {"record": RECORD, "invocation_id": "inv_1x", **notes}
    return Facts(
        execution_id="enrich.n",
        provider="embedded",
        supervisor=row(supervisor),
        notes={name: json.dumps(value).encode() for name, value in values.items()},
        target=target,
    )


FAILED = {"last_failure": "[500 Internal] ValueError('x')\nTraceback …"}
ENDING = {"state": "stopped", "reason": "enough", "at": START.timestamp()}
STOPPED = {"state": "stopped", "reason": "enough", "finished_at": START.timestamp() + 9}

LIVE = {
    "not sent yet": (facts(None, "running"), "pending", "waiting"),
    "the supervisor cannot send": (facts(None, "backing-off"), "pending", "backing-off"),
    "the supervisor gave up": (facts(None, "paused"), "paused", "paused"),
    "scheduled": (facts(row("scheduled")), "pending", "waiting"),
    "queued behind its key": (facts(row("pending")), "pending", "waiting"),
    "ready, never ran": (facts(row("ready")), "pending", "waiting"),
    "ready again": (facts(row("ready", has_run=True)), "running", "waiting"),
    "running": (facts(row("running")), "running", "running"),
    "running after a failure": (facts(row("running", **FAILED)), "running", "error"),
    "suspended": (facts(row("suspended")), "running", "waiting"),
    "backing off": (facts(row("backing-off", **FAILED)), "running", "backing-off"),
    "paused": (facts(row("paused")), "paused", "paused"),
    "over, not written down": (facts(row("completed")), "running", "running"),
    "a status of the future": (facts(row("levitating")), "running", "running"),
    "being stopped": (facts(row("running"), ending=ENDING), "running", "stopping"),
    "being stopped, suspended": (facts(row("suspended"), ending=ENDING), "running", "stopping"),
    "being stopped, paused": (facts(row("paused"), ending=ENDING), "paused", "paused"),
}


@pytest.mark.parametrize("case", LIVE)
def test_live_states(case: str) -> None:
    given, state, sub_state = LIVE[case]
    status = status_of(given)
    assert (status.state.value, status.sub_state.value, status.stop_time) == (state, sub_state, None)


OUTCOMES: dict[str, tuple[dict[str, Any], str, Any, tuple[int, str] | None]] = {
    "succeeded": ({"state": "succeeded", "output": [1]}, "succeeded", [1], None),
    "succeeded without output": ({"state": "succeeded"}, "succeeded", None, None),
    "failed": ({"state": "failed", "error": {"code": 418, "message": "no"}}, "failed", None, (418, "no")),
    "stopped": ({**STOPPED, "error": {"code": 409, "message": "cancelled"}}, "stopped", None, (409, "cancelled")),
    "stopped, cleaned up": ({**STOPPED, "output": "tidy"}, "stopped", "tidy", None),
    "timeout": (
        {"state": "timeout", "reason": "time limit of 1s reached"},
        "timeout",
        None,
        (408, "time limit of 1s reached"),
    ),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_final_states(case: str) -> None:
    outcome, state, output, error = OUTCOMES[case]
    status = status_of(facts(row("completed"), "completed", outcome={"finished_at": START.timestamp() + 9, **outcome}))
    assert (status.state, status.sub_state) == (ExecutionState(state), SubState(state))
    assert status.output == output
    assert (status.error and (status.error.code, status.error.message)) == error
    assert status.stop_time == START + timedelta(seconds=9)
    assert status.state.is_final


def test_a_killed_supervisor_is_a_stopped_execution() -> None:
    given = facts(None, "completed")
    killed = row("completed", completed_at=START, completion_failure="[409] killed")
    status = status_of(replace(given, supervisor=killed))
    assert (status.state, status.reason, status.stop_time) == (ExecutionState.STOPPED, "killed at the engine", START)


def test_a_supervisor_that_failed_is_a_failed_execution() -> None:
    broken = row("completed", completed_at=START, completion_failure="[500] boom")
    status = status_of(replace(facts(None, "completed"), supervisor=broken))
    assert status.state == ExecutionState.FAILED
    assert status.error is not None
    assert (status.error.code, status.error.message) == (500, "boom")


def test_the_error_of_a_failing_attempt_is_told_with_its_cause() -> None:
    error = status_of(facts(row("backing-off", **FAILED))).error
    assert error is not None
    assert (error.code, error.message, error.cause) == (500, "ValueError('x')", "Traceback …")


def test_history_is_in_order_and_has_the_executions_own_events() -> None:
    journal = tuple(
        HistoryEvent(timestamp=START + timedelta(seconds=n), type="Command: Run", name=str(n)) for n in (3, 1)
    )
    given = facts(
        row("completed", started_at=START + timedelta(seconds=1)),
        "completed",
        ending=ENDING | {"at": START.timestamp() + 4},
        outcome=STOPPED,
    )
    history = status_of(replace(given, journal=journal)).history
    assert [(event.type, event.name) for event in history] == [
        ("state: pending", ""),
        ("state: running", ""),
        ("Command: Run", "1"),
        ("Command: Run", "3"),
        ("end requested", ""),
        ("state: stopped", ""),
    ]


def test_progress_is_the_entry_progress_then_status() -> None:
    given = replace(facts(row("running")), kv_state={"status": b'"half"', "other": b"not json"})
    status = status_of(given)
    assert (status.progress, status.kv_state) == ("half", {"status": "half", "other": "not json"})
    assert status_of(replace(given, kv_state={"status": b"1", "progress": b"2"})).progress == 2


def test_metadata_holds_what_was_given_and_what_the_engine_knows() -> None:
    assert status_of(facts(row("running", retry_count=3))).metadata == {
        "hash": "1",
        "invocation_id": "inv_1x",
        "target": "enrich/n/run",
        "retry_count": 2,
        "deployment_id": "dp_1x",
    }
