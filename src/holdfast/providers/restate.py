"""The provider for a Restate server: ingress and admin API over HTTP, code wherever the mechanism says.

Mechanism `local` serves workflows from this process; the others register what is deployed somewhere. See
docs/providers-restate.md for what happens when which process is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import restate

from holdfast.errors import HoldfastError
from holdfast.providers import system
from holdfast.providers.access_http import HttpAccess, Registered
from holdfast.providers.configuration import Configuration
from holdfast.providers.definition import Definition
from holdfast.providers.errors import InvalidConfiguration, InvalidSpec, ProviderConflict, ProviderUnavailable
from holdfast.providers.executions import CommonSettings
from holdfast.providers.local import SYSTEM_PATH, LocalEndpoint
from holdfast.providers.naming import SYSTEM_PREFIX, service_name_for
from holdfast.providers.observe import log
from holdfast.providers.operations import EngineProvider, Placement, spec_of
from holdfast.providers.settings import ADMIN_PORT, MECHANISMS, lambda_arn, one_of, role_arn, url
from holdfast.providers.types import WorkflowSpec
from holdfast.providers.validation import check_provider_config, definition_reference

PROVIDER_CONFIG = {
    "service_name": "name of the workflow's service; default: made from the workflow id",
    "service": "which service is the workflow, when the definition has several",
    "execution_mechanism": "for this workflow, in place of workflow.restate.execution_mechanism",
    "deployment_url": "for this workflow, in place of workflow.restate.deployment_url",
    "deployment_arn": "for this workflow, in place of workflow.restate.deployment_arn",
    "assume_role_arn": "for this workflow, in place of workflow.restate.assume_role_arn",
}
_FORMS = {
    "execution_mechanism": one_of(*MECHANISMS),
    "deployment_url": url,
    "deployment_arn": lambda_arn,
    "assume_role_arn": role_arn,
}

OWNER = "holdfast-owner"
"""Metadata of deployments that a provider serves itself: `system`, or the workflow's id."""

_SERVE_AGAIN_S = 5.0
"""How often a process looks for workflows that nobody serves: as long as a person would wait before wondering."""

_ALIVE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestateSettings(CommonSettings):
    """Settings of one provider for a Restate server."""

    endpoint: str
    admin_endpoint: str
    execution_mechanism: str = "local"
    deployment_url: str | None = None
    deployment_arn: str | None = None
    assume_role_arn: str | None = None
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    advertised_url: str | None = None
    identity_key: str | None = None
    drain: timedelta = timedelta(seconds=2)
    serve: bool = True
    """Serve workflows of mechanism `local`, and the system services if nobody else does. False for a process that only
    asks and goes away again."""


async def open_restate(settings: Mapping[str, Any], *, serve: bool = True) -> RestateProvider:
    """What `holdfast.providers.open("restate", …)` calls. A server that does not answer is a warning, not an error.

    Args:
        settings: By the names of `settings.RESTATE`.
        serve: See `RestateSettings.serve`.
    """
    endpoint = settings["endpoint"]
    admin_endpoint = settings["admin_endpoint"] or default_admin_endpoint(endpoint)
    access = _access(settings, endpoint, admin_endpoint)
    own = {
        each.name: settings[each.name]
        for each in fields(RestateSettings)
        if each.name not in ("endpoint", "admin_endpoint", "serve")
    }
    provider = RestateProvider(
        access, RestateSettings(endpoint=endpoint, admin_endpoint=admin_endpoint, serve=serve, **own)
    )
    try:
        await provider.start()
    except BaseException:
        await provider.close()
        raise
    return provider


def default_admin_endpoint(endpoint: str) -> str:
    """The admin API that belongs to an ingress by custom: the same host, port 9070."""
    parts = urlsplit(endpoint)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{ADMIN_PORT}"


async def kill_configured(invocation_id: str) -> None:
    """Kill through the admin API that this process's configuration names: what deployed system services do.

    Without a configured endpoint it is told once and the invocation is left alone: retrying would not help.
    """
    try:
        settings = Configuration.load().section("restate")
    except InvalidConfiguration as error:
        log.error(
            "cannot kill: no admin API is configured where the system services run",
            extra={"invocation_id": invocation_id, "error": error.message},
        )
        return
    endpoint = settings["endpoint"]
    access = _access(settings, endpoint, settings["admin_endpoint"] or default_admin_endpoint(endpoint))
    try:
        await access.kill(invocation_id)
    finally:
        await access.close()


