"""Every invariant can fail: an engine that is broken in the way it guards against is caught, and under its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, applied
from tests.simulation.oracle import INVARIANTS, Violation
from tests.simulation.world import play

TRIES = 12
CHECKED_ELSEWHERE = {"integrity"}  # of SQLite itself; tests/power shows that the simulated disk can break it


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_broken_engine_is_caught(mutant: Mutant, folder: Path) -> None:
    others: list[str] = []
    for seed in range(mutant.first_seed, mutant.first_seed + TRIES):
        try:
            with applied(mutant):
                play(
                    seed,
                    folder / str(seed),
                    troubles=6 if mutant.troubles else 0,
                    kinds=mutant.troubles or None,
                    slow_commits=mutant.slow_commits,
                )
        except Violation as violation:
            if violation.invariant == mutant.breaks:
                return
            others.append(str(violation))
    pytest.fail(f"{TRIES} histories, and {mutant.breaks} was not seen broken; but: {others}")


def test_every_invariant_has_a_mutant() -> None:
    guarded = {mutant.breaks for mutant in MUTANTS.values()}
    assert {invariant.__name__ for invariant in INVARIANTS} - CHECKED_ELSEWHERE <= guarded
