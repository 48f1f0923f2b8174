"""Runs a scenario of the catalogue, with one disaster, and compares with what it does undisturbed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from holdfast.errors import HoldfastError
from tests.power.disk import CHANGES, Images, Op, PowerIsOff, write_images
from tests.simulation.catalogue import Scenario
from tests.simulation.loop import VirtualLoop, run_virtually
from tests.simulation.machine import Machine
from tests.simulation.oracle import History, Rows, Violation, judge_at_rest

PATIENCE_S = 300.0


@dataclass
class Run:
    """What came of one run."""

    outcome: Any
    commits: int
    ops: list[Op]
    """Changes of files, until the scenario was done."""
    executions: Counter[tuple[str, Any]]
    commands: set[int]
    """Types of all frames in all journals."""
    restarts: int
    errors: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Disaster:
    """Exactly one of the first two is set."""

    at_commit: tuple[int, str] | None = None
    """(n, `before` or `after`)."""
    at_change: int | None = None
    """The power fails at the n-th change of a file, which does not happen any more."""
    keep: float | None = None
    """Of what was not synced; None leaves it to chance."""
    is_power_loss: bool = False


def run(
    folder: Path,
    scenario: Scenario,
    disaster: Disaster | None = None,
    *,
    seed: int = 0,
    in_thread: bool = False,
    is_new: bool = False,
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
        machine = Machine(folder / "disk", loop, Random(seed), suspend_after_ms=20)
        machine.commits_in_thread = in_thread
        machine.wire.delay_s = 0.001
        async with machine.switched_on():
            return await _run(machine, folder, scenario, disaster)

    return run_virtually(main, Random(seed))


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
    restarts = 0
    if disaster is not None:
        machine.dies_at = disaster.at_commit
        if disaster.at_change is not None:
            machine.disk.before = _cut(machine, disaster.at_change)
    asking = asyncio.ensure_future(scenario(machine))
    deadline_s = machine.loop.time() + PATIENCE_S
    ops: list[Op] = machine.disk.log
    while not asking.done():
        if machine.loop.time() > deadline_s:
            raise Violation("accepted_request_survives", "the scenario does not end")
        if machine.engine is not None and not machine.disk.is_off:
            await asyncio.wait((asking, asyncio.ensure_future(machine.engine.stopped.wait())), timeout=0.05)
            continue
        if machine.disk.is_off:
            restarts += 1
            await _fall(machine, disaster)
            if machine.has_database:
                judge_at_rest(history, _rows(machine, folder))
        try:
            await machine.start()
        except HoldfastError as error:
            if not machine.disk.is_off:
                raise Violation("integrity", f"does not start: {error}") from error
            continue
        if not machine.disk.is_off:
            history.look_at_rest(_rows(machine, folder))
    outcome = asking.result()
    commits, done = machine.commits, len(ops)
    await machine.stop()
    rows = _rows(machine, folder)
    judge_at_rest(history, rows)
    for (u, step), (value, length) in history.recorded.items():
        if any(entry.what == "step" and (entry.u, entry.detail) == (u, step) for entry in machine.ledger[length:]):
            raise Violation("recorded_step_never_runs_again", f"step {step} of {u} was recorded as {value}")
    commands = {kind for row in rows.invocations for kind, _ in rows.journal(row)}
    return Run(outcome, commits, ops[:done], machine.here.executions, commands, restarts)


async def _fall(machine: Machine, disaster: Disaster | None) -> None:
    assert disaster is not None
    machine.disk.before = lambda kind, file: None
    if machine.engine is None:
        machine.restore_after_failed_start(disaster.keep)
    elif disaster.is_power_loss:
        await machine.lose_power(disaster.keep)
    else:
        await machine.kill()


def _cut(machine: Machine, at_change: int) -> Callable[[str, str], BaseException | None]:
    changes = 0

    def before(kind: str, file: str) -> BaseException | None:
        nonlocal changes
        if kind in CHANGES:
            changes += 1
            if changes == at_change:
                machine.disk.cut_power()
                return PowerIsOff("power is off")
        return None

    return before


def _rows(machine: Machine, folder: Path) -> Rows:
    copy = write_images(folder / "look", machine.disk.platters.cache())
    return Rows(copy / "engine.db")
