"""Whole engines in random histories: virtual time, bad streams, repeated requests, crashes, power cuts, failing and full
disks. An oracle that knows only what callers saw, the ledger and the rows judges each of them.

A seed is a history: HOLDFAST_SEED=17 replays one. `python -m tests.torture simulation` runs them for as long as you like.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.simulation import wire
from tests.simulation.world import TROUBLES, fingerprint, play, version_of

REPOSITORY = Path(__file__).parents[2]
SEEDS = [int(os.environ["HOLDFAST_SEED"])] if "HOLDFAST_SEED" in os.environ else range(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_invariant_holds(seed: int, folder: Path) -> None:
    try:
        play(seed, folder, version=version_of(seed))
    except BaseException:
        print(f"repeat it: HOLDFAST_SEED={seed} python -m pytest {Path(__file__).name} -k every_invariant")
        raise


ELSEWHERE = """
import gc, sys
from pathlib import Path
from tests.simulation.world import fingerprint, play, version_of
assert __import__("holdfast").__file__.startswith(sys.argv[1])
gc.set_threshold(100, 3, 3)
for seed in map(int, sys.argv[3:]):
    print(fingerprint(play(seed, Path(sys.argv[2], str(seed)), version=version_of(seed))))
"""


def test_another_seed_is_another_history(folder: Path) -> None:
    one, again, other = (fingerprint(play(seed, folder / str(n), requests=20)) for n, seed in enumerate((5, 5, 6)))
    assert one == again
    assert one != other


def test_a_seed_is_a_history_on_every_machine(folder: Path, tmp_path: Path) -> None:
    """To the last byte on the disk: from a checkout elsewhere, in a process that has played something else before, with
    other hashes, addresses and collections of garbage."""
    elsewhere = tmp_path.joinpath("a checkout", *["with a path so long that stack traces would fill pages"] * 4)
    for tree in ("tests/simulation", "tests/power", "tests/ingress", "tests/support", "src/holdfast"):
        shutil.copytree(REPOSITORY / tree, elsewhere / tree, ignore=shutil.ignore_patterns("__pycache__"))
    (elsewhere / "tests/__init__.py").touch()
    here = [fingerprint(play(seed, folder / str(seed), version=version_of(seed))) for seed in (4, 5)]
    there = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(elsewhere), str(tmp_path), "1", "5", "4"],
        cwd=elsewhere,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{elsewhere}/src:{elsewhere}",
            "PYTHONHASHSEED": "17",
            "CI": "",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert there.returncode == 0, there.stderr
    assert there.stdout.splitlines()[:0:-1] == here


def test_a_slow_machine_plays_the_same_history(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK looks at the real clock, and what it asks for arrives some seconds later."""
    undisturbed = fingerprint(play(5, folder / "undisturbed"))
    late = Random(0)

    class LateClock:
        @staticmethod
        def time_ns() -> int:
            return time.time_ns() + late.randrange(10_000_000_000)

    monkeypatch.setattr(wire, "time", LateClock)
    assert fingerprint(play(5, folder / "late")) == undisturbed


def test_every_trouble_happens(folder: Path) -> None:
    """What histories are full of: were one of these never to strike, its checks would check nothing."""
    happened = Counter[str]()
    expected = {*TROUBLES, "stopped by itself", "power while starting"}
    for seed in range(10):
        happened += play(seed, folder / str(seed), troubles=25).happened
        if expected <= happened.keys():
            return
    pytest.fail(f"after ten histories: {happened}")
