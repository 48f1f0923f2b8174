"""Executions on any engine that speaks Restate's terms: started, followed, stopped through their supervisors."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from holdfast.providers import system
from holdfast.providers.access import EngineAccess, InvocationRow
from holdfast.providers.base import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, WorkflowProvider
from holdfast.providers.definition import PROMISE_HANDLER
from holdfast.providers.errors import (
    ExecutionNotFound,
    InvalidInput,
    ProviderUnauthorized,
    ProviderUnavailable,
    WaitTimeout,
    WorkflowNotFound,
)
from holdfast.providers.naming import WORKFLOW_ID, execution_id_for, split_execution_id
from holdfast.providers.observe import log, operation, transition
from holdfast.providers.status import Facts, invocation_id_of, is_over, status_of
from holdfast.providers.types import (
    ExecutionResult,
    ExecutionState,
    ExecutionStatus,
    HistoryEvent,
    Page,
    StateChange,
)
from holdfast.providers.validation import check_execution, check_grace, json_text, parse_duration

T = TypeVar("T")

STOP_WAIT = timedelta(seconds=5)
"""How long `stop_execution` waits for the end: a handler that waits ends in milliseconds, one that cleans up may not."""

_ATTACH_WAIT = timedelta(seconds=25)
"""Shorter than the 30 s and 60 s at which proxies like to cut an idle request."""

_WATCH_FIRST_S, _WATCH_MAX_S = 0.1, 1.0
_START_WAIT_S = 5.0
_RETRY_FIRST_S, _RETRY_MAX_S = 0.2, 3.0
_SCAN_PAGES_MAX = 10
"""Pages that one `list_executions` reads while it looks for states; a page with few matches then ends early."""

_LIST_NOTES = ("record", "invocation_id", "ending", "outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """Settings that every engine's provider has."""

    timeout: timedelta | None = None
    retry_attempts: int | None = None
    stop_grace: timedelta = timedelta(seconds=10)
    payload_bytes_max: int = 256 << 10
    service_name: str | None = None