def _access(settings: Mapping[str, Any], endpoint: str, admin_endpoint: str) -> HttpAccess:
    return HttpAccess(
        endpoint,
        admin_endpoint,
        api_key=settings["api_key"],
        request_timeout=settings["request_timeout"],
        request_attempts=settings["request_attempts"],
        ca_file=settings["ca_file"],
    )


class RestateProvider(EngineProvider):
    """Workflows on a Restate server."""

    patience = timedelta(seconds=60)

    def __init__(self, access: HttpAccess, settings: RestateSettings) -> None:
        super().__init__(access, settings)
        self._http = access
        self._own = settings
        self._local = LocalEndpoint(settings.listen_host, settings.listen_port, settings.advertised_url, settings.drain)
        self._placing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._told: dict[str, str] = {}
        """Workflow id -> why it cannot be served, so that it is told once; "" stands for all of them."""

    @property
    def name(self) -> str:
        return "restate"

    @property
    def _identity_keys(self) -> list[str] | None:
        return [self._own.identity_key] if self._own.identity_key else None

    @property
    def _hosts_supervisors(self) -> bool:
        return self._local.has(SYSTEM_PATH)

    # ---- life ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Look whether the server answers, and serve what this process should serve."""
        try:
            await self._http.health()
        except ProviderUnavailable as error:
            log.warning(
                "the Restate server at %s does not answer; requests will be tried when they are made",
                error.endpoint,
                extra={
                    "operation": "connect",
                    "endpoint": error.endpoint,
                    "error": error.message,
                    "server_status": error.status_code,
                },
            )
        if self._own.serve and self._own.execution_mechanism == "local":
            await self._serve_stored()
            self._keeper = asyncio.create_task(self._keep_serving(), name="holdfast-provider-restate")

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._local.close()
        await super().close()

    async def _keep_serving(self) -> None:
        while True:
            await asyncio.sleep(_SERVE_AGAIN_S)
            await self._serve_stored()

    async def _serve_stored(self) -> None:
        """Serve every stored workflow of mechanism `local` that no living process serves."""
        try:
            async with self._placing:
                rows: list[tuple[str, bytes]] = []
                while more := await self._http.keys_with(
                    system.REGISTRY, "record", after=rows[-1][0] if rows else "", limit=100
                ):
                    rows += more
                records: list[dict[str, Any]] = [json.loads(value) for _, value in rows]
                mine = [each for each in records if each["place"].get("mechanism") == "local"]
                if mine:
                    await self._serve_system()
                for record in mine:
                    await self._serve_one(record)
        except Exception as error:  # noqa: BLE001 whatever it was: the next look is in a moment, and serving must not end
            self._tell("", "cannot look for workflows to serve", error)
        else:
            self._told.pop("", None)

    async def _serve_one(self, record: Mapping[str, Any]) -> None:
        workflow_id = record["workflow_id"]
        if self._local.has(workflow_id):
            return
        try:
            deployment = await self._http.deployment(record["deployment_id"])
            if deployment is not None and await self._is_alive(deployment.get("uri", "")):
                return  # another process serves it
            spec = spec_of(record)
            app = self._build(spec, await self._load(spec), record["service_name"])
            deployment_id = await self._registered_at(await self._local.add(workflow_id, app), workflow_id, deployment)
            if deployment_id != record["deployment_id"]:
                changes = {"deployment_id": deployment_id}
                await self._http.call(system.REGISTRY, workflow_id, "update", changes)
            self._told.pop(workflow_id, None)
        except HoldfastError as error:
            self._local.remove(workflow_id)
            self._tell(workflow_id, "workflow cannot be served; its executions wait for it", error)

    def _tell(self, workflow_id: str, what: str, error: Exception) -> None:
        """Once, not with every look."""
        if self._told.get(workflow_id) != str(error):
            self._told[workflow_id] = str(error)
            fields = {"workflow_id": workflow_id or None, "error": str(error), "hint": getattr(error, "hint", "")}
            log.error(what, extra=fields)

    # ---- system services -------------------------------------------------------------------------------------------------

    async def _ensure_system(self) -> None:
        async with self._placing:
            await self._serve_system()

    async def _serve_system(self) -> None:
        """The system services run somewhere: in a deployed application, in another process of ours, or here."""
        if self._local.has(SYSTEM_PATH):
            return
        known = await self._http.service(system.REGISTRY)
        deployment = await self._http.deployment(known["deployment_id"]) if known is not None else None
        if deployment is not None and _owner(deployment) != "system":
            return  # part of a deployed application
        if deployment is not None and await self._is_alive(deployment.get("uri", "")):
            return
        if not self._own.serve:
            raise ProviderUnavailable(
                f"{self._http.endpoint} has no holdfast services, and this process may not serve them",
                endpoint=self._http.endpoint,
                hint="include holdfast.providers.system_services() in the deployed application, or run `holdfast api`",
            )
        app = restate.app(system.system_services(kill=self._http.kill), identity_keys=self._identity_keys)
        await self._registered_at(await self._local.add(SYSTEM_PATH, app), "system", deployment)

    async def _registered_at(self, uri: str, owner: str, deployment: Mapping[str, Any] | None) -> str:
        """Have the server call `uri`: moved there, so that what is bound to the deployment goes on, or newly."""
        if deployment is not None:
            await self._http.move(deployment["id"], {"uri": uri, "overwrite": True})
            return str(deployment["id"])
        # Forced: a fixed port may have been registered by a former process with other code.
        registered = await self._http.register({"uri": uri, "force": True, "metadata": {OWNER: owner}})
        return registered.deployment_id

    async def _is_alive(self, uri: str) -> bool:
        """Whether a process serves there. Ours count only while they really do."""
        if not uri or self._local.owns(uri):
            return False
        return await self._http.is_healthy(f"{uri.rstrip('/')}/health", _ALIVE_TIMEOUT_S)

    # ---- places ------------------------------------------------------------------------------------------------------------

    def _mechanism(self, spec: WorkflowSpec) -> str:
        return str(spec.provider_config.get("execution_mechanism") or self._own.execution_mechanism)

    def _configured(self, spec: WorkflowSpec, name: str) -> str | None:
        return spec.provider_config.get(name) or getattr(self._own, name)

    async def _check_placeable(self, spec: WorkflowSpec) -> None:
        check_provider_config(spec, PROVIDER_CONFIG)
        for name, form in _FORMS.items():
            if name in spec.provider_config:
                try:
                    form(spec.provider_config[name])
                except ValueError as error:
                    raise InvalidSpec(f"provider_config.{name}", str(error)) from None
        mechanism = self._mechanism(spec)
        if mechanism == "local":
            await self._load(spec)
            return
        if spec.retry_policy is not None:
            raise InvalidSpec(
                "retry_policy",
                f"cannot be given to code that is deployed elsewhere (execution_mechanism {mechanism})",
                hint="set invocation_retry_policy of the service or handler, where the code is",
            )
        needed = "deployment_arn" if mechanism == "lambda" else "deployment_url"
        if not self._configured(spec, needed):
            raise InvalidSpec(
                f"provider_config.{needed}",
                f"is required with execution_mechanism {mechanism}",
                hint=f"say it here, or for all workflows as workflow.restate.{needed}",
            )

    async def _place(self, spec: WorkflowSpec) -> Placement:
        if self._mechanism(spec) == "local":
            await self._ensure_system()
            return await self._place_local(spec)
        return await self._place_deployed(spec)

    async def _place_local(self, spec: WorkflowSpec) -> Placement:
        definition = await self._load(spec)
        service_name = self._service_name(spec, definition)
        await self._claim(service_name, spec.workflow_id)
        async with self._placing:
            deployment = None
            for name in (service_name, *(each.name for each in definition.services[1:])):
                deployment = await self._own_deployment(name, spec.workflow_id) or deployment
            uri = await self._local.add(spec.workflow_id, self._build(spec, definition, service_name))
            try:
                deployment_id = await self._registered_at(uri, spec.workflow_id, deployment)
            except HoldfastError:
                self._local.remove(spec.workflow_id)
                raise
        service = definition.service
        return Placement(
            deployment_id=deployment_id,
            service_name=service_name,
            service_type=service.ty.lower(),
            handler=definition.handler.name,
            handlers=tuple(service.handlers),
            endpoint=self._http.endpoint,
            place={"mechanism": "local", "services": [service_name, *_others(definition)]},
        )

    async def _own_deployment(self, service_name: str, workflow_id: str) -> dict[str, Any] | None:
        """The deployment of a half-finished or former creation of this workflow; somebody else's is not taken over."""
        service = await self._http.service(service_name)
        deployment = await self._http.deployment(service["deployment_id"]) if service is not None else None
        if deployment is not None and _owner(deployment) != workflow_id:
            raise ProviderConflict(
                f"{self._http.endpoint} has a service {service_name!r} already, in deployment {deployment['id']}",
                hint="choose another name for the workflow's service: provider_config.service_name",
            )
        return deployment

    async def _place_deployed(self, spec: WorkflowSpec) -> Placement:
        mechanism = self._mechanism(spec)
        if mechanism == "lambda":
            address: dict[str, Any] = {"arn": self._configured(spec, "deployment_arn")}
            if role := self._configured(spec, "assume_role_arn"):
                address["assume_role_arn"] = role
        else:
            address = {"uri": self._configured(spec, "deployment_url")}
        # A dry run first: a deployment that turns out not to have the workflow is not left behind.
        service = await self._deployed_service(spec, await self._http.register({**address, "dry_run": True}))
        handler = _deployed_handler(spec, service)
        registered = await self._http.register(address)
        await self._ensure_system()  # only now: the deployment may bring the system services
        await self._claim(service["name"], spec.workflow_id)
        kinds = {"Workflow": "workflow", "VirtualObject": "virtual_object", "Service": "service"}
        return Placement(
            deployment_id=registered.deployment_id,
            service_name=service["name"],
            service_type=kinds[service["ty"]],
            handler=handler,
            handlers=tuple(each["name"] for each in service["handlers"]),
            endpoint=self._http.endpoint,
            place={"mechanism": mechanism, "services": [service["name"]]},
        )

    async def _deployed_service(self, spec: WorkflowSpec, registered: Registered) -> Mapping[str, Any]:
        """Which service of a deployment is the workflow: as configured, else by its generated name, else by the name
        that the definition's object has, else the only one."""
        found = {each["name"]: each for each in registered.services if not each["name"].startswith(SYSTEM_PREFIX)}
        configured = spec.provider_config.get("service_name") or self._own.service_name
        if configured is not None:
            candidates = [configured]
        else:
            candidates = [service_name_for(spec.workflow_id)]
            with contextlib.suppress(InvalidSpec):  # the code need not be importable here
                candidates.append((await self._load(spec)).service.name)
            if len(found) == 1:
                candidates += found
        for name in candidates:
            if name in found:
                return found[name]
        raise InvalidSpec(
            "provider_config.service_name",
            f"the deployment has no service {candidates[0]!r}; it has: {', '.join(found) or 'none'}",
            hint="name the service of the deployment that is this workflow",
        )

    # ---- removal -----------------------------------------------------------------------------------------------------------

    async def _displace(self, record: Mapping[str, Any]) -> None:
        deployment_id = record["deployment_id"]
        if await self._is_unused(deployment_id, record["place"].get("services", [])):
            await self._http.remove_deployment(deployment_id)
        self._local.remove(record["workflow_id"])

    async def _is_unused(self, deployment_id: str, services: list[str]) -> bool:
        """Whether the deployment served this workflow and nothing else, and nothing runs there any more."""
        deployment = await self._http.deployment(deployment_id)
        if deployment is None or not {each["name"] for each in deployment["services"]} <= set(services):
            return False
        after = ""
        while rows := await self._http.keys_with(system.REGISTRY, "record", after=after, limit=100):
            if any(json.loads(value)["deployment_id"] == deployment_id for _, value in rows):
                return False
            after = rows[-1][0]
        running = await self._http.query(
            "SELECT id FROM sys_invocation_status "  # noqa: S608 an id of the server's
            f"WHERE pinned_deployment_id = '{deployment_id}' AND status != 'completed' LIMIT 1"
        )
        return not running


def _owner(deployment: Mapping[str, Any]) -> str | None:
    metadata: Mapping[str, str] = deployment.get("metadata") or {}
    return metadata.get(OWNER)


def _others(definition: Definition) -> list[str]:
    """Services served beside the workflow's own."""
    return [each.name for each in definition.services[1:]]


def _deployed_handler(spec: WorkflowSpec, service: Mapping[str, Any]) -> str:
    """As `definition.choose_handler`, from what the server tells."""
    _, named, _ = definition_reference(spec)
    handlers = {each["name"]: each.get("ty") for each in service["handlers"]}
    run = next((name for name, ty in handlers.items() if ty == "Workflow"), None)
    if named is not None and (named not in handlers or (run is not None and named != run)):
        raise InvalidSpec(
            "definition.handler",
            f"{service['name']} has no handler {named!r} to start",
            hint=f"it has: {', '.join(handlers)}",
        )
    chosen = named or run or (next(iter(handlers)) if len(handlers) == 1 else "run" if "run" in handlers else None)
    if chosen is None:
        raise InvalidSpec(
            "definition.handler",
            f"is required: {service['name']} has several handlers",
            hint=f"one of: {', '.join(handlers)}",
        )
    return chosen
