"""Who is measured, how each is started, and with what promise of durability."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Literal

from bench import servers
from bench.load import KEYS, Sample, wrk
from bench.machine import Meter

Cell = tuple[str, int]
"""Workload and concurrency."""

WORKLOADS = ("empty", "steps", "sync-steps", "counter")
CONCURRENCIES = (50, 1)
"""The larger first: it also warms up the smaller."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One column of the table."""

    name: str
    kind: Literal["http", "in-process"]
    durability: str
    """When an accepted call is on disk, in words."""
    start: Callable[[Path], AbstractContextManager[int]] | None = None
    """For HTTP: start on a data directory, yield the ingress port."""
    workloads: tuple[str, ...] = WORKLOADS

    def missing(self) -> str | None:
        """What to install before this one can be measured; None when all is there."""
        if self.kind == "http" and which("wrk") is None:
            return "wrk is missing: apt-get install wrk (Debian, Ubuntu) or brew install wrk (macOS)"
        if self.name.startswith("restate") and servers.restate_binary() is None:
            return "the Restate server is missing: install Node.js with npm, then run `npm ci` in the repository"
        if self.name.startswith("holdfast") and not _has_engine():
            return "holdfast cannot be imported: run through bench/run.sh"
        return None

    def measure(self, directory: Path, seconds: float, warm_up_s: float) -> Iterator[tuple[Cell, Sample]]:
        """Start on the empty `directory`, measure every workload, stop.

        Raises:
            RuntimeError: it did not start, the load generator failed, or an answer was wrong.
        """
        if self.start is None:
            yield from self._measure_in_process(directory, seconds, warm_up_s)
            return
        with self.start(directory) as port:
            _check_answers(port)
            for workload in self.workloads:
                yield from _load(port, workload, seconds, warm_up_s)

    def _measure_in_process(self, directory: Path, seconds: float, warm_up_s: float) -> Iterator[tuple[Cell, Sample]]:
        command = [sys.executable, "-m", "bench.inprocess", self.name, "--data", str(directory)]
        command += ["--seconds", str(seconds), "--warm-up", str(warm_up_s), "--workloads", ",".join(self.workloads)]
        done = subprocess.run(command, cwd=servers.REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} failed:\n{done.stderr[-2000:]}")
        for line in done.stdout.splitlines():
            row = json.loads(line)
            yield (row.pop("workload"), row.pop("concurrency")), Sample(**row)


def _has_engine() -> bool:
    if find_spec("holdfast") is None:
        return False
    import holdfast

    return hasattr(holdfast, "Engine")


def _check_answers(port: int) -> None:
    expected = {
        "/Empty/call": (b'"hi"', b'"hi"'),
        "/FiveSteps/check/run": (b'"hi"', b"5"),
        "/FiveSyncSteps/check/run_sync": (b'"hi"', b"5"),
        "/Counter/check/add": (b"1", b"1"),
    }
    for path, (body, answer) in expected.items():
        got = servers.request(port, "POST", path, body)
        if got != (200, answer):
            raise RuntimeError(f"POST {path} answered {got}, expected 200 and {answer!r}")


def _load(port: int, workload: str, seconds: float, warm_up_s: float) -> Iterator[tuple[Cell, Sample]]:
    url = f"http://127.0.0.1:{port}"
    sent = [wrk(url, workload, CONCURRENCIES[0], warm_up_s, run_id="warm")]
    for concurrency in CONCURRENCIES:
        meter = Meter()
        sample = wrk(url, workload, concurrency, seconds, run_id=f"c{concurrency}")
        sent.append(replace(sample, others=meter.read()))
        yield (workload, concurrency), sent[-1]
    if workload == "counter":
        _check_counters(port, answered=sum(sample.count for sample in sent))


def _check_counters(port: int, *, answered: int) -> None:
    # wrk drops the requests that are in flight when its time is over, so a few more than answered may have counted.
    in_flight_max = CONCURRENCIES[0] + sum(CONCURRENCIES)
    total = sum(int(servers.request(port, "POST", f"/Counter/{key}/value")[1]) for key in range(KEYS))
    if not answered <= total <= answered + in_flight_max:
        raise RuntimeError(f"{answered} additions were answered, but the counters say {total}")


CONTESTANTS = (
    Contestant(
        "holdfast",
        "http",
        "fsync of SQLite's write-ahead log before an answer leaves; one for all that arrived meanwhile (default)",
        servers.holdfast,
    ),
    Contestant(
        "restate",
        "http",
        "defaults of Restate server: 24 partitions, fsync of the log store's write-ahead log (seen with strace)",
        servers.restate,
    ),
    Contestant(
        "restate-1p",
        "http",
        "as restate, but one partition: its fastest setting on two cores; cannot be changed later",
        partial(servers.restate, env={"RESTATE_DEFAULT_NUM_PARTITIONS": "1"}),
    ),
    Contestant(
        "dbos",
        "in-process",
        "defaults of DBOS on SQLite: rollback journal, synchronous=FULL; threads, no HTTP",
        workloads=("empty", "steps", "counter"),
    ),
    Contestant(
        "dbos-wal",
        "in-process",
        "as dbos, but files made with SQLite's write-ahead log, synchronous=FULL; threads, no HTTP",
        workloads=("empty", "steps", "counter"),
    ),
    Contestant("holdfast-inproc", "in-process", "as holdfast, called through Engine.call, no HTTP"),
    Contestant("ceiling", "in-process", "none: the SDK driven over ASGI, protocol V7, nothing stored"),
)
