"""From the signed body to the graph: API, workflow and database together, on holdfast and on a Restate server."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import restate

from apps.recon.batches import Batch
from apps.recon.demo_tally import count
from apps.recon.envelope import BODY_BYTES_MAX
from apps.recon.generator import naabu_scan
from apps.recon.model import IngestRequest, IngestResult, JobState, PersistedCounts
from apps.recon.room import FULL, SHARE, Room, available_bytes, resident_bytes
from apps.recon.settings import Settings
from apps.recon.store import Step, Store, StoreError
from apps.recon.workflow import SERVICE, start_ingest
from tests.recon.conftest import GENEROUS, Recon, StartRecon, embedded

DATA = Path(__file__).resolve().parents[2] / "apps" / "recon" / "data"
FILES = sorted(path for path in DATA.glob("*/*") if path.suffix in (".json", ".jsonl", ".xml"))
ONE_PORT = '{"ip":"192.0.2.1","port":80}\n'


async def test_every_real_file_ends_as_an_independent_count_says(recon: Recon):
    expected = {await recon.submit(path.read_bytes()): (path.name, count(path.read_text())) for path in FILES}
    hosts: set[str] = set()
    ports: set[tuple[str, str, int]] = set()
    for job_id, (name, tally) in expected.items():
        job = await recon.final(job_id)
        assert job["state"] == ("completed" if tally.hosts else "failed"), name
        assert (job["host_count"], job["port_count"]) == (len(tally.hosts), len(tally.ports)), name
        hosts |= tally.hosts
        ports |= tally.ports
    assert await recon.store.hosts() == hosts
    assert await recon.store.ports() == ports
    assert await recon.store.edges() == ports


async def test_the_answer_and_the_job(recon: Recon):
    before = datetime.now(UTC)
    answer = await recon.post(ONE_PORT)
    assert answer.status_code == 202
    body = answer.json()
    assert body.keys() == {"job_id", "status", "message", "timestamp"}
    assert body["status"] == "accepted"
    assert before <= datetime.fromisoformat(body["timestamp"]) <= datetime.now(UTC)
    assert UUID(body["job_id"]).version == 7
    job = await recon.final(body["job_id"])
    assert job["state"] == "completed"
    assert job["scanner_key"] == base64.b64encode(recon.key.verify_key.encode()).decode()
    assert job["error_message"] is None
    assert datetime.fromisoformat(job["completed_at"]) >= datetime.fromisoformat(job["created_at"])


async def test_the_workflow_answers_with_the_counts(recon: Recon):
    job_id = await recon.submit((DATA / "nmap" / "libnmap_2_hosts.xml").read_bytes())
    await recon.final(job_id)
    request = IngestRequest(job_id, "another key", 1)
    # The job id is the workflow's key: there is no second run.
    with pytest.raises(restate.HttpError) as caught:
        await recon.client.generic_call(
            SERVICE, "run", msgspec.json.encode(request), key=job_id, headers={"Content-Type": "application/json"}
        )
    assert caught.value.status_code == 409
    if recon.engine is not None:
        invocation_id = recon.engine.workflow_invocation_id(SERVICE, job_id)
        await recon.engine.attach(invocation_id)  # the job is final a moment before the run has ended
        output = await recon.engine.output(invocation_id)
        assert output.value is not None
        result = msgspec.json.decode(output.value, type=IngestResult)
        scanner_key = base64.b64encode(bytes(recon.key.verify_key)).decode()
        assert result == IngestResult(job_id, JobState.COMPLETED, "nmap", 2, 8, 8, 0, scanner_key)


async def test_the_same_envelope_again_is_the_same_job_and_runs_once(recon: Recon):
    body = recon.seal(naabu_scan("again", 20))
    answers = await asyncio.gather(*(recon.http.post("/v1/mesh/ingest", content=body) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    [job_id] = {answer.json()["job_id"] for answer in answers}
    await recon.final(job_id)
    late = await recon.http.post("/v1/mesh/ingest", content=body)
    assert (late.status_code, late.json()["job_id"]) == (202, job_id)
    assert (await recon.http.get("/v1/jobs")).json()["total"] == 1
    steps = [(line.step, line.attempt) for line in await recon.store.ledger()]
    assert sorted(steps) == [("mark-completed", 1), ("mark-processing", 1), ("parse", 1), ("persist-1", 1)]


async def test_a_scan_without_a_usable_line_fails_the_job_durably(recon: Recon):
    job_id = await recon.submit("hello\n{}\n")
    job = await recon.final(job_id)
    assert (job["state"], job["error_message"]) == ("failed", "no valid hosts (2 entries could not be used)")
    assert job["completed_at"] is not None
    assert [line.step for line in await recon.store.ledger()] == ["mark-failed", "mark-processing"]


async def test_a_scan_of_five_thousand_hosts(recon: Recon):
    scan = naabu_scan("large", 5000, mean_ports=1.5)
    job = await recon.final(await recon.submit(scan))
    tally = count(scan)
    assert (job["host_count"], job["port_count"]) == (5000, len(tally.ports))
    assert await recon.store.edges() == tally.ports
    persisted = [line.step for line in await recon.store.ledger() if line.step.startswith("persist-")]
    assert len(persisted) == len(set(persisted)) >= 25


async def test_scans_of_one_host_at_the_same_time_merge(recon: Recon):
    scans = [f'{{"ip":"192.0.2.1","port":{port}}}\n{{"ip":"192.0.2.1","port":22}}\n' for port in range(1000, 1020)]
    for job_id in [await recon.submit(scan) for scan in scans]:
        assert (await recon.final(job_id))["state"] == "completed"
    assert await recon.store.row_counts() == {"host": 1, "port": 21, "HAS": 21, "scan_batch": 0}


# -- what is refused ---------------------------------------------------------------------------------------------


async def untouched(recon: Recon) -> bool:
    """No job and no invocation."""
    invocations = recon.engine.list_invocations() if recon.engine is not None else []
    return (await recon.http.get("/v1/jobs")).json()["total"] == 0 and not invocations


async def test_every_rejected_signature_looks_the_same_and_leaves_nothing(recon: Recon):
    good = json.loads(recon.seal(ONE_PORT))
    bad = [
        good | {"signature": base64.b64encode(bytes(64)).decode()},
        good | {"data": [good["data"]]},
        good | {"timestamp": good["timestamp"] - 1000},
        good | {"public_key": "x"},
        {name: value for name, value in good.items() if name != "signature"},
        {},
    ]
    answers = [await recon.http.post("/v1/mesh/ingest", content=json.dumps(body).encode()) for body in bad]
    assert {answer.status_code for answer in answers} == {401}
    shown = [{name: value for name, value in answer.json().items() if name != "timestamp"} for answer in answers]
    assert shown == [{"error": "invalid_signature", "message": "the envelope is not validly signed"}] * len(bad)
    assert await untouched(recon)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_request"),
        (b"\xff{}", "invalid_json"),
        (b'{"data":NaN}', "invalid_json"),
        (b'{"data":1,"data":2}', "invalid_request"),
        (b"[" * 100_000, "invalid_json"),
    ],
    ids=["empty", "cut off", "an array", "no UTF-8", "not a number", "a member twice", "nested too deeply"],
)
async def test_a_body_that_is_no_envelope(recon: Recon, body: bytes, code: str):
    answer = await recon.http.post("/v1/mesh/ingest", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, code)
    assert answer.json().keys() == {"error", "message", "timestamp"}
    assert await untouched(recon)


async def test_a_body_that_is_too_large(recon: Recon):
    """Refused by its declared length, and when it declares none, after the limit and no later."""
    answer = await recon.http.post("/v1/mesh/ingest", content=b'"' + b"x" * BODY_BYTES_MAX + b'"')
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    read_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read_bytes
        while True:
            read_bytes += 1 << 20
            yield b" " * (1 << 20)

    answer = await recon.http.post("/v1/mesh/ingest", content=endless())
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert read_bytes <= BODY_BYTES_MAX + (2 << 20)
    assert await untouched(recon)


async def test_the_largest_body_is_accepted(recon: Recon):
    filling = BODY_BYTES_MAX - len(recon.seal(ONE_PORT + "x"))
    body = recon.seal(ONE_PORT + "x" * (1 + filling))
    assert len(body) == BODY_BYTES_MAX
    answer = await recon.http.post("/v1/mesh/ingest", content=body)
    assert answer.status_code == 202
    assert (await recon.final(answer.json()["job_id"]))["host_count"] == 1


# -- listing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "limit=-1",
        "limit=",
        "limit=²",
        "offset=-1",
        "offset=x",
        "state=done",
        "order_by=state",
        "order_by=id;",
        "order_desc=yes",
    ],
)
async def test_a_wrong_parameter_is_named(recon: Recon, query: str):
    answer = await recon.http.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_parameter")
    assert answer.json()["message"].startswith(query.partition("=")[0])


@pytest.mark.parametrize("job_id", ["x", "01a1fdac-aeb8-7189-94d6-af49a977d83e", "%27"])
async def test_an_unknown_job(recon: Recon, job_id: str):
    answer = await recon.http.get(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


async def test_pages_say_how_to_go_on(recon: Recon):
    job_ids = [await recon.submit(ONE_PORT * (n + 1)) for n in range(5)]
    for job_id in job_ids:
        await recon.final(job_id)
    page = (await recon.http.get("/v1/jobs?limit=2&order_desc=false&state=completed")).json()
    seen = page["jobs"]
    assert (page["total"], page["limit"], page["offset"], page["has_more"], page["next_offset"]) == (5, 2, 0, True, 2)
    while page["has_more"]:
        page = (await recon.http.get(f"/v1/jobs?limit=2&order_desc=false&offset={page['next_offset']}")).json()
        seen += page["jobs"]
    assert page["next_offset"] is None
    assert [job["id"] for job in seen] == job_ids
    assert (await recon.http.get("/v1/jobs?scanner_key=nobody")).json()["total"] == 0
    assert (await recon.http.get("/health")).json() == {"status": "ok"}


# -- the workflow by itself ----------------------------------------------------------------------------------------


async def call(recon: Recon, key: str, request: IngestRequest) -> restate.HttpError:
    """Run the workflow from outside, past the API, and return how it failed."""
    with pytest.raises(restate.HttpError) as caught:
        await recon.client.generic_call(
            SERVICE, "run", msgspec.json.encode(request), key=key, headers={"Content-Type": "application/json"}
        )
    return caught.value


async def test_a_workflow_without_a_job_row_fails(recon: Recon, tmp_path: Path):
    error = await call(recon, f"{tmp_path.name}-a", IngestRequest(f"{tmp_path.name}-a", "key", 1))
    assert error.status_code == 404
    assert f"there is no job {tmp_path.name}-a" in (error.body or "")
    assert await recon.store.hosts() == set()


async def test_a_misaddressed_request_does_not_fail_somebody_elses_job(recon: Recon, tmp_path: Path):
    await recon.store.create_job(IngestRequest("victim", "key", 1), ONE_PORT)
    error = await call(recon, f"{tmp_path.name}-b", IngestRequest("victim", "key", 1))
    assert error.status_code == 400
    victim = await recon.store.job("victim")
    assert victim is not None
    assert victim.state is JobState.PENDING


async def test_a_call_without_a_request_is_refused_and_not_tried_for_ever(recon: Recon, tmp_path: Path):
    """The SDK hands an empty body on as None."""
    keyed, plain = (SERVICE, "Enrichment", "Approval"), ("AsnEnrichment", "GeoEnrichment", "VulnEnrichment")
    calls = [(name, "run", f"{tmp_path.name}-d") for name in keyed] + [(name, "run", None) for name in plain]
    for name, handler, key in [*calls, ("ReconControl", "start", None), ("ReconControl", "cancel", None)]:
        with pytest.raises(restate.HttpError) as caught:
            async with asyncio.timeout(30):
                await recon.client.generic_call(name, handler, b"", key=key)
        assert caught.value.status_code == 400, name


async def test_a_job_that_is_already_final_is_left_as_it_is(recon: Recon, tmp_path: Path):
    job_id = f"{tmp_path.name}-c"
    await recon.store.create_job(IngestRequest(job_id, "key", 1), ONE_PORT)
    for state in (JobState.PROCESSING, JobState.COMPLETED):
        await recon.store.set_state(Step.begin(job_id, "before"), state, host_count=7)
    error = await call(recon, job_id, IngestRequest(job_id, "key", 1))
    assert error.status_code == 409
    job = await recon.store.job(job_id)
    assert job is not None
    assert (job.state, job.host_count, job.error_message) == (JobState.COMPLETED, 7, None)
    assert await recon.store.hosts() == set()


async def test_a_full_database_takes_nothing_in_and_says_so(start_recon: StartRecon, tmp_path: Path):
    """The embedded one keeps its keys in memory. A scan is refused, and one that was accepted before fails."""
    async with start_recon(dataclasses.replace(GENEROUS, memory_max_mb=1)) as recon:
        answer = await recon.post(ONE_PORT)
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert (await recon.store.jobs()).total == 0
        job_id = f"{tmp_path.name}-full"
        await recon.store.create_job(IngestRequest(job_id, "key", 1), ONE_PORT)
        error = await call(recon, job_id, IngestRequest(job_id, "key", 1))
        assert error.status_code == 507
        job = await recon.store.job(job_id)
        assert job is not None
        assert (job.state, job.error_message) == (JobState.FAILED, FULL)
        assert await recon.store.row_counts("host", "scan_batch", "submission") == {
            "host": 0, "scan_batch": 0, "submission": 0
        }  # fmt: skip


def test_how_much_room_there_is():
    assert Room(Settings()).max_bytes == int(available_bytes() * SHARE)
    assert not Room(Settings()).is_full
    assert 0 < resident_bytes() < available_bytes()
    assert Room(Settings(memory_max_mb=1)).is_full
    elsewhere = Settings(surrealdb_url="ws://127.0.0.1:8000", memory_max_mb=1)
    assert not Room(elsewhere).is_full, "what is in a server is not in this process"


# -- steps, seen from inside the embedded engine -------------------------------------------------------------------


class Gated(Store):
    """Holds the parse step until told to go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = asyncio.Event()

    async def stage(self, step: Step, batches: list[Batch]) -> None:
        await self.gate.wait()
        await super().stage(step, batches)


