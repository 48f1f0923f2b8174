"""What operators ask for: cancel, kill, pause, resume, purge. Status by status, answer and effect."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core.events import KillRequested, PurgeRequested
from holdfast.core.model import Failure
from holdfast.protocol import messages as m
from holdfast.protocol.messages import VOID, Result
from tests.core import sdk
from tests.core.driver import START_MS, World
from tests.core.test_lifecycle import GONE, backing_off, completed, held, new, paused, scheduled, suspended

History = Callable[[World], str]
UNKNOWN = "inv_1akW45ORM7j12me3GpZiiLvlCyNJ1Z8UQO"


def ready(world: World) -> str:
    """Waits for a place: started by the core, not yet by the runtime."""
    invocation = new(world)
    attempt = world.attempts.pop(invocation)
    attempt.invocation.in_flight = False
    return invocation


# (history, answer, status afterwards)
CANCEL: dict[str, tuple[History, str, str]] = {
    "running": (new, "appended", "invoked"),
    "ready": (ready, "appended", "invoked"),
    "backing off": (backing_off, "appended", "invoked"),
    "suspended": (suspended, "appended", "invoked"),
    "paused": (paused, "appended", "invoked"),
    "scheduled": (scheduled, "done", GONE),
    "pending": (held, "done", GONE),
    "completed": (completed, "conflict", "completed"),
    "unknown": (lambda world: UNKNOWN, "not_found", GONE),
}
KILL: dict[str, tuple[History, str, str]] = {
    "running": (new, "done", "completed"),
    "ready": (ready, "done", "completed"),
    "backing off": (backing_off, "done", "completed"),
    "suspended": (suspended, "done", "completed"),
    "paused": (paused, "done", "completed"),
    "scheduled": (scheduled, "done", GONE),
    "pending": (held, "done", GONE),
    "completed": (completed, "conflict", "completed"),
    "unknown": (lambda world: UNKNOWN, "not_found", GONE),
}
PAUSE: dict[str, tuple[History, str, str]] = {
    "running": (new, "accepted", "invoked"),
    "ready": (ready, "accepted", "paused"),
    "backing off": (backing_off, "accepted", "paused"),
    "suspended": (suspended, "done", "suspended"),
    "paused": (paused, "done", "paused"),
    "scheduled": (scheduled, "conflict", "scheduled"),
    "pending": (held, "conflict", "inboxed"),
    "completed": (completed, "conflict", "completed"),
    "unknown": (lambda world: UNKNOWN, "not_found", GONE),
}
RESUME: dict[str, tuple[History, str, str]] = {
    "running": (new, "done", "invoked"),
    "ready": (ready, "done", "invoked"),
    "backing off": (backing_off, "done", "invoked"),
    "suspended": (suspended, "done", "invoked"),
    "paused": (paused, "done", "invoked"),
    "scheduled": (scheduled, "too_early", "scheduled"),
    "pending": (held, "too_early", "inboxed"),
    "completed": (completed, "conflict", "completed"),
    "unknown": (lambda world: UNKNOWN, "not_found", GONE),
}
PURGE: dict[str, tuple[History, str, str]] = {
    "running": (new, "conflict", "invoked"),
    "suspended": (suspended, "conflict", "suspended"),
    "paused": (paused, "conflict", "paused"),
    "scheduled": (scheduled, "conflict", "scheduled"),
    "pending": (held, "conflict", "inboxed"),
    "completed": (completed, "done", GONE),
    "unknown": (lambda world: UNKNOWN, "not_found", GONE),
}
OPERATIONS = {
    "cancel": (World.cancel, CANCEL),
    "kill": (World.kill, KILL),
    "pause": (World.pause, PAUSE),
    "resume": (World.resume, RESUME),
    "purge": (World.purge, PURGE),
}
CASES = [
    pytest.param(operate, *case, id=f"{name} {status}")
    for name, (operate, table) in OPERATIONS.items()
    for status, case in table.items()
]


@pytest.mark.parametrize(("operate", "history", "answer", "status"), CASES)
def test_answer_and_status(operate: Callable[[World, str], str], history: History, answer: str, status: str):
    world = World()
    invocation = history(world)
    assert operate(world, invocation) == answer
    assert world.status(invocation) == status


@pytest.mark.parametrize(("operate", "history", "answer", "status"), CASES)
def test_the_same_after_a_crash(operate: Callable[[World, str], str], history: History, answer: str, status: str):
    # Ready, running and backing off differ only in memory: after a crash all three run.
    world = World()
    invocation = history(world)
    world.crash()
    if operate is World.pause and status == "paused" and history in (ready, backing_off):
        status = "invoked"
    assert operate(world, invocation) == answer
    assert world.status(invocation) == status


@pytest.mark.parametrize("operate", [World.cancel, World.kill, World.pause, World.resume])
def test_refusals_name_the_invocation(operate: Callable[[World, str], str]):
    world = World()
    operate(world, UNKNOWN)
    done = completed(world)
    operate(world, done)
    (_, unknown), (_, conflict) = world.refusals.values()
    assert UNKNOWN in unknown
    assert conflict.startswith(f"The invocation '{done}' ")


# ---- cancel ----------------------------------------------------------------------------------------------------------------


def test_cancel_is_a_signal_in_the_journal():
    world = World()
    invocation = new(world)
    world.cancel(invocation)
    world.cancel(invocation)
    assert world.notifications(invocation) == [(1, VOID), (1, VOID)]
    assert [m.notification_leaf(*frame) for frame in world.attempts[invocation].received] == [1, 1]


def test_a_handler_cancels_another():
    world = World()
    canceller = new(world)
    targets = [new(world), suspended(world), paused(world), scheduled(world), held(world), completed(world)]
    for target in targets:
        world.says(canceller, sdk.send_signal(target, m.CANCEL_SIGNAL))
    assert [world.status(target) for target in targets] == ["invoked"] * 3 + [GONE] * 2 + ["completed"]


def test_whoever_waits_for_a_cancelled_one_gets_409():
    world = World()
    caller = new(world)
    held(world)
    world.says(caller, sdk.call("Counter", "add", key="k", id_notification=1, completion_id=2))
    child = world.child_id(caller, 1)
    world.suspend(caller, (2,))
    world.cancel(child)
    assert world.result(caller, 2) == Result(failure=(409, "canceled", {}))
    assert world.status(caller) == "invoked"
    assert world.completion(child).failure == Failure(409, "canceled")


def test_cancel_reaches_calls_that_the_sdk_names_and_nothing_else():
    world = World()
    parent = new(world)
    world.says(
        parent,
        sdk.call("Plain", "run", id_notification=1, completion_id=2),
        sdk.send("Plain", "run", id_notification=3),
        sdk.send("Plain", "run", id_notification=4, invoke_time_ms=START_MS + 3_600_000),
    )
    called, sent, delayed = [world.child_id(parent, number) for number in (1, 3, 4)]
    world.cancel(parent)
    world.says(parent, sdk.send_signal(called, m.CANCEL_SIGNAL), sdk.output_failure(409, "cancelled"), sdk.END)
    assert world.notifications(called) == [(1, VOID)]
    assert (world.notifications(sent), world.status(delayed)) == ([], "scheduled")


# ---- kill ------------------------------------------------------------------------------------------------------------------


def family(world: World) -> tuple[str, list[str]]:
    """A parent with a call, a send, a delayed send, a queued call, and the call's own call."""
    parent = new(world)
    world.submit("Counter/add", "k")
    world.says(
        parent,
        sdk.call("Plain", "run", id_notification=1, completion_id=2),
        sdk.send("Plain", "run", id_notification=3),
        sdk.send("Plain", "run", id_notification=4, invoke_time_ms=START_MS + 3_600_000),
        sdk.call("Counter", "add", key="k", id_notification=5, completion_id=6),
    )
    children = [world.child_id(parent, number) for number in (1, 3, 4, 5)]
    world.says(children[0], sdk.send("Plain", "run", id_notification=1))
    return parent, [*children, world.child_id(children[0], 1)]


