"""The table of docs/reliability.md, made of docs/reliability.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.torture.campaigns import CAMPAIGNS

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIGURES = DOCS / "reliability.json"
PAGE = DOCS / "reliability.md"
BEGIN, END = "<!-- written by python -m tests.torture --write -->\n", "<!-- end of what is written -->\n"


def with_table(page: str, stored: Mapping[str, Any]) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + table(stored) + END + after


def table(stored: Mapping[str, Any]) -> str:
    """What was run, one row for each campaign; none of them has broken a promise, or it would not be stored."""
    lines = ["| | Ran | What happened | Again |", "|---|---|---|---|"]
    for name, entry in stored.items():
        figures = ", ".join(f"{count:,} {what}" for what, count in entry["figures"].items())
        ran = f"{entry['date']}, {entry['commit']}, {_duration(entry['seconds'])}"
        again = f"`{name} --seed {entry['seed']} --count {entry['rounds']}`"
        lines.append(f"| {CAMPAIGNS[name].title} | {ran} | {figures} | {again} |")
    return "\n".join(lines) + "\n"


def _duration(seconds: int) -> str:
    return (
        f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds} s"
    )
