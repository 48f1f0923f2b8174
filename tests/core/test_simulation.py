"""Random histories with crashes at any commit keep every promise, and everything finishes once the trouble is over.

A seed is a history: HOLDFAST_SEED=17 replays one. A bug found by a seed also leaves a small named case elsewhere.
"""

from __future__ import annotations

import os

import pytest

from holdfast.core import machine as machine_module
from tests.core.promises import Promises
from tests.core.simulated import Simulated

SEEDS = [int(os.environ["HOLDFAST_SEED"])] if "HOLDFAST_SEED" in os.environ else range(60)
STEPS = 150


@pytest.mark.parametrize("version", [6, 7])
@pytest.mark.parametrize("seed", SEEDS)
def test_world_keeps_its_promises(seed: int, version: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine_module, "FREE_LOCKS_MAX", 2)  # so that keys are forgotten all the time
    simulated = Simulated(seed, version)
    promises = Promises(simulated)
    try:
        for _ in range(STEPS):
            simulated.step()
            promises.check()
        promises.everything_finishes()
    except BaseException:
        print(f"seed {seed}, version {version}:", *simulated.trace)
        raise
