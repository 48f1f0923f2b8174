"""`WorkflowProvider`: what every provider promises. The HTTP API, the CLI and applications use nothing else.

The promises are held by one suite, `holdfast.providers.contract`, which runs against every provider.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from holdfast.providers.types import (
    CreateWorkflowResult,
    ExecutionResult,
    ExecutionState,
    ExecutionStatus,
    Page,
    StateChange,
    WorkflowInfo,
    WorkflowSpec,
)

PAGE_LIMIT_DEFAULT = 100
PAGE_LIMIT_MAX = 1000


class WorkflowProvider(ABC):
    """Workflows and their executions on one engine. Every operation may be repeated: a repeat changes nothing.

    Usable from `open` on, until `close`; also `async with await holdfast.providers.open(...) as provider`.
    Every operation may raise `ProviderUnavailable` (no answer of the engine, with its endpoint, status and body).
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """`embedded`, `restate` …: constant, lower-case letters, digits and hyphen; the key in the registry."""

    @abstractmethod
    async def validate(self, spec: WorkflowSpec) -> None:
        """Check a spec. No side effect but importing its definition.

        Raises:
            InvalidSpec: `.field` names the part: a missing or malformed field, a definition that cannot be loaded or
                is nothing that runs, an unknown handler, a provider_config that is not understood.
        """

    @abstractmethod
    async def create_workflow(self, spec: WorkflowSpec) -> CreateWorkflowResult:
        """Register a workflow with the engine and store its definition there.

        The same `workflow_id` again succeeds, changes nothing and answers what is stored (`is_new` False), also when
        the rest of the spec differs.

        Raises:
            InvalidSpec: as `validate`.
            ProviderConflict: its service name belongs to another workflow, or to somebody else's service.
            RegistrationFailed: the engine refused the deployment, with the engine's own response.
        """

    @abstractmethod
    async def get_workflow(self, workflow_id: str) -> WorkflowInfo:
        """What is stored about a workflow.

        Raises:
            WorkflowNotFound.
        """

    @abstractmethod
    async def list_workflows(self, *, limit: int = PAGE_LIMIT_DEFAULT, cursor: str | None = None) -> Page[WorkflowInfo]:
        """Workflows by id, in order.

        Args:
            limit: Length of the page, 1 to 1000.
            cursor: `next_cursor` of the previous page.
        Raises:
            InvalidInput: limit or cursor.
        """

    @abstractmethod
    async def delete_workflow(self, workflow_id: str, *, force: bool = False) -> None:
        """Forget a workflow; its deployment goes when nothing else uses it. An unknown id succeeds.

        What is known of its finished executions stays until their retention is over.

        Args:
            force: Stop its running executions first.
        Raises:
            WorkflowInUse: it has running executions, which the error names; only without `force`.
            WaitTimeout: one of them does not end, although it was told to; the workflow stays, try again.
        """

    @abstractmethod
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
        """Start an execution durably; returns when it is accepted.

        The same `execution_name` again answers the existing execution (`is_new` False) and never starts a second one.

        Args:
            input: JSON value for the handler; None for handlers without input.
            execution_name: 1 to 128 letters, digits, hyphens, underscores; its identity. None means a fresh one.
            tags: Labels to filter and show, text to text.
            metadata: Kept with the execution, any JSON.
            trigger_source: Who asked, for people: `api`, `controller` …
            key: For virtual objects: the object's key. None means the execution name.
        Raises:
            WorkflowNotFound: with the id.
            InvalidInput: `.field` names the argument.
        """

    @abstractmethod
    async def get_execution_status(self, execution_id: str, *, history: bool = True) -> ExecutionStatus:
        """Everything about an execution, as the engine has it now.

        Args:
            history: False leaves out the journal, which may be long.
        Raises:
            ExecutionNotFound.
        """

    @abstractmethod
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
        """Executions, newest first, without history, input, output and K/V state.

        A page may be shorter than `limit` although more follow: `next_cursor` tells.

        Args:
            states: Only these.
            created_after, created_before: Only what was accepted in between; aware datetimes, both exclusive.
            limit: Length of the page, 1 to 1000.
            cursor: `next_cursor` of the previous page, with the same filters.
        Raises:
            InvalidInput: `.field` names the argument; an unknown state lists the known ones.
        """

    @abstractmethod
    async def stop_execution(
        self, execution_id: str, reason: str = "", *, grace: timedelta | None = None, kill: bool = False
    ) -> ExecutionStatus:
        """Ask an execution to end: its handler gets a cancellation at its next wait and may clean up.

        The stop is durable when this returns. It waits a few seconds for the end; an execution that takes longer is
        still `running`, with sub-state `stopping`. A second stop, or one of an execution that is over, succeeds and
        changes nothing: neither state nor reason nor `stop_time`.

        Args:
            reason: Kept with the execution.
            grace: With `kill`, how long it may take to react; None means the provider's `stop_grace`.
            kill: End it without its consent after `grace`.
        Returns:
            The status after the stop.
        Raises:
            ExecutionNotFound.
        """

    @abstractmethod
    async def wait(self, execution_id: str, *, timeout: timedelta | float | None = None) -> ExecutionStatus:  # noqa: ASYNC109 its end is an error of ours that says so
        """Wait until an execution is over, also across restarts of the server.

        Args:
            timeout: Seconds or timedelta; None waits for ever.
        Raises:
            WaitTimeout: not over in time; it goes on.
            ExecutionNotFound.
        """

    @abstractmethod
    def watch(self, execution_id: str) -> AsyncIterator[StateChange]:
        """Follow an execution: first its present state, then each change of state, sub-state or progress, until it is
        over.

        Raises:
            ExecutionNotFound: from the iterator.
        """

    @abstractmethod
    async def signal(
        self, execution_id: str, name: str, payload: Any = None, *, idempotency_key: str | None = None
    ) -> Any:
        """Tell a live execution something.

        In this order: an awakeable when `name` is an awakeable's id (`sign_1…`); a shared handler of that name, when the
        workflow or object has one, whose answer is returned; for a workflow the durable promise `name`; else the named
        signal. A promise or awakeable that is complete already stays as it is.

        Args:
            payload: JSON value.
            idempotency_key: For shared handlers and named signals: the same key again is delivered once.
        Returns:
            The shared handler's answer; None otherwise.
        Raises:
            ExecutionNotFound.
            InvalidInput: the execution is over.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections, ports and files. Executions on a server go on; embedded ones go on at the next open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
