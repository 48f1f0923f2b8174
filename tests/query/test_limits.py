"""A query cannot hurt the engine: it reads one moment, in a process of its own, with limits on time, rows and memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import Engine
from holdfast.errors import EngineStopped, HoldfastError, QueryLimited, QueryRefused, SqlNotInstalled
from holdfast.query import queries, query, workers
from tests.query.conftest import served
from tests.query.sample_app import app

ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000000000)"
DEEP = f"SELECT {'+'.join(['n'] * 20_000)} FROM (SELECT value AS n FROM range(0, 1))"
HUGE = "SELECT repeat('x', 2000000000)"
HUGE_AND_NOTICED = "SELECT array_length(range(1, 2000000000))"


@pytest.fixture(autouse=True)
def _ended_workers() -> Iterator[None]:
    yield
    workers.end_all()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with Engine(app, db=tmp_path / "engine.db", query_timeout_ms=60_000) as engine:
        yield engine
        await engine.stop(drain_ms=0)


def _running(**settings: Any) -> Engine:
    return Engine(app, **settings)


async def _warm() -> None:
    """Start a worker, which takes longer than some limits here."""
    async with _running() as engine:
        await query(engine, "SELECT 1")


async def test_rows_of_an_engine_on_a_file(engine: Engine) -> None:
    assert await query(engine, "SELECT 1 AS a, null AS b") == [{"a": 1, "b": None}]
    assert await query(engine, "SELECT count(*) AS n FROM sys_service") == [{"n": 5}]


async def test_rows_of_an_engine_in_memory() -> None:
    async with _running() as engine:
        receipt = await engine.send(engine.services["Worker"].handlers["echo"], None, b'"x"')
        await engine.attach(receipt.invocation_id)
        sql = f"SELECT id, status, journal_size FROM sys_invocation WHERE id = '{receipt.invocation_id}'"
        assert await query(engine, sql) == [{"id": receipt.invocation_id, "status": "completed", "journal_size": 2}]


async def test_what_was_accepted_before_is_seen(engine: Engine) -> None:
    handler = engine.services["Worker"].handlers["echo"]
    for count in range(1, 30):
        await engine.send(handler, None, b'"x"', delay_ms=3_600_000)
        assert await query(engine, "SELECT count(*) AS n FROM sys_invocation") == [{"n": count}]


async def test_memory_and_rows_agree(engine: Engine) -> None:
    """What is running has the half that only memory knows, and nothing else has."""
    waiting = engine.services["Worker"].handlers["wait_timer"]
    for _ in range(20):
        await engine.send(waiting, None, b"null")
    sql = "SELECT status, retry_count, last_start_at FROM sys_invocation"
    seen: set[str] = set()
    while "suspended" not in seen:
        for row in await query(engine, sql):
            seen.add(row["status"])
            assert (row["last_start_at"] is None) == (row["status"] not in ("running", "backing-off")), row


async def test_rows_at_most() -> None:
    async with _running(query_rows_max=100) as engine:
        assert len(await query(engine, "SELECT * FROM range(0, 100)")) == 100
        with pytest.raises(QueryLimited, match="the query has more than 100 rows") as refused:
            await query(engine, "SELECT * FROM range(0, 101)")
        assert "LIMIT" in refused.value.hint
        assert refused.value.status == 400


async def test_bytes_at_most() -> None:
    async with _running(query_memory_bytes_max=1 << 20) as engine:
        assert len(await query(engine, "SELECT repeat('x', 10000) AS x FROM range(0, 50)")) == 50
        with pytest.raises(QueryLimited, match="the query has more than 1048576 bytes"):
            await query(engine, "SELECT repeat('x', 10000) AS x FROM range(0, 200)")


async def test_bytes_of_the_answer_at_most() -> None:
    async with _running(query_memory_bytes_max=1 << 20) as engine:
        with pytest.raises(QueryLimited, match="the query has more than 1048576 bytes"):
            await query(
                engine, "SELECT cast(repeat('x', 10000) AS bytea) AS x FROM range(0, 80)"
            )  # twice as long in JSON


async def test_memory_at_most() -> None:
    async with _running(query_memory_bytes_max=1 << 20) as engine:
        with pytest.raises(QueryLimited, match="needs more than 1048576 bytes of memory"):
            await query(engine, "SELECT count(DISTINCT value || 'x') FROM generate_series(1, 1000000)")
        assert await query(engine, "SELECT 1 AS a") == [{"a": 1}]


async def test_time_at_most() -> None:
    await _warm()
    async with _running(query_timeout_ms=500) as engine:
        started = time.monotonic()
        with pytest.raises(QueryLimited, match=r"did not end within 0\.5 s"):
            await query(engine, ENDLESS)
        assert time.monotonic() - started < 30


@pytest.mark.parametrize("sql", [DEEP, HUGE], ids=["nested too deeply", "too large"])
async def test_a_query_that_ends_its_process(engine: Engine, sql: str) -> None:
    with pytest.raises(QueryLimited, match="ended the process that worked on it") as refused:
        await query(engine, sql)
    assert "the engine was not touched" in refused.value.hint
    assert await query(engine, "SELECT 1 AS a") == [{"a": 1}]


async def test_a_query_whose_memory_is_refused(engine: Engine) -> None:
    with pytest.raises(QueryRefused, match="memory allocation failed"):
        await query(engine, HUGE_AND_NOTICED)


async def test_the_engine_goes_on_meanwhile() -> None:
    await _warm()
    async with _running(query_timeout_ms=1000) as engine:
        asking = asyncio.ensure_future(query(engine, ENDLESS))
        handler = engine.services["Worker"].handlers["echo"]
        done = 0
        while not asking.done():
            receipt = await engine.send(handler, None, b'"x"')
            await engine.attach(receipt.invocation_id)
            done += 1
        with pytest.raises(QueryLimited):
            await asking
        assert done > 20


async def test_too_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "WAITING_MAX", 2)
    async with _running(query_timeout_ms=1500) as engine:
        asked = [asyncio.ensure_future(query(engine, ENDLESS)) for _ in range(queries.AT_A_TIME + 2)]
        await asyncio.sleep(0)
        with pytest.raises(QueryLimited, match="2 queries are waiting already") as refused:
            await query(engine, "SELECT 1")
        assert refused.value.status == 503
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(outcome, QueryLimited) for outcome in outcomes)


async def test_who_waits_no_more_leaves_no_worker_behind() -> None:
    async with _running() as engine:
        await query(engine, "SELECT 1")
        asking = asyncio.ensure_future(query(engine, ENDLESS))
        (worker,) = [*workers._all]
        while worker._process is None or not worker._is_asked:
            await asyncio.sleep(0.001)
        process = worker._process
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert process.wait(5) == -signal.SIGKILL
        assert await query(engine, "SELECT 1 AS a") == [{"a": 1}]


async def test_a_worker_that_died_of_something_else_is_replaced(engine: Engine) -> None:
    await query(engine, "SELECT 1")
    (worker,) = [*workers._all]
    assert worker._process is not None
    os.kill(worker._process.pid, signal.SIGKILL)
    assert await query(engine, "SELECT 1 AS a") == [{"a": 1}]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to find a process's children")
@pytest.mark.parametrize("sql", ["SELECT 1", ENDLESS], ids=["idle", "at work"])
def test_a_worker_ends_with_its_engine(tmp_path: Path, sql: str) -> None:
    with served(tmp_path / "engine.db") as side, ThreadPoolExecutor(1) as pool:
        side.rows("SELECT 1")
        engine_pid = int((tmp_path / "engine.db.owner").read_text())
        (worker_pid,) = _children(engine_pid)
        asking = pool.submit(side.ask, sql)
        if sql == "SELECT 1":
            asking.result()
        os.kill(engine_pid, signal.SIGKILL)
        with suppress(httpx.HTTPError):
            asking.result()
        deadline = time.monotonic() + 30
        while _is_alive(worker_pid):
            assert time.monotonic() < deadline, "the worker goes on without its engine"
            time.sleep(0.01)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # what nobody has buried yet is dead all the same


async def test_an_engine_that_does_not_run(tmp_path: Path) -> None:
    engine = Engine(app, db=tmp_path / "engine.db")
    with pytest.raises(EngineStopped):
        await query(engine, "SELECT 1")
    async with engine:
        await engine.stop()
        with pytest.raises(EngineStopped):
            await query(engine, "SELECT 1")


async def test_nothing_of_a_file_is_reached(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    here = tmp_path / "secret.csv"
    for sql in (
        f"SELECT * FROM '{here}'",
        f'SELECT * FROM "{here}"',
        f"SELECT * FROM 'file://{here}'",
        f"CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{here}'",
        f"COPY (SELECT 1) TO '{tmp_path / 'written.csv'}'",
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{tmp_path / 'written.csv'}'",
        "SET datafusion.catalog.location = '/'",
    ):
        with pytest.raises(QueryRefused):
            await query(engine, sql)
    assert not (tmp_path / "written.csv").exists()


async def test_without_the_extra(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    (broken / "datafusion").mkdir(parents=True)
    (broken / "datafusion" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'datafusion'\")")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(SqlNotInstalled, match="No module named 'datafusion'") as missing:
        await query(engine, "SELECT 1")
    assert missing.value.hint == "pip install 'holdfast[sql]'"
    assert missing.value.status == 501


async def test_over_http_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datafusion").mkdir()
    (tmp_path / "datafusion" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'datafusion'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with _running() as engine:
        transport = httpx.ASGITransport(app=engine.admin)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as admin:
            answer = await admin.post("/query", json={"query": "SELECT 1"})
    assert answer.status_code == 501
    assert "pip install 'holdfast[sql]'" in answer.json()["message"]
    assert answer.headers["x-holdfast-error-code"] == SqlNotInstalled.code


def test_errors_are_of_one_tree() -> None:
    assert all(issubclass(error, HoldfastError) for error in (QueryRefused, QueryLimited, SqlNotInstalled))
