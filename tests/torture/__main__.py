"""The fault battery for minutes or hours: `python -m tests.torture [campaign ...] [--minutes 10 | --hours 8] [--write]`.

With --write the figures of this run go to docs/reliability.json, and from there into the tables of docs/reliability.md;
figures of campaigns that were not run stay.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import apsw

from tests.torture.campaigns import CAMPAIGNS, Clock

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = REPOSITORY / "docs" / "reliability.json"
PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: written by python -m tests.torture --write -->\n", "<!-- end of figures -->\n"


def main() -> int:
    arguments = _arguments()
    names = arguments.campaigns or [*CAMPAIGNS]
    seconds = 60 * (arguments.minutes + 60 * arguments.hours) or 60
    shares = sum(CAMPAIGNS[name].share for name in names)
    first_seed = int(time.time()) if arguments.seed is None else arguments.seed
    print(f"{seconds:.0f} s for {', '.join(names)}; seeds from {first_seed}")
    failed = 0
    for name in names:
        campaign = CAMPAIGNS[name]
        print(f"{name}: {campaign.title} ...", end=" ", flush=True)
        started = time.monotonic()
        try:
            figures = campaign.run(Clock(seconds * campaign.share / shares, first_seed))
        except Exception as error:  # noqa: BLE001 - the other campaigns shall run all the same
            failed += 1
            print("BROKEN")
            traceback.print_exc(limit=None if arguments.verbose else 0)
            print(error)
            continue
        took_s = time.monotonic() - started
        print(f"{took_s:.0f} s")
        for what, count in sorted(figures.items()):
            print(f"    {count:10,} {what}")
        if arguments.write:
            _store(name, figures, took_s, first_seed)
    if arguments.write:
        PAGE.write_text(_with_tables(PAGE.read_text(), json.loads(FIGURES.read_text())))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("campaigns", nargs="*", metavar="campaign", help=f"of {', '.join(CAMPAIGNS)}; all by default")
    parser.add_argument("--minutes", type=float, default=0.0, help="for all campaigns together; 1 by default")
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--seed", type=int, help="first seed; the time by default, so that each run plays others")
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    parser.add_argument("--verbose", action="store_true", help="whole tracebacks")
    arguments = parser.parse_args()
    unknown = {*arguments.campaigns} - {*CAMPAIGNS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    return arguments


def _store(name: str, figures: Counter[str], took_s: float, first_seed: int) -> None:
    stored: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    stored[name] = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "seconds": round(took_s),
        "first_seed": first_seed,
        "figures": dict(sorted(figures.items())),
    }
    FIGURES.write_text(json.dumps(stored, indent=2) + "\n")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _with_tables(page: str, stored: dict[str, Any]) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    lines = ["| Campaign | Date, commit | Ran | What happened, without a violation |", "|---|---|---|---|"]
    for name, campaign in CAMPAIGNS.items():
        entry = stored.get(name)
        if entry is not None:
            figures = ", ".join(f"{count:,} {what}" for what, count in entry["figures"].items())
            minutes = f"{entry['seconds'] / 60:.0f} min" if entry["seconds"] >= 90 else f"{entry['seconds']} s"
            lines.append(
                f"| {campaign.title} (`{name}`) | {entry['date']}, {entry['commit']} | {minutes} | {figures} |"
            )
    return before + BEGIN + "\n".join(lines) + "\n" + END + after


if __name__ == "__main__":
    sys.exit(main())
