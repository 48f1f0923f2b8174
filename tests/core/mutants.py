"""Machines that are broken on purpose; those whose fault needs no runtime to show. See tests/simulation/mutants.py."""

from __future__ import annotations

from typing import Any

from holdfast.core import commands, ids, machine
from holdfast.core.model import Status
from holdfast.protocol import messages as m
from holdfast.protocol.wire import message
from holdfast.store.sqlite import SqliteTables
from tests.simulation.mutants import (
    Mutant,
    Patch,
    ignores_locks,
    last_come_first_served,
    last_completion_wins,
    lost_wake_up,
)


def _journals_lose_rows() -> list[Patch]:
    append = SqliteTables.append_journal

    def replace(self: SqliteTables, segments: Any) -> None:
        for segment in segments:
            if segment[1] > 3:
                self.delete_journal(segment[0])
            append(self, [segment])

    return [(SqliteTables, "append_journal", replace)]


def _outputs_are_rewritten() -> list[Patch]:
    signal = machine.Machine.signal

    def rewrite(self: machine.Machine, inv: Any, name: Any, result: Any, at_ms: int) -> None:
        if inv is not None and inv.status == Status.COMPLETED:
            inv.output += b"."
            self.change(inv, at_ms)
        signal(self, inv, name, result, at_ms)

    return [(machine.Machine, "signal", rewrite)]


def _timers_of_the_dead() -> list[Patch]:
    return [(SqliteTables, "remove_timer", lambda self, due_ms, seq, completion_id: None)]


def _state_without_entry() -> list[Patch]:
    append = commands._append

    def forget(engine: machine.Machine, inv: Any, kind: int, body: bytes, at_ms: int) -> None:
        if kind != m.SET_STATE:
            append(engine, inv, kind, body, at_ms)

    return [(commands, "_append", forget)]


def _second_child() -> list[Patch]:
    call = commands.HANDLERS[m.ONE_WAY_CALL]

    def twice(engine: machine.Machine, inv: Any, kind: int, body: bytes, at_ms: int) -> None:
        call(engine, inv, kind, body, at_ms)
        append = commands._append
        commands._append = lambda *arguments: None
        try:
            call(engine, inv, kind, body, at_ms)
        finally:
            commands._append = append

    return [(commands.HANDLERS, m.ONE_WAY_CALL, twice)]  # type: ignore[list-item]


def _ids_without_idempotency() -> list[Patch]:
    numbers = iter(range(1 << 20))
    return [(ids, "idempotent_id", lambda *target: ids.fresh_id(None, 0, next(numbers).to_bytes(24, "big")))]


def _cancel_is_swallowed() -> list[Patch]:
    send = commands.HANDLERS[m.SEND_SIGNAL]

    def swallow(engine: machine.Machine, inv: Any, kind: int, body: bytes, at_ms: int) -> None:
        if message(body).get(2) == m.CANCEL_SIGNAL:
            commands._append(engine, inv, kind, body, at_ms)
        else:
            send(engine, inv, kind, body, at_ms)

    return [(commands.HANDLERS, m.SEND_SIGNAL, swallow)]  # type: ignore[list-item]


MUTANTS: dict[str, Mutant] = {
    "a wake-up is lost": Mutant(
        "what arrived after the input was closed is not looked at", lost_wake_up, "accepted_request_survives"
    ),
    "journals lose rows": Mutant(
        "older rows go when another comes", _journals_lose_rows, "recorded_step_never_runs_again"
    ),
    "outputs are rewritten": Mutant(
        "a signal to a completed invocation changes its output", _outputs_are_rewritten, "an_output_never_changes"
    ),
    "keys are not locked": Mutant(
        "every exclusive handler starts at once",
        ignores_locks,
        "one_exclusive_handler_per_key_in_order_of_acceptance",
    ),
    "last come, first served": Mutant(
        "a key's queue is a stack", last_come_first_served, "one_exclusive_handler_per_key_in_order_of_acceptance"
    ),
    "state without entry": Mutant(
        "SetState writes the value and not the journal",
        _state_without_entry,
        "state_and_its_journal_entry_become_visible_together",
    ),
    "idempotency keys are ignored": Mutant(
        "every request has an id of its own", _ids_without_idempotency, "one_result_per_idempotency_key"
    ),
    "timers of the dead": Mutant(
        "a timer that is not needed any more stays", _timers_of_the_dead, "timers_never_early_never_lost"
    ),
    "the last completion of a promise wins": Mutant(
        "the stored result is replaced", last_completion_wins, "first_completion_of_a_promise_wins"
    ),
    "a send makes two": Mutant("OneWayCall makes two invocations", _second_child, "a_send_arrives_once"),
    "a cancel is swallowed": Mutant(
        "the cancel signal that a handler sends is stored and not delivered",
        _cancel_is_swallowed,
        "cancel_reaches_every_child",
    ),
}
