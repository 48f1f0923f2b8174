"""What is made of an Error with code 570 or 571: texts for people, out of whatever an SDK sends."""

from __future__ import annotations

import pytest

from holdfast.core.mismatch import NAME_CHARS_MAX, describe, explain, is_mismatch, source_line
from holdfast.protocol import messages as m
from holdfast.protocol.messages import AttemptError
from holdfast.protocol.wire import frame, text, uint

JOURNAL = b"".join(
    (
        m.input_frame([], b'"in"'),
        frame(m.RUN, uint(11, 1) + text(12, "charge")),
        m.completion_frame(m.RUN_COMPLETION, 1, m.Result(value=b"1")),
        frame(m.SLEEP, uint(1, 5) + uint(11, 2)),
    )
)

PYTHON_TRACE = """Traceback (most recent call last):
  File "/app/.venv/lib/python3.12/site-packages/restate/server_context.py", line 555, in enter
    out_buffer = await invoke_handler(
  File "/app/orders.py", line 31, in checkout
    await charge(ctx)
  File "/app/payments.py", line 7, in charge
    return await ctx.run_typed("bill", bill)
  File "/app/.venv/lib/python3.12/site-packages/restate/vm.py", line 443, in sys_run
    run: PyRun = self.vm.sys_run(name)
  File "/usr/lib/python3.12/asyncio/tasks.py", line 5, in wait
"""
JS_TRACE = """Error: (570) Found a mismatch
    at ContextImpl.run (/app/node_modules/@restatedev/restate-sdk/dist/context_impl.js:10:5)
    at checkout (file:///app/src/orders.ts:31:17)
    at node:internal/process/task_queues:105:5
"""
SOURCE_LINES = {
    "python, innermost frame of the user": (PYTHON_TRACE, "/app/payments.py:7, in charge"),
    "an application that is installed": (
        '  File "/venv/lib/python3.12/site-packages/shop/orders.py", line 3, in pay\n',
        "/venv/lib/python3.12/site-packages/shop/orders.py:3, in pay",
    ),
    "windows": ('  File "C:\\\\app\\\\orders.py", line 3, in pay\n', "C:\\\\app\\\\orders.py:3, in pay"),
    "javascript": (JS_TRACE, "/app/src/orders.ts:31, in checkout"),
    "javascript without a function": ("    at /app/orders.js:3:9\n", "/app/orders.js:3"),
    "only libraries": (JS_TRACE.replace("/app/src", "/app/node_modules/src"), None),
    "nothing": ("", None),
    "another language": ("dev.restate.sdk.Failure\n\tat com.acme.Orders.pay(Orders.java:31)\n", None),
}


@pytest.mark.parametrize(("trace", "expected"), SOURCE_LINES.values(), ids=SOURCE_LINES)
def test_source_line(trace: str, expected: str | None) -> None:
    assert source_line(trace) == expected


def first_line(error: AttemptError, journal: bytes = JOURNAL) -> str:
    return explain(error, journal, "inv_1x", "Orders/place", is_workflow_run=False).message.splitlines()[0]


FIRST_LINES = {
    "same type": (
        AttemptError(570, "…", command_index=1, command_name="bill", command_type=m.RUN),
        (
            'journal mismatch at command 1 (journal entry 1): recorded Run "charge", but the code now does Run "bill" '
            "[RT0016]"
        ),
    ),
    "notifications are no commands": (
        AttemptError(570, "…", PYTHON_TRACE, command_index=2, command_name="", command_type=m.SET_STATE),
        (
            "journal mismatch at command 2 (journal entry 3): recorded Sleep, but the code now does SetState "
            "(/app/payments.py:7, in charge) [RT0016]"
        ),
    ),
    "behind the end of the journal": (
        AttemptError(570, "…", command_index=3, command_type=m.OUTPUT),
        (
            "journal mismatch at command 3 (journal entry 4): recorded nothing more, but the code now returns from "
            "Orders/place [RT0016]"
        ),
    ),
    "no command named": (
        AttemptError(570, "odd"),
        "journal mismatch at command 2 (journal entry 3): recorded Sleep, but the code now does something else [RT0016]",
    ),
    "unknown type": (
        AttemptError(570, "…", command_index=1, command_type=0x4FF),
        'journal mismatch at command 1 (journal entry 1): recorded Run "charge", but the code now does 0x4ff [RT0016]',
    ),
    "await": (
        AttemptError(570, "x\nNotifications awaited on this await point:\n - Awakeable sign_1a\n - Cancellation\n"),
        (
            "journal mismatch: the code now awaits Awakeable sign_1a, for which nothing is recorded; the journal goes on to "
            "Sleep, command 2 (journal entry 3) [RT0016]"
        ),
    ),
    "await of the cancellation alone": (
        AttemptError(570, "x\nNotifications awaited on this await point:\n - Cancellation"),
        (
            "journal mismatch: the code now awaits Cancellation, for which nothing is recorded; the journal goes on to "
            "Sleep, command 2 (journal entry 3) [RT0016]"
        ),
    ),
    "protocol violation": (
        AttemptError(571, "unexpected state", PYTHON_TRACE),
        "protocol violation (/app/payments.py:7, in charge): unexpected state [RT0012]",
    ),
}


@pytest.mark.parametrize(("error", "expected"), FIRST_LINES.values(), ids=FIRST_LINES)
def test_first_line(error: AttemptError, expected: str) -> None:
    assert is_mismatch(error)
    assert first_line(error) == expected


def test_other_errors_are_left_alone() -> None:
    assert not any(is_mismatch(AttemptError(code, "x")) for code in (500, 569, 572, 573, 409))


def test_an_empty_journal_is_no_obstacle() -> None:
    """It was purged meanwhile, for instance."""
    assert "recorded nothing more" in first_line(AttemptError(570, "…", command_index=1, command_type=m.RUN), b"")


def test_differences_are_kept() -> None:
    sent = (
        "Found\n- The mismatch happened while executing 'call' (index '2')\n- Difference:\n   a: 1 != 2\n   b: 3 != 4\n"
    )
    error = AttemptError(570, sent, command_index=1, command_type=m.CALL)
    lines = explain(error, JOURNAL, "inv_1x", "Orders/place", is_workflow_run=True).message.splitlines()
    assert lines[1:3] == ["  a: 1 != 2", "  b: 3 != 4"]


COMMANDS = {
    "call of a service": (m.CALL, text(1, "S") + text(2, "h"), "Call S/h"),
    "call of a key, named": (m.CALL, text(1, "O") + text(2, "h") + text(5, "k") + text(12, "why"), 'Call "why" O/k/h'),
    "send to a key": (m.ONE_WAY_CALL, text(1, "O") + text(2, "h") + text(6, "k"), "OneWayCall O/k/h"),
    "state": (m.CLEAR_STATE, text(1, "status"), "ClearState status"),
    "promise": (m.PEEK_PROMISE, text(1, "paid"), "PeekPromise paid"),
    "long names are cut": (m.RUN, text(12, "x" * 500), f'Run "{"x" * NAME_CHARS_MAX}…"'),
    "garbled": (m.CALL, b"\xff\xff", "Call"),
}


@pytest.mark.parametrize(("message_type", "body", "expected"), COMMANDS.values(), ids=COMMANDS)
def test_description_of_a_command(message_type: int, body: bytes, expected: str) -> None:
    assert describe(message_type, body) == expected
