"""The services that the core's tests run, described by a manifest as an application would send it."""

from __future__ import annotations

import json
from typing import Any

from holdfast.protocol.discovery import HandlerSpec, Manifest, parse_manifest


def handler(name: str, ty: str | None = None, **settings: Any) -> dict[str, Any]:
    return {"name": name, **({"ty": ty} if ty else {}), **settings}


def service(name: str, ty: str, *handlers: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"name": name, "ty": ty, "handlers": list(handlers), **settings}


def manifest(*services: dict[str, Any]) -> Manifest:
    document = {
        "protocolMode": "BIDI_STREAM",
        "minProtocolVersion": 5,
        "maxProtocolVersion": 7,
        "services": list(services),
    }
    return parse_manifest(json.dumps(document).encode())


_THREE_ATTEMPTS = {"retryPolicyMaxAttempts": 3, "retryPolicyInitialInterval": 100}

SERVICES = manifest(
    service("Plain", "SERVICE", handler("run")),
    service("Counter", "VIRTUAL_OBJECT", handler("add", "EXCLUSIVE"), handler("read", "SHARED")),
    service("Flow", "WORKFLOW", handler("run", "WORKFLOW"), handler("approve", "SHARED")),
    service("Pausing", "SERVICE", handler("run"), **_THREE_ATTEMPTS, retryPolicyOnMaxAttempts="PAUSE"),
    service("Killing", "SERVICE", handler("run"), **_THREE_ATTEMPTS, retryPolicyOnMaxAttempts="KILL"),
    service("Forgetful", "SERVICE", handler("run"), journalRetention=0, idempotencyRetention=0),
    service("OutputOnly", "SERVICE", handler("run"), journalRetention=0, idempotencyRetention=60_000),
    service("Fleeting", "WORKFLOW", handler("run", "WORKFLOW", workflowCompletionRetention=0)),
    service("FleetingObject", "VIRTUAL_OBJECT", handler("add"), journalRetention=0),
).services


def spec(target: str) -> HandlerSpec:
    """`Service/handler`."""
    service_name, handler_name = target.split("/")
    return SERVICES[service_name].handlers[handler_name]
