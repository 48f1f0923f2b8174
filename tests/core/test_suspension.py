"""Suspension races: nothing awaited is slept through, in all three encodings and whatever comes first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core.events import PauseRequested, TimerFired
from holdfast.protocol import messages as m
from holdfast.protocol.messages import Result
from tests.core import sdk
from tests.core.driver import START_MS, World

ANY, ALL = 1, 2
SLEEP_MS = 1_000

Step = Callable[[World, str], object]


def fires(number: int) -> Step:
    """The sleep with this completion id is over."""

    def step(world: World, invocation: str) -> None:
        (timer,) = [timer for timer in world.timers() if timer[2] == number]
        world.now_ms = max(world.now_ms, timer[0])
        world.batch(TimerFired(*timer, world.now_ms))

    return step


def arrives(signal: int | str) -> Step:
    return lambda world, invocation: world.signal(invocation, signal, Result(value=b"s"))


def suspends(completions: tuple[int, ...] = (), signals: tuple[int, ...] = (), names: tuple[str, ...] = ()) -> Step:
    return lambda world, invocation: world.suspend(invocation, completions, signals, names)


def closes(world: World, invocation: str) -> None:
    world.close_input(invocation)


def crashes(world: World, invocation: str) -> None:
    world.crash()


# What happens, in order -> the stored status. Two sleeps (completions 1 and 2) are set up first.
SUSPENSION: dict[str, tuple[list[Step], str]] = {
    "awaited, then arrives: resumes": ([suspends((1,)), fires(1)], "invoked"),
    "arrived, then awaited: resumes": ([closes, fires(1), suspends((1,))], "invoked"),
    "another arrives: still waiting": ([suspends((1,)), fires(2)], "suspended"),
    "another arrived before: still waiting": ([closes, fires(2), suspends((1,))], "suspended"),
    "one of two arrives: resumes": ([suspends((1, 2)), fires(2)], "invoked"),
    "one of two arrived before: resumes": ([closes, fires(2), suspends((1, 2))], "invoked"),
    "awakeable, then resolved": ([suspends(signals=(1, 17)), arrives(17)], "invoked"),
    "resolved, then suspended on it": ([closes, arrives(17), suspends(signals=(1, 17))], "invoked"),
    "another awakeable: still waiting": ([suspends(signals=(1, 17)), arrives(18)], "suspended"),
    "named signal": ([suspends(names=("go",)), arrives("go")], "invoked"),
    "named signal before": ([closes, arrives("go"), suspends(names=("go",))], "invoked"),
    "another name: still waiting": ([suspends(names=("go",)), arrives("stop")], "suspended"),
    "cancel while suspended": ([suspends((1,), signals=(1,)), World.cancel], "invoked"),
    "cancel while it decides": ([closes, World.cancel, suspends((1,), signals=(1,))], "invoked"),
    "arrives after a crash": ([suspends((1,)), crashes, fires(1)], "invoked"),
    "another arrives after a crash: still waiting": ([suspends((1,)), crashes, fires(2)], "suspended"),
    "arrived before a crash": ([suspends((1,)), fires(1), crashes], "invoked"),
}


@pytest.mark.parametrize("version", [5, 6, 7])
@pytest.mark.parametrize(("steps", "status"), SUSPENSION.values(), ids=SUSPENSION.keys())
def test_suspension(steps: list[Step], status: str, version: int):
    world = World(version)
    invocation = two_sleeps(world)
    for step in steps:
        step(world, invocation)
    assert world.status(invocation) == status
    assert (invocation in world.attempts) == (status == "invoked")


def two_sleeps(world: World) -> str:
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.sleep(1, START_MS + SLEEP_MS), sdk.sleep(2, START_MS + 2 * SLEEP_MS))
    return invocation


def all_of(*completions: int) -> bytes:
    """How version 7 writes `await gather(…)`: cancel, or all of them."""
    return sdk.future(signals=(1,), nested=(sdk.future(completions, combinator=ALL),))


TREES: dict[str, tuple[bytes, list[Step], str]] = {
    "all: first": (all_of(1, 2), [fires(1)], "suspended"),
    "all: first, crash": (all_of(1, 2), [fires(1), crashes], "suspended"),
    "all: both": (all_of(1, 2), [fires(1), fires(2)], "invoked"),
    "all: both, in the other order": (all_of(1, 2), [fires(2), fires(1)], "invoked"),
    "all: first, crash, second": (all_of(1, 2), [fires(1), crashes, fires(2)], "invoked"),
    "all: cancel": (all_of(1, 2), [World.cancel], "invoked"),
    "all: first, then cancel": (all_of(1, 2), [fires(1), World.cancel], "invoked"),
    "any": (sdk.future((1, 2)), [fires(2)], "invoked"),
}


@pytest.mark.parametrize(("tree", "steps", "status"), TREES.values(), ids=TREES.keys())
def test_trees_of_version_7(tree: bytes, steps: list[Step], status: str):
    world = World(7)
    invocation = two_sleeps(world)
    world.close_input(invocation)
    world.says(invocation, sdk.suspension_v7(tree))
    for step in steps:
        step(world, invocation)
    assert world.status(invocation) == status


def test_gather_of_version_7_is_woken_once():
    world = World(7)
    invocation = two_sleeps(world)
    world.close_input(invocation)
    world.says(invocation, sdk.suspension_v7(all_of(1, 2)))
    world.started.clear()
    world.advance(SLEEP_MS)
    world.advance(SLEEP_MS)
    assert world.started == [invocation]


def test_part_of_a_tree_that_arrived_while_it_decided_is_not_awaited_again():
    world = World(7)
    invocation = two_sleeps(world)
    world.close_input(invocation)
    world.advance(SLEEP_MS)
    world.says(invocation, sdk.suspension_v7(all_of(1, 2)))
    assert world.status(invocation) == "suspended"
    world.advance(SLEEP_MS)
    assert world.status(invocation) == "invoked"


def test_what_was_forwarded_is_not_taken_for_missed():
    # The attempt read the first signal, so it waits for the second one of the same name.
    world = World()
    invocation = world.submit("Plain/run")
    world.signal(invocation, "go")
    world.suspend(invocation, names=("go",))
    assert world.status(invocation) == "suspended"
    world.signal(invocation, "go")
    assert world.status(invocation) == "invoked"


def test_arrival_and_suspension_in_one_batch():
    world = World()
    invocation = two_sleeps(world)
    world.close_input(invocation)
    suspension = world.said(invocation, sdk.suspension(signals=(17,)))
    world.batch(world.signalled(invocation, 17), suspension)
    assert world.status(invocation) == "invoked"
    world.close_input(invocation)
    suspension = world.said(invocation, sdk.suspension(signals=(18,)))
    world.batch(suspension, world.signalled(invocation, 18))
    assert world.status(invocation) == "invoked"


def test_a_signal_between_the_request_to_pause_and_the_suspension():
    world = World()
    invocation = world.submit("Plain/run")
    pause = PauseRequested(world.token(), invocation, world.now_ms)
    world.batch(pause, world.signalled(invocation, 17))
    world.says(invocation, sdk.suspension(signals=(17,)))
    assert world.status(invocation) == "paused"
    world.resume(invocation)
    assert [m.notification_leaf(*frame) for frame in world.attempts[invocation].known[1:]] == [17]


def test_a_run_result_after_the_input_was_closed_starts_the_next_attempt():
    # Request/response: each step ends with Run, proposal, suspension on it.
    world = World()
    invocation = world.submit("Plain/run")
    world.close_input(invocation)
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"r"), sdk.suspension((1,)))
    assert world.status(invocation) == "invoked"
    assert world.result(invocation, 1) == Result(value=b"r")


def test_a_suspension_resets_the_retry_counters():
    world = World()
    invocation = world.submit("Pausing/run")
    for _ in range(5):
        world.fail(invocation)
        world.retry(invocation)
        world.fail(invocation)
        world.retry(invocation)
        world.suspend(invocation, signals=(17,))
        world.signal(invocation, 17)
        assert world.attempts[invocation].retry_count == 0


def test_nothing_of_a_waiting_invocation_stays_in_memory():
    world = World()
    for number in range(50):
        invocation = world.submit("Counter/add", f"k{number}")
        world.says(invocation, sdk.sleep(1, START_MS + SLEEP_MS))
        world.suspend(invocation, (1,))
        world.submit("Counter/add", f"k{number}")
        world.submit("Plain/run", start_at_ms=START_MS + SLEEP_MS)
        world.finish(world.submit("Plain/run"))
    assert world.machine.resident == {}
    assert world.machine.by_id == {}


# What an attempt waits for -> the status, when it suspends of its own accord: before the end of its input was sent to it.
UNASKED: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "on a completion that came in the same batch": ((1,), (), "invoked"),
    "on an awakeable that came before": ((), (1, 17), "invoked"),
    "on what is not there": ((2,), (1, 18), "suspended"),
    "on a cancellation that came before, which may have been consumed": ((), (1,), "suspended"),
}


@pytest.mark.parametrize(("completions", "signals", "status"), UNASKED.values(), ids=UNASKED)
def test_a_suspension_that_nobody_asked_for(completions: tuple[int, ...], signals: tuple[int, ...], status: str):
    """What was sent to the attempt may not have reached it: the journal decides, as on the server."""
    world = World()
    invocation = world.submit("Plain/run")
    world.signal(invocation, 17, Result(value=b"s"))
    world.signal(invocation, m.CANCEL_SIGNAL, Result())
    world.says(invocation, sdk.sleep(1, START_MS - 1), sdk.suspension(completions, signals))
    assert world.status(invocation) == status


@pytest.mark.parametrize("version", [6, 7])
def test_a_suspension_on_nothing_is_a_failure(version: int):
    world = World(version)
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.suspension_v7(sdk.future()) if version == 7 else sdk.suspension())
    assert (world.status(invocation), invocation in world.retries) == ("invoked", True)
