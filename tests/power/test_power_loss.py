"""Power fails at every change of a file, and what is left of the unsynced sectors is anybody's guess.

The engine opens what is left, SQLite's integrity check passes, what was acknowledged is there, recorded steps do not run
again, and the scenario comes to the end that it comes to undisturbed.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.power.disk import Images, write_images
from tests.simulation.catalogue import CATALOGUE
from tests.simulation.crashes import Disaster, check, run
from tests.simulation.loop import VirtualLoop, run_virtually
from tests.simulation.machine import Machine

SAMPLE = 6
"""Moments per scenario, for those of which not every moment is tried; `python -m tests.torture power` tries them all."""


@pytest.mark.parametrize("keep", [0.0, None], ids=["nothing unsynced arrives", "some of it arrives"])
def test_at_every_change_from_the_making_of_the_file_on(keep: float | None, folder: Path) -> None:
    undisturbed = run(folder / "undisturbed", CATALOGUE["steps"], is_new=True)
    for at in range(1, undisturbed.counts.changes + 1):
        again = run(folder / str(at), CATALOGUE["steps"], Disaster("power", at, keep), seed=at, is_new=True)
        assert again.was_struck
        check(undisturbed, again)


@pytest.mark.parametrize("name", CATALOGUE)
def test_at_some_change_of_every_scenario(name: str, folder: Path) -> None:
    undisturbed = run(folder / "undisturbed", CATALOGUE[name])
    moments = range(1, undisturbed.counts.changes + 1)
    for at in Random(name).sample(moments, SAMPLE):
        check(undisturbed, run(folder / str(at), CATALOGUE[name], Disaster("power", at), seed=at))


def test_the_first_page_is_torn(folder: Path) -> None:
    """It says whose file this is, and that may be unreadable just when it is needed: while it was being written."""

    async def main(loop: VirtualLoop) -> None:
        images = await _with_the_first_page_half_written(folder / "first", loop)
        assert len(images) > 20
        for number, image in enumerate(images):
            machine = Machine(write_images(folder / str(number), image), loop, Random(0))
            async with machine.switched_on():
                await machine.start()
                await machine.persist("POST", "/Counter/k/add", {"u": "u"})
                await machine.stop()

    run_virtually(main, Random(0))


async def _with_the_first_page_half_written(folder: Path, loop: VirtualLoop) -> list[Images]:
    """Of every moment at which the first sector was being written: garbage there, and zeros."""
    images: list[Images] = []
    machine = Machine(folder, loop, Random(0))
    machine.checkpoint_pages = 10
    disk = machine.disk

    def look(_: object) -> None:
        if "engine.db" in disk.platters.unsynced(0, 512):
            image = disk.platters.after_power_loss(Random(0), 0.0)
            rest = image.get("engine.db", b"")[512:].ljust(4096 - 512, b"\0")
            images.extend({**image, "engine.db": sector + rest} for sector in (b"\xa5" * 512, bytes(512)))

    disk.after = look
    async with machine.switched_on():
        await machine.start()
        for number in range(4):
            await machine.persist("POST", "/Counter/k/add", {"u": f"u{number}"})
        await machine.stop()
    return images
