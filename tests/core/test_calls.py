"""Calls, sends, attach and output; what a duplicate gets; what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core import ids
from holdfast.core.effects import Accepted, ArmTimer, Completed
from holdfast.core.events import PurgeRequested
from holdfast.core.model import Completion
from holdfast.protocol import messages as m
from holdfast.protocol.messages import VOID, Result
from tests.core import sdk
from tests.core.driver import START_MS, World
from tests.core.test_lifecycle import new

UNKNOWN = "inv_1akW45ORM7j12me3GpZiiLvlCyNJ1Z8UQO"
NOT_FOUND = Result(failure=(404, "not found", {}))
HOUR_MS = 3_600_000


def call(world: World, caller: str, **options: str) -> str:
    """Make a call (id notification 1, result 2) and return the child's id."""
    target = {"service": "Plain", "handler": "run", **options}
    world.says(caller, sdk.call(id_notification=1, completion_id=2, **target))  # type: ignore[arg-type]
    return world.child_id(caller, 1)


# ---- calls -----------------------------------------------------------------------------------------------------------------


def test_a_call_tells_its_id_at_once_and_its_result_later():
    world = World()
    caller = new(world)
    child = call(world, caller)
    assert [kind for kind, _ in world.attempts[caller].received] == [m.CALL_INVOCATION_ID]
    assert world.status(child) == "invoked"
    world.finish(child, b"r")
    assert [kind for kind, _ in world.attempts[caller].received] == [m.CALL_INVOCATION_ID, m.CALL_COMPLETION]
    assert world.result(caller, 2) == Result(value=b"r")


def test_a_child_gets_parameter_headers_and_its_caller():
    world = World()
    caller = new(world)
    world.says(
        caller,
        sdk.call("Counter", "add", key="k", parameter=b"p", id_notification=1, completion_id=2),
    )
    child = world.child_id(caller, 1)
    assert world.journal(child)[0] == (m.INPUT, m.input_frame([("x-from", "caller")], b"p")[8:])
    row = world.row(child)
    assert row is not None
    assert (row["key"], row["invoked_by_id"], row["invoked_by_target"]) == ("k", caller, "Plain/run")
    assert world.machine.resident[row["seq"]].target == "Counter/k/add"


def test_a_failed_child_fails_the_call_with_metadata():
    world = World()
    caller = new(world)
    child = call(world, caller)
    world.says(child, (m.OUTPUT, m.data(15, m.encode_failure(418, "teapot", {"a": "b"}))), sdk.END)
    assert world.result(caller, 2) == Result(failure=(418, "teapot", {"a": "b"}))


@pytest.mark.parametrize("crashes", [False, True])
def test_a_result_wakes_a_suspended_caller(crashes: bool):
    world = World()
    caller = new(world)
    child = call(world, caller)
    world.suspend(caller, (2,))
    if crashes:
        world.crash()
    world.finish(child)
    assert world.status(caller) == "invoked"


def test_a_result_for_a_caller_that_is_over_is_dropped():
    world = World()
    caller = world.submit("Forgetful/run")
    child = call(world, caller)
    world.says(caller, sdk.output(), sdk.END)
    world.finish(child)
    assert (world.status(caller), world.status(child)) == ("gone", "completed")


def test_a_call_and_its_child_are_stored_together_or_not_at_all():
    world = World()
    caller = new(world)
    world.lose(
        world.said(caller, sdk.call("Plain", "run", id_notification=1, completion_id=2)),
        flushed=True,
    )
    assert world.count("invocation") == 1
    assert len(world.journal(caller)) == 1


def test_a_handler_that_calls_its_own_key_waits_for_itself():
    world = World()
    caller = world.submit("Counter/add", "k")
    child = call(world, caller, service="Counter", handler="add", key="k")
    assert world.status(child) == "inboxed"
    assert world.cancel(child) == "done"
    assert world.result(caller, 2) == Result(failure=(409, "canceled", {}))


# ---- sends -----------------------------------------------------------------------------------------------------------------


def test_a_send_tells_its_id_and_nothing_more():
    world = World()
    sender = new(world)
    world.says(sender, sdk.send("Plain", "run", id_notification=1, parameter=b"p"))
    child = world.child_id(sender, 1)
    world.finish(child)
    assert [kind for kind, _ in world.attempts[sender].received] == [m.CALL_INVOCATION_ID]


@pytest.mark.parametrize("crashes", [False, True])
def test_a_delayed_send_runs_when_it_is_due(crashes: bool):
    world = World()
    sender = new(world)
    due_ms = START_MS + HOUR_MS
    world.says(sender, sdk.send("Plain", "run", id_notification=1, invoke_time_ms=due_ms))
    assert [effect.due_ms for effect in world.of(ArmTimer)] == [due_ms]
    child = world.child_id(sender, 1)
    if crashes:
        world.crash()
    world.advance(HOUR_MS - 1)
    assert world.status(child) == "scheduled"
    world.advance(1)
    assert world.status(child) == "invoked"
    assert world.timers() == []


