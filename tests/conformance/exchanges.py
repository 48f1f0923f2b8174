"""Every way in which an attempt can fail on the wire, and what an engine makes of it.

`Input; failed 1` in an outcome is what an attempt was started with: its journal (`=Run` is a completion), and how many
attempts failed since the journal last grew.
"""

from __future__ import annotations

import time
from typing import Any

from holdfast.core import ids
from holdfast.protocol import messages as m
from holdfast.protocol.wire import data, frame, text, uint
from tests.conformance.harness import failed, ok
from tests.conformance.raw import (
    END,
    Conversation,
    Outcome,
    error,
    exchange,
    output,
    proposal,
    run,
    sleep,
    suspension,
)

ONCE = ["Input; failed 0"]
THREE_TIMES = ["Input; failed 0", "Input; failed 1", "Input; failed 2"]


def outcome(answer: Any, attempts: list[str] = ONCE) -> Outcome:
    return {"answer": answer, "attempts": attempts}


def refused(code: int = 500) -> Outcome:
    """Every attempt fails, in the engine's own words, until the policy of three attempts kills it."""
    return outcome({"status": code, "code": code}, THREE_TIMES)


def second(journal: str, *, failed_before: int = 1) -> Outcome:
    """It works at the second attempt, which starts with this journal."""
    return outcome(ok("ok"), [*ONCE, f"{journal}; failed {failed_before}"])


async def _done(c: Conversation) -> None:
    await c.say(output("ok"), END)


# --- errors that the SDK reports ------------------------------------------------------------------------------------------


@exchange(outcome(ok("ok"), THREE_TIMES))
async def error_is_retried(c: Conversation) -> None:
    await (c.say(error(500, "oops")) if c.attempt < 3 else _done(c))


@exchange(outcome(failed(500, "oops"), THREE_TIMES))
async def error_at_last(c: Conversation) -> None:
    """Killed by the policy, with the code and the text of the last error."""
    await c.say(error(500, "oops"))


@exchange(outcome("paused", THREE_TIMES[:2]), retryPolicyOnMaxAttempts="PAUSE", retryPolicyMaxAttempts=2)
async def error_pauses_at_last(c: Conversation) -> None:
    await c.say(error(500, "oops"))


@exchange(outcome(ok("ok"), [f"Input; failed {count}" for count in range(5)]), retryPolicyMaxAttempts=2)
async def error_with_a_delay_uses_up_no_attempt(c: Conversation) -> None:
    await (c.say(error(500, "later", uint(8, 10))) if c.attempt < 5 else _done(c))


@exchange(outcome(ok("ok"), [*ONCE, "Input; failed 1"]))
async def error_with_a_long_delay(c: Conversation) -> None:
    """The delay is that of the error, not the policy's 20 ms."""
    if c.attempt == 1:
        c.memory["at"] = time.monotonic()
        await c.say(error(500, "later", uint(8, 300)))
    else:
        await (_done(c) if time.monotonic() - c.memory["at"] >= 0.3 else c.say(error(500, "too early", uint(9, 2))))


@exchange(outcome("paused"))
async def error_that_asks_for_a_pause(c: Conversation) -> None:
    """Behaviour 1, whatever the policy says. Servers heed it in all versions."""
    await c.say(error(500, "pause me", uint(9, 1)))


@exchange(outcome("paused"))
async def pause_beats_delay(c: Conversation) -> None:
    await c.say(error(500, "pause me", uint(8, 1), uint(9, 1)))


@exchange(outcome(failed(418, "fail me")))
async def error_that_asks_for_the_end(c: Conversation) -> None:
    """Behaviour 2."""
    await c.say(error(418, "fail me", uint(9, 2)))


@exchange(outcome(failed(500, "x"), THREE_TIMES))
async def error_with_unknown_behaviour(c: Conversation) -> None:
    await c.say(error(500, "x", uint(9, 7)))


@exchange(outcome(failed(570, "mismatch"), THREE_TIMES))
async def journal_mismatch(c: Conversation) -> None:
    """With `pause_on_mismatch=False`; tests/runtime/test_changed_code.py has what holdfast does by default."""
    await c.say(error(570, "mismatch", uint(4, 1), text(5, "step"), uint(6, m.RUN)))


@exchange(outcome(failed(571, "violation"), THREE_TIMES))
async def protocol_violation(c: Conversation) -> None:
    await c.say(error(571, "violation"))


