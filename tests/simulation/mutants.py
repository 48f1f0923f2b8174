"""Engines that are broken on purpose, one for each way in which an invariant can be lost.

A check that never fails proves nothing. Every mutant here must be caught by the simulation, under the name of the
invariant that it breaks. They are patches of the real engine, made and taken back by `applied`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from holdfast.config import EngineConfig
from holdfast.core import commands, ids, machine
from holdfast.core.effects import Completed, StartAttempt
from holdfast.protocol import messages as m
from holdfast.protocol.wire import message, string
from holdfast.runtime import processor as processors
from holdfast.runtime import standstill, timers
from holdfast.runtime.engine import EngineRuntime
from holdfast.runtime.processor import Processor
from holdfast.runtime.timers import Timers
from holdfast.store import database
from holdfast.store.sqlite import SqliteTables

Patch = tuple[Any, str, Any]
"""(object or mapping, name, replacement)."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One broken engine."""

    what: str
    patches: Callable[[], list[Patch]]
    breaks: str
    """The invariant that it is made for. Others may break with it."""
    troubles: tuple[str, ...] = ("kill", "power")
    """What the world must do for it to show."""
    first_seed: int = 0
    """One that shows it, to save time; any will do after some tries."""
    slow_commits: bool = False
    """It shows only while a commit is under way in its thread."""


@contextmanager
def applied(mutant: Mutant) -> Generator[None]:
    """The engine is this mutant inside."""
    before: list[Patch] = []
    try:
        for place, name, replacement in mutant.patches():
            if isinstance(place, dict):
                before.append((place, name, place[name]))
                place[name] = replacement
            else:
                before.append((place, name, place.__dict__[name]))
                setattr(place, name, replacement)
        yield
    finally:
        for place, name, original in reversed(before):
            if isinstance(place, dict):
                place[name] = original
            else:
                setattr(place, name, original)


# ---- durability ----------------------------------------------------------------------------------------------------------


def _no_sync() -> list[Patch]:
    original = EngineConfig.__init__

    def relaxed(self: EngineConfig, **settings: Any) -> None:
        original(self, **{**settings, "durability": "relaxed"})

    return [(EngineConfig, "__init__", relaxed)]


def _told_before_commit(kinds: tuple[type, ...]) -> Callable[[], list[Patch]]:
    """Effects of some kinds are performed when the batch was applied, not when it is on disk."""

    def patches() -> list[Patch]:
        flush = machine.Machine.flush
        performers: list[Processor] = []
        start = Processor.__init__

        def remember(self: Processor, *args: Any, **settings: Any) -> None:
            start(self, *args, **settings)
            performers[:] = [self]

        def hasty(self: machine.Machine, at_ms: int) -> Any:
            effects = flush(self, at_ms)
            now = [effect for effect in effects if not kinds or isinstance(effect, kinds)]
            for effect in now:
                performers[0]._perform[type(effect)](effect)
            return [effect for effect in effects if effect not in now]

        return [(Processor, "__init__", remember), (machine.Machine, "flush", hasty)]

    return patches


def _recovery_forgets() -> list[Patch]:
    invoked = SqliteTables.invoked
    return [(SqliteTables, "invoked", lambda self: invoked(self)[1:])]


def lost_wake_up() -> list[Patch]:
    suspended = machine.Machine._suspended

    def deaf(self: machine.Machine, inv: Any, tree: Any, at_ms: int) -> None:
        inv.missed = []
        suspended(self, inv, tree, at_ms)

    return [(machine.Machine, "_suspended", deaf)]


def _trusts_cache() -> list[Patch]:
    return [(database, "_write_log_again", lambda path: None), (EngineRuntime, "_settle_log", lambda self: None)]


def _goes_on_after_failed_sync() -> list[Patch]:
    return [(processors, "is_full", lambda error, connection: True)]


# ---- disk full -----------------------------------------------------------------------------------------------------------


def _memory_ahead_of_rows() -> list[Patch]:
    return [(machine.Machine, "drop_all", lambda self, *, next_number: None)]


def _never_looks_for_space() -> list[Patch]:
    return [(standstill.Standstill, "_probe", lambda self: None)]


# ---- keys and state ------------------------------------------------------------------------------------------------------


def ignores_locks() -> list[Patch]:
    def enter(self: machine.Machine, inv: Any, at_ms: int) -> None:
        self.effects.append(StartAttempt(inv))

    return [(machine.Machine, "_enter", enter)]


