"""What the fault battery does, as campaigns that run for as long as they are given. CI runs a part of each.

A campaign plays rounds until its time or their number is over, and returns what happened, counted. A round has a number,
its seed, and raises where something does not hold.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from tests.conformance.drawing import Node, programs
from tests.conformance.test_programs import AT_ONCE, Engines
from tests.core.promises import Promises
from tests.core.simulated import Simulated
from tests.crash.load import kill_and_judge
from tests.fuzz import properties
from tests.simulation.catalogue import CATALOGUE
from tests.simulation.crashes import Disaster, Run, check, run
from tests.simulation.mutants import MUTANTS, applied
from tests.simulation.world import play, version_of
from tests.support.restate_server import server_binary
from tests.support.violation import Violation

MEMORY = Path("/dev/shm")
VERSIONS = (7, 6, 5)
CORE_STEPS = 150
KILLS_PER_ROUND = 50
PROGRAMS_PER_ROUND = 40
FUZZ_TIMES = 2
"""As many inputs as in CI, in one round."""

Figures = Counter[str]


class Skipped(Exception):
    """It cannot run here; the text says why."""


class Broken(Exception):
    """A round has failed."""

    def __init__(self, seed: int, details: str = "") -> None:
        super().__init__(details)
        self.seed = seed


class Clock:
    """How long a campaign may go on."""

    def __init__(self, first_seed: int, *, seconds: float | None = None, count: int | None = None) -> None:
        self._until_s = None if seconds is None else time.monotonic() + seconds
        self._count = count
        self._first_seed = first_seed
        self.rounds_done = 0

    def rounds(self) -> Iterator[int]:
        """Seeds, one after the other; at least one.

        Raises:
            Broken: what the loop's body has raised, with the seed of that round.
        """
        while True:
            yield self._first_seed + self.rounds_done
            self.rounds_done += 1
            if self._count is not None and self.rounds_done >= self._count:
                return
            if self._until_s is not None and time.monotonic() >= self._until_s:
                return

    @property
    def seed(self) -> int:
        """Of the round that runs, or ran last."""
        return self._first_seed + self.rounds_done


@contextmanager
def _folder() -> Generator[Path]:
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="holdfast-torture-", dir=place) as home:
        yield Path(home)


@contextmanager
def _quiet(*names: str) -> Generator[None]:
    """They report every failure that is made here."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# ---- simulated -----------------------------------------------------------------------------------------------------------


def core(clock: Clock) -> Figures:
    """The state machine alone, driven at random, with crashes at any commit."""
    figures = Figures()
    for seed in clock.rounds():
        for version in (6, 7):
            simulated = Simulated(seed, version)
            promises = Promises(simulated)
            for _ in range(CORE_STEPS):
                simulated.step()
                promises.check()
            promises.everything_finishes()
            figures["histories"] += 1
            figures["events"] += CORE_STEPS
            figures["crashes"] += sum("crash" in step for step in simulated.trace)
    return figures


def simulation(clock: Clock) -> Figures:
    """Whole engines under virtual time, with every kind of trouble."""
    figures = Figures()
    for seed in clock.rounds():
        with _folder() as folder:
            world = play(seed, folder, version=version_of(seed))
        figures["histories"] += 1
        figures["virtual seconds"] += round(world.loop.time())
        figures["invocations judged"] += world.invocations
        figures["steps"] += sum(world.machine.here.executions.values())
        figures["broken streams"] += world.machine.wire.broken_streams
        figures.update({f"trouble: {kind}": count for kind, count in world.happened.items()})
    return figures


def mutants(clock: Clock) -> Figures:
    """Engines broken on purpose: how many histories notice each of them."""
    figures = Figures()
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


def _disasters(clock: Clock, kinds: dict[str, Callable[[Run], int]]) -> Figures:
    """Every moment of one scenario in each round; after all scenarios in another version, and with the commits elsewhere."""
    figures = Figures()
    names, played = [*CATALOGUE], set[str]()
    for seed in clock.rounds():
        again, number = divmod(seed, len(names))
        name, scenario = names[number], CATALOGUE[names[number]]
        in_thread, version = bool(again % 2), VERSIONS[again % 3]
        with _folder() as folder:
            undisturbed = run(folder / "undisturbed", scenario, in_thread=in_thread, version=version)
        for kind, count in kinds.items():
            for at in range(1, count(undisturbed) + 1):
                with _folder() as folder:
                    try:
                        disturbed = run(
                            folder, scenario, Disaster(kind, at), seed=seed, in_thread=in_thread, version=version
                        )
                        check(undisturbed, disturbed)
                    except Exception as error:
                        raise Broken(seed, f"{name}: {kind} {at}, version {version}") from error
                figures[f"disasters: {kind}"] += disturbed.was_struck
                figures["restarts"] += disturbed.restarts
        played.add(name)
    figures["scenarios"] = len(played)
    return figures


