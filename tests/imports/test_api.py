"""The HTTP API of imports, as a client meets it, on both engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import httpx
import jsonschema
import openapi_spec_validator
import pytest

from apps.imports.access import Guard
from apps.imports.engine import EngineClient, RemoteEngine
from apps.imports.model import job_id_of
from tests.imports.extracts import full_extract
from tests.imports.running import EITHER_ENGINE, PATIENCE_S, Running, events, on_engine
from tests.support.restate_server import RunningRestate

MANY = 150
"""Enterprises of an import that takes long enough to be met in the middle: with one row per batch."""


@pytest.fixture(scope="module", params=EITHER_ENGINE)
def imports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with on_engine(request.param, tmp_path_factory.mktemp("imports"), IMPORTS_BATCH_ROWS="1") as running:
        yield running


def test_one_request_imports_a_whole_extract(imports: Running) -> None:
    number = imports.next_number()
    extract = full_extract(imports.folder, number, enterprises=3)
    accepted = imports.start(f"{imports.gate.url}/{extract.name}", "whole")
    assert accepted | {"invocation_id": "inv_1"} == {
        "workflow_id": "whole",
        "status": "started",
        "job_id": job_id_of("whole"),
        "invocation_id": "inv_1",
        "progress_url": "/api/imports/whole/progress",
        "page_url": "/imports/whole",
    }
    assert accepted["invocation_id"].startswith("inv_1")
    done = imports.until("whole", "completed", "failed")
    assert done["error"] is None
    assert (done["extract_number"], done["extract_type"], done["snapshot_date"]) == (number, "full", "2025-10-11")
    assert done["completed"] == done["total"] > 0
    assert done["names_resolved"] == 3
    assert done["job_id"] == accepted["job_id"]


def test_a_start_may_be_written_in_snake_case_and_take_its_id_from_the_file(imports: Running) -> None:
    number = imports.next_number()
    source = str(full_extract(imports.folder, number))
    answer = imports.http.post("/api/imports/start", json={"source": source})
    assert (answer.status_code, answer.json()["workflow_id"]) == (202, f"import-{number}")
    assert imports.until(f"import-{number}", "completed", "failed")["error"] is None


def test_a_known_id_is_refused_with_its_state(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number())
    body = {"fileUrl": imports.gate.hold(extract), "workflowId": "twice"}
    assert imports.http.post("/api/imports/start", json=body).status_code == 202
    while_running = imports.http.post("/api/imports/start", json=body)
    assert (while_running.status_code, while_running.json()["error"]) == (409, "already_started")
    assert while_running.json()["status"] in ("pending", "preparing")
    imports.gate.release(extract)
    assert imports.until("twice", "completed", "failed")["error"] is None
    afterwards = imports.http.post("/api/imports/start", json=body)
    assert (afterwards.status_code, afterwards.json()["status"]) == (409, "completed")
    assert "'twice'" in afterwards.json()["message"]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not a start request"),
        (b"[]", "not a start request"),
        (b'{"fileUrl": 5, "workflowId": "bad"}', "fileUrl"),
        (b'{"workflowId": "bad"}', "fileUrl is missing"),
        (b'{"fileUrl": "  ", "workflowId": "bad"}', "fileUrl is missing"),
        (b'{"fileUrl": "http://[oops/x.zip", "workflowId": "bad"}', "fileUrl is no address"),
        (b'{"fileUrl": "https://example.org/x.zip"}', "workflowId is missing"),
        (b'{"fileUrl": "x.zip", "workflowId": "a/b"}', "must be 1 to 128 letters"),
        (b'{"fileUrl": "x.zip", "workflowId": "..", "sha256": null}', "must be 1 to 128 letters"),
        (b'{"fileUrl": "x.zip", "source": "y.zip", "workflowId": "bad"}', "fileUrl and source"),
        (b'{"fileUrl": "x.zip", "workflowId": "bad", "import_id": "other"}', "workflowId and import_id"),
        (b'{"fileUrl": "x.zip", "workflowId": "bad", "sha256": "12"}', "64 hexadecimal digits"),
        (b'{"fileUrl": "x.zip", "workflowId": "bad", "size_bytes": -1}', "size_bytes"),
        (b'{"fileUrl": "x.zip", "workflowId": "bad", "worker_type": "robot"}', "worker_type"),
        (b'{"fileUrl": "' + b"x" * 20_000 + b'"}', "larger than"),
    ],
)
def test_bad_input_is_refused_with_a_reason_and_starts_nothing(imports: Running, body: bytes, complaint: str) -> None:
    answer = imports.http.post("/api/imports/start", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert complaint in answer.json()["message"]
    assert imports.http.get("/api/imports/bad/progress").status_code == 404


@pytest.mark.parametrize("import_id", ["never", "a.b", "x" * 200, "%2e%2e", "%00"])
def test_an_unknown_id_is_not_found(imports: Running, import_id: str) -> None:
    asked = [
        imports.http.get(f"/api/imports/{import_id}/progress"),
        imports.http.get(f"/api/imports/{import_id}/events"),
        imports.http.post(f"/api/imports/{import_id}/cancel"),
    ]
    assert [answer.status_code for answer in asked] == [404, 404, 404]
    assert [answer.json()["error"] for answer in asked] == ["not_found"] * 3


def test_a_broken_file_fails_the_import_and_says_why(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number(), broken_file="denomination")
    imports.start(extract, "broken")
    failed = imports.until("broken", "completed", "failed")
    assert failed["status"] == "failed"
    assert "denomination.csv" in failed["error"]
    assert imports.http.post("/api/imports/broken/cancel").json()["status"] == "failed"


def test_cancel_while_the_file_is_fetched(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number())
    imports.start(imports.gate.hold(extract), "cancelled-early")
    answer = imports.http.post("/api/imports/cancelled-early/cancel")
    assert (answer.status_code, answer.json()) == (202, {"workflow_id": "cancelled-early", "status": "cancelling"})
    imports.gate.release(extract)
    assert imports.until("cancelled-early", "completed", "failed", "cancelled")["status"] == "cancelled"
    again = imports.http.post("/api/imports/cancelled-early/cancel")
    assert (again.status_code, again.json()["error"], again.json()["status"]) == (409, "already_over", "cancelled")


def test_progress_never_goes_back_and_is_told_as_events(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number(), enterprises=20)
    imports.start(extract, "followed")
    with imports.http.stream("GET", "/api/imports/followed/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = list(events(answer))
    assert {kind for kind, _ in told} == {"progress"}
    assert told[-1][1]["status"] == "completed"
    counts = [progress["completed"] for _, progress in told]
    assert counts == sorted(counts)
    assert told[-1][1] == imports.progress("followed")


def test_history_is_newest_first_and_comes_in_pages(imports: Running) -> None:
    for index in range(3):
        imports.start(full_extract(imports.folder, imports.next_number()), f"listed-{index}")
        imports.until(f"listed-{index}", "completed")
    first = imports.http.get("/api/imports", params={"limit": 2}).json()
    assert [entry["import_id"] for entry in first["imports"]] == ["listed-2", "listed-1"]
    found = list(first["imports"])
    cursor = first["next_cursor"]
    while cursor is not None:
        page = imports.http.get("/api/imports", params={"limit": 2, "cursor": cursor}).json()
        found += page["imports"]
        cursor = page["next_cursor"]
    ids = [entry["import_id"] for entry in found]
    assert ids == [entry["import_id"] for entry in imports.http.get("/api/imports?limit=500").json()["imports"]]
    assert len(ids) == len(set(ids)) > 3
    begun = [entry["created_at"] for entry in found]
    assert begun == sorted(begun, reverse=True)


def test_keys_in_an_address_are_not_shown(imports: Running) -> None:
    extract = full_extract(imports.folder, imports.next_number())
    address = f"{imports.gate.url}/{extract.name}"
    imports.start(f"{address.replace('//', '//user:s3cret@')}?signature=s3cret", "signed-address")
    assert imports.until("signed-address", "completed", "failed")["error"] is None
    [entry] = [each for each in imports.http.get("/api/imports").json()["imports"] if each["source"] == address]
    assert entry["import_id"] == "signed-address"
    for path in ("/api/imports", "/api/imports/signed-address", "/imports/signed-address"):
        assert "s3cret" not in imports.http.get(path).text


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "limit=-1", "cursor=never"])
def test_a_page_that_cannot_be_is_refused(imports: Running, query: str) -> None:
    answer = imports.http.get(f"/api/imports?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["message"]


def test_health_tells_of_store_and_engine(imports: Running) -> None:
    assert imports.http.get("/health").json() == {"status": "ok", "engine": "up"}


def test_the_document_is_openapi_and_true(imports: Running) -> None:
    document = imports.http.get("/openapi.json").json()
    openapi_spec_validator.validate(document)
    imports.start(full_extract(imports.folder, imports.next_number()), "described")
    imports.until("described", "completed")
    told = {
        ("/api/imports", "get"): imports.http.get("/api/imports"),
        ("/api/imports/{import_id}/progress", "get"): imports.http.get("/api/imports/described/progress"),
        ("/api/imports/{import_id}/cancel", "post"): imports.http.post("/api/imports/described/cancel"),
        ("/api/imports/start", "post"): imports.http.post("/api/imports/start", json={}),
        ("/health", "get"): imports.http.get("/health"),
    }
    for (path, method), answer in told.items():
        described = document["paths"][path][method]["responses"][str(answer.status_code)]
        schema = described["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), schema | {"components": document["components"]})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"host": "evil.example"}, 421),
    ],
)
def test_pages_of_others_can_do_nothing(imports: Running, headers: dict[str, str], status: int) -> None:
    for path in ("/api/imports/start", "/api/imports/x/cancel", "/imports/x/cancel"):
        assert imports.http.post(path, headers=headers).status_code == status


def test_its_own_pages_may(imports: Running) -> None:
    headers = {"origin": imports.url, "sec-fetch-site": "same-origin"}
    assert imports.http.post("/api/imports/never/cancel", headers=headers).status_code == 404


async def test_a_token_is_asked_for_as_bearer_or_basic_password() -> None:
    from starlette.responses import PlainTextResponse

    transport = httpx.ASGITransport(Guard(PlainTextResponse("inside"), token="s3cret", hosts=["imports.example"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://imports.example:3002") as client:
        refused = await client.get("/")
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        for wrong in ("Bearer other", "Basic !!!", "Basic eDpvdGhlcg==", "s3cret", "Bearer"):
            assert (await client.get("/", headers={"authorization": wrong})).status_code == 401
        assert (await client.get("/", headers={"authorization": "Bearer s3cret"})).text == "inside"
        assert (await client.get("/", auth=("anybody", "s3cret"))).text == "inside"
        assert (await client.get("/health")).text == "inside"


@pytest.mark.parametrize("engine", EITHER_ENGINE)
def test_cancel_stops_the_engine_and_leaves_what_was_there(engine: str, tmp_path: Path) -> None:
    with on_engine(engine, tmp_path, IMPORTS_BATCH_ROWS="1") as imports:
        imports.start(full_extract(tmp_path, 140, enterprises=5), "before")
        imports.until("before", "completed")
        imports.start(full_extract(tmp_path, 141, enterprises=MANY), "stopped")
        met = imports.until("stopped", "processing", completed=3)
        assert met["completed"] < met["total"]
        assert imports.http.post("/api/imports/stopped/cancel").status_code == 202
        cancelled = imports.until("stopped", "cancelled", "completed", "failed")
        assert cancelled["status"] == "cancelled"
        assert cancelled["completed"] < cancelled["total"]
        assert list((tmp_path / "data" / "files" / "batches").iterdir()) == []
        if imports.server is not None:
            question = "SELECT status, completion_result FROM sys_invocation WHERE target_service_key = 'stopped'"
            query = {"query": f"{question} AND target_handler_name = 'run'"}
            headers = {"accept": "application/json"}
            # It says that it is cancelled a moment before it ends.
            deadline = time.monotonic() + PATIENCE_S
            told: list[dict[str, str | None]] = []
            while [each["status"] for each in told] != ["completed"]:
                assert time.monotonic() < deadline, told
                answer = httpx.post(f"{imports.server.admin_url}/query", json=query, headers=headers, timeout=60)
                told = answer.json()["rows"]
            assert [each["completion_result"] for each in told] == ["failure"]
        imports.start(full_extract(tmp_path, 141, enterprises=6), "again")
        assert imports.until("again", "completed", "failed")["error"] is None
    with duckdb.connect(str(tmp_path / "data" / "kbo.duckdb"), read_only=True) as store:
        assert store.execute("SELECT count(*) FROM enterprises_current").fetchone() == (6,)
        rows = store.execute("SELECT import_id, status FROM import_jobs ORDER BY created_at").fetchall()
        assert rows == [("before", "completed"), ("stopped", "cancelled"), ("again", "completed")]


async def invocation_id_of(import_id: str, server: RunningRestate) -> str:
    """As cancel finds it before the handler has run for the first time."""
    async with EngineClient.remote(RemoteEngine(server.ingress_url, server.admin_url)) as client:
        assert await client.state(import_id) == "running"
        return await client.invocation_id(import_id)


@pytest.mark.restate_server
def test_an_import_that_was_started_at_the_ingress_is_shown_and_cancelled_like_any_other(tmp_path: Path) -> None:
    with on_engine("restate", tmp_path) as imports:
        assert imports.server is not None
        extract = full_extract(tmp_path, 150)
        ingress = f"{imports.server.ingress_url}/KboImport/by-hand/run/send"
        first, second = (httpx.post(ingress, json=imports.gate.hold(extract)).json() for _ in range(2))
        assert (first["status"], second["status"]) == ("Accepted", "PreviouslyAccepted")
        assert first["invocationId"] == second["invocationId"] == imports.progress("by-hand")["invocation_id"]
        assert asyncio.run(invocation_id_of("by-hand", imports.server)) == first["invocationId"]
        assert imports.http.post("/api/imports/by-hand/cancel").status_code == 202
        imports.gate.release(extract)
        assert imports.until("by-hand", "cancelled", "completed", "failed")["status"] == "cancelled"
        # The API would not have taken this one.
        httpx.post(f"{imports.server.ingress_url}/KboImport/no-address/run/send", json="http://[oops/x?key=s3cret")
        assert "no address" in imports.until("no-address", "completed", "failed")["error"]
        assert imports.http.get("/api/imports/no-address").json()["job"]["source"] == "http://…"