async def test_the_answer_does_not_wait_and_each_state_can_be_seen(tmp_path: Path):
    store = Gated(tmp_path / "surreal")
    async with embedded(store, ":memory:") as recon:
        job_id = await recon.submit(ONE_PORT)  # answered although the workflow cannot end yet
        assert (await recon.until(job_id, JobState.PROCESSING))["completed_at"] is None
        store.gate.set()
        assert (await recon.final(job_id))["state"] == "completed"


async def test_the_journal_has_the_steps_in_order_and_no_hosts(tmp_path: Path):
    async with embedded(Store(tmp_path / "surreal"), ":memory:") as recon:
        assert recon.engine is not None
        job_id = await recon.submit(naabu_scan("journal", 450))
        await recon.final(job_id)
        invocation_id = recon.engine.workflow_invocation_id(SERVICE, job_id)
        await recon.engine.attach(invocation_id)
        journal = recon.engine.journal(invocation_id)
        names = [entry.name for entry in journal if entry.entry_type == "Command: Run"]
        assert names[:3] == ["mark-processing", "parse", "persist-1"]
        assert names[-1] == "mark-completed"
        assert len(names) > 5
        results = [str(entry.detail) for entry in journal if entry.entry_type == "Notification: Run"]
        assert len(results) == len(names)
        assert all(len(result) < 200 and "198.18" not in result for result in results)


