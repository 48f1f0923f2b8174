"""The application to deploy: workflows under their own service names, and what a provider needs beside them.

    app = holdfast.providers.app({"enrich": enrich, "discover": discover})      # in the image, the function, the unit

Registered with `create_workflow` of mechanism self-hosted, kubernetes, fargate or lambda, each workflow id finds its
service. Lambda is recognised by the SDK: the result is then a handler instead of an ASGI application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, cast

import restate

from holdfast.providers import system
from holdfast.providers.definition import SdkService, renamed, understand
from holdfast.providers.errors import InvalidSpec
from holdfast.providers.naming import WORKFLOW_ID, WORKFLOW_ID_RULE, service_name_for


def app(
    workflows: Mapping[str, Any] | None = None,
    *,
    services: Iterable[SdkService] = (),
    retention: timedelta = system.RETENTION,
    identity_keys: list[str] | None = None,
) -> Callable[..., Any]:
    """Make an application of workflows, further services, and the providers' system services.

    Args:
        workflows: Workflow id -> a Workflow, Service, VirtualObject, or a coroutine function `(ctx, input)`.
        services: What is served besides, under its own names.
        retention: How long finished executions are kept.
        identity_keys: Public keys of the servers that may call, as `restate.app` takes them.
    Raises:
        InvalidSpec: an illegal workflow id, or a definition that cannot be served.
    """
    served: list[SdkService] = []
    for workflow_id, definition in (workflows or {}).items():
        if not WORKFLOW_ID.fullmatch(workflow_id):
            raise InvalidSpec("workflow_id", f"{workflow_id!r} is not {WORKFLOW_ID_RULE}")
        served += _served(workflow_id, definition)
    try:
        made = restate.app(
            [*served, *services, *system.system_services(retention=retention)], identity_keys=identity_keys
        )
    except ValueError as error:  # two of one name
        raise InvalidSpec("definition", str(error), hint="give each service a name of its own") from error
    return cast("Callable[..., Any]", made)


def _served(workflow_id: str, definition: Any) -> list[SdkService]:
    found, ready, _ = understand(definition, workflow_id)
    if ready is not None:
        raise InvalidSpec(
            "definition",
            f"{workflow_id}: the services of a ready application cannot be taken out of it",
            hint="name the service objects",
        )
    return renamed(found, service_name_for(workflow_id))
