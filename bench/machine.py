"""What the figures were measured on: processor, kernel, versions, cost of an fsync, and who else was running."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.servers import REPOSITORY, restate_binary

PACKAGES = ("holdfast", "restate-sdk", "dbos", "granian", "uvicorn", "httptools", "uvloop", "apsw", "sqlalchemy")


def describe(directory: Path) -> dict[str, Any]:
    """Everything worth knowing to compare with another machine. `directory` is where the data of the runs lies."""
    import apsw

    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_mib": _memory_mib(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite_of_apsw": apsw.sqlite_lib_version(),
        "sqlite_of_python": sqlite3.sqlite_version,
        "file_system": _file_system(directory),
        "fsync_us": fsync_us(directory),
        "versions": {name: _version(name) for name in PACKAGES},
        "restate_server": _first_line([str(restate_binary()), "--version"]) if restate_binary() else None,
        "wrk": _first_line(["wrk", "-v"]) if shutil.which("wrk") else None,
        "commit": _first_line(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]),
    }


def fsync_us(directory: Path, *, repeat: int = 300) -> dict[str, float]:
    """Microseconds of one 4 KiB append and fdatasync in `directory`: median and 90th percentile."""
    path = directory / "fsync-probe"
    block = os.urandom(4096)
    costs: list[float] = []
    handle = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        for _ in range(repeat):
            started = time.perf_counter()
            os.write(handle, block)
            os.fdatasync(handle)
            costs.append((time.perf_counter() - started) * 1e6)
    finally:
        os.close(handle)
        path.unlink()
    return {"median": round(statistics.median(costs), 1), "p90": round(statistics.quantiles(costs, n=10)[8], 1)}


def background_load(seconds: float = 0.4) -> float:
    """Share of all cores (0 to 1) that somebody uses now. Call it while nothing of ours runs."""
    busy, total = _cpu_times()
    time.sleep(seconds)
    busy_later, total_later = _cpu_times()
    return (busy_later - busy) / max(1, total_later - total)


def wait_until_quiet(*, limit: float = 0.15, patience_s: float = 20.0) -> float:
    """Wait for other programs to pause, at most `patience_s`; returns the load that was left."""
    deadline = time.monotonic() + patience_s
    while (load := background_load()) > limit and time.monotonic() < deadline:
        time.sleep(0.5)
    return round(load, 3)


class Meter:
    """Tells how much of the machine others used while we measured: a disturbed figure should say so."""

    def __init__(self) -> None:
        self._last = (*_cpu_times(), _own_ticks())

    def read(self) -> float:
        """Share of all cores (0 to 1) used by anything but this process and its descendants since the last reading.

        The kernel's own threads count as others: a few percent are normal where much is written to disk.
        """
        now = (*_cpu_times(), _own_ticks())
        busy, total, own = (later - earlier for later, earlier in zip(now, self._last, strict=True))
        self._last = now
        return round(max(0.0, (busy - own) / total), 3) if total else 0.0


def _cpu_times() -> tuple[int, int]:
    # user, nice, system, idle, iowait, irq, softirq, steal; what the hypervisor takes away is busy for us, too
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def _own_ticks() -> int:
    """Processor time of this process and all below it, ended ones included as long as somebody waited for them."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended while we looked
            continue
        pid = int(stat.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    own, frontier = 0, {os.getpid()}
    while frontier:
        own += sum(ticks[pid] for pid in frontier)
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
    return own


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _file_system(directory: Path) -> str:
    return _first_line(["stat", "-f", "-c", "%T", str(directory)])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().split("\n")[0]