class Failing(Store):
    """Fails its first writes of a batch, as a database does that is away for a moment."""

    def __init__(self, path: Path, failure_count: int) -> None:
        super().__init__(path)
        self.failures_left = failure_count

    async def persist(self, step: Step, batch_index: int, observed_at_s: int) -> PersistedCounts:
        if self.failures_left:
            self.failures_left -= 1
            raise StoreError("the disk hiccups")
        return await super().persist(step, batch_index, observed_at_s)


@pytest.mark.filterwarnings("ignore")
async def test_a_passing_error_is_retried_and_finished_steps_are_not_repeated(tmp_path: Path):
    async with embedded(Failing(tmp_path / "surreal", 2), ":memory:") as recon:
        job_id = await recon.submit(ONE_PORT)
        assert (await recon.final(job_id))["state"] == "completed"
        steps = sorted((line.step, line.attempt) for line in await recon.store.ledger())
        assert steps == [("mark-completed", 1), ("mark-processing", 1), ("parse", 1), ("persist-1", 1)]


class Refusing(Store):
    """A fault that will never pass."""

    async def persist(self, step: Step, batch_index: int, observed_at_s: int) -> PersistedCounts:
        raise restate.TerminalError("this disk is read-only", 507)


async def test_a_lasting_error_fails_the_job_without_help(tmp_path: Path):
    async with embedded(Refusing(tmp_path / "surreal"), ":memory:") as recon:
        job = await recon.final(await recon.submit(ONE_PORT))
        assert (job["state"], job["error_message"]) == ("failed", "this disk is read-only")
        assert (await recon.store.row_counts())["scan_batch"] == 0


