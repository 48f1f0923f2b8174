"""The installed SDK's own protocol machine reads what we build, and we read what it builds, in every version."""

from __future__ import annotations

import pytest
from restate.vm import (
    DO_PROGRESS_ANY_COMPLETED,
    SUSPENDED,
    AllCompletedUnresolvedFuture,
    Failure,
    FirstCompletedUnresolvedFuture,
    Invocation,
    SingleUnresolvedFuture,
    UnresolvedFuture,
    VMWrapper,
)

from holdfast.core import ids
from holdfast.protocol import messages as m
from holdfast.protocol.messages import VOID, Awaited, Result
from holdfast.protocol.wire import Decoder, data, message

RAW = bytes.fromhex("8414b45e8a2b8f9c5cb0d3c35d2aed54961cf9ccd21fa8d4")
TEXT = "inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG"
OTHER = "inv_1akW45ORM7j12me3GpZiiLvlCyNJ1Z8UQO"

versions = pytest.mark.parametrize("version", list(m.VERSIONS))


class Sdk:
    """The SDK's machine in the middle of an attempt."""

    def __init__(self, version: int, *, journal: bytes = b"", entries: int = 1, partial_state: bool = False) -> None:
        content_type = m.CONTENT_TYPE % version
        self.vm = VMWrapper([("content-type", content_type)])
        status, headers = self.vm.get_response_head()
        assert (status, dict(headers)["content-type"]) == (200, content_type)
        start = m.start_frame(
            invocation_bytes=RAW,
            debug_id=TEXT,
            known_entries=entries,
            state=[] if partial_state else [(b"kept", b"1"), (b"empty", b"")],
            partial_state=partial_state,
            key="k",
            retry_count=1,
            since_last_entry_ms=5,
            random_seed=42,
            version=version,
            idempotency_key="idem",
        )
        self.vm.notify_input(start + m.input_frame([("x-a", "1")], b'"hi"') + journal)
        assert self.vm.is_ready_to_execute()
        self.input: Invocation = self.vm.sys_input()

    def said(self) -> list[tuple[int, bytes]]:
        decoder = Decoder()
        frames = decoder.feed(self.vm.take_output())
        assert decoder.is_empty
        return frames

    def said_one(self) -> tuple[int, bytes]:
        (frame,) = self.said()
        return frame

    def gets(self, handle: int, notification: bytes) -> object:
        self.vm.notify_input(notification)
        assert self.vm.do_progress(SingleUnresolvedFuture(handle)) is DO_PROGRESS_ANY_COMPLETED
        return self.vm.take_notification(handle)


@versions
def test_start_and_input_are_understood(version: int):
    invocation = Sdk(version).input
    assert (invocation.invocation_id, invocation.key) == (TEXT, "k")
    assert (invocation.headers, invocation.input_buffer) == ([("x-a", "1")], b'"hi"')
    if version >= 6:
        assert invocation.random_seed == 42
    if version >= 7:
        assert invocation.idempotency_key == "idem"


def test_a_derived_seed_is_the_same_for_every_attempt_and_differs_between_invocations():
    def seed(raw: bytes) -> int:
        start = m.start_frame(
            invocation_bytes=raw,
            debug_id=TEXT,
            known_entries=1,
            state=[],
            partial_state=False,
            key=None,
            retry_count=0,
            since_last_entry_ms=0,
            random_seed=None,
            version=6,
        )
        vm = VMWrapper([("content-type", m.CONTENT_TYPE % 6)])
        vm.notify_input(start + m.input_frame([], b""))
        assert vm.is_ready_to_execute()
        told = vm.sys_input().random_seed
        assert told == message(Decoder().feed(start)[0][1])[9]
        return told

    raws = [ids.workflow_run_id("Flow", f"w{number}") for number in range(5)] + [bytes(24), b"\xff" * 24]
    seeds = [seed(raw) for raw in raws]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [seed(raw) for raw in raws]


@versions
def test_eager_state_is_answered_by_the_sdk_itself(version: int):
    sdk = Sdk(version)
    for name, expected in (("kept", b"1"), ("empty", b""), ("missing", None)):
        handle = sdk.vm.sys_get_state(name)
        assert sdk.said_one()[0] == m.GET_EAGER_STATE
        sdk.vm.do_progress(SingleUnresolvedFuture(handle))
        assert sdk.vm.take_notification(handle) == expected
    sdk.vm.sys_get_state_keys()
    assert sdk.said_one()[0] == m.GET_EAGER_STATE_KEYS


RESULTS = {
    "void": (VOID, None),
    "value": (Result(value=b"v"), b"v"),
    "empty value": (Result(value=b""), b""),
    "failure": (Result(failure=(418, "teapot", {})), Failure(418, "teapot")),
}


