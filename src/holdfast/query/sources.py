"""Which source each table has. Tables without one here have no rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.protocol import messages as m
from holdfast.protocol.wire import message
from holdfast.query.conditions import Condition
from holdfast.query.failures import coded
from holdfast.query.invocations import SYS_INVOCATION, SYS_INVOCATION_STATE, SYS_INVOCATION_STATUS
from holdfast.query.journals import SYS_JOURNAL, SYS_JOURNAL_EVENTS
from holdfast.query.reading import Reading
from holdfast.query.schema import TABLES
from holdfast.query.tables import (
    Column,
    Listed,
    Selected,
    Source,
    as_stored,
    computed,
    no_rows,
    partition_key_of_key,
    text_or_none,
)


def _services(reading: Reading, _columns: frozenset[str], _condition: Condition | None) -> Iterable[Mapping[str, Any]]:
    for name, service in reading.snapshot.services.items():
        revision, deployment_id = reading.snapshot.revisions[name]
        yield {
            "name": name,
            "revision": revision,
            "public": service.public,
            "ty": service.ty.lower(),
            "deployment_id": deployment_id,
        }


def _deployments(
    reading: Reading, _columns: frozenset[str], _condition: Condition | None
) -> Iterable[Mapping[str, Any]]:
    for deployment in reading.snapshot.deployments:
        yield {
            "id": deployment.id,
            "ty": "http",
            "endpoint": deployment.uri,
            "created_at": deployment.created_at_ms,
            "min_service_protocol_version": deployment.min_protocol_version,
            "max_service_protocol_version": deployment.max_protocol_version,
            "services": sorted(deployment.services),
        }


def _of_promise(of: Callable[[m.Result], Any]) -> Column:
    """Of a promise that is completed; its result is stored as the fields of a notification."""

    def make(stored: bytes | None) -> Any:
        return None if stored is None else of(m.decode_result(message(stored)))

    return computed("p.result", make)


def _promise_value(result: m.Result) -> bytes | None:
    return result.value


def _promise_text(result: m.Result) -> str | None:
    return None if result.value is None else text_or_none(result.value)


def _promise_failure(result: m.Result) -> str | None:
    if result.failure is None:
        return None
    return f"[{coded(result.failure[0])}] {result.failure[1]}"


# A promise that somebody waits for exists before it is completed.
_PROMISES = (
    "(SELECT service, key, name, result FROM promise UNION ALL "
    "SELECT DISTINCT service, key, name, NULL FROM promise_listener l WHERE NOT EXISTS (SELECT 1 FROM promise p "
    "WHERE p.service = l.service AND p.key = l.key AND p.name = l.name)) p"
)

_SYS_PROMISE = Selected(
    _PROMISES,
    "1",
    {
        "partition_key": computed("p.key", partition_key_of_key),
        "service_name": as_stored("p.service", "text"),
        "service_key": as_stored("p.key", "text"),
        "key": as_stored("p.name", "text"),
        "completed": computed("p.result IS NOT NULL", bool),
        "completion_success_value": _of_promise(_promise_value),
        "completion_success_value_utf8": _of_promise(_promise_text),
        "completion_failure": _of_promise(_promise_failure),
    },
)

_SYS_INBOX = Selected(
    "invocation i",
    "i.status <> 'completed' AND i.status = 'inboxed'",
    {
        "partition_key": computed("i.key", partition_key_of_key),
        "service_name": as_stored("i.service", "text"),
        "service_key": as_stored("i.key", "text"),
        "id": as_stored("i.id", "text"),
        "sequence_number": as_stored("i.inbox_seq", "number"),
    },
)

_SYS_KEYED_SERVICE_STATUS = Selected(
    "invocation i",
    "i.status <> 'completed' AND i.status IN ('invoked', 'suspended', 'paused') AND i.exclusive = 1",
    {
        "partition_key": computed("i.key", partition_key_of_key),
        "service_name": as_stored("i.service", "text"),
        "service_key": as_stored("i.key", "text"),
        "invocation_id": as_stored("i.id", "text"),
    },
)

_STATE = Selected(
    "state s",
    "1",
    {
        "partition_key": computed("s.key", partition_key_of_key),
        "service_name": as_stored("s.service", "text"),
        "service_key": as_stored("s.key", "text"),
        "key": as_stored("s.name", "text"),
        "key_length": as_stored("length(CAST(s.name AS BLOB))", "number"),
        "value_utf8": computed("s.value", text_or_none),
        "value": as_stored("s.value"),
        "value_length": as_stored("length(s.value)", "number"),
    },
)

_WITH_ROWS: dict[str, Source] = {
    "sys_invocation": SYS_INVOCATION,
    "sys_invocation_status": SYS_INVOCATION_STATUS,
    "sys_invocation_state": SYS_INVOCATION_STATE,
    "sys_journal": SYS_JOURNAL,
    "sys_journal_events": SYS_JOURNAL_EVENTS,
    "sys_inbox": _SYS_INBOX,
    "sys_keyed_service_status": _SYS_KEYED_SERVICE_STATUS,
    "sys_promise": _SYS_PROMISE,
    "sys_service": Listed(_services),
    "sys_deployment": Listed(_deployments),
    "state": _STATE,
}

SOURCES: dict[str, Source] = {name: _WITH_ROWS.get(name, Listed(no_rows)) for name in TABLES}
"""Table -> its rows."""