def test_a_send_delayed_for_ever_is_stored():
    world = World()
    sender = new(world)
    world.says(sender, sdk.send("Plain", "run", id_notification=1, invoke_time_ms=2**64 - 1))
    child = world.child_id(sender, 1)
    assert world.status(child) == "scheduled"
    world.kill(child)
    assert world.timers() == []


# ---- idempotency keys and workflow ids ---------------------------------------------------------------------------------------


def test_the_same_idempotency_key_is_the_same_invocation():
    world = World()
    one = world.submit("Plain/run", idempotency_key="i", token="first")
    two = world.submit("Plain/run", idempotency_key="i", token="second")
    assert one == two
    assert (world.accepted["first"].is_new, world.accepted["second"].is_new) == (True, False)
    assert world.accepted["second"].completion is None
    assert world.count("invocation") == 1
    world.finish(one, b"r")
    world.submit("Plain/run", idempotency_key="i", token="third")
    completion = world.accepted["third"].completion
    assert isinstance(completion, Completion)
    assert (completion.value, completion.expires_at_ms) == (b"r", START_MS + 86_400_000)


def test_another_key_handler_or_object_is_another_invocation():
    world = World()
    invocations = [
        world.submit("Plain/run", idempotency_key="i"),
        world.submit("Plain/run", idempotency_key="j"),
        world.submit("Pausing/run", idempotency_key="i"),
        world.submit("Counter/add", "a", idempotency_key="i"),
        world.submit("Counter/add", "b", idempotency_key="i"),
        world.submit("Counter/read", "a", idempotency_key="i"),
    ]
    assert len(set(invocations)) == len(invocations)


def test_duplicates_in_one_batch():
    world = World()
    one, two = [world.submitted("Plain/run", idempotency_key="i") for _ in range(2)]
    world.batch(one, two)
    assert [(effect.token, effect.is_new) for effect in world.of(Accepted)] == [(one.token, True), (two.token, False)]
    assert world.count("invocation") == 1


def test_a_duplicate_of_a_scheduled_one_learns_its_time():
    world = World()
    world.submit("Plain/run", idempotency_key="i", start_at_ms=START_MS + 5)
    world.submit("Plain/run", idempotency_key="i", token="again")
    assert world.accepted["again"].start_at_ms == START_MS + 5


def test_a_caller_without_token_is_not_told_of_acceptance():
    world = World()
    event = world.submitted("Plain/run")
    event.token = None
    world.batch(event)
    assert world.of(Accepted) == []


@pytest.mark.parametrize("finished_first", [False, True])
def test_a_call_with_a_known_idempotency_key_joins(finished_first: bool):
    world = World()
    existing = world.submit("Plain/run", idempotency_key="i")
    if finished_first:
        world.finish(existing, b"r")
    callers = [new(world), new(world)]
    for caller in callers:
        assert call(world, caller, idempotency_key="i") == existing
    if not finished_first:
        assert [world.result(caller, 2) for caller in callers] == [None, None]
        world.finish(existing, b"r")
    assert [world.result(caller, 2) for caller in callers] == [Result(value=b"r")] * 2
    assert world.count("listener") == 0


def test_a_send_with_a_known_idempotency_key_only_learns_the_id():
    world = World()
    existing = world.submit("Plain/run", idempotency_key="i")
    sender = new(world)
    world.says(sender, sdk.send("Plain", "run", id_notification=1, idempotency_key="i"))
    assert world.child_id(sender, 1) == existing
    world.finish(existing)
    assert len(world.notifications(sender)) == 1


def test_a_workflow_runs_once_per_key():
    world = World()
    run = world.submit("Flow/run", "w")
    caller = new(world)
    world.says(
        caller,
        sdk.call("Flow", "run", key="w", id_notification=1, completion_id=2),
        sdk.send("Flow", "run", key="w", id_notification=3),
        sdk.call("Flow", "run", key="w", idempotency_key="ignored", id_notification=4, completion_id=5),
    )
    again = Result(failure=(409, "the workflow method was already invoked", {}))
    assert {world.child_id(caller, number) for number in (1, 3, 4)} == {run}
    assert [world.result(caller, number) for number in (2, 5)] == [again, again]
    assert len([invocation for invocation in world.started if invocation == run]) == 1


def test_the_id_of_a_workflow_is_free_after_a_purge():
    world = World()
    run = world.submit("Flow/run", "w")
    world.finish(run)
    world.submit("Flow/run", "w", token="before")
    world.purge(run)
    world.submit("Flow/run", "w", token="after")
    assert (world.accepted["before"].is_new, world.accepted["after"].is_new) == (False, True)
    assert world.started == [run, run]


def test_an_id_that_becomes_free_and_is_taken_in_one_batch():
    world = World()
    run = world.submit("Flow/run", "w")
    world.finish(run)
    again = world.submitted("Flow/run", "w", token="again")
    world.batch(PurgeRequested(None, run, False, world.now_ms), again)
    assert world.accepted["again"].is_new
    # The new one is in flight: whatever finds it by its id must find that one, not a second copy.
    world.signal(run, "go")
    assert [kind for kind, _ in world.attempts[run].received] == [m.SIGNAL]
    world.finish(run, b"second")
    assert world.status(run) == "completed"
    assert world.completions[run][-1].value == b"second"


