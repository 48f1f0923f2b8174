"""A world in which everything happens at random: callers, handlers, operators, time, crashes at any commit.

Each step makes events; some are kept back so that several share one batch. A crash loses what was not committed; a
lost batch is applied and rolled back first. Nothing here judges: see `promises.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from holdfast.core import events as ev
from holdfast.core.effects import Accepted
from holdfast.protocol import messages as m
from holdfast.protocol.messages import Result
from holdfast.protocol.wire import message
from tests.core import sdk
from tests.core.driver import World
from tests.core.sdk import Frame
from tests.support.violation import Violation

TARGETS = [
    ("Counter/add", "a"),
    ("Counter/add", "b"),
    ("Counter/read", "a"),
    ("Plain/run", None),
    ("Flow/run", "w"),
    ("Flow/approve", "w"),
    ("FleetingObject/add", "a"),
    ("Pausing/run", None),
]


class Handler:
    """What the SDK knows in a running attempt, read from what it was sent and what it said."""

    def __init__(self, world: World, invocation: str) -> None:
        attempt = world.attempts[invocation]
        frames = attempt.known + attempt.received
        self.arrived = {leaf_of(frame) for frame in frames if is_notification(frame)}
        said = [(kind, message(body)) for kind, body in world.journal(invocation) if m.is_command(kind)]
        asked = [int(content[11]) for _, content in said if 11 in content]
        told = [int(content[10]) for _, content in said if 10 in content]
        self.pending = tuple(number for number in asked if (number,) not in self.arrived)
        self.next_id = 1 + max([*asked, *told], default=0)
        self.is_cancelled = m.CANCEL_SIGNAL in self.arrived
        self.calls_out = [int(content[10]) for kind, content in said if kind == m.CALL and content[11] in self.pending]


def is_notification(frame: Frame) -> bool:
    return frame[0] >= m.NOTIFICATION or frame[0] == m.PROPOSE_RUN_COMPLETION_ACK


def leaf_of(frame: Frame) -> object:
    # An acknowledgement of version 7 carries the completion id where the completion has it.
    return m.notification_leaf(m.RUN_COMPLETION if frame[0] < m.NOTIFICATION else frame[0], frame[1])


class Simulated:
    """`step()` does one random thing. Each seed makes some things rare and others frequent."""

    def __init__(self, seed: int, version: int) -> None:
        self.random = Random(seed)
        self.world = World(version)
        self.kept: list[ev.Event] = []
        self.silent: set[str] = set()
        """Attempts that have said something not yet applied."""
        self.accepted: dict[str, int] = {}
        """Id -> how many answers had been given when it was accepted (an id may come back after a purge)."""
        self.forgotten: list[str] = []
        self.may_have_forgotten = False
        """A workflow may have been forgotten since the last look, and its promises with it."""
        self.trace: list[str] = []
        steps: list[Callable[[], None]] = [
            *(self.submit, self.signal, self.time_passes, self.retry),
            *(self.run, self.sleep, self.call, self.send, self.attach, self.promise, self.write),
            *(self.suspend, self.close, self.finish, self.output_only, self.fail, self.obey_cancel),
            *(self.cancel, self.pause, self.resume, self.kill, self.purge, self.edit_state),
            *(self.crash, self.crash_in_a_commit),
        ]
        often = {self.submit, self.run, self.call, self.finish, self.suspend, self.time_passes}
        rare = {self.crash, self.crash_in_a_commit, self.purge, self.kill, self.pause}
        self._steps = steps
        self._weights = [
            (4.0 if step in often else 0.4 if step in rare else 1.0) * self.random.choice((0.1, 1.0, 1.0, 3.0))
            for step in steps
        ]
        self._keeps = self.random.choice((0.0, 0.2, 0.6))

    def step(self) -> None:
        (step,) = self.random.choices(self._steps, self._weights)
        self.trace.append(step.__name__)
        step()

    # ---- batches ---------------------------------------------------------------------------------------------------------

    def happens(self, event: ev.Event) -> None:
        self.kept.append(event)
        if self.random.random() >= self._keeps:
            self.commit()

    def commit(self) -> None:
        world, events, self.kept = self.world, self.kept, []
        self.silent.clear()
        gone = [event.id for event in events if isinstance(event, ev.PurgeRequested | ev.CancelRequested)]
        self.may_have_forgotten |= bool(gone)
        given = {invocation: len(completions) for invocation, completions in world.completions.items()}
        world.batch(*events)
        for effect in world.effects:
            if isinstance(effect, Accepted) and effect.is_new:
                self.accepted[effect.invocation_id] = given.get(effect.invocation_id, 0)
        for invocation in gone:
            if invocation in self.accepted:
                self._may_be_over(invocation)

    def _may_be_over(self, invocation: str) -> None:
        """It was asked to go, and its id may already belong to a new one: from here on that one counts."""
        answered, row = len(self.world.completions.get(invocation, [])), self.world.row(invocation)
        assert row is not None or answered > self.accepted[invocation], "it went without an answer"
        if row is not None and row["status"] != "completed":
            self.accepted[invocation] = answered

    def running(self) -> str | None:
        invocations = [one for one in self.world.attempts if one not in self.silent]
        return self.random.choice(invocations) if invocations else None

    def some(self) -> str | None:
        known = [*self.accepted, *self.forgotten[-2:]]
        return self.random.choice(known[-8:]) if known else None

    def says(self, invocation: str, *frames: Frame) -> None:
        event = self.world.said(invocation, *frames)
        if any(kind in (m.END, m.SUSPENSION, m.ERROR) for kind, _ in frames):
            del self.world.attempts[invocation]
        self.silent.add(invocation)  # what it says next depends on what comes back
        self.happens(event)

    # ---- callers ---------------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        target, key = self.random.choice(TARGETS)
        idempotency_key = None if target == "Flow/run" else self.random.choice((None, None, "i"))
        start_at_ms = self.random.choice((None, None, None, self.world.now_ms + 50))
        self.happens(self.world.submitted(target, key, idempotency_key=idempotency_key, start_at_ms=start_at_ms))

    def signal(self) -> None:
        if (invocation := self.some()) is not None:
            signal = self.random.choice((17, 18, "go"))
            self.happens(self.world.signalled(invocation, signal, Result(value=b"s")))

    def time_passes(self) -> None:
        self.commit()
        self.world.advance(self.random.randrange(200))

    def retry(self) -> None:
        self.commit()
        if self.world.retries:
            self.world.retry(self.random.choice(list(self.world.retries)))

    # ---- handlers --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        if (invocation := self.running()) is not None:
            new = Handler(self.world, invocation).next_id
            frames = [sdk.run(new), sdk.run_result(new, b"r")]
            self.says(invocation, *frames[: self.random.choice((1, 2, 2))])

    def sleep(self) -> None:
        if (invocation := self.running()) is not None:
            wake_up_ms = self.world.now_ms + self.random.randrange(300)
            self.says(invocation, sdk.sleep(Handler(self.world, invocation).next_id, wake_up_ms))

    def call(self) -> None:
        if (invocation := self.running()) is not None:
            new = Handler(self.world, invocation).next_id
            target, key = self.random.choice(TARGETS)
            service, handler = target.split("/")
            same = self.random.choice((None, None, "i"))
            self.says(
                invocation,
                sdk.call(
                    service, handler, key=key or "", id_notification=new, completion_id=new + 1, idempotency_key=same
                ),
            )

    def send(self) -> None:
        if (invocation := self.running()) is not None:
            new = Handler(self.world, invocation).next_id
            target, key = self.random.choice(TARGETS)
            service, handler = target.split("/")
            due_ms = self.random.choice((0, self.world.now_ms + 100))
            self.says(invocation, sdk.send(service, handler, key=key or "", id_notification=new, invoke_time_ms=due_ms))

    def attach(self) -> None:
        invocation, target = self.running(), self.some()
        if invocation is not None and target is not None:
            self.says(invocation, sdk.attach(target, Handler(self.world, invocation).next_id))

    def promise(self) -> None:
        flows = [one for one in self.world.attempts if one not in self.silent and self._service(one) == "Flow"]
        if flows:
            invocation = self.random.choice(flows)
            new, name = Handler(self.world, invocation).next_id, self.random.choice("pq")
            resolve = sdk.resolve_promise(name, f"{invocation} {new}".encode(), new)
            self.says(invocation, self.random.choice((resolve, sdk.get_promise(name, new))))

    def _service(self, invocation: str) -> str:
        return self.world.attempts[invocation].invocation.service

    def write(self) -> None:
        if (invocation := self.running()) is not None:
            self.says(invocation, sdk.set_state("n", invocation.encode()))  # refused where no key is held

    def suspend(self) -> None:
        """On everything asked for, on signals that did not come, and on cancel."""
        if (invocation := self.running()) is None:
            return
        handler = Handler(self.world, invocation)
        signals = tuple(signal for signal in (m.CANCEL_SIGNAL, 17, 18) if signal not in handler.arrived)
        if not handler.pending and not signals:
            return
        self.world.close_input(invocation)
        if self.world.version < 7:
            self.says(invocation, sdk.suspension(handler.pending, signals))
            return
        nested = (sdk.future(handler.pending, combinator=self.random.choice((1, 2))),) if handler.pending else ()
        self.says(invocation, sdk.suspension_v7(sdk.future((), signals, nested=nested)))

    def close(self) -> None:
        if (invocation := self.running()) is not None:
            self.world.close_input(invocation)

    def finish(self) -> None:
        if (invocation := self.running()) is not None:
            self.says(invocation, sdk.output(f"{invocation} {self.world.now_ms}".encode()), sdk.END)

    def output_only(self) -> None:
        if (invocation := self.running()) is not None and not self.world.attempts[invocation].invocation.output:
            self.says(invocation, sdk.output(b"early"))

    def fail(self) -> None:
        if (invocation := self.running()) is not None:
            delay_ms, behavior = self.random.choice((None, 5)), self.random.choice((0, 0, 0, 1, 2))
            self.says(invocation, sdk.error(next_retry_delay_ms=delay_ms, behavior=behavior))

    def obey_cancel(self) -> None:
        """What the SDK does with a cancel: pass it on to the calls that are out, then fail."""
        self.commit()
        world = self.world
        cancelled = [one for one in world.attempts if Handler(world, one).is_cancelled]
        if not cancelled:
            return
        invocation = self.random.choice(cancelled)
        out = [world.child_id(invocation, number) for number in Handler(world, invocation).calls_out]
        before = {child: self._cancels(child) for child in out}
        self.may_have_forgotten = True
        self.says(
            invocation,
            *[sdk.send_signal(child, m.CANCEL_SIGNAL) for child in out],
            sdk.output_failure(409, "cancelled"),
            sdk.END,
        )
        self.commit()
        for child in out:
            is_over = world.status(child) in ("gone", "completed")
            if not is_over and self._cancels(child) <= before[child]:
                raise Violation("cancel_reaches_every_child", "a cancel did not reach a call")

    def _cancels(self, invocation: str) -> int:
        if self.world.status(invocation) == "gone":
            return 0
        return [leaf for leaf, _ in self.world.notifications(invocation)].count(m.CANCEL_SIGNAL)

    # ---- operators -------------------------------------------------------------------------------------------------------

    def _operate(self, event: Callable[[Any, str, int], ev.Event]) -> None:
        if (invocation := self.some()) is not None:
            self.happens(event(self.world.token(), invocation, self.world.now_ms))

    def cancel(self) -> None:
        self._operate(ev.CancelRequested)

    def pause(self) -> None:
        self._operate(ev.PauseRequested)

    def resume(self) -> None:
        self._operate(ev.ResumeRequested)

    def kill(self) -> None:
        self.commit()
        invocation = self.some()
        if invocation is None or self.world.status(invocation) in ("gone", "completed"):
            return
        doomed = self._family(invocation)
        self.may_have_forgotten = True
        assert self.world.kill(invocation) == "done"
        for victim in doomed:
            if self.world.status(victim) not in ("gone", "completed"):
                raise Violation("cancel_reaches_every_child", "a kill did not reach a child")

    def _family(self, invocation: str) -> set[str]:
        """This one, and everything alive that it called or sent to, and theirs."""
        found, todo = set[str](), [invocation]
        while todo:
            one = todo.pop()
            if one in found or self.world.status(one) in ("gone", "completed"):
                continue
            found.add(one)
            told = [message(body)[16] for kind, body in self.world.journal(one) if kind == m.CALL_INVOCATION_ID]
            todo += [text.decode() for text in told if isinstance(text, bytes)]
        return found

    def purge(self) -> None:
        if (invocation := self.some()) is not None:
            self.happens(ev.PurgeRequested(None, invocation, False, self.world.now_ms))

    def edit_state(self) -> None:
        key, new_state = self.random.choice("ab"), {"n": self.random.randbytes(2)}
        self.happens(ev.StateReplaced(self.world.token(), "Counter", key, new_state, None, self.world.now_ms))

    # ---- crashes ---------------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """What was kept back was never acknowledged to anybody."""
        self.kept.clear()
        self.silent.clear()
        self.world.crash()

    def crash_in_a_commit(self) -> None:
        events, self.kept = self.kept, []
        self.silent.clear()
        self.world.lose(*events, flushed=self.random.random() < 0.5)
