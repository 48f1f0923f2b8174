"""Whatever is sent to the admin API: an answer that its document knows, never an error of ours."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Engine
from holdfast.admin.openapi import OPERATIONS
from tests.admin.conftest import UNKNOWN
from tests.admin.sample_app import app

# A registration is sent to where nobody listens; what an address may look like is `test_registry.py`'s.
NOWHERE = "http://127.0.0.1:1"
NAMES = (
    *("uri", "arn", "additional_headers", "metadata", "use_http_11", "force", "breaking", "dry_run", "overwrite"),
    *("public", "idempotency_retention", "abort_timeout", "object_key", "new_state", "version", "invocation_ids"),
    *("deployment", "source", "sink", "options", "name", "properties", "pattern", "query"),
)
texts = st.text(max_size=8) | st.sampled_from(["1h", "keep", "Counter", "Greeter", "dp_1", UNKNOWN])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | texts, inner, max_size=4),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from(NAMES), documents, max_size=5)
bodies = st.none() | st.binary(max_size=40) | (documents | objects).map(lambda value: json.dumps(value).encode())
parts = st.sampled_from(["Counter", "Greeter", "add", "greet", UNKNOWN, "dp_16tCcPQuIcwtYpzUmqjMAmK", "k"]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=6
)
parameters = st.dictionaries(
    st.sampled_from(["force", "from", "deployment", "mode", "limit", "status", "before", "key", "oldest_first"]),
    st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["true", "1", "keep", "running"]),
    max_size=3,
)
content_types = st.sampled_from(["application/json", "application/json; charset=utf-8", "text/plain", "", "é"])
COMMON = {404, 405, 503}
"""A path part that is empty or has a slash too many is another path."""


async def ask(client: httpx.AsyncClient, operation: str, body: bytes | None, **request: Any) -> httpx.Response:
    method, template = operation.split(" ")
    values = request.pop("parts")
    path = re.sub(r"\{\w+\}", lambda _match: quote(values.pop(), safe=""), template)
    headers = {"content-type": request.pop("content_type").encode()}
    if body is not None and b'"uri"' in body:
        body = re.sub(rb'"uri": "[^"]*"', b'"uri": "%b"' % NOWHERE.encode(), body)
    return await client.request(method, path, content=body, headers=headers, **request)


def test_any_request_is_answered_as_described():
    with asyncio.Runner() as runner:
        engine = Engine(app)
        runner.run(engine.start())
        transport = httpx.ASGITransport(app=engine.admin)
        client = httpx.AsyncClient(transport=transport, base_url="http://holdfast")

        @settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(
            operation=st.sampled_from(sorted(OPERATIONS)),
            body=bodies,
            values=st.lists(parts, min_size=2, max_size=2),
            query=parameters,
            content_type=content_types,
        )
        def check(operation: str, body: bytes | None, values: list[str], query: dict[str, str], content_type: str):
            answer = runner.run(
                ask(client, operation, body, parts=list(values), params=query, content_type=content_type)
            )
            described = {int(status) for status in OPERATIONS[operation]["responses"]} | COMMON
            assert answer.status_code in described, (answer.status_code, answer.text)
            if answer.status_code == 500:
                assert "restate_code" in answer.json()

        check()
        runner.run(client.aclose())
        runner.run(engine.stop(drain_ms=0))


def test_half_a_character_is_no_text():
    async def send() -> list[int]:
        async with Engine(app) as engine:
            transport = httpx.ASGITransport(app=engine.admin)
            async with httpx.AsyncClient(transport=transport, base_url="http://holdfast") as client:
                answers = [
                    await client.request(method, path, content=body, headers={"content-type": "application/json"})
                    for method, path, body in (
                        ("POST", "/services/Counter/state", b'{"object_key": "\\ud800", "new_state": {}}'),
                        ("POST", "/services/Counter/state", b'{"object_key": "a", "new_state": {"\\udfff": []}}'),
                        ("POST", "/deployments", b'{"uri": "http://\\ud800"}'),
                        ("PATCH", "/services/Counter", b'{"abort_timeout": "\\ud83d"}'),
                        ("POST", "/services/Counter/state", b"[" * 100_000),
                        ("POST", "/services/Counter/state", b"1" * 100_000),
                    )
                ]
                return [answer.status_code for answer in answers]

    assert asyncio.run(send()) == [400] * 6
