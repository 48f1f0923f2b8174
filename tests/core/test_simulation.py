"""Random histories with a crash at any commit, against an oracle that knows only what was promised to the outside.

Each step makes events; some are kept back so that several share one batch. A crash loses what was not committed, a
lost batch is applied and rolled back first. After every step the rows must keep the promises; at the end everything is
let run, and must finish. A seed is a history: HOLDFAST_SEED=17 replays one, and each seed turns some steps off and
others up, so that histories differ in kind. A bug found by a seed also leaves a small named case in a table.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest

from holdfast.core import awaiting
from holdfast.core import events as ev
from holdfast.core import machine as machine_module
from holdfast.core.effects import Accepted
from holdfast.core.model import Invocation
from holdfast.protocol import messages as m
from holdfast.protocol.messages import Result
from holdfast.protocol.wire import message, split
from tests.core import sdk
from tests.core.driver import World
from tests.core.sdk import Frame

LIVE = ("invoked", "suspended", "paused")
TARGETS = [("Counter/add", "a"), ("Counter/add", "b"), ("Counter/read", "a"), ("Plain/run", None), ("Flow/run", "w")]
TARGETS += [("Flow/approve", "w"), ("FleetingObject/add", "a"), ("Pausing/run", None)]
FREE_LOCKS = 2  # instead of ten thousand, so that keys are forgotten all the time



class Handler:
    """The SDK's view of one running attempt, read from what it was sent."""

    def __init__(self, world: World, invocation: str) -> None:
        attempt = world.attempts[invocation]
        frames = attempt.known + attempt.received
        self.arrived = {m.notification_leaf(kind, body) for kind, body in frames if kind >= m.NOTIFICATION}
        # A run acknowledged in version 7 carries the completion id in field 1, like its completion.
        self.arrived |= {(message(body)[1],) for kind, body in frames if kind == m.PROPOSE_RUN_COMPLETION_ACK}
        said = [frame for frame in world.journal(invocation) if m.is_command(frame[0])]
        ids = [message(body) for _, body in said]
        self.asked = [content[11] for content in ids if 11 in content]
        self.pending = [(asked,) for asked in self.asked if (asked,) not in self.arrived]
        used = [*self.asked, *[content[10] for content in ids if 10 in content]]
        self.next_id = 1 + max([int(used_id) for used_id in used], default=0)
        self.cancelled = m.CANCEL_SIGNAL in self.arrived
        self.calls = [message(body) for kind, body in said if kind == m.CALL]


