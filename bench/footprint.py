"""What holdfast costs besides time per call: start, memory of sleepers, disk, and the way back after SIGKILL.

Four measures, each a number against its aim. Start and recovery are measured from outside, on `holdfast serve` in a
process of its own, from the moment that process is created.

    python -m bench.footprint [--quick] [--only start,sleeping,disk,recovery]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from bench import machine, servers
from bench.aims import aim, aims_text, information
from bench.compare import data_home, write_report
from bench.contestants import CONTESTANTS
from bench.http_load import send_all

Aim = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each."""

    starts: int
    sleepers: int
    workflows: int
    in_flight: int


FULL = Sizes(starts=5, sleepers=100_000, workflows=10_000, in_flight=10_000)
QUICK = Sizes(starts=3, sleepers=10_000, workflows=2_000, in_flight=2_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.footprint")
    parser.add_argument(
        "--quick", action="store_true", help="smaller numbers, about 20 s; the aims are for the full ones"
    )
    parser.add_argument("--only", help=f"of {', '.join(MEASURES)}")
    options = parser.parse_args(arguments)
    holdfast = next(one for one in CONTESTANTS if one.name == "holdfast-inproc")
    if reason := holdfast.missing():
        print(reason, file=sys.stderr)
        return 1
    sizes = QUICK if options.quick else FULL
    wanted = options.only.split(",") if options.only else list(MEASURES)
    if unknown := set(wanted) - set(MEASURES):
        print(f"no such measure: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    home = data_home()
    report: dict[str, Any] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(home),
        "sizes": {name: getattr(sizes, name) for name in sizes.__slots__},
        "background_load": [],
    }
    aims: list[Aim] = []
    for name in wanted:
        report["background_load"].append(machine.wait_until_quiet())
        print(f"measuring {name} …", flush=True)
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home))
        try:
            aims += MEASURES[name](directory, sizes)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    report["aims"] = aims
    print(f"\n{aims_text(aims)}\n\nWritten to {write_report('footprint', report)}")
    return 0


# --- start


def measure_start(directory: Path, sizes: Sizes) -> list[Aim]:
    """From the creation of the process to the first call answered with 200, on a new file."""
    times: list[float] = []
    for number in range(sizes.starts + 1):
        fresh = directory / str(number)
        fresh.mkdir()
        started = time.perf_counter()
        with _serving(fresh) as (_, ingress):
            _wait_until(partial(_is_answered, ingress))
            times.append(time.perf_counter() - started)
    times = times[1:]  # the first one compiled the bytecode and read the modules from disk
    aims = [aim("start to first answered call", statistics.median(times), "<", 0.5, "s")]
    if servers.restate_binary() is not None:
        other = directory / "restate"
        other.mkdir()
        started = time.perf_counter()
        with servers.restate(other) as ingress:
            _wait_until(partial(_is_answered, ingress))
            seconds = time.perf_counter() - started
        aims.append(information("  the same of Restate, with granian and registration", seconds, "s"))
    return aims


def _is_answered(ingress: int) -> bool:
    try:
        return servers.request(ingress, "POST", "/Empty/call", b'"hi"', timeout_s=5) == (200, b'"hi"')
    except (OSError, HTTPException):
        return False


# --- memory of sleepers


def measure_sleeping(directory: Path, sizes: Sizes) -> list[Aim]:
    """Resident memory of the serving process, before and after it was given invocations that sleep for a day."""
    with _serving(directory) as (child, ingress):
        _wait_until(partial(_is_answered, ingress))
        # The baseline has done some work: code is loaded, and SQLite's cache, which is bounded, holds some pages.
        asyncio.run(send_all(ingress, (("/Empty/call", b'"hi"') for _ in range(2_000))))
        _wait_until_idle(child.pid)
        before = _rss_mib(child.pid)
        started = time.perf_counter()
        asyncio.run(send_all(ingress, (("/Sleeper/nap/send", b"86400") for _ in range(sizes.sleepers)), expect=202))
        _wait_until_idle(child.pid)
        seconds = time.perf_counter() - started
        after = _rss_mib(child.pid)
        suspended = _count_suspended(directory / "holdfast.db")
    if suspended != sizes.sleepers:
        raise RuntimeError(f"{sizes.sleepers} invocations sleep, but {suspended} are suspended")
    return [
        _aim_at_full_size(sizes, f"memory added by {sizes.sleepers:,} sleepers", after - before, 30.0, "MiB"),
        information("  resident before", before, "MiB"),
        information("  resident after", after, "MiB"),
        information("  sends accepted and suspended per second", sizes.sleepers / seconds, "/s"),
    ]


