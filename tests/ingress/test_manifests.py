"""What the ingress accepts for handlers that this SDK would never describe so, and others do. On both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ingress.backend import Ask, Backend, holdfast_backend, restate_backend
from tests.support.restate_server import skip_without_server

JSON = "application/json"
OK = "accepted"
NO_TYPE, NO_BODY = "Empty content-type", "Empty body not allowed"
NOT_JSON = "Content-type 'text/plain' does not match 'application/json'"
NOT_TEXT = "Content-type 'application/json' does not match 'text/plain'"
NONE = "Expected body and content-type to be empty, but wasn't with content-type "
SOME_JSON, SOME_TEXT = NONE + "'Some(\"application/json\")'", NONE + "'Some(\"text/plain\")'"

REQUESTS: list[tuple[str | None, bytes]] = [
    (None, b""),
    (None, b"x"),
    (JSON, b""),
    (JSON, b"1"),
    ("text/plain", b""),
    ("text/plain", b"1"),
]
# `input` of the manifest -> the answer to each of REQUESTS.
INPUTS: dict[str, tuple[dict[str, Any] | None, list[str]]] = {
    "nothing": (None, [OK, NO_TYPE, OK, OK, OK, OK]),
    "empty": ({}, [OK, NONE + "'None'", SOME_JSON, SOME_JSON, SOME_TEXT, SOME_TEXT]),
    "type": ({"contentType": "text/plain"}, [OK, NO_TYPE, NOT_TEXT, NOT_TEXT, OK, OK]),
    "type_required": (
        {"required": True, "contentType": "text/plain"},
        [NO_TYPE, NO_TYPE, NOT_TEXT, NOT_TEXT, OK, OK],
    ),
    "type_not_required": (
        {"required": False, "contentType": "text/plain"},
        [OK, NO_TYPE, NOT_TEXT, NOT_TEXT, OK, OK],
    ),
    "schema": (
        {"contentType": JSON, "jsonSchema": {"type": "string"}},
        [OK, NO_TYPE, NO_BODY, OK, NOT_JSON, NOT_JSON],
    ),
    "schema_required": (
        {"required": True, "contentType": JSON, "jsonSchema": {}},
        [NO_TYPE, NO_TYPE, NO_BODY, OK, NOT_JSON, NOT_JSON],
    ),
    "schema_false": (
        {"required": True, "contentType": JSON, "jsonSchema": False},
        [NO_TYPE, NO_TYPE, NO_BODY, OK, NOT_JSON, NOT_JSON],
    ),
    "schema_without_type": (
        {"jsonSchema": {"type": "string"}},
        [OK, NONE + "'None'", SOME_JSON, SOME_JSON, SOME_TEXT, SOME_TEXT],
    ),
}

MANIFEST = {
    "protocolMode": "BIDI_STREAM",
    "minProtocolVersion": 5,
    "maxProtocolVersion": 6,
    "services": [
        {
            "name": "Typed",
            "ty": "SERVICE",
            "handlers": [
                {"name": name} if declared is None else {"name": name, "input": declared}
                for name, (declared, _) in INPUTS.items()
            ],
        }
    ],
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Tells what it would serve, and serves nothing."""
    if scope["type"] != "http":
        raise ValueError("only HTTP")
    while (await receive()).get("more_body"):
        pass
    content_type = (b"content-type", b"application/vnd.restate.endpointmanifest.v4+json")
    await send({"type": "http.response.start", "status": 200, "headers": [content_type]})
    await send({"type": "http.response.body", "body": json.dumps(MANIFEST).encode()})


@pytest.fixture(scope="module", params=["holdfast", pytest.param("restate", marks=pytest.mark.restate_server)])
def typed(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "restate":
        skip_without_server()
    with (restate_backend if request.param == "restate" else holdfast_backend)(app) as running:
        yield running


@pytest.mark.parametrize("name", INPUTS)
def test_input(typed: Backend, name: str):
    answers: list[str] = []
    for content_type, body in REQUESTS:
        headers: dict[str, str | bytes] = {} if content_type is None else {"content-type": content_type}
        got = typed.ask(Ask("POST", f"/Typed/{name}/send?delay=1h", body or None, headers))
        message = OK if got.status == 202 else str(json.loads(got.body)["message"])
        answers.append(message.removeprefix("input validation error: "))
    assert answers == INPUTS[name][1]
