"""Descriptions of services, against what Restate server 1.7.12 answered for the same application."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.admin.render import encoded_bytes, friendly_duration, handler_metadata, service_metadata, timestamp
from holdfast.protocol.discovery import parse_manifest
from tests.admin.sample_app import app
from tests.support.restate_server import running_restate, skip_without_server

GOLDEN = Path(__file__).with_name("services.golden.json")


def normalised(services: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order of services and handlers, deployment and revision are the server's own affair."""
    return [
        service | {"deployment_id": "dp_1", "revision": 1, "handlers": sorted(service["handlers"], key=by_name)}
        for service in sorted(services, key=by_name)
    ]


def by_name(document: dict[str, Any]) -> str:
    return document["name"]


async def discovered() -> list[dict[str, Any]]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        accept = {"accept": "application/vnd.restate.endpointmanifest.v4+json"}
        manifest = parse_manifest((await http.get("/discover", headers=accept)).content)
    return [service_metadata(service, deployment_id="dp_1") for service in manifest.services.values()]


async def test_services_are_described_as_restate_does():
    assert normalised(await discovered()) == json.loads(GOLDEN.read_text())


async def test_fields_come_in_restates_order():
    golden = {service["name"]: service for service in json.loads(GOLDEN.read_text())}
    for service in await discovered():
        assert list(service) == list(golden[service["name"]])
        handlers = {handler["name"]: handler for handler in golden[service["name"]]["handlers"]}
        for handler in service["handlers"]:
            assert list(handler) == list(handlers[handler["name"]])


@pytest.mark.restate_server
def test_the_golden_file_is_what_a_restate_server_says():
    skip_without_server()
    with running_restate("tests.admin.sample_app:app") as restate:
        answer = httpx.get(f"{restate.admin_url}/services").json()["services"]
    assert normalised(answer) == json.loads(GOLDEN.read_text())


DURATIONS = {
    0: "0s",
    1: "1ms",
    500: "500ms",
    1_500: "1s 500ms",
    59_000: "59s",
    60_000: "1m",
    5_400_000: "1h 30m",
    3_600_500: "1h 500ms",
    3_661_000: "1h 1m 1s",
    90_061_001: "1d 1h 1m 1s 1ms",
    86_400_000: "1d",
    56 * 86_400_000: "56d",
    400 * 86_400_000: "400d",
}


@pytest.mark.parametrize(("duration_ms", "text"), DURATIONS.items())
def test_durations_are_friendly(duration_ms: int, text: str):
    assert friendly_duration(duration_ms) == text


def test_timestamps_have_nine_decimals():
    assert timestamp(1_795_256_166_391) == "2026-11-21T10:16:06.391000000Z"
    assert timestamp(1_795_256_166_007) == "2026-11-21T10:16:06.007000000Z"


# What a handler's manifest entry says about its input -> `input_description`, `input_json_schema`.
INPUTS: dict[str, tuple[dict[str, Any] | None, str, Any]] = {
    "nothing said": (None, "*/*", None),
    "no input": ({}, "none", None),
    "not required": ({"required": False}, "none", None),
    "type only": ({"contentType": "text/plain"}, "text/plain", None),
    "wildcard": ({"contentType": "text/*"}, "text/*", None),
    "any": ({"contentType": "*/*"}, "*/*", None),
    "empty schema": ({"contentType": "application/json", "jsonSchema": {}}, "application/json", {}),
    "true": ({"contentType": "application/json", "jsonSchema": True}, "application/json", True),
    "false": ({"contentType": "application/json", "jsonSchema": False}, "application/json", False),
    "two types": (
        {"contentType": "application/json", "jsonSchema": {"type": ["integer", "null"]}},
        "application/json",
        {"type": ["integer", "null"]},
    ),
    "title beats type": (
        {"contentType": "application/json", "jsonSchema": {"title": "Person", "type": "object"}},
        "JSON 'Person'",
        {"title": "Person", "type": "object"},
    ),
    "null": ({"contentType": "application/json", "jsonSchema": {"type": "null"}}, "JSON null", {"type": "null"}),
    "schema of another type": (
        {"contentType": "application/octet-stream", "jsonSchema": {"type": "string"}},
        "JSON string",
        {"type": "string"},
    ),
    "schema without type": ({"jsonSchema": {"type": "string"}}, "none", None),
}


def described(handler: dict[str, Any]) -> dict[str, Any]:
    manifest = {
        "protocolMode": "BIDI_STREAM",
        "minProtocolVersion": 5,
        "maxProtocolVersion": 7,
        "services": [{"name": "F", "ty": "SERVICE", "handlers": [{"name": "h", **handler}]}],
    }
    return handler_metadata(parse_manifest(json.dumps(manifest).encode()).services["F"].handlers["h"])


@pytest.mark.parametrize(("declared", "description", "schema"), INPUTS.values(), ids=INPUTS)
def test_input_and_output_are_described(declared: dict[str, Any] | None, description: str, schema: Any):
    document = described({} if declared is None else {"input": declared})
    assert document["input_description"] == description
    assert document.get("input_json_schema") == schema
    assert ("input_json_schema" in document) == (schema is not None)

    document = described({} if declared is None else {"output": {k: v for k, v in declared.items() if k != "required"}})
    assert document["output_description"] == ("application/json" if declared is None else description)
    assert document.get("output_json_schema") == schema


OWN_POLICIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {"max_attempts": None}),
    "attempts": ({"retryPolicyMaxAttempts": 5}, {"max_attempts": 5}),
    "no attempts count as one": ({"retryPolicyMaxAttempts": 0}, {"max_attempts": 1}),
    "interval": ({"retryPolicyInitialInterval": 5}, {"initial_interval": "5ms", "max_attempts": None}),
    "kill": ({"retryPolicyOnMaxAttempts": "KILL"}, {"max_attempts": None, "on_max_attempts": "Kill"}),
}


@pytest.mark.parametrize(("declared", "policy"), OWN_POLICIES.values(), ids=OWN_POLICIES)
def test_a_handler_shows_only_its_own_retry_settings(declared: dict[str, Any], policy: dict[str, Any]):
    assert described(declared)["retry_policy"] == policy


def test_bytes_are_text_where_they_can_be():
    assert encoded_bytes(b"42") == {"utf8": "42"}
    assert encoded_bytes("é".encode()) == {"utf8": "é"}
    assert encoded_bytes(b"") == {"utf8": ""}
    assert encoded_bytes(b"\xff\x00") == {"base64": "/wA="}