@versions
@pytest.mark.parametrize(("result", "expected"), RESULTS.values(), ids=RESULTS.keys())
def test_lazy_state(version: int, result: Result, expected: object):
    sdk = Sdk(version, partial_state=True)
    handle = sdk.vm.sys_get_state("n")
    kind, body = sdk.said_one()
    assert kind == m.GET_LAZY_STATE
    assert message(body)[1] == b"n"
    completion_id = message(body)[11]
    assert isinstance(completion_id, int)
    assert sdk.gets(handle, m.completion_frame(kind + 0x7C00, completion_id, result)) == expected


@versions
def test_lazy_state_keys(version: int):
    sdk = Sdk(version, partial_state=True)
    handle = sdk.vm.sys_get_state_keys()
    kind, body = sdk.said_one()
    assert kind == m.GET_LAZY_STATE_KEYS
    completion_id = message(body)[11]
    assert isinstance(completion_id, int)
    assert sdk.gets(handle, m.state_keys_frame(completion_id, [b"a", b"b"])) == ["a", "b"]


@pytest.mark.parametrize("version", [6, 7])
def test_failure_metadata_arrives_since_version_6(version: int):
    sdk = Sdk(version)
    handle = sdk.vm.sys_get_promise("p")
    failure = sdk.gets(
        handle, m.completion_frame(m.GET_PROMISE + 0x7C00, 1, Result(failure=(409, "no", {"why": "so"})))
    )
    assert isinstance(failure, Failure)
    assert failure.metadata == {"why": "so"}


@versions
def test_call_and_its_two_notifications(version: int):
    sdk = Sdk(version)
    call = sdk.vm.sys_call("Counter", "add", b"p", key="c", idempotency_key="i", headers=[("h", "1")])
    request = m.call_request(*sdk.said_one())
    assert request == m.CallRequest("Counter", "add", b"p", (("h", "1"),), "c", "i", 1, 2, 0, None)
    told = m.invocation_id_frame(request.invocation_id_notification, OTHER)
    assert sdk.gets(call.invocation_id_handle, told) == OTHER
    done = m.completion_frame(m.CALL_COMPLETION, request.completion_id, Result(value=b"r"))
    assert sdk.gets(call.result_handle, done) == b"r"


@versions
def test_send(version: int):
    sdk = Sdk(version)
    sdk.vm.sys_send("Plain", "run", b"p", headers=[("h", "1")])
    sdk.vm.sys_send("Counter", "add", b"", key="c", delay=1_000, idempotency_key="i")
    now, later = [m.call_request(*frame) for frame in sdk.said()]
    assert now == m.CallRequest("Plain", "run", b"p", (("h", "1"),), "", None, 1, 0, 0, None)
    assert (later.key, later.idempotency_key, later.invoke_time_ms > 1_700_000_000_000) == ("c", "i", True)


@versions
def test_run_proposal_and_what_answers_it(version: int):
    sdk = Sdk(version)
    run = sdk.vm.sys_run("step")
    sdk.vm.propose_run_completion_success(run.handle, b"0")
    (kind, _), (proposal, body) = sdk.said()
    assert (kind, proposal) == (m.RUN, m.PROPOSE_RUN_COMPLETION)
    completion_id, result = m.run_proposal(body)
    assert result == Result(value=b"0")
    answer = m.run_ack_frame(completion_id)
    if version < 7:
        answer = m.completion_frame(m.RUN_COMPLETION, completion_id, result)
    assert sdk.gets(run.handle, answer) == b"0"


@versions
def test_run_proposal_with_failure(version: int):
    sdk = Sdk(version)
    run = sdk.vm.sys_run("step")
    metadata = {"why": "so"} if version >= 6 else None
    sdk.vm.propose_run_completion_failure(run.handle, Failure(400, "no", metadata=metadata))
    _, (_, body) = sdk.said()
    assert m.run_proposal(body) == (1, Result(failure=(400, "no", metadata or {})))


@versions
def test_a_stored_journal_is_replayed(version: int):
    first = Sdk(version)
    first.vm.sys_run("step")
    run = b"".join([m.frame(*frame) for frame in first.said()])
    journal = run + m.completion_frame(m.RUN_COMPLETION, 1, Result(value=b"0"))
    second = Sdk(version, journal=journal, entries=3)
    replayed = second.vm.sys_run("step")
    assert replayed.replayed
    assert second.vm.do_progress(SingleUnresolvedFuture(replayed.handle)) is DO_PROGRESS_ANY_COMPLETED
    assert second.vm.take_notification(replayed.handle) == b"0"
    assert second.said() == []


