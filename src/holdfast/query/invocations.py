"""`sys_invocation` and the two halves it is made of: what the row says, and what only memory knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.core.model import Status
from holdfast.protocol import messages as m
from holdfast.protocol.wire import HEADER_BYTES, message, octets
from holdfast.query import failures, waiting
from holdfast.query.conditions import Condition
from holdfast.query.reading import COMMAND_COUNT, Reading
from holdfast.query.tables import Column, Listed, Make, Selected, as_stored, computed, partition_key_of_id
from holdfast.runtime.snapshot import Live

_INVOCATION = "invocation i"
_IS_STARTED = f"(i.status NOT IN ('{Status.SCHEDULED}', '{Status.INBOXED}'))"
_IS_OUTPUT = f"(length(i.output) > 0 AND substr(i.output, 1, 2) = x'{m.OUTPUT:04x}')"
_STORED_ENTRIES = "(SELECT sum(j.entry_count) FROM journal j WHERE j.seq = i.seq)"
HAS_JOURNAL = "(length(i.head) > 0 OR EXISTS (SELECT 1 FROM journal j WHERE j.seq = i.seq))"
"""The output is kept apart; without a journal it is no entry of one."""
OUTPUT_ENTRY = f"CASE WHEN {_IS_OUTPUT} AND {HAS_JOURNAL} THEN i.output ELSE x'' END"

_JOURNAL_SIZE = (
    f"CASE WHEN {_IS_STARTED} THEN CASE WHEN {HAS_JOURNAL} "
    f"THEN (length(i.head) > 0) + coalesce({_STORED_ENTRIES}, 0) + {_IS_OUTPUT} ELSE 0 END END"
)
_STORED_COMMANDS = f"(SELECT sum({COMMAND_COUNT}(j.frames)) FROM journal j WHERE j.seq = i.seq)"  # noqa: S608 ours
_COMMANDS_SIZE = (
    f"CASE WHEN {_IS_STARTED} THEN CASE WHEN {HAS_JOURNAL} "
    f"THEN {COMMAND_COUNT}(i.head) + coalesce({_STORED_COMMANDS}, 0) + {_IS_OUTPUT} ELSE 0 END END"
)
_MODIFIED_AT = (
    "max(i.modified_at_ms, coalesce((SELECT j.stored_at_ms FROM journal j WHERE j.seq = i.seq "
    "ORDER BY j.first_index DESC LIMIT 1), 0))"
)
_TARGET = "(i.service || '/' || coalesce(i.key || '/', '') || i.handler)"
_INVOKED_BY = (
    "CASE WHEN i.restarted_from IS NOT NULL THEN 'restart_as_new' WHEN i.invoked_by_id IS NULL THEN 'ingress' "
    "ELSE 'service' END"
)
_INVOKED_BY_SERVICE = "substr(i.invoked_by_target, 1, instr(i.invoked_by_target, '/') - 1)"
_COMPLETION_RESULT = (
    f"CASE WHEN i.status = '{Status.COMPLETED}' THEN CASE WHEN i.failure_code IS NULL THEN 'success' "
    "ELSE 'failure' END END"
)


def _completion_failure(_reading: Reading, failure_code: int | None, output: bytes) -> str | None:
    if failure_code is None:
        return None
    code, text, _ = m.decode_failure(octets(message(output[HEADER_BYTES:]), 15))
    return f"[{code}] {text}"


def _bound_to(attribute: str) -> Make:
    """What the invocation is bound to: memory may know it before the row does."""

    def make(reading: Reading, seq: int, deployment_id: str | None, stored: Any) -> Any:
        live = reading.live.get(seq)
        if live is not None and live.deployment_id is not None:
            return getattr(live, attribute)
        return stored if deployment_id is not None else None

    return make


def _service_type(reading: Reading, service: str, key: str | None) -> str:
    return reading.service_type(service, key)


def _when_suspended(of: Callable[..., Any]) -> Make:
    def make(_reading: Reading, stored: str | None, *more: Any) -> Any:
        return None if stored is None else of(stored, *more)

    return make


_STORED_HALF: dict[str, Column] = {
    "id": as_stored("i.id", "text"),
    "completion_result": as_stored(_COMPLETION_RESULT, "text"),
    "completion_failure": Column(("i.failure_code", "i.output"), _completion_failure),
    "target": as_stored(_TARGET, "text"),
    "target_service_name": as_stored("i.service", "text"),
    "target_service_key": as_stored("i.key", "text"),
    "target_handler_name": as_stored("i.handler", "text"),
    "target_service_ty": Column(("i.service", "i.key"), _service_type),
    "idempotency_key": as_stored("i.idempotency_key", "text"),
    "invoked_by": as_stored(_INVOKED_BY, "text"),
    "invoked_by_service_name": as_stored(_INVOKED_BY_SERVICE, "text"),
    "invoked_by_id": as_stored("i.invoked_by_id", "text"),
    "invoked_by_target": as_stored("i.invoked_by_target", "text"),
    "restarted_from": as_stored("i.restarted_from", "text"),
    "pinned_deployment_id": Column(("i.seq", "i.deployment_id", "i.deployment_id"), _bound_to("deployment_id")),
    "pinned_service_protocol_version": Column(
        ("i.seq", "i.deployment_id", "i.protocol_version"), _bound_to("protocol_version")
    ),
    "journal_size": as_stored(_JOURNAL_SIZE),
    "journal_commands_size": as_stored(_COMMANDS_SIZE),
    "created_at": as_stored("i.created_at_ms", "time"),
    "modified_at": as_stored(_MODIFIED_AT),
    "inboxed_at": as_stored("i.inboxed_at_ms", "time"),
    "scheduled_at": as_stored("CASE WHEN i.start_at_ms IS NOT NULL THEN i.created_at_ms END"),
    "scheduled_start_at": as_stored("i.start_at_ms", "time"),
    "running_at": as_stored("i.running_at_ms", "time"),
    "completed_at": as_stored("i.completed_at_ms", "time"),
    "completion_retention": as_stored("i.retention_ms"),
    "journal_retention": as_stored("i.journal_retention_ms"),
    "suspended_waiting_for_completions": Column(("i.awaiting",), _when_suspended(waiting.completions)),
    "suspended_waiting_for_signals": Column(("i.awaiting",), _when_suspended(waiting.signals)),
    "suspended_waiting_future_json": Column(("i.awaiting", "i.protocol_version"), _when_suspended(waiting.future_json)),
}


# ---- what only memory knows ----------------------------------------------------------------------------------------------


def _of_error(value: Callable[[m.AttemptError], Any]) -> Callable[[Live], Any]:
    return lambda live: None if live.last_error is None else value(live.last_error)


_MEMORY_HALF: dict[str, Callable[[Live], Any]] = {
    "retry_count": lambda live: live.attempt_count,
    "last_start_at": lambda live: live.last_start_at_ms,
    "next_retry_at": lambda live: live.next_retry_at_ms,
    "last_attempt_deployment_id": lambda live: live.last_deployment_id,
    "last_attempt_server": lambda live: live.last_sdk_version,
    "last_failure": _of_error(failures.last_failure),
    "last_failure_error_code": _of_error(failures.doc_code),
    "last_failure_related_command_index": _of_error(lambda error: error.command_index),
    "last_failure_related_command_name": _of_error(lambda error: error.command_name),
    "last_failure_related_command_type": _of_error(failures.related_command_type),
}


def _from_memory(of: Callable[[Live], Any]) -> Make:
    def make(reading: Reading, stored: str, seq: int) -> Any:
        # Memory is read a moment after the rows.
        live = reading.live.get(seq) if stored == Status.INVOKED else None
        return None if live is None else of(live)

    return make


def _public_status(reading: Reading, stored: str, seq: int) -> str:
    if stored == Status.INBOXED:
        return "pending"
    if stored != Status.INVOKED:
        return stored
    live = reading.live.get(seq)
    if live is None:
        return "ready"
    if live.in_flight:
        return "running"
    return "backing-off" if live.next_retry_at_ms is not None else "ready"


def _live_rows(reading: Reading, _columns: frozenset[str], _condition: Condition | None) -> Iterable[Mapping[str, Any]]:
    for live in reading.live.values():
        yield {
            "partition_key": partition_key_of_id(live.id),
            "id": live.id,
            "in_flight": live.in_flight,
            **{name: of(live) for name, of in _MEMORY_HALF.items()},
        }


SYS_INVOCATION_STATUS = Selected(
    _INVOCATION,
    "1",
    {
        "partition_key": computed("i.id", partition_key_of_id),
        **_STORED_HALF,
        "status": as_stored("i.status", "stored status"),
    },
)
SYS_INVOCATION_STATE = Listed(_live_rows)
SYS_INVOCATION = Selected(
    _INVOCATION,
    "1",
    {
        **_STORED_HALF,
        **{name: Column(("i.status", "i.seq"), _from_memory(of)) for name, of in _MEMORY_HALF.items()},
        "status": Column(("i.status", "i.seq"), _public_status, "public status"),
    },
)
