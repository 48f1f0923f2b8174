"""The admin API, request by request: what both holdfast and Restate 1.7.12 answer, then what is ours alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import Engine
from tests.admin.conftest import UNKNOWN, System
from tests.admin.sample_app import app

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Case:
    """A request and its answer. `{id}` in path and answer is an invocation in status `of`."""

    request: str
    status: int
    answer: Any = ""
    """A document, the text, or `...` where the words are not worth comparing."""
    content_type: str | None = None
    of: str = ""
    body: Any = None
    headers: dict[str, str] | None = None


def refusal(message: str) -> dict[str, Any]:
    return {"message": message, "restate_code": None}


OPERATIONS = ("cancel", "kill", "pause", "resume", "purge", "purge-journal")
COMPLETED = refusal("The invocation '{id}' was already completed.")
NOT_COMPLETED = refusal("The invocation '{id}' is not yet completed.")
NOT_RUNNING = refusal("The invocation '{id}' is not running, cannot be paused.")
PEEK = {
    "name": "peek",
    "ty": "Shared",
    "public": True,
    "input_description": "none",
    "output_description": "JSON integer",
    "output_json_schema": {"type": "integer"},
    "retry_policy": {"max_attempts": None},
}

CASES = {
    "health": Case("GET /health", 200),
    "health, versioned": Case("GET /v3/health", 200),
    "health by POST": Case("POST /health", 405),
    "too old a version": Case(
        "GET /v1/services",
        400,
        "Unsupported Admin API version V1. This server supports versions between V2 and V4.",
        TEXT,
    ),
    "too new a version": Case("GET /v5/services", 404),
    "no such path": Case("GET /nope", 404),
    "trailing slash": Case("GET /services/Counter/", 404),
    "no such service": Case("GET /services/Nope", 404, refusal("The requested service 'Nope' does not exist"), JSON),
    "handlers of no such service": Case(
        "GET /services/Nope/handlers", 404, refusal("The requested service 'Nope' does not exist"), JSON
    ),
    "no such handler": Case(
        "GET /services/Counter/handlers/nope",
        404,
        refusal("The requested handler 'nope' on service 'Counter' does not exist"),
        JSON,
    ),
    "handler of no such service": Case(
        "GET /services/Nope/handlers/nope",
        404,
        refusal("The requested handler 'nope' on service 'Nope' does not exist"),
        JSON,
    ),
    "handler": Case("GET /v4/services/Counter/handlers/peek", 200, PEEK, JSON),
    "no such deployment": Case(
        "GET /deployments/dp_16tCcPQuIcwtYpzUmqjMAmK",
        404,
        refusal("The requested deployment 'dp_16tCcPQuIcwtYpzUmqjMAmK' does not exist"),
        JSON,
    ),
    "malformed deployment": Case(
        "GET /deployments/foo", 400, "Invalid URL: Cannot parse `deployment` with value `foo`: bad format", TEXT
    ),
    "state of a plain service": Case(
        "POST /services/Greeter/state",
        400,
        refusal("Cannot modify state for service type Service"),
        JSON,
        body={"object_key": "a", "new_state": {}},
    ),
    "state": Case(
        "POST /services/Counter/state", 202, body={"object_key": "a", "new_state": {"total": [52, 50]}, "more": 1}
    ),
    "state with a version that does not fit": Case(
        "POST /services/Counter/state", 202, body={"object_key": "a", "new_state": {}, "version": "xx"}
    ),
    "state of a workflow": Case(
        "POST /services/Signup/state", 202, body={"object_key": "a", "new_state": {"x": "text"}}
    ),
    "state, a byte too large": Case(
        "POST /services/Counter/state", 422, ..., TEXT, body={"object_key": "a", "new_state": {"total": [500]}}
    ),
    "state without the state": Case("POST /services/Counter/state", 422, ..., TEXT, body={"object_key": "a"}),
    "state without the key": Case("POST /services/Counter/state", 422, ..., TEXT, body={"new_state": {}}),
    "state, no object": Case("POST /services/Counter/state", 422, ..., TEXT, body=[]),
    "state, no JSON": Case(
        "POST /services/Counter/state", 400, ..., TEXT, body=b"{bad", headers={"content-type": JSON}
    ),
    "state, another content type": Case(
        "POST /services/Counter/state",
        415,
        "Expected request with `Content-Type: application/json`",
        TEXT,
        body=b"{}",
        headers={"content-type": "text/plain"},
    ),
    "all state by GET": Case("GET /services/Counter/state", 405),
    "cancel a live one": Case("PATCH /invocations/{id}/cancel", 202, of="live"),
    "cancel a scheduled one": Case("PATCH /invocations/{id}/cancel", 200, of="scheduled"),
    "cancel a pending one": Case("PATCH /invocations/{id}/cancel", 200, of="pending"),
    "cancel a completed one": Case("PATCH /invocations/{id}/cancel", 409, COMPLETED, JSON, of="completed"),
    "kill a live one": Case("PATCH /invocations/{id}/kill", 200, of="live"),
    "kill a scheduled one": Case("PATCH /invocations/{id}/kill", 200, of="scheduled"),
    "kill a pending one": Case("PATCH /invocations/{id}/kill", 200, of="pending"),
    "kill a completed one": Case("PATCH /invocations/{id}/kill", 409, COMPLETED, JSON, of="completed"),
    "pause a scheduled one": Case("PATCH /invocations/{id}/pause", 409, NOT_RUNNING, JSON, of="scheduled"),
    "pause a pending one": Case("PATCH /invocations/{id}/pause", 409, NOT_RUNNING, JSON, of="pending"),
    "pause a completed one": Case("PATCH /invocations/{id}/pause", 409, NOT_RUNNING, JSON, of="completed"),
    "resume a live one": Case("PATCH /invocations/{id}/resume", 200, of="live"),
    "resume a scheduled one": Case(
        "PATCH /invocations/{id}/resume",
        425,
        refusal("The invocation '{id}' is either inboxed or scheduled, cannot be resumed."),
        JSON,
        of="scheduled",
    ),
    "resume a completed one": Case(
        "PATCH /invocations/{id}/resume",
        409,
        refusal("The invocation '{id}' is completed, cannot be resumed."),
        JSON,
        of="completed",
    ),
    "purge a completed one": Case("PATCH /invocations/{id}/purge", 200, of="completed"),
    "purge the journal of a completed one": Case("PATCH /invocations/{id}/purge-journal", 200, of="completed"),
    "purge a live one": Case("PATCH /invocations/{id}/purge", 409, NOT_COMPLETED, JSON, of="live"),
    "purge a scheduled one": Case("PATCH /invocations/{id}/purge", 409, NOT_COMPLETED, JSON, of="scheduled"),
    "purge the journal of a live one": Case(
        "PATCH /invocations/{id}/purge-journal", 409, NOT_COMPLETED, JSON, of="live"
    ),
    "no such operation": Case("PATCH /invocations/{id}/nope", 404, of="live"),
    "operation by POST": Case("POST /invocations/{id}/cancel", 405, of="live"),
    "delete a live one": Case("DELETE /invocations/{id}", 202, of="live"),
    "delete by mode": Case("DELETE /invocations/{id}?mode=Kill", 202, of="live"),
    "delete an unknown one": Case("DELETE /invocations/{id}?mode=purge", 202, of="unknown"),
    "delete a completed one": Case("DELETE /invocations/{id}?mode=kill", 202, of="completed"),
    "delete a malformed one": Case(
        "DELETE /invocations/{id}",
        400,
        refusal("The request field 'invocation_id' is invalid. Reason: unrecognized codec version"),
        JSON,
        of="malformed",
    ),
    "delete by an unknown mode": Case(
        "DELETE /invocations/{id}?mode=zz",
        400,
        "Failed to deserialize query string: mode: unknown variant `zz`, expected one of `Cancel`, `cancel`, `Kill`, "
        "`kill`, `Purge`, `purge`",
        TEXT,
        of="unknown",
    ),
}
for operation in OPERATIONS:
    CASES[f"{operation} an unknown one"] = Case(
        f"PATCH /invocations/{{id}}/{operation}",
        404,
        refusal("The requested invocation '{id}' does not exist"),
        JSON,
        of="unknown",
    )
    CASES[f"{operation} a malformed one"] = Case(
        f"PATCH /invocations/{{id}}/{operation}",
        400,
        refusal("The request field 'invocation_id' is invalid. Reason: unrecognized codec version"),
        JSON,
        of="malformed",
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_holdfast_answers(holdfast_system: System, case: Case):
    await check(holdfast_system, case)


@pytest.mark.restate_server
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_restate_answers_the_same(restate_system: System, case: Case):
    await check(restate_system, case)


async def check(system: System, case: Case) -> None:
    invocation_id = await system.invocation(case.of) if case.of else ""
    method, path = case.request.replace("{id}", invocation_id).split(" ")
    content: dict[str, Any] = {"content": case.body} if isinstance(case.body, bytes) else {"json": case.body}
    answer = await system.admin.request(
        method, path, headers=case.headers, **(content if case.body is not None else {})
    )
    assert answer.status_code == case.status, answer.text
    assert answer.headers.get("content-type") == case.content_type
    if isinstance(case.answer, dict):
        assert answer.json() == {
            name: value.replace("{id}", invocation_id) if isinstance(value, str) else value
            for name, value in case.answer.items()
        }
    elif case.answer is not ...:
        assert answer.text == case.answer


# --- the documents


async def test_version(holdfast_system: System):
    answer = (await holdfast_system.admin.get("/version")).json()
    assert answer == {
        "version": "0.1.0",
        "min_admin_api_version": 2,
        "max_admin_api_version": 4,
        "ingress_endpoint": None,
        "features": {"holdfast": True},
    }


@pytest.mark.restate_server
async def test_restates_version_has_the_same_fields(restate_system: System, holdfast_system: System):
    theirs = (await restate_system.admin.get("/version")).json()
    ours = (await holdfast_system.admin.get("/version")).json()
    assert list(ours) == list(theirs)
    assert all(isinstance(value, bool) for value in theirs["features"].values())


async def test_the_application_of_the_process_is_a_deployment(engine: Engine, holdfast_system: System):
    [short] = (await holdfast_system.admin.get("/deployments")).json()["deployments"]
    [deployment] = engine.deployments
    assert short.pop("created_at").endswith("Z")
    assert short.pop("services") == [{"name": name, "revision": 1} for name in ("Greeter", "Counter", "Signup")]
    assert short == {
        "id": deployment.id,
        "uri": "inprocess://app",
        "protocol_type": "BidiStream",
        "http_version": "HTTP/2.0",
        "min_protocol_version": 5,
        "max_protocol_version": 7,
        "sdk_version": "restate-sdk-python/1.3.0",
    }
    full = (await holdfast_system.admin.get(f"/deployments/{deployment.id}")).json()
    services = (await holdfast_system.admin.get("/services")).json()["services"]
    assert full.pop("services") == services
    assert full == short | {"created_at": full["created_at"]}
    assert {service["deployment_id"] for service in services} == {deployment.id}


CHANGES = {
    "an update": ("PATCH", "", {"uri": "http://127.0.0.1:9080"}, 409),
    "an update of nothing": ("PATCH", "", {}, 200),
    "a removal": ("DELETE", "?force=true", None, 409),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_the_application_of_the_process_stays_where_it_is(engine: Engine, holdfast_system: System, change: str):
    method, query, body, status = CHANGES[change]
    [deployment] = engine.deployments
    answer = await holdfast_system.admin.request(method, f"/deployments/{deployment.id}{query}", json=body)
    assert answer.status_code == status
    if status == 409:
        text = f"deployment '{deployment.id}' is the application 'app' of the engine's own process"
        assert answer.json() == refusal(text)
    assert [one.id for one in engine.deployments] == [deployment.id]


@pytest.mark.restate_server
async def test_restates_deployments_have_the_same_fields(restate_system: System, holdfast_system: System):
    theirs, *_ = (await restate_system.admin.get("/deployments")).json()["deployments"]
    [ours] = (await holdfast_system.admin.get("/deployments")).json()["deployments"]
    assert list(ours) == list(theirs)


async def test_services_one_by_one(holdfast_system: System):
    services = (await holdfast_system.admin.get("/services")).json()["services"]
    for service in services:
        assert (await holdfast_system.admin.get(f"/services/{service['name']}")).json() == service
        handlers = (await holdfast_system.admin.get(f"/v2/services/{service['name']}/handlers")).json()
        assert handlers == {"handlers": service["handlers"]}


async def test_settings_are_in_force_at_once(holdfast_system: System):
    async def configure(**settings: object) -> None:
        assert (await holdfast_system.admin.patch("/services/Greeter", json=settings)).status_code == 200

    async def kept(key: str) -> int:
        answer = await holdfast_system.ingress.post("/Greeter/greet", json="Ada", headers={"idempotency-key": key})
        return (await holdfast_system.admin.get(f"/invocations/{answer.headers['x-restate-id']}")).status_code

    assert await kept("before") == 200
    await configure(idempotency_retention="0s")
    assert await kept("after") == 404
    await configure(idempotency_retention="1h")
    assert await kept("again") == 200
    await configure(public=False)
    answer = await holdfast_system.ingress.post("/Greeter/greet", json="Ada")
    assert (answer.status_code, answer.json()["message"]) == (400, "the invoked service is not public")


async def test_changed_settings_survive_a_restart(tmp_path: Path):
    async def abort_timeout(engine: Engine, change: bool = False) -> str:
        transport = httpx.ASGITransport(app=engine.admin)
        async with httpx.AsyncClient(transport=transport, base_url="http://holdfast") as admin:
            if change:
                await admin.patch("/services/Greeter", json={"abort_timeout": "5s"})
            return (await admin.get("/services/Greeter")).json()["abort_timeout"]

    async with Engine(app, db=tmp_path / "engine.db") as engine:
        assert await abort_timeout(engine, change=True) == "5s"
    async with Engine(app, db=tmp_path / "engine.db") as engine:
        assert await abort_timeout(engine) == "5s"


# --- ours alone


async def test_state_is_read_and_replaced(holdfast_system: System):
    admin = holdfast_system.admin
    assert (await holdfast_system.ingress.post("/Counter/a%2Fb/add", json=7)).json() == 7
    assert (await admin.get("/services/Counter/state/a%2Fb")).json() == {"total": {"utf8": "7"}}
    state = {"total": [52, 50], "raw": [255], "text": "é"}
    body = {"object_key": "a/b", "new_state": state}
    assert (await admin.post("/services/Counter/state", json=body)).status_code == 202
    assert (await admin.get("/services/Counter/state/a%2Fb")).json() == {
        "total": {"utf8": "42"},
        "raw": {"base64": "/w=="},
        "text": {"utf8": "é"},
    }
    assert (await holdfast_system.ingress.post("/Counter/a%2Fb/peek")).json() == 42
    assert (await admin.get("/services/Counter/state/nobody")).json() == {}
    assert (await admin.get("/services/Nope/state/a")).status_code == 404


async def test_one_invocation(holdfast_system: System):
    invocation_id = await holdfast_system.invocation("completed")
    info = (await holdfast_system.admin.get(f"/invocations/{invocation_id}")).json()
    known = {name: info[name] for name in ("id", "target", "status", "completion_result", "invoked_by", "input")}
    assert known == {
        "id": invocation_id,
        "target": "Greeter/greet",
        "status": "completed",
        "completion_result": "success",
        "invoked_by": "ingress",
        "input": {"utf8": '"Ada"'},
    }
    journal = (await holdfast_system.admin.get(f"/invocations/{invocation_id}/journal")).json()
    assert [entry["entry_type"] for entry in journal["entries"]] == ["Command: Input", "Command: Output"]
    assert journal["events"] == []


async def test_a_page_tells_how_to_go_on(holdfast_system: System):
    ids = [await holdfast_system.invocation("completed") for _ in range(3)]

    async def page(query: str) -> tuple[list[str], str | None]:
        answer = (await holdfast_system.admin.get(f"/v4/invocations?{query}")).json()
        return [info["id"] for info in answer["invocations"]], answer["next_before"]

    assert await page("limit=2") == ([ids[2], ids[1]], ids[1])
    assert await page(f"limit=2&before={ids[1]}") == ([ids[0]], None)
    assert await page("oldest_first=true") == (ids, None)
    assert await page("status=running&status=completed&service=Greeter&handler=greet") == (ids[::-1], None)
    assert await page("status=running") == ([], None)
    assert await page("key=nobody") == ([], None)


QUERIES = {
    "limit=0": "The query parameter 'limit' is invalid. Reason: '0' is not a number from 1 to 1000",
    "limit=1001": "The query parameter 'limit' is invalid. Reason: '1001' is not a number from 1 to 1000",
    "limit=ten": "The query parameter 'limit' is invalid. Reason: 'ten' is not a number from 1 to 1000",
    "oldest_first=yes": "The query parameter 'oldest_first' is invalid. Reason: 'yes' is neither true nor false",
    "status=done": "unknown status 'done'; known: scheduled, pending, ready, running, backing-off, suspended, paused, "
    "completed",
}


@pytest.mark.parametrize("query", QUERIES)
async def test_a_malformed_query_is_refused(holdfast_system: System, query: str):
    answer = await holdfast_system.admin.get(f"/invocations?{query}")
    assert (answer.status_code, answer.json()) == (400, refusal(QUERIES[query]))


@pytest.mark.parametrize("path", ["", "/journal"])
async def test_no_such_invocation(holdfast_system: System, path: str):
    answer = await holdfast_system.admin.get(f"/invocations/{UNKNOWN}{path}")
    assert answer.status_code == 404
    assert answer.json() == refusal(f"The requested invocation '{UNKNOWN}' does not exist")
    assert answer.headers["x-holdfast-error-code"] == "HF0101"
    answer = await holdfast_system.admin.get(f"/invocations/inv_bad{path}")
    assert (answer.status_code, answer.headers["x-holdfast-error-code"]) == (400, "HF0105")


@pytest.mark.parametrize("path", ["/health", "/invocations", f"/invocations/{UNKNOWN}"])
async def test_a_stopped_engine_is_unavailable(engine: Engine, holdfast_system: System, path: str):
    await engine.stop()
    answer = await holdfast_system.admin.get(path)
    assert (answer.status_code, answer.headers["x-holdfast-error-code"]) == (503, "HF0303")


async def test_it_can_be_mounted(engine: Engine):
    site = Starlette(routes=[Mount("/engine", app=engine.admin)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=site), base_url="http://site") as http:
        assert (await http.get("/engine/v4/services/Counter/handlers/peek")).json() == PEEK
        assert (await http.patch(f"/engine/invocations/{UNKNOWN}/kill")).status_code == 404
        assert (await http.get("/engine/services/Counter/state/a%2Fb")).json() == {}
        assert (await http.get("/engine/services/a%2Fb")).json() == refusal(
            "The requested service 'a/b' does not exist"
        )