class Executions(WorkflowProvider):
    """The execution half of an engine's provider."""

    patience: timedelta = timedelta(0)
    """How long `wait` and `watch` put up with an engine that does not answer: a server may be restarting."""

    def __init__(self, access: EngineAccess, settings: CommonSettings) -> None:
        self._access = access
        self._settings = settings

    @property
    def _hosts_supervisors(self) -> bool:
        """Supervisors run in this process, and log their transitions here."""
        return True

    async def _record(self, workflow_id: str) -> dict[str, Any] | None:
        if not WORKFLOW_ID.fullmatch(workflow_id):
            return None
        found = await self._access.states(system.REGISTRY, [workflow_id], ["record"])
        return json.loads(found[workflow_id]["record"]) if workflow_id in found else None

    async def _known_record(self, workflow_id: str) -> dict[str, Any]:
        record = await self._record(workflow_id)
        if record is None:
            raise WorkflowNotFound(workflow_id)
        return record

    @operation
    async def start_execution(
        self,
        workflow_id: str,
        input: Any = None,
        *,
        execution_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        trigger_source: str = "api",
        key: str | None = None,
    ) -> ExecutionResult:
        name = uuid.uuid4().hex if execution_name is None else execution_name
        check_execution(workflow_id, name, input, tags or {}, metadata or {}, self._settings.payload_bytes_max)
        record = await self._known_record(workflow_id)
        request = self._request(record, name, input, tags or {}, metadata or {}, trigger_source, key)
        execution_id = execution_id_for(workflow_id, name)
        receipt = await self._access.send(system.EXECUTIONS, execution_id, "run", request)
        if receipt.is_new:
            state, started_at, message = ExecutionState.PENDING, datetime.now(UTC), "started"
        else:
            status = await self._status(execution_id, history=False)
            state, started_at = status.state, status.created_at
            message = "an execution of this name was there already; nothing was started"
        return ExecutionResult(
            execution_id=execution_id,
            workflow_id=workflow_id,
            execution_name=name,
            provider_type=self.name,
            state=state,
            is_new=receipt.is_new,
            started_at=started_at,
            message=message,
        )

    def _request(
        self,
        record: Mapping[str, Any],
        name: str,
        value: Any,
        tags: Mapping[str, str],
        metadata: Mapping[str, Any],
        trigger_source: str,
        key: str | None,
    ) -> system.ExecutionRequest:
        service_type = record["service_type"]
        if key is not None and service_type != "virtual_object":
            raise InvalidInput("key", f"only objects have keys; {record['workflow_id']!r} is a {service_type}")
        timeout = parse_duration(record["timeout"]) if record["timeout"] else self._settings.timeout
        return {
            "workflow_id": record["workflow_id"],
            "execution_name": name,
            "service": record["service_name"],
            "handler": record["handler"],
            "key": None if service_type == "service" else key or name,
            "idempotency_key": None if service_type == "workflow" else name,
            "input": value,
            "has_input": value is not None,
            "timeout_ms": None if timeout is None else timeout // timedelta(milliseconds=1),
            "grace_ms": self._settings.stop_grace // timedelta(milliseconds=1),
            "tags": dict(tags),
            "metadata": dict(metadata),
            "trigger_source": trigger_source,
        }

    @operation
    async def get_execution_status(self, execution_id: str, *, history: bool = True) -> ExecutionStatus:
        return await self._status(execution_id, history=history)

    async def _status(self, execution_id: str, *, history: bool) -> ExecutionStatus:
        supervisor, notes = await self._supervisor(execution_id)
        invocation_id = invocation_id_of(notes)
        target: InvocationRow | None = None
        journal: list[HistoryEvent] = []
        kv_state: dict[str, bytes] = {}
        if invocation_id is not None:
            record: dict[str, Any] = json.loads(notes.get("record", b"{}"))
            rows, journal, kv_state = await asyncio.gather(
                self._access.invocations([invocation_id]),
                self._access.journal(invocation_id) if history else _nothing(),
                self._kv_state(record),
            )
            target = rows.get(invocation_id)
            if not is_over(supervisor, notes) and (target is None or target.status == "completed"):
                # It ended between the two looks: the outcome is there now, or about to be.
                supervisor, notes = await self._supervisor(execution_id)
        return status_of(
            Facts(
                execution_id=execution_id,
                provider=self.name,
                supervisor=supervisor,
                notes=notes,
                target=target,
                kv_state=kv_state,
                journal=tuple(journal),
            )
        )

    async def _kv_state(self, record: Mapping[str, Any]) -> dict[str, bytes]:
        key = record.get("key")
        if key is None:
            return {}
        return (await self._access.states(record["service"], [key])).get(key, {})

    async def _supervisor(self, execution_id: str) -> tuple[InvocationRow, dict[str, bytes]]:
        if split_execution_id(execution_id) is None:
            raise ExecutionNotFound(execution_id, hint="ids have the form <workflow id>.<execution name>")
        run_id = self._access.run_id(system.EXECUTIONS, execution_id)
        # The row before the notes: a run that is completed in the row has written all its notes by then.
        rows = await self._access.invocations([run_id])
        notes = await self._access.states(system.EXECUTIONS, [execution_id])
        if run_id not in rows:
            raise ExecutionNotFound(execution_id)
        return rows[run_id], notes.get(execution_id, {})

    @operation
    async def list_executions(
        self,
        *,
        workflow_id: str | None = None,
        states: Iterable[ExecutionState | str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = PAGE_LIMIT_DEFAULT,
        cursor: str | None = None,
    ) -> Page[ExecutionStatus]:
        check_limit(limit)
        wanted = None if states is None else frozenset(_state(each) for each in states)
        for name, value in (("created_after", created_after), ("created_before", created_before)):
            if value is not None and value.tzinfo is None:
                raise InvalidInput(name, "must be an aware datetime: say which time zone it means")
        try:
            return await self._executions(workflow_id, wanted, created_after, created_before, limit, cursor)
        except ValueError as error:
            raise InvalidInput("cursor", f"is none of this list: {error}") from None

    async def _executions(
        self,
        workflow_id: str | None,
        states: frozenset[ExecutionState] | None,
        created_after: datetime | None,
        created_before: datetime | None,
        limit: int,
        cursor: str | None,
    ) -> Page[ExecutionStatus]:
        found: list[ExecutionStatus] = []
        for _ in range(_SCAN_PAGES_MAX):
            page = await self._access.runs(
                system.EXECUTIONS,
                "run",
                key_prefix=f"{workflow_id}." if workflow_id is not None else "",
                created_after=created_after,
                created_before=created_before,
                limit=limit - len(found),
                cursor=cursor,
            )
            statuses = await self._statuses(page.rows)
            found += [each for each in statuses if states is None or each.state in states]
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                break
        return Page(items=tuple(found), next_cursor=cursor)

    async def _statuses(self, supervisors: Iterable[InvocationRow]) -> list[ExecutionStatus]:
        """Without history, input, output and K/V state."""
        rows = {row.key: row for row in supervisors if row.key is not None and split_execution_id(row.key)}
        if not rows:
            return []
        notes = await self._access.states(system.EXECUTIONS, rows, _LIST_NOTES)
        live: dict[str, str] = {}
        for execution_id, row in rows.items():
            invocation_id = invocation_id_of(notes.get(execution_id, {}))
            if invocation_id is not None and not is_over(row, notes.get(execution_id, {})):
                live[execution_id] = invocation_id
        targets = await self._access.invocations(live.values()) if live else {}
        found: list[ExecutionStatus] = []
        for execution_id, row in rows.items():
            status = status_of(
                Facts(
                    execution_id=execution_id,
                    provider=self.name,
                    supervisor=row,
                    notes=notes.get(execution_id, {}),
                    target=targets.get(live.get(execution_id, "")),
                )
            )
            found.append(_without_payload(status))
        return found

    @operation
    async def stop_execution(
        self, execution_id: str, reason: str = "", *, grace: timedelta | None = None, kill: bool = False
    ) -> ExecutionStatus:
        check_grace(grace)
        supervisor, notes = await self._supervisor(execution_id)
        if is_over(supervisor, notes):
            return await self._status(execution_id, history=False)
        kill_after = (self._settings.stop_grace if grace is None else grace) if kill else None
        await self._request_stop(execution_id, reason, kill_after)
        await self._access.attach(supervisor.id, STOP_WAIT + (kill_after or timedelta(0)))
        return await self._status(execution_id, history=False)

    async def _request_stop(self, execution_id: str, reason: str, kill_after: timedelta | None) -> None:
        """Durable when it returns: the engine holds the stop, whoever dies now.

        The reason travels to the supervisor, and the supervisor's own run is cancelled: either of the two is enough to
        end the execution, and it sends the handler one cancellation, however often it is asked.
        """
        grace_ms = None if kill_after is None else kill_after // timedelta(milliseconds=1)
        receipt = await self._access.send(
            system.EXECUTIONS,
            execution_id,
            "stop",
            {"reason": reason, "grace_ms": grace_ms},
            idempotency_key="stop" if grace_ms is None else "kill",
        )
        if receipt.is_new:
            await self._access.cancel(self._access.run_id(system.EXECUTIONS, execution_id))

    @operation
    async def wait(self, execution_id: str, *, timeout: timedelta | float | None = None) -> ExecutionStatus:  # noqa: ASYNC109 as the interface
        limit_s = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        deadline = None if limit_s is None else time.monotonic() + limit_s
        if split_execution_id(execution_id) is None:
            raise ExecutionNotFound(execution_id, hint="ids have the form <workflow id>.<execution name>")
        run_id = self._access.run_id(system.EXECUTIONS, execution_id)
        while True:
            left = _ATTACH_WAIT if deadline is None else timedelta(seconds=max(deadline - time.monotonic(), 0))
            if await self._patiently(partial(self._access.attach, run_id, min(left, _ATTACH_WAIT))):
                status = await self._patiently(lambda: self._status(execution_id, history=True))
                if status.state.is_final:
                    return status
            supervisor, _ = await self._patiently(lambda: self._supervisor(execution_id))
            if deadline is not None and time.monotonic() >= deadline and supervisor.status != "completed":
                status = await self._status(execution_id, history=False)
                raise WaitTimeout(execution_id, limit_s or 0.0, status.state.value)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again while the server restarts."""
        deadline = time.monotonic() + self.patience.total_seconds()
        delay_s = _RETRY_FIRST_S
        while True:
            try:
                return await ask()
            except ProviderUnauthorized:
                raise
            except ProviderUnavailable as error:
                if time.monotonic() + delay_s > deadline:
                    raise
                log.warning("no answer, asking again", extra={"endpoint": error.endpoint, "error": error.message})
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _RETRY_MAX_S)

    async def watch(self, execution_id: str) -> AsyncIterator[StateChange]:
        last: ExecutionStatus | None = None
        pause_s = _WATCH_FIRST_S
        while True:
            status = await self._patiently(lambda: self._status(execution_id, history=False))
            if last is None or _seen(last) != _seen(status):
                change = _change(last, status)
                if change.from_state != change.to_state and not self._hosts_supervisors:
                    transition(status.workflow_id, execution_id, change.from_state, change.to_state, change.at)
                yield change
                last, pause_s = status, _WATCH_FIRST_S
            if status.state.is_final:
                return
            run_id = self._access.run_id(system.EXECUTIONS, execution_id)
            # Waiting for the end is also the pause: the end is told at once.
            await self._patiently(partial(self._access.attach, run_id, timedelta(seconds=pause_s)))
            pause_s = min(pause_s * 1.5, _WATCH_MAX_S)

    @operation
    async def signal(
        self, execution_id: str, name: str, payload: Any = None, *, idempotency_key: str | None = None
    ) -> Any:
        json_text("payload", payload)
        notes = await self._started_notes(execution_id)
        if name.startswith("sign_1"):
            await self._access.resolve_awakeable(name, payload)
            return None
        record: dict[str, Any] = json.loads(notes.get("record", b"{}"))
        service, key = record.get("service", ""), record.get("key")
        handlers = await self._access.handlers(service) or {}
        if key is not None and handlers.get(name) == "shared" and name != PROMISE_HANDLER:
            return await self._access.call(service, key, name, payload, idempotency_key=idempotency_key)
        if PROMISE_HANDLER in handlers:
            await self._access.call(service, key, PROMISE_HANDLER, {"name": name, "payload": payload})
            return None
        request: system.SignalRequest = {
            "invocation_id": invocation_id_of(notes) or "",
            "name": name,
            "payload": payload,
        }
        await self._access.call(system.SIGNALS, None, "send", request, idempotency_key=idempotency_key)
        return None

    async def _started_notes(self, execution_id: str) -> dict[str, bytes]:
        """The supervisor's notes, when it has sent the handler: a moment after the start.

        Raises:
            InvalidInput: the execution is over, or does not get so far.
        """
        deadline = time.monotonic() + _START_WAIT_S
        while True:
            supervisor, notes = await self._supervisor(execution_id)
            if is_over(supervisor, notes):
                raise InvalidInput("execution_id", f"{execution_id!r} is over; nothing hears a signal")
            if invocation_id_of(notes) is not None:
                return notes
            if time.monotonic() > deadline:
                raise InvalidInput("execution_id", f"{execution_id!r} has not started yet; signal it when it runs")
            await asyncio.sleep(_WATCH_FIRST_S)

    async def close(self) -> None:
        await self._access.close()


def check_limit(limit: int) -> None:
    """
    Raises:
        InvalidInput: outside 1 to 1000.
    """
    if not 1 <= limit <= PAGE_LIMIT_MAX:
        raise InvalidInput("limit", f"must be 1 to {PAGE_LIMIT_MAX}, not {limit}")


def _state(value: ExecutionState | str) -> ExecutionState:
    try:
        return ExecutionState(value)
    except ValueError:
        raise InvalidInput("states", f"{value!r} is unknown; known: {', '.join(ExecutionState)}") from None


def _without_payload(status: ExecutionStatus) -> ExecutionStatus:
    return replace(status, input=None, output=None, history=(), kv_state={}, progress=None)


def _seen(status: ExecutionStatus) -> tuple[Any, ...]:
    return status.state, status.sub_state, status.progress


def _change(last: ExecutionStatus | None, status: ExecutionStatus) -> StateChange:
    at: datetime | None = None
    if last is None or last.state != status.state:
        if status.state.is_final:
            at = status.stop_time
        else:
            at = status.created_at if status.state == ExecutionState.PENDING else status.start_time
    return StateChange(
        execution_id=status.execution_id,
        from_state=last.state if last is not None else None,
        to_state=status.state,
        sub_state=status.sub_state,
        at=at or datetime.now(UTC),
        progress=status.progress,
        error=status.error,
    )


async def _nothing() -> list[HistoryEvent]:
    return []
