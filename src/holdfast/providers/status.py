"""The engine's rows and the supervisor's notes -> what an execution's status is. Pure, table-tested."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from holdfast.providers.access import InvocationRow
from holdfast.providers.naming import split_execution_id
from holdfast.providers.types import ExecutionError, ExecutionState, ExecutionStatus, HistoryEvent, SubState

log = logging.getLogger("holdfast.providers")

PROGRESS_KEYS = ("progress", "status")
"""K/V entries of a workflow or object that are shown as its progress; the first one that is there."""

_FAILURE = re.compile(r"\[(\d+)[^\]]*\] ?(.*)", re.DOTALL)

_LIVE: dict[str, tuple[ExecutionState, SubState]] = {
    "scheduled": (ExecutionState.PENDING, SubState.WAITING),
    "pending": (ExecutionState.PENDING, SubState.WAITING),
    "ready": (ExecutionState.RUNNING, SubState.WAITING),
    "running": (ExecutionState.RUNNING, SubState.RUNNING),
    "suspended": (ExecutionState.RUNNING, SubState.WAITING),
    "backing-off": (ExecutionState.RUNNING, SubState.BACKING_OFF),
    "paused": (ExecutionState.PAUSED, SubState.PAUSED),
    "completed": (ExecutionState.RUNNING, SubState.RUNNING),  # its supervisor is about to write the outcome down
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that an engine knows about one execution."""

    execution_id: str
    provider: str
    supervisor: InvocationRow
    notes: Mapping[str, bytes]
    """The supervisor's K/V state: record, input, invocation_id, ending, outcome."""
    target: InvocationRow | None = None
    """The handler's invocation; None before it was sent, and when it is gone."""
    kv_state: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    journal: tuple[HistoryEvent, ...] = ()


def invocation_id_of(notes: Mapping[str, bytes]) -> str | None:
    """The handler's invocation id, once it was sent."""
    return cast("str | None", _json(notes.get("invocation_id")))


def is_over(supervisor: InvocationRow, notes: Mapping[str, bytes]) -> bool:
    """Whether nothing changes any more."""
    return "outcome" in notes or supervisor.status == "completed"


def status_of(facts: Facts) -> ExecutionStatus:
    """The execution's status."""
    parts = split_execution_id(facts.execution_id)
    assert parts is not None, facts.execution_id
    record: dict[str, Any] = _json(facts.notes.get("record")) or {}
    ending: dict[str, Any] = _json(facts.notes.get("ending")) or {}
    outcome: dict[str, Any] | None = _json(facts.notes.get("outcome"))
    target = facts.target
    if outcome is None and facts.supervisor.status == "completed":
        outcome = _without_notes(facts.supervisor)
    if outcome is not None:
        state = ExecutionState(outcome["state"])
        sub_state = SubState(state.value)
        stop_time = _time(outcome.get("finished_at"))
        error = _final_error(state, outcome, stop_time)
    else:
        state, sub_state, error = _live(facts.supervisor, target, is_ending=bool(ending))
        stop_time = None
    kv_state = {name: _value(value) for name, value in facts.kv_state.items()}
    start_time = None
    if target is not None and (target.has_run or target.started_at is not None):
        start_time = target.started_at or target.created_at
    return ExecutionStatus(
        execution_id=facts.execution_id,
        workflow_id=parts[0],
        execution_name=parts[1],
        provider_type=facts.provider,
        state=state,
        sub_state=sub_state,
        created_at=facts.supervisor.created_at,
        start_time=start_time,
        stop_time=stop_time,
        input=_json(facts.notes.get("input")),
        output=outcome.get("output") if outcome else None,
        error=error,
        reason=(outcome or ending).get("reason", ""),
        progress=next((kv_state[key] for key in PROGRESS_KEYS if key in kv_state), None),
        kv_state=kv_state,
        history=_history(facts, state, start_time, ending, stop_time),
        tags=record.get("tags", {}),
        metadata={**record.get("metadata", {}), **_engine_metadata(facts, record)},
        trigger_source=record.get("trigger_source", "api"),
    )


