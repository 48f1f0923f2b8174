"""What operators ask for: cancel, kill, pause, resume, restart, purge, edit state. Also cancel as one handler sends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.core import ids
from holdfast.core.catalog import Deployment
from holdfast.core.effects import Answer, CloseInput, Completed, Refuse, StartAttempt
from holdfast.core.events import (
    CancelRequested,
    KillRequested,
    PauseRequested,
    PurgeRequested,
    RestartRequested,
    ResumeRequested,
    StateReplaced,
)
from holdfast.core.model import LIVE, Failure, Invocation, Status
from holdfast.core.results import completion_of, journal_prefix, pending_sleeps
from holdfast.protocol import messages as m
from holdfast.protocol.wire import HEADER, HEADER_BYTES, message, split, string

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
    machine.forget_row(inv)


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
    if event.deployment != "keep" and not _moved(machine, event, inv):
        return
    if inv.status in (Status.SUSPENDED, Status.PAUSED):
        machine.wake(inv, event.at_ms)
    elif not inv.in_flight and inv.next_retry_at_ms is not None:
        inv.next_retry_at_ms = None
        inv.retry_count = 0
        inv.attempt += 1  # so that the retry already scheduled finds another attempt and does nothing
        machine.effects.append(StartAttempt(inv))
    machine.effects.append(Answer(event.token, "done"))


def _moved(machine: Machine, event: ResumeRequested, inv: Invocation) -> bool:
    """Bind a waiting invocation to another deployment; refuses where that cannot be."""
    is_waiting = inv.status in (Status.SUSPENDED, Status.PAUSED)
    if is_waiting and inv.deployment_id is None and event.deployment == "latest":
        return True  # where it goes anyway
    if not is_waiting or inv.deployment_id is None:
        text = (
            f"The invocation '{inv.id}' is still running or the deployment id is not pinned yet, deployment id cannot "
            "be changed."
        )
        machine.effects.append(Refuse(event.token, "conflict", text))
        return False
    chosen = _chosen(machine, event, inv, "resume")
    if chosen is None:
        return False
    inv.deployment_id = chosen.id
    inv.spec = machine.catalog.handler(chosen.id, inv.service, inv.handler)
    return True


def _chosen(
    machine: Machine, event: ResumeRequested | RestartRequested, inv: Invocation, verb: str
) -> Deployment | None:
    """The deployment asked for, if what the journal was recorded with is spoken there; else refuses."""
    catalog = machine.catalog
    match event.deployment:
        case "keep":
            chosen = catalog.deployments.get(inv.deployment_id) if inv.deployment_id is not None else None
        case "latest":
            chosen = catalog.latest(inv.service)
        case deployment_id:
            chosen = catalog.deployments.get(deployment_id)
    if chosen is None:
        text = f"The given deployment was not found when trying to {verb} the invocation '{inv.id}'."
        machine.effects.append(Refuse(event.token, "invalid", text))
        return None
    lowest, highest = chosen.min_protocol_version, chosen.max_protocol_version
    if inv.protocol_version is not None and not lowest <= inv.protocol_version <= highest:
        text = (
            f"The invocation '{inv.id}' is running on protocol version '{inv.protocol_version}', while the chosen "
            f"deployment '{chosen.id}' supports the range {lowest}..={highest}."
        )
        machine.effects.append(Refuse(event.token, "invalid", text))
        return None
    return chosen


PREFIX_VERSION_MIN = 6
"""Older attempts were not told their random seed, so their journal cannot be gone on with under another id."""


def _restart_requested(machine: Machine, event: RestartRequested) -> None:
    inv = _found(machine, event.token, event.id)
    if inv is None:
        return
    if (refusal := _no_restart(machine, inv, event.last_index)) is not None:
        machine.effects.append(Refuse(event.token, *refusal))
        return
    chosen: Deployment | None = None
    if inv.deployment_id is not None or event.deployment not in ("keep", "latest"):
        chosen = _chosen(machine, event, inv, "restart as new")
        if chosen is None:
            return
    frames = journal_prefix(_whole_journal(machine, inv), event.last_index)
    if frames is None:
        text = (
            f"The prefix of the journal '{inv.id}' up to 'from' (included) contains some Commands without respective "
            "Completions."
        )
        machine.effects.append(Refuse(event.token, "invalid", text))
        return
    new = _copy(machine, inv, event, frames)
    if inv.deployment_id is not None and chosen is not None:
        new.deployment_id, new.protocol_version = chosen.id, inv.protocol_version
        new.spec = machine.catalog.handler(chosen.id, inv.service, inv.handler)
    machine.add(new)
    machine.admit_new(new, None, event.at_ms)
    machine.effects.append(Answer(event.token, new.id))


def _no_restart(machine: Machine, inv: Invocation, last_index: int) -> tuple[str, str] | None:
    """(kind, message) when this invocation cannot be restarted."""
    if inv.status in LIVE:
        return "conflict", f"The invocation '{inv.id}' is still running."
    if inv.status != Status.COMPLETED:
        return "too_early", f"The invocation '{inv.id}' cannot be restarted because it's not running yet."
    if not inv.entries:
        return "gone", (
            f"The invocation '{inv.id}' cannot be restarted because the input is not available. This indicates that "
            "the journal was already purged, or not retained at all."
        )
    service = machine.services.get(inv.service)
    is_workflow = service is not None and service.ty == "WORKFLOW"
    if is_workflow or (last_index > 0 and (inv.protocol_version or 0) < PREFIX_VERSION_MIN):
        return "unsupported", (
            f"Restarting the invocation '{inv.id}' is not supported. Restarting workflows is not supported, and "
            "restarting invocations created using the old service protocol."
        )
    return None


def _whole_journal(machine: Machine, inv: Invocation) -> bytes:
    """With the Output command, which is kept apart, unless the result is the engine's own."""
    output = inv.output if inv.output and HEADER.unpack_from(inv.output)[0] == m.OUTPUT else b""
    return inv.head + machine.tables.journal(inv.seq) + b"".join(inv.pending) + output


def _copy(machine: Machine, old: Invocation, event: RestartRequested, frames: list[bytes]) -> Invocation:
    """A new invocation that knows what these frames tell. Nobody waits for it, and it has no idempotency key."""
    new = Invocation(
        machine.next_number(),
        ids.invocation_text(event.raw_id),
        old.service,
        old.handler,
        old.key,
        old.exclusive,
        Status.INVOKED,
        event.at_ms,
        old.spec,
    )
    new.is_new = True
    new.raw = event.raw_id
    new.restarted_from = old.id
    new.retention_ms, new.journal_retention_ms = old.retention_ms, old.journal_retention_ms
    if event.last_index > 0:
        # What the copied commands were made of must be drawn again when they are replayed.
        seed = old.random_seed
        new.random_seed = m.derived_seed(ids.invocation_bytes(old.id)) if seed is None else seed
    if len(frames) > 1 and HEADER.unpack_from(frames[-1])[0] == m.OUTPUT:
        new.output = frames.pop()
        new.result = m.output_result(new.output[HEADER_BYTES:])
        new.failure_code = None if new.result.failure is None else new.result.failure[0]
    new.begin(frames.pop(0))
    for frame in frames:
        new.append(frame)
    return new


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
    RestartRequested: _restart_requested,
    PurgeRequested: _purge_requested,
    StateReplaced: _state_replaced,
}
