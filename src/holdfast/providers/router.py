"""`Router`: several providers behind one interface; which workflow goes where is read in the configuration.

Ids carry no provider's name, so that a workflow can move without its callers noticing: an execution is looked for at the
provider its workflow is routed to, then at the others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from holdfast.providers.base import PAGE_LIMIT_DEFAULT, WorkflowProvider
from holdfast.providers.configuration import Configuration
from holdfast.providers.errors import (
    ExecutionNotFound,
    InvalidConfiguration,
    InvalidInput,
    InvalidSpec,
    ProviderNotFound,
    WorkflowNotFound,
)
from holdfast.providers.naming import split_execution_id
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

T = TypeVar("T")
Item = TypeVar("Item", WorkflowInfo, ExecutionStatus)

Open = Callable[[str], Awaitable[WorkflowProvider]]


class Router(WorkflowProvider):
    """Delegates every operation; providers are opened when they are first needed, and stay open.

    Args:
        configuration: Routes and the default provider.
        open_provider: Opens a provider by name.
    """

    def __init__(self, configuration: Configuration, open_provider: Open) -> None:
        self._configuration = configuration
        self._open_provider = open_provider
        self._opened: dict[str, WorkflowProvider] = {}
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        return "router"

    @property
    def opened(self) -> Mapping[str, WorkflowProvider]:
        """Providers in use, by name."""
        return dict(self._opened)

    async def provider(self, name: str) -> WorkflowProvider:
        """The provider of that name, opened if it was not.

        Raises:
            ProviderNotFound, InvalidConfiguration, and whatever its opening raises.
        """
        async with self._opening:
            if name not in self._opened:
                self._opened[name] = await self._open_provider(name)
            return self._opened[name]

    async def open_all(self) -> None:
        """Open every provider that the configuration names, so that what they left unfinished goes on."""
        for name in self._names():
            await self.provider(name)

    def _names(self) -> list[str]:
        """Providers the configuration names: the default one, then those of routes."""
        routed = [route.provider for route in self._configuration.routes]
        return list(dict.fromkeys([self._configuration.default_provider, *routed, *self._opened]))

    async def _of_workflow(self, workflow_id: str) -> WorkflowProvider:
        return await self.provider(self._configuration.provider_for(workflow_id))

    async def _of_spec(self, spec: WorkflowSpec) -> WorkflowProvider:
        if spec.provider_type is None:
            return await self._of_workflow(spec.workflow_id)
        try:
            return await self.provider(spec.provider_type)
        except (ProviderNotFound, InvalidConfiguration) as error:
            # Named by the request, so that is what is wrong; one that the configuration itself names is another matter.
            raise InvalidSpec("provider_type", error.message, hint=error.hint) from error

    async def _candidates(self, workflow_id: str) -> list[WorkflowProvider]:
        """Where a workflow may be: by its route first, then wherever else."""
        routed = self._configuration.provider_for(workflow_id)
        return [await self.provider(name) for name in dict.fromkeys([routed, *self._names()])]

    async def _first(self, workflow_id: str, ask: Callable[[WorkflowProvider], Awaitable[T]]) -> T:
        """The answer of the first provider that knows the workflow or execution."""
        unknown: WorkflowNotFound | ExecutionNotFound | None = None
        for provider in await self._candidates(workflow_id):
            try:
                return await ask(provider)
            except (WorkflowNotFound, ExecutionNotFound) as error:
                unknown = unknown or error
        assert unknown is not None
        raise unknown

    async def _execution(self, execution_id: str, ask: Callable[[WorkflowProvider], Awaitable[T]]) -> T:
        parts = split_execution_id(execution_id)
        if parts is None:
            raise ExecutionNotFound(execution_id, hint="ids have the form <workflow id>.<execution name>")
        return await self._first(parts[0], ask)

    # ---- workflows -------------------------------------------------------------------------------------------------------

    async def validate(self, spec: WorkflowSpec) -> None:
        await (await self._of_spec(spec)).validate(spec)

    async def create_workflow(self, spec: WorkflowSpec) -> CreateWorkflowResult:
        return await (await self._of_spec(spec)).create_workflow(spec)

    async def get_workflow(self, workflow_id: str) -> WorkflowInfo:
        return await self._first(workflow_id, lambda provider: provider.get_workflow(workflow_id))

    async def list_workflows(self, *, limit: int = PAGE_LIMIT_DEFAULT, cursor: str | None = None) -> Page[WorkflowInfo]:
        return await self._in_turn(
            cursor, limit, lambda provider, left, inner: provider.list_workflows(limit=left, cursor=inner)
        )

    async def delete_workflow(self, workflow_id: str, *, force: bool = False) -> None:
        for provider in await self._candidates(workflow_id):
            await provider.delete_workflow(workflow_id, force=force)

    # ---- executions ------------------------------------------------------------------------------------------------------

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
        return await self._first(
            workflow_id,
            lambda provider: provider.start_execution(
                workflow_id,
                input,
                execution_name=execution_name,
                tags=tags,
                metadata=metadata,
                trigger_source=trigger_source,
                key=key,
            ),
        )

    async def get_execution_status(self, execution_id: str, *, history: bool = True) -> ExecutionStatus:
        return await self._execution(
            execution_id, lambda each: each.get_execution_status(execution_id, history=history)
        )

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
        """As `WorkflowProvider.list_executions`; newest first within each provider, one provider after the other."""
        wanted = None if states is None else list(states)
        return await self._in_turn(
            cursor,
            limit,
            lambda provider, left, inner: provider.list_executions(
                workflow_id=workflow_id,
                states=wanted,
                created_after=created_after,
                created_before=created_before,
                limit=left,
                cursor=inner,
            ),
        )

    async def stop_execution(
        self, execution_id: str, reason: str = "", *, grace: timedelta | None = None, kill: bool = False
    ) -> ExecutionStatus:
        return await self._execution(
            execution_id, lambda provider: provider.stop_execution(execution_id, reason, grace=grace, kill=kill)
        )

    async def wait(self, execution_id: str, *, timeout: timedelta | float | None = None) -> ExecutionStatus:  # noqa: ASYNC109 as the interface
        return await self._execution(execution_id, lambda provider: provider.wait(execution_id, timeout=timeout))

    async def watch(self, execution_id: str) -> AsyncIterator[StateChange]:
        provider = await self._execution(execution_id, lambda each: _having(each, execution_id))
        async for change in provider.watch(execution_id):
            yield change

    async def signal(
        self, execution_id: str, name: str, payload: Any = None, *, idempotency_key: str | None = None
    ) -> Any:
        return await self._execution(
            execution_id,
            lambda provider: provider.signal(execution_id, name, payload, idempotency_key=idempotency_key),
        )

    async def close(self) -> None:
        opened, self._opened = self._opened, {}
        errors: list[Exception] = []
        for provider in opened.values():
            try:
                await provider.close()
            except Exception as error:  # noqa: BLE001 the others are closed too, then it is raised
                errors.append(error)
        if errors:
            raise errors[0]

    async def _in_turn(
        self, cursor: str | None, limit: int, ask: Callable[[WorkflowProvider, int, str | None], Awaitable[Page[Item]]]
    ) -> Page[Item]:
        """One provider's pages after the other's. The cursor names the provider and its own cursor."""
        names = self._names()
        at, inner = _position(cursor, names)
        found: list[Item] = []
        while at < len(names):
            page = await ask(await self.provider(names[at]), limit - len(found), inner)
            found += page.items
            inner = page.next_cursor
            if inner is None:
                at += 1
            if len(found) >= limit:
                break
        following = json.dumps([names[at], inner]) if at < len(names) else None
        return Page(items=tuple(found), next_cursor=following)


async def _having(provider: WorkflowProvider, execution_id: str) -> WorkflowProvider:
    await provider.get_execution_status(execution_id, history=False)
    return provider


def _position(cursor: str | None, names: list[str]) -> tuple[int, str | None]:
    if cursor is None:
        return 0, None
    try:
        name, inner = json.loads(cursor)
        return names.index(name), inner
    except (ValueError, TypeError):
        raise InvalidInput("cursor", "is none of this list") from None
