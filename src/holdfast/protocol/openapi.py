"""A service -> the OpenAPI document of its ingress, as `GET /services/{service}/openapi` shows it. Pure.

Paths, operation ids, parameters and components are those of Restate server 1.7, so that a client generated from the one
document fits the other; the descriptions are ours.
"""

from __future__ import annotations

from typing import Any, cast

from holdfast.protocol.discovery import HandlerSpec, ServiceSpec

OPENAPI_VERSION = "3.1.0"

_CALL_DOCS = "https://docs.restate.dev/invoke/http"
_JSON = "application/json"


def service_openapi(service: ServiceSpec, *, revision: int, ingress_url: str | None) -> dict[str, Any]:
    """OpenAPI 3.1 of what callers can ask of `service`.

    Args:
        revision: Shown as the document's version.
        ingress_url: Where the ingress is reached; None leaves `servers` out.
    """
    # Handlers that are private in a public service are left out; a private service is described as a whole.
    shown = [handler for handler in service.handlers.values() if handler.public or not service.public]
    schemas: dict[str, Any] = {"RestateError": _ERROR_SCHEMA}
    paths: dict[str, Any] = {}
    for handler in shown:
        schemas |= _schemas(handler)
        paths |= _paths(service, handler)
    info: dict[str, Any] = {"title": service.name, "version": str(revision)}
    if service.documentation is not None:
        info["description"] = service.documentation
    if service.metadata:
        info["x-restate-extensions"] = dict(service.metadata)
    document: dict[str, Any] = {
        "openapi": OPENAPI_VERSION,
        "info": info,
        "paths": dict(sorted(paths.items())),
        "components": {
            "parameters": _PARAMETERS,
            "responses": _RESPONSES,
            "schemas": dict(sorted(schemas.items())),
        },
        "tags": _TAGS,
    }
    if ingress_url is not None:
        document["servers"] = [{"description": "Ingress", "url": ingress_url}]
    return document


def _paths(service: ServiceSpec, handler: HandlerSpec) -> dict[str, Any]:
    name, target = service.name, f"{service.name}/{handler.name}"
    key = ["key"] if service.keyed else []
    place = f"{name}/{{key}}" if service.keyed else name
    is_workflow = service.ty == "WORKFLOW"
    idempotency = [] if is_workflow else ["idempotencyKeyHeader"]
    paths = {
        f"/restate/call/{place}/{handler.name}": {
            "post": {
                **_operation(handler, handler.name, f"Call {target} and wait for its result.", key + idempotency),
                **_request_body(handler),
                "responses": {"200": _output(handler), "default": _reference("responses", "GenericError")},
            }
        },
        f"/restate/send/{place}/{handler.name}": {
            "post": {
                **_operation(
                    handler,
                    f"{handler.name}Send",
                    f"Start {target} and do not wait for it.",
                    [*key, *idempotency, "delay"],
                    tag="Send",
                ),
                **_request_body(handler),
                "responses": {
                    "200": _reference("responses", "Send"),
                    "202": _reference("responses", "Send"),
                    "default": _reference("responses", "GenericError"),
                },
            }
        },
    }
    if is_workflow and not handler.is_workflow_run:
        return paths
    base = f"/restate/workflow/{place}" if is_workflow else f"/restate/invocation/{place}/{handler.name}"
    parameters = key if is_workflow else [*key, "idempotencyKeyPath"]
    if not is_workflow:
        base += "/{idempotencyKey}"
    paths[f"{base}/attach"] = {"get": _attach(handler, target, parameters)}
    paths[f"{base}/output"] = {"get": _get_output(handler, target, parameters)}
    return paths


def _attach(handler: HandlerSpec, target: str, parameters: list[str]) -> dict[str, Any]:
    what = f"Wait for the result of a {target} that was started before. Newer clients ask POST /restate/lookup for the "
    return {
        **_operation(handler, f"{handler.name}Attach", f"{what}id, then GET /restate/attach/….", parameters, "Attach"),
        "deprecated": True,
        "responses": {
            "200": _output(handler),
            "404": _reference("responses", "InvocationNotFoundError"),
            "default": _reference("responses", "GenericError"),
        },
    }


def _get_output(handler: HandlerSpec, target: str, parameters: list[str]) -> dict[str, Any]:
    what = f"The result of a {target} that was started before, if it has one by now. Newer clients ask POST "
    about = f"{what}/restate/lookup for the id, then GET /restate/output/…."
    return {
        **_operation(handler, f"{handler.name}Output", about, parameters, "Get Output"),
        "deprecated": True,
        "responses": {
            "200": _output(handler),
            "404": _reference("responses", "InvocationNotFoundError"),
            "470": _reference("responses", "InvocationNotReadyError"),
            "default": _reference("responses", "GenericError"),
        },
    }


def _operation(
    handler: HandlerSpec, operation_id: str, description: str, parameters: list[str], tag: str | None = None
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id,
        "summary": handler.name,
        "description": handler.documentation or description,
        "parameters": [_reference("parameters", name) for name in parameters],
    }
    if tag is not None:
        operation["tags"] = [tag]
    if handler.metadata:
        operation["x-restate-extensions"] = dict(handler.metadata)
    return operation


