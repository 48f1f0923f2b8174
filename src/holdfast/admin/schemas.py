"""JSON schemas of what the admin API takes and answers: the components of its OpenAPI document. Data, no behaviour."""

from __future__ import annotations

import types
from dataclasses import fields
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from holdfast.admin.api import BATCH_MAX

Schema = dict[str, Any]

DURATION = "A duration like `3h`, `1d 12h`, `500ms` or `PT3H`."
DEPLOYMENT_CHOICE = "`keep` (the one it is bound to), `latest`, or the id of a deployment."


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str = "", **more: Any) -> Schema:
    return _described({"type": "string"}, description) | more


def flag(description: str = "") -> Schema:
    return _described({"type": "boolean"}, description)


def number(description: str = "", **more: Any) -> Schema:
    return _described({"type": "integer"}, description) | more


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def mapping(values: Schema, description: str = "") -> Schema:
    return _described({"type": "object", "additionalProperties": values}, description)


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def struct(required: str, /, **properties: Schema) -> Schema:
    """An object.

    Args:
        required: Names of properties that are always there, divided by spaces.
    """
    document: Schema = {"type": "object", "properties": properties}
    if required:
        document["required"] = required.split()
    return document


def _described(schema: Schema, description: str) -> Schema:
    return schema | ({"description": description} if description else {})