@exchange(outcome(failed(0, "zero", status=500), THREE_TIMES))
async def error_code_zero(c: Conversation) -> None:
    await c.say(error(0, "zero"))


@exchange(outcome(failed(500, "huge"), THREE_TIMES))
async def error_code_over_16_bits(c: Conversation) -> None:
    await c.say(error(70_000, "huge"))


@exchange(outcome(failed(500, "huge")))
async def failure_code_over_16_bits(c: Conversation) -> None:
    await c.say(frame(m.OUTPUT, data(15, m.encode_failure(70_000, "huge"))), END)


@exchange(outcome(failed(65_535, "max", status=500)))
async def largest_failure_code(c: Conversation) -> None:
    await c.say(frame(m.OUTPUT, data(15, m.encode_failure(65_535, "max"))), END)


@exchange(outcome(ok("ok"), ["Input; failed 0", "Input Run =Run; failed 1", "Input Run =Run; failed 2"]))
async def failures_are_counted_from_the_last_entry(c: Conversation) -> None:
    if c.attempt == 1:
        await c.say(run(1), proposal(1, b"1"))
        await c.next_frame()
    await (c.say(error(500, "x")) if c.attempt < 3 else _done(c))


@exchange(second("Input Run"))
async def what_came_before_an_error_is_kept(c: Conversation) -> None:
    await (c.say(run(1), error(500, "x"), run(2), output("x"), END) if c.attempt == 1 else _done(c))


# --- what is written down about failures ------------------------------------------------------------------------------------


def told(answer: Any, attempts: list[str], events: list[list[Any]]) -> Outcome:
    """With the events of `sys_journal_events`; see `test_protocol._event`."""
    return {**outcome(answer, attempts), "events": events}


def plain(message: str, code: int = 500) -> list[Any]:
    return [code, message, None, None, None, None]


@exchange(told(failed(500, "same"), THREE_TIMES, [plain("same")]))
async def same_failure_is_recorded_once(c: Conversation) -> None:
    await c.say(error(500, "same"))


@exchange(
    told(ok("ok"), [*THREE_TIMES, "Input; failed 3"], [plain("a"), plain("b"), plain("a")]), retryPolicyMaxAttempts=5
)
async def other_failures_are_recorded(c: Conversation) -> None:
    await (c.say(error(500, "aba"[c.attempt - 1])) if c.attempt < 4 else _done(c))


@exchange(told(ok("ok"), THREE_TIMES, [plain("x", 501), plain("x", 502)]))
async def another_code_is_another_failure(c: Conversation) -> None:
    await (c.say(error(500 + c.attempt, "x")) if c.attempt < 3 else _done(c))


@exchange(told(ok("ok"), THREE_TIMES, [[500, "x", "trace 1", None, None, None]]))
async def another_stack_trace_is_no_other_failure(c: Conversation) -> None:
    await (c.say(error(500, "x", text(3, f"trace {c.attempt}"))) if c.attempt < 3 else _done(c))


@exchange(
    told(
        ok("ok"),
        ["Input; failed 0", "Input Run =Run; failed 1", "Input Run =Run Run =Run; failed 1"],
        [[500, "x", "trace", 1, "step", "Run"], [500, "x", "trace", 1, "step", "Run"]],
    )
)
async def same_failure_after_progress_is_recorded_again(c: Conversation) -> None:
    if c.attempt < 3:
        await c.say(run(c.attempt), proposal(c.attempt, b"1"))
        await c.next_frame()
        await c.say(error(500, "x", text(3, "trace"), uint(4, 1), text(5, "step"), uint(6, m.RUN)))
    else:
        await _done(c)


@exchange(
    told("paused", THREE_TIMES[:2], [plain("x"), ["Paused", "x"]]),
    retryPolicyOnMaxAttempts="PAUSE",
    retryPolicyMaxAttempts=2,
)
async def pause_is_recorded_with_its_reason(c: Conversation) -> None:
    await c.say(error(500, "x"))


@exchange(outcome(ok([True, True]), [*ONCE, "Input; failed 1"]))
async def time_since_the_last_entry(c: Conversation) -> None:
    """In Start, in milliseconds: what the SDK bounds the retries of a step with."""
    if c.attempt == 1:
        await c.say(error(500, "later", uint(8, 200)))
    else:
        await c.say(output([c.start[8] >= 200, c.start[8] < 10_000]), END)


# --- streams that end too early ---------------------------------------------------------------------------------------------


@exchange(refused())
async def stream_that_ends_at_once(c: Conversation) -> None:
    await c.over()


