"""What the HTTP layer decides by itself: bodies, paths, methods, pages, opening and closing of its provider."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from holdfast.api.app import create_api
from holdfast.api.mount import alone
from holdfast.api.responses import json_bytes
from holdfast.providers import ExecutionState, ProviderUnavailable, WorkflowSpec
from tests.api.conftest import Served, becomes_true, client_of
from tests.api.memory import MemoryProvider

SPEC = {"workflow_id": "w", "name": "W", "definition": "app:flow"}
CURLS_OWN = {"content-type": "application/x-www-form-urlencoded"}
"""What `curl -d` says when it is told nothing."""


def problem_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["status"] == answer.status_code
    return document


async def test_a_new_workflow_is_created_and_an_old_one_is_answered(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/workflows", json=SPEC | {"description": "first"})
    again = await client.post("/v1/workflows", json=SPEC | {"description": "second"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["location"] == again.headers["location"] == "/v1/workflows/w"
    assert (await client.get(first.headers["location"])).json()["description"] == "first"


async def test_a_new_execution_is_started_and_an_old_one_is_answered(client: httpx.AsyncClient) -> None:
    await client.post("/v1/workflows", json=SPEC)
    first = await client.post("/v1/workflows/w/executions", json={"execution_name": "e", "input": 1})
    again = await client.post("/v1/workflows/w/executions", json={"execution_name": "e", "input": 2})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["location"] == again.headers["location"] == "/v1/executions/w.e"
    assert (await client.get("/v1/executions/w.e")).json()["input"] == 1


async def test_everything_about_an_execution_arrives(client: httpx.AsyncClient) -> None:
    await client.post("/v1/workflows", json=SPEC)
    more = {"tags": {"team": "a"}, "metadata": {"config_hash": "x"}, "trigger_source": "controller", "key": "k"}
    await client.post("/v1/workflows/w/executions", json={"execution_name": "e", "input": [None], **more})
    status = (await client.get("/v1/executions/w.e")).json()
    assert (status["input"], status["tags"], status["trigger_source"]) == ([None], {"team": "a"}, "controller")
    assert status["metadata"] == {"config_hash": "x", "key": "k"}


@pytest.mark.parametrize("body", [b"", b"{}"], ids=["nothing", "an empty object"])
async def test_an_execution_can_be_started_with(client: httpx.AsyncClient, body: bytes) -> None:
    await client.post("/v1/workflows", json=SPEC)
    assert (await client.post("/v1/workflows/w/executions", content=body)).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.api+json",
        "application/x-www-form-urlencoded",
        "text/plain",
    ],
)
async def test_a_body_is_json_whatever_curl_calls_it(client: httpx.AsyncClient, content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert (await client.post("/v1/workflows", content=json.dumps(SPEC), headers=headers)).status_code == 201


async def test_a_body_of_another_type_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/workflows", content=b"--x", headers={"content-type": "multipart/form-data"})
    assert problem_of(answer)["status"] == 415


WRONG: dict[str, tuple[str, str, Any, int, str | None]] = {
    "not JSON": ("POST", "/v1/workflows", b"{", 400, None),
    "a required body that is empty": ("POST", "/v1/executions/w.e/signal", b"", 400, None),
    "no spec": ("POST", "/v1/workflows", b"", 400, None),
    "an empty spec": ("POST", "/v1/workflows", {}, 422, "workflow_id"),
    "a body that is null": ("POST", "/v1/executions/w.e/stop", b"null", 422, "body"),
    "a spec that is a list": ("POST", "/v1/workflows", [], 422, "spec"),
    "an unknown field of a spec": ("POST", "/v1/workflows", SPEC | {"labels": {}}, 422, "labels"),
    "a field deep in a spec": (
        "POST",
        "/v1/workflows",
        SPEC | {"retry_policy": {"max_attempts": "many"}},
        422,
        "retry_policy.max_attempts",
    ),
    "a duration of a spec": ("POST", "/v1/workflows", SPEC | {"timeout": "-1s"}, 422, "timeout"),
    "a duration beyond all limits": ("POST", "/v1/workflows", SPEC | {"timeout": 1e300}, 422, "timeout"),
    "an execution's name": ("POST", "/v1/workflows/w/executions", {"execution_name": "a b"}, 422, "execution_name"),
    "a tag": ("POST", "/v1/workflows/w/executions", {"tags": {"a": 1}}, 422, "tags.a"),
    "a reason": ("POST", "/v1/executions/w.e/stop", {"reason": 1}, 422, "reason"),
    "a signal without name": ("POST", "/v1/executions/w.e/signal", {}, 422, "name"),
    "a limit": ("GET", "/v1/workflows?limit=0", None, 422, "limit"),
    "a state": ("GET", "/v1/executions?state=done", None, 422, "state"),
    "a cursor": ("GET", "/v1/executions?cursor=x", None, 422, "cursor"),
    "a parameter that nobody knows": ("GET", "/v1/executions?status=running", None, 422, "status"),
    "a parameter where there is none": ("GET", "/v1/workflows/w?force=true", None, 422, "force"),
    "a flag": ("DELETE", "/v1/workflows/w?force=yes", None, 422, "force"),
    "a timeout": ("GET", "/v1/executions/w.e/wait?timeout=soon", None, 422, "timeout"),
    "a workflow": ("GET", "/v1/workflows/x", None, 404, None),
    "a workflow to start": ("POST", "/v1/workflows/x/executions", {}, 404, None),
    "a workflow whose executions are asked for": ("GET", "/v1/workflows/x/executions", None, 404, None),
    "an execution": ("GET", "/v1/executions/w.x", None, 404, None),
    "an execution to stop": ("POST", "/v1/executions/w.x/stop", {}, 404, None),
    "an execution to wait for": ("GET", "/v1/executions/w.x/wait", None, 404, None),
    "an execution to watch": ("GET", "/v1/executions/w.x/watch", None, 404, None),
    "an execution to tell something": ("POST", "/v1/executions/w.x/signal", {"name": "go"}, 404, None),
    "a path with a line break": ("GET", "/v1/workflows/a%0Ab", None, 404, None),
    "a path": ("GET", "/v1/jobs", None, 404, None),
    "a slash too many": ("GET", "/v1/workflows/", None, 404, None),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_is_a_problem_document(client: httpx.AsyncClient, case: str) -> None:
    method, path, body, status, field = WRONG[case]
    await client.post("/v1/workflows", json=SPEC)
    await client.post("/v1/workflows/w/executions", json={"execution_name": "e"})
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
    answer = await client.request(method, path, content=content)
    problem = problem_of(answer)
    assert (answer.status_code, problem.get("field")) == (status, field)
    assert problem["detail"]


async def test_a_method_that_is_not_there_is_told_the_others(client: httpx.AsyncClient) -> None:
    answer = await client.put("/v1/workflows", json=SPEC)
    assert problem_of(answer)["status"] == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_a_look_at_the_head_waits_for_nothing(client: httpx.AsyncClient, memory: MemoryProvider) -> None:
    execution_id = await start(memory)
    head = await client.head(f"/v1/executions/{execution_id}")
    assert (head.status_code, head.content) == (200, b"")
    for path in ("wait", "watch"):
        assert (await client.head(f"/v1/executions/{execution_id}/{path}")).status_code == 405


async def test_a_workflow_may_be_called_validate(client: httpx.AsyncClient) -> None:
    await client.post("/v1/workflows", json=SPEC | {"workflow_id": "validate"})
    assert (await client.get("/v1/workflows/validate")).json()["workflow_id"] == "validate"
    assert (await client.post("/v1/workflows/validate", json=SPEC)).json() == {"valid": True, "workflow_id": "w"}
    assert (await client.delete("/v1/workflows/validate")).status_code == 204
    assert (await client.get("/v1/workflows")).json()["items"] == []


async def test_a_body_that_is_too_large_is_refused_before_it_is_read_to_its_end(memory: MemoryProvider) -> None:
    read = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1_000):
            read += 1
            yield b"x" * 100

    async with client_of(create_api(memory, body_bytes_max=1_000)) as client:
        assert problem_of(await client.post("/v1/workflows", content=parts()))["status"] == 413
    assert read < 20


async def test_pages_are_linked(client: httpx.AsyncClient) -> None:
    for number in range(7):
        await client.post("/v1/workflows", json=SPEC | {"workflow_id": f"w{number}"})
        await client.post("/v1/workflows/w0/executions", json={"execution_name": f"e{number}"})
    assert await all_of(client, "/v1/workflows?limit=3", "workflow_id") == [f"w{number}" for number in range(7)]
    newest_first = [f"e{number}" for number in reversed(range(7))]
    assert await all_of(client, "/v1/executions?state=pending&limit=2&state=running", "execution_name") == newest_first
    assert await all_of(client, "/v1/workflows/w0/executions?limit=7", "execution_name") == newest_first
    assert await all_of(client, "/v1/workflows/w1/executions", "execution_name") == []


async def all_of(client: httpx.AsyncClient, path: str, name: str) -> list[str]:
    """Follow the links from page to page."""
    found: list[str] = []
    for _ in range(20):
        answer = await client.get(path)
        document = answer.json()
        found += [each[name] for each in document["items"]]
        following = answer.links.get("next", {}).get("url")
        assert (following is None) == (document["next_cursor"] is None)
        if following is None:
            return found
        path = following
    raise AssertionError("the pages never end")


async def test_running_executions_keep_a_workflow(client: httpx.AsyncClient, memory: MemoryProvider) -> None:
    await client.post("/v1/workflows", json=SPEC)
    await client.post("/v1/workflows/w/executions", json={"execution_name": "e"})
    refused = await client.delete("/v1/workflows/w")
    assert (refused.status_code, problem_of(refused)["execution_ids"]) == (409, ["w.e"])
    assert (await client.delete("/v1/workflows/w?force=true")).status_code == 204
    assert memory.executions["w.e"].state == ExecutionState.STOPPED
    assert (await client.delete("/v1/workflows/w")).status_code == 204


async def test_a_stop_says_how(client: httpx.AsyncClient, memory: MemoryProvider) -> None:
    await client.post("/v1/workflows", json=SPEC)
    await client.post("/v1/workflows/w/executions", json={"execution_name": "e"})
    body = '{"reason": "x", "kill": true, "grace": "2s"}'
    answer = await client.post("/v1/executions/w.e/stop", content=body, headers=CURLS_OWN)
    assert (answer.status_code, answer.json()["state"], answer.json()["reason"]) == (200, "stopped", "x")
    execution_id, reason, grace, kill = memory.stops[0]
    assert (execution_id, reason, grace and grace.total_seconds(), kill) == ("w.e", "x", 2.0, True)


async def test_a_signal_is_answered(client: httpx.AsyncClient, memory: MemoryProvider) -> None:
    await client.post("/v1/workflows", json=SPEC)
    await client.post("/v1/workflows/w/executions", json={"execution_name": "e"})
    body = {"name": "approved", "payload": {"by": "Ada"}, "idempotency_key": "k"}
    answer = await client.post("/v1/executions/w.e/signal", json=body)
    assert answer.json() == {"answer": {"heard": {"by": "Ada"}}}
    assert memory.signals == [("w.e", "approved", {"by": "Ada"}, "k")]


async def test_a_fault_of_ours_tells_nothing_of_its_inside(memory: MemoryProvider) -> None:
    memory.failure = KeyError("secret")
    transport = httpx.ASGITransport(app=alone(create_api(memory)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        problem = problem_of(await client.get("/v1/workflows"))
    assert problem["status"] == 500
    assert "secret" not in json.dumps(problem)


async def test_the_engines_own_response_is_passed_on(client: httpx.AsyncClient, memory: MemoryProvider) -> None:
    memory.failure = ProviderUnavailable("no", endpoint="http://r:8080", status_code=500, body="oops")
    problem = problem_of(await client.get("/v1/workflows"))
    assert problem["server"] == {"endpoint": "http://r:8080", "status": 500, "body": "oops"}


# --- its provider


class Opening:
    """A function that opens a provider, and counts."""

    def __init__(self, provider: MemoryProvider) -> None:
        self.provider = provider
        self.count = 0
        self.failure: Exception | None = None

    async def __call__(self) -> MemoryProvider:
        self.count += 1
        await asyncio.sleep(0)  # others may come meanwhile
        if self.failure is not None:
            raise self.failure
        return self.provider


async def test_nothing_is_opened_before_the_first_request(memory: MemoryProvider) -> None:
    opening = Opening(memory)
    api = create_api(opening)
    async with client_of(api) as client:
        assert (await client.get("/v1/openapi.json")).status_code == 200
        assert (await client.post("/v1/workflows", content=b"{")).status_code == 400
        assert opening.count == 0
        answers = await asyncio.gather(*(client.get("/v1/workflows") for _ in range(10)))
    assert {each.status_code for each in answers} == {200}
    assert opening.count == 1
    await api.close()
    assert memory.is_closed


async def test_an_opening_that_failed_is_tried_again(memory: MemoryProvider) -> None:
    opening = Opening(memory)
    opening.failure = ProviderUnavailable("no", endpoint="http://r:8080")
    async with client_of(create_api(opening)) as client:
        assert problem_of(await client.get("/v1/workflows"))["status"] == 503
        opening.failure = None
        assert (await client.get("/v1/workflows")).status_code == 200
    assert opening.count == 2


async def test_a_provider_that_was_given_is_left_open(memory: MemoryProvider) -> None:
    api = create_api(memory)
    await api.close()
    assert not memory.is_closed
    async with client_of(api) as client:
        assert problem_of(await client.get("/v1/workflows"))["status"] == 503


# --- waiting


async def start(memory: MemoryProvider) -> str:
    await memory.create_workflow(WorkflowSpec(workflow_id="w", name="W", definition="app:flow"))
    return (await memory.start_execution("w", execution_name="e")).execution_id


async def test_waiting_ends_with_the_execution(client: httpx.AsyncClient, memory: MemoryProvider) -> None:
    execution_id = await start(memory)
    waiting = asyncio.create_task(client.get(f"/v1/executions/{execution_id}/wait"))
    await becomes_true(lambda: memory.waiters == 1, "nobody waits")
    await memory.advance(execution_id, ExecutionState.SUCCEEDED, output="done")
    answer = await waiting
    assert (answer.status_code, answer.json()["output"]) == (200, "done")


async def test_waiting_ends_after_its_time(client: httpx.AsyncClient, memory: MemoryProvider) -> None:
    execution_id = await start(memory)
    problem = problem_of(await client.get(f"/v1/executions/{execution_id}/wait?timeout=10ms"))
    assert (problem["status"], problem["code"], problem["state"]) == (408, "HF0407", "pending")


async def test_waiting_ends_when_the_client_goes(served: Served, memory: MemoryProvider) -> None:
    execution_id = await start(memory)
    async with httpx.AsyncClient() as client:
        waiting = asyncio.create_task(client.get(f"{served.url}/v1/executions/{execution_id}/wait"))
        await becomes_true(lambda: memory.waiters == 1, "nobody waits")
        waiting.cancel()
        await becomes_true(lambda: memory.waiters == 0, "the wait goes on without a client")


async def test_waiting_ends_when_the_api_is_closed(served: Served, memory: MemoryProvider) -> None:
    execution_id = await start(memory)
    async with httpx.AsyncClient() as client:
        waiting = asyncio.create_task(client.get(f"{served.url}/v1/executions/{execution_id}/wait"))
        await becomes_true(lambda: memory.waiters == 1, "nobody waits")
        await served.api.close()
        assert problem_of(await waiting)["code"] == "HF0303"
    assert memory.waiters == 0


# --- answers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": "ü"}, '{"a":"ü"}'.encode()),
        ({"a": math.nan, "b": [math.inf]}, b'{"a":"nan","b":["inf"]}'),
        ({"a": "\ud83d", "b": "ü"}, '{"a":"\ufffd","b":"ü"}'.encode()),
    ],
    ids=["text", "numbers that are none", "half a surrogate pair"],
)
def test_answers_are_json_for_everybody(value: Any, expected: bytes) -> None:
    assert json_bytes(value) == expected
