"""Any request: what the document allows is accepted, what it forbids is refused, and nothing is our fault.

Bodies are made of the document's own schemas and then damaged here and there, so that both sides of every rule are met.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.api.app import create_api
from holdfast.providers import WorkflowSpec
from tests.api.conftest import client_of
from tests.api.memory import MemoryProvider
from tests.api.test_openapi import DOCUMENT, SCHEMAS, schema

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DURATIONS = st.sampled_from(["1s", "1h 30m", "250ms", "1.5s", "", "30", "-1s", "soon", "0x"])


def values_of(found: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that mostly fit a schema of the document; it uses few words of JSON Schema."""
    if "$ref" in found:
        return values_of(SCHEMAS[found["$ref"].rpartition("/")[2]])
    if "anyOf" in found:
        return st.one_of([values_of(each) for each in found["anyOf"]])
    if "enum" in found:
        return st.sampled_from(found["enum"])
    kinds = found.get("type", [])
    of_kind = [BY_TYPE[kind](found) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    return st.one_of(of_kind) if of_kind else JSON


def texts(found: dict[str, Any]) -> st.SearchStrategy[Any]:
    pattern = found.get("pattern")
    if pattern is None:
        return st.text(min_size=found.get("minLength", 0), max_size=5)
    if "ms|s|m|h|d" in pattern:
        return DURATIONS  # of another form it may be a duration all the same: ISO 8601, words
    return st.from_regex(pattern.replace("{1,128}", "{1,9}"), fullmatch=True)


def objects(found: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = {name: values_of(each) for name, each in found.get("properties", {}).items()}
    required = {name: properties.pop(name) for name in found.get("required", ())}
    if properties or required:
        return st.fixed_dictionaries(required, optional=properties)
    more = found.get("additionalProperties", True)
    return st.dictionaries(st.text(max_size=5), values_of(more) if isinstance(more, dict) else JSON, max_size=3)


BY_TYPE: dict[str, Callable[[dict[str, Any]], st.SearchStrategy[Any]]] = {
    "string": texts,
    "integer": lambda found: st.integers(found.get("minimum", -5), found.get("maximum", 9)),
    "number": lambda found: st.floats(found.get("minimum", -9), found.get("maximum", 9)) | st.integers(1, 9),
    "boolean": lambda _: st.booleans(),
    "null": lambda _: st.none(),
    "object": objects,
    "array": lambda found: st.lists(values_of(found["items"]), max_size=3),
}


@st.composite
def bodies(draw: st.DrawFn, name: str) -> Any:
    """A body of that schema, often with one thing wrong."""
    body = draw(values_of(SCHEMAS[name]))
    match draw(st.sampled_from(["as it is", "as it is", "another value", "a field less", "a field more", "anything"])):
        case "another value" if body:
            body[draw(st.sampled_from(sorted(body)))] = draw(JSON)
        case "a field less" if body:
            del body[draw(st.sampled_from(sorted(body)))]
        case "a field more":
            body[draw(st.text(max_size=5))] = draw(JSON)
        case "anything":
            body = draw(JSON)
        case _:
            pass
    return body


OPERATIONS = {
    "WorkflowSpec": "/v1/workflows",
    "StartRequest": "/v1/workflows/w/executions",
    "StopRequest": "/v1/executions/w.e/stop",
    "SignalRequest": "/v1/executions/w.e/signal",
}


async def answer_to(method: str, path: str, **more: Any) -> httpx.Response:
    memory = MemoryProvider()
    await memory.create_workflow(WorkflowSpec(workflow_id="w", name="W", definition="a:b"))
    await memory.start_execution("w", execution_name="e")
    async with client_of(create_api(memory)) as client:
        return await client.request(method, path, **more)


def check_documented(answer: httpx.Response, method: str, path: str) -> None:
    """Status, media type and body are in the document."""
    responses = DOCUMENT["paths"][path][method.lower()]["responses"]
    documented = responses.get(str(answer.status_code))
    assert answer.status_code < 500, answer.text
    assert documented is not None, answer.text
    kind = answer.headers["content-type"]
    jsonschema.validate(answer.json(), documented["content"][kind]["schema"] | {"components": DOCUMENT["components"]})


@pytest.mark.parametrize("name", OPERATIONS)
def test_any_body(name: str) -> None:
    validator = jsonschema.Draft202012Validator(schema(name))
    path = OPERATIONS[name]
    template = path.replace("/w.e/", "/{execution_id}/").replace("/w/", "/{workflow_id}/")

    @settings(max_examples=100, deadline=None)
    @given(body=bodies(name))
    def holds(body: Any) -> None:
        answer = asyncio.run(answer_to("POST", path, content=json.dumps(body)))
        check_documented(answer, "POST", template)
        assert answer.is_success is validator.is_valid(body), answer.text

    holds()


QUERIES = {
    "/v1/workflows": "/v1/workflows",
    "/v1/executions": "/v1/executions",
    "/v1/workflows/w/executions": "/v1/workflows/{workflow_id}/executions",
    "/v1/executions/w.e": "/v1/executions/{execution_id}",
}
NAMES = st.sampled_from(
    ["limit", "cursor", "state", "created_after", "created_before", "workflow_id", "history", "force", "x", ""]
)
VALUES = st.text(max_size=5) | st.sampled_from(
    ["0", "1", "1000", "1001", "running", "failed", "true", "2025-01-01T00:00:00Z", "2025-01-01T00:00:00+01:00", "9e9"]
)


@pytest.mark.parametrize("path", QUERIES)
def test_any_query(path: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(query=st.lists(st.tuples(NAMES, VALUES), max_size=3))
    def holds(query: list[tuple[str, str]]) -> None:
        answer = asyncio.run(answer_to("GET", path, params=query))
        check_documented(answer, "GET", QUERIES[path])

    holds()


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=40), kind=st.sampled_from(["application/json", "text/plain", "image/png", "x"]))
def test_any_bytes(body: bytes, kind: str) -> None:
    answer = asyncio.run(answer_to("POST", "/v1/workflows", content=body, headers={"content-type": kind}))
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"].startswith("HF")