def of_dataclass(kind: type) -> Schema:
    """An object with the fields of a dataclass, all of them always there."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    return {"type": "object", "required": names, "properties": {name: _of_type(hints[name]) for name in names}}


def _of_type(hint: Any) -> Schema:
    simple: dict[Any, Schema] = {str: {"type": "string"}, int: {"type": "integer"}, Any: {}}
    if hint in simple:
        return simple[hint]
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return nullable(_of_type(arguments[0]))
    if get_origin(hint) is list:
        return array(_of_type(arguments[0]))
    return {"type": "object"}


_HEADERS = mapping(text(), "HTTP headers that are sent with every request to the deployment.")
_BYTES = array(number(minimum=0, maximum=255))
_PUBLIC = flag("Whether the ingress may call it. Private services are called by handlers only.")

_NOTES = array(struct("code message", code=text(), message=text()))
_HANDLER_SETTINGS = {
    "idempotency_retention": text(DURATION),
    "journal_retention": text(DURATION),
    "inactivity_timeout": text(DURATION),
    "abort_timeout": text(DURATION),
    "enable_lazy_state": flag(),
}


def _retry_policy(required: str) -> Schema:
    return struct(
        required,
        initial_interval=text(DURATION),
        exponentiation_factor={"type": "number"},
        max_attempts=nullable(number(minimum=1)),
        max_interval=text(DURATION),
        on_max_attempts=text(enum=["Pause", "Kill"]),
    )


_DEPLOYMENT = {
    "id": text("dp_1…"),
    "uri": text("Where it is reached; `inprocess://…` for an application of the engine's own process."),
    "protocol_type": text(enum=["BidiStream", "RequestResponse"]),
    "http_version": text(enum=["HTTP/2.0", "HTTP/1.1"]),
    "additional_headers": _HEADERS,
    "metadata": mapping(text()),
    "created_at": text(format="date-time"),
    "min_protocol_version": number(),
    "max_protocol_version": number(),
    "sdk_version": text(),
}
_DEPLOYMENT_REQUIRED = "id uri protocol_type http_version created_at min_protocol_version max_protocol_version services"

_PLAIN: dict[str, Schema] = {
    "Error": struct(
        "message",  # of a query that is all, as on a Restate server
        message=text(),
        restate_code=nullable(text("Restate's code of the refusal, `META0003` and the like, where it has one.")),
    ),
    "Version": struct(
        "version min_admin_api_version max_admin_api_version features",
        version=text(),
        min_admin_api_version=number(),
        max_admin_api_version=number(),
        ingress_endpoint=nullable(text("Where callers reach the engine.")),
        features=mapping(flag()),
    ),
    "ClusterHealth": struct(
        "cluster_name",
        cluster_name=text(),
        metadata_cluster_health=struct("members", members=array(number())),
    ),
    "Deployment": struct(
        _DEPLOYMENT_REQUIRED,
        **_DEPLOYMENT,
        services=array(struct("name revision", name=text(), revision=number(minimum=1))),
    ),
    "DetailedDeployment": struct(_DEPLOYMENT_REQUIRED, **_DEPLOYMENT, services=array(ref("Service"))),
    "RegisterDeployment": struct(
        "uri",
        uri=text("Where the services are reached, like `http://localhost:9080`.", example="http://localhost:9080"),
        additional_headers=nullable(_HEADERS),
        metadata=nullable(mapping(text(), "Yours; shown with the deployment.")),
        use_http_11=nullable(flag("Do not try HTTP/2; every step is then a request of its own.")),
        breaking=nullable(flag("Allow a service to change its type.")),
        force=nullable(flag("Discover a known address again, in place: for development. Default only under /v2.")),
        dry_run=nullable(flag("Check and answer as if, but change nothing.")),
    ),
    "RegisteredDeployment": struct(
        "id services min_protocol_version max_protocol_version",
        id=text("dp_1…"),
        services=array(ref("Service")),
        min_protocol_version=number(),
        max_protocol_version=number(),
        sdk_version=text(),
    ),
    "UpdateDeployment": struct(
        "",
        uri=nullable(text("Where the same services are reached from now on.", example="http://localhost:9080")),
        additional_headers=nullable(_HEADERS),
        use_http_11=nullable(flag()),
        overwrite=nullable(flag("Take the services as the address offers them now.")),
        dry_run=nullable(flag("Check and answer as if, but change nothing.")),
    ),
    "Handler": struct(
        "name public input_description output_description",
        name=text(),
        ty=text(enum=["Exclusive", "Shared", "Workflow"]),
        documentation=text(),
        metadata=mapping(text()),
        public=flag(),
        input_description=text(),
        output_description=text(),
        input_json_schema={},
        output_json_schema={},
        retry_policy=_retry_policy("max_attempts"),
        info=_NOTES,
        **_HANDLER_SETTINGS,
    ),
    "Service": struct(
        "name ty handlers deployment_id revision public retry_policy",
        name=text(),
        ty=text(enum=["Service", "VirtualObject", "Workflow"]),
        handlers=array(ref("Handler")),
        documentation=text(),
        metadata=mapping(text()),
        deployment_id=text("Where new invocations run."),
        revision=number("Registrations of this service so far.", minimum=1),
        public=_PUBLIC,
        workflow_completion_retention=text(DURATION),
        retry_policy=_retry_policy("initial_interval exponentiation_factor max_attempts max_interval on_max_attempts"),
        info=_NOTES,
        **_HANDLER_SETTINGS,
    ),
    "ConfigureService": struct(
        "",
        public=nullable(_PUBLIC),
        **{
            name: nullable(text(DURATION, example="12h"))
            for name in (
                "idempotency_retention",
                "workflow_completion_retention",
                "journal_retention",
                "inactivity_timeout",
                "abort_timeout",
            )
        },
    ),
    "ModifyState": struct(
        "object_key new_state",
        object_key=text(),
        new_state=mapping({"anyOf": [_BYTES, text()]}, "The whole new state: values as lists of bytes, or as text."),
        version=nullable(text("Drop the change, silently, when the state is no longer of this version.")),
    ),
    "State": mapping(ref("Value")),
    "Value": {
        "oneOf": [struct("utf8", utf8=text()), struct("base64", base64=text())],
        "description": "Bytes: as text where they are UTF-8, else in base64.",
    },
    "RestartedInvocation": struct("new_invocation_id", new_invocation_id=text("inv_1…")),
    "Batch": struct("invocation_ids", invocation_ids=array(text(), maxItems=BATCH_MAX)),
    "BatchOnDeployment": struct(
        "invocation_ids",
        invocation_ids=array(text(), maxItems=BATCH_MAX),
        deployment=nullable(text(DEPLOYMENT_CHOICE)),
    ),
    "BatchFailure": struct("invocation_id error", invocation_id=text(), error=text()),
    "BatchResult": struct("succeeded failed", succeeded=array(text()), failed=array(ref("BatchFailure"))),
    "BatchRestartResult": struct(
        "succeeded failed",
        succeeded=array(struct("old_invocation_id new_invocation_id", old_invocation_id=text(), new_invocation_id=text())),
        failed=array(ref("BatchFailure")),
    ),
    "Subscribe": struct(
        "source sink", source=text("kafka://cluster/topic"), sink=text("service://Service/handler"),
        options=nullable(mapping(text())),
    ),
    "AddKafkaCluster": struct("name properties", name=text(), properties=mapping(text())),
    "UpdateKafkaCluster": struct("properties", properties=mapping(text())),
    "Rules": array(struct("pattern", pattern=text())),
    "Query": struct("query", query=text("SQL, read-only.", example="SELECT id, status FROM sys_invocation")),
}  # fmt: skip


@cache
def components() -> dict[str, Schema]:
    """Every schema by name."""
    from holdfast.runtime.introspect import InvocationInfo, JournalEntryInfo

    invocation = of_dataclass(InvocationInfo)
    described = {**invocation, "properties": {**invocation["properties"], "input": nullable(ref("Value"))}}
    return {
        **_PLAIN,
        "Invocation": invocation,
        "DetailedInvocation": described,
        "JournalEntry": of_dataclass(JournalEntryInfo),
    }
