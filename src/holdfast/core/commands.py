"""One function per command of the SDK: check it, append it, apply it, append the completions known at once.

All of that is one durable step. `machine` is the caller; a function raises `CommandRefused` to fail the attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.core import ids
from holdfast.core.effects import ArmTimer
from holdfast.core.model import Invocation, Status
from holdfast.core.results import completion_of, result_of
from holdfast.protocol import messages as m
from holdfast.protocol.discovery import RetryPolicy
from holdfast.protocol.messages import Result
from holdfast.protocol.wire import Content, MalformedFrame, frame, message, octets, string, u32, u64

if TYPE_CHECKING:
    from holdfast.core.machine import Machine

DEFAULT_RETRY = RetryPolicy()


class CommandRefused(Exception):
    """The command cannot be applied. The attempt fails and is retried; nothing of the command was stored."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


Handle = Callable[["Machine", Invocation, int, bytes, int], None]


def _pin(machine: Machine, inv: Invocation, at_ms: int) -> None:
    """Its first command or run result binds an invocation to the deployment."""
    if inv.deployment_id is None:
        deployment = inv.attempt_deployment or machine.catalog.latest(inv.service)
        if deployment is None:
            return
        inv.deployment_id = deployment.id
        # For an application of this process the row is written when it changes anyway: there is but its present code.
        if deployment.is_remote:
            machine.change(inv, at_ms)


