"""`EngineProvider`: the interface on any engine that speaks Restate's terms. What differs between engines is where a
workflow's code is served (`_place`, `_displace`) and how the engine is reached (`EngineAccess`)."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.errors import InvocationFailed
from holdfast.providers import system
from holdfast.providers.base import PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX
from holdfast.providers.definition import PROMISE_HANDLER, Definition, build_app, load
from holdfast.providers.errors import InvalidSpec, ProviderConflict, WorkflowInUse
from holdfast.providers.executions import Executions, check_limit
from holdfast.providers.naming import service_name_for
from holdfast.providers.observe import operation
from holdfast.providers.types import (
    CreateWorkflowResult,
    ExecutionState,
    ExecutionStatus,
    Page,
    RetryPolicy,
    WorkflowInfo,
    WorkflowSpec,
    duration_text,
    time_text,
)
from holdfast.providers.validation import check_spec, definition_reference, parse_duration, retry_policy_from_json

_DELETE_WAIT = timedelta(seconds=30)
"""How long a forced deletion waits for executions, on top of the time after which they are killed."""


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


class EngineProvider(Executions):
    """Everything but the place of the code."""

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
    def _identity_keys(self) -> list[str] | None:
        """Public keys of those who may call the code that this process serves; None: whoever reaches it."""
        return None

    # ---- workflows -------------------------------------------------------------------------------------------------------

    @operation
    async def validate(self, spec: WorkflowSpec) -> None:
        self._check_spec(spec)
        await self._check_placeable(spec)

    @operation
    async def create_workflow(self, spec: WorkflowSpec) -> CreateWorkflowResult:
        self._check_spec(spec)
        stored = await self._record(spec.workflow_id)
        if stored is not None:
            return self._created(stored, is_new=False)
        await self._check_placeable(spec)
        placement = await self._place(spec)
        record = self._record_of(spec, placement)
        try:
            registered = await self._access.call(system.REGISTRY, spec.workflow_id, "create", record)
        except InvocationFailed as error:
            raise _name_taken(error.message, spec.workflow_id) from error
        return self._created(registered["record"], is_new=registered["is_new"])

    def _check_spec(self, spec: WorkflowSpec) -> None:
        check_spec(spec)
        if spec.provider_type not in (None, self.name):
            raise InvalidSpec(
                "provider_type",
                f"is {spec.provider_type!r}, but this is the provider {self.name!r}",
                hint="leave it out, or use open_router(), which chooses by it",
            )

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
        return build_app(definition, service_name, self._policy(spec), self._identity_keys)

    def _policy(self, spec: WorkflowSpec) -> RetryPolicy | None:
        if spec.retry_policy is not None:
            return spec.retry_policy
        attempts = self._settings.retry_attempts
        return None if attempts is None else RetryPolicy(max_attempts=attempts)

    async def _claim(self, service_name: str, workflow_id: str) -> None:
        request: system.Claim = {"workflow_id": workflow_id, "instead_of": None}
        owner = await self._access.call(system.NAMES, service_name, "claim", request)
        if owner != workflow_id and await self._record(owner) is None:
            # Its creation failed half-way, or its deletion did: nobody uses the name.
            request["instead_of"] = owner
            owner = await self._access.call(system.NAMES, service_name, "claim", request)
        if owner != workflow_id:
            raise _name_taken(f"service name {service_name!r} belongs to workflow {owner!r}", workflow_id)

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
        check_limit(limit)
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
        await self._stop_all(workflow_id)
        await self._access.call(system.REGISTRY, workflow_id, "remove", None)
        await self._stop_all(workflow_id)  # what was started before it was forgotten
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
            await self.wait(execution_id, timeout=self._settings.stop_grace + _DELETE_WAIT)


def _name_taken(message: str, workflow_id: str) -> ProviderConflict:
    return ProviderConflict(
        message, hint=f"give workflow {workflow_id!r} a name of its own: provider_config.service_name"
    )


def spec_of(record: Mapping[str, Any]) -> WorkflowSpec:
    """The spec that a record was made from."""
    policy = record["retry_policy"]
    return WorkflowSpec(
        workflow_id=record["workflow_id"],
        definition=record["definition"],
        retry_policy=retry_policy_from_json(policy) if policy else None,
        provider_config=record["provider_config"],
    )