@exchange(refused())
async def stream_that_ends_inside_a_header(c: Conversation) -> None:
    await c.say(b"\0\0")
    await c.over()


@exchange(refused())
async def stream_that_ends_inside_a_body(c: Conversation) -> None:
    await c.say(output("abc")[:-3])
    await c.over()


@exchange(second("Input Run =Run"))
async def stream_that_ends_after_a_step(c: Conversation) -> None:
    if c.attempt == 1:
        await c.say(run(1), proposal(1, b"1"))
        await c.next_frame()
        await c.over()
    else:
        await _done(c)


@exchange(outcome(ok("half"), [*ONCE, "Input Output; failed 1"]))
async def stream_that_ends_between_output_and_end(c: Conversation) -> None:
    """The output is in the journal already."""
    if c.attempt == 1:
        await c.say(output("half"))
        await c.over()
    else:
        await c.say(END)


# --- frames that do not belong there ----------------------------------------------------------------------------------------


@exchange(refused())
async def no_frames(c: Conversation) -> None:
    await c.say(b"\xff" * 64)
    await c.over()


@exchange(refused(), breaks_server="the partition stops working")
async def unknown_command(c: Conversation) -> None:
    await c.say(frame(0x04FF, b""), output("x"), END)


@exchange(refused(), breaks_server="the partition stops working")
async def custom_entry(c: Conversation) -> None:
    await c.say(frame(0xFC01, b""), output("x"), END)


@exchange(refused())
async def unknown_control_message(c: Conversation) -> None:
    await c.say(frame(0x0033, b""), output("x"), END)


@exchange(refused())
async def start_from_the_wrong_side(c: Conversation) -> None:
    await c.say(frame(m.START, b""), output("x"), END)


@exchange(refused())
async def completion_from_the_wrong_side(c: Conversation) -> None:
    await c.say(m.completion_frame(m.RUN_COMPLETION, 1, m.Result(value=b"1")), output("x"), END)


@exchange(refused())
async def acknowledgement_from_the_wrong_side(c: Conversation) -> None:
    await c.say(frame(0x0004, uint(1, 1)), output("x"), END)


@exchange(refused())
async def garbled_body(c: Conversation) -> None:
    await c.say(frame(m.SLEEP, b"\xff\xff\xff"), output("x"), END)


@exchange(refused())
async def field_of_another_type(c: Conversation) -> None:
    await c.say(frame(m.SLEEP, text(1, "soon") + uint(11, 1)), output("x"), END)


@exchange(refused(), breaks_server="the process ends")
async def end_without_output(c: Conversation) -> None:
    await c.say(END)


@exchange(refused())
async def awakeable_without_result(c: Conversation) -> None:
    awakeable = ids.awakeable_text(c.start[1], m.FIRST_AWAKEABLE_SIGNAL)
    await c.say(frame(m.COMPLETE_AWAKEABLE, text(1, awakeable)), output("x"), END)


@exchange(refused())
async def signal_without_result(c: Conversation) -> None:
    await c.say(frame(m.SEND_SIGNAL, text(1, c.start[2].decode()) + uint(2, 20)), output("x"), END)


@exchange(refused())
async def awakeable_that_is_none(c: Conversation) -> None:
    await c.say(frame(m.COMPLETE_AWAKEABLE, text(1, "sign_1bogus") + data(2, data(1, b"1"))), output("x"), END)


@exchange(outcome(ok("ok")))
async def awakeable_of_an_old_protocol(c: Conversation) -> None:
    awakeable = "prom_1NMyOAvDK2CcBjUH4Rmb7eGBp0DNNDnmsAAAAAQ"
    await c.say(frame(m.COMPLETE_AWAKEABLE, text(1, awakeable) + data(2, data(1, b"1"))), output("ok"), END)


@exchange(outcome(ok("second")))
async def last_of_two_outputs_counts(c: Conversation) -> None:
    await c.say(output("first"), output("second"), END)


@exchange(outcome(ok("ok")))
async def what_comes_after_the_end_is_ignored(c: Conversation) -> None:
    await c.say(output("ok"), END, output("too late"))


@exchange(outcome(ok("ok")))
async def frames_byte_by_byte(c: Conversation) -> None:
    for byte in run(1) + proposal(1, b"1") + output("ok") + END:
        await c.say(bytes((byte,)))


@exchange(second("Input Run =Run =Run"))
async def run_proposed_twice(c: Conversation) -> None:
    if c.attempt == 1:
        await c.say(run(1), proposal(1, b"1"), proposal(1, b"2"))
        await c.next_frame()
        await c.next_frame()
        await c.say(error(500, "again"))
    else:
        await _done(c)


