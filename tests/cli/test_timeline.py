"""An invocation as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.cli.timeline import ago, description, timeline
from holdfast.runtime.introspect import InvocationInfo, JournalEntryInfo

CREATED_MS = 1_795_256_166_391
NOW_MS = CREATED_MS + 90_000

INFO = InvocationInfo(
    id="inv_1abc",
    target="Greeter/greet",
    service="Greeter",
    handler="greet",
    key=None,
    service_type="service",
    status="running",
    idempotency_key=None,
    invoked_by="ingress",
    invoked_by_id=None,
    invoked_by_target=None,
    created_at_ms=CREATED_MS,
    modified_at_ms=CREATED_MS,
    scheduled_start_at_ms=None,
    completed_at_ms=None,
    journal_size=1,
    journal_commands_size=1,
    retry_count=1,
    next_retry_at_ms=None,
    last_failure=None,
    last_failure_code=None,
    completion_result=None,
    completion_failure=None,
    pinned_deployment_id=None,
    pinned_protocol_version=None,
)


def entry(
    index: int, kind: str, after_ms: int, name: str = "", completion_id: int | None = None, **detail: Any
) -> JournalEntryInfo:
    return JournalEntryInfo(index, kind, name, CREATED_MS + after_ms, completion_id, detail)


DURATIONS = {
    0: "0 ms",
    999: "999 ms",
    1_000: "1.0 s",
    59_900: "59.9 s",
    60_000: "1.0 min",
    5_400_000: "1.5 h",
    86_400_000: "1.0 d",
    40 * 86_400_000: "40.0 d",
}


@pytest.mark.parametrize(("duration_ms", "text"), DURATIONS.items())
def test_durations_have_one_unit(duration_ms: int, text: str):
    assert ago(duration_ms) == text


STANDINGS: dict[str, tuple[dict[str, Any], str]] = {
    "running": ({}, "running"),
    "succeeded": (
        {"status": "completed", "completed_at_ms": CREATED_MS + 1_234, "completion_result": "success"},
        "completed: success, after 1.2 s",
    ),
    "failed": (
        {
            "status": "completed",
            "completed_at_ms": CREATED_MS + 3,
            "completion_result": "failure",
            "completion_failure": "[409] killed",
        },
        "completed: [409] killed, after 3 ms",
    ),
    "scheduled": ({"status": "scheduled", "scheduled_start_at_ms": NOW_MS + 7_200_000}, "scheduled: starts in 2.0 h"),
    "scheduled and due": ({"status": "scheduled", "scheduled_start_at_ms": NOW_MS}, "scheduled: starts now"),
    "backing off": (
        {"status": "backing-off", "retry_count": 3, "next_retry_at_ms": NOW_MS + 800},
        "backing-off: attempt 3 failed, the next starts in 800 ms",
    ),
    "suspended on a command": (
        {"status": "suspended", "waiting_for": ["completion 1", "signal 'go'"]},
        "suspended: waits for Sleep \"tea\" (completion 1), signal 'go'",
    ),
    "suspended on something unknown": (
        {"status": "suspended", "waiting_for": ["awakeable 0", "completion 9"]},
        "suspended: waits for awakeable 0, completion 9",
    ),
    "pending": ({"status": "pending", "key": "k"}, "pending: another invocation holds key k"),
    "paused": ({"status": "paused"}, "paused"),
}


@pytest.mark.parametrize(("changes", "text"), STANDINGS.values(), ids=STANDINGS)
def test_how_it_stands(changes: dict[str, Any], text: str):
    entries = [entry(0, "Command: Input", 0), entry(1, "Command: Sleep", 1, "tea", completion_id=1)]
    assert description(replace(INFO, **changes), entries, NOW_MS).splitlines()[1] == text


def test_what_else_is_worth_a_line():
    info = replace(
        INFO,
        idempotency_key="k1",
        invoked_by="service",
        invoked_by_id="inv_1def",
        invoked_by_target="Shop/order",
        last_failure="ValueError('x')\nTraceback …",
    )
    assert description(info, [], NOW_MS).splitlines() == [
        "inv_1abc  Greeter/greet",
        "running",
        "created 2026-11-21 10:16:06 UTC, 1.5 min ago, by Shop/order inv_1def",
        "idempotency key k1",
        "last failure: ValueError('x')",
    ]


def test_results_hang_under_commands_and_failures_stand_where_they_happened():
    entries = [
        entry(0, "Command: Input", 0, value='"Ada"'),
        entry(1, "Command: Run", 12, "step", completion_id=1),
        entry(2, "Notification: Run", 12, completion_id=1, value="3"),
        entry(3, "Command: Sleep", 1_500, completion_id=2, wake_up_time_ms=CREATED_MS + 3_601_500),
        entry(4, "Command: Call", 1_500, target="Shop/[x]/order", parameter="1", nothing=None),
        entry(5, "Command: Output", 90_000, failure="[418] no"),
    ]
    events: list[dict[str, Any]] = [
        {"at_ms": CREATED_MS + 900, "ty": "TransientError", "error_code": 500, "error_message": "Oops('a')\nmore"},
        {"at_ms": CREATED_MS + 95_000, "ty": "Paused", "last_failure": None},
    ]
    assert timeline(INFO, entries, events).splitlines() == [
        '   +0 ms  0  Input  value="Ada"',
        '  +12 ms  1  Run "step"',
        "  +12 ms  2  └ Run  value=3",
        " +900 ms  !  attempt failed: [500] Oops('a')",
        "  +1.5 s  3  Sleep  wake_up_time=+1.0 h",
        "  +1.5 s  4  Call  target=Shop/[x]/order parameter=1",
        "+1.5 min  5  Output  failure=[418] no",
        "+1.6 min  !  paused",
    ]


def test_long_values_are_cut():
    [line] = timeline(INFO, [entry(0, "Command: Input", 0, value="x" * 500)]).splitlines()
    assert line.endswith("x…")
    assert len(line) < 130


def test_a_purged_journal_says_so():
    assert timeline(INFO, []) == "(no journal)"