def last_come_first_served() -> list[Patch]:
    class Stack(deque[int]):
        def popleft(self) -> int:
            return self.pop()

    lock = machine.Machine.lock

    def stacked(self: machine.Machine, service: str, key: str) -> Any:
        found = lock(self, service, key)
        if not isinstance(found.waiting, Stack):
            found.waiting = Stack(found.waiting)
        return found

    return [(machine.Machine, "lock", stacked)]


def _state_in_the_next_commit() -> list[Patch]:
    set_state, begin = SqliteTables.set_state, SqliteTables.begin
    late: list[tuple[str, str, str, bytes]] = []

    def later(self: SqliteTables, *values: Any) -> None:
        late.append(values)

    def then(self: SqliteTables) -> None:
        begin(self)
        for values in late:
            set_state(self, *values)
        late.clear()

    return [(SqliteTables, "set_state", later), (SqliteTables, "begin", then)]


# ---- requests, timers, promises ------------------------------------------------------------------------------------------


def _ignores_idempotency_keys() -> list[Patch]:
    def fresh(self: EngineRuntime, handler: Any, key: Any, idempotency_key: Any, now_ms: int) -> Any:
        if handler.is_workflow_run:
            return ids.workflow_run_id(handler.service, key or ""), True
        return ids.fresh_id(key, now_ms, self._entropy(24)), False

    return [(EngineRuntime, "_id_for", fresh)]


def _timers_early() -> list[Patch]:
    due = SqliteTables.due_timers
    arm = Timers.arm
    return [
        (SqliteTables, "due_timers", lambda self, at_ms, limit: due(self, at_ms + 40, limit)),
        (Timers, "arm", lambda self, due_ms: arm(self, due_ms - 40)),
    ]


def _timers_late() -> list[Patch]:
    arm = Timers.arm
    return [(Timers, "arm", lambda self, due_ms: arm(self, due_ms + 300_000)), (timers, "LONGEST_NAP_S", 1e6)]


def _timers_in_memory_only() -> list[Patch]:
    rearm = Timers._rearm
    started: list[object] = []

    def forgetful(self: Timers) -> None:
        if self in started:
            rearm(self)
        else:  # the first look, at the start
            started.append(self)

    return [(Timers, "_rearm", forgetful)]


def last_completion_wins() -> list[Patch]:
    complete = commands.HANDLERS[m.COMPLETE_PROMISE]

    def overwrite(engine: machine.Machine, inv: Any, kind: int, body: bytes, at_ms: int) -> None:
        name = string(message(body), 1)
        engine.tables._execute(  # type: ignore[attr-defined]
            "DELETE FROM promise WHERE service = ? AND key = ? AND name = ?", (inv.service, inv.key, name)
        )
        complete(engine, inv, kind, body, at_ms)

    return [(commands.HANDLERS, m.COMPLETE_PROMISE, overwrite)]  # type: ignore[list-item]


def _sends_twice() -> list[Patch]:
    create = machine.Machine.create

    def twice(self: machine.Machine, *args: Any, **settings: Any) -> Any:
        _, _, spec, key, *_, at_ms = args
        if spec.service == "Mailbox":
            raw = ids.fresh_id(key, at_ms, self.entropy(24))
            again = create(self, ids.invocation_text(raw), raw, *args[2:], **settings)
            self.admit_new(again, None, at_ms)
        return create(self, *args, **settings)

    return [(machine.Machine, "create", twice)]


def _cancel_stops_at_the_first() -> list[Patch]:
    send = commands.HANDLERS[m.SEND_SIGNAL]

    def swallow(engine: machine.Machine, inv: Any, kind: int, body: bytes, at_ms: int) -> None:
        if message(body).get(2) == m.CANCEL_SIGNAL and inv.service == "Flow" and inv.handler == "tree":
            engine.touch(inv)
            commands._append(engine, inv, kind, body, at_ms)
        else:
            send(engine, inv, kind, body, at_ms)

    return [(commands.HANDLERS, m.SEND_SIGNAL, swallow)]  # type: ignore[list-item]


