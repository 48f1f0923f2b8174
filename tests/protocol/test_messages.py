"""What we build can be read back; what an SDK writes is understood in every version; anything else is malformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol import messages as m
from holdfast.protocol.messages import VOID, AttemptError, Awaited, Result
from holdfast.protocol.wire import Decoder, MalformedFrame, data, fields, message, text, uint
from tests.core import sdk

texts = st.text(max_size=20)
contents = st.binary(max_size=40)
u32 = st.integers(0, 2**32 - 1)
metadata = st.dictionaries(texts, texts, max_size=3)
failures = st.tuples(st.integers(0, 2**16 - 1), texts, metadata)
results = st.just(VOID) | st.builds(Result, value=contents) | st.builds(Result, failure=failures)


def only(frame: bytes) -> tuple[int, bytes]:
    """The one frame in these bytes."""
    ((kind, body),) = Decoder().feed(frame)
    return kind, body


# ---- what the engine sends ---------------------------------------------------------------------------------------------


@given(results, u32)
def test_completion_round_trip(result: Result, completion_id: int):
    kind, body = only(m.completion_frame(m.RUN_COMPLETION, completion_id, result))
    assert kind == m.RUN_COMPLETION
    assert m.notification_leaf(kind, body) == (completion_id,)
    assert m.decode_result(message(body)) == result


@given(results, u32 | st.text(min_size=1, max_size=20))
def test_signal_round_trip(result: Result, signal: int | str):
    kind, body = only(m.signal_frame(signal, result))
    assert kind == m.SIGNAL
    assert m.notification_leaf(kind, body) == signal
    assert m.decode_result(message(body)) == result


def test_every_result_has_exactly_one_result_field():
    # The SDK fails with 500 on a notification that has none, and an empty value is a value.
    assert (VOID.is_void, Result(value=b"").is_void, Result(failure=(0, "", {})).is_void) == (True, False, False)
    for result, number in ((VOID, 4), (Result(value=b""), 5), (Result(failure=(0, "", {})), 6)):
        assert [field[0] for field in fields(m.encode_result(result))] == [number]


def test_invocation_id_notification():
    kind, body = only(m.invocation_id_frame(3, "inv_1x"))
    assert (kind, message(body)) == (0x800E, {1: 3, 16: b"inv_1x"})
    assert m.notification_leaf(kind, body) == (3,)


def test_state_keys_notification():
    kind, body = only(m.state_keys_frame(4, [b"a", b"b"]))
    assert kind == 0x8006
    assert message(body) == {1: 4, 17: data(1, b"a") + data(1, b"b")}


def test_run_acknowledgement():
    assert only(m.run_ack_frame(9)) == (0x0007, uint(1, 9))


@given(st.lists(st.tuples(texts, texts), max_size=4), contents)
def test_input_round_trip(headers: list[tuple[str, str]], value: bytes):
    kind, body = only(m.input_frame(headers, value))
    read = [(number, message(part)) for number, part in fields(body) if isinstance(part, bytes)]
    assert kind == m.INPUT
    assert [(part[1].decode(), part[2].decode()) for number, part in read if number == 1] == headers  # type: ignore[union-attr]
    assert [part[1] for number, part in read if number == 14] == [value]


def start(version: int, **changes: Any) -> dict[int, int | bytes]:
    arguments: dict[str, Any] = {
        "invocation_bytes": bytes(24),
        "debug_id": "inv_1",
        "known_entries": 2,
        "state": [],
        "partial_state": False,
        "key": None,
        "retry_count": 0,
        "since_last_entry_ms": 0,
        "random_seed": 2**64 - 1,
        "version": version,
    }
    kind, body = only(m.start_frame(**{**arguments, **changes}))
    assert kind == m.START
    return message(body)


START = {
    "random seed since version 6": (5, {}, {}, {9}),
    "random seed in version 6": (6, {}, {9: 2**64 - 1}, set()),
    "idempotency key not before version 7": (6, {"idempotency_key": "k"}, {}, {12}),
    "idempotency key in version 7": (7, {"idempotency_key": "k"}, {12: b"k"}, set()),
    "no idempotency key": (7, {}, {}, {12}),
    "unkeyed": (6, {}, {}, {4, 5, 6}),
    "empty key is a key": (6, {"key": ""}, {6: b""}, set()),
    "state, whole": (6, {"key": "k", "state": [(b"a", b"1")]}, {4: data(1, b"a") + data(2, b"1")}, {5}),
    "state, partial": (6, {"key": "k", "partial_state": True}, {5: 1}, {4}),
    "no failures, no duration": (6, {"since_last_entry_ms": 99}, {}, {7, 8}),
    "failures and duration": (6, {"retry_count": 2, "since_last_entry_ms": 99}, {7: 2, 8: 99}, set()),
}


@pytest.mark.parametrize(("version", "changes", "present", "absent"), START.values(), ids=START.keys())
def test_start(version: int, changes: dict[str, Any], present: dict[int, Any], absent: set[int]):
    content = start(version, **changes)
    assert content[3] == 2
    assert {number: content.get(number) for number in present} == present
    assert not absent & content.keys()


def test_names_of_entries():
    assert m.entry_type_name(m.RUN) == "Command: Run"
    assert m.entry_type_name(m.RUN_COMPLETION) == "Notification: Run"
    assert m.entry_type_name(m.SLEEP_COMPLETION) == "Notification: Sleep"
    assert m.entry_type_name(m.CALL_COMPLETION) == "Notification: Call"
    assert m.entry_type_name(m.CALL_INVOCATION_ID) == "Notification: CallInvocationId"
    assert m.entry_type_name(m.SIGNAL) == "Notification: Signal"
    assert m.entry_type_name(0x0499) == "Command: 0x499"
    assert m.entry_type_name(0x8099) == "Notification: 0x8099"


def test_types_are_commands_or_not():
    commands = [kind for kind in range(0x10000) if m.is_command(kind)]
    assert (commands[0], commands[-1]) == (0x0400, 0x7FFF)
    assert set(m.COMMAND_NAMES) <= set(commands)


# ---- what the SDK sends ------------------------------------------------------------------------------------------------


@given(contents)
def test_run_proposal_with_value(value: bytes):
    assert m.run_proposal(sdk.run_result(3, value)[1]) == (3, Result(value=value))


def test_run_proposal_with_failure():
    assert m.run_proposal(sdk.run_failure(3, 500, "no")[1]) == (3, Result(failure=(500, "no", {})))


def test_failure_codes_over_16_bits_are_internal_errors():
    """As on a Restate server: a caller never sees them."""
    codes = (0, 500, 65_535, 65_536, 2**32 - 1)
    assert [m.decode_failure(m.encode_failure(code, "x"))[0] for code in codes] == [0, 500, 65_535, 500, 500]
    assert [m.attempt_error(uint(1, code)).code for code in codes] == [0, 500, 65_535, 500, 500]


def test_failure_metadata():
    body = m.encode_failure(409, "taken", {"by": "x", "": ""})
    assert m.decode_failure(body) == (409, "taken", {"by": "x", "": ""})


ERRORS = {
    "nothing": (b"", AttemptError(500, "")),
    "code and message": (sdk.error("no", code=400)[1], AttemptError(400, "no")),
    "stacktrace": (text(3, "at h"), AttemptError(500, "", "at h")),
    "related command": (
        sdk.error(command_index=0)[1],
        AttemptError(500, "boom", "", 0, "step", m.RUN),
    ),
    "retry delay": (sdk.error(next_retry_delay_ms=0)[1], AttemptError(500, "boom", next_retry_delay_ms=0)),
    "behavior pause": (sdk.error(behavior=1)[1], AttemptError(500, "boom", behavior=1)),
    "behavior fail": (sdk.error(behavior=2)[1], AttemptError(500, "boom", behavior=2)),
    "text that is no UTF-8": (data(2, b"\xff!"), AttemptError(500, "�!")),
}


@pytest.mark.parametrize(("body", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_attempt_error(body: bytes, expected: AttemptError):
    assert m.attempt_error(body) == expected


SUSPENSIONS = {
    "V6: packed numbers": (data(1, b"\x01\x02") + data(2, b"\x01\x11"), Awaited((1, 2), (1, 17))),
    "V6: single numbers": (uint(1, 1) + uint(1, 2) + uint(2, 1), Awaited((1, 2), (1,))),
    "V6: names": (text(3, "a") + text(3, "b"), Awaited(names=("a", "b"))),
    "nothing at all": (b"", Awaited()),
    "V7: future": (data(4, sdk.future((1,), (1,), ("n",))), Awaited((1,), (1,), ("n",), (), 1)),
    "V7: all": (data(4, sdk.future((1, 2), combinator=2)), Awaited((1, 2), combinator=2)),
    "V7: unknown combinator is any": (data(4, sdk.future((1,), combinator=0)), Awaited((1,), combinator=1)),
    "V7: nested": (
        data(4, sdk.future(signals=(1,), nested=(sdk.future((1, 2), combinator=2),))),
        Awaited(signals=(1,), nested=(Awaited((1, 2), combinator=2),)),
    ),
}


@pytest.mark.parametrize(("body", "expected"), SUSPENSIONS.values(), ids=SUSPENSIONS.keys())
def test_suspension(body: bytes, expected: Awaited):
    assert m.suspension(body) == expected


def test_awaiting_on():
    assert m.awaiting_on(data(1, sdk.future((1,))) + uint(2, 1)) == (Awaited((1,)), True)
    assert m.awaiting_on(b"") == (Awaited(), False)


def test_leaves_of_a_tree():
    tree = Awaited((1,), (17,), ("n",), (Awaited((2,)), Awaited(nested=(Awaited(names=("m",)),))))
    assert tree.leaves() == [(1,), 17, "n", (2,), "m"]
    assert Awaited().is_empty
    assert not tree.is_empty


def test_call_request():
    kind, body = sdk.call(
        "Counter", "add", id_notification=1, completion_id=2, parameter=b"p", key="k", idempotency_key="i", scope="s"
    )
    assert m.call_request(kind, body) == m.CallRequest(
        "Counter", "add", b"p", (("x-from", "caller"),), "k", "i", 1, 2, 0, "s"
    )


def test_one_way_call_request():
    kind, body = sdk.send(
        "Counter", "add", id_notification=1, parameter=b"p", key="k", idempotency_key="i", invoke_time_ms=99
    )
    body += data(5, text(1, "a") + text(2, "b")) + text(8, "s")
    assert m.call_request(kind, body) == m.CallRequest("Counter", "add", b"p", (("a", "b"),), "k", "i", 1, 0, 99, "s")


# ---- malformed ---------------------------------------------------------------------------------------------------------

# Bodies that are well-formed protobuf, with the fields the readers look at but any type and any bytes in them.
_values = st.integers(0, 2**64 - 1) | st.binary(max_size=12)
_bodies = st.binary(max_size=40) | st.lists(st.tuples(st.integers(1, 17), _values), max_size=6).map(
    lambda written: b"".join([uint(n, v) if isinstance(v, int) else data(n, v) for n, v in written])
)

READERS: dict[str, Callable[[bytes], object]] = {
    "suspension": m.suspension,
    "awaited tree": m.awaited_tree,
    "awaiting on": m.awaiting_on,
    "attempt error": m.attempt_error,
    "call": lambda body: m.call_request(m.CALL, body),
    "one-way call": lambda body: m.call_request(m.ONE_WAY_CALL, body),
    "run proposal": m.run_proposal,
    "failure": m.decode_failure,
    "value": m.decode_value,
    "result": lambda body: m.decode_result(message(body)),
    "completion leaf": lambda body: m.notification_leaf(m.RUN_COMPLETION, body),
    "signal leaf": lambda body: m.notification_leaf(m.SIGNAL, body),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@given(body=_bodies)
def test_any_body_is_read_or_malformed(read: Callable[[bytes], object], body: bytes):
    try:
        read(body)
    except MalformedFrame:
        pass


WRONG_TYPES = {
    "suspension: number instead of a future": lambda: m.suspension(uint(4, 1)),
    "suspension: number instead of a name": lambda: m.suspension(uint(3, 1)),
    "error: number instead of the message": lambda: m.attempt_error(uint(2, 1)),
    "error: bytes instead of the code": lambda: m.attempt_error(data(1, b"x")),
    "call: number instead of the service": lambda: m.call_request(m.CALL, uint(1, 1)),
    "call: bytes instead of the completion id": lambda: m.call_request(m.CALL, data(11, b"x")),
    "call: service that is no UTF-8": lambda: m.call_request(m.CALL, data(1, b"\xff")),
    "proposal: no completion id": lambda: m.run_proposal(data(14, b"x")),
    "proposal: bytes instead of the completion id": lambda: m.run_proposal(data(1, b"x")),
    "completion id over 32 bits": lambda: m.run_proposal(uint(1, 2**32)),
    "value: number instead of content": lambda: m.decode_value(uint(1, 1)),
}


@pytest.mark.parametrize("read", WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_wrong_types_are_malformed(read: Callable[[], object]):
    with pytest.raises(MalformedFrame):
        read()


def test_nesting_without_end_is_malformed():
    tree = sdk.future((1,))
    for _ in range(5000):
        tree = sdk.future(nested=(tree,))
    with pytest.raises(MalformedFrame):
        m.suspension(data(4, tree))


def test_nesting_that_the_protocol_allows_is_read():
    tree = sdk.future((1,))
    for _ in range(200):
        tree = sdk.future(nested=(tree,))
    assert m.suspension(data(4, tree)).leaves() == [(1,)]
