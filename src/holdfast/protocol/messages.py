"""Messages of the Restate service protocol: numbers, what we build, and what we read of them.

Field numbers are those of the protocol's `protocol.proto` for versions 5 to 7. Commands are stored and replayed as the
bytes the SDK sent; only the fields that the engine must act on are ever decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.protocol.wire import (
    Content,
    MalformedFrame,
    data,
    fields,
    frame,
    message,
    numbers,
    octets,
    read_varint,
    string,
    text,
    u32,
    u64,
    uint,
    varint,
)

START, SUSPENSION, ERROR, END = 0x0000, 0x0001, 0x0002, 0x0003
PROPOSE_RUN_COMPLETION, AWAITING_ON, PROPOSE_RUN_COMPLETION_ACK = 0x0005, 0x0006, 0x0007

INPUT, OUTPUT = 0x0400, 0x0401
GET_LAZY_STATE, SET_STATE, CLEAR_STATE, CLEAR_ALL_STATE = 0x0402, 0x0403, 0x0404, 0x0405
GET_LAZY_STATE_KEYS, GET_EAGER_STATE, GET_EAGER_STATE_KEYS = 0x0406, 0x0407, 0x0408
GET_PROMISE, PEEK_PROMISE, COMPLETE_PROMISE = 0x0409, 0x040A, 0x040B
SLEEP, CALL, ONE_WAY_CALL = 0x040C, 0x040D, 0x040E
SEND_SIGNAL, RUN, ATTACH_INVOCATION, GET_INVOCATION_OUTPUT, COMPLETE_AWAKEABLE = 0x0410, 0x0411, 0x0412, 0x0413, 0x0414

NOTIFICATION = 0x8000  # the completion of command 0x04xx is 0x80xx
CALL_INVOCATION_ID, CALL_COMPLETION, RUN_COMPLETION, SLEEP_COMPLETION = 0x800E, 0x800D, 0x8011, 0x800C
SIGNAL = 0xFBFF

CANCEL_SIGNAL = 1
FIRST_AWAKEABLE_SIGNAL = 17

CONTENT_TYPE = "application/vnd.restate.invocation.v%d"
VERSIONS = range(5, 8)
"""Versions the engine speaks. 7 adds an exact view of what an attempt waits for, which lets it suspend early."""

COMMAND_NAMES = {
    INPUT: "Input",
    OUTPUT: "Output",
    GET_LAZY_STATE: "GetLazyState",
    SET_STATE: "SetState",
    CLEAR_STATE: "ClearState",
    CLEAR_ALL_STATE: "ClearAllState",
    GET_LAZY_STATE_KEYS: "GetLazyStateKeys",
    GET_EAGER_STATE: "GetEagerState",
    GET_EAGER_STATE_KEYS: "GetEagerStateKeys",
    GET_PROMISE: "GetPromise",
    PEEK_PROMISE: "PeekPromise",
    COMPLETE_PROMISE: "CompletePromise",
    SLEEP: "Sleep",
    CALL: "Call",
    ONE_WAY_CALL: "OneWayCall",
    SEND_SIGNAL: "SendSignal",
    RUN: "Run",
    ATTACH_INVOCATION: "AttachInvocation",
    GET_INVOCATION_OUTPUT: "GetInvocationOutput",
    COMPLETE_AWAKEABLE: "CompleteAwakeable",
}


def is_command(message_type: int) -> bool:
    return 0x0400 <= message_type < 0x8000


def entry_type_name(message_type: int) -> str:
    """`Command: Run`, `Notification: Sleep`: as `sys_journal.entry_type` spells them."""
    if message_type == SIGNAL:
        return "Notification: Signal"
    if message_type == CALL_INVOCATION_ID:
        return "Notification: CallInvocationId"
    if message_type >= NOTIFICATION:
        return f"Notification: {COMMAND_NAMES.get(message_type - 0x7C00, hex(message_type))}"
    return f"Command: {COMMAND_NAMES.get(message_type, hex(message_type))}"


# ---- results -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """A notification's result: void, a value, or a failure (code, message, metadata)."""

    value: bytes | None = None
    failure: tuple[int, str, dict[str, str]] | None = None

    @property
    def is_void(self) -> bool:
        return self.value is None and self.failure is None


