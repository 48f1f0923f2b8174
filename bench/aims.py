"""What we set out to reach, and whether a measurement reached it. Pure."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import Figures, Ratio, aligned, ratio, step_time_ratio

_COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def aim(name: str, figure: Ratio | float | None, comparison: str, target: float, unit: str = "") -> dict[str, Any]:
    """One aim. `met` is None where nothing was measured, and where what was measured is doubtful."""
    value = figure.value if isinstance(figure, Ratio) else figure
    is_doubtful = isinstance(figure, Ratio) and figure.is_doubtful
    met = None if value is None or is_doubtful else _COMPARE[comparison](value, target)
    return {
        **information(name, figure, unit),
        "comparison": comparison,
        "target": target,
        "met": met,
    }


def information(name: str, figure: Ratio | float | None, unit: str = "") -> dict[str, Any]:
    """A figure that is no aim of ours."""
    value = figure.value if isinstance(figure, Ratio) else figure
    is_doubtful = isinstance(figure, Ratio) and figure.is_doubtful
    return {"name": name, "figure": value, "unit": unit, "is_doubtful": is_doubtful, "target": None, "met": None}


def aims_of_comparison(figures: Figures) -> list[dict[str, Any]]:
    """Every speed aim with its figure, and what a fair reader asks next: the other side at its best setting."""
    empty, steps = ("empty", 50), ("steps", 50)

    def times(one: str, other: str, cell: tuple[str, int]) -> Ratio | None:
        return ratio(figures, one, other, cell)

    def step_time(one: str, other: str, *, marginal: bool = False) -> Ratio | None:
        return step_time_ratio(figures, one, other, marginal=marginal)

    return [
        aim("empty at 50, times Restate", times("holdfast", "restate", empty), ">=", 4.0),
        aim("steps at 50, times Restate", times("holdfast", "restate", steps), ">=", 2.5),
        # The aim does not say which holdfast. DBOS has no HTTP, so in process is like with like; both are judged.
        aim("steps at 50 over HTTP, times DBOS in process", times("holdfast", "dbos", steps), ">=", 25.0),
        aim("steps at 50, times DBOS, both in process", times("holdfast-inproc", "dbos", steps), ">=", 25.0),
        aim("time per step at 1, share of Restate's", step_time("holdfast", "restate"), "<=", 0.4),
        aim("empty at 50 in process, share of ceiling", times("holdfast-inproc", "ceiling", empty), ">=", 0.7),
        aim("steps at 50 in process, share of ceiling", times("holdfast-inproc", "ceiling", steps), ">=", 0.7),
        information("  empty at 50, times Restate with one partition", times("holdfast", "restate-1p", empty)),
        information("  steps at 50, times Restate with one partition", times("holdfast", "restate-1p", steps)),
        information("  steps at 50, in process, times DBOS with WAL", times("holdfast-inproc", "dbos-wal", steps)),
        information("  time a step adds at 1, share of Restate's", step_time("holdfast", "restate", marginal=True)),
    ]


def shown(one: Mapping[str, Any]) -> str:
    """The figure of an aim, for people: three digits and the unit."""
    figure = float(one["figure"])
    return f"{f'{figure:,.0f}' if figure >= 100 else f'{figure:.3g}'} {one['unit']}".strip()


def aims_text(aims: Sequence[Mapping[str, Any]]) -> str:
    """One line per aim: name, figure, target, verdict."""
    rows = [["aim", "measured", "wanted", ""]]
    for one in aims:
        figure = "not measured" if one["figure"] is None else shown(one)
        if one["target"] is None:
            rows.append([one["name"], figure, "-", "doubtful" if one["is_doubtful"] else "for information"])
            continue
        verdict = {True: "met", False: "NOT MET", None: "doubtful" if one["is_doubtful"] else "unknown"}[one["met"]]
        rows.append([one["name"], figure, f"{one['comparison']} {one['target']:g} {one['unit']}".strip(), verdict])
    return aligned(rows)
