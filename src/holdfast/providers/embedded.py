"""The embedded provider: an engine in this process, on one SQLite file.

    provider = await EmbeddedProvider.open(db="app.db")

Workflows are served in this process too, each as an application of its own beside the system services. After a restart
their definitions are read back from the file and imported again; what was running waits for its code and goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

import restate

from holdfast.config import EngineConfig
from holdfast.embedded import Engine
from holdfast.errors import HoldfastError
from holdfast.providers import definition as definitions
from holdfast.providers import system
from holdfast.providers.access_engine import InProcessAccess
from holdfast.providers.definition import Definition
from holdfast.providers.errors import InvalidSpec, ProviderConflict
from holdfast.providers.observe import log
from holdfast.providers.operations import CommonSettings, EngineProvider, Placement
from holdfast.providers.types import RetryPolicy, WorkflowSpec
from holdfast.providers.validation import check_provider_config, definition_reference, retry_policy_from_json

SYSTEM_APP = "holdfast.providers"

PROVIDER_CONFIG = {
    "service_name": "name of the workflow's service; default: made from the workflow id",
    "service": "which service is the workflow, when the definition has several",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings(CommonSettings):
    """Settings of one embedded provider."""

    db: str = "holdfast.db"
    ingress_port: int | None = None
    admin_port: int | None = None
    engine: EngineConfig = field(default_factory=EngineConfig)


class EmbeddedProvider(EngineProvider):
    """Workflows on an engine in this process."""

    def __init__(self, engine: Engine, settings: EmbeddedSettings, *, owns_engine: bool) -> None:
        self.engine = engine
        self._in_process = InProcessAccess(engine)
        self._owns_engine = owns_engine
        super().__init__(self._in_process, settings)

    @property
    def name(self) -> str:
        return "embedded"

    @classmethod
    async def open(cls, settings: EmbeddedSettings, engine: Engine | None = None) -> EmbeddedProvider:
        """Start an engine, or use one that runs, and go on with everything that was not finished.

        Raises:
            DatabaseInUse, DatabaseRefused: the file; nothing was changed.
        """
        owns_engine = engine is None

        async def kill(invocation_id: str) -> None:
            await provider.kill(invocation_id)

        app = restate.app(system.system_services(kill=kill))
        if engine is None:
            engine = Engine(app, db=os.fspath(settings.db), config=settings.engine)
        provider = cls(engine, settings, owns_engine=owns_engine)
        try:
            if owns_engine:
                await engine.start()
            else:
                await engine.register(app, name=SYSTEM_APP)
            await provider._restore()
        except BaseException:
            if owns_engine:
                await engine.stop()
            raise
        return provider

    async def kill(self, invocation_id: str) -> None:
        """End an invocation that did not react to its cancellation."""
        await self._in_process.kill(invocation_id)

    async def _restore(self) -> None:
        """Serve every stored workflow again. One that cannot be imported is told and left: its executions wait."""
        after = ""
        while rows := await self._in_process.keys_with(system.REGISTRY, "record", after=after, limit=100):
            for after, value in rows:
                await self._restore_one(after, value)

    async def _restore_one(self, workflow_id: str, value: bytes) -> None:
        record: dict[str, Any] = json.loads(value)
        spec = WorkflowSpec(
            workflow_id=workflow_id, definition=record["definition"], provider_config=record["provider_config"]
        )
        policy = retry_policy_from_json(record["retry_policy"]) if record["retry_policy"] else None
        try:
            definition = await self._load(spec)
            await self._serve(workflow_id, definition, record["service_name"], policy or self._policy(spec))
        except HoldfastError as error:
            log.error(
                "workflow cannot be served; its executions wait for it",
                extra={"workflow_id": workflow_id, "error": error.message, "hint": error.hint},
            )

    async def _load(self, spec: WorkflowSpec) -> Definition:
        reference, handler, _ = definition_reference(spec)
        return await definitions.load(reference, handler=handler, service=spec.provider_config.get("service"))

    async def _check_placeable(self, spec: WorkflowSpec) -> None:
        check_provider_config(spec, PROVIDER_CONFIG)
        definition = await self._load(spec)
        configured = spec.provider_config.get("service_name")
        if definition.is_app and configured not in (None, definition.service.name):
            raise InvalidSpec(
                "provider_config.service_name",
                f"{configured!r} cannot be given to the service {definition.service.name!r} of a ready application",
                hint="name the service object instead of the application, or leave service_name out",
            )

    async def _service_name(self, spec: WorkflowSpec) -> str:
        definition = await self._load(spec)
        return definition.service.name if definition.is_app else await super()._service_name(spec)

    async def _place(self, spec: WorkflowSpec, service_name: str, policy: RetryPolicy | None) -> Placement:
        definition = await self._load(spec)
        self._check_free(spec.workflow_id, definition, service_name)
        deployment = await self._serve(spec.workflow_id, definition, service_name, policy)
        service = self.engine.services[service_name]
        return Placement(
            deployment_id=deployment.id,
            service=service,
            handler=service.handlers[definition.handler.name],
            resource_ids={
                "service": service_name,
                "handler": definition.handler.name,
                "deployment": deployment.id,
                "endpoint": self._in_process.endpoint,
            },
        )

    def _check_free(self, workflow_id: str, definition: Definition, service_name: str) -> None:
        """A service that somebody else registered with the engine is not taken over."""
        names = {service_name, *(each.name for each in definition.services[1:])}
        for name in sorted(names):
            deployment = self.engine.deployments.latest(name)
            if deployment is not None and deployment.name != app_name(workflow_id):
                raise ProviderConflict(
                    f"the engine has a service {name!r} already, in deployment {deployment.id}",
                    hint="choose another name for the workflow's service: provider_config.service_name",
                )

    async def _serve(
        self, workflow_id: str, definition: Definition, service_name: str, policy: RetryPolicy | None
    ) -> Any:
        app = definitions.build_app(definition, service_name, policy)
        return await self.engine.register(app, name=app_name(workflow_id))

    async def _displace(self, record: Mapping[str, Any]) -> None:
        await self.engine.unregister(app_name(record["workflow_id"]))

    async def close(self) -> None:
        await super().close()
        if self._owns_engine:
            await self.engine.stop()


def app_name(workflow_id: str) -> str:
    """What a workflow's application is called among those of the process."""
    return f"workflow:{workflow_id}"


async def open_embedded(settings: Mapping[str, Any], *, engine: Engine | None = None) -> EmbeddedProvider:
    """What `holdfast.providers.open("embedded", …)` calls.

    Args:
        settings: By the names of `settings.EMBEDDED`.
        engine: A running engine to use instead of one on `db`; it is left running on close.
    """
    common = {each.name: settings[each.name] for each in fields(CommonSettings)}
    config = EngineConfig(
        durability=settings["durability"],
        attempts_max=settings["attempts_max"],
        body_bytes_max=settings["body_bytes_max"],
        drain_ms=settings["drain"] // timedelta(milliseconds=1),
    )
    ports = {"ingress_port": settings["ingress_port"], "admin_port": settings["admin_port"]}
    return await EmbeddedProvider.open(EmbeddedSettings(db=settings["db"], engine=config, **ports, **common), engine)
