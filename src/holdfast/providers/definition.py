"""A definition -> what is served: loading what it names, finding the handler, and giving its service the workflow's name.

The name. Two workflows may share one definition, and a workflow's service is named after the workflow, so what is served
is a *copy* of the SDK object under another name; the object itself, and every other use of it, stays as it is. Inside the
copy a reference to itself must mean the copy: `ctx.workflow_call(own_handler, …)` names the SDK object's own name, and
reaching that (which may not be registered, or be another workflow of the same definition) would be wrong. So every handler
of the copy enters a context manager, the SDK's own extension point, that turns calls to the old name into calls to the new
one, for this invocation only. A definition with several services is served whole, its other services under their names.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import restate
from restate.exceptions import TerminalError
from restate.extensions import current_context
from restate.retry_policy import InvocationRetryPolicy

from holdfast.errors import DeploymentError
from holdfast.loading import described, is_asgi, load_reference
from holdfast.protocol import discovery
from holdfast.protocol.discovery import HandlerSpec, ServiceSpec
from holdfast.providers.errors import InvalidSpec
from holdfast.providers.types import RetryPolicy
from holdfast.runtime.discover import fetch_manifest, sigterm_kept

SdkService = restate.Service | restate.VirtualObject | restate.Workflow
SERVICE_TYPES = {"service": "service", "object": "virtual_object", "workflow": "workflow"}

PROMISE_HANDLER = "holdfast_promise"
"""Shared handler that copies of workflows get: it completes a durable promise, which no HTTP API can do."""

RETENTION_MIN = timedelta(minutes=1)
"""Shorter, and a result could be gone before the supervisor reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a reference leads to, before it has the workflow's name."""

    reference: str
    services: tuple[SdkService, ...] = ()
    """What is served; the first one is the workflow. Empty for a ready application."""
    app: Any = None
    """A ready application, whose services keep their names."""
    service: ServiceSpec
    """The workflow's service as the manifest has it, under its own name."""
    handler: HandlerSpec
    """The handler that an execution invokes."""

    @property
    def is_app(self) -> bool:
        """Its services cannot be renamed."""
        return self.app is not None


async def load(reference: str, *, handler: str | None = None, service: str | None = None) -> Definition:
    """Load what `module:attribute` names.

    Args:
        handler: The handler to invoke; None means the run handler of a workflow, else the only one, else `run`.
        service: Which of several services is the workflow; None means the only one, else the first one listed.
    Raises:
        InvalidSpec: it cannot be loaded, is nothing that runs, or has no such handler or service.
    """
    try:
        found = load_reference(reference)
    except DeploymentError as error:
        raise InvalidSpec("definition", error.message, hint=error.hint) from error
    services, app, found_handler = understand(found, reference)
    try:
        with sigterm_kept():
            body = await fetch_manifest(app if app is not None else restate.app(services))
        manifest = discovery.parse_manifest(body)
    except (DeploymentError, ValueError) as error:
        hint = error.hint if isinstance(error, DeploymentError) else "give each service a name of its own"
        raise InvalidSpec("definition", f"{reference}: {error}", hint=hint) from error
    names = [each.name for each in services] or [*manifest.services]
    if service is None:
        if app is not None and len(names) > 1:
            raise InvalidSpec(
                "provider_config.service",
                f"is required: {reference} is an application with several services",
                hint=f"one of: {', '.join(names)}",
            )
        service = names[0]
    if service not in names:
        raise InvalidSpec(
            "provider_config.service",
            f"{reference} has no service {service!r}",
            hint=f"it has: {', '.join(names)}; the services of a ready application keep their names",
        )
    services = tuple(sorted(services, key=lambda each: each.name != service))
    spec = manifest.services[service]
    chosen = choose_handler(spec, handler or found_handler)
    if app is None:
        _check_retention(spec, chosen)
    return Definition(reference=reference, services=services, app=app, service=spec, handler=chosen)


def choose_handler(service: ServiceSpec, name: str | None) -> HandlerSpec:
    """The handler that an execution invokes.

    Raises:
        InvalidSpec: there is no such handler, or none is named and there are several.
    """
    if not service.handlers:
        raise InvalidSpec(
            "definition", f"{service.name} has no handlers", hint="decorate a function with its handler()"
        )
    known = ", ".join(service.handlers)
    run = next((each for each in service.handlers.values() if each.is_workflow_run), None)
    if name is not None:
        if name not in service.handlers:
            raise InvalidSpec("definition.handler", f"{service.name} has no handler {name!r}", hint=f"it has: {known}")
        if run is not None and name != run.name:
            hint = f"an execution of a workflow is its run handler, {run.name}; call {name} with signal"
            raise InvalidSpec("definition.handler", f"{name!r} is no run handler", hint=hint)
        return service.handlers[name]
    if run is not None:
        return run
    if len(service.handlers) == 1:
        return next(iter(service.handlers.values()))
    if "run" in service.handlers:
        return service.handlers["run"]
    raise InvalidSpec(
        "definition.handler", f"is required: {service.name} has several handlers", hint=f"one of: {known}"
    )


def build_app(
    definition: Definition,
    service_name: str,
    retry_policy: RetryPolicy | None,
    identity_keys: list[str] | None = None,
) -> Callable[..., Any]:
    """The application to serve: the definition's services, the first one under the workflow's name."""
    if definition.is_app:
        return cast("Callable[..., Any]", definition.app)
    services = renamed(definition.services, service_name)
    if retry_policy is not None:
        handlers = _handlers(services[0])
        handler = handlers[definition.handler.name]
        handlers[handler.name] = replace(handler, invocation_retry_policy=_sdk_policy(retry_policy))
    return cast("Callable[..., Any]", restate.app(services, identity_keys=identity_keys))


