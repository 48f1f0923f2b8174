"""`restate invocations cancel`, `kill`, `pause` …: what they print, and what becomes of the invocation."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest

from tests.cli_parity.harness import PATIENCE_S, Pair, Target

pytestmark = pytest.mark.restate_server

UNKNOWN = "inv_12kpUQONmeFb0f6RCQUL06M6iQaCnI02st"


def status(target: Target, invocation: str) -> str:
    """By SQL, which both answer; `gone` when there is no row."""
    rows = sql(target, f"SELECT status FROM sys_invocation WHERE id = '{target.names[invocation]}'")
    return rows[0]["status"] if rows else "gone"


def sql(target: Target, query: str) -> list[dict[str, str]]:
    headers = {"accept": "application/json"}
    answer = httpx.post(f"{target.admin_url}/query", json={"query": query}, headers=headers, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def wait(pair: Pair, invocation: str, *statuses: str) -> None:
    """Look again until the invocation has one of these statuses on both engines."""
    for target in pair:
        deadline = time.monotonic() + PATIENCE_S
        while (now := status(target, invocation)) not in statuses:
            assert time.monotonic() < deadline, f"{invocation} is {now} on {target.name}"
            time.sleep(0.05)  # between two looks


LIVE = ("running", "suspended")


def completed(pair: Pair) -> None:
    pair.call("one", "Greeter/steps", "x")


def live(pair: Pair) -> None:
    pair.call("one", "Greeter/wait/send", "x")
    wait(pair, "one", *LIVE)


def scheduled(pair: Pair) -> None:
    pair.call("one", "Greeter/greet/send?delay=1h", "x")


def paused(pair: Pair) -> None:
    """Failing, not waiting: a handler that is suspended cannot be paused."""
    pair.call("one", "Greeter/stumble/send", "x")
    wait(pair, "one", "backing-off")
    pair.same("invocations", "pause", "{one}", "--yes")
    wait(pair, "one", "paused")


def unknown(pair: Pair) -> None:
    pair.name("one", lambda _target: UNKNOWN)


# (invocation, command, statuses afterwards)
CASES: dict[str, tuple[Callable[[Pair], None], str, tuple[str, ...]]] = {
    "cancel a live one": (live, "cancel {one}", ("completed",)),
    "cancel a scheduled one": (scheduled, "cancel {one}", ("gone",)),
    "cancel a completed one": (completed, "cancel {one}", ("completed",)),
    "cancel an unknown one": (unknown, "cancel {one}", ("gone",)),
    "kill a live one": (live, "kill {one}", ("completed",)),
    "kill a paused one": (paused, "kill {one}", ("completed",)),
    "kill a completed one": (completed, "kill {one}", ("completed",)),
    "purge a completed one": (completed, "purge {one}", ("gone",)),
    "purge a live one": (live, "purge {one}", LIVE),
    "restart a completed one": (completed, "restart-as-new {one}", ("completed",)),
    "restart a live one": (live, "restart-as-new {one}", LIVE),
    "resume a paused one": (paused, "resume {one}", ("running", "backing-off")),
    "resume a paused one on the latest": (paused, "resume {one} --deployment latest", ("running", "backing-off")),
    "resume a completed one": (completed, "resume {one}", ("completed",)),
    "pause a completed one": (completed, "pause {one}", ("completed",)),
}


@pytest.mark.parametrize("case", CASES)
def test_one(pair: Pair, case: str):
    begin, line, afterwards = CASES[case]
    begin(pair)
    pair.same("invocations", *line.split(), "--yes")
    wait(pair, "one", *afterwards)
    for target in pair:
        target.restate("invocations", "kill", "{one}", "--yes")


def test_all_of_a_handler(pair: Pair):
    pair.call("one", "Signup/one/run/send", "x")
    pair.call("two", "Signup/two/run/send", "y")
    wait(pair, "one", *LIVE)
    wait(pair, "two", *LIVE)
    pair.same("invocations", "cancel", "Signup/one", "--yes")
    wait(pair, "one", "completed")
    pair.same("invocations", "kill", "Signup", "--yes")
    wait(pair, "two", "completed")


def test_a_restarted_one_tells_where_it_comes_from(pair: Pair):
    pair.call("one", "Greeter/steps", "x")
    pair.same("invocations", "restart-as-new", "{one}", "--yes")
    for target in pair:
        [row] = sql(
            target,
            "SELECT invoked_by, idempotency_key IS NULL AS keyless FROM sys_invocation "
            f"WHERE restarted_from = '{target.names['one']}'",
        )
        assert row == {"invoked_by": "restart_as_new", "keyless": True}
