"""Registered deployments: discover, check, store, and open attempts on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import apsw

from holdfast.config import EngineConfig
from holdfast.core import ids
from holdfast.core.catalog import SETTINGS, Catalog, Deployment, configured
from holdfast.errors import DeploymentRefused, EngineError, InvalidApp, InvalidManifest, InvalidRequest
from holdfast.protocol import discovery
from holdfast.protocol.discovery import Manifest, ServiceSpec
from holdfast.protocol.messages import VERSIONS
from holdfast.runtime.attempt import AsgiApp
from holdfast.runtime.transport.endpoints import Endpoints
from holdfast.store.deployments import DeploymentRow, DeploymentRows

_Listed = list[Deployment]  # inside the class, `list` is a method

MAIN = "app"
"""Name of the application that the engine was made with."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of a registration."""

    deployment: Deployment
    is_new: bool
    """False: the address was registered already."""
    services: list[ServiceSpec]


class Deployments:
    """The registry of one engine. Changes are stored before they count."""

    def __init__(
        self,
        rows: DeploymentRows,
        config: EngineConfig,
        endpoints: Endpoints,
        now_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._rows = rows
        self._config = config
        self._endpoints = endpoints
        self._now_ms = now_ms
        self._entropy = entropy
        self._changing = asyncio.Lock()
        self.exclusively: Callable[[Callable[[], None]], Awaitable[None]] = _at_once
        """Runs a change of rows when no batch is being committed; set by the engine when it runs."""
        self.catalog = Catalog()
        self.versions: dict[str, int | None] = {}
        """Deployment id -> protocol version of attempts there; None if there is no common one."""
        self._settings: dict[tuple[str, str], dict[str, Any]] = {}
        self._reload()

    # ---- looking -------------------------------------------------------------------------------------------------------

    @property
    def services(self) -> dict[str, ServiceSpec]:
        """The newest revision of every service, with settings changed by operators."""
        return self.catalog.services

    def list(self) -> _Listed:
        """Oldest first."""
        return [*self.catalog.deployments.values()]

    def get(self, deployment_id: str) -> Deployment | None:
        return self.catalog.deployments.get(deployment_id)

    def latest(self, service: str) -> Deployment | None:
        """Where new invocations of a service run."""
        return self.catalog.latest(service)

    def revision(self, service: str) -> int:
        """Newest revision of a service, 0 if it is unknown."""
        return self.catalog.revision(service)

    def __iter__(self) -> Iterator[Deployment]:
        return iter(self.list())

    def version(self, deployment: Deployment) -> int | None:
        """Protocol version of attempts there; None if there is no common one."""
        return _common_version(deployment.min_protocol_version, deployment.max_protocol_version, self._config)

    # ---- applications in this process -----------------------------------------------------------------------------------

    async def register_app(self, app: AsgiApp, name: str, body: bytes) -> Deployment:
        """Serve an application of this process. Unchanged services keep their deployment.

        Args:
            body: Its discovery answer.
        Raises:
            InvalidApp, InvalidManifest: the application.
        """
        manifest = discovery.parse_manifest(body)
        check_app(manifest, self._config)
        text = body.decode()
        async with self._changing:
            same = [d for d in self.list() if not d.is_remote and d.name == name]
            if not same or same[-1].manifest != text:
                options = {"sdk_version": f"restate-sdk-python/{version('restate-sdk')}"}
                row = DeploymentRow(self._new_id(), self._now_ms(), text, name, None, options)

                def change() -> None:
                    self._rows.register(row, [*manifest.services])
                    for old in same:
                        if not self._rows.live_count(old.id):
                            self._rows.remove(old.id)

                await self._change(change)
                known = self.catalog.deployments[row.id]
            else:
                known = same[-1]
            self._endpoints.add_app(name, app)
        return known

    async def remove_app(self, name: str) -> None:
        """Stop serving an application of this process and forget its services. An unknown name is no error.

        What is in flight there waits, until an application with those services is registered again.
        """
        async with self._changing:
            same = [d for d in self.list() if not d.is_remote and d.name == name]

            def change() -> None:
                for known in same:
                    self._rows.remove(known.id)

            if same:
                await self._change(change)
            self._endpoints.remove_app(name)

    # ---- endpoints -----------------------------------------------------------------------------------------------------

    async def register(
        self,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        use_http_11: bool = False,
        force: bool = False,
        breaking: bool = False,
        dry_run: bool = False,
    ) -> Registration:
        """Ask an endpoint what it serves and have new invocations of those services run there.

        Args:
            uri: `http://host:port/` or `https://…`.
            headers: Sent with every request to it.
            use_http_11: Do not try HTTP/2; every step is then a request of its own.
            force: Discover an address again that is known, in place: for development.
            breaking: Allow a service to change its type.
            dry_run: Check, and change nothing.
        Raises:
            InvalidRequest: not such a URI.
            DeploymentRefused: the endpoint cannot be reached, or answers with something that cannot be served.
        """
        uri = _checked_uri(uri)
        async with self._changing:
            # Two of one address: one was moved there; the newest is the one that was registered for it.
            known = next((d for d in reversed(self.list()) if d.is_remote and d.uri == uri), None)
            if known is not None and not force:
                return Registration(known, False, [*known.services.values()])
            row = DeploymentRow(
                known.id if known is not None else self._new_id(),
                known.created_at_ms if known is not None else self._now_ms(),
                "",
                None,
                uri,
                {"headers": dict(headers or {}), "metadata": dict(metadata or {}), "use_http_11": use_http_11},
            )
            deployment = await self._discovered(row)
            self._check(deployment, may_break=breaking or force)
            if not dry_run:
                await self._change(lambda: self._rows.register(row, [*deployment.services]))
                self._endpoints.forget(row.id)
                deployment = self.catalog.deployments[row.id]
            else:
                deployment.revisions = {name: self.revision(name) + 1 for name in deployment.services}
            return Registration(deployment, known is None, [*deployment.services.values()])

    async def update(
        self,
        deployment_id: str,
        *,
        uri: str | None = None,
        headers: Mapping[str, str] | None = None,
        use_http_11: bool | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
    ) -> Deployment:
        """Move a deployment: another address, other headers, the same services.

        Args:
            overwrite: Take the services that the address offers now in place of the recorded ones.
        Raises:
            InvalidRequest: no such deployment, or one in this process.
            DeploymentRefused: the address does not offer the recorded services.
        """
        async with self._changing:
            known = self._known(deployment_id)
            options = {
                "headers": dict(known.headers if headers is None else headers),
                "metadata": known.metadata,
                "use_http_11": known.use_http_11 if use_http_11 is None else use_http_11,
            }
            address = known.uri if uri is None else _checked_uri(uri)
            row = DeploymentRow(known.id, known.created_at_ms, "", None, address, options)
            deployment = await self._discovered(row)
            self._check(deployment, may_break=True)
            if not overwrite:
                _check_same(known, deployment)
                # What the recorded services declare stays; what the address is like is taken.
                recorded = json.loads(known.manifest)["services"]
                row.manifest = json.dumps({**json.loads(row.manifest), "services": recorded})
                deployment = _deployment(row, {}, discovery.parse_manifest(row.manifest.encode()))
            if dry_run:
                deployment.revisions = known.revisions
                return deployment
            # Services that are new there begin to be served there; revisions of the others stay.
            new = [name for name in deployment.services if name not in known.services]
            await self._change(lambda: self._rows.register(row, new))
            self._endpoints.forget(row.id)
            return self.catalog.deployments[row.id]

    async def remove(self, deployment_id: str) -> None:
        """Forget a deployment. Invocations bound to it fail their attempts until they are resumed on another one.

        Raises:
            InvalidRequest: no such deployment, or one in this process.
        """
        async with self._changing:
            known = self._known(deployment_id)
            await self._change(lambda: self._rows.remove(known.id))
            self._endpoints.forget(known.id)

    async def configure_service(self, name: str, settings: Mapping[str, Any]) -> ServiceSpec:
        """Change settings of a service until it is registered again. None leaves a setting as it is.

        Raises:
            InvalidRequest: unknown service or setting.
        """
        async with self._changing:
            spec = self.services.get(name)
            if spec is None:
                raise InvalidRequest(f"The requested service '{name}' does not exist", status=404)
            unknown = sorted(set(settings) - set(SETTINGS))
            if unknown:
                raise InvalidRequest(
                    f"unknown service setting {', '.join(unknown)}", hint=f"known are: {', '.join(SETTINGS)}"
                )
            if settings.get("workflow_retention_ms") is not None and spec.ty != "WORKFLOW":
                ty = {"SERVICE": "Service", "VIRTUAL_OBJECT": "VirtualObject"}[spec.ty]
                raise InvalidRequest(f"modifying retention time for service type {ty} is unsupported")
            changed = {key: value for key, value in settings.items() if value is not None}
            if changed:
                latest = self.latest(name)
                assert latest is not None
                merged = {**self._settings.get((latest.id, name), {}), **changed}
                await self._change(lambda: self._rows.set_settings(latest.id, name, merged))
            return self.services[name]

    # ---- parts ---------------------------------------------------------------------------------------------------------

    async def _change(self, change: Callable[[], None]) -> None:
        """Store, then let it count.

        Raises:
            EngineError: it could not be stored; nothing changed.
        """

        def run() -> None:
            change()
            self._reload()

        try:
            await self.exclusively(run)
        except apsw.Error as error:
            raise EngineError(
                f"the registration could not be stored: {type(error).__name__}: {error}",
                hint="free the disk or repair it, then try again: nothing was changed",
            ) from error

    def _new_id(self) -> str:
        return ids.deployment_text(self._entropy(16))

    def _known(self, deployment_id: str) -> Deployment:
        known = self.get(deployment_id)
        if known is None:
            raise InvalidRequest(f"The requested deployment '{deployment_id}' does not exist", status=404)
        if not known.is_remote:
            raise InvalidRequest(
                f"deployment '{deployment_id}' is the application '{known.name}' of the engine's own process",
                status=409,
                hint="it changes with the program that runs the engine",
            )
        return known

    async def _discovered(self, row: DeploymentRow) -> Deployment:
        """Ask the endpoint; what it says goes into the row."""
        wants_http_11 = bool(row.options["use_http_11"])
        found = await self._endpoints.discover(row.uri or "", row.options["headers"], wants_http_11)
        row.manifest = found.manifest.decode(errors="replace")
        row.options["sdk_version"] = found.sdk_version
        row.options["use_http_11"] = not found.is_http_2
        try:
            manifest = discovery.parse_manifest(found.manifest)
        except InvalidManifest as error:
            is_unreadable = error.status == 500 and error.restate_code is None
            raise DeploymentRefused(
                f"{'received a bad response from the SDK that cannot be decoded: ' if is_unreadable else ''}{error}",
                status=error.status,
                restate_code=error.restate_code,
                hint=error.hint or "upgrade the SDK of the endpoint, or check that it is one",
            ) from error
        if manifest.bidirectional and not found.is_http_2 and not wants_http_11:
            raise DeploymentRefused(
                "the endpoint wants the bidirectional protocol mode, which needs HTTP/2, but chose HTTP/1.1",
                restate_code="META0015",
                hint="serve it over HTTP/2, or register it with `use_http_11`: every step is then a request of its own",
            )
        return _deployment(row, {}, manifest)

    def _check(self, deployment: Deployment, *, may_break: bool) -> None:
        if self.version(deployment) is None:
            lowest, highest = deployment.min_protocol_version, deployment.max_protocol_version
            raise DeploymentRefused(
                f"unsupported service protocol versions: [{lowest}, {highest}]. Supported versions by this runtime are "
                f"[{VERSIONS[0]}, {self._config.protocol_version_max}]. Please upgrade the SDK and try registering again.",
                restate_code="META0012",
            )
        for name, service in deployment.services.items():
            latest = self.latest(name)
            if latest is not None and latest.services[name].ty != service.ty and not may_break:
                raise DeploymentRefused(
                    f"detected a new service revision for '{name}' changing the service type from previous revision. "
                    "Service type cannot be changed across revisions.",
                    status=409,
                    restate_code="META0006",
                    hint="give the new service another name, or register with `breaking`",
                )

    def _reload(self) -> None:
        revisions: dict[str, dict[str, int]] = {}
        for service, revision, deployment_id in self._rows.revisions():
            revisions.setdefault(deployment_id, {})[service] = revision
        found: list[Deployment] = []
        for row in self._rows.all():
            try:
                manifest = discovery.parse_manifest(row.manifest.encode())
            except InvalidManifest:
                continue  # stored by an older version that was less strict; its application registers again
            found.append(_deployment(row, revisions.get(row.id, {}), manifest))
        self._settings = self._rows.settings()
        self.versions = {deployment.id: self.version(deployment) for deployment in found}
        for deployment in found:
            deployment.services = {
                name: configured(service, self._settings.get((deployment.id, name), {}))
                for name, service in deployment.services.items()
            }
        self.catalog.replace(found)


async def _at_once(change: Callable[[], None]) -> None:
    change()


def check_app(manifest: Manifest, config: EngineConfig) -> None:
    """
    Raises:
        InvalidApp: an application that cannot be served.
    """
    if _common_version(manifest.min_protocol_version, manifest.max_protocol_version, config) is None:
        raise InvalidApp(
            f"the application speaks service protocol versions {manifest.min_protocol_version} to "
            f"{manifest.max_protocol_version}, holdfast {VERSIONS[0]} to {config.protocol_version_max}",
            hint="install a restate-sdk that speaks one of them: pip install 'restate-sdk>=1.3,<2'",
        )
    if not manifest.services:
        raise InvalidApp("the application has no services", hint="list them: restate.app([my_service, my_object])")


def _common_version(lowest: int, highest: int, config: EngineConfig) -> int | None:
    version = min(highest, config.protocol_version_max)
    return version if version >= max(lowest, VERSIONS[0]) else None


def _deployment(row: DeploymentRow, revisions: dict[str, int], manifest: Manifest) -> Deployment:
    is_remote = row.name is None
    use_http_11 = bool(row.options.get("use_http_11"))
    return Deployment(
        id=row.id,
        uri=row.uri if row.uri is not None else f"inprocess://{row.name}",
        is_remote=is_remote,
        name=row.name,
        created_at_ms=row.created_at_ms,
        manifest=row.manifest,
        is_bidirectional=manifest.bidirectional,
        min_protocol_version=manifest.min_protocol_version,
        max_protocol_version=manifest.max_protocol_version,
        services=manifest.services,
        revisions={name: revisions.get(name, 0) for name in manifest.services},
        use_http_11=use_http_11,
        headers=dict(row.options.get("headers", {})),
        metadata=dict(row.options.get("metadata", {})),
        sdk_version=row.options.get("sdk_version"),
    )


def _check_same(known: Deployment, offered: Deployment) -> None:
    """Invocations in flight must find what they were started with."""
    for name, service in known.services.items():
        other = offered.services.get(name)
        missing = set(service.handlers) - set(other.handlers if other is not None else ())
        lacks = ""
        if other is None:
            lacks = f"service {name}"
        elif other.ty != service.ty:
            lacks = f"service {name} as a {service.ty}"
        elif missing:
            lacks = f"handler {name}/{min(missing)}"
        if lacks:
            raise DeploymentRefused(
                f"the address does not offer {lacks}, which deployment {known.id} has",
                status=409,
                restate_code="META0006",
                hint="register it as a new deployment, or use `overwrite`",
            )


def _checked_uri(uri: str) -> str:
    """As it is stored and compared: scheme and host in lower case, a slash where there is no path."""
    try:
        parts = urlsplit(uri)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_good = urlsplit(""), False
    if not is_good or parts.query or parts.fragment:
        raise InvalidRequest(
            f"The request field 'uri' is invalid. Reason: '{uri}' is no absolute http or https address",
            hint="give the address that the engine reaches the services at, like http://localhost:9080",
        )
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path or "/", "", ""))
