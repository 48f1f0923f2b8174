"""Side by side: holdfast, Restate, DBOS and the ceiling, in one run on one machine.

Every contestant is started on an empty directory, loaded with each workload at 50 and at 1 at a time, and stopped;
then comes the next, and so on for several rounds, each beginning with another contestant. Figures are medians over
the rounds, so that a disturbance of a few seconds does not decide a ratio.

    python -m bench.compare [--quick] [--only holdfast,restate] [--rounds N] [--seconds S] [--patience N]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine, servers
from bench.aims import aims_of_comparison, aims_text
from bench.contestants import CONTESTANTS, Cell, Contestant
from bench.load import Sample
from bench.report import OTHERS_MAX, notes_text, ratios_text, summarized, table_text

CALM_RUNS_WANTED = 2

Samples = dict[str, dict[Cell, list[Sample]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code: 0 when measured, whether aims are met or not."""
    options = _options(arguments)
    wanted = options.only.split(",") if options.only else [one.name for one in CONTESTANTS]
    if unknown := set(wanted) - {one.name for one in CONTESTANTS}:
        print(f"no such contestant: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    runnable: list[Contestant] = []
    for contestant in (one for one in CONTESTANTS if one.name in wanted):
        if reason := contestant.missing():
            print(f"left out: {contestant.name}. {reason}")
        else:
            runnable.append(contestant)
    if not runnable:
        return 1
    home = data_home()
    machine.wait_until_quiet(patience_s=5.0)
    report: dict[str, Any] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(home),
        "rounds": options.rounds,
        "extra_rounds_max": options.patience,
        "seconds_per_run": options.seconds,
        "durability": {one.name: one.durability for one in runnable},
    }
    samples, background = _run(runnable, options, home)
    report["background_load"] = background
    report["samples"] = _plain(samples)
    medians = summarized(samples)
    report["aims"] = aims_of_comparison(medians)
    _print(report, medians)
    path = write_report("compare", report)
    print(f"\nWritten to {path}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.compare", description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="one round of one second each; about a minute")
    parser.add_argument("--only", help="contestants, separated by commas")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="of each measurement (whole seconds: wrk knows no others)")
    parser.add_argument(
        "--patience", type=int, default=0, metavar="N", help="up to N more rounds for what other programs disturbed"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else 2)
    return options


def data_home() -> Path:
    """Where the data of the runs goes: on the repository's disk, as a temporary directory may be in memory."""
    home = servers.REPOSITORY / "build" / "bench"
    home.mkdir(parents=True, exist_ok=True)
    return home


def write_report(kind: str, report: dict[str, Any]) -> Path:
    """Write `bench/results/<date>-<kind>.json`; returns the path, relative to the repository."""
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    path = results / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}-{kind}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path.relative_to(servers.REPOSITORY)


def _run(contestants: list[Contestant], options: argparse.Namespace, home: Path) -> tuple[Samples, list[float]]:
    samples: Samples = {one.name: {} for one in contestants}
    background: list[float] = []
    started = time.monotonic()
    for number in range(options.rounds + options.patience):
        turn = number * len(contestants) // options.rounds % len(contestants)
        entered = contestants[turn:] + contestants[:turn]
        if number >= options.rounds:
            entered = _disturbed(entered, samples)
        for contestant in entered:
            background.append(machine.wait_until_quiet(patience_s=3.0 if options.quick else 15.0))
            elapsed = time.monotonic() - started
            print(
                f"[{elapsed:4.0f} s] round {number + 1}{'' if number < options.rounds else ' (extra)'}: {contestant.name}"
                f" (others use {background[-1]:.0%} of the machine)",
                flush=True,
            )
            directory = Path(tempfile.mkdtemp(prefix=f"{contestant.name}-", dir=home))
            try:
                for cell, sample in contestant.measure(directory, options.seconds, 1 if contestant.start else 0.5):
                    samples[contestant.name].setdefault(cell, []).append(sample)
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    return samples, background


def _disturbed(contestants: list[Contestant], samples: Samples) -> list[Contestant]:
    """Who has workloads with fewer than two calm runs, with only these workloads."""
    left: list[Contestant] = []
    for contestant in contestants:
        runs = samples[contestant.name]
        lacking = {cell[0] for cell in runs if sum(run.others <= OTHERS_MAX for run in runs[cell]) < CALM_RUNS_WANTED}
        if lacking:
            left.append(replace(contestant, workloads=tuple(w for w in contestant.workloads if w in lacking)))
    return left


def _plain(samples: Samples) -> dict[str, Any]:
    return {
        name: {f"{workload}@{concurrency}": [s.as_dict() for s in runs] for (workload, concurrency), runs in of.items()}
        for name, of in samples.items()
    }


def _print(report: dict[str, Any], medians: Any) -> None:
    facts = report["machine"]
    print(f"\n{facts['cores']} cores, {facts['cpu']}, {facts['kernel']}, {facts['python']}, {facts['file_system']}")
    print(
        f"one 4 KiB append and fdatasync: {facts['fsync_us']['median']} µs (90th percentile {facts['fsync_us']['p90']})"
    )
    rounds = report["rounds"]
    extra = f" and up to {report['extra_rounds_max']} more for what was disturbed" if report["extra_rounds_max"] else ""
    print(f"{rounds} round{'s' if rounds > 1 else ''}{extra}, {report['seconds_per_run']} s per run")
    for text in (
        table_text(medians),
        ratios_text(medians),
        aims_text(report["aims"]),
        notes_text(report["durability"]),
    ):
        print(f"\n{text}")


if __name__ == "__main__":
    sys.exit(main())