@exchange(second("Input =Run"))
async def result_of_a_run_that_was_never_begun(c: Conversation) -> None:
    if c.attempt == 1:
        await c.say(proposal(7, b"1"))
        await c.next_frame()
        await c.say(error(500, "again"))
    else:
        await _done(c)


@exchange(outcome(ok("5801620173fa01096e6577206669656c64"), [*ONCE, "Input Run =Run; failed 1"]))
async def unknown_fields_come_back(c: Conversation) -> None:
    """What an SDK writes into a command it finds there again."""
    if c.attempt == 1:
        await c.say(frame(m.RUN, uint(11, 1) + text(12, "s") + text(31, "new field")), proposal(1, b"1"))
        await c.next_frame()
        await c.say(error(500, "again"))
    else:
        await c.say(output(c.known[1][1].hex()), END)


@exchange(second("Input SendSignal =Signal"))
async def signal_with_a_reserved_index(c: Conversation) -> None:
    if c.attempt == 1:
        await c.say(frame(m.SEND_SIGNAL, text(1, c.start[2].decode()) + uint(2, 5) + data(4, b"")))
        await c.next_frame()
        await c.say(error(500, "again"))
    else:
        await _done(c)


# --- suspensions ----------------------------------------------------------------------------------------------------------


def _soon() -> int:
    return time.time_ns() // 1_000_000 + 60


@exchange(second("Input Sleep =Sleep", failed_before=0))
async def suspension_until_a_timer(c: Conversation) -> None:
    await (c.say(sleep(1, _soon()), suspension(c.version, 1), run(2), output("x")) if c.attempt == 1 else _done(c))


@exchange(second("Input Sleep =Sleep", failed_before=0))
async def suspension_on_what_is_there_already(c: Conversation) -> None:
    """The completion was on its way when the SDK gave up waiting: it must go on at once."""
    await (c.say(sleep(1, 1), suspension(c.version, 1, 99)) if c.attempt == 1 else _done(c))


@exchange(outcome("suspended"))
async def suspension_on_what_never_comes(c: Conversation) -> None:
    await c.say(suspension(c.version, 99, signals=(17,)))


@exchange(outcome(ok("ok"), THREE_TIMES))
async def suspension_on_nothing(c: Conversation) -> None:
    await (c.say(frame(m.SUSPENSION, b"")) if c.attempt < 3 else _done(c))


# --- responses that are none ------------------------------------------------------------------------------------------------


@exchange(refused(), over_http=True)
async def status_404(c: Conversation) -> None:
    await c.respond(404)
    await c.over()


@exchange(refused(), over_http=True)
async def status_500_with_text(c: Conversation) -> None:
    await c.respond(500, content_type="text/plain")
    await c.say(b"a page for people, longer than any header")
    await c.over()


@exchange(outcome({"status": 415, "code": 415}, ["Input"] * 3), over_http=True, has_counts=False)
async def status_415(c: Conversation) -> None:
    """The SDK refuses the version. A server does not count these in Start, though it counts them as attempts."""
    await c.respond(415)
    await c.over()


@exchange(refused(), over_http=True)
async def status_413(c: Conversation) -> None:
    await c.respond(413)
    await c.over()


@exchange(refused(), over_http=True)
async def status_502(c: Conversation) -> None:
    await c.respond(502)
    await c.over()


@exchange(refused(), over_http=True)
async def status_429(c: Conversation) -> None:
    await c.respond(429)
    await c.over()


@exchange(outcome(ok("ok"), [f"Input; failed {count}" for count in range(4)]), over_http=True, retryPolicyMaxAttempts=2)
async def status_503_with_a_delay_uses_up_no_attempt(c: Conversation) -> None:
    if c.attempt < 4:
        await c.respond(503, retry_after="0")
        await c.over()
    else:
        await _done(c)


@exchange(refused(), over_http=True)
async def status_302(c: Conversation) -> None:
    await c.respond(302, location="http://127.0.0.1:1/")
    await c.over()


@exchange(refused(), over_http=True)
async def another_content_type(c: Conversation) -> None:
    await c.respond(content_type="text/plain")
    await c.say(output("x"), END)


@exchange(refused(), over_http=True)
async def another_version(c: Conversation) -> None:
    await c.respond(content_type="application/vnd.restate.invocation.v4")
    await c.say(output("x"), END)
