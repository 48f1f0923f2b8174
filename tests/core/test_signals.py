"""Signals and awakeables: buffered while the invocation is live, dropped before and after, never out of order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core import ids
from holdfast.protocol import messages as m
from holdfast.protocol.messages import VOID, Result
from tests.core import sdk
from tests.core.driver import START_MS, World
from tests.core.test_lifecycle import backing_off, completed, held, new, paused, scheduled, suspended

GO = Result(value=b"go")

# Status when the signal comes -> (status afterwards, whether it is in the journal)
BUFFERING: dict[str, tuple[Callable[[World], str], str, bool]] = {
    "running": (new, "invoked", True),
    "backing off": (backing_off, "invoked", True),
    "suspended": (suspended, "suspended", True),
    "paused": (paused, "paused", True),
    "scheduled": (scheduled, "scheduled", False),
    "pending": (held, "inboxed", False),
    "completed": (completed, "completed", False),
}


@pytest.mark.parametrize("signal", ["go", 17])
@pytest.mark.parametrize(("history", "status", "is_stored"), BUFFERING.values(), ids=BUFFERING.keys())
def test_a_signal_that_nobody_awaits(history: Callable[[World], str], status: str, is_stored: bool, signal: int | str):
    world = World()
    invocation = history(world)
    world.signal(invocation, signal, GO)
    assert world.status(invocation) == status
    stored = [found for found in world.notifications(invocation) if found[0] == signal]
    assert stored == ([(signal, GO)] if is_stored else [])
    assert list(world.answers.values())[-1] == "accepted"


def test_an_unknown_target_is_answered_all_the_same():
    world = World()
    world.signal("inv_1akW45ORM7j12me3GpZiiLvlCyNJ1Z8UQO", 17)
    assert list(world.answers.values()) == ["accepted"]


def test_a_signal_without_token_is_not_answered():
    world = World()
    invocation = new(world)
    event = world.signalled(invocation, 17)
    event.token = None
    world.batch(event)
    assert world.answers == {}
    assert [leaf for leaf, _ in world.notifications(invocation)] == [17]


def test_a_signal_for_one_that_is_queued_never_comes():
    world = World()
    waiting = held(world)
    world.signal(waiting, 17, GO)
    world.finish(world.started[0])
    assert len(world.attempts[waiting].known) == 1


def test_signals_of_one_name_keep_their_order():
    world = World()
    invocation = new(world)
    for value in (b"1", b"2", b"3"):
        world.signal(invocation, "go", Result(value=value))
    world.crash()
    replayed = [m.decode_result(m.message(body)).value for _, body in world.attempts[invocation].known[1:]]
    assert replayed == [b"1", b"2", b"3"]


def test_every_resolution_is_stored_and_the_first_stands_first():
    world = World()
    invocation = new(world)
    world.signal(invocation, 17, GO)
    world.signal(invocation, 17, Result(failure=(500, "late", {})))
    assert world.notifications(invocation) == [(17, GO), (17, Result(failure=(500, "late", {})))]


@pytest.mark.parametrize("signal", ["go", 17, 2])
@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (sdk.VOID_FIELD, VOID),
        (m.data(5, sdk.value(b"v")), Result(value=b"v")),
        (m.data(6, sdk.failure(500, "no")), Result(failure=(500, "no", {}))),
    ],
)
def test_a_handler_signals_another(signal: int | str, encoded: bytes, expected: Result):
    world = World()
    sender, target = new(world), new(world)
    world.suspend(target, names=("go",), signals=(17, 2))
    world.says(sender, sdk.send_signal(target, signal, encoded))
    assert world.notifications(target) == [(signal, expected)]
    assert world.status(target) == "invoked"
    assert world.journal(sender)[-1][0] == m.SEND_SIGNAL


def test_a_handler_completes_an_awakeable():
    world = World()
    sender, target = new(world), new(world)
    awakeable = ids.awakeable_text(ids.invocation_bytes(target), 18)
    world.says(sender, sdk.complete_awakeable(awakeable, b"v"))
    assert world.notifications(target) == [(18, Result(value=b"v"))]
    rejected = (m.COMPLETE_AWAKEABLE, m.text(1, awakeable) + m.data(3, sdk.failure(500, "no")))
    world.says(sender, rejected)
    assert world.notifications(target)[-1] == (18, Result(failure=(500, "no", {})))


def test_a_handler_signals_itself():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.send_signal(invocation, "go"))
    assert world.notifications(invocation) == [("go", VOID)]


MALFORMED_TARGETS = {
    "signal": sdk.send_signal("inv_1x", "go"),
    "awakeable": sdk.complete_awakeable("sign_1x", b""),
    "attach": sdk.attach("nonsense", 1),
    "output": sdk.get_output("dp_1x", 1),
}


@pytest.mark.parametrize("command", MALFORMED_TARGETS.values(), ids=MALFORMED_TARGETS.keys())
def test_a_malformed_id_fails_the_attempt_and_stores_nothing(command: sdk.Frame):
    world = World()
    invocation = new(world)
    world.says(invocation, command)
    assert "RT0017" in world.events_of(invocation)[0]
    assert len(world.journal(invocation)) == 1
    assert invocation in world.retries


def test_a_sleep_whose_time_is_past_is_over_at_once():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.sleep(1, START_MS), sdk.sleep(2, 0))
    assert (world.result(invocation, 1), world.result(invocation, 2)) == (VOID, VOID)
    assert world.timers() == []


def test_a_sleep_of_for_ever():
    world = World()
    invocation = new(world)
    world.says(invocation, sdk.sleep(1, 2**64 - 1))
    world.suspend(invocation, (1,))
    assert world.status(invocation) == "suspended"
    world.kill(invocation)
    assert world.timers() == []


FINISHES = {
    "finishes": World.finish,
    "is killed": World.kill,
    "fails for good": lambda world, invocation: world.fail(invocation, behavior=2),
    "is killed after a crash": lambda world, invocation: (world.crash(), world.kill(invocation)),
    "is killed while suspended": lambda world, invocation: (world.suspend(invocation, (1,)), world.kill(invocation)),
    "finishes after a suspension": lambda world, invocation: (
        world.suspend(invocation, signals=(17,)),
        world.signal(invocation, 17),
        world.finish(invocation),
    ),
}


@pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES.keys())
def test_timers_go_with_their_invocation(finish: Callable[[World, str], object]):
    world = World()
    invocation, other = new(world), suspended(world)
    world.says(invocation, sdk.sleep(1, START_MS + 10), sdk.sleep(2, START_MS + 20))
    world.advance(10)
    finish(world, invocation)
    assert [seq for _, seq, _ in world.timers()] == [world.seq(other)]


def test_timers_survive_a_crash():
    world = World()
    invocation = suspended(world)
    world.crash()
    world.advance(60_000)
    assert world.result(invocation, 1) == VOID
    assert world.timers() == []
