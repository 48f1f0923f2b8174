"""The OpenAPI document of the admin API, as `GET /openapi` answers it. Pure.

Operation ids are Restate's where an operation is Restate's too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from holdfast.admin.api import LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, STATUSES
from holdfast.admin.requests import INDEX_MAX
from holdfast.admin.schemas import DEPLOYMENT_CHOICE, Schema, array, components, flag, number, ref, struct, text
from holdfast.protocol.openapi import OPENAPI_VERSION

Operation = dict[str, Any]

_JSON = "application/json"
_ERROR = {
    _JSON: {"schema": ref("Error")},
    "text/plain": {"schema": {"type": "string"}},
}
_DESCRIPTION = """\
What operators ask of an engine: register deployments, configure services, look at invocations and stop or restart them.

Every path works without a version and under /v2, /v3 and /v4; `force` of a registration is the default only under /v2.
A refusal is JSON with a `message`; a request of the wrong form is answered in plain text.
"""


def admin_openapi(routes: Mapping[str, Iterable[str]], version: str) -> dict[str, Any]:
    """OpenAPI 3.1.

    Args:
        routes: Path templates, as in the document, and the methods that are served.
        version: Of the engine.
    """
    paths = {
        path: {method.lower(): described for method in methods if (described := OPERATIONS.get(f"{method} {path}"))}
        for path, methods in routes.items()
    }
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Admin API",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {path: operations for path, operations in paths.items() if operations},
        "components": {"schemas": components()},
    }


def _operation(
    operation_id: str,
    summary: str,
    *parameters: Schema,
    body: str | None = None,
    answers: Mapping[int, Schema | None],
    refusals: str = "",
) -> Operation:
    """
    Args:
        parameters: Of the query; those of the path are added.
        body: Name of the schema of the request's body.
        answers: Status -> schema of the answer's body, None when it is empty.
        refusals: Statuses of refusals besides 503, and 400, 413, 415 and 422 of bodies; divided by spaces.
    """
    statuses = {*(int(status) for status in refusals.split()), 503}
    operation: Operation = {"operationId": operation_id, "summary": summary}
    if parameters:
        operation["parameters"] = [*parameters]
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": ref(body)}}}
        statuses |= {400, 413, 415, 422}
    responses: dict[str, Any] = {}
    for status, schema in answers.items():
        content: dict[str, Any] = {} if schema is None else {"content": {_JSON: {"schema": schema}}}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, **content}
    for status in sorted(statuses):
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": _ERROR}
    operation["responses"] = responses
    return operation


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _listed(name: str, schema: Schema) -> Schema:
    return struct(name, **{name: array(schema)})


_DEPLOYMENT = _query("deployment", text(), DEPLOYMENT_CHOICE)
_FORCE = _query("force", flag(), "Required: it is removed without waiting for what runs there.")
_LOCATION = {"location": {"description": "Path of the deployment.", "schema": {"type": "string"}}}
_PAGE = struct(
    "invocations next_before", invocations=array(ref("Invocation")), next_before={"type": ["string", "null"]}
)
_JOURNAL = struct("entries events", entries=array(ref("JournalEntry")), events=array({"type": "object"}))


def _change(name: str, summary: str, statuses: str, *parameters: Schema, accepted: bool = False) -> Operation:
    answers: dict[int, Schema | None] = {200: None, 202: None} if accepted else {200: None}
    return _operation(name, summary, *parameters, answers=answers, refusals=f"400 404 409 {statuses}")


def _batch(name: str, summary: str, body: str = "Batch", result: str = "BatchResult") -> Operation:
    return _operation(f"batch_{name}", summary, body=body, answers={200: ref(result)})


_ENGINE: dict[str, Operation] = {
    "GET /health": _operation("health", "Whether the engine runs", answers={200: None}),
    "GET /version": _operation("version", "Version of the engine and of this API", answers={200: ref("Version")}),
    "GET /cluster-health": _operation("cluster_health", "A cluster of one", answers={200: ref("ClusterHealth")}),
    "GET /openapi": _operation("openapi", "This document", answers={200: {"type": "object"}}),
    "GET /metrics": _operation("metrics", "What Prometheus reads", answers={200: None}),
    "POST /query": _operation("query", "Ask by SQL", body="Query", answers={200: {"type": "object"}}, refusals="500"),
}
_ENGINE["GET /metrics"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
_DEPLOYMENTS: dict[str, Operation] = {
    "GET /deployments": _operation(
        "list_deployments", "Every deployment", answers={200: _listed("deployments", ref("Deployment"))}
    ),
    "POST /deployments": _operation(
        "create_deployment",
        "Discover and register services of another process",
        body="RegisterDeployment",
        answers={200: ref("RegisteredDeployment"), 201: ref("RegisteredDeployment")},
        refusals="409 500",
    ),
    "GET /deployments/{deployment}": _operation(
        "get_deployment", "One deployment", answers={200: ref("DetailedDeployment")}, refusals="400 404"
    ),
    "PATCH /deployments/{deployment}": _operation(
        "update_deployment",
        "Move a deployment to another address",
        body="UpdateDeployment",
        answers={200: ref("DetailedDeployment")},
        refusals="404 409 500",
    ),
    "PUT /deployments/{deployment}": {
        **_operation(
            "replace_deployment",
            "The same, under /v2 only",
            body="UpdateDeployment",
            answers={200: ref("DetailedDeployment")},
            refusals="404 405 409 500",
        ),
        "deprecated": True,
    },
    "DELETE /deployments/{deployment}": _operation(
        "delete_deployment", "Forget a deployment", _FORCE, answers={202: None, 501: None}, refusals="400 404 409"
    ),
}
for _status in ("200", "201"):
    _DEPLOYMENTS["POST /deployments"]["responses"][_status]["headers"] = _LOCATION

_SERVICES: dict[str, Operation] = {
    "GET /services": _operation(
        "list_services", "Newest revision of every service", answers={200: _listed("services", ref("Service"))}
    ),
    "GET /services/{service}": _operation(
        "get_service", "One service", answers={200: ref("Service")}, refusals="400 404"
    ),
    "PATCH /services/{service}": _operation(
        "modify_service",
        "Change settings, until the service is registered again",
        body="ConfigureService",
        answers={200: ref("Service")},
        refusals="404",
    ),
    "GET /services/{service}/openapi": _operation(
        "get_service_openapi",
        "OpenAPI of its part of the ingress",
        answers={200: {"type": "object"}},
        refusals="400 404",
    ),
    "GET /services/{service}/handlers": _operation(
        "list_service_handlers", "Its handlers", answers={200: _listed("handlers", ref("Handler"))}, refusals="400 404"
    ),
    "GET /services/{service}/handlers/{handler}": _operation(
        "get_service_handler", "One handler", answers={200: ref("Handler")}, refusals="400 404"
    ),
    "POST /services/{service}/state": _operation(
        "modify_service_state",
        "Replace the whole state of a key, in its turn behind running handlers",
        body="ModifyState",
        answers={202: None},
        refusals="404",
    ),
    "GET /services/{service}/state/{key}": _operation(
        "get_service_state", "The state of a key", answers={200: ref("State")}, refusals="400 404"
    ),
}
_INVOCATIONS: dict[str, Operation] = {
    "GET /invocations": _operation(
        "list_invocations",
        "A page of invocations, newest first",
        _query("status", array(text(enum=[*STATUSES])), "Only these."),
        _query("service", text(), "Only of this service."),
        _query("handler", text(), "Only of handlers of this name."),
        _query("key", text(), "Only of this key."),
        _query("deployment", text(), "Only those bound to this deployment."),
        _query("limit", number(minimum=1, maximum=LIST_LIMIT_MAX, default=LIST_LIMIT_DEFAULT), "Rows at most."),
        _query("before", text(), "Go on behind this invocation: `next_before` of the page before."),
        _query("oldest_first", flag(), "Turn the order round."),
        answers={200: _PAGE},
        refusals="400",
    ),
    "GET /invocations/{invocation_id}": _operation(
        "get_invocation", "One invocation", answers={200: ref("DetailedInvocation")}, refusals="400 404"
    ),
    "GET /invocations/{invocation_id}/journal": _operation(
        "get_invocation_journal", "Its journal", answers={200: _JOURNAL}, refusals="400 404"
    ),
    "DELETE /invocations/{invocation_id}": {
        **_operation(
            "delete_invocation",
            "Cancel, kill or purge without learning what became of it",
            _query("mode", text(enum=["cancel", "kill", "purge"], default="cancel"), "What to do."),
            answers={202: None},
            refusals="400",
        ),
        "deprecated": True,
    },
    "PATCH /invocations/{invocation_id}/cancel": _change(
        "cancel_invocation", "Ask it to stop; 202: its handler will be told", "", accepted=True
    ),
    "PATCH /invocations/{invocation_id}/kill": _change("kill_invocation", "End it and its children now", ""),
    "PATCH /invocations/{invocation_id}/pause": _change(
        "pause_invocation", "Stop attempting; 202: when its attempt has ended", "", accepted=True
    ),
    "PATCH /invocations/{invocation_id}/resume": _change(
        "resume_invocation", "Go on now, with fresh retries", "425", _DEPLOYMENT
    ),
    "PATCH /invocations/{invocation_id}/restart-as-new": _operation(
        "restart_as_new_invocation",
        "Run a completed one again, as a new invocation",
        _query(
            "from", number(minimum=0, maximum=INDEX_MAX), "Take over the journal up to this entry; 0: the input only."
        ),
        _query("deployment", text(), f"{DEPLOYMENT_CHOICE} Default: `latest`."),
        answers={200: ref("RestartedInvocation")},
        refusals="400 404 409 410 422 425",
    ),
    "PATCH /invocations/{invocation_id}/purge": _change("purge_invocation", "Forget a completed one", ""),
    "PATCH /invocations/{invocation_id}/purge-journal": _change(
        "purge_journal", "Forget the journal of a completed one, keep its result", ""
    ),
}
_BATCHES: dict[str, Operation] = {
    f"POST /internal/invocations_batch_operations/{path}": operation
    for path, operation in {
        "cancel": _batch("cancel", "Cancel many"),
        "kill": _batch("kill", "Kill many"),
        "pause": _batch("pause", "Pause many"),
        "purge": _batch("purge", "Purge many"),
        "purge-journal": _batch("purge_journal", "Purge the journals of many"),
        "resume": _batch("resume", "Resume many", "BatchOnDeployment"),
        "restart-as-new": _batch("restart_as_new", "Restart many", "BatchOnDeployment", "BatchRestartResult"),
    }.items()
}
_OFF: dict[str, Operation] = {
    "GET /subscriptions": _operation(
        "list_subscriptions", "None", answers={200: _listed("subscriptions", {"type": "object"})}
    ),
    "POST /subscriptions": _operation("create_subscription", "Refused: no Kafka", body="Subscribe", answers={}),
    "GET /subscriptions/{subscription}": _operation("get_subscription", "None", answers={}, refusals="400 404"),
    "DELETE /subscriptions/{subscription}": _operation("delete_subscription", "None", answers={}, refusals="400 404"),
    "GET /kafka-clusters": _operation(
        "list_kafka_clusters", "None", answers={200: _listed("clusters", {"type": "object"})}
    ),
    "POST /kafka-clusters": _operation("create_kafka_cluster", "Refused: no Kafka", body="AddKafkaCluster", answers={}),
    "GET /kafka-clusters/{cluster_name}": _operation("get_kafka_cluster", "None", answers={}, refusals="400 404"),
    "PATCH /kafka-clusters/{cluster_name}": _operation(
        "update_kafka_cluster", "None", body="UpdateKafkaCluster", answers={}, refusals="404"
    ),
    "DELETE /kafka-clusters/{cluster_name}": _operation("delete_kafka_cluster", "None", answers={}, refusals="400 404"),
    "PUT /limits/rules": _operation(
        "upsert_rules", "Refused, unless the list is empty: no limits", body="Rules", answers={200: array({})}
    ),
    "POST /limits/rules/bulk-delete": _operation(
        "bulk_delete_rules", "Removes none, there are none", body="Rules", answers={200: array({})}
    ),
    "POST /vqueues/{vqueue_id}/pause": _operation("pause_vqueue", "Refused: no queues", answers={}, refusals="400"),
    "POST /vqueues/{vqueue_id}/resume": _operation("resume_vqueue", "Refused: no queues", answers={}, refusals="400"),
}
OPERATIONS: dict[str, Operation] = {
    **_ENGINE, **_DEPLOYMENTS, **_SERVICES, **_INVOCATIONS, **_BATCHES, **_OFF,
}  # fmt: skip

for _place, _described in OPERATIONS.items():
    _names = [part.partition("}")[0] for part in _place.split("{")[1:]]
    if _names:
        _parts = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _names]
        _described["parameters"] = [*_parts, *_described.get("parameters", [])]
