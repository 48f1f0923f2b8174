"""The checks of the core's simulation can fail: machines that are broken on purpose are caught by name."""

from __future__ import annotations

import pytest

from tests.core.mutants import MUTANTS
from tests.core.promises import INVARIANTS, Promises
from tests.core.simulated import Simulated
from tests.simulation.mutants import Mutant, applied
from tests.support.violation import Violation

TRIES = 60
STEPS = 150


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_broken_machine_is_caught(mutant: Mutant) -> None:
    others: list[str] = []
    for seed in range(TRIES):
        with applied(mutant):
            simulated = Simulated(seed, 7)
            promises = Promises(simulated)
            try:
                for _ in range(STEPS):
                    simulated.step()
                    promises.check()
                promises.everything_finishes()
            except Violation as violation:
                if violation.invariant == mutant.breaks:
                    return
                others.append(str(violation))
            except Exception as error:  # noqa: BLE001 - a broken machine may break anything
                others.append(repr(error))
    pytest.fail(f"{TRIES} histories, and {mutant.breaks} was not seen broken; but: {others}")


def test_every_invariant_has_a_mutant() -> None:
    assert {*INVARIANTS, "cancel_reaches_every_child"} == {mutant.breaks for mutant in MUTANTS.values()}
