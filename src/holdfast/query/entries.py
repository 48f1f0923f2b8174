"""Journal frames -> the JSON of `sys_journal`. Pure.

Restate's server shows its own entry types as JSON; shapes, field order and what the short form leaves out were read off
a server 1.7.12. Bytes are lists of numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.protocol import messages as m
from holdfast.protocol.discovery import HandlerSpec, ServiceSpec
from holdfast.protocol.wire import Content, fields, message, octets, string, u32, u64

JSON_BYTES_MAX = 1 << 20
"""Entries with a larger body have no JSON: as a list of numbers they would take thirty times their size."""

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an entry's JSON says that is not in the entry itself."""

    invocation_ids: Mapping[int, str]
    """Of what was called, by the completion that told it."""
    services: Mapping[str, ServiceSpec]


def entry_name(message_type: int, body: bytes) -> str | None:
    """The name a command was given, empty if none; notifications have no name."""
    return string(message(body), 12) if m.is_command(message_type) else None


def entry_json(message_type: int, body: bytes, around: Surroundings) -> str | None:
    """The entry in full; None for one that is too large or that we do not know."""
    if len(body) > JSON_BYTES_MAX:
        return None
    return _text(_full(message_type, body, around))


def entry_lite_json(message_type: int, body: bytes, around: Surroundings) -> str | None:
    """The entry without payloads; None for one that we do not know."""
    return _text(_lite(message_type, body, around))


def told_invocation_id(message_type: int, body: bytes) -> tuple[int, str] | None:
    """(completion id, invocation id) if the entry tells a caller whom it called."""
    if message_type != m.CALL_INVOCATION_ID:
        return None
    content = message(body)
    return u32(content, 1), string(content, 16)


def _text(document: _Json | None) -> str | None:
    return None if document is None else json.dumps(document, separators=(",", ":"), ensure_ascii=False)


# ---- commands ----------------------------------------------------------------------------------------------------------


def _full(message_type: int, body: bytes, around: Surroundings) -> _Json | None:
    if not m.is_command(message_type):
        return _notification(message_type, body)
    describe = _COMMANDS.get(message_type)
    if describe is None:
        return None
    document = describe(message_type, body, around) | {"name": string(message(body), 12)}
    return {"Command": {m.COMMAND_NAMES[message_type]: document}}


def _lite(message_type: int, body: bytes, around: Surroundings) -> _Json | None:
    if not m.is_command(message_type):
        return _lite_notification(message_type, body)
    describe = _COMMANDS.get(message_type)
    if describe is None:
        return None
    # What only the full form has must not be built: it may be large.
    document = _LITE[message_type](message_type, body, around) if message_type in _LITE else {}
    if message_type in _SHOWN_AS_IT_IS:
        document = describe(message_type, body, around)
    if name := string(message(body), 12):
        document["name"] = name
    return {"Command": {m.COMMAND_NAMES[message_type]: document}}


def _bytes(value: bytes) -> list[int]:
    return list(value)


def _key(content: Content) -> str:
    return octets(content, 1).decode(errors="replace")


def _failure(failure: tuple[int, str, dict[str, str]]) -> _Json:
    code, text, metadata = failure
    document: _Json = {"code": code, "message": text}
    if metadata:
        document["metadata"] = [{"key": key, "value": value} for key, value in metadata.items()]
    return {"Failure": document}


def _result(content: Content, value: int, failure: int) -> str | _Json:
    result = m.decode_result(content, value, failure)
    if result.failure is not None:
        return _failure(result.failure)
    return "Void" if result.value is None else {"Success": _bytes(result.value)}


def _lite_result(content: Content, value: int, failure: int) -> str:
    return "Failure" if failure in content else "Success" if value in content else "Void"


def _input(_type: int, body: bytes, _around: Surroundings) -> _Json:
    headers = [message(value) for number, value in fields(body) if number == 1 and isinstance(value, bytes)]
    return {
        "headers": [{"name": string(header, 1), "value": string(header, 2)} for header in headers],
        "payload": _bytes(m.decode_value(octets(message(body), 14))),
    }


def _output(_type: int, body: bytes, _around: Surroundings) -> _Json:
    return {"result": _result(message(body), 14, 15)}


