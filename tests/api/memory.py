"""A provider in memory, whose executions a test moves by hand: for what only the HTTP layer decides.

It keeps its promises (`WorkflowProvider`), but runs nothing: `advance` says what becomes of an execution.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.providers import (
    CreateWorkflowResult,
    ExecutionNotFound,
    ExecutionResult,
    ExecutionState,
    ExecutionStatus,
    InvalidInput,
    Page,
    StateChange,
    SubState,
    WaitTimeout,
    WorkflowInfo,
    WorkflowInUse,
    WorkflowNotFound,
    WorkflowProvider,
    WorkflowSpec,
)
from holdfast.providers.naming import execution_id_for
from holdfast.providers.validation import check_execution, check_spec


class MemoryProvider(WorkflowProvider):
    """`watchers` and `waiters` count who is being served at the moment; `failure` is raised by every operation."""

    def __init__(self) -> None:
        self.workflows: dict[str, WorkflowInfo] = {}
        self.executions: dict[str, ExecutionStatus] = {}
        self.moved = asyncio.Condition()
        self.watchers = self.waiters = 0
        self.failure: Exception | None = None
        self.signals: list[tuple[str, str, Any, str | None]] = []
        self.stops: list[tuple[str, str, timedelta | None, bool]] = []
        self.is_closed = False

    @property
    def name(self) -> str:
        return "memory"

    async def advance(self, execution_id: str, state: ExecutionState, **changes: Any) -> None:
        """Bring an execution into a state, and tell those who watch."""
        over = {"stop_time": datetime.now(UTC)} if state.is_final else {}
        sub_state = SubState(state.value) if state.value in {each.value for each in SubState} else SubState.WAITING
        async with self.moved:
            found = self.executions[execution_id]
            self.executions[execution_id] = replace(found, state=state, sub_state=sub_state, **over, **changes)
            self.moved.notify_all()

    async def fail(self, error: Exception) -> None:
        """From now on every operation fails, streams that are open included."""
        async with self.moved:
            self.failure = error
            self.moved.notify_all()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def validate(self, spec: WorkflowSpec) -> None:
        self._check()
        check_spec(spec)

    async def create_workflow(self, spec: WorkflowSpec) -> CreateWorkflowResult:
        await self.validate(spec)
        is_new = spec.workflow_id not in self.workflows
        if is_new:
            given: dict[str, Any] = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)} | {
                "provider_type": self.name
            }
            self.workflows[spec.workflow_id] = WorkflowInfo(
                service_name=spec.workflow_id,
                service_type="workflow",
                handler="run",
                handlers=("run",),
                deployment_id="dp_memory",
                created_at=datetime.now(UTC),
                **given,
            )
        stored = self.workflows[spec.workflow_id]
        return CreateWorkflowResult(
            workflow_id=stored.workflow_id,
            provider_type=self.name,
            service_name=stored.service_name,
            deployment_id=stored.deployment_id,
            is_new=is_new,
            created_at=stored.created_at,
        )

    async def get_workflow(self, workflow_id: str) -> WorkflowInfo:
        self._check()
        if workflow_id not in self.workflows:
            raise WorkflowNotFound(workflow_id)
        return self.workflows[workflow_id]

    async def list_workflows(self, *, limit: int = 100, cursor: str | None = None) -> Page[WorkflowInfo]:
        self._check()
        following = [self.workflows[each] for each in sorted(self.workflows) if each > (cursor or "")]
        return Page(
            items=tuple(following[:limit]),
            next_cursor=following[limit - 1].workflow_id if len(following) > limit else None,
        )

    async def delete_workflow(self, workflow_id: str, *, force: bool = False) -> None:
        self._check()
        running = [
            each.execution_id
            for each in self.executions.values()
            if each.workflow_id == workflow_id and not each.state.is_final
        ]
        if running and not force:
            raise WorkflowInUse(workflow_id, running)
        for execution_id in running:
            await self.advance(execution_id, ExecutionState.STOPPED)
        self.workflows.pop(workflow_id, None)

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
        await self.get_workflow(workflow_id)
        name = f"n{len(self.executions)}" if execution_name is None else execution_name
        check_execution(workflow_id, name, input, tags or {}, metadata or {})
        execution_id = execution_id_for(workflow_id, name)
        is_new = execution_id not in self.executions
        if is_new:
            self.executions[execution_id] = ExecutionStatus(
                execution_id=execution_id,
                workflow_id=workflow_id,
                execution_name=name,
                provider_type=self.name,
                state=ExecutionState.PENDING,
                sub_state=SubState.WAITING,
                created_at=datetime.now(UTC),
                input=input,
                tags=tags or {},
                metadata=dict(metadata or {}) | ({"key": key} if key else {}),
                trigger_source=trigger_source,
            )
        stored = self.executions[execution_id]
        return ExecutionResult(
            execution_id=execution_id,
            workflow_id=workflow_id,
            execution_name=name,
            provider_type=self.name,
            state=stored.state,
            is_new=is_new,
            started_at=stored.created_at,
        )

    async def get_execution_status(self, execution_id: str, *, history: bool = True) -> ExecutionStatus:
        self._check()
        if execution_id not in self.executions:
            raise ExecutionNotFound(execution_id)
        found = self.executions[execution_id]
        return found if history else replace(found, history=())

    async def list_executions(
        self,
        *,
        workflow_id: str | None = None,
        states: Iterable[ExecutionState | str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[ExecutionStatus]:
        self._check()
        wanted = None if states is None else set(states)
        found = [
            each
            for each in reversed(self.executions.values())
            if (workflow_id is None or each.workflow_id == workflow_id)
            and (wanted is None or each.state in wanted)
            and (created_after is None or each.created_at > created_after)
            and (created_before is None or each.created_at < created_before)
        ]
        if cursor is not None and not cursor.isdecimal():
            raise InvalidInput("cursor", "is none of this list")
        start = int(cursor or 0)
        end = start + limit
        return Page(items=tuple(found[start:end]), next_cursor=str(end) if len(found) > end else None)

    async def stop_execution(
        self, execution_id: str, reason: str = "", *, grace: timedelta | None = None, kill: bool = False
    ) -> ExecutionStatus:
        found = await self.get_execution_status(execution_id)
        self.stops.append((execution_id, reason, grace, kill))
        if not found.state.is_final:
            await self.advance(execution_id, ExecutionState.STOPPED, reason=reason)
        return self.executions[execution_id]

    async def wait(self, execution_id: str, *, timeout: timedelta | float | None = None) -> ExecutionStatus:  # noqa: ASYNC109 as the interface
        await self.get_execution_status(execution_id)
        limit_s = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self.waiters += 1
        try:
            async with asyncio.timeout(limit_s), self.moved:
                await self.moved.wait_for(lambda: self.failure or self.executions[execution_id].state.is_final)
            self._check()
        except TimeoutError:
            raise WaitTimeout(execution_id, limit_s or 0, self.executions[execution_id].state) from None
        finally:
            self.waiters -= 1
        return self.executions[execution_id]

    async def watch(self, execution_id: str) -> AsyncIterator[StateChange]:
        last: ExecutionStatus | None = None
        self.watchers += 1
        try:
            while True:
                found = await self.get_execution_status(execution_id)
                yield StateChange(
                    execution_id=execution_id,
                    from_state=last.state if last else None,
                    to_state=found.state,
                    sub_state=found.sub_state,
                    at=found.stop_time or found.created_at,
                    progress=found.progress,
                    error=found.error,
                )
                if found.state.is_final:
                    return
                last = found
                async with self.moved:
                    while not self.failure and self.executions[execution_id] is last:
                        await self.moved.wait()
        finally:
            self.watchers -= 1

    async def signal(
        self, execution_id: str, name: str, payload: Any = None, *, idempotency_key: str | None = None
    ) -> Any:
        await self.get_execution_status(execution_id)
        self.signals.append((execution_id, name, payload, idempotency_key))
        return {"heard": payload}

    async def close(self) -> None:
        self.is_closed = True
