"""A day to say yes: both answers and none, in virtual time on the whole engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast import Engine
from holdfast.testing import run_virtually
from tests.patterns.approval_program import answer, run
from tests.patterns.program import application

DAY_MS = 86_400_000


def decided(folder: Path, *answers: tuple[float, Any]) -> list[Any]:
    """What came out, and what each answer was told. Answers come after so many hours."""

    async def main() -> list[Any]:
        async with Engine(application(), db=folder / "engine.db") as engine:
            waiting = asyncio.create_task(engine.client.workflow_call(run, key="release", arg=DAY_MS))
            told: list[Any] = []
            before_h = 0.0
            for after_h, given in answers:
                await asyncio.sleep((after_h - before_h) * 3600)
                before_h = after_h
                told.append(await engine.client.workflow_call(answer, key="release", arg=given))
            return [await waiting, *told]

    return run_virtually(main)


@pytest.mark.parametrize("given", [True, False])
def test_an_answer_at_the_last_minute_counts(given: bool, tmp_path: Path) -> None:
    outcome, told = decided(tmp_path, (23.99, given))
    assert outcome == told
    assert outcome["is_approved"] is given
    assert not outcome["is_timeout"]


def test_no_answer_in_a_day_means_no(tmp_path: Path) -> None:
    (outcome,) = decided(tmp_path)
    assert not outcome["is_approved"]
    assert outcome["is_timeout"]


def test_a_late_yes_changes_nothing_and_is_told_so(tmp_path: Path) -> None:
    outcome, told = decided(tmp_path, (24.01, True))
    assert not outcome["is_approved"]
    assert outcome["is_timeout"]
    assert told == outcome


def test_the_first_answer_wins(tmp_path: Path) -> None:
    outcome, first, second = decided(tmp_path, (1, True), (2, False))
    assert outcome == first == second
    assert outcome["is_approved"]
