"""Measure one contestant that needs no HTTP, in a process of its own; prints one JSON line per measurement.

python -m bench.inprocess ceiling --data DIRECTORY --seconds 2 --workloads empty,steps
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from bench.load import KEYS, Sample, drive_async
from bench.machine import Meter

CONCURRENCIES = (50, 1)
"""The larger first: it also warms up the smaller."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=["ceiling", "ceiling-v6", "dbos", "dbos-wal", "holdfast-inproc"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    parser.add_argument("--workloads", default="empty,steps,sync-steps,counter")
    options = parser.parse_args()
    workloads = options.workloads.split(",")
    if options.contestant.startswith("dbos"):
        _measure_dbos(options, workloads)
    else:
        import uvloop

        uvloop.run(_measure_async(options, workloads))


def _report(workload: str, concurrency: int, sample: Sample, others: float) -> None:
    row = {"workload": workload, "concurrency": concurrency, **sample.as_dict(), "others": others}
    print(json.dumps(row), flush=True)


def _measure_dbos(options: Any, workloads: list[str]) -> None:
    from bench.dbos_app import drive, launched

    with launched(options.data, write_ahead_log=options.contestant == "dbos-wal") as calls:
        for workload in workloads:
            drive(calls[workload], CONCURRENCIES[0], options.warm_up)
            for concurrency in CONCURRENCIES:
                meter = Meter()
                sample = drive(calls[workload], concurrency, options.seconds)
                _report(workload, concurrency, sample, meter.read())


async def _measure_async(options: Any, workloads: list[str]) -> None:
    async with contestant(options.contestant, options.data) as calls:
        for workload in workloads:
            await drive_async(calls[workload], CONCURRENCIES[0], options.warm_up)
            for concurrency in CONCURRENCIES:
                meter = Meter()
                sample = await drive_async(calls[workload], concurrency, options.seconds)
                _report(workload, concurrency, sample, meter.read())


Calls = dict[str, Callable[[], Awaitable[Any]]]


def contestant(name: str, directory: Path) -> AbstractAsyncContextManager[Calls]:
    """What runs on an event loop, started on the empty `directory`: one function per workload that makes one call."""
    if name == "holdfast-inproc":
        return holdfast_workloads(directory)
    return _ceiling_workloads(6 if name == "ceiling-v6" else 7)


@asynccontextmanager
async def _ceiling_workloads(version: int) -> AsyncIterator[Calls]:
    from bench.ceiling import workloads

    yield dict(workloads(version))


@asynccontextmanager
async def holdfast_workloads(directory: Path) -> AsyncIterator[Calls]:
    """An engine on a fresh file, and one function per workload that makes one call and checks its result."""
    import holdfast
    from bench.app import app

    async with holdfast.Engine(app, db=str(directory / "holdfast.db")) as engine:
        keys = count()
        json_body = [("content-type", "application/json")]

        def caller(service: str, handler: str, body: bytes, key: Callable[[], str | None]) -> Callable[[], Any]:
            target = engine.services[service].handlers[handler]

            async def call() -> bytes:
                completion, _ = await engine.call(target, key(), body, json_body)
                if completion.value is None:
                    raise RuntimeError(f"{service}/{handler} failed: {completion.failure}")
                return completion.value

            return call

        yield {
            "empty": caller("Empty", "call", b'"hi"', lambda: None),
            "steps": caller("FiveSteps", "run", b'"hi"', lambda: f"w{next(keys)}"),
            "sync-steps": caller("FiveSyncSteps", "run_sync", b'"hi"', lambda: f"s{next(keys)}"),
            "counter": caller("Counter", "add", b"1", lambda: str(random.randrange(KEYS))),
        }


if __name__ == "__main__":
    main()