def _request_body(handler: HandlerSpec) -> dict[str, Any]:
    rules = handler.input
    if rules.any_body:
        return {"requestBody": {"content": {"*/*": {}}, "required": False}}
    if rules.content_type is None:
        return {}
    content = {rules.content_type: _schema_reference(f"{handler.name}Request", rules.json_schema)}
    return {"requestBody": {"content": content, "required": rules.required}}


def _output(handler: HandlerSpec) -> dict[str, Any]:
    if handler.output_content_type is None:
        return {"description": "No content"}
    schema = _schema_reference(f"{handler.name}Response", handler.output_json_schema)
    return {"description": "The handler's result", "content": {handler.output_content_type: schema}}


def _schema_reference(name: str, schema: Any) -> dict[str, Any]:
    return {} if schema is None else {"schema": _reference("schemas", name)}


def _schemas(handler: HandlerSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if handler.input.content_type is not None and handler.input.json_schema is not None:
        found[f"{handler.name}Request"] = _relocated(handler.input.json_schema, f"{handler.name}Request")
    if handler.output_content_type is not None and handler.output_json_schema is not None:
        found[f"{handler.name}Response"] = _relocated(handler.output_json_schema, f"{handler.name}Response")
    return found


def _relocated(schema: Any, name: str) -> Any:
    """The schema as a component: references into itself get the component's place in front."""
    if isinstance(schema, dict):
        out: dict[str, Any] = {}
        for key, value in cast(dict[str, Any], schema).items():
            if key == "$ref" and isinstance(value, str) and value.startswith("#"):
                out[key] = f"#/components/schemas/{name}{value[1:]}"
            else:
                out[key] = _relocated(value, name)
        return out
    if isinstance(schema, list):
        return [_relocated(value, name) for value in cast(list[Any], schema)]
    return schema


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _parameter(name: str, place: str, description: str, **more: Any) -> dict[str, Any]:
    required = place == "path"
    schema = {"type": "string"}
    return {"name": name, "in": place, "description": description, "required": required, "schema": schema, **more}


_PARAMETERS = {
    "key": _parameter("key", "path", "Key of the object or workflow."),
    "delay": _parameter("delay", "query", "Start this much later, like `10s` or `PT1H30M`.", example="10s"),
    "idempotencyKeyHeader": _parameter(
        "idempotency-key", "header", "Requests with the same key are one invocation and get its result."
    ),
    "idempotencyKeyPath": _parameter(
        "idempotencyKey", "path", "The idempotency key that the invocation was started with."
    ),
}


def _error_response(description: str, **example: Any) -> dict[str, Any]:
    content = {_JSON: {"schema": _reference("schemas", "RestateError"), "example": example}}
    return {"description": description, "content": content}


_RESPONSES = {
    "GenericError": _error_response(
        "The handler or the ingress failed", message="Internal server error", code=500, source="invocation"
    ),
    "InvocationNotFoundError": _error_response(
        "There is no such invocation", message="invocation not found", source="ingress"
    ),
    "InvocationNotReadyError": _error_response(
        "It has no result yet", message="the invocation exists but has not completed yet", source="ingress"
    ),
    "Send": {
        "description": "Accepted; 200 when it had been accepted before",
        "content": {
            _JSON: {
                "example": {"invocationId": "inv_1gdJBtdVEcM942bjcDmb1c1khoaJe11Hbz", "status": "Accepted"},
                "schema": {
                    "title": "RestateSendResponse",
                    "type": "object",
                    "required": ["invocationId", "status"],
                    "additionalProperties": False,
                    "properties": {
                        "invocationId": {"type": "string"},
                        "status": {"type": "string", "enum": ["Accepted", "PreviouslyAccepted"]},
                        "executionTime": {
                            "type": "string",
                            "format": "date-time",
                            "description": "When it starts, if it was sent with a delay.",
                        },
                    },
                },
            }
        },
    },
}

_ERROR_SCHEMA = {
    "title": "RestateError",
    "type": "object",
    "description": "How a handler's terminal error, or a refusal of the ingress, reaches the caller.",
    "required": ["message", "source"],
    "additionalProperties": False,
    "properties": {
        "code": {"type": "number", "title": "HTTP-like code"},
        "message": {"type": "string", "title": "What happened"},
        "source": {
            "type": "string",
            "title": "Who says so",
            "enum": ["ingress", "invocation"],
            "description": "`invocation`: the handler's own error. `ingress`: the request was refused. Also in the "
            "header x-restate-error-source.",
        },
        "stacktrace": {"type": "string", "title": "Where it happened"},
        "metadata": {"type": "object", "title": "What the handler added", "additionalProperties": {"type": "string"}},
    },
}

_TAGS = [
    {"name": name, "description": description, "externalDocs": {"url": _CALL_DOCS}}
    for name, description in (
        ("Request Response", "Call a handler and wait"),
        ("Send", "Start a handler"),
        ("Attach", "Wait for an invocation"),
        ("Get Output", "Look for the result of an invocation"),
    )
]