async def test_a_cancelled_workflow_fails_its_job(tmp_path: Path):
    store = Gated(tmp_path / "surreal")
    async with embedded(store, ":memory:") as recon:
        assert recon.engine is not None
        job_id = await recon.submit(ONE_PORT)
        await recon.until(job_id, JobState.PROCESSING)
        await recon.engine.cancel(recon.engine.workflow_invocation_id(SERVICE, job_id))
        store.gate.set()
        job = await recon.final(job_id)
        assert job["state"] == "failed"
        assert "cancel" in job["error_message"].lower()


async def test_starting_a_workflow_is_durable_when_it_returns(tmp_path: Path):
    """The engine stops right after the start was acknowledged; the next one on the same file finishes the job."""
    store = Gated(tmp_path / "surreal")
    async with embedded(store, tmp_path / "engine.db") as first:
        request = IngestRequest("job-1", "key", int((datetime.now(UTC) - timedelta(seconds=5)).timestamp()))
        await store.create_job(request, ONE_PORT)
        assert (await start_ingest(first.client, request)).startswith("inv_1")
        assert first.engine is not None
        await first.engine.stop(drain_ms=0)
    async with embedded(Store(tmp_path / "surreal"), tmp_path / "engine.db") as second:
        job: Any = None
        async with asyncio.timeout(30):
            while job is None or job.state is not JobState.COMPLETED:
                job = await second.store.job("job-1")
                await asyncio.sleep(0.01)
