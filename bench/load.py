"""Load generators and their figures: wrk for what speaks HTTP, coroutines for what runs in this process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEYS = 100
"""How many counter objects there are."""

LUA = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class Sample:
    """One short run under load."""

    per_second: float
    p50_ms: float
    p99_ms: float
    count: int
    seconds: float
    errors: int = 0
    """Requests that failed, timed out or were not answered with 2xx. A sample with errors does not count."""
    others: float = 0.0
    """Share of the machine that other programs used meanwhile."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(latencies_s: list[float], seconds: float) -> Sample:
    """Figures from one latency (in seconds) per finished call and the time of the whole run."""
    if not latencies_s:
        return Sample(0.0, 0.0, 0.0, 0, seconds, errors=1)
    ordered = sorted(latencies_s)
    return Sample(
        per_second=len(ordered) / seconds,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[len(ordered) * 99 // 100] * 1000,
        count=len(ordered),
        seconds=seconds,
    )


async def drive_async(work: Callable[[], Awaitable[Any]], concurrency: int, seconds: float) -> Sample:
    """Await `work()` in `concurrency` loops until the time is over. An exception ends the run and is raised."""
    latencies: list[float] = []
    clock = time.perf_counter
    started = clock()
    deadline = started + seconds

    async def loop() -> None:
        now = clock()
        while now < deadline:
            await work()
            done = clock()
            latencies.append(done - now)
            now = done

    await asyncio.gather(*(loop() for _ in range(concurrency)))
    return summarize(latencies, clock() - started)


def wrk(url: str, workload: str, concurrency: int, seconds: float, *, run_id: str) -> Sample:
    """Load an ingress with wrk.

    Args:
        url: the ingress, without a trailing slash.
        workload: `empty`, `steps`, `sync-steps` or `counter`; wrk.lua makes the requests.
        run_id: makes workflow keys unique among all runs on the same data.
    Raises:
        RuntimeError: wrk itself failed.
    """
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    command += ["-s", str(LUA), url, "--", workload, run_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    marked = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or len(marked) != 1:
        raise RuntimeError(f"wrk failed on {url} ({workload}):\n{done.stdout}{done.stderr}")
    figures = json.loads(marked[0].removeprefix("RESULT "))
    elapsed_s = figures["duration_us"] / 1e6
    return Sample(
        per_second=figures["requests"] / elapsed_s,
        p50_ms=figures["p50_us"] / 1000,
        p99_ms=figures["p99_us"] / 1000,
        count=figures["requests"],
        seconds=elapsed_s,
        errors=figures["errors"],
    )
