"""Restart as new: what a new invocation takes over from a completed one, and when that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from holdfast.core import ids
from holdfast.core.catalog import Deployment
from holdfast.core.events import RestartRequested, ResumeRequested, Submitted
from holdfast.core.model import HEAD_BYTES_MAX
from holdfast.protocol import messages as m
from holdfast.protocol.messages import VOID, Result
from tests.core import sdk
from tests.core.driver import World
from tests.core.sdk import Frame
from tests.core.services import SERVICES, spec
from tests.core.test_lifecycle import backing_off, completed, held, new, paused, scheduled, suspended
from tests.core.test_operations import UNKNOWN

DEPLOYMENT = "dp_test"


def restart(world: World, invocation: str, last_index: int = 0, deployment: str = "latest") -> str:
    """The new id, or the kind of refusal."""
    raw = ids.invocation_bytes(invocation)[:8] + world.random.randbytes(16)

    def event(token: object, invocation_id: str, at_ms: int) -> RestartRequested:
        return RestartRequested(token, invocation_id, raw, last_index, deployment, at_ms)

    return world.operate(event, invocation)


def kinds(frames: list[Frame]) -> list[str]:
    return [m.entry_type_name(kind).removeprefix("Command: ") for kind, _ in frames]


def two_steps(world: World) -> str:
    """Input, Run 1, its result, Run 2, its result, Output: six entries."""
    invocation = world.submit("Plain/run", body=b"order", idempotency_key="once")
    world.says(invocation, sdk.run(1, "first"), sdk.run_result(1, b"one"))
    world.says(invocation, sdk.run(2, "second"), sdk.run_result(2, b"two"))
    world.finish(invocation, b"done")
    return invocation


def purged(world: World) -> str:
    invocation = completed(world)
    world.purge(invocation, journal_only=True)
    return invocation


def workflow(world: World) -> str:
    invocation = world.submit("Flow/run", "k")
    world.finish(invocation)
    return invocation


def workflow_shared(world: World) -> str:
    invocation = world.submit("Flow/approve", "k")
    world.finish(invocation)
    return invocation


REFUSALS: dict[str, tuple[Callable[[World], str], str]] = {
    "running": (new, "conflict"),
    "backing off": (backing_off, "conflict"),
    "suspended": (suspended, "conflict"),
    "paused": (paused, "conflict"),
    "scheduled": (scheduled, "too_early"),
    "pending": (held, "too_early"),
    "journal purged": (purged, "gone"),
    "a workflow's run": (workflow, "unsupported"),
    "another handler of a workflow": (workflow_shared, "unsupported"),
    "unknown": (lambda world: UNKNOWN, "not_found"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_only_a_completed_invocation_with_its_journal_is_restarted(case: str):
    history, refusal = REFUSALS[case]
    world = World()
    invocation = history(world)
    before = world.count("invocation")
    assert restart(world, invocation) == refusal
    assert world.count("invocation") == before


def test_the_new_one_has_the_input_and_none_of_the_rest():
    world = World()
    old = two_steps(world)
    fresh = restart(world, old)
    row, original = world.row(fresh), world.row(old)
    assert row is not None
    assert original is not None
    same = ("service", "handler", "key", "retention_ms", "journal_retention_ms", "deployment_id", "protocol_version")
    assert {name: row[name] for name in same} == {name: original[name] for name in same}
    assert (row["restarted_from"], row["idempotency_key"], row["invoked_by_id"]) == (old, None, None)
    assert row["random_seed"] is None, "it draws numbers of its own"
    assert world.journal(fresh) == world.journal(old)[:1]
    assert ids.invocation_bytes(fresh)[:8] == ids.invocation_bytes(old)[:8]
    world.finish(fresh, b"again")
    assert world.completion(fresh).value == b"again"
    assert world.completion(old).value == b"done"


PREFIXES = {
    0: ["Input"],
    1: ["Input", "Run", "Notification: Run"],
    2: ["Input", "Run", "Notification: Run"],
    3: ["Input", "Run", "Notification: Run", "Run", "Notification: Run"],
    4: ["Input", "Run", "Notification: Run", "Run", "Notification: Run"],
}


@pytest.mark.parametrize("last_index", PREFIXES)
def test_a_copied_command_brings_its_result(last_index: int):
    world = World()
    old = two_steps(world)
    fresh = restart(world, old, last_index)
    assert kinds(world.attempts[fresh].known) == PREFIXES[last_index]
    world.crash()
    assert kinds(world.attempts[fresh].known) == PREFIXES[last_index], "the copy is durable"


def test_a_prefix_keeps_the_random_numbers_it_was_made_with():
    world = World()
    old = two_steps(world)
    fresh = restart(world, old, 1)
    seed = m.derived_seed(ids.invocation_bytes(old))
    assert world.attempts[fresh].invocation.random_seed == seed
    world.finish(fresh)
    third = restart(world, fresh, 1)
    assert world.attempts[third].invocation.random_seed == seed


def test_the_seed_of_an_id_is_the_one_attempts_are_told():
    raw = bytes(range(100, 124))

    def start(random_seed: int | None) -> bytes:
        return m.start_frame(
            invocation_bytes=raw,
            random_seed=random_seed,
            debug_id="",
            known_entries=1,
            state=(),
            partial_state=False,
            key=None,
            retry_count=0,
            since_last_entry_ms=0,
            version=6,
        )

    assert start(None) == start(m.derived_seed(raw))


def test_a_copied_output_is_the_result_once_the_handler_has_come_to_it_again():
    world = World()
    old = world.submit("Plain/run")
    world.says(old, sdk.output_failure(418, "teapot"), sdk.END)
    fresh = restart(world, old, 1)
    assert kinds(world.attempts[fresh].known) == ["Input"]
    assert world.status(fresh) == "invoked"
    world.says(fresh, sdk.END)
    failure = world.completion(fresh).failure
    assert failure is not None
    assert (failure.code, failure.message) == (418, "teapot")


def test_later_signals_stay_behind():
    world = World()
    old = world.submit("Plain/run")
    world.says(old, sdk.run(1), sdk.run_result(1, b"one"))
    world.signal(old, 17, Result(value=b"early"))
    world.says(old, sdk.run(2))
    world.signal(old, 18, Result(value=b"late"))
    world.says(old, sdk.run_result(2, b"two"))
    world.finish(old)
    both = ["Input", "Run", "Notification: Run", "Notification: Signal", "Run"]
    assert kinds(world.journal(old)) == [*both, "Notification: Signal", "Notification: Run"]
    fresh = restart(world, old, 4)
    assert kinds(world.attempts[fresh].known) == [*both, "Notification: Run"]
    early = restart(world, old, 2)
    assert kinds(world.attempts[early].known) == ["Input", "Run", "Notification: Run"]


def test_calls_are_not_made_again():
    world = World()
    old = world.submit("Plain/run")
    world.says(old, sdk.call("Counter", "add", key="k", id_notification=1, completion_id=2))
    child = world.child_id(old, 1)
    world.finish(child, b"7")
    world.finish(old)
    fresh = restart(world, old, 1)
    assert kinds(world.attempts[fresh].known)[1:] == ["Call", "Notification: CallInvocationId", "Notification: Call"]
    assert world.result(fresh, 2) == Result(value=b"7")
    assert list(world.attempts) == [fresh]


def test_a_command_without_result_cannot_be_copied():
    world = World()
    old = world.submit("Plain/run")
    world.says(old, sdk.run(1), sdk.run_result(1, b"one"), sdk.sleep(2, world.now_ms + 1000))
    world.kill(old)
    assert [restart(world, old, last_index) for last_index in (3, 4, 100)] == ["invalid"] * 3
    fresh = restart(world, old, 2)
    assert kinds(world.attempts[fresh].known) == ["Input", "Run", "Notification: Run"]


def test_an_object_waits_for_its_key_again():
    world = World()
    old = world.submit("Counter/add", "k")
    world.says(old, sdk.set_state("total", b"1"))
    world.finish(old)
    holder = world.submit("Counter/add", "k")
    fresh = restart(world, old)
    assert world.status(fresh) == "inboxed"
    world.finish(holder)
    assert world.status(fresh) == "invoked"
    assert world.state("Counter", "k") == {"total": b"1"}, "state is not taken back"


def test_a_large_input_is_copied_too():
    world = World()
    body = bytes(HEAD_BYTES_MAX)
    old = world.submit("Plain/run", body=body)
    world.finish(old)
    fresh = restart(world, old)
    assert world.attempts[fresh].known == world.journal(old)


def test_prefixes_need_version_6():
    world = World(version=5)
    old = two_steps(world)
    assert restart(world, old, 1) == "unsupported"
    assert world.row(restart(world, old)) is not None


def test_completed_and_restarted_in_one_batch():
    world = World()
    old = world.submit("Plain/run")
    ended = world.said(old, sdk.run(1), sdk.run_result(1, b"one"), sdk.output(b"x"), sdk.END)
    del world.attempts[old]
    raw = ids.invocation_bytes(old)[:8] + bytes(16)
    world.batch(ended, RestartRequested("token", old, raw, 1, "latest", world.now_ms))
    fresh = world.answers["token"]
    assert kinds(world.attempts[fresh].known) == ["Input", "Run", "Notification: Run"]


# --- where it runs


def remote(deployment_id: str, revision: int, versions: tuple[int, int] = (5, 7)) -> Deployment:
    names = dict.fromkeys(SERVICES, revision)
    return Deployment(deployment_id, "http://x/", True, None, revision, "", True, *versions, SERVICES, names)


def world_of(*deployments: Deployment) -> World:
    world = World()
    world.machine.catalog.replace(deployments)
    return world


OLD, NEW, ANCIENT = "dp_old", "dp_new", "dp_ancient"


def bound_to_the_old_one(world: World) -> str:
    world.machine.catalog.replace([remote(OLD, 1)])
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"one"))
    return invocation


CHOICES = {"keep": OLD, "latest": NEW, OLD: OLD, NEW: NEW, "dp_unknown": "invalid", ANCIENT: "invalid"}
THREE = [remote(OLD, 2), remote(ANCIENT, 1, (5, 5)), remote(NEW, 3)]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_restart_runs_where_it_is_told(choice: str):
    world = World()
    old = bound_to_the_old_one(world)
    world.finish(old)
    world.machine.catalog.replace(THREE)
    fresh = restart(world, old, 1, choice)
    row = world.row(fresh)
    assert (row["deployment_id"] if row else fresh) == CHOICES[choice]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("status", ["suspended", "paused"])
def test_a_waiting_invocation_resumes_where_it_is_told(choice: str, status: str):
    world = World()
    invocation = bound_to_the_old_one(world)
    if status == "paused":
        world.pause(invocation)
    world.suspend(invocation, signals=(1,))
    world.machine.catalog.replace(THREE)
    answer = resume(world, invocation, choice)
    assert (world.status(invocation), answer) == (
        (status, "invalid") if CHOICES[choice] == "invalid" else ("invoked", "done")
    )
    row = world.row(invocation)
    assert row is not None
    assert row["deployment_id"] == (OLD if answer == "invalid" else CHOICES[choice])


def resume(world: World, invocation: str, choice: str) -> str:
    def event(token: object, invocation_id: str, at_ms: int) -> ResumeRequested:
        return ResumeRequested(token, invocation_id, at_ms, choice)

    return world.operate(event, invocation)


def test_a_running_invocation_stays_where_it_is():
    world = World()
    invocation = bound_to_the_old_one(world)
    world.machine.catalog.replace(THREE)
    assert [resume(world, invocation, choice) for choice in CHOICES] == ["done"] + ["conflict"] * 5
    world.fail(invocation)
    assert resume(world, invocation, "latest") == "conflict", "backing off counts as running"


def test_an_unbound_invocation_takes_the_latest_anyway():
    world = world_of(remote(OLD, 1), remote(NEW, 2))
    invocation = world.submit("Plain/run")
    world.fail(invocation)
    world.pause(invocation)
    assert resume(world, invocation, OLD) == "conflict"
    assert resume(world, invocation, "latest") == "done"
    world.kill(invocation)
    fresh = restart(world, invocation, 0, "keep")
    row = world.row(fresh)
    assert row is not None
    assert row["deployment_id"] is None
    assert restart(world, invocation, 0, "dp_unknown") == "invalid"


def test_an_invocation_bound_to_a_removed_deployment_can_be_restarted_elsewhere():
    world = World()
    old = bound_to_the_old_one(world)
    world.finish(old)
    world.machine.catalog.replace([remote(NEW, 1)])
    assert restart(world, old, 1, "keep") == "invalid"
    row = world.row(restart(world, old, 1))
    assert row is not None
    assert row["deployment_id"] == NEW


def test_a_restart_takes_the_settings_of_the_handler_as_it_is_now():
    world = World()
    old = completed(world)
    slower = replace(spec("Plain/run"), retry=replace(spec("Plain/run").retry, max_attempts=1))
    plain = replace(SERVICES["Plain"], handlers={"run": slower})
    world.machine.catalog.replace([replace(remote(NEW, 1), services={**SERVICES, "Plain": plain})])
    fresh = restart(world, old)
    assert world.attempts[fresh].invocation.spec == slower
    world.fail(fresh)
    assert world.status(fresh) == "paused"


def test_a_cancelled_one_starts_without_the_cancel():
    world = World()
    old = world.submit("Plain/run")
    world.says(old, sdk.run(1), sdk.run_result(1, b"one"))
    world.cancel(old)
    world.says(old, sdk.output_failure(409, "cancelled"), sdk.END)
    assert kinds(world.attempts[restart(world, old, 2)].known) == ["Input", "Run", "Notification: Run"]
    with_cancel = restart(world, old, 3)
    assert world.notifications(with_cancel)[-1] == (1, VOID)


def test_its_id_is_new_and_stays_free_for_the_idempotency_key():
    world = World()
    old = two_steps(world)
    world.purge(old)
    again: Submitted = world.submitted("Plain/run", idempotency_key="once")
    assert again.id == old
    world.batch(again)
    assert world.accepted[again.token].is_new