def test_shared_handlers_work_before_during_and_after_the_run():
    world = World()
    shared = [world.submit("Flow/approve", "w")]
    run = world.submit("Flow/run", "w")
    shared.append(world.submit("Flow/approve", "w"))
    world.finish(run)
    shared.append(world.submit("Flow/approve", "w"))
    assert [world.status(invocation) for invocation in shared] == ["invoked"] * 3


# ---- attach and output -------------------------------------------------------------------------------------------------------


TARGETS: dict[str, tuple[Callable[[World], str], Callable[[str], sdk.Frame]]] = {
    "by id": (lambda world: world.submit("Plain/run"), lambda target: sdk.attach(target, 1)),
    "by idempotency key": (
        lambda world: world.submit("Plain/run", idempotency_key="i"),
        lambda target: sdk.attach_idempotent("Plain", None, "run", "i", 1),
    ),
    "by key and idempotency key": (
        lambda world: world.submit("Counter/add", "k", idempotency_key="i"),
        lambda target: sdk.attach_idempotent("Counter", "k", "add", "i", 1),
    ),
    "by workflow": (
        lambda world: world.submit("Flow/run", "w"),
        lambda target: sdk.attach_workflow("Flow", "w", 1),
    ),
}


@pytest.mark.parametrize(("make", "attach"), TARGETS.values(), ids=TARGETS.keys())
def test_attach_waits_for_the_result(make: Callable[[World], str], attach: Callable[[str], sdk.Frame]):
    world = World()
    target = make(world)
    early, late = new(world), new(world)
    world.says(early, attach(target))
    world.suspend(early, (1,))
    world.crash()
    world.finish(target, b"r")
    world.says(late, attach(target))
    for invocation in (early, late):
        assert world.result(invocation, 1) == Result(value=b"r")
        assert world.journal(invocation)[-1][0] == 0x8012
        assert world.status(invocation) == "invoked"


def test_attach_twice_to_one_target():
    world = World()
    target, caller = new(world), new(world)
    world.says(caller, sdk.attach(target, 1), sdk.attach(target, 2))
    world.finish(target, b"r")
    assert [world.result(caller, number) for number in (1, 2)] == [Result(value=b"r")] * 2


def test_attach_to_one_that_is_killed_or_cancelled():
    world = World()
    holder, waiting = [world.submit("Counter/add", "k") for _ in range(2)]
    caller = new(world)
    world.says(caller, sdk.attach(holder, 1), sdk.attach(waiting, 2))
    world.cancel(waiting)
    world.kill(holder)
    assert world.result(caller, 1) == Result(failure=(409, "killed", {}))
    assert world.result(caller, 2) == Result(failure=(409, "canceled", {}))


def test_output_answers_at_once():
    world = World()
    target, caller = new(world), new(world)
    world.says(caller, sdk.get_output(target, 1))
    world.finish(target, b"")
    world.says(caller, sdk.get_output(target, 2))
    assert (world.result(caller, 1), world.result(caller, 2)) == (VOID, Result(value=b""))
    assert world.journal(caller)[-1][0] == 0x8013


def test_unknown_targets_are_not_found():
    world = World()
    caller = new(world)
    world.says(
        caller,
        sdk.attach(UNKNOWN, 1),
        sdk.get_output(UNKNOWN, 2),
        sdk.attach_workflow("Flow", "never", 3),
        sdk.attach_idempotent("Plain", None, "run", "never", 4),
    )
    assert [world.result(caller, number) for number in (1, 2, 3, 4)] == [NOT_FOUND] * 4


# ---- refused -----------------------------------------------------------------------------------------------------------------

REFUSED = {
    "unknown service": ({"service": "Nobody"}, "RT0018"),
    "unknown handler": ({"handler": "nothing"}, "RT0018"),
    "key for a plain service": ({"key": "k"}, "RT0017"),
    "empty idempotency key": ({"idempotency_key": ""}, "RT0017"),
    "scope": ({"scope": "s"}, "RT0024"),
}


@pytest.mark.parametrize(("options", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_call_fails_the_attempt_is_retried_and_leaves_nothing(options: dict[str, str], code: str):
    world = World()
    caller = new(world)
    target = {"service": "Plain", "handler": "run", **options}
    world.says(
        caller,
        sdk.run(1),
        sdk.call(id_notification=2, completion_id=3, **target),  # type: ignore[arg-type]
        sdk.run(4),
    )
    assert code in world.events_of(caller)[0]
    assert caller in world.retries
    assert caller not in world.attempts
    assert [kind for kind, _ in world.journal(caller)] == [m.INPUT, m.RUN]
    assert world.count("invocation") == 1


def test_answers_come_once():
    world = World()
    caller = new(world)
    child = call(world, caller)
    world.finish(child)
    assert [effect.completion.invocation_id for effect in world.of(Completed)] == [child]
    assert len([found for found in world.notifications(caller) if found[0] == (2,)]) == 1


def test_derived_ids_are_those_of_a_restate_server():
    world = World()
    assert world.submit("Flow/run", "w1") == ids.invocation_text(ids.workflow_run_id("Flow", "w1"))
