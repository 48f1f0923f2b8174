"""K/V state as handlers read and write it."""

from __future__ import annotations

import pytest

from holdfast.protocol.messages import VOID, Result
from holdfast.protocol.wire import data, message
from tests.core import sdk
from tests.core.driver import World


def test_writes_are_visible_as_they_are_stored():
    world = World()
    writer, reader = world.submit("Counter/add", "k"), world.submit("Counter/read", "k")
    world.says(writer, sdk.set_state("a", b"1"), sdk.set_state("b", b""))
    world.says(reader, sdk.get_state("a", 1), sdk.get_state("b", 2), sdk.get_state("c", 3), sdk.get_state_keys(4))
    assert [world.result(reader, number) for number in (1, 2, 3)] == [Result(value=b"1"), Result(value=b""), VOID]
    assert message(world.journal(reader)[-1][1])[17] == data(1, b"a") + data(1, b"b")
    world.says(writer, sdk.set_state("a", b"2"), sdk.clear_state("b"))
    assert world.state("Counter", "k") == {"a": b"2"}
    world.says(writer, sdk.CLEAR_ALL_STATE)
    assert world.state("Counter", "k") == {}


def test_writes_are_not_rolled_back_by_a_failure():
    world = World()
    writer = world.submit("Counter/add", "k")
    world.says(writer, sdk.set_state("a", b"1"), sdk.error())
    assert world.state("Counter", "k") == {"a": b"1"}


def test_state_belongs_to_service_and_key():
    world = World()
    for target, key in (("Counter/add", "a"), ("Counter/add", "b"), ("Flow/run", "a")):
        world.says(world.submit(target, key), sdk.set_state("n", f"{target}{key}".encode()))
    assert world.state("Counter", "a") == {"n": b"Counter/adda"}
    assert world.state("Counter", "b") == {"n": b"Counter/addb"}
    assert world.state("Flow", "a") == {"n": b"Flow/runa"}


def test_eager_reads_are_only_stored():
    world = World()
    writer = world.submit("Counter/add", "k")
    world.says(writer, sdk.get_eager_state("a", b"old"))
    assert world.journal(writer)[-1] == sdk.get_eager_state("a", b"old")
    assert world.attempts[writer].received == []


WRITES = {
    "set": sdk.set_state("a", b"1"),
    "clear": sdk.clear_state("a"),
    "clear all": sdk.CLEAR_ALL_STATE,
}


@pytest.mark.parametrize("target", ["Plain/run", "Counter/read", "Flow/approve"])
@pytest.mark.parametrize("command", WRITES.values(), ids=WRITES.keys())
def test_only_who_holds_the_key_may_write(command: sdk.Frame, target: str):
    world = World()
    for service in ("Counter", "Flow"):
        world.replace_state(service, "k", {"a": b"kept"})
    invocation = world.submit(target, None if target == "Plain/run" else "k")
    world.says(invocation, command)
    assert "RT0017" in world.events_of(invocation)[0]
    assert invocation in world.retries
    assert len(world.journal(invocation)) == 1
    assert world.state("Counter", "k") == world.state("Flow", "k") == {"a": b"kept"}


@pytest.mark.parametrize("command", [sdk.get_state("a", 1), sdk.get_state_keys(1)])
def test_plain_services_have_no_state_to_read(command: sdk.Frame):
    world = World()
    invocation = world.submit("Plain/run")
    world.says(invocation, command)
    assert "RT0017" in world.events_of(invocation)[0]


def test_a_workflow_run_writes_and_its_shared_handlers_read():
    world = World()
    run = world.submit("Flow/run", "w")
    world.says(run, sdk.set_state("a", b"1"))
    world.finish(run)
    reader = world.submit("Flow/approve", "w")
    world.says(reader, sdk.get_state("a", 1))
    assert world.result(reader, 1) == Result(value=b"1")


def test_a_state_write_that_was_not_committed_did_not_happen():
    world = World()
    writer = world.submit("Counter/add", "k")
    world.lose(world.said(writer, sdk.set_state("a", b"1")), flushed=True)
    assert world.state("Counter", "k") == {}
    assert len(world.attempts[writer].known) == 1
