"""What operators see of invocations: rows of the database, refined by what only memory knows."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import apsw

from holdfast.core import awaiting
from holdfast.core.model import Invocation, Status
from holdfast.protocol import messages as m
from holdfast.protocol.messages import Awaited
from holdfast.protocol.wire import HEADER, HEADER_BYTES, message, split
from holdfast.store.failures import unreadable

PUBLIC_STATUSES = ("scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused", "completed")
PREVIEW_BYTES_MAX = 200


@dataclass(slots=True)
class InvocationInfo:
    """One row of `list` and `describe`. Times are epoch milliseconds; None where not applicable."""

    id: str
    target: str
    """`Service/handler` or `Object/key/handler`."""
    service: str
    handler: str
    key: str | None
    service_type: str
    """`service`, `virtual_object`, `workflow`."""
    status: str
    """Public status: scheduled, pending, ready, running, backing-off, suspended, paused, completed."""
    idempotency_key: str | None
    invoked_by: str
    """`ingress`, `service` or `restart_as_new`."""
    invoked_by_id: str | None
    invoked_by_target: str | None
    created_at_ms: int
    modified_at_ms: int
    scheduled_start_at_ms: int | None
    completed_at_ms: int | None
    journal_size: int
    journal_commands_size: int
    retry_count: int
    next_retry_at_ms: int | None
    last_failure: str | None
    last_failure_code: int | None
    completion_result: str | None
    """`success` or `failure` when completed."""
    completion_failure: str | None
    """`[409] killed`."""
    pinned_deployment_id: str | None
    pinned_protocol_version: int | None
    waiting_for: list[str] = field(default_factory=list[str])
    """What a suspended invocation waits for, readable: `completion 3`, `signal 1`, `signal 'go'`."""
    restarted_from: str | None = None
    """The invocation whose input, and perhaps journal, this one took over."""


@dataclass(slots=True)
class JournalEntryInfo:
    """One journal entry, for people."""

    index: int
    entry_type: str
    """`Command: Run`, `Notification: Sleep`, … as the server names them."""
    name: str
    appended_at_ms: int
    completion_id: int | None
    detail: dict[str, Any]
    """Decoded fields worth showing: target, key, value preview, wake-up time, failure …"""


_COLUMNS = (
    "seq, id, service, handler, key, status, idempotency_key, invoked_by_id, invoked_by_target, created_at_ms, "
    "modified_at_ms, start_at_ms, completed_at_ms, failure_code, deployment_id, protocol_version, awaiting, output, "
    "head, (SELECT max(stored_at_ms) FROM journal j WHERE j.seq = invocation.seq), restarted_from"
)
_STORED = {
    "scheduled": Status.SCHEDULED,
    "pending": Status.INBOXED,
    "ready": Status.INVOKED,
    "running": Status.INVOKED,
    "backing-off": Status.INVOKED,
    "suspended": Status.SUSPENDED,
    "paused": Status.PAUSED,
    "completed": Status.COMPLETED,
}


class Introspection:
    """Read-only view. `resident` gives the in-memory half of an invocation, if it has one."""

    def __init__(
        self,
        connection: apsw.Connection,
        resident: Callable[[int], Invocation | None],
        service_type: Callable[[str], str],
    ) -> None:
        self._connection = connection
        self._resident = resident
        self._service_type = service_type

    def _rows(self, sql: str, bindings: list[Any]) -> list[Any]:
        try:
            return list(self._connection.execute(sql, bindings))
        except apsw.Error as error:
            raise unreadable(error) from error

    def list_invocations(
        self,
        *,
        statuses: list[str] | None = None,
        service: str | None = None,
        handler: str | None = None,
        key: str | None = None,
        key_prefix: str | None = None,
        deployment: str | None = None,
        limit: int = 100,
        before: str | None = None,
        oldest_first: bool = False,
    ) -> list[InvocationInfo]:
        """A page of invocations, by order of arrival.

        Args:
            statuses: public statuses; None means all.
            key_prefix: only keys that begin with it.
            before: id of the last row of the previous page.
        Raises:
            ValueError: an unknown status; the message lists the known ones.
        """
        where, bindings = ["1 = 1"], list[Any]()
        wanted = set(statuses or ())
        if unknown := wanted - set(PUBLIC_STATUSES):
            raise ValueError(f"unknown status {sorted(unknown)[0]!r}; known: {', '.join(PUBLIC_STATUSES)}")
        if wanted:
            stored = sorted({_STORED[status] for status in wanted})
            where.append(f"status IN ({', '.join('?' * len(stored))})")
            bindings += stored
        for column, value in (
            ("service", service),
            ("handler", handler),
            ("key", key),
            ("deployment_id", deployment),
        ):
            if value is not None:
                where.append(f"{column} = ?")
                bindings.append(value)
        if key_prefix:
            where.append("key >= ? AND key < ?")
            bindings += [key_prefix, key_prefix + "\U0010ffff"]
        comparison, direction = (">", "ASC") if oldest_first else ("<", "DESC")
        out: list[InvocationInfo] = []
        after = before
        while len(out) < limit:  # ready, running and backing-off are told apart in memory, so a page may need more rows
            clauses, page = list(where), list(bindings)
            if after is not None:
                clauses.append(f"seq {comparison} coalesce((SELECT seq FROM invocation WHERE id = ?), -1)")  # noqa: S608 ours
                page.append(after)
            where_sql = " AND ".join(clauses)  # our own text; every value is bound
            sql = f"SELECT {_COLUMNS} FROM invocation WHERE {where_sql} ORDER BY seq {direction} LIMIT ?"  # noqa: S608
            rows = self._rows(sql, [*page, limit])
            found = [self._info(row) for row in rows]
            out += [info for info in found if not wanted or info.status in wanted]
            if len(rows) < limit:
                break
            after = found[-1].id
        return out[:limit]

    def describe(self, invocation_id: str) -> InvocationInfo | None:
        rows = self._rows(f"SELECT {_COLUMNS} FROM invocation WHERE id = ?", [invocation_id])  # noqa: S608 ours
        return self._info(rows[0]) if rows else None

    def _info(self, row: Any) -> InvocationInfo:
        (seq, invocation_id, service, handler, key, stored, idempotency_key, by_id, by_target, created, modified) = row[
            :11
        ]
        start, completed, failure_code, deployment_id, version, awaited, output, head, last_entry, restarted_from = row[
            11:
        ]
        live = self._resident(seq)
        frames = [message_type for message_type, _ in split(head + self._journal(seq) + _output_entry(output))]
        info = InvocationInfo(
            id=invocation_id,
            target=f"{service}/{handler}" if key is None else f"{service}/{key}/{handler}",
            service=service,
            handler=handler,
            key=key,
            service_type=self._service_type(service),
            status=_public_status(stored, live),
            idempotency_key=idempotency_key,
            invoked_by="restart_as_new" if restarted_from else "ingress" if by_id is None else "service",
            invoked_by_id=by_id,
            invoked_by_target=by_target,
            restarted_from=restarted_from,
            created_at_ms=created,
            modified_at_ms=max(modified, last_entry or 0),
            scheduled_start_at_ms=start,
            completed_at_ms=completed,
            journal_size=len(frames),
            journal_commands_size=sum(m.is_command(message_type) for message_type in frames),
            retry_count=0,
            next_retry_at_ms=None,
            last_failure=None,
            last_failure_code=None,
            completion_result=None,
            completion_failure=None,
            pinned_deployment_id=deployment_id,
            pinned_protocol_version=version if deployment_id is not None else None,
            waiting_for=_readable(awaiting.from_json(awaited)) if awaited else [],
        )
        if stored == Status.INVOKED and live is not None:
            info.retry_count = live.retry_count + (1 if live.in_flight else 0)
            info.next_retry_at_ms = live.next_retry_at_ms
            if live.last_error is not None:
                info.last_failure, info.last_failure_code = live.last_error.message, live.last_error.code
        elif stored == Status.PAUSED:
            info.last_failure, info.last_failure_code = self._last_failure(seq)
        elif stored == Status.COMPLETED:
            info.completion_result = "success" if failure_code is None else "failure"
            if failure_code is not None:
                failure = m.decode_failure(cast(bytes, message(output[HEADER_BYTES:])[15]))
                info.completion_failure = f"[{failure[0]}] {failure[1]}"
        return info

    def _last_failure(self, seq: int) -> tuple[str | None, int | None]:
        rows = self._rows("SELECT event FROM journal_event WHERE seq = ? ORDER BY rowid DESC", [seq])
        for (text,) in rows:
            event = json.loads(text)
            error = event if event["ty"] == "TransientError" else event.get("last_failure")
            if error:
                return error["error_message"], error["error_code"]
        return None, None

    def _journal(self, seq: int) -> bytes:
        return b"".join(
            row[0] for row in self._rows("SELECT frames FROM journal WHERE seq = ? ORDER BY first_index", [seq])
        )

    def journal(self, invocation_id: str) -> list[JournalEntryInfo] | None:
        """All entries in stored order, or None for an unknown invocation."""
        rows = self._rows(
            "SELECT seq, head, output, created_at_ms, modified_at_ms FROM invocation WHERE id = ?", [invocation_id]
        )
        if not rows:
            return None
        seq, head, output, created_at_ms, modified_at_ms = rows[0]
        parts: list[tuple[int, bytes]] = [(created_at_ms, head)]
        parts += self._rows("SELECT stored_at_ms, frames FROM journal WHERE seq = ? ORDER BY first_index", [seq])
        parts.append((modified_at_ms, _output_entry(output)))
        out: list[JournalEntryInfo] = []
        for at_ms, frames in parts:
            for message_type, body in split(frames):
                out.append(_entry(len(out), message_type, body, at_ms))
        return out

    def events(self, invocation_id: str) -> list[dict[str, Any]]:
        """Failures of attempts and pauses, oldest first."""
        rows = self._rows(
            "SELECT e.at_ms, e.after_index, e.event FROM journal_event e JOIN invocation i ON i.seq = e.seq "
            "WHERE i.id = ? ORDER BY e.rowid",
            [invocation_id],
        )
        return [{"at_ms": at, "after_index": after, **json.loads(text)} for at, after, text in rows]

    def input_of(self, invocation_id: str) -> bytes | None:
        """The request body, None for an unknown invocation or a purged journal."""
        rows = self._rows("SELECT seq, head FROM invocation WHERE id = ?", [invocation_id])
        if not rows:
            return None
        frames = rows[0][1] or self._journal(rows[0][0])
        for _, body in split(frames):
            return m.decode_value(cast(bytes, message(body).get(14, b"")))
        return None

    def keys(self, service: str, limit: int) -> list[str]:
        sql = "SELECT DISTINCT key FROM state WHERE service = ? ORDER BY key LIMIT ?"
        return [row[0] for row in self._rows(sql, [service, limit])]

    def state(self, service: str, key: str) -> dict[str, bytes]:
        return dict(self._rows("SELECT name, value FROM state WHERE service = ? AND key = ?", [service, key]))


def _output_entry(output: bytes) -> bytes:
    """The Output frame when it is an entry of the journal, not a result of the engine's own."""
    return output if output and HEADER.unpack_from(output)[0] == m.OUTPUT else b""


