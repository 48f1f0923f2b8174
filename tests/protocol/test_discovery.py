"""Endpoint manifests: every field and default, every refusal, and the real SDK's own manifests."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
import restate
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidManifest
from holdfast.protocol.discovery import (
    DAY_MS,
    HandlerSpec,
    InputRules,
    Manifest,
    RetryPolicy,
    ServiceSpec,
    parse_manifest,
)


def manifest(*services: Any, **top: Any) -> bytes:
    document = {"protocolMode": "BIDI_STREAM", "minProtocolVersion": 5, "maxProtocolVersion": 7, "services": services}
    return json.dumps({**document, **top}).encode()


def service(ty: str = "SERVICE", *handlers: dict[str, Any], name: str = "S", **settings: Any) -> dict[str, Any]:
    return {"name": name, "ty": ty, "handlers": list(handlers), **settings}


def parsed(raw: dict[str, Any]) -> ServiceSpec:
    return parse_manifest(manifest(raw)).services[raw["name"]]


def handler(raw: dict[str, Any] | None = None, ty: str = "SERVICE", **settings: Any) -> HandlerSpec:
    return parsed(service(ty, {"name": "h", **(raw or {})}, **settings)).handlers["h"]


def test_top_level():
    read = parse_manifest(manifest(protocolMode="REQUEST_RESPONSE", minProtocolVersion=1, maxProtocolVersion=9))
    assert read == Manifest(bidirectional=False, min_protocol_version=1, max_protocol_version=9, services={})


def test_defaults_are_those_of_restate():
    spec = handler()
    assert spec.retry == RetryPolicy(500, 2.0, 60_000, 70, "PAUSE")
    assert (spec.inactivity_timeout_ms, spec.abort_timeout_ms) == (60_000, 600_000)
    assert (spec.journal_retention_ms, spec.idempotency_retention_ms, spec.workflow_retention_ms) == (DAY_MS,) * 3
    assert (spec.public, spec.lazy_state, spec.documentation, spec.metadata) == (True, False, None, {})
    assert spec.overrides == {}


HANDLER_TYPES = {
    # service type, declared handler type -> type, exclusive, workflow run
    "service, none": ("SERVICE", None, None, False, False),
    "service, shared": ("SERVICE", "SHARED", None, False, False),
    "object, none: exclusive": ("VIRTUAL_OBJECT", None, "EXCLUSIVE", True, False),
    "object, exclusive": ("VIRTUAL_OBJECT", "EXCLUSIVE", "EXCLUSIVE", True, False),
    "object, shared": ("VIRTUAL_OBJECT", "SHARED", "SHARED", False, False),
    "workflow, none: shared": ("WORKFLOW", None, "SHARED", False, False),
    "workflow, shared": ("WORKFLOW", "SHARED", "SHARED", False, False),
    "workflow, workflow": ("WORKFLOW", "WORKFLOW", "WORKFLOW", False, True),
}


@pytest.mark.parametrize(
    ("ty", "declared", "expected", "exclusive", "run"), HANDLER_TYPES.values(), ids=HANDLER_TYPES.keys()
)
def test_handler_types(ty: str, declared: str | None, expected: str | None, exclusive: bool, run: bool):
    spec = handler({"ty": declared}, ty)
    assert (spec.ty, spec.is_exclusive, spec.is_workflow_run) == (expected, exclusive, run)
    assert spec.keyed == (ty != "SERVICE")
    assert parsed(service(ty)).keyed == spec.keyed


@pytest.mark.parametrize(
    ("ty", "declared"),
    [
        ("SERVICE", "EXCLUSIVE"),
        ("SERVICE", "WORKFLOW"),
        ("VIRTUAL_OBJECT", "WORKFLOW"),
        ("WORKFLOW", "EXCLUSIVE"),
    ],
)
def test_handler_types_that_do_not_fit(ty: str, declared: str):
    with pytest.raises(InvalidManifest, match=f"S/h: handler type {declared} does not fit service type {ty}"):
        handler({"ty": declared}, ty)


INPUTS = {
    "no input: anything": (None, InputRules(any_body=True)),
    "empty input: nothing": ({}, InputRules(empty=True)),
    "only required false": ({"required": False}, InputRules(empty=True)),
    "content type": ({"contentType": "text/*"}, InputRules(empty=True, content_type="text/*")),
    "content type, required": (
        {"required": True, "contentType": "text/*"},
        InputRules(content_type="text/*", required=True),
    ),
    "content type and schema": (
        {"contentType": "application/json", "jsonSchema": True},
        InputRules(empty=True, content_type="application/json", non_empty=True, json_schema=True),
    ),
    "content type and schema, required": (
        {"required": True, "contentType": "application/json", "jsonSchema": True},
        InputRules(content_type="application/json", non_empty=True, json_schema=True, required=True),
    ),
    "not required": (
        {"required": False, "contentType": "application/json", "jsonSchema": {"type": "string"}},
        InputRules(False, True, "application/json", True, {"type": "string"}),
    ),
    "schema without content type is ignored": ({"jsonSchema": {"type": "string"}}, InputRules(empty=True)),
}


@pytest.mark.parametrize(("raw", "rules"), INPUTS.values(), ids=INPUTS.keys())
def test_input_rules(raw: dict[str, Any] | None, rules: InputRules):
    assert handler({} if raw is None else {"input": raw}).input == rules


OUTPUTS = {
    "no output: JSON": (None, ("application/json", False, None)),
    "no content type: none": ({"setContentTypeIfEmpty": False}, (None, False, None)),
    "content type": ({"contentType": "text/plain", "setContentTypeIfEmpty": True}, ("text/plain", True, None)),
    "schema": ({"contentType": "a/b", "jsonSchema": {"type": "number"}}, ("a/b", False, {"type": "number"})),
}


@pytest.mark.parametrize(("raw", "expected"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_output(raw: dict[str, Any] | None, expected: tuple[str | None, bool, Any]):
    spec = handler({} if raw is None else {"output": raw})
    assert (spec.output_content_type, spec.set_content_type_if_empty, spec.output_json_schema) == expected


def _set(name: str, value: object) -> dict[str, Any]:
    return {name: value}


SETTINGS = {
    "inactivityTimeout": ("inactivity_timeout_ms", 60_000),
    "abortTimeout": ("abort_timeout_ms", 600_000),
    "journalRetention": ("journal_retention_ms", DAY_MS),
    "idempotencyRetention": ("idempotency_retention_ms", DAY_MS),
    "enableLazyState": ("lazy_state", False),
}


@pytest.mark.parametrize(("name", "attribute", "default"), [(k, *v) for k, v in SETTINGS.items()])
def test_a_handler_setting_beats_the_service_setting_beats_the_default(name: str, attribute: str, default: int):
    low, high = type(default)(0), type(default)(1)
    assert getattr(handler(), attribute) == default
    assert getattr(handler(**_set(name, high)), attribute) == high
    assert getattr(handler({name: low}, **_set(name, high)), attribute) == low
    assert getattr(parsed(service(**_set(name, high))), attribute) == high
    assert handler({name: low}, **_set(name, high)).overrides == {name: low}


RETRIES = {
    "retryPolicyInitialInterval": (7, RetryPolicy(initial_interval_ms=7)),
    "retryPolicyMaxInterval": (7, RetryPolicy(max_interval_ms=7)),
    "retryPolicyExponentiationFactor": (1.5, RetryPolicy(exponentiation_factor=1.5)),
    "retryPolicyMaxAttempts": (7, RetryPolicy(max_attempts=7)),
    "retryPolicyOnMaxAttempts": ("KILL", RetryPolicy(on_max_attempts="KILL")),
}


@pytest.mark.parametrize(("name", "value", "policy"), [(k, *v) for k, v in RETRIES.items()])
def test_retry_policy(name: str, value: object, policy: RetryPolicy):
    assert handler({name: value}).retry == policy
    assert handler(**_set(name, value)).retry == policy
    assert parsed(service(**_set(name, value))).retry == policy


def test_zero_attempts_are_one():
    assert handler({"retryPolicyMaxAttempts": 0}).retry.max_attempts == 1


def test_workflow_retention_comes_from_the_run_handler():
    run = {"name": "run", "ty": "WORKFLOW", "workflowCompletionRetention": 5}
    spec = parsed(service("WORKFLOW", run, {"name": "h"}))
    assert (spec.workflow_retention_ms, spec.handlers["run"].workflow_retention_ms) == (5, 5)
    assert parsed(service("WORKFLOW", {"name": "h"})).workflow_retention_ms == DAY_MS


def test_privacy():
    assert not handler(ingressPrivate=True).public
    assert not handler({"ingressPrivate": True}).public
    assert not parsed(service(ingressPrivate=True)).public
    assert handler({"ingressPrivate": False}).public


def test_documentation_and_metadata_are_not_inherited():
    raw = service("SERVICE", {"name": "h"}, documentation="of the service", metadata={"a": "1"})
    assert (parsed(raw).documentation, parsed(raw).metadata) == ("of the service", {"a": "1"})
    assert (parsed(raw).handlers["h"].documentation, parsed(raw).handlers["h"].metadata) == (None, {})
    own = handler({"documentation": "mine", "metadata": {"b": "2"}})
    assert (own.documentation, own.metadata) == ("mine", {"b": "2"})


@pytest.mark.parametrize("name", ["a", "A.b-c_d", "_a", "_1", "x9"])
def test_service_names(name: str):
    assert parsed(service(name=name)).name == name


@pytest.mark.parametrize("name", ["", "1a", "-a", "__a", "_", "a b", "a/b", "ä", "a\n"])
def test_service_names_that_are_refused(name: str):
    with pytest.raises(InvalidManifest, match="not a valid service name"):
        parsed(service(name=name))


@pytest.mark.parametrize("name", ["restate", "RestateAdmin", "openapi", "OpenAPI"])
def test_reserved_service_names(name: str):
    with pytest.raises(InvalidManifest, match="reserved name"):
        parsed(service(name=name))


@pytest.mark.parametrize("name", ["", "1", "a.b", "a-b", "__a", "a b", "a\n"])
def test_handler_names_that_are_refused(name: str):
    with pytest.raises(InvalidManifest, match="not a valid handler name"):
        handler({"name": name})


REFUSED = {
    "not JSON": (b"{", "not JSON"),
    "not UTF-8": (b"\xff", "not JSON"),
    "not an object": (b"[]", "the manifest must be a JSON object"),
    "no services": (b'{"minProtocolVersion": 5, "maxProtocolVersion": 6}', "the manifest has no field 'services'"),
    "no versions": (b'{"services": []}', "has no field 'minProtocolVersion'"),
    "version is no number": (manifest(minProtocolVersion="x"), "minProtocolVersion must be a number from 1, not 'x'"),
    "service is no object": (manifest("S"), "a service must be a JSON object"),
    "service without name": (manifest({"ty": "SERVICE", "handlers": []}), "a service has no field 'name'"),
    "service without handlers": (manifest({"ty": "SERVICE", "name": "S"}), "a service has no field 'handlers'"),
    "unknown service type": (manifest(service("ACTOR")), "ty must be one of SERVICE, VIRTUAL_OBJECT, WORKFLOW"),
    "handler is no object": (
        manifest({"name": "S", "ty": "SERVICE", "handlers": [5]}),
        "a handler of S must be a JSON",
    ),
    "input is no object": (manifest(service("SERVICE", {"name": "h", "input": "x"})), "input must be an object"),
    "output is no object": (manifest(service("SERVICE", {"name": "h", "output": 5})), "output must be an object"),
    "content type without a slash": (
        manifest(service("SERVICE", {"name": "h", "input": {"contentType": "json"}})),
        "content type 'json' is not valid",
    ),
    "duration is no number": (
        manifest(service("SERVICE", inactivityTimeout="soon")),
        "inactivityTimeout must be a number from 0",
    ),
    "duration is infinite": (
        manifest(service("SERVICE", inactivityTimeout=0)).replace(b'Timeout": 0', b'Timeout": Infinity'),
        "Infinity is no JSON value",
    ),
    "workflow retention on another handler": (
        manifest(service("WORKFLOW", {"name": "h", "ty": "SHARED", "workflowCompletionRetention": 1})),
        "sets a workflow retention",
    ),
    "idempotency retention on a run handler": (
        manifest(service("WORKFLOW", {"name": "h", "ty": "WORKFLOW", "idempotencyRetention": 1})),
        "sets an idempotency retention",
    ),
    "public handler of a private service": (
        manifest(service("SERVICE", {"name": "h", "ingressPrivate": False}, ingressPrivate=True)),
        "explicitly public",
    ),
    "unknown policy on max attempts": (
        manifest(service("SERVICE", retryPolicyOnMaxAttempts="EXPLODE")),
        "must be one of PAUSE, KILL, not 'EXPLODE'",
    ),
    "unknown field": (manifest(more=1), "the manifest has an unknown field 'more'"),
    "unknown field of a service": (manifest(service("SERVICE", more=1)), "a service has an unknown field 'more'"),
    "unknown field of a handler": (
        manifest(service("SERVICE", {"name": "h", "more": 1})),
        "a handler of S has an unknown field 'more'",
    ),
    "unknown field of an input": (
        manifest(service("SERVICE", {"name": "h", "input": {"more": 1}})),
        "the input of S/h has an unknown field 'more'",
    ),
    "unknown field of an output": (
        manifest(service("SERVICE", {"name": "h", "output": {"more": 1}})),
        "the output of S/h has an unknown field 'more'",
    ),
    "no protocol mode": (manifest(protocolMode=None), "missing protocol mode"),
    "versions upside down": (manifest(minProtocolVersion=6, maxProtocolVersion=5), "6 is above max 5"),
    "half a character": (manifest(service("SERVICE", documentation="\ud800")), "not JSON"),
    "nested without end": (b"[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize(("body", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(body: bytes, words: str):
    with pytest.raises(InvalidManifest, match=words):
        parse_manifest(body)


SCHEMAS = {
    "anything": (True, None),
    "nothing said": ({}, None),
    "types": ({"type": ["string", "null"]}, None),
    "a property called type": ({"properties": {"type": {"type": "string"}, "$ref": {"type": "string"}}}, None),
    "a value that looks like a schema": ({"enum": [{"type": "kitten"}], "default": {"$ref": "x"}}, None),
    "a reference inside": ({"$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}}, None),
    "no schema": ("x", '"x" is not of types'),
    "unknown type": ({"type": "kitten"}, "'kitten' is no type"),
    "one unknown type": ({"type": ["string", 5]}, "5 is no type"),
    "external": ({"$ref": "https://example.com/a.json"}, "external reference https://example.com/a.json"),
    "external, far inside": ({"anyOf": [{"items": {"properties": {"a": {"$ref": "b.json"}}}}]}, "reference b.json"),
    "a list where schemas are named": ({"properties": []}, "properties must hold schemas"),
    "unknown type of the rest": ({"additionalProperties": {"type": "kitten"}}, "'kitten' is no type"),
}


@pytest.mark.parametrize(("schema", "words"), SCHEMAS.values(), ids=SCHEMAS.keys())
@pytest.mark.parametrize("side", ["input", "output"])
def test_json_schemas(schema: Any, words: str | None, side: str):
    raw = {side: {"contentType": "application/json", "jsonSchema": schema}}
    if words is None:
        spec = handler(raw)
        assert (spec.input.json_schema if side == "input" else spec.output_json_schema) == schema
    else:
        with pytest.raises(InvalidManifest, match=f"the json schema for S/h {side} is invalid: .*{words}"):
            handler(raw)


def test_a_schema_without_end():
    schema = json.loads('{"items": ' * 900 + "true" + "}" * 900)
    with pytest.raises(InvalidManifest, match=r"nested too deeply|not JSON"):
        handler({"input": {"contentType": "application/json", "jsonSchema": schema}})


def test_for_ever_is_a_number_that_a_row_can_hold():
    assert parsed(service(journalRetention=(1 << 64) - 1)).journal_retention_ms == 2_500_000 * DAY_MS


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_handlers = st.fixed_dictionaries(
    {"name": st.just("h") | _json},
    optional={"ty": _json, "input": _json, "output": _json, "retryPolicyMaxAttempts": _json, "metadata": _json},
)
_services = st.fixed_dictionaries(
    {"name": st.just("S") | _json, "ty": st.sampled_from(["SERVICE", "WORKFLOW"]) | _json},
    optional={"handlers": st.lists(_handlers | _json, max_size=2) | _json, "abortTimeout": _json},
)


@given(st.binary(max_size=30) | st.lists(_services | _json, max_size=2).map(lambda s: manifest(*s)))
def test_any_answer_is_a_manifest_or_invalid(body: bytes):
    try:
        parse_manifest(body)
    except InvalidManifest:
        pass


# ---- the real SDK --------------------------------------------------------------------------------------------------------


def sdk_manifest(version: int, *services: Any) -> Manifest:
    """Ask a real application for its manifest in one version."""
    app = restate.app(list(services))
    body = bytearray()
    kinds: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Any) -> None:
        body.extend(event.get("body", b""))
        kinds.extend(value for name, value in event.get("headers", ()) if name == b"content-type")

    content_type = f"application/vnd.restate.endpointmanifest.v{version}+json".encode()
    scope = {"type": "http", "path": "/discover", "http_version": "2", "headers": [(b"accept", content_type)]}
    asyncio.run(app(scope, receive, send))
    assert kinds == [content_type]
    return parse_manifest(bytes(body))


def _typed() -> restate.Service:
    greeter = restate.Service("Greeter")

    @greeter.handler()
    async def typed(ctx: restate.Context, name: str) -> str:
        return name

    @greeter.handler()
    async def untyped(ctx, name):
        return name

    @greeter.handler()
    async def no_input(ctx: restate.Context) -> None:
        return None

    return greeter


@pytest.mark.parametrize("version", [2, 3, 4])
def test_manifest_of_the_real_sdk(version: int):
    read = sdk_manifest(version, _typed())
    assert (read.bidirectional, read.min_protocol_version, read.max_protocol_version) == (True, 5, 7)
    handlers = read.services["Greeter"].handlers
    json_in = InputRules(False, True, "application/json", True, {"type": "string"})
    assert handlers["typed"].input == json_in
    assert handlers["typed"].output_content_type == "application/json"
    assert handlers["untyped"].input.content_type == "application/json"
    assert handlers["no_input"].input == InputRules(empty=True)
    assert handlers["no_input"].output_content_type is None
    assert {spec.ty for spec in handlers.values()} == {None}


def test_settings_of_the_real_sdk():
    account = restate.VirtualObject(
        "Account",
        description="money",
        metadata={"team": "core"},
        inactivity_timeout=timedelta(seconds=1),
        abort_timeout=timedelta(seconds=2),
        journal_retention=timedelta(seconds=3),
        idempotency_retention=timedelta(seconds=4),
        enable_lazy_state=True,
        ingress_private=True,
        invocation_retry_policy=restate.InvocationRetryPolicy(
            initial_interval=timedelta(seconds=5),
            exponentiation_factor=3.0,
            max_interval=timedelta(seconds=6),
            max_attempts=7,
            on_max_attempts="kill",
        ),
    )

    @account.handler()
    async def add(ctx: restate.ObjectContext, amount: int) -> int:
        return amount

    @account.handler(kind="shared", inactivity_timeout=timedelta(seconds=9))
    async def read(ctx: restate.ObjectSharedContext) -> int:
        return 0

    spec = sdk_manifest(4, account).services["Account"]
    assert (spec.ty, spec.public, spec.documentation, spec.metadata) == (
        "VIRTUAL_OBJECT",
        False,
        "money",
        {"team": "core"},
    )
    for settings in (spec, spec.handlers["add"]):
        assert settings.retry == RetryPolicy(5_000, 3.0, 6_000, 7, "KILL")
        assert (settings.inactivity_timeout_ms, settings.abort_timeout_ms) == (1_000, 2_000)
        assert (settings.journal_retention_ms, settings.idempotency_retention_ms) == (3_000, 4_000)
        assert settings.lazy_state
    assert (spec.handlers["add"].ty, spec.handlers["read"].ty) == ("EXCLUSIVE", "SHARED")
    assert spec.handlers["read"].inactivity_timeout_ms == 9_000


def test_workflow_of_the_real_sdk():
    flow = restate.Workflow("Flow")

    @flow.main(workflow_retention=timedelta(minutes=1))
    async def run(ctx: restate.WorkflowContext) -> str:
        return "done"

    @flow.handler()
    async def approve(ctx: restate.WorkflowSharedContext) -> None:
        return None

    spec = sdk_manifest(4, flow).services["Flow"]
    assert (spec.handlers["run"].ty, spec.handlers["approve"].ty) == ("WORKFLOW", "SHARED")
    assert spec.workflow_retention_ms == 60_000
