"""Deployments and services: register, look, change, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from holdfast.admin.render import deployment_item, handler_metadata, service_metadata
from holdfast.admin.requests import Query, json_fields, path_id, path_text
from holdfast.errors import InvalidRequest
from holdfast.protocol.openapi import service_openapi

if TYPE_CHECKING:
    from holdfast.core.catalog import Deployment
    from holdfast.protocol.discovery import ServiceSpec
    from holdfast.runtime.engine import EngineRuntime

BODY_BYTES_MAX = 2 << 20
"""Of registrations and settings, which are a few hundred bytes; the limit is Restate's."""


class Registry:
    """One method per endpoint.

    Args:
        is_v2: Version 2 of the API, where a registration replaces what is registered unless it says otherwise.
    """

    def __init__(self, engine: EngineRuntime, ingress_url: str | None, *, is_v2: bool) -> None:
        self._engine = engine
        self._ingress_url = ingress_url
        self._is_v2 = is_v2

    # --- deployments

    async def list_deployments(self, _request: Request) -> Response:
        self._engine.check_running()
        return JSONResponse({"deployments": [deployment_item(deployment) for deployment in self._engine.deployments]})

    async def deployment(self, request: Request) -> Response:
        deployment_id = path_id(request, "deployment", "dp")
        self._engine.check_running()
        deployment = self._engine.deployments.get(deployment_id)
        if deployment is None:
            raise InvalidRequest(f"The requested deployment '{deployment_id}' does not exist", status=404)
        return JSONResponse(self._details(deployment))

    async def register(self, request: Request) -> Response:
        fields = await json_fields(request, BODY_BYTES_MAX)
        if "uri" not in fields and "arn" in fields:
            raise _lambda_refusal()
        fields.required_text("uri")
        force = fields.flag("force")
        done = await self._engine.register_deployment(
            fields.uri("uri") or "",
            headers=fields.headers("additional_headers"),
            metadata=fields.text_map("metadata"),
            use_http_11=bool(fields.flag("use_http_11")),
            breaking=bool(fields.flag("breaking")),
            force=self._is_v2 if force is None else force,
            dry_run=bool(fields.flag("dry_run")),
        )
        deployment = done.deployment
        if self._is_v2 and not done.is_new and force is False:
            raise InvalidRequest(f"Conflict: deployment {deployment.id} already exists", status=409)
        document = {
            "id": deployment.id,
            "services": [self._service_of(deployment, name) for name in deployment.services],
            "min_protocol_version": deployment.min_protocol_version,
            "max_protocol_version": deployment.max_protocol_version,
        }
        if deployment.sdk_version is not None:
            document["sdk_version"] = deployment.sdk_version
        status = 201 if done.is_new or self._is_v2 else 200
        return JSONResponse(document, status, headers={"location": f"deployments/{deployment.id}"})

    async def update_deployment(self, request: Request) -> Response:
        deployment_id = path_id(request, "deployment", "dp")
        fields = await json_fields(request, BODY_BYTES_MAX)
        if "uri" not in fields and "arn" in fields:
            raise _lambda_refusal()
        uri, headers = fields.uri("uri"), fields.headers("additional_headers")
        use_http_11, overwrite = fields.flag("use_http_11"), bool(fields.flag("overwrite"))
        dry_run = bool(fields.flag("dry_run"))
        self._engine.check_running()
        deployment = self._engine.deployments.get(deployment_id)
        if deployment is None:
            raise InvalidRequest(f"The requested deployment '{deployment_id}' does not exist", status=404)
        if (
            uri is not None or headers is not None or use_http_11 is not None
        ):  # else nothing is discovered, as on Restate
            deployment = await self._engine.update_deployment(
                deployment_id, uri=uri, headers=headers, use_http_11=use_http_11, overwrite=overwrite, dry_run=dry_run
            )
        return JSONResponse(self._details(deployment))

    async def replace_deployment(self, request: Request) -> Response:
        """Version 2's way to update."""
        if self._is_v2:
            return await self.update_deployment(request)
        path_id(request, "deployment", "dp")
        await json_fields(request, BODY_BYTES_MAX)
        raise InvalidRequest("PUT deployment is deprecated, use PATCH instead", status=405)

    async def remove_deployment(self, request: Request) -> Response:
        deployment_id = path_id(request, "deployment", "dp")
        if not Query(request).flag("force"):
            return Response(status_code=501)  # as Restate: waiting until nothing runs there is not implemented
        self._engine.check_running()
        if self._engine.deployments.get(deployment_id) is None:
            raise InvalidRequest(f"not found in the schema registry: deployment with id '{deployment_id}'", status=404)
        await self._engine.remove_deployment(deployment_id)
        return Response(status_code=202)

    def _details(self, deployment: Deployment) -> dict[str, Any]:
        services = [self._service_of(deployment, name) for name in deployment.services]
        return deployment_item(deployment) | {"services": services}

    def _service_of(self, deployment: Deployment, name: str) -> dict[str, Any]:
        return service_metadata(
            deployment.services[name],
            deployment_id=deployment.id,
            revision=deployment.revisions[name],
            is_bidirectional=deployment.is_bidirectional,
        )

    # --- services

    async def list_services(self, _request: Request) -> Response:
        self._engine.check_running()
        return JSONResponse({"services": [self._metadata(service) for service in self._engine.services.values()]})

    async def service(self, request: Request) -> Response:
        return JSONResponse(self._metadata(self._service(request)))

    async def configure_service(self, request: Request) -> Response:
        name = path_text(request, "service")
        fields = await json_fields(request, BODY_BYTES_MAX)
        settings = {
            "public": fields.flag("public"),
            "idempotency_retention_ms": fields.duration_ms("idempotency_retention"),
            "workflow_retention_ms": fields.duration_ms("workflow_completion_retention"),
            "journal_retention_ms": fields.duration_ms("journal_retention"),
            "inactivity_timeout_ms": fields.duration_ms("inactivity_timeout"),
            "abort_timeout_ms": fields.duration_ms("abort_timeout"),
        }
        if all(value is None for value in settings.values()):
            return JSONResponse(self._metadata(known_service(self._engine, name)))  # a look, as on a server
        self._engine.check_running()
        if name not in self._engine.services:
            raise InvalidRequest(f"not found in the schema registry: service with name '{name}'", status=404)
        return JSONResponse(self._metadata(await self._engine.configure_service(name, settings)))

    async def openapi(self, request: Request) -> Response:
        service = self._service(request)
        revision = self._engine.deployments.revision(service.name)
        return JSONResponse(service_openapi(service, revision=revision, ingress_url=self._ingress_url))

    async def list_handlers(self, request: Request) -> Response:
        return JSONResponse({"handlers": self._metadata(self._service(request))["handlers"]})

    async def handler(self, request: Request) -> Response:
        service, name = path_text(request, "service"), path_text(request, "handler")
        self._engine.check_running()
        spec = self._engine.services.get(service)
        if spec is None or name not in spec.handlers:
            raise InvalidRequest(f"The requested handler '{name}' on service '{service}' does not exist", status=404)
        latest = self._engine.deployments.latest(service)
        is_bidirectional = latest is None or latest.is_bidirectional
        return JSONResponse(handler_metadata(spec.handlers[name], is_bidirectional=is_bidirectional))

    def _service(self, request: Request) -> ServiceSpec:
        return known_service(self._engine, path_text(request, "service"))

    def _metadata(self, service: ServiceSpec) -> dict[str, Any]:
        latest = self._engine.deployments.latest(service.name)
        assert latest is not None
        return self._service_of(latest, service.name)


def known_service(engine: EngineRuntime, name: str) -> ServiceSpec:
    """
    Raises:
        InvalidRequest: 404, there is none of that name.
    """
    engine.check_running()
    service = engine.services.get(name)
    if service is None:
        raise InvalidRequest(f"The requested service '{name}' does not exist", status=404)
    return service


def _lambda_refusal() -> InvalidRequest:
    return InvalidRequest(
        "The request field 'arn' is invalid. Reason: AWS Lambda functions cannot be deployments of this engine",
        hint="serve the services over HTTP and register their `uri`",
    )