def _public_status(stored: str, live: Invocation | None) -> str:
    if stored == Status.INBOXED:
        return "pending"
    if stored != Status.INVOKED:
        return stored
    if live is None:
        return "ready"
    if live.in_flight:
        return "running"
    return "backing-off" if live.next_retry_at_ms is not None else "ready"


def _readable(tree: Awaited) -> list[str]:
    out: list[str] = []
    for leaf in tree.leaves():
        if isinstance(leaf, tuple):
            out.append(f"completion {leaf[0]}")
        elif isinstance(leaf, str):
            out.append(f"signal {leaf!r}")
        elif leaf == m.CANCEL_SIGNAL:
            continue  # every await listens for cancel
        elif leaf >= m.FIRST_AWAKEABLE_SIGNAL:
            out.append(f"awakeable {leaf - m.FIRST_AWAKEABLE_SIGNAL}")
        else:
            out.append(f"signal {leaf}")
    return out


def _preview(value: bytes) -> str:
    text = value[:PREVIEW_BYTES_MAX].decode(errors="replace")
    return text if len(value) <= PREVIEW_BYTES_MAX else f"{text}… ({len(value)} bytes)"


def _entry(index: int, message_type: int, body: bytes, at_ms: int) -> JournalEntryInfo:
    fields = _Fields(body)
    is_command = m.is_command(message_type)
    show = _COMMAND_DETAILS.get(message_type) if is_command else _NOTIFICATION_DETAILS.get(message_type, _completion)
    return JournalEntryInfo(
        index=index,
        entry_type=m.entry_type_name(message_type),
        name=fields.text(12) if is_command else "",
        appended_at_ms=at_ms,
        completion_id=None
        if message_type == m.SIGNAL
        else cast("int | None", fields.content.get(11 if is_command else 1)),
        detail=show(fields) if show is not None else {},
    )