VOID = Result()
_VOID_FIELD = b"\x22\x00"  # field 4, empty message


def encode_value(value: bytes) -> bytes:
    """The `Value` message."""
    return data(1, value)


def encode_failure(code: int, failure_message: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """The `Failure` message. Metadata exists since version 6."""
    body = uint(1, code) + text(2, failure_message)
    for key, value in (metadata or {}).items():
        body += data(3, text(1, key) + text(2, value))
    return body


def decode_value(body: bytes) -> bytes:
    return octets(message(body), 1)


def decode_failure(body: bytes) -> tuple[int, str, dict[str, str]]:
    """(code, message, metadata) of the `Failure` message."""
    content = message(body)
    metadata: dict[str, str] = {}
    for number, value in fields(body):
        if number == 3:
            pair = message(octets({3: value}, 3))
            metadata[string(pair, 1)] = string(pair, 2)
    return _code(u32(content, 1, 0)), string(content, 2), metadata


def _code(code: int) -> int:
    """The server has 16 bits for it, and what does not fit is an internal error."""
    return code if code <= 0xFFFF else 500


def encode_result(result: Result) -> bytes:
    """The result fields of a notification: 4 void, 5 value or 6 failure."""
    if result.value is not None:
        return data(5, encode_value(result.value))
    if result.failure is not None:
        return data(6, encode_failure(*result.failure))
    return _VOID_FIELD


def decode_result(content: Content, value: int = 5, failure: int = 6) -> Result:
    """Read a result whose value and failure stand at the given field numbers; void if neither is there."""
    if value in content:
        return Result(value=decode_value(octets(content, value)))
    if failure in content:
        return Result(failure=decode_failure(octets(content, failure)))
    return VOID


# ---- what the engine sends -------------------------------------------------------------------------------------------


def start_frame(
    *,
    invocation_bytes: bytes,
    debug_id: str,
    known_entries: int,
    state: Iterable[tuple[bytes, bytes]],
    partial_state: bool,
    key: str | None,
    retry_count: int,
    since_last_entry_ms: int,
    random_seed: int | None,
    version: int,
    idempotency_key: str | None = None,
) -> bytes:
    """The first frame of every attempt.

    Args:
        known_entries: commands and notifications that follow, at least 1 (Input).
        state: the whole state of the key as of now; with `partial_state` the SDK asks for what is missing.
        retry_count: failed attempts since the last stored entry; `since_last_entry_ms` likewise.
        random_seed: of `ctx.random()` and `ctx.uuid()`, the same for all attempts; None derives it from the id.
    """
    body = b"\x0a%c%b\x12%c%b\x18%b" % (
        len(invocation_bytes),
        invocation_bytes,
        len(debug_id),
        debug_id.encode(),
        varint(known_entries),
    )
    for name, value in state:
        body += data(4, data(1, name) + data(2, value))
    if partial_state:
        body += b"\x28\x01"
    if key is not None:
        body += text(6, key)
    if retry_count:
        body += uint(7, retry_count) + uint(8, since_last_entry_ms)
    if version >= 6:
        body += b"\x48" + (_derived_seed(invocation_bytes) if random_seed is None else varint(random_seed))
    if version >= 7 and idempotency_key is not None:
        body += text(12, idempotency_key)
    return frame(START, body)


def _derived_seed(invocation_bytes: bytes) -> bytes:
    """63 random bits of the id, as a varint: nine of its bytes with the continuation bits put right."""
    nine = int.from_bytes(invocation_bytes[8:17], "big")
    return ((nine | 0x808080808080808080) & 0xFFFFFFFFFFFFFFFF7F).to_bytes(9, "big")


def derived_seed(invocation_bytes: bytes) -> int:
    """The seed that an invocation's attempts get when none is stored."""
    return read_varint(_derived_seed(invocation_bytes), 0)[0]


def input_frame(headers: Iterable[tuple[str, str]], value: bytes) -> bytes:
    body = b"".join([data(1, text(1, name) + text(2, content)) for name, content in headers])
    return frame(INPUT, body + data(14, data(1, value)))


def completion_frame(message_type: int, completion_id: int, result: Result) -> bytes:
    """A notification for completion id `completion_id`."""
    return frame(message_type, uint(1, completion_id) + encode_result(result))


def invocation_id_frame(notification_id: int, invocation_id: str) -> bytes:
    """Tells a caller the id of the invocation that its Call or OneWayCall made."""
    return frame(CALL_INVOCATION_ID, uint(1, notification_id) + text(16, invocation_id))


def state_keys_frame(completion_id: int, names: Iterable[bytes]) -> bytes:
    return frame(
        GET_LAZY_STATE_KEYS + 0x7C00, uint(1, completion_id) + data(17, b"".join([data(1, name) for name in names]))
    )


def signal_frame(signal: int | str, result: Result) -> bytes:
    """A signal notification: by index (1 is cancel, awakeables from 17) or by name."""
    head = uint(2, signal) if isinstance(signal, int) else text(3, signal)
    return frame(SIGNAL, head + encode_result(result))


def run_ack_frame(completion_id: int) -> bytes:
    """Version 7: the proposed run result is durable."""
    return frame(PROPOSE_RUN_COMPLETION_ACK, uint(1, completion_id))


# ---- what the SDK sends ----------------------------------------------------------------------------------------------


def output_result(body: bytes) -> Result:
    """The result inside an Output command."""
    # Nearly always one short Value holding one short field; then everything stands at a fixed place.
    size = len(body)
    if 3 < size < 0x80 and body[0] == 0x72 and body[1] == size - 2 and body[2] == 0x0A and body[3] == size - 4:
        return Result(body[4:])
    return decode_result(message(body), value=14, failure=15)


def run_proposal(body: bytes) -> tuple[int, Result]:
    """(completion id, result) of ProposeRunCompletion, whose value is bare bytes."""
    content = message(body)
    completion_id = u32(content, 1)
    if 15 in content:
        return completion_id, Result(failure=decode_failure(octets(content, 15)))
    return completion_id, Result(value=octets(content, 14))


@dataclass(frozen=True, slots=True)
class AttemptError:
    """An Error frame: the attempt failed, and what the SDK asks for."""

    code: int
    message: str
    stacktrace: str = ""
    command_index: int | None = None
    command_name: str | None = None
    command_type: int | None = None
    next_retry_delay_ms: int | None = None
    behavior: int = 0
    """0 retry, 1 pause, 2 fail (version 7)."""
    detail: Mapping[str, object] | None = None
    """What the engine found out about it, for the journal event."""


def attempt_error(body: bytes) -> AttemptError:
    content = message(body)
    return AttemptError(
        code=_code(u32(content, 1, 500)),
        message=octets(content, 2).decode(errors="replace"),
        stacktrace=octets(content, 3).decode(errors="replace"),
        command_index=u32(content, 4) if 4 in content else None,
        command_name=octets(content, 5).decode(errors="replace") if 5 in content else None,
        command_type=u32(content, 6) if 6 in content else None,
        next_retry_delay_ms=u64(content, 8) if 8 in content else None,
        behavior=u32(content, 9, 0),
    )


@dataclass(frozen=True, slots=True)
class Awaited:
    """What an attempt waits for: a tree of completion ids, signal indexes and signal names.

    Combinators: 1 any (versions 5 and 6 know only this), 2 all, 3 first success or all failed, 4 all succeeded or
    first failure. Only 2 asks for more than one leaf; 3 and 4 are woken by any leaf, which is early but never late.
    """

    completions: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    nested: tuple[Awaited, ...] = ()
    combinator: int = 1

    @property
    def is_empty(self) -> bool:
        return not (self.completions or self.signals or self.names or self.nested)

    def leaves(self) -> list[int | str | tuple[int]]:
        """Every leaf: completion ids as ints in a 1-tuple, signals as int or str."""
        out: list[int | str | tuple[int]] = [(c,) for c in self.completions]
        out += self.signals
        out += self.names
        for child in self.nested:
            out += child.leaves()
        return out


AWAITED_DEPTH_MAX = 200
"""Deeper futures are refused; the server allows 1000, Python's own recursion limit is in the way of that."""


def awaited_tree(body: bytes, depth: int = 0) -> Awaited:
    """The Future message of version 7."""
    if depth > AWAITED_DEPTH_MAX:
        raise MalformedFrame(f"future nested deeper than {AWAITED_DEPTH_MAX}")
    completions, signals, names, nested = list[int](), list[int](), list[str](), list[Awaited]()
    for number, value in fields(body):
        if number == 1:
            completions += numbers(value)
        elif number == 2:
            signals += numbers(value)
        elif number == 3:
            names.append(string({3: value}, 3))
        elif number == 4:
            nested.append(awaited_tree(octets({4: value}, 4), depth + 1))
    combinator = u32(message(body), 5, 0)
    return Awaited(tuple(completions), tuple(signals), tuple(names), tuple(nested), combinator or 1)


def suspension(body: bytes) -> Awaited:
    """A Suspension frame of any version, as a tree."""
    content = message(body)
    if 4 in content:
        return awaited_tree(octets(content, 4))
    flat = [(number, value) for number, value in fields(body) if number in (1, 2, 3)]
    return Awaited(
        tuple(n for number, value in flat if number == 1 for n in numbers(value)),
        tuple(n for number, value in flat if number == 2 for n in numbers(value)),
        tuple(string({3: value}, 3) for number, value in flat if number == 3),
    )


def awaiting_on(body: bytes) -> tuple[Awaited, bool]:
    """(what is awaited, whether a run action is executing) of version 7's AwaitingOn."""
    content = message(body)
    return awaited_tree(octets(content, 1)), bool(u32(content, 2, 0))


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A Call or OneWayCall command."""

    service: str
    handler: str
    parameter: bytes
    headers: tuple[tuple[str, str], ...]
    key: str
    idempotency_key: str | None
    invocation_id_notification: int
    completion_id: int
    """0 for one-way calls."""
    invoke_time_ms: int
    """0 means now; one-way calls only."""
    scope: str | None


def call_request(message_type: int, body: bytes) -> CallRequest:
    content = message(body)
    one_way = message_type == ONE_WAY_CALL
    header_field, key_field, idempotency_field, scope_field = (5, 6, 7, 8) if one_way else (4, 5, 6, 7)
    headers: list[tuple[str, str]] = []
    for number, value in fields(body):
        if number == header_field:
            pair = message(octets({number: value}, number))
            headers.append((string(pair, 1), string(pair, 2)))
    return CallRequest(
        service=string(content, 1),
        handler=string(content, 2),
        parameter=octets(content, 3),
        headers=tuple(headers),
        key=string(content, key_field),
        idempotency_key=string(content, idempotency_field) if idempotency_field in content else None,
        invocation_id_notification=u32(content, 10, 0),
        completion_id=0 if one_way else u32(content, 11, 0),
        invoke_time_ms=u64(content, 4, 0) if one_way else 0,
        scope=string(content, scope_field) if scope_field in content else None,
    )


def completion_ids(message_type: int, body: bytes) -> set[int]:
    """Completions that a command asks for: its result (field 11), and of calls the id of the invocation (field 10)."""
    if message_type in _WITHOUT_COMPLETION:
        return set()
    command = message(body)
    return {u32(command, number) for number in (10, 11) if number in command}


_WITHOUT_COMPLETION = frozenset(
    (INPUT, OUTPUT, SET_STATE, CLEAR_STATE, CLEAR_ALL_STATE, GET_EAGER_STATE, GET_EAGER_STATE_KEYS, SEND_SIGNAL)
) | {COMPLETE_AWAKEABLE}


def notification_leaf(message_type: int, body: bytes) -> int | str | tuple[int]:
    """The id a notification resolves: completion ids as a 1-tuple, signals as int or str."""
    content = message(body)
    if message_type != SIGNAL:
        return (u32(content, 1),)
    return u32(content, 2) if 2 in content else string(content, 3)
