"""Exclusive handlers: one holder per key, in order of acceptance, whatever else happens to the queue."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core import machine as machine_module
from holdfast.core.effects import Completed
from holdfast.core.model import Failure
from holdfast.core.results import state_version
from tests.core import sdk
from tests.core.driver import START_MS, World


def queue(world: World, key: str, count: int) -> list[str]:
    return [world.submit("Counter/add", key) for _ in range(count)]


def test_they_run_one_at_a_time_in_order_of_acceptance():
    world = World()
    invocations = queue(world, "k", 5)
    for index, invocation in enumerate(invocations):
        assert [world.status(other) for other in invocations[index:]] == ["invoked"] + ["inboxed"] * (4 - index)
        world.finish(invocation)
    assert world.started == invocations


def test_a_batch_of_many_keeps_the_order():
    world = World()
    events = [world.submitted("Counter/add", "k") for _ in range(5)]
    world.batch(*events)
    for event in events:
        world.finish(event.id)
    assert world.started == [event.id for event in events]


def test_keys_and_services_do_not_wait_for_each_other():
    world = World()
    assert {
        world.status(world.submit("Counter/add", "a")),
        world.status(world.submit("Counter/add", "b")),
        world.status(world.submit("Counter/add", "")),
        world.status(world.submit("FleetingObject/add", "a")),
        world.status(world.submit("Flow/run", "a")),
    } == {"invoked"}


def test_the_lock_is_kept_while_suspended_paused_and_backing_off():
    world = World()
    holder, waiting = queue(world, "k", 2)
    world.says(holder, sdk.sleep(1, START_MS + 1))
    world.suspend(holder, (1,))
    late = world.submit("Counter/add", "k")
    assert (world.status(waiting), world.status(late)) == ("inboxed", "inboxed")
    world.advance(1)
    world.fail(holder)
    assert world.status(world.submit("Counter/add", "k")) == "inboxed"
    world.pause(holder)
    assert world.status(world.submit("Counter/add", "k")) == "inboxed"
    world.resume(holder)
    world.finish(holder)
    assert [world.status(invocation) for invocation in (waiting, late)] == ["invoked", "inboxed"]


def test_scheduled_ones_enter_at_the_tail_when_due():
    world = World()
    early = world.submit("Counter/add", "k", start_at_ms=START_MS + 10)
    holder, waiting = queue(world, "k", 2)
    world.advance(10)
    last = world.submit("Counter/add", "k")
    for invocation in (holder, waiting, early, last):
        assert world.started[-1] == invocation
        world.finish(invocation)


def test_how_long_each_waited_is_recorded():
    world = World()
    holder, waiting = queue(world, "k", 2)
    late = world.submit("Counter/add", "k", start_at_ms=START_MS + 10)
    world.advance(25)
    world.crash()
    world.finish(holder)
    world.advance(5)
    world.finish(waiting)

    def times(invocation: str) -> list[int | None]:
        row = world.row(invocation)
        assert row is not None
        at = [row[column] for column in ("inboxed_at_ms", "running_at_ms")]
        return [None if at_ms is None else at_ms - START_MS for at_ms in at]

    assert [times(holder), times(waiting), times(late)] == [[None, 0], [0, 25], [25, 30]]
    assert times(world.submit("Plain/run", start_at_ms=START_MS + 90)) == [None, None]


LEAVES = {"cancelled": World.cancel, "killed": World.kill}


@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES.keys())
def test_one_that_leaves_the_queue_is_skipped(leave):
    world = World()
    first, second, third = queue(world, "k", 3)
    leave(world, second)
    world.finish(first)
    assert world.started == [first, third]
    assert world.status(second) == "gone"


def test_a_killed_holder_frees_the_key():
    world = World()
    first, second = queue(world, "k", 2)
    world.kill(first)
    assert world.started == [first, second]


def test_the_queue_survives_a_crash():
    world = World()
    invocations = queue(world, "k", 4)
    world.cancel(invocations[2])
    world.crash()
    invocations.append(world.submit("Counter/add", "k"))
    world.started.clear()
    world.finish(invocations[0])
    world.crash()
    world.finish(invocations[1])
    world.finish(invocations[3])
    world.finish(invocations[4])
    assert list(dict.fromkeys(world.started)) == [invocations[index] for index in (1, 3, 4)]


# ---- state edits by operators take their turn ----------------------------------------------------------------------------


def test_a_state_edit_of_a_free_key_is_applied_at_once():
    world = World()
    world.replace_state("Counter", "k", {"a": b"1", "b": b""})
    assert world.state("Counter", "k") == {"a": b"1", "b": b""}
    world.replace_state("Counter", "k", {"c": b"3"})
    assert world.state("Counter", "k") == {"c": b"3"}


def test_a_state_edit_waits_for_its_turn():
    world = World()
    first, second = queue(world, "k", 2)
    world.replace_state("Counter", "k", {"a": b"edited"})
    third = world.submit("Counter/add", "k")
    for invocation, expected in ((first, {}), (second, {}), (third, {"a": b"edited"})):
        assert world.started[-1] == invocation
        assert world.state("Counter", "k") == expected
        world.finish(invocation)


@pytest.mark.parametrize("crashes", [False, True])
def test_edits_between_leaving_entries(crashes: bool):
    world = World()
    first, second = queue(world, "k", 2)
    world.replace_state("Counter", "k", {"a": b"1"})
    third = world.submit("Counter/add", "k")
    world.replace_state("Counter", "k", {"a": b"2"})
    if crashes:
        world.crash()
    world.cancel(second)
    world.kill(third)
    world.finish(first)
    assert world.state("Counter", "k") == {"a": b"2"}
    assert world.count("state_mutation") == 0
    assert world.status(world.submit("Counter/add", "k")) == "invoked"


def test_a_stale_edit_is_ignored():
    world = World()
    world.replace_state("Counter", "k", {"a": b"1"})
    version = state_version([("a", b"1")])
    world.replace_state("Counter", "k", {"a": b"2"}, version)
    assert world.state("Counter", "k") == {"a": b"2"}
    world.replace_state("Counter", "k", {"a": b"3"}, version)
    assert world.state("Counter", "k") == {"a": b"2"}


def test_state_versions_differ_with_names_values_and_emptiness():
    states = [[], [("a", b"")], [("a", b"1")], [("b", b"1")], [("a", b"1"), ("b", b"1")], [("a", b"1b"), ("b", b"")]]
    assert len({state_version(state) for state in states}) == len(states)
    assert state_version([("a", b"1"), ("b", b"2")]) == state_version([("b", b"2"), ("a", b"1")])


# ---- more keys than are remembered ---------------------------------------------------------------------------------------


def test_free_keys_are_forgotten_without_losing_the_queue(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine_module, "FREE_LOCKS_MAX", 2)
    world = World()
    for number in range(20):
        world.finish(world.submit("Counter/add", f"k{number}"))
    holder, waiting = queue(world, "k0", 2)
    for number in range(20):
        world.finish(world.submit("Counter/add", f"other{number}"))
    world.finish(holder)
    assert world.started[-1] == waiting


def test_a_key_that_became_free_in_this_batch_is_not_asked_from_rows_that_do_not_know_it_yet(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(machine_module, "FREE_LOCKS_MAX", 1)
    world = World()
    first = world.submit("Counter/add", "k")
    done = world.said(first, sdk.output(), sdk.END)
    del world.attempts[first]
    other, second = world.submitted("Counter/add", "other"), world.submitted("Counter/add", "k")
    world.batch(done, other, second)
    assert world.status(second.id) == "invoked"


# ---- any interleaving ----------------------------------------------------------------------------------------------------

OPERATIONS = ("submit", "finish", "fail", "suspend", "wake", "cancel", "kill", "pause", "resume", "edit", "crash")


class QueueModel:
    """What must be true of one key, kept beside the world: who was accepted, who left, who may run."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.gone: set[str] = set()

    @property
    def holder(self) -> str | None:
        return next((invocation for invocation in self.accepted if invocation not in self.gone), None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3), st.integers(0, 5)), max_size=40))
