"""The fault battery, for as long as you like.

    python -m tests.torture                                   # a minute, every campaign
    python -m tests.torture simulation power --minutes 30     # these two
    python -m tests.torture simulation --seed 17 --count 1    # one round again
    python -m tests.torture --hours 8 --write                 # and publish what was run

A campaign plays rounds from a seed on, and ends at the first that breaks a promise; the command that repeats it is printed,
and the exit code is 1. `--json` writes what was run. `--write` puts it into docs/reliability.json, and from there into the
table of docs/reliability.md; figures of campaigns that were not run stay.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from tests.torture.campaigns import CAMPAIGNS, Broken, Clock, Figures, Skipped
from tests.torture.page import FIGURES, PAGE, with_table

REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    names: list[str] = options.campaigns or [*CAMPAIGNS]
    seconds = 60 * (options.minutes + 60 * options.hours) or (None if options.count else 60.0)
    shares = sum(CAMPAIGNS[name].share for name in names)
    first_seed = int(time.time()) if options.seed is None else options.seed
    print(f"{_budget(seconds, options.count)} for {', '.join(names)}; seeds from {first_seed} on")
    summary: dict[str, Any] = {}
    failed = False
    for name in names:
        campaign = CAMPAIGNS[name]
        share = None if seconds is None else seconds * campaign.share / shares
        clock = Clock(first_seed, seconds=share, count=options.count)
        print(f"{name}: {campaign.title} ...", end=" ", flush=True)
        started = time.monotonic()
        try:
            figures = campaign.run(clock)
        except Skipped as reason:
            print(f"skipped: {reason}")
            continue
        except Exception as error:  # noqa: BLE001 - the other campaigns shall run all the same
            failed = True
            _report(name, clock, error, is_verbose=options.verbose)
            continue
        took_s = time.monotonic() - started
        print(f"{clock.rounds_done} rounds of {campaign.round}, {took_s:.0f} s")
        for what, count in sorted(figures.items()):
            print(f"    {count:10,} {what}")
        summary[name] = _entry(figures, clock, took_s, first_seed)
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    if options.write and summary:
        stored = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        stored = {name: (stored | summary)[name] for name in CAMPAIGNS if name in stored | summary}
        FIGURES.write_text(json.dumps(stored, indent=2) + "\n")
        PAGE.write_text(with_table(PAGE.read_text(), stored))
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("campaigns", nargs="*", metavar="campaign", help=f"of {', '.join(CAMPAIGNS)}; all by default")
    parser.add_argument("--minutes", type=float, default=0.0, help="for all campaigns together; 1 by default")
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--count", type=int, help="rounds of each campaign, at most")
    parser.add_argument("--seed", type=int, help="of the first round; the time by default, so that each run is another")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write there what was run")
    parser.add_argument("--write", action="store_true", help="into docs/reliability.json and .md")
    parser.add_argument("--verbose", action="store_true", help="whole tracebacks")
    options = parser.parse_args(arguments)
    unknown = {*options.campaigns} - {*CAMPAIGNS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    if options.count is not None and options.count < 1:
        parser.error("--count must be 1 or more")
    return options


def _budget(seconds: float | None, count: int | None) -> str:
    return ", ".join(
        [
            *([] if seconds is None else [f"{seconds:.0f} s"]),
            *([] if count is None else [f"{count} round{'s'[: count - 1]} each"]),
        ]
    )


def _report(name: str, clock: Clock, error: Exception, *, is_verbose: bool) -> None:
    cause = error.__cause__ if isinstance(error, Broken) and error.__cause__ is not None else error
    seed = error.seed if isinstance(error, Broken) else clock.seed
    print("BROKEN")
    print("".join(traceback.format_exception(cause) if is_verbose else traceback.format_exception_only(cause)), end="")
    if cause is not error:
        print(f"in {error}")
    print(f"repeat it: python -m tests.torture {name} --seed {seed} --count 1 --verbose")


def _entry(figures: Figures, clock: Clock, took_s: float, first_seed: int) -> dict[str, Any]:
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "--", "src") else ""),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "processors": os.cpu_count(),
        "seconds": round(took_s),
        "seed": first_seed,
        "rounds": clock.rounds_done,
        "figures": dict(sorted(figures.items())),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
