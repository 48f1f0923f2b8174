"""Where the time goes inside the process: a sampling profile of holdfast (or of the ceiling) under load.

    python -m bench.profile [steps] [--contestant holdfast-inproc] [--concurrency 50] [--seconds 5] [--deterministic]

A timer signal looks at the stack every few milliseconds of processor time. Python delivers signals between bytecodes,
so the time of a C call (SQLite, the SDK's Rust core) is counted where Python called it. `--wall` counts waiting as
well, such as for the disk. `--deterministic` uses cProfile instead: exact call counts, but times that favour what makes
few calls.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0] or ".").resolve() == Path(__file__).parent.resolve():
    # Run as a file, this module would hide the standard library's `profile`, which cProfile imports.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import asyncio
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Any

from bench import servers
from bench.load import Sample, drive_async, wrk

INTERVAL_S = 0.001
CONTESTANTS = ("holdfast-inproc", "holdfast", "ceiling", "ceiling-v6")


class Sampler:
    """Counts stacks of the main thread while active. One per process: it owns a timer of the system.

    Args:
        wall: by time on the clock, so that waiting shows, instead of by processor time.
    """

    def __init__(self, *, wall: bool) -> None:
        self._timer, self._signal = (
            (signal.ITIMER_REAL, signal.SIGALRM) if wall else (signal.ITIMER_PROF, signal.SIGPROF)
        )
        self.samples = 0
        self.own: Counter[str] = Counter()
        self.below: Counter[str] = Counter()
        self.layers: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()

    def __enter__(self) -> Sampler:
        signal.signal(self._signal, self._take)
        signal.setitimer(self._timer, INTERVAL_S, INTERVAL_S)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(self._timer, 0)

    def _take(self, _signal: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.samples += 1
        self.own[_name(frame)] += 1
        self.lines[f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} ({frame.f_code.co_name})"] += 1
        self.layers[_layer(frame)] += 1
        seen: set[str] = set()
        at: FrameType | None = frame
        while at is not None:
            seen.add(_name(at))
            at = at.f_back
        self.below.update(seen)

    def text(self, *, top: int) -> str:
        """Layers, functions and lines, most expensive first, in percent of the samples."""
        parts = [
            _ranking("by layer (where the innermost frame is)", self.layers, self.samples, top),
            _ranking("by function, itself", self.own, self.samples, top),
            _ranking("by line, itself", self.lines, self.samples, top),
            _ranking("by function, with everything it calls", self.below, self.samples, top),
        ]
        return "\n\n".join(parts)


def _ranking(title: str, counts: Counter[str], total: int, top: int) -> str:
    lines = [f"{count / total:7.1%}  {name}" for name, count in counts.most_common(top)]
    return "\n".join([title, *lines])


def _name(frame: FrameType) -> str:
    return f"{_short(frame.f_code.co_filename)}:{frame.f_code.co_qualname}"


def _short(path: str) -> str:
    for marker in ("/site-packages/", "/src/", "/lib/python"):
        if marker in path:
            return path.rsplit(marker, 1)[1]
    return "/".join(path.rsplit("/", 2)[1:])


def _layer(frame: FrameType) -> str:
    parts = _short(frame.f_code.co_filename).split("/")
    if parts[0] == "holdfast":
        return "/".join(parts[:2])
    if parts[0][:1].isdigit():  # 3.11/asyncio/tasks.py
        return f"standard library: {parts[1].removesuffix('.py')}"
    return parts[0]


async def _run_http(options: argparse.Namespace, directory: Path, around: Any) -> tuple[Sample, float]:
    """What `holdfast serve` runs, in this process, under wrk, which is not part of the profile."""
    from bench.app import app
    from holdfast.server import serve

    ingress, admin = servers.free_ports(2)
    ready = asyncio.Event()
    database = directory / "holdfast.db"
    serving = asyncio.create_task(
        serve(app, db=database, ingress_port=ingress, admin_port=admin, on_ready=lambda _: ready.set())
    )
    await ready.wait()
    load = partial(asyncio.to_thread, wrk, f"http://127.0.0.1:{ingress}", options.workload, options.concurrency)
    try:
        await load(1, run_id="warm")
        cpu_s = time.process_time()
        with around:
            sample = await load(options.seconds, run_id="measured")
        return sample, time.process_time() - cpu_s
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _run(options: argparse.Namespace, directory: Path, around: Any) -> tuple[Sample, float]:
    from bench.inprocess import contestant

    if options.contestant == "holdfast":
        return await _run_http(options, directory, around)
    async with contestant(options.contestant, directory) as calls:
        work: Callable[[], Awaitable[Any]] = calls[options.workload]
        await drive_async(work, options.concurrency, 1.0)
        cpu_s = time.process_time()
        with around:
            sample = await drive_async(work, options.concurrency, options.seconds)
        return sample, time.process_time() - cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.profile")
    parser.add_argument("workload", nargs="?", default="steps", choices=["empty", "steps", "sync-steps", "counter"])
    parser.add_argument("--contestant", default="holdfast-inproc", choices=CONTESTANTS)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--wall", action="store_true", help="by time on the clock instead of processor time")
    parser.add_argument("--deterministic", action="store_true", help="cProfile instead of samples")
    parser.add_argument("--asyncio", action="store_true", help="the standard event loop instead of uvloop")
    options = parser.parse_args()
    from bench.compare import data_home

    directory = Path(tempfile.mkdtemp(prefix="profile-", dir=data_home()))
    try:
        _profile(options, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _profile(options: argparse.Namespace, directory: Path) -> None:
    import uvloop

    run = asyncio.run if options.asyncio else uvloop.run
    if options.deterministic:
        import cProfile
        import pstats

        profiler = cProfile.Profile()
        sample, cpu_s = run(_run(options, directory, profiler))
        pstats.Stats(profiler).sort_stats("tottime").print_stats(options.top)
    else:
        sampler = Sampler(wall=options.wall)
        sample, cpu_s = run(_run(options, directory, sampler))
        print(sampler.text(top=options.top))
    print(
        f"\n{options.contestant} {options.workload}, {options.concurrency} at a time: {sample.per_second:,.0f}/s,"
        f" {1e6 / sample.per_second:.0f} µs each, of which {1e6 * cpu_s / sample.count:.0f} µs processor time"
        " (both with the profiler's own cost)"
    )


if __name__ == "__main__":
    main()
