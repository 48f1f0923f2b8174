"""Put the figures of the last comparison and the last footprint into docs/performance.md, between its two marks.

python -m bench.markdown [compare.json footprint.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.aims import shown
from bench.load import Sample
from bench.report import PAIRS, ROWS, Figure, Figures, ratio, summarized
from bench.servers import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "performance.md"
BEGIN, END = "<!-- figures: begin (written by bench/markdown.py) -->", "<!-- figures: end -->"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the document; returns the exit code."""
    try:
        compare, footprint = arguments or (_latest("compare"), _latest("footprint"))
    except FileNotFoundError as error:
        print(f"{error}; run bench/run.sh first", file=sys.stderr)
        return 1
    text = _section(*(json.loads((REPOSITORY / one).read_text()) for one in (compare, footprint)))
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    print(f"{DOCUMENT.relative_to(REPOSITORY)} now has the figures of {compare} and {footprint}")
    return 0


def _latest(kind: str) -> str:
    found = sorted((Path(__file__).parent / "results").glob(f"*-{kind}.json"))
    if not found:
        raise FileNotFoundError(f"no bench/results/*-{kind}.json")
    return str(found[-1].relative_to(REPOSITORY))


def _section(compare: dict[str, Any], footprint: dict[str, Any]) -> str:
    figures = summarized(
        {
            name: {_cell(cell): [Sample(**run) for run in runs] for cell, runs in of.items()}
            for name, of in compare["samples"].items()
        }
    )
    return "\n\n".join(
        [
            _provenance(compare),
            "### Calls per second",
            _table(figures, _rate),
            "### Latency: half within / 99 % within, milliseconds",
            _table(figures, lambda figure: f"{figure.p50_ms:.2f} / {figure.p99_ms:.2f}"),
            "### Ratios of calls per second",
            _ratios(figures),
            "### Aims",
            _aims([*compare["aims"], *footprint["aims"]]),
        ]
    )


def _provenance(compare: dict[str, Any]) -> str:
    facts = compare["machine"]
    fsync = facts["fsync_us"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    most = compare["rounds"] + compare["extra_rounds_max"]
    rounds = f"{compare['rounds']} to {most}" if most > compare["rounds"] else str(most)
    return (
        f"Measured {compare['started_at'][:10]} at `{facts['commit']}` on {facts['cores']} cores ({facts['cpu']}), "
        f"{facts['memory_mib'] // 1024} GiB, {facts['kernel']}, {facts['file_system']}; one 4 KiB append and "
        f"fdatasync {fsync['median']:.0f} µs ({fsync['p90']:.0f} µs at the 90th percentile). {facts['python']}, "
        f"SQLite {facts['sqlite_of_apsw']} (holdfast) and {facts['sqlite_of_python']} (DBOS), {versions}, "
        f"{facts['restate_server']}, wrk {facts['wrk'].split()[1] if facts['wrk'] else 'missing'}. Medians over the "
        f"calm ones of {rounds} rounds of {compare['seconds_per_run']} s; ? marks what was never measured calmly."
    )


def _cell(text: str) -> tuple[str, int]:
    workload, _, concurrency = text.partition("@")
    return workload, int(concurrency)


def _rate(figure: Figure) -> str:
    return f"{figure.median:,.0f}{' ?' if figure.is_doubtful else ''}"


def _table(figures: Figures, show: Callable[[Figure], str]) -> str:
    rows = [["", *figures]]
    for cell, title in ROWS:
        found = [of.get(cell) for of in figures.values()]
        rows.append([title, *("–" if one is None else show(one) for one in found)])
    return _markdown(rows)


def _ratios(figures: Figures) -> str:
    pairs = [pair for pair in PAIRS if pair[0] in figures and pair[1] in figures]
    rows = [["", *(f"{one} / {other}" for one, other in pairs)]]
    for cell, title in ROWS:
        found = [ratio(figures, one, other, cell) for one, other in pairs]
        rows.append(
            [title, *("–" if one is None else f"{one.value:.2f}{' ?' if one.is_doubtful else ''}" for one in found)]
        )
    return _markdown(rows)


def _aims(aims: Sequence[dict[str, Any]]) -> str:
    rows = [["", "measured", "aim", ""]]
    for one in aims:
        figure = "–" if one["figure"] is None else shown(one)
        wanted = "" if one["target"] is None else f"{one['comparison']} {one['target']:g} {one['unit']}".strip()
        verdict = {True: "met", False: "**not met**", None: "doubtful" if one["is_doubtful"] else ""}[one["met"]]
        rows.append([one["name"].strip(), figure, wanted, verdict])
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" + "|--:" * (len(rows[0]) - 1) + "|")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
