"""Endpoints that answer discovery in every way there is. The path chooses: `/{case}/{nonce}/discover`.

A `NONCE` in an answer becomes the nonce of the path, so that services of different tests do not meet.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

MANIFEST = "application/vnd.restate.endpointmanifest.v%d+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What discovery is answered."""

    body: Any
    content_type: str = MANIFEST % 4
    status: int = 200
    server: str | None = "zoo/1.0"


def handler(name: str = "h", **fields: Any) -> dict[str, Any]:
    return {"name": name, **fields}


def service(name: str, *handlers: dict[str, Any], ty: str = "SERVICE", **fields: Any) -> dict[str, Any]:
    return {"name": name, "ty": ty, "handlers": list(handlers) or [handler()], **fields}


def manifest(*services: dict[str, Any], **fields: Any) -> dict[str, Any]:
    versions = {"protocolMode": "BIDI_STREAM", "minProtocolVersion": 5, "maxProtocolVersion": 7}
    return {**versions, "services": list(services), **fields}


def one(**fields: Any) -> dict[str, Any]:
    """A manifest with one handler `h` of one plain service."""
    return manifest(service("ZooNONCE", handler(**fields)))


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def schema(content: Any) -> dict[str, Any]:
    return {"contentType": "application/json", "jsonSchema": content}