def renamed(services: Iterable[SdkService], service_name: str) -> list[SdkService]:
    """Copies of services that belong together, the first one under another name."""
    primary, *others = services
    redirect = _redirecting({primary.name: service_name})
    main = _copied(primary, service_name, redirect)
    if isinstance(main, restate.Workflow):
        _add_promise_handler(main)
    return [main, *(_copied(each, each.name, redirect) for each in others)]


def understand(found: Any, reference: str) -> tuple[tuple[SdkService, ...], Any, str | None]:
    """(services, ready application, handler) of what a reference leads to.

    Raises:
        InvalidSpec: it is nothing that runs.
    """
    kinds = (restate.Service, restate.VirtualObject, restate.Workflow)
    if isinstance(found, kinds):
        return (found,), None, None
    if isinstance(found, list | tuple):
        several = cast("list[Any] | tuple[Any, ...]", found)
        if several and all(isinstance(each, kinds) for each in several):
            return tuple(several), None, None
    elif (handler := _sdk_handler(found)) is not None:
        owner = _owner(found, handler)
        if owner is None:
            raise InvalidSpec(
                "definition",
                f"{reference} is a handler of {handler.service_tag.name}, which its module does not name",
                hint=f"name the service: {reference.partition(':')[0]}:<service>, with handler {handler.name!r}",
            )
        return (owner,), None, handler.name
    elif is_asgi(found):
        return (), found, None
    elif (function := _plain_function(found)) is not None:
        return (_as_workflow(function),), None, None
    raise InvalidSpec(
        "definition",
        f"{reference} is {described(found)}",
        hint="name a restate Workflow, Service, VirtualObject or handler, what restate.app([...]) returned, "
        "or a coroutine function (ctx, input)",
    )


def _sdk_handler(found: Any) -> Any:
    from restate.handler import handler_from_callable

    if not inspect.isfunction(found):
        return None
    try:
        return cast(Any, handler_from_callable(cast(Any, found)))
    except ValueError:
        return None


def _owner(function: Any, handler: Any) -> SdkService | None:
    """The service that a handler belongs to, looked for where the handler is defined."""
    kinds = (restate.Service, restate.VirtualObject, restate.Workflow)
    for value in vars(inspect.getmodule(function) or object()).values():
        if isinstance(value, kinds) and _handlers(value).get(handler.name) is handler:
            return value
    return None


def _plain_function(found: Any) -> Any:
    if not inspect.iscoroutinefunction(found):
        return None
    parameters = [
        each
        for each in inspect.signature(found).parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return found if 1 <= len(parameters) <= 2 else None


def _as_workflow(function: Any) -> restate.Workflow:
    """A coroutine function as the run handler of a workflow of its own."""
    workflow = restate.Workflow(function.__name__, description=inspect.getdoc(function))
    workflow.main(name="run")(function)
    return workflow


def _copied(service: SdkService, name: str, redirect: Callable[[], AbstractAsyncContextManager[None]]) -> SdkService:
    made = copy.copy(service)
    made.service_tag = replace(service.service_tag, name=name)
    made.handlers = {
        each.name: replace(
            each, service_tag=made.service_tag, context_managers=[redirect, *(each.context_managers or [])]
        )
        for each in _handlers(service).values()
    }
    return made


def _handlers(service: SdkService) -> dict[str, Any]:
    return cast(Any, service).handlers


def _redirecting(names: Mapping[str, str]) -> Callable[[], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def redirected() -> AsyncGenerator[None]:
        context: Any = current_context()
        call = context.do_raw_call  # every way to call and send ends here

        def renamed(service: str, *args: Any, **kwargs: Any) -> Any:
            return call(names.get(service, service), *args, **kwargs)

        context.do_raw_call = renamed
        yield

    return redirected


def _add_promise_handler(workflow: restate.Workflow) -> None:
    if PROMISE_HANDLER in workflow.handlers:
        return

    async def complete(ctx: restate.WorkflowSharedContext, request: dict[str, Any]) -> bool:
        """Complete a durable promise; False when it was complete already."""
        try:
            await cast(Any, ctx.promise(request["name"])).resolve(request["payload"])
        except TerminalError as error:
            if error.status_code != 409:
                raise
            return False
        return True

    workflow.handler(PROMISE_HANDLER)(complete)


def _sdk_policy(policy: RetryPolicy) -> InvocationRetryPolicy:
    return InvocationRetryPolicy(
        initial_interval=policy.initial_interval,
        exponentiation_factor=policy.backoff_rate,
        max_interval=policy.max_interval,
        max_attempts=policy.max_attempts + 1,  # the engines count the first attempt as well
        on_max_attempts="kill",  # `failed` with the last error; the engines' default would pause it
    )


def _check_retention(service: ServiceSpec, handler: HandlerSpec) -> None:
    kept_ms = handler.workflow_retention_ms if handler.is_workflow_run else handler.idempotency_retention_ms
    if kept_ms < RETENTION_MIN // timedelta(milliseconds=1):
        setting = "workflow_retention" if handler.is_workflow_run else "idempotency_retention"
        raise InvalidSpec(
            "definition",
            f"{service.name}/{handler.name} keeps its result for {kept_ms} ms only, too short to be read",
            hint=f"set {setting} to a minute or more, or leave it out",
        )