@pytest.mark.parametrize("crashes", [False, True])
def test_kill_reaches_calls_sends_and_delayed_sends_recursively(crashes: bool):
    world = World()
    parent, children = family(world)
    bystander = new(world)
    if crashes:
        world.crash()
    world.kill(parent)
    assert [world.status(child) for child in children] == ["completed", "completed", GONE, GONE, "completed"]
    for victim in [parent, *children]:
        assert world.completion(victim).failure == Failure(409, "killed")
    assert world.status(bystander) == "invoked"
    assert set(world.attempts) & {parent, *children} == set()
    assert world.timers() == []


def test_kill_sees_children_made_in_the_same_batch():
    world = World()
    parent = new(world)
    call = world.said(parent, sdk.call("Plain", "run", id_notification=1, completion_id=2))
    world.batch(call, KillRequested(world.token(), parent, world.now_ms))
    child = world.child_id(parent, 1)
    assert (world.status(parent), world.status(child)) == ("completed", "completed")


def test_kill_passes_over_children_that_are_done_or_purged():
    world = World()
    parent = new(world)
    world.says(
        parent,
        sdk.call("Plain", "run", id_notification=1, completion_id=2),
        sdk.call("Forgetful", "run", id_notification=3, completion_id=4),
    )
    done, forgotten = world.child_id(parent, 1), world.child_id(parent, 3)
    world.finish(done)
    world.finish(forgotten)
    world.kill(parent)
    assert world.completion(done).value == b"ok"
    assert world.completion(forgotten).value == b"ok"