PLAIN = manifest(service("ZooNONCE", handler()))
RECURSIVE = {
    "$defs": {"Item": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Item"}}}},
    "title": "Order",
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/Item"}}},
}

ANSWERS: dict[str, Answer] = {
    "plain": Answer(PLAIN),
    "anonymous": Answer(PLAIN, server=None),
    "two-handlers": Answer(manifest(service("ZooNONCE", handler("h"), handler("g")))),
    "two-services": Answer(manifest(service("ZooNONCE"), service("OtherNONCE"))),
    "object": Answer(manifest(service("ZooNONCE", ty="VIRTUAL_OBJECT"))),
    "workflow": Answer(manifest(service("ZooNONCE", handler("run", ty="WORKFLOW"), handler("look"), ty="WORKFLOW"))),
    "keeping-workflow": Answer(
        manifest(service("ZooNONCE", handler("run", ty="WORKFLOW", workflowCompletionRetention=7_000), ty="WORKFLOW"))
    ),
    "request-response": Answer(manifest(service("ZooNONCE"), protocolMode="REQUEST_RESPONSE")),
    "request-response-tuned": Answer(
        manifest(
            service("ZooNONCE", handler(inactivityTimeout=7), inactivityTimeout=5_000), protocolMode="REQUEST_RESPONSE"
        )
    ),
    "empty": Answer(manifest()),
    "no-handlers": Answer(manifest({"name": "ZooNONCE", "ty": "SERVICE", "handlers": []})),
    "described": Answer(
        manifest(
            service(
                "ZooNONCE",
                handler(
                    "shaped",
                    documentation="What it does",
                    metadata={"a": "b"},
                    input={**schema(RECURSIVE), "required": True},
                    output={**schema(RECURSIVE), "setContentTypeIfEmpty": True},
                ),
                handler("text", input={"contentType": "text/plain"}, output={"contentType": "text/plain"}),
                handler("any", input={"contentType": "*/*", "required": True}, output={}),
                handler("untyped", input={"contentType": "application/json", "jsonSchema": True, "required": False}),
                handler("void", input={}, output={"setContentTypeIfEmpty": False}),
                handler("hidden", ingressPrivate=True),
                handler("plain"),
                documentation="What it is for",
                metadata={"team": "a"},
            )
        )
    ),
    "private": Answer(manifest(service("ZooNONCE", handler(), ingressPrivate=True))),
    "tuned": Answer(
        manifest(
            service(
                "ZooNONCE",
                handler(inactivityTimeout=1, abortTimeout=0, journalRetention=86_400_000, enableLazyState=True),
                inactivityTimeout=90_000,
                abortTimeout=3_600_000,
                journalRetention=0,
                idempotencyRetention=1500,
                enableLazyState=True,
                retryPolicyInitialInterval=10,
                retryPolicyExponentiationFactor=1.5,
                retryPolicyMaxAttempts=3,
                retryPolicyMaxInterval=20,
                retryPolicyOnMaxAttempts="KILL",
            )
        )
    ),
    # what cannot be read
    "not-found": Answer(PLAIN, status=404),
    "failing": Answer(PLAIN, status=500),
    "no-json": Answer("{"),
    "a-list": Answer([]),
    "wrong-type": Answer(PLAIN, content_type="application/json"),
    "type-with-parameter": Answer(PLAIN, content_type=f"{MANIFEST % 4}; charset=utf-8"),
    "type-of-version-5": Answer(PLAIN, content_type=MANIFEST % 5),
    "type-of-version-1": Answer(PLAIN, content_type=MANIFEST % 1),
    "unknown-field": Answer({**PLAIN, "more": 1}),
    "unknown-field-of-a-service": Answer(manifest(service("ZooNONCE", more=1))),
    "unknown-field-of-a-handler": Answer(one(more=1)),
    "unknown-field-of-an-input": Answer(one(input={"more": 1})),
    "unknown-field-of-an-output": Answer(one(output={"more": 1})),
    "no-services": Answer(without(PLAIN, "services")),
    "no-versions": Answer(without(PLAIN, "minProtocolVersion", "maxProtocolVersion")),
    "no-mode": Answer(without(PLAIN, "protocolMode")),
    "unknown-mode": Answer({**PLAIN, "protocolMode": "BOTH"}),
    "version-0": Answer({**PLAIN, "minProtocolVersion": 0}),
    "version-as-text": Answer({**PLAIN, "maxProtocolVersion": "7"}),
    "no-name": Answer(manifest({"ty": "SERVICE", "handlers": []})),
    "no-type": Answer(manifest({"name": "ZooNONCE", "handlers": []})),
    "bad-service-name": Answer(manifest(service("9NONCE"))),
    "bad-handler-name": Answer(one(name="a-b")),
    "unknown-service-type": Answer(manifest(service("ZooNONCE", ty="ACTOR"))),
    "unknown-handler-type": Answer(one(ty="ONCE")),
    "negative-timeout": Answer(manifest(service("ZooNONCE", inactivityTimeout=-1))),
    "timeout-as-text": Answer(manifest(service("ZooNONCE", inactivityTimeout="1m"))),
    "required-as-text": Answer(one(input={"required": "yes"})),
    "metadata-of-numbers": Answer(manifest(service("ZooNONCE", metadata={"a": 1}))),
    "unknown-policy": Answer(manifest(service("ZooNONCE", retryPolicyOnMaxAttempts="RETRY"))),
    # what cannot be served
    "versions-of-tomorrow": Answer({**PLAIN, "minProtocolVersion": 8, "maxProtocolVersion": 9}),
    "versions-of-yesterday": Answer({**PLAIN, "minProtocolVersion": 1, "maxProtocolVersion": 4}),
    "versions-upside-down": Answer({**PLAIN, "minProtocolVersion": 6, "maxProtocolVersion": 5}),
    "reserved-name": Answer(manifest(service("RestateThings"))),
    "reserved-openapi": Answer(manifest(service("OpenAPI"))),
    "workflow-handler-in-service": Answer(one(ty="WORKFLOW")),
    "exclusive-in-service": Answer(one(ty="EXCLUSIVE")),
    "workflow-handler-in-object": Answer(manifest(service("ZooNONCE", handler(ty="WORKFLOW"), ty="VIRTUAL_OBJECT"))),
    "exclusive-in-workflow": Answer(manifest(service("ZooNONCE", handler(ty="EXCLUSIVE"), ty="WORKFLOW"))),
    "public-in-private": Answer(manifest(service("ZooNONCE", handler(ingressPrivate=False), ingressPrivate=True))),
    "workflow-retention-in-service": Answer(one(workflowCompletionRetention=1000)),
    "workflow-retention-of-a-shared-one": Answer(
        manifest(service("ZooNONCE", handler(workflowCompletionRetention=1000), ty="WORKFLOW"))
    ),
    "idempotency-retention-of-a-run": Answer(
        manifest(service("ZooNONCE", handler(ty="WORKFLOW", idempotencyRetention=1000), ty="WORKFLOW"))
    ),
    "content-type-without-slash": Answer(one(input={"contentType": "json"})),
    "output-type-without-slash": Answer(one(output={"contentType": "json"})),
    "bad-schema": Answer(one(input=schema({"type": "nothing"}))),
    "bad-output-schema": Answer(one(output=schema({"type": 5}))),
    "external-schema": Answer(one(input=schema({"$ref": "https://example.com/schema.json"}))),
    "schema-as-text": Answer(one(input=schema("x"))),
    # what is odd, and taken
    "no-attempts": Answer(manifest(service("ZooNONCE", retryPolicyMaxAttempts=0))),
    "shrinking-delays": Answer(manifest(service("ZooNONCE", retryPolicyExponentiationFactor=0.5))),
    "service-twice": Answer(manifest(service("ZooNONCE"), service("ZooNONCE", handler("g")))),
    "handler-twice": Answer(manifest(service("ZooNONCE", handler(), handler(documentation="again")))),
    "nulls": Answer(manifest(service("ZooNONCE", handler(ty=None, input=None, output=None), documentation=None))),
    "two-runs": Answer(
        manifest(service("ZooNONCE", handler("a", ty="WORKFLOW"), handler("b", ty="WORKFLOW"), ty="WORKFLOW"))
    ),
}

Scope = MutableMapping[str, Any]


async def app(scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """The ASGI application."""
    if scope["type"] != "http":
        return
    _, case, nonce, *_ = scope["path"].split("/")
    answer = ANSWERS[case]
    text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    headers = [(b"content-type", answer.content_type.encode())]
    if answer.server is not None:
        headers.append((b"x-restate-server", answer.server.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": text.replace("NONCE", nonce).encode()})
