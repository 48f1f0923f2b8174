"""The workloads again, as DBOS would have them written: its own decorators, on SQLite, in this process.

DBOS has no HTTP ingress, so threads of this process call the workflows. Plain functions on threads are the faster of
its two programming models here; the same with coroutines reached 72 to 96 % of it (measured once, docs/performance.md).
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOS, SQLAlchemyDatasource

from bench.load import KEYS, Sample, summarize

Workload = Callable[[], Any]


@contextmanager
def launched(directory: Path, *, write_ahead_log: bool) -> Iterator[dict[str, Workload]]:
    """Start DBOS on fresh SQLite files in `directory`; yields one function per workload that makes one call.

    Args:
        write_ahead_log: make the files with SQLite's write-ahead log, which DBOS does not do by itself but accepts.
            Without it, they have the rollback journal, SQLite's default.
    """
    system, application = directory / "dbos.sqlite", directory / "app.sqlite"
    for path in (system, application):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"pragma journal_mode = {'wal' if write_ahead_log else 'delete'}")
            connection.execute("create table bench_made_this_file(x)")
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{system}",
            "application_version": "bench",
            "executor_id": "bench",
            "log_level": "ERROR",
        }
    )
    workloads = _register(SQLAlchemyDatasource.create(f"sqlite:///{application}"))
    DBOS.launch()
    try:
        yield workloads
    finally:
        DBOS.destroy()


def _register(source: SQLAlchemyDatasource) -> dict[str, Workload]:
    with source.engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table counter(key integer primary key, value integer not null)"))
        connection.execute(
            sqlalchemy.text("insert into counter values (:key, 0)"), [{"key": key} for key in range(KEYS)]
        )
    statement = sqlalchemy.text("update counter set value = value + 1 where key = :key returning value")

    @DBOS.workflow()
    def empty(text: str) -> str:
        return text

    @DBOS.step()
    def step() -> int:
        return 1

    @DBOS.workflow()
    def five_steps() -> int:
        return sum([step() for _ in range(5)])

    @source.transaction
    def add(key: int) -> int:
        return int(source.sql_session().execute(statement, {"key": key}).scalar_one())

    @DBOS.workflow()
    def count(key: int) -> int:
        return add(key)

    return {"empty": lambda: empty("hi"), "steps": five_steps, "counter": lambda: count(random.randrange(KEYS))}


def drive(work: Workload, concurrency: int, seconds: float) -> Sample:
    """Call `work` from `concurrency` threads until the time is over. An exception ends the run and is raised."""

    def loop(deadline: float) -> list[float]:
        latencies: list[float] = []
        now = time.perf_counter()
        while now < deadline:
            work()
            done = time.perf_counter()
            latencies.append(done - now)
            now = done
        return latencies

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        futures = [pool.submit(loop, started + seconds) for _ in range(concurrency)]
        latencies = [latency for future in futures for latency in future.result()]
    return summarize(latencies, time.perf_counter() - started)