def test_two_that_called_each_other_are_both_killed():
    world = World()
    first = world.submit("Counter/add", "a")
    world.says(first, sdk.call("Counter", "add", key="b", id_notification=1, completion_id=2))
    second = world.child_id(first, 1)
    world.says(second, sdk.call("Counter", "add", key="a", id_notification=1, completion_id=2))
    third = world.child_id(second, 1)
    assert world.status(third) == "inboxed"
    world.kill(first)
    assert [world.status(invocation) for invocation in (first, second)] == ["completed", "completed"]
    assert world.status(third) != "invoked"
    assert third not in world.attempts
    assert world.status(world.submit("Counter/add", "a")) == "invoked"


def test_state_written_by_a_killed_one_stays():
    world = World()
    invocation = world.submit("Counter/add", "k")
    world.says(invocation, sdk.set_state("n", b"1"))
    world.kill(invocation)
    assert world.state("Counter", "k") == {"n": b"1"}


def test_the_caller_of_a_killed_one_gets_409():
    world = World()
    caller = new(world)
    world.says(caller, sdk.call("Plain", "run", id_notification=1, completion_id=2))
    world.suspend(caller, (2,))
    world.kill(world.child_id(caller, 1))
    assert world.result(caller, 2) == Result(failure=(409, "killed", {}))
    assert world.status(caller) == "invoked"


# ---- pause and resume --------------------------------------------------------------------------------------------------------


def test_pausing_a_running_one_closes_its_input():
    world = World()
    invocation = new(world)
    world.pause(invocation)
    assert world.attempts[invocation].is_closed
    assert world.status(invocation) == "invoked"


def test_a_paused_one_runs_only_when_resumed():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.sleep(1, START_MS + 10))
    world.pause(invocation)
    world.says(invocation, sdk.suspension((1,)))
    world.advance(10)
    world.signal(invocation, 17)
    assert world.status(invocation) == "paused"
    world.resume(invocation)
    assert [m.notification_leaf(*frame) for frame in world.attempts[invocation].known[2:]] == [(1,), 17]


def test_pausing_records_an_event_however_it_came():
    world = World()
    suspended_first, failed_first = new(world), new(world)
    for invocation, last in ((suspended_first, sdk.suspension(signals=(17,))), (failed_first, sdk.error())):
        world.pause(invocation)
        world.says(invocation, last)
        assert world.status(invocation) == "paused"
        assert any('"Paused"' in event for event in world.events_of(invocation))


def test_resume_gives_fresh_retries():
    world = World()
    invocation = world.submit("Pausing/run")
    for _ in range(2):
        world.fail(invocation)
        world.retry(invocation)
    world.fail(invocation)
    assert world.status(invocation) == "paused"
    world.resume(invocation)
    for _ in range(2):
        world.fail(invocation)
        world.retry(invocation)
    assert world.status(invocation) == "invoked"


def test_resume_during_backing_off_gives_fresh_retries_too():
    world = World()
    invocation = world.submit("Pausing/run")
    for _ in range(6):
        world.fail(invocation)
        world.resume(invocation)
    assert world.status(invocation) == "invoked"


def attached(world: World, invocation: str) -> Result | None:
    """What a handler that attaches is told."""
    other = new(world)
    world.says(other, sdk.attach(invocation, 1))
    return world.result(other, 1)


# ---- purge and retention -----------------------------------------------------------------------------------------------------


def test_purge_leaves_nothing():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"1"))
    world.fail(invocation)
    world.retry(invocation)
    world.finish(invocation)
    world.purge(invocation)
    assert [world.count(table) for table in ("invocation", "journal", "journal_event")] == [0, 0, 0]


def test_purging_the_journal_keeps_the_output():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"1"))
    world.finish(invocation, b"kept")
    assert world.purge(invocation, journal_only=True) == "done"
    assert world.journal(invocation) == []
    assert attached(world, invocation) == Result(value=b"kept")


def test_purging_by_the_cleaner_answers_nobody():
    world = World()
    done, running = completed(world), new(world)
    world.batch(
        PurgeRequested(None, done, False, world.now_ms),
        PurgeRequested(None, running, False, world.now_ms),
        PurgeRequested(None, UNKNOWN, False, world.now_ms),
    )
    assert (world.answers, world.refusals) == ({}, {})
    assert (world.status(done), world.status(running)) == (GONE, "invoked")


def test_retention_by_kind_of_invocation():
    world = World()
    retention = {
        world.submit("OutputOnly/run"): (60_000, 0),
        world.submit("OutputOnly/run", idempotency_key="i"): (60_000, 0),
        world.submit("Plain/run"): (86_400_000, 86_400_000),
        world.submit("Fleeting/run", "w"): (0, 0),
    }
    for invocation, expected in retention.items():
        row = world.row(invocation)
        assert row is not None
        assert (row["retention_ms"], row["journal_retention_ms"]) == expected


def test_without_journal_retention_only_the_output_is_kept():
    world = World()
    invocation = world.submit("OutputOnly/run", idempotency_key="i")
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"1"))
    world.finish(invocation, b"kept")
    assert (world.status(invocation), world.journal(invocation)) == ("completed", [])
    assert attached(world, invocation) == Result(value=b"kept")
