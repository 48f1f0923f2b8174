"""Runs a scenario of the catalogue, with one disaster, and compares with what it does undisturbed."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from holdfast.errors import EngineError, HoldfastError
from tests.power.disk import CALLS, CHANGES, Images, full_error, io_error, write_images
from tests.simulation.catalogue import Scenario
from tests.simulation.loop import VirtualLoop, run_virtually
from tests.simulation.machine import Machine
from tests.simulation.oracle import History, Rows, Violation, judge_at_rest

PATIENCE_S = 300.0
SPACE_RETURNS_S = 3.0


@dataclass
class Counts:
    """What happened until the scenario was done."""

    commits: int
    calls: int
    """Of SQLite to its file system."""
    ops: Counter[str]
    """Those that change something, by kind."""

    @property
    def changes(self) -> int:
        return self.ops.total()


@dataclass
class Run:
    """What came of one run."""

    outcome: Any
    counts: Counts
    executions: Counter[tuple[str, Any]]
    commands: set[int]
    """Types of all frames in all journals."""
    restarts: int
    was_struck: bool
    """False: it was over before the disaster could happen."""
    kind: str
    """Of the disaster."""


@dataclass(frozen=True, slots=True)
class Disaster:
    """The one thing that goes wrong."""

    kind: str
    """`kill before commit`, `kill after commit`; `power`: it fails at a change of a file, which does not happen any more;
    `error`: a call fails; `sync`: a sync fails; `full`: from a write on there is no space, for some seconds."""
    at: int
    """Which of those, from 1."""
    keep: float | None = None
    """Of what was not synced when the power failed; None leaves it to chance."""


def run(
    folder: Path,
    scenario: Scenario,
    disaster: Disaster | None = None,
    *,
    seed: int = 0,
    in_thread: bool = False,
    is_new: bool = False,
    version: int = 7,
) -> Run:
    """
    Args:
        in_thread: commits take place in a thread, beside whatever handlers do.
        is_new: there is no database yet, and making it is part of the run.
    Raises:
        Violation: something acknowledged was lost, or a recorded step ran again.
    """

    new = {} if is_new else _empty_database()

    async def main(loop: VirtualLoop) -> Run:
        write_images(folder / "disk", new)
        machine = Machine(folder / "disk", loop, Random(seed), suspend_after_ms=20, protocol_version_max=version)
        machine.commits_in_thread = in_thread
        machine.wire.delay_s = 0.001
        async with machine.switched_on():
            return await _run(machine, folder, scenario, disaster)

    return run_virtually(main, Random(seed))


def check(undisturbed: Run, disturbed: Run) -> None:
    """
    Raises:
        Violation: the disaster has changed what came of it.
    """
    if disturbed.outcome != undisturbed.outcome:
        raise Violation("an_output_never_changes", f"{disturbed.outcome}, and undisturbed {undisturbed.outcome}")
    often = {step: count for step, count in disturbed.executions.items() if count > 1 + disturbed.restarts}
    if often and disturbed.kind != "full":  # there the attempts of one process are ended, and start again in it
        raise Violation("recorded_step_never_runs_again", f"{disturbed.restarts} restarts, executions: {often}")


@cache
def _empty_database() -> Images:
    """What an engine leaves that was started once, and had nothing to do."""
    with TemporaryDirectory() as folder:

        async def main(loop: VirtualLoop) -> Images:
            machine = Machine(Path(folder), loop, Random(0))
            async with machine.switched_on():
                await machine.start()
                await machine.stop()
            return machine.disk.platters.cache()

        return run_virtually(main, Random(0))


async def _run(machine: Machine, folder: Path, scenario: Scenario, disaster: Disaster | None) -> Run:
    history = History(machine.ledger)
    trouble = _Trouble(machine, disaster)
    restarts = 0
    asking = asyncio.ensure_future(scenario(machine))
    deadline_s = machine.loop.time() + PATIENCE_S
    while not asking.done():
        if machine.loop.time() > deadline_s:
            raise Violation("accepted_request_survives", "the scenario does not end")
        engine = machine.engine
        if engine is not None and not machine.disk.is_off and not engine.stopped.is_set():
            await asyncio.wait((asking, asyncio.ensure_future(engine.stopped.wait())), timeout=0.05)
            continue
        if machine.disk.is_off or engine is not None:
            restarts += 1
            await trouble.fall()
            if machine.has_database:
                judge_at_rest(history, _rows(machine, folder))
        try:
            await machine.start()
        except HoldfastError as error:
            if not trouble.has_struck:
                raise Violation("integrity", f"does not start: {error}") from error
            continue
        if not machine.disk.is_off:
            history.look_at_rest(_rows(machine, folder))
    outcome = asking.result()
    counts = Counts(machine.commits, machine.disk.calls, Counter(op.kind for op in machine.disk.log))
    await machine.stop()
    rows = _rows(machine, folder)
    judge_at_rest(history, rows)
    for (u, step), (value, length) in history.recorded.items():
        if any(entry.what == "step" and (entry.u, entry.detail) == (u, step) for entry in machine.ledger[length:]):
            raise Violation("recorded_step_never_runs_again", f"step {step} of {u} was recorded as {value}")
    commands = {kind for row in rows.invocations for kind, _ in rows.journal(row)}
    kind = disaster.kind if disaster is not None else ""
    return Run(outcome, counts, machine.here.executions, commands, restarts, trouble.has_struck, kind)


class _Trouble:
    """Makes the disaster happen, once."""

    def __init__(self, machine: Machine, disaster: Disaster | None) -> None:
        self._machine = machine
        self._disaster = disaster
        self._count = 0
        self.has_struck = False
        if disaster is None:
            return
        machine.may_stop = True
        if disaster.kind.startswith("kill"):
            machine.dies_at = (disaster.at, disaster.kind.split()[1])
            machine.on_death = self._struck
        else:
            machine.disk.before = self._before

    def _struck(self) -> None:
        self.has_struck = True

    def _before(self, kind: str, file: str) -> BaseException | None:
        disaster, disk = self._disaster, self._machine.disk
        assert disaster is not None
        counted = {"power": CHANGES, "error": CALLS, "sync": ("sync",), "full": ("write",)}[disaster.kind]
        if kind not in counted:
            return None
        self._count += 1
        if self._count < disaster.at or (self._count > disaster.at and disaster.kind != "full"):
            return None
        if self._count == disaster.at:
            self.has_struck = True
            if disaster.kind == "full":
                self._machine.loop.call_later(SPACE_RETURNS_S, self._free)
        if disaster.kind == "power":
            disk.cut_power()
        return full_error(kind) if disaster.kind == "full" else io_error(kind)

    def _free(self) -> None:
        self._machine.disk.before = lambda kind, file: None

    async def fall(self) -> None:
        """The process is gone, by itself or not."""
        machine, disaster = self._machine, self._disaster
        assert disaster is not None
        if machine.engine is None:
            machine.restore_after_failed_start(disaster.keep)
        elif not machine.disk.is_off:
            if not isinstance(machine.engine.failure, EngineError):
                raise Violation("engine_goes_on", f"stopped without an error: {machine.engine.failure}")
            await machine.has_stopped()
        elif disaster.kind == "power":
            await machine.lose_power(disaster.keep)
        else:
            await machine.kill()


def _rows(machine: Machine, folder: Path) -> Rows:
    copy = write_images(folder / "look", machine.disk.platters.cache())
    return Rows(copy / "engine.db")