def _live(
    supervisor: InvocationRow, target: InvocationRow | None, *, is_ending: bool
) -> tuple[ExecutionState, SubState, ExecutionError | None]:
    if target is None:
        # The handler could not be sent yet: says the supervisor's own trouble, if it has one.
        state, sub_state = ExecutionState.PENDING, SubState.WAITING
        if supervisor.status in ("backing-off", "paused"):
            state, sub_state = _LIVE[supervisor.status]
            state = ExecutionState.PAUSED if state == ExecutionState.PAUSED else ExecutionState.PENDING
        return state, sub_state, _attempt_error(supervisor)
    if target.status not in _LIVE:
        log.warning("unknown status of an invocation", extra={"invocation_id": target.id, "status": target.status})
    state, sub_state = _LIVE.get(target.status, (ExecutionState.RUNNING, SubState.RUNNING))
    error = _attempt_error(target)
    if target.status == "ready" and not target.has_run:
        state = ExecutionState.PENDING
    elif target.status == "running" and error is not None:
        sub_state = SubState.ERROR
    if is_ending and state != ExecutionState.PAUSED:
        sub_state = SubState.STOPPING
    return state, sub_state, error


def _without_notes(supervisor: InvocationRow) -> dict[str, Any]:
    """The supervisor ended before it could write: killed by an operator, or its own handler failed."""
    code, message = _failure(supervisor.completion_failure or "the supervisor ended without an outcome")
    finished_at = supervisor.completed_at
    outcome: dict[str, Any] = {
        "finished_at": finished_at.timestamp() if finished_at is not None else None,
        "error": {"code": code, "message": message},
    }
    if code == 409:
        return {"state": ExecutionState.STOPPED.value, "reason": f"{message} at the engine", **outcome}
    return {"state": ExecutionState.FAILED.value, **outcome}


def _final_error(state: ExecutionState, outcome: Mapping[str, Any], at: datetime | None) -> ExecutionError | None:
    failure: dict[str, Any] | None = outcome.get("error")
    if state == ExecutionState.TIMEOUT:
        return ExecutionError(code=408, message=outcome["reason"], cause=_cause(failure), failed_at=at)
    if failure is None:
        return None
    return ExecutionError(code=failure["code"], message=failure["message"], failed_at=at)


def _cause(failure: Mapping[str, Any] | None) -> str:
    return f"[{failure['code']}] {failure['message']}" if failure else ""


def _attempt_error(row: InvocationRow) -> ExecutionError | None:
    if row.last_failure is None:
        return None
    code, message = _failure(row.last_failure)
    first_line, _, rest = message.partition("\n")
    return ExecutionError(code=code, message=first_line, cause=rest)


def _failure(text: str) -> tuple[int, str]:
    """`[409] killed`, `[500 Internal] boom` -> (code, message)."""
    match = _FAILURE.fullmatch(text)
    return (int(match[1]), match[2]) if match else (500, text)


def _engine_metadata(facts: Facts, record: Mapping[str, Any]) -> dict[str, Any]:
    target = facts.target
    found: dict[str, Any] = {
        "invocation_id": invocation_id_of(facts.notes),
        "target": "/".join(filter(None, (record.get("service"), record.get("key"), record.get("handler")))) or None,
    }
    if target is not None:
        # The engines count attempts; what people ask is how often it was repeated.
        found |= {"retry_count": max(target.retry_count - 1, 0), "deployment_id": target.deployment_id}
    return {name: value for name, value in found.items() if value is not None}


def _history(
    facts: Facts,
    state: ExecutionState,
    start_time: datetime | None,
    ending: Mapping[str, Any],
    stop_time: datetime | None,
) -> tuple[HistoryEvent, ...]:
    own = [HistoryEvent(timestamp=facts.supervisor.created_at, type="state: pending")]
    if start_time is not None:
        own.append(HistoryEvent(timestamp=start_time, type="state: running"))
    if ending:
        at = _time(ending.get("at")) or facts.supervisor.created_at
        details = {"reason": ending.get("reason", ""), "state": ending.get("state", "")}
        own.append(HistoryEvent(timestamp=at, type="end requested", details=details))
    if stop_time is not None:
        own.append(HistoryEvent(timestamp=stop_time, type=f"state: {state.value}"))
    return tuple(sorted([*own, *facts.journal], key=lambda event: event.timestamp))


def _json(value: bytes | None) -> Any:
    return None if value is None else json.loads(value)


def _value(value: bytes) -> Any:
    """A K/V value as JSON where it is, else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value.decode(errors="replace")


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
