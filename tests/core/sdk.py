"""Frames as an SDK writes them, with the field numbers of the service protocol: (type, body) pairs."""

from __future__ import annotations

from holdfast.protocol import messages as m
from holdfast.protocol.wire import data, text, uint

Frame = tuple[int, bytes]

END: Frame = (m.END, b"")
VOID_FIELD = b"\x22\x00"


def value(content: bytes) -> bytes:
    """The `Value` message."""
    return data(1, content)


def failure(code: int, message: str) -> bytes:
    """The `Failure` message."""
    return uint(1, code) + text(2, message)


def output(content: bytes = b"ok") -> Frame:
    return m.OUTPUT, data(14, value(content))


def output_failure(code: int, message: str) -> Frame:
    return m.OUTPUT, data(15, failure(code, message))


def error(
    message: str = "boom",
    *,
    code: int = 500,
    next_retry_delay_ms: int | None = None,
    behavior: int = 0,
    command_index: int | None = None,
) -> Frame:
    body = uint(1, code) + text(2, message)
    if command_index is not None:
        body += uint(4, command_index) + text(5, "step") + uint(6, m.RUN)
    if next_retry_delay_ms is not None:
        body += uint(8, next_retry_delay_ms)
    if behavior:
        body += uint(9, behavior)
    return m.ERROR, body


def suspension(completions: tuple[int, ...] = (), signals: tuple[int, ...] = (), names: tuple[str, ...] = ()) -> Frame:
    """Versions 5 and 6: any of them. Repeated numbers are packed, as the SDK does it."""
    body = b""
    if completions:
        body += data(1, b"".join([varint(number) for number in completions]))
    if signals:
        body += data(2, b"".join([varint(number) for number in signals]))
    return m.SUSPENSION, body + b"".join([text(3, name) for name in names])


def varint(number: int) -> bytes:
    return uint(0, number)[1:]


def future(
    completions: tuple[int, ...] = (),
    signals: tuple[int, ...] = (),
    names: tuple[str, ...] = (),
    nested: tuple[bytes, ...] = (),
    combinator: int = 1,
) -> bytes:
    """Version 7's Future, with unpacked numbers (protobuf allows both)."""
    body = b"".join([uint(1, number) for number in completions])
    body += b"".join([uint(2, number) for number in signals])
    body += b"".join([text(3, name) for name in names])
    body += b"".join([data(4, child) for child in nested])
    return body + uint(5, combinator)


def suspension_v7(tree: bytes) -> Frame:
    return m.SUSPENSION, data(4, tree)


def run(completion_id: int, name: str = "step") -> Frame:
    return m.RUN, uint(11, completion_id) + text(12, name)


def run_result(completion_id: int, content: bytes) -> Frame:
    return m.PROPOSE_RUN_COMPLETION, uint(1, completion_id) + data(14, content)


def run_failure(completion_id: int, code: int, message: str) -> Frame:
    return m.PROPOSE_RUN_COMPLETION, uint(1, completion_id) + data(15, failure(code, message))


def sleep(completion_id: int, wake_up_ms: int) -> Frame:
    return m.SLEEP, uint(1, wake_up_ms) + uint(11, completion_id)


def call(
    service: str,
    handler: str,
    *,
    id_notification: int,
    completion_id: int,
    parameter: bytes = b"",
    key: str = "",
    idempotency_key: str | None = None,
    scope: str | None = None,
) -> Frame:
    body = text(1, service) + text(2, handler) + data(3, parameter)
    body += data(4, text(1, "x-from") + text(2, "caller"))
    if key:
        body += text(5, key)
    if idempotency_key is not None:
        body += text(6, idempotency_key)
    if scope is not None:
        body += text(7, scope)
    return m.CALL, body + uint(10, id_notification) + uint(11, completion_id)


def send(
    service: str,
    handler: str,
    *,
    id_notification: int,
    parameter: bytes = b"",
    key: str = "",
    invoke_time_ms: int = 0,
    idempotency_key: str | None = None,
) -> Frame:
    body = text(1, service) + text(2, handler) + data(3, parameter)
    if invoke_time_ms:
        body += uint(4, invoke_time_ms)
    if key:
        body += text(6, key)
    if idempotency_key is not None:
        body += text(7, idempotency_key)
    return m.ONE_WAY_CALL, body + uint(10, id_notification)


def get_state(name: str, completion_id: int) -> Frame:
    return m.GET_LAZY_STATE, text(1, name) + uint(11, completion_id)


def get_state_keys(completion_id: int) -> Frame:
    return m.GET_LAZY_STATE_KEYS, uint(11, completion_id)


def get_eager_state(name: str, content: bytes) -> Frame:
    return m.GET_EAGER_STATE, text(1, name) + data(14, value(content))


def set_state(name: str, content: bytes) -> Frame:
    return m.SET_STATE, text(1, name) + data(3, value(content))


def clear_state(name: str) -> Frame:
    return m.CLEAR_STATE, text(1, name)


CLEAR_ALL_STATE: Frame = (m.CLEAR_ALL_STATE, b"")


def get_promise(name: str, completion_id: int) -> Frame:
    return m.GET_PROMISE, text(1, name) + uint(11, completion_id)


def peek_promise(name: str, completion_id: int) -> Frame:
    return m.PEEK_PROMISE, text(1, name) + uint(11, completion_id)


def resolve_promise(name: str, content: bytes, completion_id: int) -> Frame:
    return m.COMPLETE_PROMISE, text(1, name) + data(2, value(content)) + uint(11, completion_id)


def reject_promise(name: str, code: int, message: str, completion_id: int) -> Frame:
    return m.COMPLETE_PROMISE, text(1, name) + data(3, failure(code, message)) + uint(11, completion_id)


def attach(invocation_id: str, completion_id: int) -> Frame:
    return m.ATTACH_INVOCATION, text(1, invocation_id) + uint(11, completion_id)


def attach_idempotent(service: str, key: str | None, handler: str, idempotency_key: str, completion_id: int) -> Frame:
    target = text(1, service) + (b"" if key is None else text(2, key)) + text(3, handler) + text(4, idempotency_key)
    return m.ATTACH_INVOCATION, data(3, target) + uint(11, completion_id)


def attach_workflow(service: str, key: str, completion_id: int) -> Frame:
    return m.ATTACH_INVOCATION, data(4, text(1, service) + text(2, key)) + uint(11, completion_id)


def get_output(invocation_id: str, completion_id: int) -> Frame:
    return m.GET_INVOCATION_OUTPUT, text(1, invocation_id) + uint(11, completion_id)


def send_signal(invocation_id: str, signal: int | str, result: bytes = VOID_FIELD) -> Frame:
    named = uint(2, signal) if isinstance(signal, int) else text(3, signal)
    return m.SEND_SIGNAL, text(1, invocation_id) + named + result


def complete_awakeable(awakeable_id: str, content: bytes) -> Frame:
    return m.COMPLETE_AWAKEABLE, text(1, awakeable_id) + data(2, value(content))