def _set_state(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {"key": _key(content), "value": _bytes(m.decode_value(octets(content, 3)))}


def _keyed(_type: int, body: bytes, _around: Surroundings) -> _Json:
    return {"key": _key(message(body))}


def _completable(_type: int, body: bytes, _around: Surroundings) -> _Json:
    return {"completion_id": u32(message(body), 11, 0)}


def _keyed_completable(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {"key": _key(content), "completion_id": u32(content, 11, 0)}


def _eager_state(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {"key": _key(content), "result": _result(content, 14, 15) if 14 in content else "Void"}


def _eager_state_keys(_type: int, body: bytes, _around: Surroundings) -> _Json:
    return {"state_keys": _names(octets(message(body), 14))}


def _names(body: bytes) -> list[str]:
    return [
        value.decode(errors="replace") for number, value in fields(body) if number == 1 and isinstance(value, bytes)
    ]


def _complete_promise(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {
        "key": _key(content),
        "value": _result(content, 2, 3),
        "completion_id": u32(content, 11, 0),
    }


def _sleep(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {"wake_up_time": u64(content, 1, 0), "completion_id": u32(content, 11, 0)}


def _target(call: m.CallRequest, around: Surroundings) -> tuple[_Json, HandlerSpec | None]:
    service = around.services.get(call.service)
    handler = service.handlers.get(call.handler) if service is not None else None
    if not call.key and (service is None or not service.keyed):
        return {"Service": {"name": call.service, "handler": call.handler, "scope": call.scope}}, handler
    is_workflow = service is not None and service.ty == "WORKFLOW"
    handler_ty = (handler.ty or "SHARED").capitalize() if handler is not None else "Exclusive"
    place = {"name": call.service, "key": call.key, "handler": call.handler, "handler_ty": handler_ty}
    return {"Workflow" if is_workflow else "VirtualObject": {**place, "scope": call.scope}}, handler


_NO_SPAN = {
    "span_context": {
        "trace_id": [0] * 16,
        "span_id": [0] * 8,
        "trace_flags": 0,
        "is_remote": False,
        "trace_state": "",
    },
    "cause": None,
}


def _call(message_type: int, body: bytes, around: Surroundings) -> _Json:
    call = m.call_request(message_type, body)
    target, handler = _target(call, around)
    request = {
        "invocation_id": around.invocation_ids.get(call.invocation_id_notification),
        "invocation_target": target,
        "span_context": _NO_SPAN,
        "parameter": _bytes(call.parameter),
        "headers": [{"name": name, "value": value} for name, value in call.headers],
        "idempotency_key": call.idempotency_key,
        "completion_retention_duration": _duration(_retention_ms(call, handler)),
        "journal_retention_duration": _duration(handler.journal_retention_ms if handler is not None else 0),
    }
    return {"request": request, **_call_ids(message_type, call)}


def _call_ids(message_type: int, call: m.CallRequest) -> _Json:
    if message_type == m.ONE_WAY_CALL:
        return {
            "invoke_time": call.invoke_time_ms,
            "invocation_id_completion_id": call.invocation_id_notification,
        }
    return {
        "invocation_id_completion_id": call.invocation_id_notification,
        "result_completion_id": call.completion_id,
    }


def _retention_ms(call: m.CallRequest, handler: HandlerSpec | None) -> int:
    if handler is None:
        return 0
    if handler.is_workflow_run:
        return handler.workflow_retention_ms
    return handler.idempotency_retention_ms if call.idempotency_key is not None else handler.journal_retention_ms


def _duration(duration_ms: int) -> _Json:
    return {"secs": duration_ms // 1000, "nanos": duration_ms % 1000 * 1_000_000}


def _signal_id(content: Content) -> _Json:
    return {"Index": u32(content, 2)} if 2 in content else {"Name": string(content, 3)}


def _send_signal(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {
        "target_invocation_id": string(content, 1),
        "signal_id": _signal_id(content),
        "result": _result(content, 5, 6),
    }


def _attach(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {"target": _attached(content), "completion_id": u32(content, 11, 0)}


def _attached(content: Content) -> _Json:
    if 3 in content:
        target = message(octets(content, 3))
        key = string(target, 2) if 2 in target else None
        names = {"service_name": string(target, 1), "service_key": key, "service_handler": string(target, 3)}
        return {"IdempotentRequest": {**names, "idempotency_key": string(target, 4)}}
    if 4 in content:
        target = message(octets(content, 4))
        return {"Workflow": {"service_name": string(target, 1), "key": string(target, 2)}}
    return {"InvocationId": string(content, 1)}


def _complete_awakeable(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {"id": string(content, 1), "result": _result(content, 2, 3)}


_Describe = Callable[[int, bytes, Surroundings], _Json]

_COMMANDS: dict[int, _Describe] = {
    m.INPUT: _input,
    m.OUTPUT: _output,
    m.GET_LAZY_STATE: _keyed_completable,
    m.SET_STATE: _set_state,
    m.CLEAR_STATE: _keyed,
    m.CLEAR_ALL_STATE: lambda _type, _body, _around: {},
    m.GET_LAZY_STATE_KEYS: _completable,
    m.GET_EAGER_STATE: _eager_state,
    m.GET_EAGER_STATE_KEYS: _eager_state_keys,
    m.GET_PROMISE: _keyed_completable,
    m.PEEK_PROMISE: _keyed_completable,
    m.COMPLETE_PROMISE: _complete_promise,
    m.SLEEP: _sleep,
    m.CALL: _call,
    m.ONE_WAY_CALL: _call,
    m.SEND_SIGNAL: _send_signal,
    m.RUN: _completable,
    m.ATTACH_INVOCATION: _attach,
    m.GET_INVOCATION_OUTPUT: _attach,
    m.COMPLETE_AWAKEABLE: _complete_awakeable,
}

_SHOWN_AS_IT_IS = frozenset(
    {m.GET_LAZY_STATE, m.CLEAR_STATE, m.GET_LAZY_STATE_KEYS, m.GET_PROMISE, m.PEEK_PROMISE, m.SLEEP, m.RUN}
    | {m.ATTACH_INVOCATION, m.GET_INVOCATION_OUTPUT}
)
"""Commands without a payload: the short form says everything."""


def _lite_call(message_type: int, body: bytes, around: Surroundings) -> _Json:
    call = m.call_request(message_type, body)
    invocation_id = around.invocation_ids.get(call.invocation_id_notification)
    target, _ = _target(call, around)
    return {"invocation_id": invocation_id, "invocation_target": target, **_call_ids(message_type, call)}


def _lite_send_signal(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    ids = {"target_invocation_id": string(content, 1), "signal_id": _signal_id(content)}
    return {**ids, "result": _lite_result(content, 5, 6)}


def _lite_eager_state(_type: int, body: bytes, _around: Surroundings) -> _Json:
    content = message(body)
    return {"key": _key(content), "result": _lite_result(content, 14, 15)}


_LITE: dict[int, _Describe] = {
    m.OUTPUT: lambda _type, body, _around: {"result": _lite_result(message(body), 14, 15)},
    m.SET_STATE: _keyed,
    m.GET_EAGER_STATE: _lite_eager_state,
    m.COMPLETE_PROMISE: _keyed_completable,
    m.CALL: _lite_call,
    m.ONE_WAY_CALL: _lite_call,
    m.SEND_SIGNAL: _lite_send_signal,
    m.COMPLETE_AWAKEABLE: lambda _type, body, _around: {
        "id": string(message(body), 1),
        "result": _lite_result(message(body), 2, 3),
    },
}


# ---- notifications -----------------------------------------------------------------------------------------------------


def _notification(message_type: int, body: bytes) -> _Json | None:
    content = message(body)
    if message_type == m.SIGNAL:
        return {"Notification": {"Signal": {"id": _signal_id(content), "result": _result(content, 5, 6)}}}
    name = _completion_name(message_type)
    if name is None:
        return None
    document: _Json = {"completion_id": u32(content, 1)}
    if message_type == m.CALL_INVOCATION_ID:
        document["invocation_id"] = string(content, 16)
    elif 17 in content:
        document["state_keys"] = _names(octets(content, 17))
    elif message_type != m.SLEEP_COMPLETION:
        document["result"] = _result(content, 5, 6)
    return {"Notification": {"Completion": {name: document}}}


def _lite_notification(message_type: int, body: bytes) -> _Json | None:
    content = message(body)
    if message_type == m.SIGNAL:
        signal = {"SignalIndex": u32(content, 2)} if 2 in content else {"SignalName": string(content, 3)}
        return {"Notification": {"ty": "Signal", "id": signal, "result": _lite_result(content, 5, 6)}}
    name = _completion_name(message_type)
    if name is None:
        return None
    result = _lite_result(content, 5, 6)
    if message_type == m.CALL_INVOCATION_ID:
        result = "InvocationId"
    elif 17 in content:
        result = "StateKeys"
    completion = {"CompletionId": u32(content, 1)}
    return {"Notification": {"ty": {"Completion": name}, "id": completion, "result": result}}


def _completion_name(message_type: int) -> str | None:
    if message_type == m.CALL_INVOCATION_ID:
        return "CallInvocationId"
    return m.COMMAND_NAMES.get(message_type - 0x7C00)
