"""Accepting: submissions that come together are written together, before what nobody waits for, and each for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apps.recon.generator import naabu_scan
from apps.recon.model import IngestRequest, JobState
from apps.recon.store import JobFilter, Step, Store
from apps.recon.surreal import StoreError, Surreal

AT_S = 1_790_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(tmp_path / "surreal") as store:
        yield store


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many submissions were in each transaction."""
    sizes: list[int] = []
    write = Surreal.write_urgently

    async def counted(self: Surreal, sql: str, **params: Any) -> list[Any]:
        sizes.append(len(params["rows"]))
        return await write(self, sql, **params)

    monkeypatch.setattr(Surreal, "write_urgently", counted)
    return sizes


def wanted(number: int, key: str = "key") -> IngestRequest:
    return IngestRequest(f"job-{number:03}", key, AT_S)


async def test_those_that_come_at_once_share_transactions(store: Store, transactions: list[int]):
    jobs = await asyncio.gather(*(store.create_job(wanted(n), f"scan {n}") for n in range(150)))
    assert [job.id for job in jobs] == [f"job-{n:03}" for n in range(150)]
    assert {job.state for job in jobs} == {JobState.PENDING}
    assert sum(transactions) == 150
    assert len(transactions) <= 3
    assert [await store.scan(f"job-{n:03}") for n in (0, 77, 149)] == ["scan 0", "scan 77", "scan 149"]


async def test_large_ones_do_not_make_a_transaction_without_bound(
    store: Store, transactions: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("apps.recon.submissions.SHARED_BYTES_MAX", 50)
    scans = [naabu_scan(f"large-{n}", 3) for n in range(4)]
    await asyncio.gather(*(store.create_job(wanted(n), scan) for n, scan in enumerate(scans)))
    assert transactions == [1, 1, 1, 1]


async def test_the_same_one_twice_at_once_is_one_job(store: Store):
    first, second = await asyncio.gather(*(store.create_job(wanted(1), "a scan") for _ in range(2)))
    assert first == second
    assert await store.row_counts("job", "submission") == {"job": 1, "submission": 1}


async def test_what_is_wrong_with_one_is_not_the_others_error(store: Store):
    keys = ["key", "", "key"]  # a job needs a key
    results = await asyncio.gather(
        *(store.create_job(wanted(n, key), "a scan") for n, key in enumerate(keys)), return_exceptions=True
    )
    assert isinstance(results[1], StoreError)
    assert [await store.job(f"job-{n:03}") for n in range(3)] == [results[0], None, results[2]]


async def test_one_who_goes_away_leaves_the_others_their_answer(store: Store):
    going, staying = (asyncio.create_task(store.create_job(wanted(n), "a scan")) for n in range(2))
    await asyncio.sleep(0)
    going.cancel()
    assert (await staying).id == "job-001"
    assert (await store.create_job(wanted(0), "a scan")).state is JobState.PENDING


async def test_a_submission_goes_before_the_steps_that_wait(store: Store):
    await store.create_job(wanted(0), "a scan")
    ended: list[str] = []

    async def step(number: int) -> None:
        await store.write_step(Step.begin("job-000", f"step-{number}"), "RETURN 1")
        ended.append("step")

    async def submission() -> None:
        await store.create_job(wanted(1), "a scan")
        ended.append("submission")

    steps = [asyncio.create_task(step(number)) for number in range(20)]
    await asyncio.sleep(0)
    await submission()
    await asyncio.gather(*steps)
    assert ended.index("submission") <= 3, "behind the one that was under way and the one at the door"


@pytest.mark.parametrize("scan", ["", "x", naabu_scan("large", 800), "h\u00f6st \U0001f600 " * 30_000])
async def test_a_scan_comes_back_as_it_was(store: Store, scan: str):
    await store.create_job(wanted(1), scan)
    assert await store.scan("job-001") == scan


async def test_a_scan_of_a_version_that_did_not_pack_is_read(store: Store):
    await store.write("CREATE submission:old SET scan = 'as it was', observed_at_s = 1")
    assert await store.scan("old") == "as it was"
    assert await store.scan("nothing") is None


# -- times -------------------------------------------------------------------------------------------------------

SPELLINGS = ("29.9Z", "30Z", "30.000000001Z", "30.123Z", "30.123456Z", "30.123456789Z", "30.5Z", "31Z")
"""In the order of time. SurrealDB 2.3 has them as text in an index: "30.5Z" before "30Z"."""


@pytest.mark.parametrize("boundary", ["29.9", "30", "30.123", "30.123456", "30.5", "31"])
async def test_jobs_are_compared_by_time_and_not_by_its_spelling(store: Store, boundary: str):
    for number, seconds in enumerate(SPELLINGS):
        await store.write(
            """CREATE type::thing('job', $id) SET state = 'pending', scanner_key = 'k',
                created_at = <datetime>$at, created_ns = time::nano(<datetime>$at);
            CREATE type::thing('submission', $id) SET observed_at_s = 1""",
            id=f"job-{number}",
            at=f"2026-01-31T12:00:{seconds}",
        )
    moment = datetime.fromisoformat(f"2026-01-31T12:00:{boundary.ljust(9, '0') if '.' in boundary else boundary}+00:00")
    after = [f"job-{n}" for n, each in enumerate(SPELLINGS) if float(each[:-1]) >= float(boundary)]
    before = [f"job-{n}" for n in range(len(SPELLINGS)) if f"job-{n}" not in after]
    for which, expected in ((JobFilter(created_after=moment), after), (JobFilter(created_before=moment), before)):
        page = await store.jobs(which, descending=False)
        assert [job.id for job in page.jobs] == expected
        assert page.total == len(expected)
    assert [each.job_id for each in await store.unstarted(before=moment, limit=100)] == before


async def test_changes_since_a_time_are_all_of_them(store: Store):
    for number in range(30):
        await store.create_job(wanted(number), "a scan")
    (rows,) = await store.read("SELECT record::id(id) AS id, updated_ns FROM job ORDER BY updated_ns")
    for since_ns in {row["updated_ns"] // 1_000_000_000 * 1_000_000_000 for row in rows} | {
        row["updated_ns"] // 1_000 * 1_000 for row in rows
    }:
        since = datetime.fromtimestamp(since_ns // 1_000_000_000, UTC).replace(
            microsecond=since_ns // 1_000 % 1_000_000
        )
        changed = [job.id for job in await store.changed_jobs(since)]
        assert changed == [row["id"] for row in rows if row["updated_ns"] > since_ns]
