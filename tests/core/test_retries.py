"""Failed attempts: which counters they move, when it ends, what is recorded."""

from __future__ import annotations

import json

import pytest

from holdfast.core.effects import Completed, ReportPaused, ScheduleRetry, StartAttempt
from holdfast.core.events import AttemptFailed
from holdfast.core.model import Failure
from tests.core import sdk
from tests.core.driver import START_MS, World


def scheduled_delays(world: World, invocation: str, count: int) -> list[int]:
    delays: list[int] = []
    for _ in range(count):
        world.fail(invocation)
        (retry,) = world.of(ScheduleRetry)
        assert retry.jitter
        delays.append(retry.delay_ms)
        world.retry(invocation)
    return delays


def test_delays_grow():
    world = World()
    assert scheduled_delays(world, world.submit("Plain/run"), 9) == [
        *(500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000),
    ]


def test_the_third_of_three_attempts_pauses():
    world = World()
    invocation = world.submit("Pausing/run")
    assert scheduled_delays(world, invocation, 2) == [100, 200]
    world.fail(invocation, "last")
    (report,) = world.of(ReportPaused)
    assert report.invocation.last_error is not None
    assert report.invocation.last_error.message == "last"
    assert world.status(invocation) == "paused"


def test_the_third_of_three_attempts_kills_with_the_last_error():
    world = World()
    invocation = world.submit("Killing/run")
    scheduled_delays(world, invocation, 2)
    world.fail(invocation, "last", code=418)
    assert world.status(invocation) == "completed"
    assert world.completion(invocation).failure == Failure(418, "last")


def test_progress_does_not_reset_the_attempts_of_one_residency():
    world = World()
    invocation = world.submit("Pausing/run")
    for number in (1, 2):
        world.says(invocation, sdk.run(number), sdk.run_result(number, b""))
        world.fail(invocation)
        world.retry(invocation)
    world.fail(invocation)
    assert world.status(invocation) == "paused"


def test_a_crash_resets_the_attempts():
    world = World()
    invocation = world.submit("Pausing/run")
    for _ in range(4):
        world.fail(invocation)
        world.retry(invocation)
        world.fail(invocation)
        world.crash()
    assert world.status(invocation) == "invoked"


def test_a_delay_asked_for_is_exact_and_uses_up_no_attempt():
    world = World()
    invocation = world.submit("Pausing/run")
    for _ in range(20):
        world.fail(invocation, next_retry_delay_ms=77)
        (retry,) = world.of(ScheduleRetry)
        assert (retry.delay_ms, retry.jitter) == (77, False)
        world.retry(invocation)
    assert scheduled_delays(world, invocation, 2) == [100, 200]
    world.fail(invocation)
    assert world.status(invocation) == "paused"


def test_a_delay_of_zero_is_a_delay():
    world = World()
    invocation = world.submit("Pausing/run")
    world.fail(invocation, next_retry_delay_ms=0)
    assert [retry.delay_ms for retry in world.of(ScheduleRetry)] == [0]


def test_a_retry_after_of_the_transport_is_such_a_delay():
    world = World()
    invocation = world.submit("Pausing/run")
    for _ in range(5):
        number = world.attempts[invocation].number
        world.batch(AttemptFailed(world.seq(invocation), number, 503, "busy", world.now_ms, retry_after_ms=5_000))
        assert [(retry.delay_ms, retry.jitter) for retry in world.of(ScheduleRetry)] == [(5_000, False)]
        world.retry(invocation)


BEHAVIOR = {
    "pause beats the policy": ("Killing/run", 1, "paused"),
    "fail beats the policy": ("Pausing/run", 2, "completed"),
}


@pytest.mark.parametrize(("target", "behavior", "status"), BEHAVIOR.values(), ids=BEHAVIOR.keys())
def test_behavior(target: str, behavior: int, status: str):
    world = World(7)
    invocation = world.submit(target)
    world.fail(invocation, "as told", code=418, behavior=behavior, next_retry_delay_ms=1)
    assert world.status(invocation) == status
    if status == "completed":
        assert [effect.completion.failure for effect in world.of(Completed)] == [Failure(418, "as told")]


# ---- what the next Start tells: failures since the last stored command -----------------------------------------------------


def test_failures_since_the_last_entry_are_counted():
    world = World()
    invocation = world.submit("Plain/run")
    counts = [world.attempts[invocation].retry_count]
    for _ in range(3):
        world.fail(invocation, next_retry_delay_ms=1)
        world.retry(invocation)
        counts.append(world.attempts[invocation].retry_count)
    assert counts == [0, 1, 2, 3]


def test_a_stored_command_restarts_the_count():
    world = World()
    invocation = world.submit("Plain/run")
    world.fail(invocation)
    world.retry(invocation)
    world.says(invocation, sdk.run(1), sdk.error(next_retry_delay_ms=1))
    world.retry(invocation)
    assert world.attempts[invocation].retry_count == 1
    world.fail(invocation, next_retry_delay_ms=1)
    world.retry(invocation)
    assert world.attempts[invocation].retry_count == 2


def test_the_time_of_the_last_entry_survives_a_crash():
    world = World()
    invocation = world.submit("Plain/run")
    world.now_ms += 50
    world.says(invocation, sdk.run(1))
    world.now_ms += 50
    world.crash()
    assert world.attempts[invocation].invocation.entry_at_ms == START_MS + 50


@pytest.mark.parametrize("delay_ms", [None, 1])
def test_an_invocation_that_failed_keeps_its_counters_while_it_waits_for_a_place(delay_ms: int | None):
    # The runtime drops what waits for a place from memory; a run's own attempts are counted there.
    world = World()
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.run(1), sdk.error(next_retry_delay_ms=delay_ms))
    inv = world.machine.find(invocation)
    assert inv is not None
    world.machine.forget(inv)
    again = world.machine.find(invocation)
    assert again is not None
    assert again.failures_since_entry == 1


# ---- events ----------------------------------------------------------------------------------------------------------------


def test_each_distinct_error_is_recorded_once():
    world = World()
    invocation = world.submit("Plain/run")
    for message, code, index in (
        ("a", 500, None),
        ("a", 500, None),
        ("b", 500, None),
        ("b", 501, None),
        ("b", 501, 1),
        ("b", 501, 1),
    ):
        world.fail(invocation, message, code=code, command_index=index)
        world.retry(invocation)
    events = [json.loads(event) for event in world.events_of(invocation)]
    assert [(event["error_message"], event["error_code"], event["related_command_index"]) for event in events] == [
        ("a", 500, None),
        ("b", 500, None),
        ("b", 501, None),
        ("b", 501, 1),
    ]
    assert events[3]["related_command_type"] == "Run"


def test_pausing_tells_the_last_failure():
    world = World()
    invocation = world.submit("Pausing/run")
    world.fail(invocation, "why", behavior=1)
    paused = json.loads(world.events_of(invocation)[-1])
    assert (paused["ty"], paused["last_failure"]["error_message"]) == ("Paused", "why")


def test_a_retry_starts_from_what_is_stored():
    world = World()
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"1"))
    world.fail(invocation)
    world.retry(invocation)
    assert [type(effect) for effect in world.effects] == [StartAttempt]
    assert [kind for kind, _ in world.attempts[invocation].known] == [0x0400, 0x0411, 0x8011]