@versions
def test_signals(version: int):
    sdk = Sdk(version)
    awakeable_id, awakeable = sdk.vm.sys_awakeable()
    assert ids.awakeable_parts(awakeable_id) == (RAW, m.FIRST_AWAKEABLE_SIGNAL)
    assert ids.awakeable_text(RAW, 17) == awakeable_id
    named = sdk.vm.sys_signal("go")
    assert sdk.said() == []
    assert sdk.gets(awakeable, m.signal_frame(17, Result(value=b"a"))) == b"a"
    assert sdk.gets(named, m.signal_frame("go", Result(value=b"b"))) == b"b"


@versions
def test_cancel_is_signal_1(version: int):
    sdk = Sdk(version)
    sdk.vm.sys_cancel(OTHER)
    kind, body = sdk.said_one()
    assert kind == m.SEND_SIGNAL
    assert message(body)[1] == OTHER.encode()
    assert message(body)[2] == m.CANCEL_SIGNAL


@versions
def test_completing_awakeables_and_promises(version: int):
    sdk = Sdk(version)
    sdk.vm.sys_resolve_awakeable("sign_1x", b"v")
    sdk.vm.sys_reject_awakeable("sign_1x", Failure(500, "no"))
    sdk.vm.sys_complete_promise_success("p", b"")
    sdk.vm.sys_complete_promise_failure("p", Failure(500, "no"))
    sdk.vm.sys_resolve_signal(OTHER, "go", b"v")
    *completions, (kind, signal) = sdk.said()
    assert [(entry, m.decode_result(message(body), value=2, failure=3)) for entry, body in completions] == [
        (m.COMPLETE_AWAKEABLE, Result(value=b"v")),
        (m.COMPLETE_AWAKEABLE, Result(failure=(500, "no", {}))),
        (m.COMPLETE_PROMISE, Result(value=b"")),
        (m.COMPLETE_PROMISE, Result(failure=(500, "no", {}))),
    ]
    assert (kind, m.decode_result(message(signal))) == (m.SEND_SIGNAL, Result(value=b"v"))


@versions
def test_output(version: int):
    sdk = Sdk(version)
    sdk.vm.sys_write_output_success(b"")
    sdk.vm.sys_end()
    (kind, body), end = sdk.said()
    assert (kind, end) == (m.OUTPUT, (m.END, b""))
    assert m.decode_result(message(body), value=14, failure=15) == Result(value=b"")


@versions
def test_suspension_on_one_of_two(version: int):
    sdk = Sdk(version)
    sleep = sdk.vm.sys_sleep(1_000)
    _, awakeable = sdk.vm.sys_awakeable()
    assert sdk.said_one()[0] == m.SLEEP
    sdk.vm.notify_input_closed()
    children: list[UnresolvedFuture] = [SingleUnresolvedFuture(sleep), SingleUnresolvedFuture(awakeable)]
    assert sdk.vm.do_progress(FirstCompletedUnresolvedFuture(children)) is SUSPENDED
    kind, body = sdk.said()[-1]
    assert kind == m.SUSPENSION
    assert set(m.suspension(body).leaves()) == {(1,), m.CANCEL_SIGNAL, 17}


def test_suspension_on_all_keeps_its_tree_in_version_7():
    sdk = Sdk(7)
    sleeps = [sdk.vm.sys_sleep(1_000), sdk.vm.sys_sleep(2_000)]
    sdk.vm.notify_input_closed()
    children: list[UnresolvedFuture] = [SingleUnresolvedFuture(sleep) for sleep in sleeps]
    assert sdk.vm.do_progress(AllCompletedUnresolvedFuture(children)) is SUSPENDED
    tree = m.suspension(sdk.said()[-1][1])
    assert set(tree.leaves()) == {(1,), (2,), m.CANCEL_SIGNAL}
    assert _finds(tree, 2)


def _finds(tree: Awaited, combinator: int) -> bool:
    return tree.combinator == combinator or any(_finds(child, combinator) for child in tree.nested)


@versions
def test_error_frame(version: int):
    sdk = Sdk(version)
    sdk.vm.sys_run("step")
    sdk.vm.notify_error("boom", "at line 1")
    kind, body = sdk.said()[-1]
    error = m.attempt_error(body)
    assert kind == m.ERROR
    assert (error.code, error.message, error.stacktrace, error.behavior) == (500, "boom", "at line 1", 0)


@versions
def test_journal_mismatch_names_the_command(version: int):
    journal = m.frame(m.RUN, b"\x58\x01" + data(12, b"other"))
    sdk = Sdk(version, journal=journal, entries=2)
    with pytest.raises(Exception, match="570"):
        sdk.vm.sys_run("step")
    error = m.attempt_error(sdk.said()[-1][1])
    assert (error.code, error.command_index, error.command_type) == (570, 1, m.RUN)
