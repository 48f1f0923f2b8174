"""Deployments and services: which are known, which one serves a new invocation, which one an old one is bound to.

Deployments are immutable: an invocation stays on the one that recorded its first command, new ones go to the newest. An
application in the engine's own process is the exception that cannot be helped: its former code is gone, so whatever was
bound to an earlier version of it goes on with the present one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.protocol.discovery import HandlerSpec, ServiceSpec

SETTINGS = (
    "public",
    "idempotency_retention_ms",
    "workflow_retention_ms",
    "journal_retention_ms",
    "inactivity_timeout_ms",
    "abort_timeout_ms",
)
"""Settings of a service that an operator may change."""

_DECLARED_AS = {
    "public": "ingressPrivate",
    "idempotency_retention_ms": "idempotencyRetention",
    "workflow_retention_ms": "workflowCompletionRetention",
    "journal_retention_ms": "journalRetention",
    "inactivity_timeout_ms": "inactivityTimeout",
    "abort_timeout_ms": "abortTimeout",
}


@dataclass(slots=True)
class Deployment:
    """A place where services run: an application in this process, or an HTTP endpoint."""

    id: str
    uri: str
    """Where it is reached. For an application in this process, a URI that names it."""
    is_remote: bool
    name: str | None
    """Name of an application in this process; None for an endpoint."""
    created_at_ms: int
    manifest: str
    """The discovery answer, as it was sent."""
    is_bidirectional: bool
    """It takes notifications while an attempt runs; otherwise an attempt ends whenever it must wait."""
    min_protocol_version: int
    max_protocol_version: int
    services: Mapping[str, ServiceSpec]
    """As declared, with the settings that an operator changed."""
    revisions: dict[str, int] = field(default_factory=dict[str, int])
    """Service -> its revision in this deployment."""
    use_http_11: bool = False
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """Sent with every request to it."""
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    sdk_version: str | None = None

    @property
    def protocol_mode(self) -> str:
        """As the admin API spells it."""
        return "BidiStream" if self.is_bidirectional else "RequestResponse"


class Catalog:
    """What is registered. Changed by the runtime after the rows are, read by the machine."""

    def __init__(self, deployments: Iterable[Deployment] = ()) -> None:
        self.deployments: dict[str, Deployment] = {}
        self.services: dict[str, ServiceSpec] = {}
        """The newest revision of every service, as they were registered. Replaced as a whole when something changes."""
        self._latest: dict[str, Deployment] = {}
        self._present: dict[str | None, Deployment] = {}
        self.replace(deployments)

    @classmethod
    def of(cls, services: Mapping[str, ServiceSpec], deployment_id: str) -> Catalog:
        """One application in this process and nothing else."""
        revisions = dict.fromkeys(services, 1)
        return cls([Deployment(deployment_id, "", False, "app", 0, "", True, 5, 7, services, revisions)])

    def replace(self, deployments: Iterable[Deployment]) -> None:
        """Take this as everything that is registered, oldest first."""
        self.deployments = {deployment.id: deployment for deployment in deployments}
        # Oldest first, so the last of a name is the one whose code this process has.
        self._present = {d.name: d for d in self.deployments.values() if not d.is_remote}
        latest: dict[str, Deployment] = {}
        for deployment in self.deployments.values():
            if not deployment.is_remote and self._present[deployment.name] is not deployment:
                continue
            for service in deployment.services:
                known = latest.get(service)
                if known is None or known.revisions[service] < deployment.revisions[service]:
                    latest[service] = deployment
        self._latest = latest
        self.services = {service: deployment.services[service] for service, deployment in latest.items()}

    def latest(self, service: str) -> Deployment | None:
        """Where new invocations of a service run."""
        return self._latest.get(service)

    def revision(self, service: str) -> int:
        """Newest revision of a service, 0 if it is unknown."""
        latest = self._latest.get(service)
        return latest.revisions[service] if latest is not None else 0

    def handler(self, deployment_id: str | None, service: str, handler: str) -> HandlerSpec | None:
        """The handler as the deployment declares it; of the newest one when the invocation is bound to none."""
        deployment = self.placed(deployment_id, service, in_process=False)
        return None if deployment is None else self.handler_on(deployment, service, handler)

    @staticmethod
    def handler_on(deployment: Deployment, service: str, handler: str) -> HandlerSpec | None:
        """The handler as this deployment declares it."""
        spec = deployment.services.get(service)
        found = spec.handlers.get(handler) if spec is not None else None
        if found is not None and not deployment.is_bidirectional:
            # It answers when it has read the whole request, so the request must not be kept open.
            return replace(found, inactivity_timeout_ms=0)
        return found

    def placed(self, deployment_id: str | None, service: str, *, in_process: bool) -> Deployment | None:
        """Where an invocation runs now; None when that deployment was removed, or the service is unknown.

        Args:
            deployment_id: The deployment it is bound to, if any.
            in_process: It has commands but is bound to none in its row. Only applications in this process leave that
                out, because for them it makes no difference.
        """
        latest = self._latest.get(service)
        if deployment_id is None:
            if in_process and latest is not None and latest.is_remote:
                inside = [d for d in self._present.values() if service in d.services]
                return max(inside, key=lambda d: d.revisions[service], default=latest)
            return latest
        deployment = self.deployments.get(deployment_id)
        if deployment is None or deployment.is_remote:
            return deployment
        return self._present[deployment.name]


def configured(service: ServiceSpec, settings: Mapping[str, Any]) -> ServiceSpec:
    """The service with an operator's settings in place of its own; what a handler sets itself stays."""
    changes = {name: value for name, value in settings.items() if value is not None}
    if not changes:
        return service
    handlers: dict[str, HandlerSpec] = {}
    for name, handler in service.handlers.items():
        own = {
            setting: value
            for setting, value in changes.items()
            if _DECLARED_AS[setting] not in handler.overrides
            and (setting != "workflow_retention_ms" or handler.is_workflow_run)
        }
        if own.get("public") and not handler.public and service.public:
            del own["public"]  # it alone was declared private
        handlers[name] = replace(handler, **own)
    if any(_DECLARED_AS["workflow_retention_ms"] in handler.overrides for handler in service.handlers.values()):
        changes.pop("workflow_retention_ms", None)  # of a workflow it is the run handler's, which has its own
    return replace(service, handlers=handlers, **changes)