def crashes(clock: Clock) -> Figures:
    """Every scenario killed before and after each of its commits."""
    return _disasters(
        clock,
        {
            "kill before commit": lambda run: run.counts.commits,
            "kill after commit": lambda run: run.counts.commits,
        },
    )


def power(clock: Clock) -> Figures:
    """Every scenario with a power failure at each change of a file."""
    return _disasters(clock, {"power": lambda run: run.counts.changes})


def errors(clock: Clock) -> Figures:
    """Every scenario with an I/O error at each call of SQLite, and a failed sync at each sync."""
    return _disasters(clock, {"error": lambda run: run.counts.calls, "sync": lambda run: run.counts.ops["sync"]})


def full(clock: Clock) -> Figures:
    """Every scenario with a disk that is full from each write on, for some seconds."""
    return _disasters(clock, {"full": lambda run: run.counts.ops["write"]})


# ---- real ----------------------------------------------------------------------------------------------------------------


def kills(clock: Clock) -> Figures:
    """Real processes, killed with SIGKILL under load."""
    figures = Figures()
    for seed in clock.rounds():
        with tempfile.TemporaryDirectory(prefix="holdfast-torture-") as home:
            figures.update(asyncio.run(kill_and_judge(Path(home), KILLS_PER_ROUND, seed)))
    return figures


def conformance(clock: Clock) -> Figures:
    """Programs that Hypothesis draws, on holdfast in three forms and on a real Restate server."""
    if server_binary() is None:
        raise Skipped("the real Restate server is not here; `make test` installs it where npm is")
    figures = Figures()
    with (
        _quiet("restate", "holdfast", "hypercorn", "asyncio"),
        tempfile.TemporaryDirectory(prefix="holdfast-torture-") as home,
        Engines(Path(home)) as engines,
    ):
        for seed in clock.rounds():

            @hypothesis_seed(seed)
            @settings(
                max_examples=max(1, PROGRAMS_PER_ROUND // AT_ONCE),
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=properties.SLOW_IS_FINE,
            )
            @given(batch=st.lists(programs(), min_size=AT_ONCE, max_size=AT_ONCE))
            def every_engine_gives_the_same(batch: list[Node]) -> None:
                for program, outcomes in zip(batch, engines.play(batch), strict=True):
                    *others, reference = outcomes
                    for other in others:
                        if outcomes[other] != outcomes[reference]:
                            told = f"{outcomes[other]!r} and {outcomes[reference]!r} on {json.dumps(program)}"
                            raise Violation("conformance", f"{other} and {reference} differ: {told}")
                    figures["programs"] += 1
                    figures["runs of a program"] += len(outcomes)

            every_engine_gives_the_same()
    return figures


def fuzz(clock: Clock) -> Figures:
    """Hostile bytes for the protocol, calls of our OpenAPI documents for the HTTP APIs."""
    figures = Figures()
    for seed in clock.rounds():
        for name, one in properties.ALL.items():
            try:
                figures[name] += properties.ask(one, examples=FUZZ_TIMES * one.examples, first=seed)
            except Exception as error:
                raise Broken(seed, name) from error
    return figures


@dataclass(frozen=True, slots=True)
class Campaign:
    """One line of docs/reliability.md."""

    title: str
    round: str
    """What a round is."""
    run: Callable[[Clock], Figures]
    share: float = 1.0
    """Of the time, compared with the others."""


CAMPAIGNS: dict[str, Campaign] = {
    "core": Campaign("Simulation of the state machine", "two histories", core, 0.5),
    "simulation": Campaign("Simulation of the whole engine", "one history", simulation, 3.0),
    "mutants": Campaign("Engines broken on purpose", "one history of each", mutants, 0.5),
    "crashes": Campaign("A kill before and after each commit", "one scenario", crashes),
    "power": Campaign("Power loss at each change of a file", "one scenario", power, 2.0),
    "errors": Campaign("A failing call of the file system, at each of them", "one scenario", errors),
    "full": Campaign("A full disk from each write on", "one scenario", full),
    "kills": Campaign("SIGKILL of real processes under load", f"{KILLS_PER_ROUND} kills", kills, 2.0),
    "conformance": Campaign(
        "Drawn programs, compared with a real Restate server", f"{PROGRAMS_PER_ROUND} programs", conformance
    ),
    "fuzz": Campaign("Fuzz of protocol and HTTP APIs", "each property, some hundred times", fuzz),
}
