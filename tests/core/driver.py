"""Drives the machine on the real tables: events in batches, effects performed as the runtime would, crashes.

What runs here is the machine and SQLite in memory. The driver takes the runtime's part and nothing else: it starts an
attempt for every `StartAttempt`, keeps what the attempt was sent, and remembers answers. Tests take the SDK's part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import apsw

from holdfast.core import effects as fx
from holdfast.core import events as ev
from holdfast.core import ids
from holdfast.core.catalog import Catalog
from holdfast.core.machine import Machine
from holdfast.core.model import Completion, Invocation
from holdfast.core.results import pending_sleeps
from holdfast.protocol import messages as m
from holdfast.protocol.messages import VOID, Result
from holdfast.protocol.wire import message, split
from holdfast.store.database import connect
from holdfast.store.sqlite import SqliteTables
from tests.core import sdk
from tests.core.sdk import Frame
from tests.core.services import SERVICES, spec

E = TypeVar("E")

START_MS = 1_700_000_000_000


@dataclass
class Attempt:
    """One attempt as its handler sees it."""

    number: int
    invocation: Invocation
    known: list[Frame]
    """The journal it was started with."""
    received: list[Frame] = field(default_factory=list)
    """Notifications sent to it while it ran."""
    retry_count: int = 0
    """`Start.retry_count_since_last_stored_entry`."""
    is_closed: bool = False


class World:
    """One engine without clock and sockets. `now_ms` moves only when a test moves it."""

    def __init__(self, version: int = 6, connection: apsw.Connection | None = None) -> None:
        self.connection = connection or connect(None, fsync=False)
        self.tables = SqliteTables(self.connection)
        self.version = version
        self.now_ms = START_MS
        self.random = Random(7)
        self.attempts: dict[str, Attempt] = {}
        """Invocation id -> the attempt in flight."""
        self.started: list[str] = []
        """Invocation ids in the order their attempts were started."""
        self.effects: list[fx.Effect] = []
        """Of the last batch."""
        self.completions: dict[str, list[Completion]] = {}
        self.answers: dict[object, str] = {}
        self.refusals: dict[object, tuple[str, str]] = {}
        self.accepted: dict[object, fx.Accepted] = {}
        self.retries: dict[str, fx.ScheduleRetry] = {}
        self._attempt_number = 0
        self._token = 0
        self._boot()

    def _boot(self) -> None:
        self.machine = Machine(
            self.tables,
            Catalog.of(SERVICES, "dp_test"),
            self.random.randbytes,
            next_number=int(self.tables.meta("next_number") or 1),
        )

    # ---- batches -------------------------------------------------------------------------------------------------------

    def batch(self, *events: ev.Event) -> list[fx.Effect]:
        """Apply events in one transaction, commit, then perform what they ask for."""
        self.tables.begin()
        try:
            for event in events:
                self.machine.apply(event)
            effects = self.machine.flush(self.now_ms)
        except BaseException:
            self.tables.rollback()
            raise
        self.tables.commit()
        self.effects = effects
        for effect in effects:
            self._perform(effect)
        self.retries = {key: retry for key, retry in self.retries.items() if self._is_awaited(retry)}
        return effects

    def _is_awaited(self, retry: fx.ScheduleRetry) -> bool:
        """Nothing has overtaken this retry: no kill, pause or resume."""
        inv = self.machine.resident.get(retry.seq)
        return inv is not None and inv.attempt == retry.attempt and not inv.in_flight

    def lose(self, *events: ev.Event, flushed: bool) -> None:
        """The process dies before the commit of these events: none of them happened."""
        self.tables.begin()
        for event in events:
            self.machine.apply(event)
        if flushed:
            self.machine.flush(self.now_ms)
        self.tables.rollback()
        self.crash()

    def crash(self) -> None:
        """The process dies between two batches, and the next one starts: only rows are left."""
        self.attempts.clear()
        self.retries.clear()
        self._boot()
        for seq in self.tables.invoked():
            inv = self.machine.get(seq)
            assert inv is not None
            self._launch(inv)

    def of(self, kind: type[E]) -> list[E]:
        """Effects of one kind in the last batch."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    # ---- the runtime's part --------------------------------------------------------------------------------------------

    def _perform(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.StartAttempt):
            self._launch(effect.invocation)
        elif isinstance(effect, fx.Forward):
            notifications, effect.invocation.forward = effect.invocation.forward, []
            attempt = self.attempts.get(effect.invocation.id)
            if attempt is not None and attempt.number == effect.invocation.attempt:
                assert not attempt.is_closed, "a notification was forwarded to an attempt whose input is closed"
                attempt.received += [frame for frames, _ in notifications for frame in split(frames)]
        elif isinstance(effect, fx.CloseInput):
            attempt = self.attempts.get(effect.invocation.id)
            if attempt is not None and attempt.number == effect.invocation.attempt:
                attempt.is_closed = True
        elif isinstance(effect, fx.AbortAttempt):
            self._drop(lambda attempt: attempt.invocation.seq == effect.seq and attempt.number == effect.attempt)
        elif isinstance(effect, fx.ScheduleRetry):
            self._drop(lambda attempt: attempt.invocation.seq == effect.seq and attempt.number == effect.attempt)
            inv = self.machine.resident.get(effect.seq)
            if inv is not None:  # otherwise it was paused or ended in the same batch
                self.retries[inv.id] = effect
        elif isinstance(effect, fx.Completed):
            self.completions.setdefault(effect.completion.invocation_id, []).append(effect.completion)
        elif isinstance(effect, fx.Accepted):
            self.accepted[effect.token] = effect
        elif isinstance(effect, fx.Answer):
            self.answers[effect.token] = effect.value
        elif isinstance(effect, fx.Refuse):
            self.refusals[effect.token] = effect.kind, effect.message

    def _drop(self, matches: Callable[[Attempt], bool]) -> None:
        for invocation_id in [key for key, attempt in self.attempts.items() if matches(attempt)]:
            del self.attempts[invocation_id]

    def _launch(self, inv: Invocation) -> None:
        if inv.in_flight or inv.is_gone or inv.status != "invoked":
            return
        self._attempt_number += 1
        inv.attempt = self._attempt_number
        inv.in_flight = inv.input_open = True
        inv.protocol_version = self.version
        inv.next_retry_at_ms = None
        inv.missed, inv.forward = [], []
        journal = inv.head + self.tables.journal(inv.seq)
        inv.sleeps = pending_sleeps(journal)
        known = list(split(journal))
        assert len(known) == inv.entries, "known_entries must be the number of frames that follow"
        self.attempts[inv.id] = Attempt(inv.attempt, inv, known, retry_count=inv.failures_since_entry)
        self.started.append(inv.id)
        self.retries.pop(inv.id, None)

    # ---- callers and operators -----------------------------------------------------------------------------------------

    def token(self) -> int:
        self._token += 1
        return self._token

    def submitted(
        self,
        target: str,
        key: str | None = None,
        *,
        body: bytes = b"in",
        idempotency_key: str | None = None,
        start_at_ms: int | None = None,
        token: object | None = None,
    ) -> ev.Submitted:
        handler = spec(target)
        if handler.is_workflow_run:
            raw, is_unique = ids.workflow_run_id(handler.service, key or ""), True
        elif idempotency_key is not None:
            raw, is_unique = ids.idempotent_id(handler.service, key, handler.name, idempotency_key), True
        else:
            raw, is_unique = ids.fresh_id(key, self.now_ms, self.random.randbytes(24)), False
        return ev.Submitted(
            self.token() if token is None else token,
            ids.invocation_text(raw),
            raw,
            is_unique,
            handler,
            key,
            body,
            [("x-a", "1")],
            idempotency_key,
            start_at_ms,
            self.now_ms,
        )

    def submit(self, target: str, key: str | None = None, **options: Any) -> str:
        """The id of a request that was accepted in a batch of its own."""
        event = self.submitted(target, key, **options)
        self.batch(event)
        return event.id

    def operate(self, event: Callable[[object, str, int], ev.Event], invocation_id: str) -> str:
        """The answer's word, or the kind of refusal."""
        token = self.token()
        self.batch(event(token, invocation_id, self.now_ms))
        return self.answers[token] if token in self.answers else self.refusals[token][0]

    def cancel(self, invocation_id: str) -> str:
        return self.operate(ev.CancelRequested, invocation_id)

    def kill(self, invocation_id: str) -> str:
        return self.operate(ev.KillRequested, invocation_id)

    def pause(self, invocation_id: str) -> str:
        return self.operate(ev.PauseRequested, invocation_id)

    def resume(self, invocation_id: str) -> str:
        return self.operate(ev.ResumeRequested, invocation_id)

    def purge(self, invocation_id: str, *, journal_only: bool = False) -> str:
        def event(token: object, invocation: str, at_ms: int) -> ev.Event:
            return ev.PurgeRequested(token, invocation, journal_only, at_ms)

        return self.operate(event, invocation_id)

    def replace_state(self, service: str, key: str, new_state: dict[str, bytes], version: str | None = None) -> None:
        self.batch(ev.StateReplaced(self.token(), service, key, new_state, version, self.now_ms))

    def signalled(self, invocation_id: str, signal: int | str, result: Result = VOID) -> ev.SignalSent:
        return ev.SignalSent(self.token(), invocation_id, signal, result, self.now_ms)

    def signal(self, invocation_id: str, signal: int | str, result: Result = VOID) -> None:
        self.batch(self.signalled(invocation_id, signal, result))

    # ---- the SDK's part ------------------------------------------------------------------------------------------------

    def said(self, invocation_id: str, *frames: Frame) -> ev.FramesReceived:
        attempt = self.attempts[invocation_id]
        return ev.FramesReceived(attempt.invocation.seq, attempt.number, list(frames), self.now_ms)

    def says(self, invocation_id: str, *frames: Frame) -> None:
        """The handler's attempt writes these frames; a terminal frame ends it."""
        event = self.said(invocation_id, *frames)
        if any(kind in (m.END, m.SUSPENSION, m.ERROR) for kind, _ in frames):
            del self.attempts[invocation_id]
        self.batch(event)

    def finish(self, invocation_id: str, content: bytes = b"ok") -> None:
        self.says(invocation_id, sdk.output(content), sdk.END)

    def suspend(
        self,
        invocation_id: str,
        completions: tuple[int, ...] = (),
        signals: tuple[int, ...] = (),
        names: tuple[str, ...] = (),
    ) -> None:
        """Suspend on any of these, in the encoding of the world's version. The input was closed before."""
        self.close_input(invocation_id)
        if self.version >= 7:
            self.says(invocation_id, sdk.suspension_v7(sdk.future(completions, signals, names)))
        else:
            self.says(invocation_id, sdk.suspension(completions, signals, names))

    def close_input(self, invocation_id: str) -> None:
        """The runtime asks an idle attempt to suspend."""
        attempt = self.attempts[invocation_id]
        attempt.is_closed = True
        attempt.invocation.input_open = False

    def fail(self, invocation_id: str, message: str = "boom", **options: Any) -> None:
        self.says(invocation_id, sdk.error(message, **options))

    def retry(self, invocation_id: str) -> None:
        """The delay of the scheduled retry has passed."""
        scheduled = self.retries[invocation_id]
        self.now_ms += scheduled.delay_ms
        self.batch(ev.RetryDue(scheduled.seq, scheduled.attempt, self.now_ms))

    def advance(self, delay_ms: int) -> None:
        """Let time pass; every timer that is due fires, earliest first, in one batch."""
        self.now_ms += delay_ms
        due = self.tables.due_timers(self.now_ms, 1000)
        self.batch(*[ev.TimerFired(*timer, self.now_ms) for timer in due])

    # ---- what is stored ------------------------------------------------------------------------------------------------

    def row(self, invocation_id: str) -> dict[str, Any] | None:
        cursor = self.connection.execute("SELECT * FROM invocation WHERE id = ?", (invocation_id,))
        row = cursor.fetchone()
        return None if row is None else dict(zip([column[0] for column in cursor.get_description()], row, strict=True))

    def status(self, invocation_id: str) -> str:
        """The stored status, or `gone`."""
        row = self.row(invocation_id)
        return "gone" if row is None else row["status"]

    def seq(self, invocation_id: str) -> int:
        row = self.row(invocation_id)
        assert row is not None
        return row["seq"]

    def journal(self, invocation_id: str) -> list[Frame]:
        row = self.row(invocation_id)
        assert row is not None
        return list(split(row["head"] + self.tables.journal(row["seq"])))

    def notifications(self, invocation_id: str) -> list[tuple[Any, Result]]:
        """(leaf, result) of the stored notifications, in stored order."""
        return [
            (m.notification_leaf(kind, body), m.decode_result(message(body)))
            for kind, body in self.journal(invocation_id)
            if kind >= m.NOTIFICATION
        ]

    def result(self, invocation_id: str, completion_id: int) -> Result | None:
        """The stored result of one command, if it is there."""
        for leaf, result in self.notifications(invocation_id):
            if leaf == (completion_id,):
                return result
        return None

    def child_id(self, invocation_id: str, id_notification: int) -> str:
        """The id a Call or OneWayCall was told."""
        for kind, body in self.journal(invocation_id):
            content = message(body)
            if kind == m.CALL_INVOCATION_ID and content[1] == id_notification:
                told = content[16]
                assert isinstance(told, bytes)
                return told.decode()
        raise AssertionError(f"no invocation id for {id_notification}")

    def completion(self, invocation_id: str) -> Completion:
        """The one answer given to everybody who waited."""
        (completion,) = self.completions[invocation_id]
        return completion

    def state(self, service: str, key: str) -> dict[str, bytes]:
        return dict(self.tables.state(service, key))

    def timers(self) -> list[tuple[int, int, int]]:
        return self.tables.due_timers((1 << 63) - 1, 1000)

    def count(self, table: str) -> int:
        return len(self.connection.execute(f"SELECT 1 FROM {table}").fetchall())

    def events_of(self, invocation_id: str) -> list[str]:
        rows = self.connection.execute(
            "SELECT event FROM journal_event WHERE seq = ? ORDER BY rowid", (self.seq(invocation_id),)
        )
        return [row[0] for row in rows]
