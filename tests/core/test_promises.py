"""Durable promises of workflows: the first completion wins, everybody who waits is told, before and after the run."""

from __future__ import annotations

import pytest

from holdfast.protocol.messages import VOID, Result
from tests.core import sdk
from tests.core.driver import World

TAKEN = Result(failure=(409, "promise was already completed", {}))


def approver(world: World, key: str = "w") -> str:
    return world.submit("Flow/approve", key)


def test_completed_before_it_is_awaited():
    world = World()
    one = approver(world)
    world.says(one, sdk.resolve_promise("p", b"yes", 1))
    assert world.result(one, 1) == VOID
    run = world.submit("Flow/run", "w")
    world.says(run, sdk.get_promise("p", 1))
    assert world.result(run, 1) == Result(value=b"yes")
    assert [kind for kind, _ in world.attempts[run].received] == [0x8009]


def test_awaited_before_it_is_completed():
    world = World()
    run = world.submit("Flow/run", "w")
    world.says(run, sdk.get_promise("p", 1))
    assert world.result(run, 1) is None
    world.suspend(run, (1,))
    world.says(approver(world), sdk.reject_promise("p", 418, "no", 1))
    assert world.status(run) == "invoked"
    assert world.result(run, 1) == Result(failure=(418, "no", {}))


def test_the_first_completion_wins():
    world = World()
    one, two = approver(world), approver(world)
    world.batch(
        world.said(one, sdk.resolve_promise("p", b"first", 1)),
        world.said(two, sdk.reject_promise("p", 500, "second", 1), sdk.peek_promise("p", 2)),
    )
    assert world.result(one, 1) == VOID
    assert world.result(two, 1) == TAKEN
    assert world.result(two, 2) == Result(value=b"first")


@pytest.mark.parametrize("crashes", [False, True])
def test_everybody_who_waits_is_told_once(crashes: bool):
    world = World()
    run, *others = [world.submit("Flow/run", "w"), *[approver(world) for _ in range(3)]]
    for number, invocation in enumerate([run, *others], start=1):
        world.says(invocation, sdk.get_promise("p", number), sdk.get_promise("other", number + 10))
        if number % 2:
            world.suspend(invocation, (number,))
    if crashes:
        world.crash()
    world.says(approver(world), sdk.resolve_promise("p", b"v", 1))
    for number, invocation in enumerate([run, *others], start=1):
        stored = [found for found in world.notifications(invocation) if found[0] == (number,)]
        assert stored == [((number,), Result(value=b"v"))]
        assert world.status(invocation) == "invoked"
        assert world.result(invocation, number + 10) is None


def test_who_is_over_is_not_told():
    world = World()
    run, other = world.submit("Flow/run", "w"), approver(world)
    world.says(other, sdk.get_promise("p", 1))
    world.kill(other)
    before = len(world.journal(other))
    world.says(run, sdk.resolve_promise("p", b"v", 1))
    assert len(world.journal(other)) == before


def test_peek_is_void_until_it_is_completed():
    world = World()
    run = world.submit("Flow/run", "w")
    world.says(run, sdk.peek_promise("p", 1), sdk.resolve_promise("p", b"", 2), sdk.peek_promise("p", 3))
    assert [world.result(run, number) for number in (1, 2, 3)] == [VOID, VOID, Result(value=b"")]


def test_promises_belong_to_one_key():
    world = World()
    world.says(approver(world, "a"), sdk.resolve_promise("p", b"v", 1))
    other = approver(world, "b")
    world.says(other, sdk.peek_promise("p", 1))
    assert world.result(other, 1) == VOID


COMMANDS = {
    "get": sdk.get_promise("p", 1),
    "peek": sdk.peek_promise("p", 1),
    "resolve": sdk.resolve_promise("p", b"v", 1),
}


@pytest.mark.parametrize("target", ["Plain/run", "Counter/add"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_only_workflows_have_promises(command: sdk.Frame, target: str):
    world = World()
    invocation = world.submit(target, None if target == "Plain/run" else "k")
    world.says(invocation, command)
    assert "RT0017" in world.events_of(invocation)[0]
    assert world.status(invocation) == "invoked"
    assert len(world.journal(invocation)) == 1
    assert world.count("promise") == world.count("promise_listener") == 0


def test_promises_and_state_go_with_the_run():
    world = World()
    run = world.submit("Flow/run", "w")
    world.says(run, sdk.set_state("a", b"1"), sdk.resolve_promise("p", b"v", 1))
    world.says(approver(world), sdk.get_promise("never", 1))
    world.finish(run)
    assert (world.count("promise"), world.state("Flow", "w")) == (1, {"a": b"1"})
    world.purge(run)
    assert (world.count("promise"), world.count("promise_listener"), world.state("Flow", "w")) == (0, 0, {})


def test_they_go_at_once_without_retention():
    world = World()
    run = world.submit("Fleeting/run", "w")
    world.says(run, sdk.set_state("a", b"1"), sdk.resolve_promise("p", b"v", 1))
    world.finish(run)
    assert (world.status(run), world.count("promise"), world.count("state")) == ("gone", 0, 0)
    assert world.completion(run).value == b"ok"
