"""A call of SQLite to its file system fails: once, at every place where it can.

The engine either stops with an error of its own and goes on at the next start, or the call was none it depends on.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.power.disk import Disk, io_error
from tests.simulation.catalogue import CATALOGUE
from tests.simulation.crashes import Disaster, check, run
from tests.simulation.loop import VirtualLoop, run_virtually
from tests.simulation.machine import Machine

SAMPLE = 5


@pytest.mark.parametrize("in_thread", [False, True], ids=["commits in the loop", "commits in a thread"])
@pytest.mark.parametrize("kind", ["error", "sync"])
def test_every_call_fails_once(kind: str, in_thread: bool, folder: Path) -> None:
    undisturbed = run(folder / "undisturbed", CATALOGUE["steps"], in_thread=in_thread)
    count = undisturbed.counts.calls if kind == "error" else undisturbed.counts.ops["sync"]
    restarts = 0
    for at in range(1, count + 1):
        again = run(folder / str(at), CATALOGUE["steps"], Disaster(kind, at), in_thread=in_thread)
        assert again.was_struck
        check(undisturbed, again)
        restarts += again.restarts
    assert restarts > 5


@pytest.mark.parametrize("name", CATALOGUE)
def test_some_call_of_every_scenario_fails(name: str, folder: Path) -> None:
    undisturbed = run(folder / "undisturbed", CATALOGUE[name])
    for at in Random(name).sample(range(1, undisturbed.counts.calls + 1), SAMPLE):
        check(undisturbed, run(folder / str(at), CATALOGUE[name], Disaster("error", at), seed=at))


def fail_syncs(disk: Disk) -> None:
    disk.before = lambda kind, file: io_error(kind) if kind == "sync" else None


def mend(disk: Disk) -> None:
    disk.before = lambda kind, file: None


def test_after_a_failed_sync_the_engine_stops(folder: Path) -> None:
    """It does not try the sync again: that would succeed, and the commit would be in the cache only."""

    async def main(loop: VirtualLoop) -> None:
        machine = Machine(folder, loop, Random(0))
        async with machine.switched_on():
            engine = await machine.start()
            assert await machine.request("POST", "/Counter/k/add", {"u": "a"}) is not None
            machine.may_stop = True
            fail_syncs(machine.disk)
            assert await machine.request("POST", "/Counter/k/add", {"u": "b"}) is None, "it was not acknowledged"
            assert engine.stopped.is_set()
            assert engine.failure is not None
            assert "start it again" in engine.failure.hint
            mend(machine.disk)
            assert await machine.request("POST", "/Counter/k/add", {"u": "c"}) is None, "a mended disk changes nothing"
            await machine.has_stopped()

    run_virtually(main, Random(0))


@pytest.mark.parametrize("seed", range(6))
def test_a_restart_does_not_build_on_what_a_failed_sync_left_in_the_cache(seed: int, folder: Path) -> None:
    """The process whose sync failed is gone, killed. What the next one acknowledges survives a power failure."""

    async def main(loop: VirtualLoop) -> None:
        machine = Machine(folder, loop, Random(seed))
        async with machine.switched_on():
            await machine.start()
            assert await machine.request("POST", "/Counter/k/add", {"u": "a"}) is not None
            machine.may_stop = True
            fail_syncs(machine.disk)
            assert await machine.request("POST", "/Counter/k/add", {"u": "b"}) is None
            await machine.has_stopped()
            mend(machine.disk)
            await machine.start()
            for number in range(3):
                await machine.persist("POST", "/Counter/k/add", {"u": str(number)})
            before = (await machine.persist("GET", "/Counter/k/read")).body
            await machine.lose_power()
            await machine.start()
            assert (await machine.persist("GET", "/Counter/k/read")).body == before

    run_virtually(main, Random(seed))


def test_a_sync_that_fails_in_a_checkpoint_loses_nothing(folder: Path) -> None:
    """The log was synced before and stays; SQLite moves it to the database again the next time."""

    async def main(loop: VirtualLoop) -> None:
        machine = Machine(folder, loop, Random(0))
        machine.checkpoint_pages = 10
        async with machine.switched_on():
            await machine.start()
            disk = machine.disk
            disk.before = lambda kind, file: io_error(kind) if (kind, file) == ("sync", "engine.db") else None
            for number in range(12):
                await machine.persist("POST", "/Counter/k/add", {"u": str(number)})
            assert disk.checkpoint_errors > 1
            mend(disk)
            await machine.lose_power()
            await machine.start()
            assert (await machine.persist("GET", "/Counter/k/read")).body == b"12"

    run_virtually(main, Random(0))
