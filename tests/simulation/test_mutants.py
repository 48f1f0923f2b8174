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
    for number in range(TRIES):
        seed = mutant.first_seed + number
        with applied(mutant):
            try:
                play(
                    seed,
                    folder / str(seed),
                    troubles=6 if mutant.troubles else 0,
                    kinds=mutant.troubles or None,
                    slow_commits=mutant.slow_commits,
                )
            except Violation as violation:
                assert violation.invariant in mutant.caught_by, violation
                return
    pytest.fail(f"{TRIES} histories, and nobody noticed that {mutant.what}")


def test_every_invariant_has_a_mutant() -> None:
    guarded = {mutant.caught_by[0] for mutant in MUTANTS.values()}
    assert {invariant.__name__ for invariant in INVARIANTS} - CHECKED_ELSEWHERE <= guarded
