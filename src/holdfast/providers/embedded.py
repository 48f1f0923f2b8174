"""The embedded provider: an engine in this process, on one SQLite file.

Workflows are served in this process too, each as an application of its own beside the system services. After a restart
their definitions are read back from the file and imported again; what was running waits for its code and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

import restate

from holdfast.config import EngineConfig
from holdfast.embedded import Engine
from holdfast.errors import HoldfastError
from holdfast.providers import system
from holdfast.providers.access_engine import InProcessAccess
from holdfast.providers.errors import ProviderConflict
from holdfast.providers.executions import CommonSettings
from holdfast.providers.observe import log
from holdfast.providers.operations import EngineProvider, Placement, spec_of
from holdfast.providers.types import WorkflowSpec
from holdfast.providers.validation import check_provider_config

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
    """None: the API is not served."""
    admin_port: int | None = None
    engine: EngineConfig = field(default_factory=EngineConfig)


async def open_embedded(settings: Mapping[str, Any], *, engine: Engine | None = None) -> EmbeddedProvider:
    """What `holdfast.providers.open("embedded", …)` calls.

    Args:
        settings: By the names of `settings.EMBEDDED`.
        engine: A running engine to use instead of one on `db`; it is left running on close.
    Raises:
        DatabaseInUse, DatabaseRefused: the file; nothing was changed.
        CannotListen: a port.
    """
    own = {name: settings[name] for name in ("db", "ingress_port", "admin_port")}
    common = {each.name: settings[each.name] for each in fields(CommonSettings)}
    config = EngineConfig(
        durability=settings["durability"],
        attempts_max=settings["attempts_max"],
        body_bytes_max=settings["body_bytes_max"],
        drain_ms=settings["drain"] // timedelta(milliseconds=1),
    )
    return await EmbeddedProvider.open(EmbeddedSettings(engine=config, **own, **common), engine)


class EmbeddedProvider(EngineProvider):
    """Workflows on an engine in this process."""

    def __init__(self, engine: Engine, settings: EmbeddedSettings, stack: AsyncExitStack) -> None:
        self.engine = engine
        self._in_process = InProcessAccess(engine)
        self._stack = stack
        self.ingress_url: str | None = None
        """Where the ingress API is served, if it is."""
        self.admin_url: str | None = None
        super().__init__(self._in_process, settings)

    @property
    def name(self) -> str:
        return "embedded"

    @classmethod
    async def open(cls, settings: EmbeddedSettings, engine: Engine | None = None) -> EmbeddedProvider:
        """Start an engine, or use one that runs, and go on with everything that was not finished."""

        async def kill(invocation_id: str) -> None:
            await provider.kill(invocation_id)

        app = restate.app(system.system_services(kill=kill))
        async with AsyncExitStack() as stack:
            if engine is None:
                engine = await stack.enter_async_context(Engine(app, db=settings.db, config=settings.engine))
            else:
                await engine.register(app, name=SYSTEM_APP)
            provider = cls(engine, settings, AsyncExitStack())
            await provider._restore()
            if settings.ingress_port is not None or settings.admin_port is not None:
                from holdfast.providers.ports import serve_apis

                urls = await stack.enter_async_context(serve_apis(engine, settings.ingress_port, settings.admin_port))
                provider.ingress_url, provider.admin_url = urls
            provider._stack = stack.pop_all()
        return provider

    async def kill(self, invocation_id: str) -> None:
        """End an invocation that did not react to its cancellation."""
        await self._in_process.kill(invocation_id)

    async def _restore(self) -> None:
        """Serve every stored workflow again. One that cannot be imported is told and left: its executions wait."""
        after = ""
        while rows := await self._in_process.keys_with(system.REGISTRY, "record", after=after, limit=100):
            for after, value in rows:
                record: dict[str, Any] = json.loads(value)
                try:
                    await self._serve(spec_of(record), record["service_name"])
                except HoldfastError as error:
                    log.error(
                        "workflow cannot be served; its executions wait for it",
                        extra={"workflow_id": after, "error": error.message, "hint": error.hint},
                    )

    async def _check_placeable(self, spec: WorkflowSpec) -> None:
        check_provider_config(spec, PROVIDER_CONFIG)
        await self._load(spec)

    async def _place(self, spec: WorkflowSpec) -> Placement:
        definition = await self._load(spec)
        service_name = self._service_name(spec, definition)
        await self._claim(service_name, spec.workflow_id)
        for name in (service_name, *(each.name for each in definition.services[1:])):
            deployment = self.engine.deployments.latest(name)
            if deployment is not None and deployment.name != app_name(spec.workflow_id):
                raise ProviderConflict(
                    f"the engine has a service {name!r} already, in deployment {deployment.id}",
                    hint="choose another name for the workflow's service: provider_config.service_name",
                )
        deployment_id = await self._serve(spec, service_name)
        service = self.engine.services[service_name]
        return Placement(
            deployment_id=deployment_id,
            service_name=service_name,
            service_type=service.ty.lower(),
            handler=definition.handler.name,
            handlers=tuple(service.handlers),
            endpoint=self._in_process.endpoint,
        )

    async def _serve(self, spec: WorkflowSpec, service_name: str) -> str:
        app = self._build(spec, await self._load(spec), service_name)
        return (await self.engine.register(app, name=app_name(spec.workflow_id))).id

    async def _displace(self, record: Mapping[str, Any]) -> None:
        await self.engine.unregister(app_name(record["workflow_id"]))

    async def close(self) -> None:
        await super().close()
        await self._stack.aclose()


def app_name(workflow_id: str) -> str:
    """What a workflow's application is called among those of the process."""
    return f"workflow:{workflow_id}"
