"""Whole engines in random histories: virtual time, bad streams, repeated requests, crashes, power cuts, failing and full
disks. An oracle that knows only what callers saw, the ledger and the rows judges each of them.

A seed is a history: HOLDFAST_SEED=17 replays one. `python -m tests.torture simulation` runs them for as long as you like.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation.world import TROUBLES, World, play

SEEDS = [int(os.environ["HOLDFAST_SEED"])] if "HOLDFAST_SEED" in os.environ else range(20)


def version_of(seed: int) -> int:
    """Protocol version that a seed plays; version 7, with its own ways to suspend, most often."""
    return (7, 6, 7, 5)[seed % 4]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_invariant_holds(seed: int, folder: Path) -> None:
    try:
        play(seed, folder, version=version_of(seed))
    except BaseException:
        print(f"repeat it: HOLDFAST_SEED={seed} python -m pytest {Path(__file__).name} -k every_invariant")
        raise


def story(world: World) -> list[object]:
    return [*world.machine.ledger, *world.history.results.items(), sorted(world.happened.items())]


def test_a_seed_is_a_history(folder: Path) -> None:
    """The same seed gives the same history, to the millisecond and to the last call of SQLite; another one does not."""
    one, again, other = (play(seed, folder / str(index), requests=20) for index, seed in enumerate((5, 5, 6)))
    assert story(one) == story(again)
    assert one.machine.disk.calls == again.machine.disk.calls
    assert story(one) != story(other)


def test_every_trouble_happens(folder: Path) -> None:
    """What a history is full of: were one of these never to strike, its checks would check nothing."""
    happened = play(3, folder, troubles=25).happened
    assert happened.keys() >= {*TROUBLES, "stopped by itself"}, happened
