"""From samples to medians, tables and ratios. Pure: no clock, no processes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.load import Sample

STEPS = 5
OTHERS_MAX = 0.12
"""Share of the machine that others may use in a round that counts; the kernel's threads alone take up to 8 %."""
Cell = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Figure:
    """Calls per second and latencies: medians over the rounds."""

    median: float
    least: float
    most: float
    p50_ms: float
    p99_ms: float
    errors: int
    disturbed: int
    """Rounds left out, because other programs used too much of the machine meanwhile and calmer rounds exist."""
    is_doubtful: bool
    """All rounds were disturbed; the figure stands for want of a better one."""


Figures = Mapping[str, Mapping[Cell, Figure]]


def summarized(samples: Mapping[str, Mapping[Cell, Sequence[Sample]]]) -> Figures:
    """Medians over the rounds."""
    return {name: {cell: _figure(runs) for cell, runs in of.items()} for name, of in samples.items()}


def _figure(runs: Sequence[Sample]) -> Figure:
    calm = [run for run in runs if run.others <= OTHERS_MAX]
    disturbed, runs = len(runs) - len(calm), calm or runs
    rates = [run.per_second for run in runs]
    return Figure(
        median=statistics.median(rates),
        least=min(rates),
        most=max(rates),
        p50_ms=statistics.median(run.p50_ms for run in runs),
        p99_ms=statistics.median(run.p99_ms for run in runs),
        errors=sum(run.errors for run in runs),
        disturbed=disturbed if calm else 0,
        is_doubtful=not calm,
    )


ROWS: tuple[tuple[Cell, str], ...] = (
    (("empty", 1), "empty handler, 1 at a time"),
    (("empty", 50), "empty handler, 50 at a time"),
    (("steps", 1), "five-step workflow, 1 at a time"),
    (("steps", 50), "five-step workflow, 50 at a time"),
    (("sync-steps", 1), "same with sync steps, 1 at a time"),
    (("sync-steps", 50), "same with sync steps, 50 at a time"),
    (("counter", 1), "counter on 100 keys, 1 at a time"),
    (("counter", 50), "counter on 100 keys, 50 at a time"),
)


def table_text(figures: Figures) -> str:
    """Absolute figures: calls per second, median, least and most of the rounds, and latencies."""
    names = list(figures)
    rate_rows = [["calls per second: median (least–most)", *names]]
    latency_rows = [["milliseconds: half within / 99 % within", *names]]
    for cell, title in ROWS:
        found = [figures[name].get(cell) for name in names]
        rate_rows.append([title, *(_rate(figure) for figure in found)])
        latency_rows.append([title, *(_latency(figure) for figure in found)])
    all_figures = [figure for of in figures.values() for figure in of.values()]
    left_out, doubtful = sum(one.disturbed for one in all_figures), sum(one.is_doubtful for one in all_figures)
    remarks = []
    if left_out:
        remarks.append(f"{left_out} runs left out: others used more than {OTHERS_MAX:.0%} of the machine meanwhile")
    if doubtful:
        remarks.append(f"{doubtful} figures marked ?: no round was calm. Measure again on an idle machine")
    return "\n\n".join([aligned(rate_rows), *remarks, aligned(latency_rows)])


def _rate(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    failed = f" {figure.errors} ERRORS" if figure.errors else ""
    doubt = " ?" if figure.is_doubtful else ""
    return f"{figure.median:,.0f} ({figure.least:,.0f}–{figure.most:,.0f}){doubt}{failed}"


def _latency(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.p50_ms:.2f} / {figure.p99_ms:.2f}"


PAIRS = (
    ("holdfast", "restate"),
    ("holdfast", "restate-1p"),
    ("holdfast", "dbos"),
    ("holdfast", "dbos-wal"),
    ("holdfast-inproc", "dbos"),
    ("holdfast-inproc", "ceiling"),
)


def ratios_text(figures: Figures) -> str:
    """How many times as many calls per second the first makes as the second."""
    pairs = [(one, other) for one, other in PAIRS if one in figures and other in figures]
    if not pairs:
        return "No ratios: the contestants to compare were not measured."
    rows = [["ratio of calls per second", *(f"{one} / {other}" for one, other in pairs)]]
    for cell, title in ROWS:
        rows.append([title, *(_ratio_cell(figures, one, other, cell) for one, other in pairs)])
    return aligned(rows)


def _ratio_cell(figures: Figures, one: str, other: str, cell: Cell) -> str:
    found = ratio(figures, one, other, cell)
    return "-" if found is None else f"{found.value:.2f}×{' ?' if found.is_doubtful else ''}"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quotient of two figures. Doubtful if one of them is."""

    value: float
    is_doubtful: bool


def ratio(figures: Figures, one: str, other: str, cell: Cell) -> Ratio | None:
    """Calls per second of `one` over those of `other`; None if one was not measured, or had errors."""
    above, below = figures.get(one, {}).get(cell), figures.get(other, {}).get(cell)
    if above is None or below is None or above.errors or below.errors:
        return None
    return Ratio(above.median / below.median, above.is_doubtful or below.is_doubtful)


def step_time_ratio(figures: Figures, one: str, other: str, *, marginal: bool) -> Ratio | None:
    """Time per step, one workflow at a time, `one` over `other`; None as in `ratio`.

    Args:
        marginal: what a step adds to an empty call, instead of a fifth of the five-step workflow.
    """
    times: list[float] = []
    is_doubtful = False
    for name in (one, other):
        steps, empty = figures.get(name, {}).get(("steps", 1)), figures.get(name, {}).get(("empty", 1))
        if steps is None or empty is None or steps.errors or empty.errors:
            return None
        times.append((1 / steps.median - (1 / empty.median if marginal else 0)) / STEPS)
        is_doubtful |= steps.is_doubtful or (marginal and empty.is_doubtful)
    return Ratio(times[0] / times[1], is_doubtful)


def notes_text(durability: Mapping[str, str]) -> str:
    """When a call is on disk, per contestant."""
    width = max(len(name) for name in durability)
    return "\n".join(["durability", *(f"  {name.ljust(width)}  {text}" for name, text in durability.items())])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Text columns: the first to the left, the others to the right, the first row underlined."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    lines.insert(1, "─" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)
