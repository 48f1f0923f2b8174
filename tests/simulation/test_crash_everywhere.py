"""Every scenario of the catalogue, killed before and after each of its commits: same outcome, no recorded step again."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.protocol import messages as m
from tests.simulation.catalogue import CATALOGUE
from tests.simulation.crashes import Disaster, Run, check, run

NO_SDK_SENDS_IT = {m.GET_INVOCATION_OUTPUT}  # the Python SDK has no call for it; tests/core covers it


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_kill_before_and_after_each_commit(name: str, folder: Path) -> None:
    for in_thread in (False, True):
        undisturbed = run(folder / "undisturbed", CATALOGUE[name], in_thread=in_thread)
        assert undisturbed.restarts == 0
        for at in range(1, undisturbed.counts.commits + 1):
            # With commits in a thread every other moment will do: what differs is what handlers do meanwhile.
            for kind in ("kill before commit", "kill after commit")[at % 2 if in_thread else 0 :]:
                again = run(
                    folder / f"{in_thread} {kind} {at}", CATALOGUE[name], Disaster(kind, at), in_thread=in_thread
                )
                check(undisturbed, again)


def test_the_catalogue_has_every_command(folder: Path) -> None:
    runs: list[Run] = [run(folder / name, scenario) for name, scenario in CATALOGUE.items()]
    used = set[int]().union(*(one.commands for one in runs))
    assert {*m.COMMAND_NAMES} - NO_SDK_SENDS_IT - {m.OUTPUT} <= used  # the output is in the invocation's own row


def test_versions_before_7(folder: Path) -> None:
    """Their attempts suspend on other occasions, and are told more of what is stored."""
    for version in (5, 6):
        for name in ("steps", "calls", "awakeable", "workflow"):
            undisturbed = run(folder / f"{version} {name}", CATALOGUE[name], version=version)
            for at in range(1, undisturbed.counts.commits + 1, 2):
                disaster = Disaster("kill after commit", at)
                check(undisturbed, run(folder / f"{version} {name} {at}", CATALOGUE[name], disaster, version=version))