def _count_suspended(path: Path) -> int:
    import apsw

    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        [(count,)] = connection.execute("SELECT count(*) FROM invocation WHERE status = 'suspended'")
        return int(count)
    finally:
        connection.close()


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_until_idle(pid: int) -> None:
    """Wait until the process used less than 3 % of a core for two seconds: nothing is left to be done."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        before = _cpu_s(pid)
        time.sleep(2)  # the length of the observation
        if _cpu_s(pid) - before < 0.06:
            return
    raise RuntimeError("the engine does not come to rest")


# --- disk


def measure_disk(directory: Path, sizes: Sizes) -> list[Aim]:
    """Size of the file, checkpointed and closed, over that of one without workflows."""
    child = [sys.executable, "-m", "bench.footprint", "--finish-workflows"]
    sizes_bytes: list[int] = []
    for count in (0, sizes.workflows):
        where = directory / str(count)
        where.mkdir()
        subprocess.run([*child, str(count), str(where)], cwd=servers.REPOSITORY, check=True)
        sizes_bytes.append(sum(path.stat().st_size for path in where.iterdir()))
    each = (sizes_bytes[1] - sizes_bytes[0]) / sizes.workflows
    return [
        aim(f"disk per finished five-step workflow, over {sizes.workflows:,}", each / 1000, "<", 3.0, "KB"),
        information("  file without any", sizes_bytes[0] / 1000, "KB"),
    ]


async def finish_workflows(count: int, directory: Path) -> None:
    """Run `count` five-step workflows to their end, 50 at a time, and close the engine. Runs in a child process."""
    import apsw

    from bench.inprocess import holdfast_workloads

    async with holdfast_workloads(directory) as calls:
        turns = iter(range(count))

        async def loop() -> None:
            for _ in turns:
                await calls["steps"]()

        await asyncio.gather(*(loop() for _ in range(50)))
    connection = apsw.Connection(str(directory / "holdfast.db"))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()


# --- recovery


def measure_recovery(directory: Path, sizes: Sizes) -> list[Aim]:
    """SIGKILL with everything accepted and nothing finished; then from process creation to progress and to the end."""
    mark = directory / "mark"
    with _serving(directory, env={"BENCH_GATE": "shut"}) as (child, ingress):
        _wait_until(partial(_is_answered, ingress))
        requests = (("/Gated/pass_gate/send", b"%d" % number) for number in range(sizes.in_flight))
        receipts = asyncio.run(send_all(ingress, requests, expect=202))
        child.send_signal(signal.SIGKILL)
        child.wait()
    ids = [json.loads(receipt)["invocationId"] for receipt in receipts]
    started = time.perf_counter()
    with _serving(directory, env={"BENCH_GATE": "open", "BENCH_MARK": str(mark)}) as (_, ingress):
        _wait_until(mark.exists)
        progress_s = time.perf_counter() - started
        _wait_until(partial(servers.is_listening, ingress))
        asked = ((f"/restate/invocation/{one}/attach", None) for one in ids)
        results = asyncio.run(send_all(ingress, asked))
        finished_s = time.perf_counter() - started
    if sorted(int(result) for result in results) != list(range(sizes.in_flight)):
        raise RuntimeError("after SIGKILL, not every accepted invocation finished with its own result")
    return [
        _aim_at_full_size(
            sizes, f"SIGKILL with {sizes.in_flight:,} in flight: start to first progress", progress_s, 1.0, "s"
        ),
        information("  start to all of them finished", finished_s, "s"),
    ]


# --- shared


def _aim_at_full_size(sizes: Sizes, name: str, figure: float, below: float, unit: str) -> Aim:
    # The aim speaks of the full size; a smaller one neither meets nor misses it.
    return aim(name, figure, "<", below, unit) if sizes is FULL else information(name, figure, unit)


@contextmanager
def _serving(directory: Path, *, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`holdfast serve`, entered as soon as the process exists; yields it and its ingress port."""
    ingress, admin = servers.free_ports(2)
    command = servers.holdfast_command(directory, ingress, admin)
    with servers.process(command, directory / "holdfast.log", lambda: True, env=env) as child:
        yield child, ingress


def _wait_until(ready: Callable[[], bool], *, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing happened for {limit_s:.0f} s")
        time.sleep(0.002)  # the resolution of the measurement


MEASURES: dict[str, Callable[[Path, Sizes], list[Aim]]] = {
    "start": measure_start,
    "sleeping": measure_sleeping,
    "disk": measure_disk,
    "recovery": measure_recovery,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--finish-workflows"]:
        import uvloop

        uvloop.run(finish_workflows(int(sys.argv[2]), Path(sys.argv[3])))
    else:
        sys.exit(main())