def _append(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    machine.touch(inv)
    inv.append(frame(message_type, body))
    inv.failures_since_entry = 0
    inv.entry_at_ms = at_ms
    _pin(machine, inv, at_ms)


def _only(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    """A command without effect: Run, and reads of eager state, whose result is inside."""
    _append(machine, inv, message_type, body, at_ms)


def _propose_run_completion(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    completion_id, result = m.run_proposal(body)
    _pin(machine, inv, at_ms)
    ack = m.run_ack_frame(completion_id) if inv.protocol_version == 7 else None
    notification = m.completion_frame(m.RUN_COMPLETION, completion_id, result)
    machine.notify(inv, notification, (completion_id,), at_ms, live=ack)


def _output(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    inv.result = result = m.output_result(body)
    inv.output = frame(m.OUTPUT, body)
    inv.failure_code = None if result.failure is None else result.failure[0]
    inv.failures_since_entry = 0
    inv.entry_at_ms = at_ms
    _pin(machine, inv, at_ms)
    machine.change(inv, at_ms)


# ---- state -----------------------------------------------------------------------------------------------------------


def _writable_key(inv: Invocation) -> str:
    spec = inv.spec
    if inv.key is None or spec is None or not (spec.is_exclusive or spec.is_workflow_run):
        raise CommandRefused(500, f"{inv.service}/{inv.handler} cannot write state: it holds no key [RT0017]")
    return inv.key


def _readable_key(inv: Invocation) -> str:
    if inv.key is None:
        raise CommandRefused(500, f"{inv.service}/{inv.handler} has no key, so it has no state [RT0017]")
    return inv.key


def _get_lazy_state(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    key, command = _readable_key(inv), message(body)
    name, completion_id = string(command, 1), u32(command, 11)
    _append(machine, inv, message_type, body, at_ms)
    value = machine.tables.state_value(inv.service, key, name)
    _complete(machine, inv, message_type, completion_id, Result(value=value), at_ms)


def _get_lazy_state_keys(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    key, completion_id = _readable_key(inv), u32(message(body), 11)
    names = [name.encode() for name, _ in machine.tables.state(inv.service, key)]
    _append(machine, inv, message_type, body, at_ms)
    machine.notify(inv, m.state_keys_frame(completion_id, names), (completion_id,), at_ms)


def _set_state(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    key, command = _writable_key(inv), message(body)
    name, value = string(command, 1), m.decode_value(octets(command, 3))
    _append(machine, inv, message_type, body, at_ms)
    machine.tables.set_state(inv.service, key, name, value)


def _clear_state(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    key, name = _writable_key(inv), string(message(body), 1)
    _append(machine, inv, message_type, body, at_ms)
    machine.tables.clear_state(inv.service, key, name)


def _clear_all_state(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    key = _writable_key(inv)
    _append(machine, inv, message_type, body, at_ms)
    machine.tables.clear_all_state(inv.service, key)


# ---- promises ----------------------------------------------------------------------------------------------------------


def _workflow_key(machine: Machine, inv: Invocation) -> str:
    service = machine.services.get(inv.service)
    if inv.key is None or service is None or service.ty != "WORKFLOW":
        raise CommandRefused(500, f"{inv.service} is no workflow, so it has no promises [RT0017]")
    return inv.key


def _get_promise(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    key, command = _workflow_key(machine, inv), message(body)
    name, completion_id = string(command, 1), u32(command, 11)
    _append(machine, inv, message_type, body, at_ms)
    stored = machine.tables.promise(inv.service, key, name)
    if stored is None:
        machine.tables.add_promise_listener(inv.service, key, name, inv.seq, completion_id)
    else:
        _complete(machine, inv, message_type, completion_id, m.decode_result(message(stored)), at_ms)


def _peek_promise(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    key, command = _workflow_key(machine, inv), message(body)
    name, completion_id = string(command, 1), u32(command, 11)
    _append(machine, inv, message_type, body, at_ms)
    stored = machine.tables.promise(inv.service, key, name)
    result = m.VOID if stored is None else m.decode_result(message(stored))
    _complete(machine, inv, message_type, completion_id, result, at_ms)


def _complete_promise(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    key, command = _workflow_key(machine, inv), message(body)
    name, completion_id = string(command, 1), u32(command, 11)
    result = m.decode_result(command, value=2, failure=3)
    _append(machine, inv, message_type, body, at_ms)
    if machine.tables.promise(inv.service, key, name) is not None:
        taken = Result(failure=(409, "promise was already completed", {}))
        _complete(machine, inv, message_type, completion_id, taken, at_ms)
        return
    machine.tables.complete_promise(inv.service, key, name, m.encode_result(result))
    _complete(machine, inv, message_type, completion_id, m.VOID, at_ms)
    for seq, waiting_id in machine.tables.take_promise_listeners(inv.service, key, name):
        machine.deliver(seq, waiting_id, m.GET_PROMISE + 0x7C00, result, at_ms)


# ---- time --------------------------------------------------------------------------------------------------------------


def _sleep(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    command = message(body)
    wake_up_ms, completion_id = u64(command, 1, 0), u32(command, 11)
    _append(machine, inv, message_type, body, at_ms)
    if wake_up_ms <= at_ms:
        _complete(machine, inv, message_type, completion_id, m.VOID, at_ms)
        return
    inv.sleeps[completion_id] = wake_up_ms
    machine.tables.add_timer(wake_up_ms, inv.seq, completion_id)
    machine.effects.append(ArmTimer(wake_up_ms))


# ---- other invocations ---------------------------------------------------------------------------------------------------


def _call(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    """Call and OneWayCall: make the child (or find the one with the same id) and tell the caller its id."""
    call = m.call_request(message_type, body)
    service = machine.services.get(call.service)
    spec = service.handlers.get(call.handler) if service else None
    if service is None or spec is None:
        what = f"handler '{call.handler}' of service '{call.service}'" if service else f"service '{call.service}'"
        raise CommandRefused(500, f"{what} is not registered; the call is retried until it is [RT0018]")
    if call.scope is not None:
        raise CommandRefused(500, "scoped calls are not supported [RT0024]")
    if not service.keyed and call.key:
        raise CommandRefused(500, f"'{call.service}' is a plain service and takes no key, got '{call.key}' [RT0017]")
    if call.idempotency_key == "":
        raise CommandRefused(500, "the idempotency key of a call must not be empty [RT0017]")
    key = call.key if service.keyed else None
    idempotency_key = None if spec.is_workflow_run else call.idempotency_key
    is_unique = True
    if spec.is_workflow_run:
        raw = ids.workflow_run_id(call.service, call.key)
    elif idempotency_key is not None:
        raw = ids.idempotent_id(call.service, key, call.handler, idempotency_key)
    else:
        is_unique = False
        raw = ids.fresh_id(key, at_ms, machine.entropy(24))
    child_id = ids.invocation_text(raw)
    _append(machine, inv, message_type, body, at_ms)
    notification = call.invocation_id_notification
    machine.notify(inv, m.invocation_id_frame(notification, child_id), (notification,), at_ms)
    existing = machine.find(child_id) if is_unique else None
    is_exclusive_call = message_type == m.CALL and spec.is_exclusive and existing is None
    if is_exclusive_call and machine.refuse_deadlocks and machine.would_deadlock(inv, call.service, call.key):
        text = f"deadlock: {call.service}/{call.key} is held by a handler that waits for this call"
        _complete(machine, inv, message_type, call.completion_id, Result(failure=(409, text, {})), at_ms)
    elif existing is None:
        child = machine.create(
            child_id, raw, spec, key, call.headers, call.parameter, idempotency_key, at_ms, is_call=True
        )
        child.invoked_by_id, child.invoked_by_target = inv.id, inv.target
        if message_type == m.CALL:
            child.sink_seq, child.sink_completion_id = inv.seq, call.completion_id
        machine.admit_new(child, call.invoke_time_ms or None, at_ms)
    elif message_type == m.CALL:
        if spec.is_workflow_run:
            again = Result(failure=(409, "the workflow method was already invoked", {}))
            _complete(machine, inv, message_type, call.completion_id, again, at_ms)
        else:
            _join(machine, inv, existing, m.CALL_COMPLETION, call.completion_id, at_ms)


def _join(
    machine: Machine, inv: Invocation, target: Invocation, notification_type: int, completion_id: int, at_ms: int
) -> None:
    """`inv` gets the result of `target` as this completion, now or when it is there."""
    if target.status == Status.COMPLETED:
        result = result_of(completion_of(target))
        machine.notify(inv, m.completion_frame(notification_type, completion_id, result), (completion_id,), at_ms)
        return
    machine.tables.add_listener(target.seq, inv.seq, completion_id, notification_type)
    if not target.has_listeners:
        target.has_listeners = True
        machine.change(target, at_ms)


def _target_id(command: Content) -> str:
    """The invocation meant by AttachInvocation or GetInvocationOutput."""
    if 3 in command:
        target = message(octets(command, 3))
        key = string(target, 2) if 2 in target else None
        return ids.invocation_text(ids.idempotent_id(string(target, 1), key, string(target, 3), string(target, 4)))
    if 4 in command:
        target = message(octets(command, 4))
        return ids.invocation_text(ids.workflow_run_id(string(target, 1), string(target, 2)))
    return _checked_id(string(command, 1))


def _checked_id(invocation_id: str) -> str:
    try:
        ids.invocation_bytes(invocation_id)
    except ids.MalformedId as error:
        raise CommandRefused(500, f"bad invocation id '{invocation_id}': {error} [RT0017]") from None
    return invocation_id


def _attach(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    command = message(body)
    target, completion_id = machine.find(_target_id(command)), u32(command, 11)
    _append(machine, inv, message_type, body, at_ms)
    if target is None:
        _complete(machine, inv, message_type, completion_id, Result(failure=(404, "not found", {})), at_ms)
    elif message_type == m.ATTACH_INVOCATION:
        _join(machine, inv, target, m.ATTACH_INVOCATION + 0x7C00, completion_id, at_ms)
    else:
        done = target.status == Status.COMPLETED
        result = result_of(completion_of(target)) if done else m.VOID
        _complete(machine, inv, message_type, completion_id, result, at_ms)


def _send_signal(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    command = message(body)
    target_id = _checked_id(string(command, 1))
    signal = u32(command, 2) if 2 in command else string(command, 3)
    _check_result(command, 4, 5, 6)
    result = m.decode_result(command)
    _append(machine, inv, message_type, body, at_ms)
    machine.signal(machine.find(target_id), signal, result, at_ms)


def _check_result(command: Content, *fields: int) -> None:
    if not any(field in command for field in fields):
        raise MalformedFrame("the result is absent")


def _complete_awakeable(machine: Machine, inv: Invocation, message_type: int, body: bytes, at_ms: int) -> None:
    command = message(body)
    awakeable_id = string(command, 1)
    try:
        raw, signal = ids.awakeable_parts(awakeable_id)
    except ids.MalformedId as error:
        raise CommandRefused(500, f"bad awakeable id '{awakeable_id}': {error} [RT0017]") from None
    _check_result(command, 2, 3)
    result = m.decode_result(command, value=2, failure=3)
    _append(machine, inv, message_type, body, at_ms)
    machine.signal(machine.find(ids.invocation_text(raw)), signal, result, at_ms)


def _complete(
    machine: Machine, inv: Invocation, message_type: int, completion_id: int, result: Result, at_ms: int
) -> None:
    """The completion of a command of this invocation."""
    notification = m.completion_frame(message_type + 0x7C00, completion_id, result)
    machine.notify(inv, notification, (completion_id,), at_ms)


HANDLERS: dict[int, Handle] = {
    m.RUN: _only,
    m.PROPOSE_RUN_COMPLETION: _propose_run_completion,
    m.OUTPUT: _output,
    m.GET_EAGER_STATE: _only,
    m.GET_EAGER_STATE_KEYS: _only,
    m.GET_LAZY_STATE: _get_lazy_state,
    m.GET_LAZY_STATE_KEYS: _get_lazy_state_keys,
    m.SET_STATE: _set_state,
    m.CLEAR_STATE: _clear_state,
    m.CLEAR_ALL_STATE: _clear_all_state,
    m.GET_PROMISE: _get_promise,
    m.PEEK_PROMISE: _peek_promise,
    m.COMPLETE_PROMISE: _complete_promise,
    m.SLEEP: _sleep,
    m.CALL: _call,
    m.ONE_WAY_CALL: _call,
    m.ATTACH_INVOCATION: _attach,
    m.GET_INVOCATION_OUTPUT: _attach,
    m.SEND_SIGNAL: _send_signal,
    m.COMPLETE_AWAKEABLE: _complete_awakeable,
}
