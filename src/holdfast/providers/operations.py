"""`EngineProvider`: the interface on any engine that speaks Restate's terms. What differs between engines is where a
workflow's code is served (`_place`, `_displace`) and how the engine is reached (`EngineAccess`)."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from holdfast.providers import system
from holdfast.providers.access import EngineAccess, InvocationRow
from holdfast.providers.base import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, WorkflowProvider
from holdfast.providers.definition import PROMISE_HANDLER, Definition, build_app, load
from holdfast.providers.errors import (
    ExecutionNotFound,
    InvalidInput,
    InvalidSpec,
    ProviderConflict,
    ProviderUnauthorized,
    ProviderUnavailable,
    WaitTimeout,
    WorkflowInUse,
    WorkflowNotFound,
)
from holdfast.providers.naming import WORKFLOW_ID, execution_id_for, service_name_for, split_execution_id
from holdfast.providers.observe import log, operation, transition
from holdfast.providers.status import Facts, invocation_id_of, is_over, status_of
from holdfast.providers.types import (
    CreateWorkflowResult,
    ExecutionResult,
    ExecutionState,
    ExecutionStatus,
    HistoryEvent,
    Page,
    RetryPolicy,
    StateChange,
    WorkflowInfo,
    WorkflowSpec,
    duration_text,
    time_text,
)
from holdfast.providers.validation import (
    check_execution,
    check_spec,
    definition_reference,
    parse_duration,
    retry_policy_from_json,
)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a workflow's code runs."""

    deployment_id: str
    service_name: str
    service_type: str
    """`workflow`, `virtual_object` or `service`."""
    handler: str
    """The handler that an execution invokes."""
    handlers: tuple[str, ...]
    endpoint: str
    """Address at which the engine reaches the code, for people."""
    place: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the provider itself must remember about it."""


class EngineProvider(WorkflowProvider):
    """Everything but the place of the code."""

    patience: timedelta = timedelta(0)
    """How long `wait` and `watch` put up with an engine that does not answer: a server may be restarting."""

    def __init__(self, access: EngineAccess, settings: CommonSettings) -> None:
        self._access = access
        self._settings = settings

    # ---- what engines differ in ------------------------------------------------------------------------------------------

    @abstractmethod
    async def _place(self, spec: WorkflowSpec) -> Placement:
        """Serve or register the workflow's code, under a name that was claimed. Repeating it changes nothing."""

    @abstractmethod
    async def _displace(self, record: Mapping[str, Any]) -> None:
        """Take the code away again, if nothing else uses it."""

    @abstractmethod
    async def _check_placeable(self, spec: WorkflowSpec) -> None:
        """The provider's part of `validate`."""

    async def _ensure_system(self) -> None:
        """Whatever is needed before the system services can be called."""

    @property
    def _hosts_supervisors(self) -> bool:
        """Supervisors run in this process, and log their transitions here."""
        return True

    # ---- workflows -------------------------------------------------------------------------------------------------------

    @operation
    async def validate(self, spec: WorkflowSpec) -> None:
        check_spec(spec)
        await self._check_placeable(spec)

    @operation
    async def create_workflow(self, spec: WorkflowSpec) -> CreateWorkflowResult:
        check_spec(spec)
        stored = await self._record(spec.workflow_id)
        if stored is not None:
            return self._created(stored, is_new=False)
        await self._check_placeable(spec)
        placement = await self._place(spec)
        record = self._record_of(spec, placement)
        registered = await self._access.call(system.REGISTRY, spec.workflow_id, "create", record)
        return self._created(registered["record"], is_new=registered["is_new"])

    def _service_name(self, spec: WorkflowSpec, definition: Definition | None) -> str:
        """The configured name, or the one made from the id; services of a ready application keep theirs."""
        if definition is not None and definition.is_app:
            return definition.service.name
        configured = spec.provider_config.get("service_name") or self._settings.service_name
        return configured or service_name_for(spec.workflow_id)

    async def _load(self, spec: WorkflowSpec) -> Definition:
        """The definition's code, in this process.

        Raises:
            InvalidSpec: it cannot be loaded, or its service cannot have the name it is given.
        """
        reference, handler, _ = definition_reference(spec)
        definition = await load(reference, handler=handler, service=spec.provider_config.get("service"))
        configured = spec.provider_config.get("service_name")
        if definition.is_app and configured not in (None, definition.service.name):
            raise InvalidSpec(
                "provider_config.service_name",
                f"{configured!r} cannot be given to the service {definition.service.name!r} of a ready application",
                hint="name the service object instead of the application, or leave service_name out",
            )
        return definition

    def _build(self, spec: WorkflowSpec, definition: Definition, service_name: str) -> Callable[..., Any]:
        return build_app(definition, service_name, self._policy(spec))

    def _policy(self, spec: WorkflowSpec) -> RetryPolicy | None:
        if spec.retry_policy is not None:
            return spec.retry_policy
        attempts = self._settings.retry_attempts
        return None if attempts is None else RetryPolicy(max_attempts=attempts)

    async def _claim(self, service_name: str, workflow_id: str) -> None:
        request: dict[str, str | None] = {"workflow_id": workflow_id, "instead_of": None}
        owner = await self._access.call(system.NAMES, service_name, "claim", request)
        if owner != workflow_id and await self._record(owner) is None:
            # Its creation failed half-way, or its deletion did: nobody uses the name.
            request["instead_of"] = owner
            owner = await self._access.call(system.NAMES, service_name, "claim", request)
        if owner != workflow_id:
            raise ProviderConflict(
                f"service name {service_name!r} belongs to workflow {owner!r}",
                hint=f"give workflow {workflow_id!r} a name of its own: provider_config.service_name",
            )

    def _record_of(self, spec: WorkflowSpec, placement: Placement) -> dict[str, Any]:
        _, _, version = definition_reference(spec)
        return {
            "workflow_id": spec.workflow_id,
            "name": spec.name,
            "description": spec.description,
            "definition": dict(spec.definition) if isinstance(spec.definition, Mapping) else spec.definition,
            "version": version,
            "service_name": placement.service_name,
            "service_type": placement.service_type,
            "handler": placement.handler,
            "handlers": [name for name in placement.handlers if name != PROMISE_HANDLER],
            "deployment_id": placement.deployment_id,
            "endpoint": placement.endpoint,
            "timeout": duration_text(spec.timeout) if spec.timeout is not None else None,
            "retry_policy": spec.retry_policy.to_json() if spec.retry_policy is not None else None,
            "tags": dict(spec.tags),
            "provider_config": dict(spec.provider_config),
            "created_at": time_text(datetime.now(UTC)),
            "place": dict(placement.place),
        }

    def _created(self, record: Mapping[str, Any], *, is_new: bool) -> CreateWorkflowResult:
        return CreateWorkflowResult(
            workflow_id=record["workflow_id"],
            provider_type=self.name,
            service_name=record["service_name"],
            deployment_id=record["deployment_id"],
            is_new=is_new,
            created_at=datetime.fromisoformat(record["created_at"]),
            resource_ids={
                "service": record["service_name"],
                "handler": record["handler"],
                "deployment": record["deployment_id"],
                "endpoint": record["endpoint"],
            },
            message="created" if is_new else "it was already there; nothing was changed",
        )

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
    async def get_workflow(self, workflow_id: str) -> WorkflowInfo:
        return self._info(await self._known_record(workflow_id))

    def _info(self, record: Mapping[str, Any]) -> WorkflowInfo:
        timeout, policy = record["timeout"], record["retry_policy"]
        return WorkflowInfo(
            workflow_id=record["workflow_id"],
            provider_type=self.name,
            name=record["name"],
            definition=record["definition"],
            service_name=record["service_name"],
            service_type=record["service_type"],
            handler=record["handler"],
            handlers=tuple(record["handlers"]),
            deployment_id=record["deployment_id"],
            created_at=datetime.fromisoformat(record["created_at"]),
            version=record["version"],
            description=record["description"],
            timeout=parse_duration(timeout) if timeout else None,
            retry_policy=retry_policy_from_json(policy) if policy else None,
            tags=record["tags"],
            provider_config=record["provider_config"],
        )

    @operation
    async def list_workflows(self, *, limit: int = PAGE_LIMIT_DEFAULT, cursor: str | None = None) -> Page[WorkflowInfo]:
        _check_limit(limit)
        rows = await self._access.keys_with(system.REGISTRY, "record", after=cursor or "", limit=limit + 1)
        items = tuple(self._info(json.loads(value)) for _, value in rows[:limit])
        return Page(items=items, next_cursor=rows[limit - 1][0] if len(rows) > limit else None)

    @operation
    async def delete_workflow(self, workflow_id: str, *, force: bool = False) -> None:
        record = await self._record(workflow_id)
        if record is None:
            return
        live = await self._live_executions(workflow_id)
        if live and not force:
            raise WorkflowInUse(workflow_id, live)
        await self._ensure_system()
        # Forgotten first, so that nothing new starts; then whatever started before that is stopped.
        await self._access.call(system.REGISTRY, workflow_id, "remove", None)
        await self._stop_all(workflow_id)
        await self._displace(record)
        await self._access.call(system.NAMES, record["service_name"], "release", workflow_id)

    async def _live_executions(self, workflow_id: str) -> list[str]:
        live = [state for state in ExecutionState if not state.is_final]
        return [each.execution_id async for each in self._all_executions(workflow_id, live)]

    async def _all_executions(
        self, workflow_id: str, states: Iterable[ExecutionState]
    ) -> AsyncIterator[ExecutionStatus]:
        cursor: str | None = None
        while True:
            page = await self._executions(workflow_id, frozenset(states), None, None, PAGE_LIMIT_MAX, cursor)
            for each in page:
                yield each
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _stop_all(self, workflow_id: str) -> None:
        executions = await self._live_executions(workflow_id)
        for execution_id in executions:
            await self._request_stop(execution_id, "its workflow was deleted", self._settings.stop_grace)
        for execution_id in executions:
            await self.wait(execution_id)

    # ---- executions ------------------------------------------------------------------------------------------------------

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
        _check_limit(limit)
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


def _check_limit(limit: int) -> None:
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


def spec_of(record: Mapping[str, Any]) -> WorkflowSpec:
    """The spec that a record was made from."""
    policy = record["retry_policy"]
    return WorkflowSpec(
        workflow_id=record["workflow_id"],
        definition=record["definition"],
        retry_policy=retry_policy_from_json(policy) if policy else None,
        provider_config=record["provider_config"],
    )
