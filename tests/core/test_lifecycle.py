"""The statuses of an invocation: each row is a history and where it ends, with what the runtime is told to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core.effects import AbortAttempt, ArmTimer, Completed, Effect, ReportPaused, ScheduleRetry, StartAttempt
from holdfast.core.events import AttemptFailed, ResumeRequested, RetryDue, TimerFired
from holdfast.core.model import Failure
from holdfast.protocol import messages as m
from holdfast.protocol.messages import Result
from tests.core import sdk
from tests.core.driver import START_MS, World

GONE = "gone"
LATER_MS = START_MS + 60_000

History = Callable[[World], str]


def held(world: World) -> str:
    """A second exclusive invocation while the first holds the key."""
    world.submit("Counter/add", "k")
    return world.submit("Counter/add", "k")


def suspended(world: World, completions: tuple[int, ...] = (1,), target: str = "Plain/run") -> str:
    invocation = world.submit(target, "k" if target.startswith("Counter") else None)
    world.says(invocation, *[sdk.sleep(number, LATER_MS) for number in completions])
    world.suspend(invocation, completions, signals=(1,))
    return invocation


def paused(world: World) -> str:
    invocation = world.submit("Pausing/run")
    world.fail(invocation, behavior=1)
    return invocation


def backing_off(world: World) -> str:
    invocation = world.submit("Plain/run")
    world.fail(invocation)
    return invocation


def completed(world: World) -> str:
    invocation = world.submit("Plain/run")
    world.finish(invocation)
    return invocation


def scheduled(world: World) -> str:
    return world.submit("Plain/run", start_at_ms=LATER_MS)


def new(world: World) -> str:
    return world.submit("Plain/run")


def then(first: History, *steps: Callable[[World, str], object]) -> History:
    def history(world: World) -> str:
        invocation = first(world)
        for step in steps:
            step(world, invocation)
        return invocation

    return history


def due(world: World, _: str) -> None:
    world.advance(60_000)


def resumed_before_its_retry(world: World, invocation: str) -> None:
    late = world.retries[invocation]
    world.resume(invocation)
    world.batch(RetryDue(late.seq, late.attempt, world.now_ms))


TRANSITIONS: dict[str, tuple[History, str, list[type[Effect]]]] = {
    "new: runs": (new, "invoked", [StartAttempt]),
    "new, with a start time: scheduled": (scheduled, "scheduled", [ArmTimer]),
    "new, with a start time that is past: scheduled all the same": (
        lambda world: world.submit("Plain/run", start_at_ms=1),
        "scheduled",
        [ArmTimer],
    ),
    "new, lock taken: pending": (held, "inboxed", []),
    "new, shared handler: runs whatever the lock": (
        lambda world: (held(world), world.submit("Counter/read", "k"))[1],
        "invoked",
        [StartAttempt],
    ),
    "new, other key: runs": (
        lambda world: (held(world), world.submit("Counter/add", "other"))[1],
        "invoked",
        [StartAttempt],
    ),
    "scheduled, due: runs": (then(scheduled, due), "invoked", [StartAttempt]),
    "scheduled, not due: waits": (then(scheduled, lambda w, _: w.advance(59_999)), "scheduled", []),
    "scheduled, due, lock taken: pending": (
        then(lambda w: (w.submit("Counter/add", "k"), w.submit("Counter/add", "k", start_at_ms=LATER_MS))[1], due),
        "inboxed",
        [],
    ),
    "pending, lock free: runs": (
        then(held, lambda w, i: w.finish(w.started[0])),
        "invoked",
        [StartAttempt, Completed],
    ),
    "running, suspends: suspended": (suspended, "suspended", []),
    "running, output and end: completed": (completed, "completed", [Completed]),
    "running, output without end: still runs": (
        then(new, lambda w, i: w.says(i, sdk.output())),
        "invoked",
        [],
    ),
    "running, end without output: fails": (
        then(new, lambda w, i: w.says(i, sdk.END)),
        "invoked",
        [AbortAttempt, ScheduleRetry],
    ),
    "running, error: backs off": (backing_off, "invoked", [ScheduleRetry]),
    "running, stream breaks: backs off": (
        then(
            new,
            lambda w, i: w.batch(AttemptFailed(w.seq(i), w.attempts[i].number, 500, "cut", w.now_ms)),
        ),
        "invoked",
        [ScheduleRetry],
    ),
    "running, asked to pause by the SDK: paused": (paused, "paused", [ReportPaused]),
    "running, failed by the SDK: completed": (
        then(new, lambda w, i: w.fail(i, behavior=2)),
        "completed",
        [Completed],
    ),
    "running, unknown message: fails": (
        then(new, lambda w, i: w.says(i, (0x0004, b""))),
        "invoked",
        [AbortAttempt, ScheduleRetry],
    ),
    "running, AwaitingOn: nothing": (then(new, lambda w, i: w.says(i, (m.AWAITING_ON, b""))), "invoked", []),
    "suspended, what it awaits arrives: runs": (then(suspended, due), "invoked", [StartAttempt]),
    "suspended, resume: runs": (then(suspended, World.resume), "invoked", [StartAttempt]),
    "suspended, cancel: runs": (then(suspended, World.cancel), "invoked", [StartAttempt]),
    "suspended, another signal: waits": (
        then(suspended, lambda w, i: w.signal(i, "go")),
        "suspended",
        [],
    ),
    "backing off, due: runs": (then(backing_off, World.retry), "invoked", [StartAttempt]),
    "backing off, resume: runs": (then(backing_off, World.resume), "invoked", [StartAttempt]),
    "backing off, resumed, then due: nothing more": (
        then(backing_off, resumed_before_its_retry),
        "invoked",
        [],
    ),
    "backing off, pause: paused": (then(backing_off, World.pause), "paused", [ReportPaused]),
    "running, pause, suspends: paused": (
        then(new, World.pause, lambda w, i: w.says(i, sdk.suspension(signals=(1,)))),
        "paused",
        [ReportPaused],
    ),
    "running, pause, fails: paused": (then(new, World.pause, World.fail), "paused", [ReportPaused]),
    "running, pause, ends: completed": (then(new, World.pause, World.finish), "completed", [Completed]),
    "paused, resume: runs": (then(paused, World.resume), "invoked", [StartAttempt]),
    "paused, cancel: runs": (then(paused, World.cancel), "invoked", [StartAttempt]),
    "paused, another signal: stays": (then(paused, lambda w, i: w.signal(i, 17)), "paused", []),
    "running, kill: completed": (then(new, World.kill), "completed", [AbortAttempt, Completed]),
    "suspended, kill: completed": (then(suspended, World.kill), "completed", [Completed]),
    "backing off, kill: completed": (then(backing_off, World.kill), "completed", [Completed]),
    "paused, kill: completed": (then(paused, World.kill), "completed", [Completed]),
    "scheduled, kill: gone": (then(scheduled, World.kill), GONE, [Completed]),
    "pending, kill: gone": (then(held, World.kill), GONE, [Completed]),
    "scheduled, cancel: gone": (then(scheduled, World.cancel), GONE, [Completed]),
    "pending, cancel: gone": (then(held, World.cancel), GONE, [Completed]),
    "completed, purge: gone": (then(completed, World.purge), GONE, []),
    "completed, cancel: nothing": (then(completed, World.cancel), "completed", []),
    "zero retention: gone at once": (
        then(lambda w: w.submit("Forgetful/run"), World.finish),
        GONE,
        [Completed],
    ),
}


@pytest.mark.parametrize(("history", "status", "effects"), TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_transition(history: History, status: str, effects: list[type[Effect]]):
    world = World()
    invocation = history(world)
    assert world.status(invocation) == status
    done = [type(effect) for effect in world.effects if type(effect).__name__ not in ("Answer", "Refuse", "Accepted")]
    assert sorted(done, key=str) == sorted(effects, key=str)


@pytest.mark.parametrize(("history", "status", "effects"), TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_status_survives_a_crash(history: History, status: str, effects: list[type[Effect]]):
    world = World()
    invocation = history(world)
    world.crash()
    assert world.status(invocation) == status
    assert (invocation in world.attempts) == (status == "invoked")


def test_a_resume_and_a_retry_in_one_batch_start_one_attempt():
    world = World()
    invocation = backing_off(world)
    late = world.retries[invocation]
    resume = ResumeRequested(world.token(), invocation, world.now_ms)
    world.batch(resume, RetryDue(late.seq, late.attempt, world.now_ms))
    assert [effect.invocation.id for effect in world.of(StartAttempt)] == [invocation]


def test_ready_running_and_backing_off_start_again_in_order_of_arrival():
    world = World()
    invocations = [backing_off(world), new(world), suspended(world), new(world)]
    world.started.clear()
    world.crash()
    assert world.started == [invocations[0], invocations[1], invocations[3]]


def test_input_is_the_first_entry():
    world = World()
    invocation = world.submit("Plain/run", body=b"hello")
    ((kind, body),) = world.attempts[invocation].known
    assert m.frame(kind, body) == m.input_frame([("x-a", "1")], b"hello")


def test_a_large_input_is_kept_out_of_the_row():
    world = World()
    large = bytes(10_000)
    invocation = world.submit("Plain/run", body=large)
    row = world.row(invocation)
    assert row is not None
    assert row["head"] == b""
    world.says(invocation, sdk.run(1))
    world.crash()
    assert world.attempts[invocation].known == [world.journal(invocation)[0], sdk.run(1)]
    assert m.frame(*world.journal(invocation)[0]) == m.input_frame([("x-a", "1")], large)


def test_success_answers_whoever_waits_with_the_output():
    world = World()
    invocation = new(world)
    world.finish(invocation, b"")
    completion = world.completion(invocation)
    assert (completion.value, completion.failure) == (b"", None)
    assert completion.expires_at_ms == START_MS + 86_400_000


def test_failure_answers_with_code_message_and_metadata():
    world = World()
    invocation = new(world)
    body = m.encode_failure(418, "teapot", {"a": "b"})
    world.says(invocation, (m.OUTPUT, m.data(15, body)), sdk.END)
    completion = world.completion(invocation)
    assert (completion.value, completion.failure) == (None, Failure(418, "teapot", {"a": "b"}))
    row = world.row(invocation)
    assert row is not None
    assert row["failure_code"] == 418


def test_output_survives_a_crash_before_its_end():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.output(b"kept"))
    world.crash()
    world.says(invocation, sdk.END)
    assert world.completion(invocation).value == b"kept"


def test_frames_of_an_older_attempt_are_dropped():
    world = World()
    invocation = new(world)
    late = world.said(invocation, sdk.output(b"late"), sdk.END)
    world.fail(invocation)
    world.retry(invocation)
    world.batch(late)
    assert world.status(invocation) == "invoked"
    assert world.completions == {}


def test_a_failure_of_an_older_attempt_is_dropped():
    world = World()
    invocation = new(world)
    late = AttemptFailed(world.seq(invocation), world.attempts[invocation].number, 500, "late", world.now_ms)
    world.fail(invocation)
    world.retry(invocation)
    world.batch(late)
    assert world.effects == []
    assert invocation in world.attempts


def test_frames_that_lost_the_race_with_a_kill_are_dropped():
    world = World()
    invocation = new(world)
    late = world.said(invocation, sdk.output(b"late"), sdk.END)
    world.kill(invocation)
    world.batch(late)
    assert world.completion(invocation).failure == Failure(409, "killed")


def test_what_stands_behind_a_terminal_frame_is_ignored():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.error(), sdk.run(1), sdk.output(), sdk.END)
    assert world.status(invocation) == "invoked"
    assert len(world.journal(invocation)) == 1


def test_frames_of_a_timer_for_nobody():
    world = World()
    world.batch(TimerFired(START_MS, 99, 1, START_MS))
    assert world.effects == []


def test_commands_pin_the_deployment():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.sleep(1, LATER_MS))
    world.suspend(invocation, (1,))
    row = world.row(invocation)
    assert row is not None
    assert (row["deployment_id"], row["protocol_version"]) == ("dp_test", 6)


def test_results_are_stored_in_the_order_of_arrival():
    world = World()
    invocation = new(world)
    first = world.said(invocation, sdk.run(1), sdk.run(2))
    world.batch(first, world.signalled(invocation, 18, Result(value=b"b")), world.signalled(invocation, 17))
    world.says(invocation, sdk.run_result(2, b"2"), sdk.run_result(1, b"1"))
    stored = [leaf for leaf, _ in world.notifications(invocation)]
    assert stored == [18, 17, (2,), (1,)]
    live = [m.notification_leaf(*frame) for frame in world.attempts[invocation].received]
    assert live == stored
    world.crash()
    replayed = [m.notification_leaf(*frame) for frame in world.attempts[invocation].known if frame[0] >= 0x8000]
    assert replayed == stored
