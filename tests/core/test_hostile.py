"""A deployment that breaks the protocol loses its attempt. Never the batch, never the engine, never a half command."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core import commands
from holdfast.protocol import messages as m
from holdfast.protocol.wire import data, text, uint
from tests.core import sdk
from tests.core.driver import START_MS, World
from tests.core.test_batches import dump

_values = st.integers(0, 2**64 - 1) | st.binary(max_size=12) | st.text(max_size=4).map(str.encode)
_messages = st.lists(st.tuples(st.integers(1, 17), _values), max_size=5).map(
    lambda written: b"".join([uint(n, v) if isinstance(v, int) else data(n, v) for n, v in written])
)
_bodies = st.binary(max_size=30) | _messages | st.tuples(st.integers(1, 17), _messages).map(lambda w: data(*w))
_kinds = st.sampled_from([*commands.HANDLERS, m.END, m.SUSPENSION, m.ERROR, m.AWAITING_ON]) | st.integers(0, 0xFFFF)
frames = st.lists(st.tuples(_kinds, _bodies), min_size=1, max_size=4)


TARGETS = [("Plain/run", None), ("Counter/add", "k"), ("Flow/run", "k")]


def goes_on(target: tuple[str, str | None], said: list[sdk.Frame]) -> None:
    """Whatever an attempt says, another one in the same batch is served, and the rows can be recovered from."""
    world = World()
    invocation = world.submit(*target)
    bystander = world.submit("Plain/run")
    event = world.said(invocation, *said)
    world.batch(event, world.said(bystander, sdk.output(b"fine"), sdk.END))
    assert world.completion(bystander).value == b"fine"
    world.crash()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TARGETS), frames)
def test_whatever_an_attempt_says_the_engine_goes_on(target: tuple[str, str | None], said: list[sdk.Frame]):
    goes_on(target, said)


MALFORMED = {
    "sleep: no completion id": (m.SLEEP, uint(1, START_MS + 5)),
    "sleep: completion id is text": (m.SLEEP, uint(1, START_MS + 5) + text(11, "x")),
    "sleep: wake-up time is text": (m.SLEEP, text(1, "soon") + uint(11, 1)),
    "sleep: completion id over 32 bits": (m.SLEEP, uint(1, START_MS + 5) + uint(11, 2**64 - 1)),
    "set state: key is a number": (m.SET_STATE, uint(1, 1) + data(3, sdk.value(b"v"))),
    "set state: value is a number": (m.SET_STATE, text(1, "a") + uint(3, 1)),
    "set state: key is no UTF-8": (m.SET_STATE, data(1, b"\xff") + data(3, sdk.value(b"v"))),
    "clear state: key is a number": (m.CLEAR_STATE, uint(1, 1)),
    "get state: no completion id": (m.GET_LAZY_STATE, text(1, "a")),
    "get keys: no completion id": (m.GET_LAZY_STATE_KEYS, b""),
    "get promise: no completion id": (m.GET_PROMISE, text(1, "p")),
    "peek promise: no completion id": (m.PEEK_PROMISE, text(1, "p")),
    "complete promise: result is a number": (m.COMPLETE_PROMISE, text(1, "p") + uint(2, 1) + uint(11, 1)),
    "complete promise: failure is cut off": (m.COMPLETE_PROMISE, text(1, "p") + data(3, b"\x0a\x05") + uint(11, 1)),
    "call: service is a number": (m.CALL, uint(1, 1) + uint(10, 1) + uint(11, 2)),
    "call: header is a number": (m.CALL, text(1, "Plain") + text(2, "run") + uint(4, 1) + uint(10, 1) + uint(11, 2)),
    "call: completion id over 32 bits": (m.CALL, text(1, "Plain") + text(2, "run") + uint(10, 1) + uint(11, 2**64 - 1)),
    "attach: target is a number": (m.ATTACH_INVOCATION, uint(4, 1) + uint(11, 1)),
    "signal: result is a number": (m.SEND_SIGNAL, None),
    "awakeable: result is cut off": (m.COMPLETE_AWAKEABLE, None),
    "output: failure is cut off": (m.OUTPUT, data(15, b"\x0a\x05")),
    "output: value is a number": (m.OUTPUT, uint(14, 1)),
    "output: nothing": (m.OUTPUT, b"\x72"),
    "proposal: no completion id": (m.PROPOSE_RUN_COMPLETION, data(14, b"v")),
    "suspension: number for a tree": (m.SUSPENSION, uint(4, 1)),
    "error: code is text": (m.ERROR, text(1, "x")),
    "a notification": (m.RUN_COMPLETION, uint(1, 1)),
    "a start": (m.START, b""),
    "an input": (m.INPUT, b""),
    "unknown command": (0x0499, b""),
    "custom entry": (0xFC00, b""),
}


@pytest.mark.parametrize(("kind", "body"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_command_costs_the_attempt_and_leaves_nothing(kind: int, body: bytes | None):
    world = World()
    target = world.submit("Plain/run")
    if body is None and kind == m.SEND_SIGNAL:
        body = text(1, target) + text(3, "go") + uint(5, 1)
    elif body is None:
        awakeable = "sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ"
        body = text(1, awakeable) + data(3, b"\x0a\x05")
    assert body is not None
    invocation = world.submit("Flow/run", "k")
    before = dump(world)
    world.says(invocation, (kind, body))
    assert invocation in world.retries, "the attempt failed and is retried"
    after = dump(world)
    events = after.pop("journal_event")
    before.pop("journal_event")
    assert after == before
    assert len(events) == 1


def test_what_was_said_before_the_malformed_command_stays():
    world = World()
    invocation = world.submit("Plain/run")
    world.says(invocation, sdk.run(1), sdk.run_result(1, b"1"), (m.SLEEP, b""), sdk.run(2))
    assert [kind for kind, _ in world.journal(invocation)] == [m.INPUT, m.RUN, m.RUN_COMPLETION]
