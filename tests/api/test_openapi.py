"""The document: valid OpenAPI, complete, and true of what is accepted and answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from holdfast.api import openapi
from holdfast.api.app import create_api
from holdfast.api.operations import OPERATIONS
from holdfast.api.problems import problem
from holdfast.providers import (
    ExecutionError,
    ExecutionState,
    HistoryEvent,
    InvalidSpec,
    ProviderUnavailable,
    RetryPolicy,
    WorkflowInUse,
    WorkflowSpec,
)
from tests.api.conftest import client_of
from tests.api.memory import MemoryProvider

DOCUMENT = json.loads(json.dumps(openapi.document(OPERATIONS)))
SCHEMAS = DOCUMENT["components"]["schemas"]


def schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


def check(value: Any, name: str) -> None:
    jsonschema.validate(value, schema(name), jsonschema.Draft202012Validator)


def test_it_is_valid() -> None:
    assert [str(error) for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


async def test_it_is_served(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


def test_every_operation_is_there_once() -> None:
    described = {
        (method.upper(), path): operation["operationId"]
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    assert described == {(each.method, f"/v1{each.path}"): each.name for each in OPERATIONS}
    assert len(set(described.values())) == len(OPERATIONS)


def descriptions(document: Any, at: str = "") -> Iterator[str]:
    """Where a field or parameter of ours has none."""
    for name, each in document.items():
        for field, found in each.get("properties", {}).items():
            if "description" not in found and "$ref" not in found:
                yield f"{name}.{field}"


def test_what_a_request_may_carry_is_described() -> None:
    requests = {name: each for name, each in SCHEMAS.items() if name.endswith(("Request", "Spec"))}
    assert set(requests) == {
        "WorkflowSpec",
        "RetryPolicyRequest",
        "StartRequest",
        "StopRequest",
        "SignalRequest",
    }
    undescribed = set(descriptions(requests))
    # Their names say it all.
    assert undescribed == {
        "WorkflowSpec.description",
        "WorkflowSpec.tags",
        "RetryPolicyRequest.initial_interval",
        "RetryPolicyRequest.max_interval",
    }
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            for parameter in operation.get("parameters", []):
                assert parameter["in"] == "path" or parameter["description"], (path, parameter)


# --- requests: what the document allows is accepted, what it forbids is refused


SPEC = {"workflow_id": "w", "name": "W", "definition": "app:flow"}

SPECS: dict[str, tuple[dict[str, Any], bool]] = {
    "the least": (SPEC, True),
    "everything": (
        SPEC
        | {
            "description": "x" * 1024,
            "definition": {"reference": "a.b:c.d", "handler": "run", "version": "2"},
            "timeout": "1h 30m",
            "retry_policy": {"max_attempts": 0, "backoff_rate": 1, "initial_interval": 0.5, "max_interval": "1m"},
            "tags": {"a": "b"},
            "provider_type": "embedded",
            "provider_config": {"service_name": "x"},
        },
        True,
    ),
    "nulls": (SPEC | {"timeout": None, "retry_policy": None, "provider_type": None}, True),
    "a timeout in seconds": (SPEC | {"timeout": 1.5}, True),
    "no id": ({"name": "W", "definition": "app:flow"}, False),
    "no name": ({"workflow_id": "w", "definition": "app:flow"}, False),
    "no definition": ({"workflow_id": "w", "name": "W"}, False),
    "an empty name": (SPEC | {"name": ""}, False),
    "a name that is too long": (SPEC | {"name": "x" * 257}, False),
    "an id with a capital letter": (SPEC | {"workflow_id": "W"}, False),
    "an id that is too long": (SPEC | {"workflow_id": "w" * 129}, False),
    "a description that is too long": (SPEC | {"description": "x" * 1025}, False),
    "a definition that is none": (SPEC | {"definition": "{"}, False),
    "a definition without reference": (SPEC | {"definition": {"handler": "x"}}, False),
    "a version that is a number": (SPEC | {"definition": {"reference": "a:b", "version": 2}}, True),
    "a version that is an object": (SPEC | {"definition": {"reference": "a:b", "version": {}}}, False),
    "a definition with more": (SPEC | {"definition": {"reference": "a:b", "x": 1}}, False),
    "a definition that is a list": (SPEC | {"definition": ["a:b"]}, False),
    "an unknown field": (SPEC | {"labels": {}}, False),
    "a timeout that is true": (SPEC | {"timeout": True}, False),
    "attempts below zero": (SPEC | {"retry_policy": {"max_attempts": -1}}, False),
    "half an attempt": (SPEC | {"retry_policy": {"max_attempts": 1.5}}, False),
    "a rate below one": (SPEC | {"retry_policy": {"backoff_rate": 0.5}}, False),
    "an unknown field of a policy": (SPEC | {"retry_policy": {"jitter": 1}}, False),
    "too many tags": (SPEC | {"tags": {str(number): "x" for number in range(51)}}, False),
    "a tag that is no text": (SPEC | {"tags": {"a": 1}}, False),
    "a tag that is too long": (SPEC | {"tags": {"a": "x" * 129}}, False),
    "a tag whose name is too long": (SPEC | {"tags": {"x" * 129: "a"}}, False),
}


@pytest.mark.parametrize("case", SPECS)
async def test_the_schema_of_a_workflow_is_what_is_checked(client: httpx.AsyncClient, case: str) -> None:
    spec, is_valid = SPECS[case]
    answer = await client.post("/v1/workflows/validate", json=spec)
    assert answer.status_code == (200 if is_valid else 422), answer.text
    assert jsonschema.Draft202012Validator(schema("WorkflowSpec")).is_valid(spec) is is_valid


STARTS: dict[str, tuple[Any, bool]] = {
    "nothing": ({}, True),
    "everything": (
        {"execution_name": "a_B-1", "input": None, "tags": {}, "metadata": {"a": 1}, "trigger_source": "", "key": "k"},
        True,
    ),
    "a name with a dot": ({"execution_name": "a.b"}, False),
    "an empty name": ({"execution_name": ""}, False),
    "a name that is too long": ({"execution_name": "x" * 129}, False),
    "metadata that is a list": ({"metadata": []}, False),
    "an unknown field": ({"name": "x"}, False),
    "too many tags": ({"tags": {str(number): "x" for number in range(51)}}, False),
}


@pytest.mark.parametrize("case", STARTS)
async def test_the_schema_of_a_start_is_what_is_checked(client: httpx.AsyncClient, case: str) -> None:
    body, is_valid = STARTS[case]
    await client.post("/v1/workflows", json=SPEC)
    answer = await client.post("/v1/workflows/w/executions", json=body)
    assert answer.status_code == (201 if is_valid else 422), answer.text
    assert jsonschema.Draft202012Validator(schema("StartRequest")).is_valid(body) is is_valid


# --- answers


async def test_answers_are_as_described(memory: MemoryProvider) -> None:
    spec = WorkflowSpec(
        workflow_id="w", name="W", definition="a:b", timeout=timedelta(minutes=5), retry_policy=RetryPolicy()
    )
    async with client_of(create_api(memory)) as client:

        async def answered(method: str, path: str, name: str, **body: Any) -> None:
            answer = await client.request(method, path, **body)
            assert answer.is_success, answer.text
            check(answer.json(), name)

        await answered("POST", "/v1/workflows/validate", "Validity", json=spec.to_json())
        await answered("POST", "/v1/workflows", "CreateWorkflowResult", json=spec.to_json())
        await answered("GET", "/v1/workflows/w", "WorkflowInfo")
        await answered("GET", "/v1/workflows", "WorkflowInfoPage")
        await answered("POST", "/v1/workflows/w/executions", "ExecutionResult", json={"execution_name": "e"})
        await answered("GET", "/v1/executions/w.e", "ExecutionStatus")
        await memory.advance(
            "w.e",
            ExecutionState.FAILED,
            error=ExecutionError(code=500, message="x", failed_at=datetime.now(UTC)),
            history=(HistoryEvent(timestamp=datetime.now(UTC), type="Command: Run", name="x", details={"index": 1}),),
            start_time=datetime.now(UTC),
        )
        await answered("GET", "/v1/executions/w.e", "ExecutionStatus")
        await answered("GET", "/v1/executions", "ExecutionStatusPage")
        await answered("GET", "/v1/executions/w.e/wait", "ExecutionStatus")
        await answered("POST", "/v1/executions/w.e/stop", "ExecutionStatus")
        await answered("POST", "/v1/executions/w.e/signal", "SignalAnswer", json={"name": "go"})


@pytest.mark.parametrize(
    "error",
    [
        InvalidSpec("name", "is required"),
        WorkflowInUse("w", ["w.e"]),
        ProviderUnavailable("gone", endpoint="http://r", status_code=500, body="oops"),
    ],
)
def test_problems_are_as_described(error: Any) -> None:
    document = problem(error, "/v1/workflows")
    check(document, "Problem")
    described = SCHEMAS["Problem"]["properties"]
    assert set(document) <= set(described)
    assert set(document.get("server", {})) <= set(described["server"]["properties"])


def test_a_problem_has_no_member_that_is_not_described() -> None:
    from holdfast.api.problems import _MEMBERS

    assert set(_MEMBERS.values()) <= set(SCHEMAS["Problem"]["properties"])


def test_every_error_of_an_operation_is_described() -> None:
    for operation in OPERATIONS:
        responses = DOCUMENT["paths"][f"/v1{operation.path}"][operation.method.lower()]["responses"]
        for error in operation.errors:
            assert any(re.search(rf"\b{error.code}\b", each["description"]) for each in responses.values()), error
