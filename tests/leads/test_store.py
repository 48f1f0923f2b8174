"""The database: the state table that people read, and what is refused."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.leads.database import Database
from apps.leads.model import CostEvent, JobError, JobKind, JobStatus
from apps.leads.store import JobConflict, JobNotFound, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


async def job(store: Store, job_id: str = "j") -> None:
    await store.create_job(
        job_id, tenant_id="t", user_id="u", kind=JobKind.DISCOVERY, engine="embedded", request={"niche": "bakery"}
    )


def columns(path: Path) -> dict[str, tuple[bool, str | None, bool]]:
    """name -> (required, default, primary key) of `workflow_states`, as anybody with the file sees it."""
    with sqlite3.connect(path) as db:
        rows = db.execute("PRAGMA table_info(workflow_states)").fetchall()
    db.close()
    return {row[1]: (bool(row[3]), row[4], bool(row[5])) for row in rows}


def test_the_state_table_has_its_columns_keys_and_defaults(store: Store) -> None:
    table = columns(store.path)
    assert table["job_id"] == (True, None, True)
    for required in ("tenant_id", "workflow_id", "status"):
        assert table[required] == (True, None, False)
    assert table["current_step"] == (True, "0", False)
    assert table["step_results"] == (True, "'{}'", False)
    assert table["error"] == (False, None, False)
    for time in ("created_at", "updated_at"):
        assert "'now'" in (table[time][1] or "")


@pytest.mark.parametrize("missing", ["job_id", "tenant_id", "workflow_id", "status"])
def test_a_row_without_what_is_required_is_refused(store: Store, missing: str) -> None:
    values = {"job_id": "x", "tenant_id": "t", "workflow_id": "discovery", "status": "running"}
    del values[missing]
    db = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        db.execute(
            f"INSERT INTO workflow_states ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            [*values.values()],
        )
    db.close()


async def test_results_of_steps_are_added_and_updated_at_moves(store: Store) -> None:
    await job(store)

    async def row() -> tuple[int, str, str]:
        db = sqlite3.connect(store.path)
        found = db.execute("SELECT current_step, step_results, updated_at FROM workflow_states").fetchone()
        db.close()
        return found

    before = await row()
    assert before[:2] == (0, "{}")
    await store.begin_step("j", 1, "search")
    await store.end_step("j", 1, "search", "", {"count": 3}, None)
    middle = await row()
    await store.begin_step("j", 1, "scan", "osm:node/1.5")
    await store.end_step("j", 1, "scan", "osm:node/1.5", None, None)
    after = await row()
    assert (middle[0], after[0]) == (1, 2)
    assert after[1] == '{"search":{"count":3},"scan osm:node/1.5":null}'
    assert before[2] <= middle[2] <= after[2]
    assert after[2] > before[2]


async def test_a_job_is_kept_once_and_its_id_belongs_to_its_request(store: Store) -> None:
    await job(store)
    await job(store)
    assert len(await store.jobs()) == 1
    with pytest.raises(JobConflict, match="another request"):
        await store.create_job("j", tenant_id="t", user_id="u", kind=JobKind.DISCOVERY, engine="embedded", request={})
    with pytest.raises(JobNotFound, match="there is no job x"):
        await store.job("x")


async def test_a_final_state_stays_and_an_old_run_says_nothing_any_more(store: Store) -> None:
    await job(store)
    error = JobError(code=500, message="broken", is_retryable=True)
    assert await store.set_status("j", 1, JobStatus.FAILED, error=error)
    assert not await store.set_status("j", 1, JobStatus.COMPLETED)
    assert (await store.job("j")).error == error
    assert await store.begin_run("j", 2)
    assert not await store.begin_run("j", 2)  # somebody else resumed it
    assert not await store.set_status("j", 1, JobStatus.COMPLETED)
    assert await store.set_status("j", 2, JobStatus.COMPLETED, result={"n": 1})
    with pytest.raises(JobConflict, match="is completed"):
        await store.begin_run("j", 3)
    found = await store.job("j")
    assert (found.status, found.run, found.result, found.error) == (JobStatus.COMPLETED, 2, {"n": 1}, None)


async def test_steps_that_were_under_way_end_with_their_job(store: Store) -> None:
    await job(store)
    for name in ("search", "mark-failed"):
        await store.begin_step("j", 1, name)
    await store.set_status("j", 1, JobStatus.CANCELLED)
    assert [(step.name, step.status, step.error) for step in await store.steps("j")] == [
        ("search", "failed", "the job ended"),
        ("mark-failed", "running", None),
    ]


async def test_a_cost_is_counted_once(store: Store) -> None:
    await job(store)
    event = CostEvent(step="search", type="map_search", provider="apify", quantity=10, unit="result", cost_usd=0.04)
    other = CostEvent(step="find-owner", type="owner_search", provider="x", quantity=1, unit="request", cost_usd=0.1)
    await store.add_costs("j", [event, other])
    await store.add_costs("j", [event])
    cost = await store.cost("j")
    assert cost.total_usd == 0.14
    assert [(step.step, step.cost_usd) for step in cost.steps] == [("search", 0.04), ("find-owner", 0.1)]


async def test_a_cost_is_taken_once_and_never_over_the_limit(store: Store) -> None:
    await job(store)

    def question(of: str, cost_usd: float = 0.05, run: int = 1) -> CostEvent:
        return CostEvent(
            step="s", subject=of, type="audit", provider="p", quantity=1, unit="request", cost_usd=cost_usd, run=run
        )

    assert [await store.take_cost("j", question(of), 0.1) for of in ("a", "a", "b", "c", "a")] == [
        True, True, True, False, True,
    ]  # fmt: skip
    assert (await store.cost("j")).total_usd == 0.1
    await store.drop_cost("j", question("a"))
    assert await store.take_cost("j", question("c"), 0.1)
    assert not await store.take_cost("j", question("a"), 0.1)
    assert await store.take_cost("j", question("a"), None)
    assert await store.take_cost("j", question("a", run=2), 0.1)  # asked in an earlier run: the same money
    assert await store.take_cost("j", question("d", cost_usd=0), 0.1)  # a question that failed
    assert not await store.take_cost("j", question("d"), 0.15)
    assert await store.take_cost("j", question("d"), 0.2)
    assert (await store.cost("j")).total_usd == 0.2


async def test_jobs_are_listed_newest_first_by_what_is_asked(store: Store) -> None:
    for number in range(3):
        await job(store, f"j{number}")
    await store.set_status("j1", 1, JobStatus.COMPLETED)
    assert [each.job_id for each in await store.jobs()] == ["j2", "j1", "j0"]
    assert [each.job_id for each in await store.jobs(statuses=[JobStatus.PENDING], limit=1)] == ["j2"]
    assert await store.jobs(user_id="nobody") == []


async def test_no_cursor_leaves_the_thread_of_the_database(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db", "CREATE TABLE t (a)")
    assert await database.write(lambda db: db.execute("INSERT INTO t VALUES (1)")) is None
    assert await database.read(lambda db: db.execute("SELECT a FROM t").fetchone()["a"]) == 1
    database.close()


async def test_many_writers_of_one_process_are_served_one_after_the_other(store: Store) -> None:
    await job(store)

    def event(number: int) -> CostEvent:
        return CostEvent(step=f"s{number}", type="t", provider="p", quantity=1, unit="u", cost_usd=0.01)

    # Each statement many times over: a cursor that ended in another thread broke the next use of its statement.
    for _ in range(2):
        costs = [store.add_costs("j", [event(number)]) for number in range(100)]
        logs = [store.log("j", "info", "s", str(number)) for number in range(100)]
        await asyncio.gather(*costs, *logs)
    assert (await store.cost("j")).total_usd == 1.0
    assert len(await store.logs("j")) == 200
