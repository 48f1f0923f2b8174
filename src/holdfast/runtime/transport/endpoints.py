"""Which attempt runs where: applications of this process by name, endpoints by deployment."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from holdfast.core.catalog import Deployment
from holdfast.errors import DeploymentRefused
from holdfast.protocol import messages as m
from holdfast.runtime import traces
from holdfast.runtime.attempt import AsgiApp, Attempt, InProcessAttempt, Listener, Order

if TYPE_CHECKING:
    from holdfast.runtime.transport.identity import Identity
    from holdfast.runtime.transport.remote import Discovered, Endpoint

_MANIFEST_TYPE = "application/vnd.restate.endpointmanifest.v%d+json"
_MANIFEST_TYPES = frozenset(_MANIFEST_TYPE % version for version in range(1, 5))


class Endpoints:
    """Opens attempts. Connections to an endpoint are made at its first request and kept.

    Args:
        ca_file: Authorities that https endpoints may have certificates of; None means those of the system.
        connect_timeout_s: Seconds.
    """

    def __init__(self, *, ca_file: str | None = None, connect_timeout_s: float = 10.0) -> None:
        self._apps: dict[str, _App] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._retired: list[Endpoint] = []
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._connect_timeout_s = connect_timeout_s
        self._closing: set[asyncio.Task[None]] = set()
        self.identity: Identity | None = None

    def sign_with(self, identity_key: str) -> None:
        """Sign every request from now on.

        Args:
            identity_key: File of an Ed25519 private key.
        Raises:
            InvalidRequest: it holds none.
        """
        from holdfast.runtime.transport.identity import Identity

        self.identity = Identity(identity_key)

    def add_app(self, name: str, app: AsgiApp) -> None:
        traces.watch()
        self._apps[name] = _App(app)

    def remove_app(self, name: str) -> None:
        """An application of this process is served no more."""
        self._apps.pop(name, None)

    def is_present(self, deployment: Deployment) -> bool:
        """An application of this process is present once its code is."""
        return deployment.is_remote or deployment.name in self._apps

    def attempt(
        self, deployment: Deployment, listener: Listener, order: Order, loop: asyncio.AbstractEventLoop
    ) -> Attempt:
        """Run an attempt there."""
        if not deployment.is_remote:
            return self._apps[deployment.name or ""].attempt(listener, order, loop)
        endpoint = self._endpoints.get(deployment.id)
        if endpoint is None:
            endpoint = self._endpoint(deployment.uri, deployment.headers, deployment.use_http_11)
            self._endpoints[deployment.id] = endpoint
        return endpoint.attempt(listener, order, loop)

    async def discover(self, uri: str, headers: Mapping[str, str], use_http_11: bool) -> Discovered:
        """Ask an endpoint what it serves.

        Raises:
            DeploymentRefused: no answer, or not one that can be read.
        """
        from holdfast.runtime.transport.remote import EndpointFailed

        endpoint = self._endpoint(uri, headers, use_http_11)
        try:
            found = await endpoint.discover()
        except EndpointFailed as error:
            if (
                error.status is None
                and not use_http_11
                and uri.startswith("http:")
                and await self._speaks_http_11(uri, headers)
            ):
                raise DeploymentRefused(
                    f"error when calling '{uri}': server possibly supports only HTTP/1.1",
                    restate_code="META0014",
                    hint="register it with `use_http_11`, or serve it with a server that speaks HTTP/2, like hypercorn",
                ) from error
            raise DeploymentRefused(
                str(error),
                restate_code="META0003",
                hint=f"check that the services are served at {uri}, and reachable from the engine's machine",
            ) from error
        finally:
            await endpoint.close()
        if found.content_type not in _MANIFEST_TYPES:
            raise DeploymentRefused(
                f"received a bad response from the SDK: discovery has content type '{found.content_type}'",
                restate_code="META0013",
                hint=f"check that {uri} is served by a Restate SDK",
            )
        return found

    async def _speaks_http_11(self, uri: str, headers: Mapping[str, str]) -> bool:
        """Whether something answers there that did not over HTTP/2: without TLS nobody negotiates."""
        from holdfast.runtime.transport.remote import EndpointFailed

        endpoint = self._endpoint(uri, headers, use_http_11=True)
        try:
            await endpoint.discover()
        except EndpointFailed as error:
            return error.status is not None
        finally:
            await endpoint.close()
        return True

    def _endpoint(self, uri: str, headers: Mapping[str, str], use_http_11: bool) -> Endpoint:
        from holdfast.runtime.transport.remote import Endpoint

        if self._tls is None and uri.startswith("https:"):
            self._tls = ssl.create_default_context(cafile=self._ca_file)
            self._tls.set_alpn_protocols(["h2", "http/1.1"])
        return Endpoint(
            uri,
            headers=headers,
            use_http_11=use_http_11,
            tls=self._tls,
            identity=self.identity,
            connect_timeout_s=self._connect_timeout_s,
        )

    def forget(self, deployment_id: str) -> None:
        """The deployment changed: its next attempt makes a new connection. Attempts in flight end on the old one."""
        endpoint = self._endpoints.pop(deployment_id, None)
        if endpoint is not None:
            endpoint.retire()
            self._retired.append(endpoint)

    async def closed(self) -> None:
        """Wait until connections are closed."""
        if self._closing:
            await asyncio.wait(self._closing)

    def close(self) -> None:
        """Close every connection; `closed` waits for it."""
        for endpoint in [*self._endpoints.values(), *self._retired]:
            task = asyncio.get_running_loop().create_task(endpoint.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._endpoints.clear()
        self._retired.clear()


class _App:
    """An application of this process."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._scopes: dict[tuple[str, str], dict[str, Any]] = {}
        self._headers: dict[int, list[tuple[bytes, bytes]]] = {}

    def attempt(self, listener: Listener, order: Order, loop: asyncio.AbstractEventLoop) -> Attempt:
        headers = self._headers.get(order.version)
        if headers is None:
            content_type = (m.CONTENT_TYPE % order.version).encode()
            headers = self._headers[order.version] = [(b"content-type", content_type), (b"accept", content_type)]
        place = (order.service, order.handler)
        scope = self._scopes.get(place)
        if scope is None:
            path = f"/invoke/{order.service}/{order.handler}"
            scope = self._scopes[place] = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "method": "POST",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                # Anything below 2 would make the SDK end the attempt at every step.
                "http_version": "2",
                "scheme": "http",
            }
        scope = {**scope, "headers": [*headers, (b"x-restate-invocation-id", order.invocation_id.encode())]}
        return InProcessAttempt(listener, order, self._app, scope, loop)
