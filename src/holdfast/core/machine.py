"""The state machine: one event in, rows changed and effects out. No clock, no randomness, no waiting, no SQL.

    new ── delayed ──> scheduled ── due ──┐
     │                                    ▼
     ├── key is locked ─────────────> inboxed ── lock is free ──┐
     └──────────────────────────────────────────────────────────┴─> invoked <──> suspended
                                                                     │  ▲            │
                                                            pause,   ▼  │ resume     ▼
                                                         exhausted  paused       completed

What one invocation does to another (call, signal, promise) happens in the same batch, so the two journals can never
disagree. Commands of the SDK are in `commands.py`, requests of operators in
`operations.py`; this file has what happens to an invocation as a whole.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from holdfast.core import commands, ids, mismatch, operations
from holdfast.core.awaiting import Leaf, resolve
from holdfast.core.catalog import Catalog
from holdfast.core.effects import (
    AbortAttempt,
    Accepted,
    Answer,
    ArmTimer,
    Completed,
    Effect,
    Forward,
    ReportPaused,
    ScheduleRetry,
    StartAttempt,
)
from holdfast.core.events import (
    AttemptFailed,
    Event,
    FramesReceived,
    RetryDue,
    SignalSent,
    Submitted,
    TimerFired,
)
from holdfast.core.model import LIVE, Completion, Failure, Invocation, Status
from holdfast.core.results import completed_leaves, completion_of, result_of, state_version
from holdfast.core.retry import next_delay_ms
from holdfast.core.tables import Tables
from holdfast.protocol import messages as m
from holdfast.protocol.discovery import HandlerSpec, ServiceSpec
from holdfast.protocol.messages import AttemptError, Result
from holdfast.protocol.wire import HEADER_BYTES, MalformedFrame, data, frame

FREE_LOCKS_MAX = 10_000
"""Keys remembered as free; beyond it they are asked from the database again."""

NUMBERS_RESERVED = 4096

LATEST_MS = (1 << 63) - 1
"""The end of time: what a row can hold."""


class Lock:
    """Who holds a key and who waits for it: seqs of invocations, and state mutations as negative numbers."""

    __slots__ = ("holder", "waiting")

    def __init__(self, holder: int | None, waiting: deque[int]) -> None:
        self.holder = holder
        self.waiting = waiting


class Machine:
    """Applies events. Not thread-safe: one caller, one open batch at a time."""

    def __init__(
        self,
        tables: Tables,
        catalog: Catalog,
        entropy: Callable[[int], bytes],
        *,
        next_number: int = 1,
        refuse_deadlocks: bool = False,
        pause_on_mismatch: bool = True,
    ) -> None:
        self.tables = tables
        self.catalog = catalog
        self.entropy = entropy
        self.refuse_deadlocks = refuse_deadlocks
        self.pause_on_mismatch = pause_on_mismatch
        self.effects: list[Effect] = []
        self.resident: dict[int, Invocation] = {}
        self.by_id: dict[str, Invocation] = {}
        self._touched: dict[int, Invocation] = {}
        self._locks: dict[tuple[str, str], Lock] = {}
        self._next_number = next_number
        self._reserved = next_number
        self._apply: dict[type, Callable[[Any], None]] = {
            Submitted: self._submitted,
            FramesReceived: self._frames_received,
            AttemptFailed: self._attempt_failed,
            RetryDue: self._retry_due,
            TimerFired: self._timer_fired,
            SignalSent: self._signal_sent,
        }

    @property
    def services(self) -> Mapping[str, ServiceSpec]:
        """What can be called now."""
        return self.catalog.services

    # ---- the batch -------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Change rows and collect effects. Inside an open batch."""
        handle = self._apply.get(type(event))
        if handle is not None:
            handle(event)
        else:
            operations.HANDLERS[type(event)](self, event)

    def flush(self, at_ms: int) -> list[Effect]:
        """Write every touched invocation, once. The effects may be performed when the batch has committed."""
        touched = self._touched.values()
        inserts: list[Invocation] = []
        updates: list[Invocation] = []
        segments: list[tuple[int, int, int, int, bytes]] = []
        for inv in touched:
            if inv.is_gone:
                if not inv.is_new:
                    self.tables.delete_invocation(inv.seq)
                    self.tables.delete_journal(inv.seq)
                inv.pending = []
                continue
            if inv.pending:
                segments.append(
                    (inv.seq, inv.pending_from, inv.entries - inv.pending_from, at_ms, b"".join(inv.pending))
                )
                inv.pending = []
            if inv.is_new:
                inserts.append(inv)
            elif inv.is_dirty:
                updates.append(inv)
        if inserts:
            self.tables.insert_invocations(inserts)
        if updates:
            self.tables.update_invocations(updates)
        if segments:
            self.tables.append_journal(segments)
        for inv in touched:
            inv.is_new = inv.is_dirty = False
            if inv.status != Status.INVOKED or inv.is_gone:
                self._evict(inv)
        self._touched.clear()
        if len(self._locks) >= FREE_LOCKS_MAX:  # only here: within a batch the rows do not know yet who is free
            self._locks = {k: v for k, v in self._locks.items() if v.holder is not None or v.waiting}
        effects, self.effects = self.effects, []
        return effects

    def _evict(self, inv: Invocation) -> None:
        self.resident.pop(inv.seq, None)
        if self.by_id.get(inv.id) is inv:  # its id may be in use again within the same batch
            del self.by_id[inv.id]
        if inv.exclusive and inv.status in (Status.SUSPENDED, Status.PAUSED):
            self._locks.pop((inv.service, inv.key or ""), None)

    def forget(self, inv: Invocation) -> None:
        """Drop a committed invocation that nothing happens to; it is loaded again when needed."""
        if inv.retry_count or inv.failures_since_entry:
            return  # these counters live in memory only
        if not inv.in_flight and not inv.is_new and not inv.is_dirty and not inv.pending:
            self.resident.pop(inv.seq, None)
            self.by_id.pop(inv.id, None)

    def drop_all(self, *, next_number: int) -> None:
        """Forget everything that is in memory: a batch was lost, and only the rows are right. Between batches."""
        for held in (self.resident, self.by_id, self._touched, self._locks):
            held.clear()
        self.effects.clear()
        self._next_number = self._reserved = next_number

    def touch(self, inv: Invocation) -> None:
        """Have the invocation's new journal entries written at the end of the batch."""
        self._touched[inv.seq] = inv

    def change(self, inv: Invocation, at_ms: int) -> None:
        """Have the invocation's row written at the end of the batch."""
        inv.is_dirty = True
        inv.modified_at_ms = at_ms
        self._touched[inv.seq] = inv

    def next_number(self) -> int:
        """A number never used before in this database: arrival order of invocations, places in an inbox."""
        number = self._next_number
        self._next_number = number + 1
        if number >= self._reserved:
            self._reserved = number + NUMBERS_RESERVED
            self.tables.reserve_numbers(self._reserved)
        return number

    # ---- finding -----------------------------------------------------------------------------------------------------

    def get(self, seq: int) -> Invocation | None:
        """The invocation, from memory or from its row."""
        inv = self.resident.get(seq)
        if inv is None:
            inv = self.tables.invocation_by_seq(seq)
            self._admit(inv)
        return inv

    def find(self, invocation_id: str) -> Invocation | None:
        inv = self.by_id.get(invocation_id)
        if inv is None:
            inv = self.tables.invocation_by_id(invocation_id)
            self._admit(inv)
        return None if inv is None or inv.is_gone else inv

    def _admit(self, inv: Invocation | None) -> None:
        if inv is not None:
            inv.spec = self.catalog.handler(inv.deployment_id, inv.service, inv.handler)
            self.resident[inv.seq] = inv
            self.by_id[inv.id] = inv
            self._touched[inv.seq] = inv  # so that flush considers it for eviction

    # ---- acceptance --------------------------------------------------------------------------------------------------

    def _submitted(self, event: Submitted) -> None:
        if event.is_unique:
            existing = self.find(event.id)
            if existing is not None:
                completion = completion_of(existing) if existing.status == Status.COMPLETED else None
                self.effects.append(Accepted(event.token, existing.id, False, existing.start_at_ms, completion))
                return
        inv = self.create(
            event.id, event.raw_id, event.spec, event.key, event.headers, event.body, event.idempotency_key, event.at_ms
        )
        self.admit_new(inv, event.start_at_ms, event.at_ms)
        if event.token is not None:
            self.effects.append(Accepted(event.token, inv.id, True, inv.start_at_ms, None))

    def create(
        self,
        invocation_id: str,
        raw_id: bytes,
        spec: HandlerSpec,
        key: str | None,
        headers: list[tuple[str, str]] | tuple[tuple[str, str], ...],
        body: bytes,
        idempotency_key: str | None,
        at_ms: int,
        *,
        is_call: bool = False,
    ) -> Invocation:
        """A new invocation with its Input entry; `admit_new` decides when it runs.

        Args:
            is_call: A handler asked for it, not a request from outside.
        """
        inv = Invocation(
            self.next_number(),
            invocation_id,
            spec.service,
            spec.name,
            key,
            spec.is_exclusive,
            Status.INVOKED,
            at_ms,
            spec,
        )
        inv.is_new = True
        inv.raw = raw_id
        inv.idempotency_key = idempotency_key
        if spec.is_workflow_run:
            inv.retention_ms = spec.workflow_retention_ms
        elif idempotency_key is not None or not is_call:
            # A Restate server invents a key for requests that bring none. Nobody knows it, so we do without; but their
            # results are kept for as long as there.
            inv.retention_ms = spec.idempotency_retention_ms
        else:
            inv.retention_ms = spec.journal_retention_ms
        inv.journal_retention_ms = min(spec.journal_retention_ms, inv.retention_ms)
        inv.begin(m.input_frame(headers, body))
        self.add(inv)
        return inv

    def add(self, inv: Invocation) -> None:
        """Take in a new invocation; it gets its row at the end of the batch."""
        self.resident[inv.seq] = inv
        self.by_id[inv.id] = inv
        self._touched[inv.seq] = inv

    def admit_new(self, inv: Invocation, start_at_ms: int | None, at_ms: int) -> None:
        """Schedule, queue or start a new invocation."""
        if start_at_ms is not None:
            start_at_ms = min(start_at_ms, LATEST_MS)
            inv.status = Status.SCHEDULED
            inv.start_at_ms = start_at_ms
            self.tables.add_timer(start_at_ms, inv.seq, 0)
            self.effects.append(ArmTimer(start_at_ms))
        else:
            self._enter(inv, at_ms)

    def _enter(self, inv: Invocation, at_ms: int) -> None:
        """The invocation may run now, unless its key is locked."""
        if inv.exclusive:
            lock = self.lock(inv.service, inv.key or "")
            if lock.holder is not None or lock.waiting:
                inv.status, inv.inboxed_at_ms = Status.INBOXED, at_ms
                inv.inbox_seq = self.next_number()
                lock.waiting.append(inv.seq)
                return
            lock.holder = inv.seq
        inv.status, inv.running_at_ms = Status.INVOKED, at_ms
        self.effects.append(StartAttempt(inv))

    def lock(self, service: str, key: str) -> Lock:
        place = (service, key)
        lock = self._locks.get(place)
        if lock is None:
            holder, waiting = self.tables.key_queue(service, key)
            lock = self._locks[place] = Lock(holder, deque(waiting))
        return lock

    def would_deadlock(self, caller: Invocation, service: str, key: str) -> bool:
        """Whether the key is held by the caller itself, or by one that waits for the caller's result."""
        holder = self.lock(service, key).holder
        waiting: Invocation | None = caller if holder is not None else None
        while waiting is not None:
            if waiting.seq == holder:
                return True
            waiting = self.get(waiting.sink_seq) if waiting.sink_seq is not None else None
        return False

    def _unlock(self, inv: Invocation, at_ms: int) -> None:
        """The holder is done: let whoever waits longest run."""
        service, key = inv.service, inv.key or ""
        lock = self.lock(service, key)
        if lock.holder != inv.seq:
            return
        lock.holder = None
        self._advance(lock, service, key, at_ms)

    def _advance(self, lock: Lock, service: str, key: str, at_ms: int) -> None:
        while lock.waiting and lock.holder is None:
            seq = lock.waiting.popleft()
            if seq < 0:
                new_state, version = self.tables.take_mutation(-seq)
                self.replace_state(service, key, new_state, version)
                continue
            following = self.get(seq)
            if following is None or following.status != Status.INBOXED:
                continue
            lock.holder = seq
            following.status, following.running_at_ms = Status.INVOKED, at_ms
            following.inbox_seq = None
            self.change(following, at_ms)
            self.effects.append(StartAttempt(following))

    # ---- what an attempt says ----------------------------------------------------------------------------------------

    def _frames_received(self, event: FramesReceived) -> None:
        inv = self.resident.get(event.seq)
        if inv is None or inv.attempt != event.attempt or not inv.in_flight:
            return  # normal: the attempt lost the race with its own kill
        at_ms = event.at_ms
        try:
            for message_type, body in event.frames:
                handle = commands.HANDLERS.get(message_type)
                if handle is not None:
                    handle(self, inv, message_type, body, at_ms)
                elif message_type == m.END:
                    self._ended(inv, at_ms)
                elif message_type == m.SUSPENSION:
                    self._suspended(inv, m.suspension(body), at_ms)
                elif message_type == m.ERROR:
                    self._reported(inv, m.attempt_error(body), at_ms)
                elif message_type != m.AWAITING_ON:
                    raise commands.CommandRefused(500, f"unexpected message {message_type:#06x} [RT0012]")
                if not inv.in_flight:
                    return
        except commands.CommandRefused as refusal:
            self.abort(inv)
            self._failed(inv, AttemptError(refusal.code, refusal.message), at_ms)
        except MalformedFrame as error:
            self.abort(inv)
            self._failed(inv, AttemptError(500, f"malformed message from the SDK: {error} [RT0012]"), at_ms)

    def abort(self, inv: Invocation) -> None:
        if inv.in_flight:
            self.effects.append(AbortAttempt(inv.seq, inv.attempt))

    def leave_attempt(self, inv: Invocation) -> None:
        inv.in_flight = inv.input_open = False
        inv.forward = []

    def _ended(self, inv: Invocation, at_ms: int) -> None:
        if not inv.output:
            self.abort(inv)
            self._failed(inv, AttemptError(500, "the handler ended without output [RT0012]"), at_ms)
            return
        self.leave_attempt(inv)
        self.complete(inv, at_ms)

    def _suspended(self, inv: Invocation, tree: m.Awaited, at_ms: int) -> None:
        if tree.is_empty:
            self.abort(inv)
            self._failed(
                inv, AttemptError(500, "the handler waits for nothing, so nothing can wake it [RT0012]"), at_ms
            )
            return
        missed, inv.missed = inv.missed, []
        if inv.input_open:
            # It did not wait for the end of its input, so what was sent to it may not have reached it.
            missed = [*missed, *completed_leaves(inv.head + self.tables.journal(inv.seq) + b"".join(inv.pending))]
        self.leave_attempt(inv)
        inv.retry_count = inv.failures_since_entry = 0
        rest: m.Awaited | None = tree
        for leaf in missed:
            # It arrived after the SDK's last look. Without this the wake-up is lost and the invocation sleeps on.
            rest = resolve(rest, leaf) if rest is not None else None
        if inv.pause_requested:
            self.pause(inv, at_ms)
        elif rest is None:
            self.effects.append(StartAttempt(inv))
        else:
            self._park(inv, Status.SUSPENDED, rest, at_ms)

    def _park(self, inv: Invocation, status: str, awaiting: m.Awaited | None, at_ms: int) -> None:
        inv.status = status
        inv.awaiting = awaiting
        self.change(inv, at_ms)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        inv = self.resident.get(event.seq)
        if inv is None or inv.attempt != event.attempt or not inv.in_flight:
            return
        error = AttemptError(event.code, event.message, next_retry_delay_ms=event.retry_after_ms)
        self._failed(inv, error, event.at_ms)

    def _reported(self, inv: Invocation, error: AttemptError, at_ms: int) -> None:
        """The SDK says why the attempt failed."""
        if self.pause_on_mismatch and mismatch.is_mismatch(error):
            journal = inv.head + self.tables.journal(inv.seq) + b"".join(inv.pending) + inv.output
            is_workflow_run = inv.spec is not None and inv.spec.is_workflow_run
            error = replace(
                mismatch.explain(error, journal, inv.id, inv.target, is_workflow_run=is_workflow_run), behavior=1
            )
        self._failed(inv, error, at_ms)

    def _failed(self, inv: Invocation, error: AttemptError, at_ms: int) -> None:
        """The attempt failed with something other than a terminal error: retry, pause or give up."""
        self.leave_attempt(inv)
        inv.missed = []
        inv.failures_since_entry += 1
        self._record_error(inv, error, at_ms)
        policy = inv.spec.retry if inv.spec else commands.DEFAULT_RETRY
        if error.behavior == 2:
            self._give_up(inv, error, at_ms)
            return
        if error.behavior == 1 or inv.pause_requested:
            self.pause(inv, at_ms)
            return
        if error.next_retry_delay_ms is not None:  # the SDK counts these itself, so they use up no attempt
            self._retry(inv, error.next_retry_delay_ms, at_ms, jitter=False)
            return
        inv.retry_count += 1
        delay_ms = next_delay_ms(policy, inv.retry_count)
        if delay_ms is not None:
            self._retry(inv, delay_ms, at_ms, jitter=True)
        elif policy.on_max_attempts == "KILL":
            self._give_up(inv, error, at_ms)
        else:
            self.pause(inv, at_ms)

    def _retry(self, inv: Invocation, delay_ms: int, at_ms: int, *, jitter: bool) -> None:
        inv.next_retry_at_ms = at_ms + delay_ms
        self.effects.append(ScheduleRetry(inv.seq, inv.attempt, delay_ms, jitter))

    def _give_up(self, inv: Invocation, error: AttemptError, at_ms: int) -> None:
        self.set_result(inv, Failure(error.code, error.message))
        self.complete(inv, at_ms)

    def pause(self, inv: Invocation, at_ms: int) -> None:
        inv.pause_requested = False
        event = {"ty": "Paused", "last_failure": _error_event(inv.last_error) if inv.last_error else None}
        self.tables.add_event(inv.seq, at_ms, inv.entries, json.dumps(event))
        self._park(inv, Status.PAUSED, None, at_ms)
        self.effects.append(ReportPaused(inv))

    def _record_error(self, inv: Invocation, error: AttemptError, at_ms: int) -> None:
        known = inv.last_error if inv.failures_since_entry > 1 else None  # after progress it is news again
        inv.last_error = error
        if known is not None and (known.code, known.message, known.command_index) == (
            error.code,
            error.message,
            error.command_index,
        ):
            return
        self.tables.add_event(inv.seq, at_ms, inv.entries, json.dumps(_error_event(error)))

    def _retry_due(self, event: RetryDue) -> None:
        inv = self.resident.get(event.seq)
        if inv and inv.status == Status.INVOKED and not inv.in_flight and inv.attempt == event.attempt:
            inv.next_retry_at_ms = None
            self.effects.append(StartAttempt(inv))

    # ---- notifications -------------------------------------------------------------------------------------------------

    def notify(self, inv: Invocation, notification: bytes, leaf: Leaf, at_ms: int, live: bytes | None = None) -> None:
        """Append a notification and bring it to whoever waits for it.

        Args:
            live: sent to a running attempt instead of the stored frame (version 7's short acknowledgement).
        """
        self._touched[inv.seq] = inv
        inv.append(notification)
        if inv.status == Status.INVOKED:
            if inv.in_flight:
                if inv.input_open:
                    if not inv.forward:
                        self.effects.append(Forward(inv))
                    inv.forward.append((live or notification, leaf))
                else:
                    inv.missed.append(leaf)
        elif inv.status == Status.SUSPENDED and inv.awaiting is not None:
            rest = resolve(inv.awaiting, leaf)
            if rest is None:
                self.wake(inv, at_ms)
            elif rest is not inv.awaiting:
                inv.awaiting = rest
                self.change(inv, at_ms)

    def wake(self, inv: Invocation, at_ms: int) -> None:
        inv.status = Status.INVOKED
        inv.awaiting = None
        inv.retry_count = inv.failures_since_entry = 0
        if inv.exclusive:
            self.lock(inv.service, inv.key or "").holder = inv.seq
        self.change(inv, at_ms)
        self.effects.append(StartAttempt(inv))

    def deliver(self, seq: int, completion_id: int, notification_type: int, result: Result, at_ms: int) -> None:
        """A completion for another invocation's command; dropped when that invocation is over."""
        inv = self.get(seq)
        if inv is not None and inv.status in LIVE and not inv.is_gone:
            self.notify(inv, m.completion_frame(notification_type, completion_id, result), (completion_id,), at_ms)

    def signal(self, inv: Invocation | None, signal: int | str, result: Result, at_ms: int) -> None:
        """Deliver a signal; the cancel signal acts on the invocation, all others are dropped unless it is live."""
        if inv is None or signal == ids.NO_SIGNAL:
            return
        if signal == m.CANCEL_SIGNAL:
            operations.cancel(self, inv, at_ms)
        elif inv.status in LIVE:
            self.notify(inv, m.signal_frame(signal, result), signal, at_ms)

    def _timer_fired(self, event: TimerFired) -> None:
        self.tables.remove_timer(event.due_ms, event.seq, event.completion_id)
        inv = self.get(event.seq)
        if inv is None or inv.is_gone:
            return
        if event.completion_id == 0:
            if inv.status == Status.SCHEDULED:
                self.change(inv, event.at_ms)
                self._enter(inv, event.at_ms)
        elif inv.status in LIVE:
            inv.sleeps.pop(event.completion_id, None)
            done = m.completion_frame(m.SLEEP_COMPLETION, event.completion_id, m.VOID)
            self.notify(inv, done, (event.completion_id,), event.at_ms)

    def _signal_sent(self, event: SignalSent) -> None:
        self.signal(self.find(event.id), event.signal, event.result, event.at_ms)
        if event.token is not None:
            self.effects.append(Answer(event.token, "accepted"))

    # ---- completion ----------------------------------------------------------------------------------------------------

    def set_result(self, inv: Invocation, failure: Failure) -> None:
        """The engine's own result, which is not an entry of the journal."""
        body = m.encode_failure(failure.code, failure.message, failure.metadata)
        inv.output = frame(0, data(15, body))
        inv.result = None
        inv.failure_code = failure.code

    def complete(self, inv: Invocation, at_ms: int) -> None:
        """The invocation has its result in `inv.output`: answer everybody, free the key, keep or forget the rest."""
        inv.status = Status.COMPLETED
        inv.completed_at_ms = at_ms
        inv.awaiting = None
        self.change(inv, at_ms)
        completion = completion_of(inv)
        self.effects.append(Completed(completion))
        self.reply(inv, completion, at_ms)
        for completion_id, due_ms in inv.sleeps.items():
            self.tables.remove_timer(due_ms, inv.seq, completion_id)
        if inv.exclusive:
            self._unlock(inv, at_ms)
        if inv.retention_ms <= 0:
            self.erase(inv)
        elif inv.journal_retention_ms <= 0:
            self.erase_journal(inv)

    def reply(self, inv: Invocation, completion: Completion, at_ms: int) -> None:
        if inv.sink_seq is None and not inv.has_listeners:
            return
        result = result_of(completion)
        if inv.sink_seq is not None:
            self.deliver(inv.sink_seq, inv.sink_completion_id, m.CALL_COMPLETION, result, at_ms)
        if inv.has_listeners:
            for seq, completion_id, notification_type in self.tables.take_listeners(inv.seq):
                self.deliver(seq, completion_id, notification_type, result, at_ms)

    def forget_row(self, inv: Invocation) -> None:
        """It leaves no record. What was promised under a workflow's key before its run began stays."""
        inv.is_gone = True
        self._touched[inv.seq] = inv

    def erase(self, inv: Invocation) -> None:
        self.forget_row(inv)
        if inv.spec is not None and inv.spec.is_workflow_run and inv.key is not None:
            self.tables.clear_all_state(inv.service, inv.key)
            self.tables.delete_promises(inv.service, inv.key)

    def erase_journal(self, inv: Invocation) -> None:
        inv.pending = []
        inv.head = b""
        inv.entries = 0
        inv.output = frame(0, inv.output[HEADER_BYTES:])  # the result stays, no longer as an entry
        self.tables.delete_journal(inv.seq)

    def replace_state(self, service: str, key: str, new_state: dict[str, bytes], version: str | None) -> None:
        if version is not None and version != state_version(self.tables.state(service, key)):
            return  # as the server does: a stale edit is silently ignored
        self.tables.clear_all_state(service, key)
        for name, value in new_state.items():
            self.tables.set_state(service, key, name, value)


def _error_event(error: AttemptError) -> dict[str, Any]:
    return {
        "ty": "TransientError",
        "error_code": error.code,
        "error_message": error.message,
        "error_stacktrace": error.stacktrace or None,
        "related_command_index": error.command_index,
        "related_command_name": error.command_name,
        "related_command_type": m.COMMAND_NAMES.get(error.command_type) if error.command_type else None,
        **(error.detail or {}),
    }
