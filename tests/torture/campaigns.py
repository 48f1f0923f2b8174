"""What the fault battery does, as campaigns that run for as long as they are given. CI runs a part of each.

A campaign plays rounds until its time is over, and returns what happened, counted. It raises where an invariant does not
hold; the error says with which arguments that round is repeated.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.core.promises import Promises
from tests.core.simulated import Simulated
from tests.crash.load import kill_and_judge
from tests.simulation.catalogue import CATALOGUE
from tests.simulation.crashes import Disaster, Run, check, run
from tests.simulation.mutants import MUTANTS, applied
from tests.simulation.world import play
from tests.support.violation import Violation

MEMORY = Path("/dev/shm")
VERSIONS = (7, 6, 5)
CORE_STEPS = 150
KILLS_PER_ROUND = 100


class Broken(Exception):
    """A round has failed."""

    def __init__(self, repeat: str, error: BaseException) -> None:
        super().__init__(f"{error}\nrepeat it: {repeat}")


@contextmanager
def _folder() -> Generator[Path]:
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="holdfast-torture-", dir=place) as home:
        yield Path(home)


class Clock:
    """How long a campaign may go on."""

    def __init__(self, seconds: float, first_seed: int) -> None:
        self._until_s = time.monotonic() + seconds
        self.first_seed = first_seed
        self.is_over = False

    def rounds(self) -> Iterator[int]:
        """Seeds, one after the other; at least one."""
        seed = self.first_seed
        while True:
            yield seed
            seed += 1
            if time.monotonic() >= self._until_s:
                self.is_over = True
                return


def core(clock: Clock) -> Counter[str]:
    """The state machine alone, driven at random, with crashes at any commit."""
    figures = Counter[str]()
    for seed in clock.rounds():
        for version in (6, 7):
            simulated = Simulated(seed, version)
            promises = Promises(simulated)
            try:
                for _ in range(CORE_STEPS):
                    simulated.step()
                    promises.check()
                promises.everything_finishes()
            except BaseException as error:
                raise Broken(f"HOLDFAST_SEED={seed} python -m pytest tests/core/test_simulation.py", error) from error
            figures["histories"] += 1
            figures["events"] += CORE_STEPS
            figures["crashes"] += sum("crash" in step for step in simulated.trace)
    return figures


def simulation(clock: Clock) -> Counter[str]:
    """Whole engines under virtual time, with every kind of trouble."""
    figures = Counter[str]()
    for seed in clock.rounds():
        with _folder() as folder:
            try:
                world = play(seed, folder, version=(7, 6, 7, 5)[seed % 4])
            except BaseException as error:
                raise Broken(f"HOLDFAST_SEED={seed} python -m pytest tests/simulation", error) from error
        figures["histories"] += 1
        figures["virtual seconds"] += round(world.loop.time())
        figures["invocations judged"] += world.invocations
        figures["steps"] += sum(world.machine.here.executions.values())
        figures["broken streams"] += world.machine.wire.broken_streams
        figures.update({f"trouble: {kind}": count for kind, count in world.happened.items()})
    return figures


def mutants(clock: Clock) -> Counter[str]:
    """Engines broken on purpose: how many histories notice each of them."""
    figures = Counter[str]()
    for seed in clock.rounds():
        for mutant in MUTANTS.values():
            figures["histories of broken engines"] += 1
            with _folder() as folder, applied(mutant):
                try:
                    play(
                        seed,
                        folder,
                        troubles=6 if mutant.troubles else 0,
                        kinds=mutant.troubles or None,
                        slow_commits=mutant.slow_commits,
                    )
                except Violation as violation:
                    figures["noticed"] += 1
                    figures["noticed by the invariant in question"] += violation.invariant == mutant.breaks
    figures["mutants"] = len(MUTANTS)
    return figures


def _disasters(clock: Clock, kinds: dict[str, Callable[[Run], int]]) -> Counter[str]:
    """Every moment of every scenario, again with other seeds until the time is over."""
    figures = Counter[str]()
    for seed in clock.rounds():
        in_thread, version = bool(seed % 2), VERSIONS[seed % 3]
        for name, scenario in CATALOGUE.items():
            with _folder() as folder:
                undisturbed = run(folder / "undisturbed", scenario, in_thread=in_thread, version=version)
            for kind, count in kinds.items():
                for at in range(1, count(undisturbed) + 1):
                    with _folder() as folder:
                        try:
                            again = run(
                                folder, scenario, Disaster(kind, at), seed=seed, in_thread=in_thread, version=version
                            )
                            check(undisturbed, again)
                        except BaseException as error:
                            raise Broken(f"{name}, {kind} {at}, version {version}: seed {seed}", error) from error
                    figures[kind] += again.was_struck
                    figures["restarts"] += again.restarts
        figures["rounds over the catalogue"] += 1
    figures["scenarios"] = len(CATALOGUE)
    return figures


def crashes(clock: Clock) -> Counter[str]:
    """Every scenario killed before and after each of its commits."""
    return _disasters(
        clock,
        {
            "kill before commit": lambda run: run.counts.commits,
            "kill after commit": lambda run: run.counts.commits,
        },
    )


def power(clock: Clock) -> Counter[str]:
    """Every scenario with a power failure at each change of a file."""
    return _disasters(clock, {"power": lambda run: run.counts.changes})


def errors(clock: Clock) -> Counter[str]:
    """Every scenario with an I/O error at each call of SQLite, and a failed sync at each sync."""
    return _disasters(clock, {"error": lambda run: run.counts.calls, "sync": lambda run: run.counts.ops["sync"]})


def full(clock: Clock) -> Counter[str]:
    """Every scenario with a disk that is full from each write on, for some seconds."""
    return _disasters(clock, {"full": lambda run: run.counts.ops["write"]})


def kills(clock: Clock) -> Counter[str]:
    """Real processes, killed with SIGKILL under load."""
    figures = Counter[str]()
    for _ in clock.rounds():
        seed = Random().randrange(1, 1 << 32)
        with tempfile.TemporaryDirectory(prefix="holdfast-torture-") as home:
            try:
                figures.update(asyncio.run(kill_and_judge(Path(home), KILLS_PER_ROUND, seed)))
            except BaseException as error:
                repeat = (
                    f"HOLDFAST_SEED={seed} HOLDFAST_KILLS={KILLS_PER_ROUND} python -m pytest tests/crash -k exactly"
                )
                raise Broken(repeat, error) from error
    return figures


def fuzz(clock: Clock) -> Counter[str]:
    """Hostile bytes for the decoder, the state machine, the engine and its HTTP APIs."""
    from tests.fuzz import properties

    figures = Counter[str]()
    for seed in clock.rounds():
        for name, check_one in properties.ALL.items():
            try:
                figures[name] += check_one(seed)
            except BaseException as error:
                raise Broken(f"python -m pytest tests/fuzz -k '{name}' --hypothesis-seed={seed}", error) from error
    return figures


@dataclass(frozen=True, slots=True)
class Campaign:
    """One line of docs/reliability.md."""

    title: str
    run: Callable[[Clock], Counter[str]]
    share: float = 1.0
    """Of the time, compared with the others."""


CAMPAIGNS: dict[str, Campaign] = {
    "core": Campaign("Simulation of the state machine", core, 0.5),
    "simulation": Campaign("Simulation of the whole engine", simulation, 3.0),
    "mutants": Campaign("Engines broken on purpose", mutants, 0.5),
    "crashes": Campaign("A crash before and after each commit", crashes),
    "power": Campaign("Power loss at each change of a file", power, 2.0),
    "errors": Campaign("An error at each call of the file system", errors),
    "full": Campaign("A full disk from each write on", full),
    "kills": Campaign("SIGKILL of real processes", kills, 2.0),
    "fuzz": Campaign("Fuzz", fuzz),
}
