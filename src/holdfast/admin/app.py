"""The admin API as an ASGI app: what operators, the CLI and scripts ask of a running engine.

Compatible with Restate's admin API, unversioned and under `/v2` to `/v4`. Ours alone: `GET /invocations…` (Restate
answers these by SQL) and `GET /services/{service}/state/{key}`. Thin by intent: parse, ask the engine, render.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router

from holdfast.admin.api import API_VERSIONS, ERROR_CODE_HEADER, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX
from holdfast.admin.render import deployment_item, encoded_bytes, handler_metadata, service_metadata, state_values
from holdfast.errors import (
    CallerError,
    EngineError,
    HoldfastError,
    InvalidRequest,
    InvocationConflict,
    InvocationNotFound,
)

if TYPE_CHECKING:
    from holdfast.protocol.discovery import ServiceSpec
    from holdfast.runtime.engine import EngineRuntime

_DEPLOYMENT_ID = re.compile("dp_1[0-9a-zA-Z]{22}")


def create_admin(engine: EngineRuntime, *, ingress_url: str | None = None) -> Starlette:
    """The admin API of `engine`, to be served or mounted.

    Args:
        engine: A started engine; before and after, requests are answered 503.
        ingress_url: Where the ingress of the same engine can be reached; told to clients by `GET /version`.
    """
    # A path with a slash too many is another path, as for Restate; by default Starlette would redirect.
    api = Router(_routes(Admin(engine, ingress_url)), redirect_slashes=False)
    versioned = [Mount(f"/v{number}", app=api) for number in API_VERSIONS]
    return Starlette(
        routes=[*versioned, Route("/v1/{rest:path}", _version_too_old), Mount("/", app=api)],
        middleware=_middleware(),
        exception_handlers={HoldfastError: _holdfast_error, HTTPException: _framework_error},
    )


def _middleware() -> list[Middleware]:
    # Everything that looks at a request before its route does, such as a check of Host and Origin, belongs here.
    return []


def _routes(admin: Admin) -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/health", admin.health),
        Route("/version", admin.version),
        Route("/deployments", admin.list_deployments),
        Route("/deployments/{deployment}", admin.deployment),
        Route("/services", admin.list_services),
        Route("/services/{service}", admin.service),
        Route("/services/{service}/handlers", admin.list_handlers),
        Route("/services/{service}/handlers/{handler}", admin.handler),
        Route("/services/{service}/state", admin.modify_state, methods=["POST"]),
        Route("/services/{service}/state/{key:path}", admin.state),
        Route("/invocations", admin.list_invocations),
        Route("/invocations/{invocation_id}", admin.invocation, methods=["GET"]),
        Route("/invocations/{invocation_id}", admin.delete_invocation, methods=["DELETE"]),
        Route("/invocations/{invocation_id}/journal", admin.journal),
        Route("/invocations/{invocation_id}/cancel", admin.cancel, methods=["PATCH"]),
        Route("/invocations/{invocation_id}/kill", admin.kill, methods=["PATCH"]),
        Route("/invocations/{invocation_id}/pause", admin.pause, methods=["PATCH"]),
        Route("/invocations/{invocation_id}/resume", admin.resume, methods=["PATCH"]),
        Route("/invocations/{invocation_id}/purge", admin.purge, methods=["PATCH"]),
        Route("/invocations/{invocation_id}/purge-journal", admin.purge_journal, methods=["PATCH"]),
    ]
    return routes


class Admin:
    """One method per endpoint."""

    def __init__(self, engine: EngineRuntime, ingress_url: str | None) -> None:
        self._engine = engine
        self._ingress_url = ingress_url

    # --- the engine and what it serves

    async def health(self, _request: Request) -> Response:
        self._engine.check_running()
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

    async def list_services(self, _request: Request) -> Response:
        return JSONResponse({"services": self._services()})

    async def service(self, request: Request) -> Response:
        return JSONResponse(self._service_metadata(self._service(request)))

    async def list_handlers(self, request: Request) -> Response:
        handlers = self._service(request).handlers.values()
        return JSONResponse({"handlers": [handler_metadata(handler) for handler in handlers]})

    async def handler(self, request: Request) -> Response:
        service, name = request.path_params["service"], request.path_params["handler"]
        spec = self._engine.services.get(service)
        if spec is None or name not in spec.handlers:
            raise InvalidRequest(f"The requested handler '{name}' on service '{service}' does not exist", status=404)
        return JSONResponse(handler_metadata(spec.handlers[name]))

    async def list_deployments(self, _request: Request) -> Response:
        deployments = self._engine.deployments.list()
        return JSONResponse({"deployments": [deployment_item(deployment) for deployment in deployments]})

    async def deployment(self, request: Request) -> Response:
        deployment_id = request.path_params["deployment"]
        if not _DEPLOYMENT_ID.fullmatch(deployment_id):
            raise HTTPException(400, f"Invalid URL: Cannot parse `deployment` with value `{deployment_id}`: bad format")
        deployment = self._engine.deployments.get(deployment_id)
        if deployment is None:
            raise InvalidRequest(f"The requested deployment '{deployment_id}' does not exist", status=404)
        services = [
            service_metadata(spec, deployment_id=deployment.id, revision=deployment.revisions[name])
            for name, spec in deployment.services.items()
        ]
        return JSONResponse(deployment_item(deployment) | {"services": services})

    def _service(self, request: Request) -> ServiceSpec:
        name = request.path_params["service"]
        service = self._engine.services.get(name)
        if service is None:
            raise InvalidRequest(f"The requested service '{name}' does not exist", status=404)
        return service

    def _services(self) -> list[dict[str, Any]]:
        return [self._service_metadata(service) for service in self._engine.services.values()]

    def _service_metadata(self, service: ServiceSpec) -> dict[str, Any]:
        deployment = self._engine.deployments.latest(service.name)
        return service_metadata(
            service,
            deployment_id=deployment.id if deployment is not None else "",
            revision=self._engine.deployments.revision(service.name),
        )

    # --- state

    async def state(self, request: Request) -> Response:
        service = self._service(request)
        return JSONResponse(state_values(self._engine.state(service.name, request.path_params["key"])))

    async def modify_state(self, request: Request) -> Response:
        body = await _json_object(request)
        key, version = body.get("object_key"), body.get("version")
        if not isinstance(key, str):
            raise HTTPException(422, "object_key: a string is required")
        if version is not None and not isinstance(version, str):
            raise HTTPException(422, "version: must be a string")
        await self._engine.mutate_state(request.path_params["service"], key, _new_state(body.get("new_state")), version)
        return Response(status_code=202)

    # --- invocations

    async def list_invocations(self, request: Request) -> Response:
        query = request.query_params
        limit = _limit(query.get("limit"))
        found = self._engine.list_invocations(
            statuses=query.getlist("status") or None,
            service=query.get("service"),
            handler=query.get("handler"),
            key=query.get("key"),
            limit=limit,
            before=query.get("before"),
            oldest_first=_flag("oldest_first", query.get("oldest_first")),
        )
        # A full page may be the last one; then the next is empty, which costs less than counting.
        next_before = found[-1].id if len(found) == limit else None
        return JSONResponse({"invocations": [asdict(info) for info in found], "next_before": next_before})

    async def invocation(self, request: Request) -> Response:
        invocation_id = request.path_params["invocation_id"]
        document = asdict(self._engine.describe(invocation_id))
        body = self._engine.input_preview(invocation_id)
        return JSONResponse(document | {"input": None if body is None else encoded_bytes(body)})

    async def journal(self, request: Request) -> Response:
        invocation_id = request.path_params["invocation_id"]
        entries, events = self._engine.journal(invocation_id), self._engine.journal_events(invocation_id)
        return JSONResponse({"entries": [asdict(entry) for entry in entries], "events": events})

    async def cancel(self, request: Request) -> Response:
        outcome = await self._engine.cancel(request.path_params["invocation_id"])
        return Response(status_code=202 if outcome == "appended" else 200)

    async def kill(self, request: Request) -> Response:
        await self._engine.kill(request.path_params["invocation_id"])
        return Response()

    async def pause(self, request: Request) -> Response:
        outcome = await self._engine.pause(request.path_params["invocation_id"])
        return Response(status_code=202 if outcome == "accepted" else 200)

    async def resume(self, request: Request) -> Response:
        deployment = request.query_params.get("deployment", "keep")
        await self._engine.resume(request.path_params["invocation_id"], deployment)
        return Response()

    async def purge(self, request: Request) -> Response:
        await self._engine.purge(request.path_params["invocation_id"])
        return Response()

    async def purge_journal(self, request: Request) -> Response:
        await self._engine.purge_journal(request.path_params["invocation_id"])
        return Response()

    async def delete_invocation(self, request: Request) -> Response:
        """Deprecated by Restate in favour of PATCH. It reports nothing: 202 whatever became of it."""
        mode = request.query_params.get("mode", "cancel")
        operations = {"cancel": self._engine.cancel, "kill": self._engine.kill, "purge": self._engine.purge}
        operation = operations.get(mode[:1].lower() + mode[1:])
        if operation is None:
            known = "`Cancel`, `cancel`, `Kill`, `kill`, `Purge`, `purge`"
            raise HTTPException(
                400, f"Failed to deserialize query string: mode: unknown variant `{mode}`, expected one of {known}"
            )
        try:
            await operation(request.path_params["invocation_id"])
        except (InvocationNotFound, InvocationConflict):
            pass  # as Restate: the answer does not tell
        return Response(status_code=202)


# --- requests


async def _json_object(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Expected request with `Content-Type: application/json`")
    try:
        body: Any = json.loads(await request.body())
    except ValueError as error:
        raise HTTPException(400, f"Failed to parse the request body as JSON: {error}") from error
    if not isinstance(body, dict):
        raise HTTPException(422, "the body must be a JSON object")
    return cast(dict[str, Any], body)


def _new_state(raw: Any) -> dict[str, bytes]:
    """`{"n": [52, 50]}` -> `{"n": b"42"}`; text is taken as its UTF-8."""
    if not isinstance(raw, dict):
        raise HTTPException(422, "new_state: an object is required")
    state: dict[str, bytes] = {}
    for name, value in cast(dict[str, Any], raw).items():
        try:
            state[name] = value.encode() if isinstance(value, str) else bytes(cast(list[int], value))
        except (TypeError, ValueError) as error:
            raise HTTPException(422, f"new_state.{name}: must be a list of bytes (0 to 255)") from error
    return state


def _limit(raw: str | None) -> int:
    if raw is None:
        return LIST_LIMIT_DEFAULT
    if not raw.isdecimal() or not 1 <= int(raw) <= LIST_LIMIT_MAX:
        raise _bad_query("limit", f"'{raw}' is not a number from 1 to {LIST_LIMIT_MAX}")
    return int(raw)


def _flag(name: str, raw: str | None) -> bool:
    if raw not in (None, "true", "false"):
        raise _bad_query(name, f"'{raw}' is neither true nor false")
    return raw == "true"


def _bad_query(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The query parameter '{name}' is invalid. Reason: {reason}")


# --- errors


async def _holdfast_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HoldfastError)
    status = error.status if isinstance(error, CallerError) else 503 if isinstance(error, EngineError) else 500
    body = {"message": error.message, "restate_code": None}
    return JSONResponse(body, status_code=status, headers={ERROR_CODE_HEADER: error.code})


async def _framework_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # Restate answers an unknown path or method with an empty body, a malformed body with plain text.
    if error.status_code in (404, 405):
        return Response(status_code=error.status_code, headers=error.headers)
    return PlainTextResponse(error.detail, status_code=error.status_code, headers=error.headers)


async def _version_too_old(_request: Request) -> Response:
    message = "Unsupported Admin API version V1. This server supports versions between V2 and V4."
    return PlainTextResponse(message, status_code=400)
