"""The admin API as an ASGI app: what operators, the CLI and scripts ask of a running engine.

Compatible with Restate's admin API, unversioned and under `/v2` to `/v4`. Ours alone: `GET /invocations…` (Restate
answers these by SQL) and `GET /services/{service}/state/{key}`. Thin by intent: parse, ask the engine, render.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, Router

from holdfast.admin.api import API_VERSIONS, ERROR_CODE_HEADER
from holdfast.admin.features import Features
from holdfast.admin.invocations import Invocations
from holdfast.admin.registry import Registry
from holdfast.admin.requests import RawPaths, Resource
from holdfast.errors import CallerError, DeploymentRefused, EngineError, HoldfastError, InvalidManifest
from holdfast.query import create_query_endpoint

if TYPE_CHECKING:
    from holdfast.metrics import EngineMetrics
    from holdfast.runtime.engine import EngineRuntime


def create_admin(engine: EngineRuntime, *, ingress_url: str | None = None) -> Starlette:
    """The admin API of `engine`, to be served or mounted.

    Args:
        engine: A started engine; before and after, requests are answered 503.
        ingress_url: Where the ingress of the same engine can be reached; told to clients by `GET /version`.
    """
    mounts = [Mount(f"/v{number}", app=_router(engine, ingress_url, number)) for number in API_VERSIONS]
    too_old = [Route(path, _version_too_old, methods=_ANY_METHOD) for path in ("/v1", "/v1/{rest:path}")]
    return Starlette(
        routes=[*mounts, *too_old, Mount("/", app=_router(engine, ingress_url, API_VERSIONS[-1]))],
        middleware=_middleware(),
        exception_handlers={HoldfastError: _holdfast_error, HTTPException: _framework_error},
    )


_ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def _middleware() -> list[Middleware]:
    # Everything that looks at a request before its route does, such as a check of Host and Origin, belongs here.
    return [Middleware(RawPaths)]


def _router(engine: EngineRuntime, ingress_url: str | None, version_number: int) -> Router:
    # A path with a slash too many is another path, as for Restate; by default Starlette would redirect.
    found = resources(engine, ingress_url, version_number)
    return Router([Route(path, resource) for path, resource in found.items()], redirect_slashes=False)


def resources(engine: EngineRuntime, ingress_url: str | None, version_number: int) -> dict[str, Resource]:
    """Every path of one version of the API."""
    overview = Overview(engine, ingress_url)
    registry = Registry(engine, ingress_url, is_v2=version_number == API_VERSIONS[0])
    found = {
        "/health": Resource(GET=overview.health),
        "/version": Resource(GET=overview.version),
        "/cluster-health": Resource(GET=overview.cluster_health),
        "/openapi": Resource(GET=overview.openapi),
        "/deployments": Resource(GET=registry.list_deployments, POST=registry.register),
        "/deployments/{deployment}": Resource(
            GET=registry.deployment,
            DELETE=registry.remove_deployment,
            PATCH=registry.update_deployment,
            PUT=registry.replace_deployment,
        ),
        "/services": Resource(GET=registry.list_services),
        "/services/{service}": Resource(GET=registry.service, PATCH=registry.configure_service),
        "/services/{service}/openapi": Resource(GET=registry.openapi),
        "/services/{service}/handlers": Resource(GET=registry.list_handlers),
        "/services/{service}/handlers/{handler}": Resource(GET=registry.handler),
        "/query": Resource(POST=create_query_endpoint(engine)),
        "/metrics": Resource(GET=overview.metrics),
        **_invocation_resources(Invocations(engine)),
        **_feature_resources(Features(engine)),
    }
    overview.routes = {path.replace(":path}", "}"): [*resource.endpoints] for path, resource in found.items()}
    return found


def _invocation_resources(invocations: Invocations) -> dict[str, Resource]:
    one, batch = "/invocations/{invocation_id}", "/internal/invocations_batch_operations"
    return {
        "/services/{service}/state": Resource(POST=invocations.modify_state),
        "/services/{service}/state/{key:path}": Resource(GET=invocations.state),
        "/invocations": Resource(GET=invocations.list_invocations),
        one: Resource(GET=invocations.invocation, DELETE=invocations.delete),
        f"{one}/journal": Resource(GET=invocations.journal),
        f"{one}/cancel": Resource(PATCH=invocations.cancel),
        f"{one}/kill": Resource(PATCH=invocations.kill),
        f"{one}/pause": Resource(PATCH=invocations.pause),
        f"{one}/resume": Resource(PATCH=invocations.resume),
        f"{one}/restart-as-new": Resource(PATCH=invocations.restart_as_new),
        f"{one}/purge": Resource(PATCH=invocations.purge),
        f"{one}/purge-journal": Resource(PATCH=invocations.purge_journal),
        f"{batch}/cancel": Resource(POST=invocations.batch_cancel),
        f"{batch}/kill": Resource(POST=invocations.batch_kill),
        f"{batch}/pause": Resource(POST=invocations.batch_pause),
        f"{batch}/resume": Resource(POST=invocations.batch_resume),
        f"{batch}/restart-as-new": Resource(POST=invocations.batch_restart_as_new),
        f"{batch}/purge": Resource(POST=invocations.batch_purge),
        f"{batch}/purge-journal": Resource(POST=invocations.batch_purge_journal),
    }


def _feature_resources(features: Features) -> dict[str, Resource]:
    return {
        "/subscriptions": Resource(GET=features.list_subscriptions, POST=features.subscribe),
        "/subscriptions/{subscription}": Resource(GET=features.subscription, DELETE=features.unsubscribe),
        "/kafka-clusters": Resource(GET=features.list_clusters, POST=features.add_cluster),
        "/kafka-clusters/{cluster_name}": Resource(
            GET=features.cluster, PATCH=features.update_cluster, DELETE=features.remove_cluster
        ),
        "/limits/rules": Resource(PUT=features.put_rules),
        "/limits/rules/bulk-delete": Resource(POST=features.delete_rules),
        "/vqueues/{vqueue_id}/pause": Resource(POST=features.vqueue),
        "/vqueues/{vqueue_id}/resume": Resource(POST=features.vqueue),
    }


class Overview:
    """The engine itself: one method per endpoint."""

    def __init__(self, engine: EngineRuntime, ingress_url: str | None) -> None:
        self._engine = engine
        self._ingress_url = ingress_url
        self._metrics: EngineMetrics | None = None
        self.routes: dict[str, list[str]] = {}
        """Path templates and their methods."""

    async def health(self, _request: Request) -> Response:
        self._engine.check_accepting()
        return Response()

    async def version(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "version": version("holdfast"),
                "min_admin_api_version": API_VERSIONS[0],
                "max_admin_api_version": API_VERSIONS[-1],
                "ingress_endpoint": self._ingress_url,
                "features": {"holdfast": True},
            }
        )

    async def cluster_health(self, _request: Request) -> Response:
        self._engine.check_running()
        # One engine is a cluster of one, with the name that Restate gives to a new one.
        return JSONResponse({"cluster_name": "localcluster", "metadata_cluster_health": {"members": [1]}})

    async def metrics(self, request: Request) -> Response:
        from holdfast.metrics import EngineMetrics, render  # loaded by the first scrape

        self._engine.check_running()
        if self._metrics is None:
            self._metrics = EngineMetrics(self._engine)
        body, content_type = await render([self._metrics], accept=request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def openapi(self, _request: Request) -> Response:
        from holdfast.admin.openapi import admin_openapi  # big, and seldom asked for

        return JSONResponse(admin_openapi(self.routes, version("holdfast")))


# --- errors


async def _holdfast_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HoldfastError)
    if isinstance(error, CallerError | DeploymentRefused | InvalidManifest):
        status = error.status
    else:
        status = 503 if isinstance(error, EngineError) else 500
    code = error.restate_code
    message = error.message if code is None or error.message.startswith("[") else f"[{code}] {error.message}"
    body = {"message": message, "restate_code": code}
    headers = {ERROR_CODE_HEADER: error.code} | ({"retry-after": "5"} if status == 503 else {})
    return JSONResponse(body, status_code=status, headers=headers)


async def _framework_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # Restate answers an unknown path or method with an empty body, a malformed body with plain text.
    if error.status_code in (404, 405):
        return Response(status_code=error.status_code, headers=error.headers)
    return PlainTextResponse(error.detail, status_code=error.status_code, headers=error.headers)


async def _version_too_old(request: Request) -> Response:
    if request.path_params.get("rest") == "":
        raise HTTPException(404)
    message = "Unsupported Admin API version V1. This server supports versions between V2 and V4."
    return PlainTextResponse(message, status_code=400)