def test_at_most_one_holds_a_key_and_it_is_the_one_accepted_first(steps: list[tuple[str, int, int]]):
    world = World()
    keys = {f"k{number}": QueueModel() for number in range(2)}
    for operation, which, pick in steps:
        key = f"k{which % 2}"
        model = keys[key]
        if operation == "submit":
            model.accepted.append(world.submit("Counter/add", key))
        elif operation == "edit":
            world.replace_state("Counter", key, {"n": bytes([pick])})
        elif operation == "crash":
            world.crash()
        elif model.accepted:
            operate(world, model, operation, pick)
        for other, queued in keys.items():
            check(world, other, queued)
    for key, model in keys.items():
        drain(world, model)
        assert world.status(world.submit("Counter/add", key)) == "invoked"
    assert world.count("state_mutation") == 0


def operate(world: World, model: QueueModel, operation: str, pick: int) -> None:
    invocation = model.accepted[pick % len(model.accepted)]
    if operation in ("cancel", "kill", "pause", "resume"):
        before = world.status(invocation)
        getattr(world, operation)(invocation)
        if operation == "kill" or (operation == "cancel" and before == "inboxed"):
            model.gone.add(invocation)
        return
    holder = model.holder
    if holder is None:
        return
    if operation == "wake":
        world.signal(holder, 17)
    elif holder in world.attempts:
        if operation == "finish":
            world.finish(holder)
            model.gone.add(holder)
        elif operation == "fail":
            world.fail(holder, next_retry_delay_ms=1)
        elif operation == "suspend":
            world.suspend(holder, signals=(17,))
    elif holder in world.retries:
        world.retry(holder)


def check(world: World, key: str, model: QueueModel) -> None:
    rows = world.connection.execute(
        "SELECT id, status FROM invocation WHERE service = 'Counter' AND key = ? AND status <> 'completed' "
        "ORDER BY seq",
        (key,),
    ).fetchall()
    waiting = [invocation for invocation in model.accepted if invocation not in model.gone]
    assert [row[0] for row in rows] == waiting, "exactly the accepted ones that did not leave"
    assert [row[1] for row in rows[1:]] == ["inboxed"] * (len(rows) - 1), "nobody runs beside the holder"
    assert all(row[1] in ("invoked", "suspended", "paused") for row in rows[:1]), "the first one holds the key"
    running = [invocation for invocation in world.attempts if invocation in waiting]
    assert running in ([], waiting[:1])


def drain(world: World, model: QueueModel) -> None:
    """Without further trouble everybody gets a turn."""
    while (holder := model.holder) is not None:
        if holder not in world.attempts:
            world.resume(holder)
        world.finish(holder)
        model.gone.add(holder)


def test_a_queued_entry_that_is_cancelled_answers_its_caller():
    world = World()
    queue(world, "k", 1)
    waiting = world.submit("Counter/add", "k")
    assert world.cancel(waiting) == "done"
    (completed,) = world.of(Completed)
    assert completed.completion.failure == Failure(409, "canceled")
    assert completed.completion.expires_at_ms is None
