"""A call of SQLite to its file system fails: once, at every place where it can.

The engine either stops with an error of its own and goes on at the next start, or the call was none it depends on.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random

import apsw
import pytest

from holdfast.store.database import connect
from holdfast.store.sqlite import SqliteTables
from tests.power.disk import Disk, Images, io_error, write_images
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


@pytest.mark.parametrize("keep", [0.0, 1.0, None], ids=["nothing unsynced arrives", "all of it", "some of it"])
def test_power_fails_while_a_restart_brings_to_disk_what_a_failed_sync_left_in_the_cache(
    keep: float | None, folder: Path
) -> None:
    """At each change of a file, and later: an older log must not be played back over a newer database."""
    path = folder / "disk" / "engine.db"
    path.parent.mkdir()
    disk = Disk(path.parent)
    with disk.installed(Random(0)):
        connection = connect(path, fsync=True)
        for name in ("one", "two"):
            connection.execute("INSERT INTO meta VALUES (?, hex(randomblob(40000)))", (name,))
        fail_syncs(disk)
        with pytest.raises(apsw.IOError):
            connection.execute("UPDATE meta SET value = 'three' WHERE name = 'two'")
        with suppress(apsw.Error):
            connection.close()
        mend(disk)
        images: list[Images] = []
        disk.after = lambda _: images.append(disk.platters.after_power_loss(Random(len(images)), keep))
        connection = connect(path, fsync=True)
        SqliteTables(connection).settle_log()
        seen = connection.execute("SELECT * FROM meta ORDER BY name").fetchall()
        starting = len(images)
        connection.close()
        connect(path, fsync=True).close()
    assert starting > 5
    for number, image in enumerate(images):
        connection = apsw.Connection(str(write_images(folder / "left", image) / "engine.db"))
        assert connection.pragma("integrity_check") == "ok"
        if number >= starting:  # somebody may have been told
            assert connection.execute("SELECT * FROM meta ORDER BY name").fetchall() == seen
        connection.close()


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