class _Fields:
    """The fields of one entry's body."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.content = message(body)

    def text(self, number: int) -> str:
        return cast(bytes, self.content.get(number, b"")).decode(errors="replace")

    def value(self, number: int) -> str:
        return _preview(m.decode_value(cast(bytes, self.content.get(number, b""))))

    def result(self, value: int, failure: int) -> dict[str, Any]:
        result = m.decode_result(self.content, value, failure)
        if result.failure is not None:
            return {"failure": f"[{result.failure[0]}] {result.failure[1]}"}
        return {} if result.value is None else {"value": _preview(result.value)}

    @property
    def signal(self) -> int | str:
        """Index or name; the cancel signal by its name."""
        index = cast("int | None", self.content.get(2))
        if index is None:
            return self.text(3)
        return "cancel" if index == m.CANCEL_SIGNAL else index


def _call(message_type: int, fields: _Fields) -> dict[str, Any]:
    call = m.call_request(message_type, fields.body)
    key = f"/{call.key}" if call.key else ""
    detail: dict[str, Any] = {
        "target": f"{call.service}{key}/{call.handler}",
        "parameter": _preview(call.parameter),
        "idempotency_key": call.idempotency_key,
        "invoke_time_ms": call.invoke_time_ms or None,
    }
    return {name: value for name, value in detail.items() if value is not None}


def _completion(fields: _Fields) -> dict[str, Any]:
    return fields.result(5, 6)


def _key(fields: _Fields) -> dict[str, Any]:
    return {"key": fields.text(1)}


def _promise(fields: _Fields) -> dict[str, Any]:
    return {"promise": fields.text(1)}


def _target(fields: _Fields) -> dict[str, Any]:
    return {"target": fields.text(1)}


_Details = Callable[[_Fields], dict[str, Any]]
_COMMAND_DETAILS: dict[int, _Details] = {
    m.INPUT: lambda fields: {"value": fields.value(14)},
    m.OUTPUT: lambda fields: fields.result(14, 15),
    m.CALL: partial(_call, m.CALL),
    m.ONE_WAY_CALL: partial(_call, m.ONE_WAY_CALL),
    m.SLEEP: lambda fields: {"wake_up_time_ms": fields.content.get(1, 0)},
    m.SET_STATE: lambda fields: {"key": fields.text(1), "value": fields.value(3)},
    m.GET_EAGER_STATE: lambda fields: {"key": fields.text(1), **fields.result(14, 15)},
    m.GET_LAZY_STATE: _key,
    m.CLEAR_STATE: _key,
    m.GET_PROMISE: _promise,
    m.PEEK_PROMISE: _promise,
    m.COMPLETE_PROMISE: _promise,
    m.SEND_SIGNAL: lambda fields: {"target": fields.text(1), "signal": fields.signal},
    m.ATTACH_INVOCATION: _target,
    m.GET_INVOCATION_OUTPUT: _target,
    m.COMPLETE_AWAKEABLE: _target,
}
_NOTIFICATION_DETAILS: dict[int, _Details] = {
    m.CALL_INVOCATION_ID: lambda fields: {"invocation_id": fields.text(16)},
    m.SIGNAL: lambda fields: {"signal": fields.signal, **fields.result(5, 6)},
}