def _run_results_not_stored() -> list[Patch]:
    """A journal of which the last row is not read back."""
    journal = SqliteTables.journal

    def short(self: SqliteTables, seq: int) -> bytes:
        frames = journal(self, seq)
        count = self._execute("SELECT count(*) FROM journal WHERE seq = ?", (seq,)).fetchone()[0]
        if count < 3:
            return frames
        last = self._execute(
            "SELECT frames FROM journal WHERE seq = ? ORDER BY first_index DESC LIMIT 1", (seq,)
        ).fetchone()[0]
        self._execute("DELETE FROM journal WHERE seq = ? AND frames = ?", (seq, last))
        return frames[: -len(last)]

    return [(SqliteTables, "journal", short)]


MUTANTS: dict[str, Mutant] = {
    "commits are not synced": Mutant(
        "synchronous = normal",
        _no_sync,
        "accepted_request_survives",
        ("power",),
        first_seed=1,
    ),
    "callers are told before the commit": Mutant(
        "Accepted and Answer are performed before COMMIT",
        _told_before_commit((machine.Accepted,)),
        "accepted_request_survives",
    ),
    "results are told before the commit": Mutant(
        "Completed is performed before COMMIT",
        _told_before_commit((Completed,)),
        "an_output_never_changes",
        first_seed=3,
    ),
    "handlers are told before the commit": Mutant(
        "Forward is performed before COMMIT",
        _told_before_commit((machine.Forward,)),
        "recorded_step_never_runs_again",
        ("kill",),
        slow_commits=True,
        first_seed=7,
    ),
    "recovery forgets one": Mutant(
        "the first invoked row is not started again", _recovery_forgets, "accepted_request_survives"
    ),
    "a wake-up is lost": Mutant(
        "what arrived after the input was closed is not looked at when the attempt suspends",
        lost_wake_up,
        "accepted_request_survives",
    ),
    "a restart trusts the cache": Mutant(
        "the log is not written again at start, so that later commits build on pages whose sync had failed",
        _trusts_cache,
        "accepted_request_survives",
        ("lasting sync failure", "power"),
        first_seed=1,
    ),
    "a failed sync is passed over": Mutant(
        "every failed commit is taken for a full disk, which the engine survives",
        _goes_on_after_failed_sync,
        "stops_after_a_failed_sync",
        ("failed sync",),
    ),
    "memory stays ahead of the rows": Mutant(
        "a full disk does not make the machine forget what was not stored",
        _memory_ahead_of_rows,
        "accepted_request_survives",
        ("full disk",),
    ),
    "nobody looks for space": Mutant(
        "the probe does nothing", _never_looks_for_space, "recovers_when_space_returns", ("full disk",)
    ),
    "keys are not locked": Mutant(
        "every exclusive handler starts at once",
        ignores_locks,
        "one_exclusive_handler_per_key_in_order_of_acceptance",
        (),
    ),
    "last come, first served": Mutant(
        "a key's queue is a stack", last_come_first_served, "one_exclusive_handler_per_key_in_order_of_acceptance", ()
    ),
    "state comes one commit later": Mutant(
        "SetState is in the journal, and its value in the transaction after it",
        _state_in_the_next_commit,
        "state_and_its_journal_entry_become_visible_together",
    ),
    "idempotency keys are ignored": Mutant(
        "every request makes an invocation", _ignores_idempotency_keys, "one_result_per_idempotency_key", ()
    ),
    "timers fire early": Mutant("40 ms before their time", _timers_early, "timers_never_early_never_lost", ()),
    "timers fire very late": Mutant("five minutes", _timers_late, "timers_never_early_never_lost", ()),
    "timers are lost in a crash": Mutant(
        "at start nothing is armed", _timers_in_memory_only, "timers_never_early_never_lost"
    ),
    "the last completion of a promise wins": Mutant(
        "the stored result is replaced", last_completion_wins, "first_completion_of_a_promise_wins", ()
    ),
    "a send arrives twice": Mutant(
        "OneWayCall makes two invocations", _sends_twice, "a_send_arrives_once", (), first_seed=2
    ),
    "a cancel does not reach grandchildren": Mutant(
        "the cancel signal that a handler sends is stored and not delivered",
        _cancel_stops_at_the_first,
        "cancel_reaches_every_child",
        (),
    ),
    "the end of a journal is not read back": Mutant(
        "a replay lacks the last row",
        _run_results_not_stored,
        "recorded_step_never_runs_again",
        ("kill",),
        first_seed=7,
    ),
}
