"""What operators ask for: cancel, kill, pause, resume, purge, edit state. Also cancel as one handler sends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.core.effects import Answer, CloseInput, Completed, Refuse, StartAttempt
from holdfast.core.events import (
    CancelRequested,
    KillRequested,
    PauseRequested,
    PurgeRequested,
    ResumeRequested,
    StateReplaced,
)
from holdfast.core.model import LIVE, Failure, Invocation, Status
from holdfast.core.results import completion_of, pending_sleeps
from holdfast.protocol import messages as m
from holdfast.protocol.wire import message, split, string

if TYPE_CHECKING:
    from holdfast.core.machine import Machine


def cancel(machine: Machine, inv: Invocation, at_ms: int) -> str | None:
    """`appended` when the signal was stored, `done` when it had not started, None when it is over."""
    if inv.status in LIVE:
        machine.notify(inv, m.signal_frame(m.CANCEL_SIGNAL, m.VOID), m.CANCEL_SIGNAL, at_ms)
        if inv.status == Status.PAUSED:
            machine.wake(inv, at_ms)
        return "appended"
    if inv.status == Status.COMPLETED:
        return None
    _remove_unstarted(machine, inv, Failure(409, "canceled"), at_ms)
    return "done"


def _remove_unstarted(machine: Machine, inv: Invocation, failure: Failure, at_ms: int) -> None:
    """A scheduled or queued invocation leaves without a record; whoever waits for it gets the failure."""
    if inv.status == Status.SCHEDULED and inv.start_at_ms is not None:
        machine.tables.remove_timer(inv.start_at_ms, inv.seq, 0)
    elif inv.status == Status.INBOXED:
        waiting = machine.lock(inv.service, inv.key or "").waiting
        if inv.seq in waiting:
            waiting.remove(inv.seq)
    machine.set_result(inv, failure)
    inv.status = Status.COMPLETED
    completion = completion_of(inv)
    machine.effects.append(Completed(completion))
    machine.reply(inv, completion, at_ms)
    machine.erase(inv)


def kill(machine: Machine, inv: Invocation, at_ms: int) -> None:
    """End it now, and every invocation it called or sent to, also those still delayed."""
    doomed = [inv]
    while doomed:
        victim = doomed.pop()
        if victim.status == Status.COMPLETED or victim.is_gone:
            continue
        if victim.status in LIVE:
            for child_id in _children(machine, victim):
                child = machine.find(child_id)
                if child is not None:
                    doomed.append(child)
            machine.abort(victim)
            machine.leave_attempt(victim)
            if not victim.sleeps:
                victim.sleeps = pending_sleeps(victim.head + machine.tables.journal(victim.seq))
            machine.set_result(victim, Failure(409, "killed"))
            machine.complete(victim, at_ms)
        else:
            _remove_unstarted(machine, victim, Failure(409, "killed"), at_ms)


def _children(machine: Machine, inv: Invocation) -> list[str]:
    journal = inv.head + machine.tables.journal(inv.seq) + b"".join(inv.pending)
    return [string(message(body), 16) for message_type, body in split(journal) if message_type == m.CALL_INVOCATION_ID]


def _found(machine: Machine, token: object, invocation_id: str) -> Invocation | None:
    inv = machine.find(invocation_id)
    if inv is None:
        machine.effects.append(Refuse(token, "not_found", f"The requested invocation '{invocation_id}' does not exist"))
    return inv


def _refuse_completed(machine: Machine, token: object, inv: Invocation) -> None:
    machine.effects.append(Refuse(token, "conflict", f"The invocation '{inv.id}' was already completed."))


def _cancel_requested(machine: Machine, event: CancelRequested) -> None:
    inv = _found(machine, event.token, event.id)
    if inv is None:
        return
    answer = cancel(machine, inv, event.at_ms)
    if answer is None:
        _refuse_completed(machine, event.token, inv)
    else:
        machine.effects.append(Answer(event.token, answer))


def _kill_requested(machine: Machine, event: KillRequested) -> None:
    inv = _found(machine, event.token, event.id)
    if inv is None:
        return
    if inv.status == Status.COMPLETED:
        _refuse_completed(machine, event.token, inv)
        return
    kill(machine, inv, event.at_ms)
    machine.effects.append(Answer(event.token, "done"))


def _pause_requested(machine: Machine, event: PauseRequested) -> None:
    inv = _found(machine, event.token, event.id)
    if inv is None:
        return
    if inv.status in (Status.SCHEDULED, Status.INBOXED, Status.COMPLETED):
        text = f"The invocation '{inv.id}' is not running, cannot be paused."
        machine.effects.append(Refuse(event.token, "conflict", text))
    elif inv.status in (Status.SUSPENDED, Status.PAUSED):
        machine.effects.append(Answer(event.token, "done"))
    else:
        if inv.in_flight:
            inv.pause_requested = True
            inv.input_open = False
            machine.effects.append(CloseInput(inv))
        else:
            machine.pause(inv, event.at_ms)
        machine.effects.append(Answer(event.token, "accepted"))


def _resume_requested(machine: Machine, event: ResumeRequested) -> None:
    inv = _found(machine, event.token, event.id)
    if inv is None:
        return
    if inv.status == Status.COMPLETED:
        text = f"The invocation '{inv.id}' is completed, cannot be resumed."
        machine.effects.append(Refuse(event.token, "conflict", text))
        return
    if inv.status in (Status.SCHEDULED, Status.INBOXED):
        text = f"The invocation '{inv.id}' is either inboxed or scheduled, cannot be resumed."
        machine.effects.append(Refuse(event.token, "too_early", text))
        return
    if inv.status in (Status.SUSPENDED, Status.PAUSED):
        machine.wake(inv, event.at_ms)
    elif not inv.in_flight and inv.next_retry_at_ms is not None:
        inv.next_retry_at_ms = None
        inv.retry_count = 0
        inv.attempt += 1  # so that the retry already scheduled finds another attempt and does nothing
        machine.effects.append(StartAttempt(inv))
    machine.effects.append(Answer(event.token, "done"))


def _purge_requested(machine: Machine, event: PurgeRequested) -> None:
    inv = machine.find(event.id) if event.token is None else _found(machine, event.token, event.id)
    if inv is None:
        return
    if inv.status != Status.COMPLETED:
        if event.token is not None:
            text = f"The invocation '{inv.id}' is not yet completed."
            machine.effects.append(Refuse(event.token, "conflict", text))
        return
    if event.journal_only:
        machine.erase_journal(inv)
        machine.change(inv, event.at_ms)
    else:
        machine.erase(inv)
    if event.token is not None:
        machine.effects.append(Answer(event.token, "done"))


def _state_replaced(machine: Machine, event: StateReplaced) -> None:
    lock = machine.lock(event.service, event.key)
    if lock.holder is None and not lock.waiting:
        machine.replace_state(event.service, event.key, event.new_state, event.version)
    else:
        number = machine.next_number()
        machine.tables.add_mutation(number, event.service, event.key, event.new_state, event.version)
        lock.waiting.append(-number)
    machine.effects.append(Answer(event.token, "accepted"))


HANDLERS: dict[type, Callable[[Machine, Any], None]] = {
    CancelRequested: _cancel_requested,
    KillRequested: _kill_requested,
    PauseRequested: _pause_requested,
    ResumeRequested: _resume_requested,
    PurgeRequested: _purge_requested,
    StateReplaced: _state_replaced,
}