class Simulation(RuleBasedStateMachine):
    version = 6

    def __init__(self) -> None:
        super().__init__()
        self.free_locks_max = machine_module.FREE_LOCKS_MAX
        machine_module.FREE_LOCKS_MAX = FREE_LOCKS
        self.world = World(self.version)
        self.kept: list[ev.Event] = []
        self.silent: set[str] = set()
        """Attempts that have said something not yet applied."""
        self.accepted: dict[str, int] = {}
        """Id -> how many completions had been given when it was accepted (an id may come back after a purge)."""
        self.forgotten: list[str] = []
        self.results: dict[str, bytes] = {}
        self.journals: dict[int, bytes] = {}
        self.promises: dict[tuple[str, str, str], bytes] = {}
        self.may_forget = False
        """A workflow may have been forgotten since the last look, and its promises with it."""
        self.queues: dict[tuple[str, str], list[str]] = {}

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            machine_module.FREE_LOCKS_MAX = self.free_locks_max

    # ---- batches ---------------------------------------------------------------------------------------------------------

    def happens(self, event: ev.Event, keep: bool) -> None:
        self.kept.append(event)
        if not keep:
            self.commit()

    def commit(self) -> None:
        world, events, self.kept = self.world, self.kept, []
        self.silent.clear()
        self.may_forget |= any(isinstance(event, ev.PurgeRequested | ev.CancelRequested) for event in events)
        given = {invocation: len(completions) for invocation, completions in world.completions.items()}
        world.batch(*events)
        for effect in world.effects:
            if isinstance(effect, Accepted) and effect.is_new:
                self.accepted[effect.invocation_id] = given.get(effect.invocation_id, 0)
                self.results.pop(effect.invocation_id, None)
        for event in events:
            if isinstance(event, ev.PurgeRequested | ev.CancelRequested) and event.id in self.accepted:
                self.may_be_over(event.id)

    def may_be_over(self, invocation: str) -> None:
        """It was asked to go, and its id may already belong to a new one: from here on that one counts."""
        answered, row = len(self.world.completions.get(invocation, [])), self.world.row(invocation)
        assert row is not None or answered > self.accepted[invocation], "it went without an answer"
        if row is not None and row["status"] != "completed":
            self.accepted[invocation] = answered

    def running(self, pick: int) -> str | None:
        invocations = [one for one in self.world.attempts if one not in self.silent]
        return invocations[pick % len(invocations)] if invocations else None

    def some(self, pick: int) -> str | None:
        known = [*self.accepted, *self.forgotten[-2:]]
        return known[pick % len(known)] if known else None

    def says(self, invocation: str, keep: bool, *frames: Frame) -> None:
        event = self.world.said(invocation, *frames)
        if any(kind in (m.END, m.SUSPENSION, m.ERROR) for kind, _ in frames):
            del self.world.attempts[invocation]
        self.silent.add(invocation)  # what it says next depends on what comes back
        self.happens(event, keep)

    # ---- callers -----------------------------------------------------------------------------------------------------------

    def submit(self, what: tuple[str, str | None], keep: bool, late: bool, same: str | None) -> None:
        service, key = what
        start_at_ms = self.world.now_ms + 50 if late else None
        if service == "Flow/run":
            same = None
        self.happens(self.world.submitted(service, key, idempotency_key=same, start_at_ms=start_at_ms), keep)

    def signal(self, pick: int, signal: int | str, keep: bool) -> None:
        if (invocation := self.some(pick)) is not None:
            self.happens(self.world.signalled(invocation, signal, Result(value=b"s")), keep)

    def time_passes(self, delay_ms: int) -> None:
        self.commit()
        self.world.advance(delay_ms)

    def retry(self, pick: int) -> None:
        self.commit()
        retries = list(self.world.retries)
        if retries:
            self.world.retry(retries[pick % len(retries)])

    # ---- handlers ----------------------------------------------------------------------------------------------------------

    def step(self, pick: int, keep: bool) -> None:
        if (invocation := self.running(pick)) is not None:
            new = Handler(self.world, invocation).next_id
            self.says(invocation, keep, sdk.run(new), sdk.run_result(new, b"r"))

    def sleep(self, pick: int, delay_ms: int, keep: bool) -> None:
        if (invocation := self.running(pick)) is not None:
            new = Handler(self.world, invocation).next_id
            self.says(invocation, keep, sdk.sleep(new, self.world.now_ms + delay_ms))

    def call(self, pick: int, what: tuple[str, str | None], keep: bool, same: str | None) -> None:
        if (invocation := self.running(pick)) is not None:
            new = Handler(self.world, invocation).next_id
            service, handler = what[0].split("/")
            call = sdk.call(
                service, handler, key=what[1] or "", id_notification=new, completion_id=new + 1, idempotency_key=same
            )
            self.says(invocation, keep, call)

    def send(self, pick: int, what: tuple[str, str | None], keep: bool, delay_ms: int) -> None:
        if (invocation := self.running(pick)) is not None:
            new = Handler(self.world, invocation).next_id
            service, handler = what[0].split("/")
            due_ms = self.world.now_ms + delay_ms if delay_ms else 0
            send = sdk.send(service, handler, key=what[1] or "", id_notification=new, invoke_time_ms=due_ms)
            self.says(invocation, keep, send)

    def attach(self, pick: int, other: int, keep: bool) -> None:
        invocation, target = self.running(pick), self.some(other)
        if invocation is not None and target is not None:
            self.says(invocation, keep, sdk.attach(target, Handler(self.world, invocation).next_id))

    def promise(self, pick: int, name: str, complete: bool, keep: bool) -> None:
        invocation = self.running(pick)
        if invocation is not None and "Flow" in self.world.attempts[invocation].invocation.target:
            new = Handler(self.world, invocation).next_id
            by = invocation.encode()
            self.says(
                invocation, keep, sdk.resolve_promise(name, by, new) if complete else sdk.get_promise(name, new)
            )

    def suspend(self, pick: int, keep: bool) -> None:
        """On everything it has asked for, on signals that did not come, and on cancel."""
        if (invocation := self.running(pick)) is not None:
            handler = Handler(self.world, invocation)
            signals = tuple(signal for signal in (m.CANCEL_SIGNAL, 17, 18) if signal not in handler.arrived)
            if not handler.pending and not signals:
                return
            self.world.close_input(invocation)
            self.says(invocation, keep, self.suspension(tuple(leaf[0] for leaf in handler.pending), signals))

    def suspension(self, completions: tuple[int, ...], signals: tuple[int, ...]) -> Frame:
        return sdk.suspension(completions, signals)

    def close(self, pick: int) -> None:
        if (invocation := self.running(pick)) is not None:
            self.world.close_input(invocation)

    def finish(self, pick: int, keep: bool) -> None:
        if (invocation := self.running(pick)) is not None:
            self.says(invocation, keep, sdk.output(f"{invocation} {self.world.now_ms}".encode()), sdk.END)

    def output_only(self, pick: int, keep: bool) -> None:
        if (invocation := self.running(pick)) is not None and not self.world.attempts[invocation].invocation.output:
            self.says(invocation, keep, sdk.output(b"early"))

    def fail(self, pick: int, keep: bool, delay_ms: int | None, behavior: int) -> None:
        if (invocation := self.running(pick)) is not None:
            self.says(invocation, keep, sdk.error(next_retry_delay_ms=delay_ms, behavior=behavior))

    def obey_cancel(self, pick: int) -> None:
        """What the SDK does with a cancel: pass it on to the calls that are out, then fail."""
        self.commit()
        invocation = self.running(pick)
        if invocation is None:
            return
        handler = Handler(self.world, invocation)
        if not handler.cancelled:
            return
        out = [
            self.world.child_id(invocation, int(call[10])) for call in handler.calls if (call[11],) in handler.pending
        ]
        self.may_forget = True
        signals_before = {child: self.cancels(child) for child in out}
        self.says(
            invocation,
            False,
            *[sdk.send_signal(child, m.CANCEL_SIGNAL) for child in out],
            sdk.output_failure(409, "cancelled"),
            sdk.END,
        )
        for child in out:
            over = self.world.status(child) in ("gone", "completed")
            assert over or self.cancels(child) > signals_before[child], "a cancel did not reach a call"

    def cancels(self, invocation: str) -> int:
        if self.world.status(invocation) == "gone":
            return 0
        return [leaf for leaf, _ in self.world.notifications(invocation)].count(m.CANCEL_SIGNAL)

    # ---- operators ---------------------------------------------------------------------------------------------------------

    def operate(self, pick: int, kind: Any, keep: bool) -> None:
        if (invocation := self.some(pick)) is not None:
            self.happens(kind(self.world.token(), invocation, self.world.now_ms), keep)

    def kill(self, pick: int) -> None:
        self.commit()
        invocation = self.some(pick)
        if invocation is None or self.world.status(invocation) in ("gone", "completed"):
            return
        doomed = self.descendants(invocation)
        self.may_forget = True
        assert self.world.kill(invocation) == "done"
        for victim in doomed:
            assert self.world.status(victim) in ("gone", "completed"), "a kill did not reach a child"

    def descendants(self, invocation: str) -> set[str]:
        """Live invocations that this one called or sent to, and theirs."""
        found, todo = set[str](), [invocation]
        while todo:
            one = todo.pop()
            if one in found or self.world.status(one) in ("gone", "completed"):
                continue
            found.add(one)
            for kind, body in self.world.journal(one):
                if kind == m.CALL_INVOCATION_ID:
                    todo.append(bytes(message(body)[16]).decode())  # type: ignore[arg-type]
        return found

    def purge(self, pick: int, keep: bool) -> None:
        if (invocation := self.some(pick)) is not None:
            self.happens(ev.PurgeRequested(None, invocation, False, self.world.now_ms), keep)

    def edit_state(self, key: str, value: bytes, keep: bool) -> None:
        self.happens(
            ev.StateReplaced(self.world.token(), "Counter", key, {"n": value}, None, self.world.now_ms), keep
        )

    # ---- crashes -----------------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """What was kept back was never acknowledged to anybody."""
        self.kept.clear()
        self.silent.clear()
        self.world.crash()

    def crash_in_a_commit(self, flushed: bool) -> None:
        events, self.kept = self.kept, []
        self.silent.clear()
        self.world.lose(*events, flushed=flushed)

    # ---- promises ----------------------------------------------------------------------------------------------------------

    def rows(self, where: str) -> list[dict[str, Any]]:
        cursor = self.world.connection.execute(f"SELECT * FROM invocation WHERE {where}")
        rows = cursor.fetchall()
        if not rows:
            return []
        names = [column[0] for column in self.world.connection.execute("SELECT * FROM invocation").get_description()]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def promises_are_kept(self) -> None:
        self.journals_only_grow()
        self.accepted_survives()
        self.a_result_never_changes()
        self.one_holds_a_key_and_the_queue_keeps_its_order()
        self.every_timer_is_needed_and_every_need_has_a_timer()
        self.the_first_completion_of_a_promise_wins()
        self.nothing_awaited_is_slept_through()
        self.a_call_and_its_child_agree()
        self.what_should_run_runs()
        self.attempts_see_what_is_stored_in_its_order()

    def accepted_survives(self) -> None:
        stored = {row["id"] for row in self.rows("1")}
        for invocation, before in list(self.accepted.items()):
            completions = self.world.completions.get(invocation, [])[before:]
            assert completions or invocation in stored, "an accepted invocation was lost"
            assert len(completions) <= 1, "answered twice"
            if invocation not in stored:
                del self.accepted[invocation]  # over and forgotten; its id may come back
                self.forgotten.append(invocation)

    def a_result_never_changes(self) -> None:
        stored = {row["id"]: row["output"] for row in self.rows("status = 'completed'")}
        for invocation, output in stored.items():
            assert self.results.setdefault(invocation, output) == output
        for invocation in [one for one in self.results if one not in stored]:
            del self.results[invocation]  # purged; its id may come back

    def one_holds_a_key_and_the_queue_keeps_its_order(self) -> None:
        holders: dict[tuple[str, str], list[str]] = {}
        queues: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for row in self.rows("exclusive = 1 AND status <> 'completed'"):
            place = row["service"], row["key"]
            if row["status"] in LIVE:
                holders.setdefault(place, []).append(row["id"])
            elif row["status"] == "inboxed":
                queues.setdefault(place, []).append((row["inbox_seq"], row["id"]))
        for place, holding in holders.items():
            assert len(holding) == 1, "two hold one key"
            before = self.queues.get(place, [])
            if holding[0] in before:
                overtaken = before[: before.index(holding[0])]
                assert not set(overtaken) & {waiting for _, waiting in queues.get(place, [])}, "the queue was jumped"
        for place, waiting in queues.items():
            assert place in holders, "somebody waits for a key that nobody holds"
            ordered = [invocation for _, invocation in sorted(waiting)]
            before = [invocation for invocation in self.queues.get(place, []) if invocation in ordered]
            assert ordered[: len(before)] == before, "the queue was reordered"
        self.queues = {place: [one for _, one in sorted(waiting)] for place, waiting in queues.items()}

    def journals_only_grow(self) -> None:
        journals: dict[int, bytes] = {}
        for row in self.rows("status <> 'completed'"):
            journal = row["head"] + self.world.tables.journal(row["seq"])
            assert journal.startswith(self.journals.get(row["seq"], b"")), "an entry was changed"
            journals[row["seq"]] = journal
        self.journals = journals

    def every_timer_is_needed_and_every_need_has_a_timer(self) -> None:
        needed: set[tuple[int, int, int]] = set()
        for row in self.rows("status <> 'completed'"):
            if row["status"] == "scheduled":
                needed.add((row["start_at_ms"], row["seq"], 0))
            sleeping: dict[int, int] = {}
            for kind, body in split(self.journals[row["seq"]]):
                content = message(body)
                if kind == m.SLEEP:
                    sleeping[int(content[11])] = int(content[1])
                elif kind == m.SLEEP_COMPLETION:
                    del sleeping[int(content[1])]
            needed |= {(due_ms, row["seq"], completion_id) for completion_id, due_ms in sleeping.items()}
        assert set(self.world.timers()) == needed

    def the_first_completion_of_a_promise_wins(self) -> None:
        stored = {
            (service, key, name): result
            for service, key, name, result in self.world.connection.execute("SELECT * FROM promise")
        }
        for place, result in stored.items():
            assert self.may_forget or self.promises.get(place, result) == result
        self.may_forget = False
        self.promises = stored
        for service, key, name, seq, completion_id in self.world.connection.execute("SELECT * FROM promise_listener"):
            assert (service, key, name) not in stored, "somebody still waits for a completed promise"
            assert completion_id > 0
            assert seq > 0

    def nothing_awaited_is_slept_through(self) -> None:
        for row in self.rows("status = 'suspended'"):
            arrived = {
                m.notification_leaf(kind, body)
                for kind, body in split(self.journals[row["seq"]])
                if kind >= m.NOTIFICATION
            }
            tree = awaiting.from_json(row["awaiting"])
            assert not set(tree.leaves()) & (arrived - {"go"})

    def a_call_and_its_child_agree(self) -> None:
        over = {row["id"] for row in self.rows("status = 'completed'")}
        for row in self.rows("status IN ('invoked', 'suspended', 'paused')"):
            frames = list(split(self.journals[row["seq"]]))
            answered = {m.notification_leaf(kind, body) for kind, body in frames if kind >= m.NOTIFICATION}
            for (kind, body), (following, told) in zip(frames, frames[1:], strict=False):
                if kind not in (m.CALL, m.ONE_WAY_CALL):
                    continue
                assert following == m.CALL_INVOCATION_ID, "the child's id stands directly behind the command"
                child = bytes(message(told)[16]).decode()  # type: ignore[arg-type]
                if kind == m.CALL and child in over:
                    assert (message(body)[11],) in answered, "a finished child did not answer its caller"

    def what_should_run_runs(self) -> None:
        world = self.world
        for row in self.rows("status = 'invoked'"):
            kept = row["seq"] in [getattr(event, "seq", None) for event in self.kept]
            assert row["id"] in world.attempts or row["id"] in world.retries or kept, "nobody works on it"
        for invocation, attempt in world.attempts.items():
            assert world.machine.resident.get(attempt.invocation.seq) is attempt.invocation, "two copies in memory"
            assert world.machine.by_id.get(invocation) is attempt.invocation, "not found by its id"
        if not self.kept:
            resident: list[Invocation] = list(world.machine.resident.values())
            assert {inv.status for inv in resident} <= {"invoked"}, "something that waits is in memory"

    def attempts_see_what_is_stored_in_its_order(self) -> None:
        world = self.world
        for invocation, attempt in world.attempts.items():
            if self.kept:
                continue
            stored = [m.notification_leaf(*frame) for frame in world.journal(invocation) if frame[0] >= m.NOTIFICATION]
            seen = [
                (message(body)[1],) if kind == m.PROPOSE_RUN_COMPLETION_ACK else m.notification_leaf(kind, body)
                for kind, body in attempt.known + attempt.received
                if kind >= m.NOTIFICATION or kind == m.PROPOSE_RUN_COMPLETION_ACK
            ]
            assert seen == stored[: len(seen)]
            assert attempt.invocation.input_open is False or len(seen) == len(stored), "a notification was not sent"

    # ---- without further trouble everything finishes -----------------------------------------------------------------------

    def heal(self) -> None:
        self.commit()
        world = self.world
        for _ in range(300):
            for row in self.rows("status IN ('paused', 'suspended')"):
                world.resume(row["id"])
            for invocation in list(world.retries):
                world.retry(invocation)
            for invocation in list(world.attempts):
                world.finish(invocation)
            world.advance(1_000)
            self.one_holds_a_key_and_the_queue_keeps_its_order()
            if not self.rows("status <> 'completed'"):
                break
        assert self.rows("status <> 'completed'") == []
        assert world.timers() == []
        assert world.count("state_mutation") == 0
        assert world.machine.resident == {}
        self.accepted_survives()


class SimulationOfVersion7(Simulation):
    version = 7

    def suspension(self, completions: tuple[int, ...], signals: tuple[int, ...]) -> Frame:
        """`gather` of everything it has asked for, or any of the signals."""
        nested = (sdk.future(completions, combinator=2),) if completions else ()
        return sdk.suspension_v7(sdk.future((), signals, nested=nested))


HISTORIES = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TestSimulation = Simulation.TestCase
TestSimulation.settings = HISTORIES
TestSimulationOfVersion7 = SimulationOfVersion7.TestCase
TestSimulationOfVersion7.settings = HISTORIES
