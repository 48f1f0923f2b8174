"""Chosen moments: thousands in flight, between accept and start, in a long step, while stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast import Engine
from tests.crash import program
from tests.crash.history import Steps, check_database
from tests.crash.process import Host, hosting

PATIENCE_S = 60.0
"""For what takes seconds on two busy cores."""

SUSPENDED = 5_000
RUNNING = 2_000


async def until(condition: Callable[[], bool], host: Host, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen; {host.log()}"
        await asyncio.sleep(0.01)


def lines(host: Host, what: str, u: str | None = None) -> list[dict[str, Any]]:
    return [entry for entry in host.ledger() if entry["what"] == what and u in (None, entry["u"])]


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def count(host: Host, *statuses: str) -> int:
    """How many invocations have one of these statuses."""
    total, before = 0, None
    while True:
        params: dict[str, Any] = {"status": statuses, "limit": 1000} | ({} if before is None else {"before": before})
        page = (await host.client.get(f"{host.admin}/invocations", params=params)).json()["invocations"]
        total += len(page)
        if len(page) < 1000:
            return total
        before = page[-1]["id"]


async def test_thousands_in_flight_go_on(tmp_path: Path) -> None:
    """Half of the suspended wait for awakeables, half for a point in time; the running ones for a gate in memory."""
    async with hosting(tmp_path, fsync=False, attempts_max=RUNNING + 500, suspend_after_ms=200) as host:
        await host.start()
        half = SUSPENDED // 2
        until_ms = program.now_ms() + 6_000
        for kind, number in (("await", half), ("sleep", half), ("hold", RUNNING)):
            body = {"kind": kind, "first": 0, "count": number, "until_ms": until_ms}
            assert (await host.persist("POST", "/Bulk/start", json=body)).status_code == 200

        def everything_started() -> bool:
            started = Counter(entry["what"] for entry in host.ledger())
            return started["awakeable"] >= half and started["running"] >= RUNNING

        await until(everything_started, host, "every start")
        pid = host.pid
        assert pid is not None
        before_mib = resident_mib(pid)
        await host.kill()
        ids = {entry["u"]: entry["id"] for entry in lines(host, "awakeable")}
        assert len(ids) == half
        assert len({entry["u"] for entry in lines(host, "running")}) == RUNNING
        assert not [entry for entry in lines(host, "done") if "late_ms" not in entry]

        started_s = time.monotonic()
        await host.start()
        ready_s = time.monotonic() - started_s
        await until(
            lambda: len([1 for entry in lines(host, "running") if entry["pid"] == host.pid]) == RUNNING,
            host,
            "every attempt's second start",
        )
        running_s = time.monotonic() - started_s
        assert host.pid is not None
        after_mib = resident_mib(host.pid)

        assert (await host.persist("POST", "/Slow/open_gate")).status_code == 200
        for index in range(0, half, 500):
            some = [ids[f"await{number}"] for number in range(index, min(half, index + 500))]
            assert (await host.persist("POST", "/Bulk/resolve", json={"ids": some})).status_code == 200
        await until(lambda: len({entry["u"] for entry in lines(host, "done")}) == SUSPENDED + RUNNING, host, "the end")
        all_s = time.monotonic() - started_s
        print(
            f"{SUSPENDED} suspended, {RUNNING} running: {before_mib:.0f} MiB before the kill; answers after "
            f"{ready_s:.2f} s, all attempts run after {running_s:.2f} s with {after_mib:.0f} MiB, all done {all_s:.2f} s"
        )
        done = Counter(entry["u"] for entry in lines(host, "done"))
        assert set(done.values()) == {1}, "an invocation finished twice"
        early = [entry for entry in lines(host, "done") if entry.get("late_ms", 0) < 0]
        assert not early, f"woken early: {early[:3]}"
        await host.stop()
        check_database(host.db)
        async with Engine(program.app, db=host.db) as engine:
            assert not engine.list_invocations(statuses=["scheduled", "pending", "ready", "running", "suspended"])
            results = Counter(
                info.completion_result for info in engine.list_invocations(statuses=["completed"], limit=100_000)
            )
            assert set(results) == {"success"}


async def test_a_kill_between_accept_and_start(tmp_path: Path) -> None:
    """The commit that accepts it is the last thing this process does: nobody was told, no attempt was made."""
    async with hosting(tmp_path) as host:
        host.begin(die_at_commit=1)
        await asyncio.wait_for(host.up.wait(), PATIENCE_S)
        headers = {"idempotency-key": "once"}
        body = {"u": "once", "n": 3}
        assert await host.attempt("POST", "/Flow/steps/send", json=body, headers=headers) is None
        await asyncio.wait_for(host.down.wait(), PATIENCE_S)
        assert host.exit_codes == [-signal.SIGKILL]
        assert not host.ledger(), "it started before it was killed"

        await host.start()
        await until(lambda: len(lines(host, "step", "once")) == 3, host, "the run that nobody asked for again")
        response = await host.persist("POST", "/Flow/steps", json=body, headers=headers)
        Steps(host.ledger()).check_sequence("once", response.json())
        assert len(lines(host, "step", "once")) == 3, "the repeated request made a second invocation"
        await host.stop()
        check_database(host.db)


async def test_a_kill_before_the_accepting_commit_leaves_nothing(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        host.begin(die_at_commit=1, die_before=True)
        await asyncio.wait_for(host.up.wait(), PATIENCE_S)
        assert await host.attempt("POST", "/Flow/steps/send", json={"u": "lost", "n": 1}) is None
        await asyncio.wait_for(host.down.wait(), PATIENCE_S)
        await host.start()
        assert await count(host, "ready", "running", "suspended", "completed") == 0
        await host.stop()
        assert not host.ledger()


async def test_a_kill_in_a_long_step_repeats_that_step_only(tmp_path: Path) -> None:
    async with hosting(tmp_path) as host:
        await host.start()
        sent = await host.persist("POST", "/Slow/step/send", json={"u": "long"})
        await until(lambda: len(lines(host, "gated", "long")) == 1, host, "the step")
        await host.kill()
        await host.start()
        await until(lambda: len(lines(host, "gated", "long")) == 2, host, "the step's second run")
        assert (await host.persist("POST", "/Slow/open_gate")).status_code == 200
        response = await host.persist("GET", f"/restate/invocation/{sent.json()['invocationId']}/attach")
        steps = Steps(host.ledger())
        steps.check_sequence("long", response.json())
        assert [len(steps.executions["long", step]) for step in range(3)] == [1, 1, 1]
        assert len(lines(host, "gated", "long")) == 2
        await host.stop()
        check_database(host.db)


async def test_a_kill_while_stopping(tmp_path: Path) -> None:
    """SIGTERM, and SIGKILL while it waits for a step that does not end."""
    async with hosting(tmp_path, drain_ms=60_000) as host:
        await host.start()
        sent = await host.persist("POST", "/Slow/step/send", json={"u": "busy"})
        idle = await host.persist("POST", "/Flow/wait/send", json={"u": "idle"})
        await until(lambda: bool(lines(host, "gated", "busy")) and bool(lines(host, "awakeable")), host, "both starts")
        pid = host.pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        await until(lambda: _refuses(host), host, "refusal of new connections")
        assert host.pid == pid, "it did not wait for the step"
        assert await host.kill() == -signal.SIGKILL

        await host.start()
        awakeable_id = lines(host, "awakeable", "idle")[0]["id"]
        answer = await host.persist("POST", f"/restate/awakeables/{awakeable_id}/resolve", json="go on")
        assert answer.status_code == 202
        assert (await host.persist("POST", "/Slow/open_gate")).status_code == 200
        response = await host.persist("GET", f"/restate/invocation/{sent.json()['invocationId']}/attach")
        Steps(host.ledger()).check_sequence("busy", response.json())
        waited = await host.persist("GET", f"/restate/invocation/{idle.json()['invocationId']}/attach")
        assert waited.json() == "go on"
        assert len(lines(host, "awakeable", "idle")) == 1
        await host.stop()
        check_database(host.db)


def _refuses(host: Host) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", host.ports[0])) != 0


async def test_a_stop_in_order_finishes_what_it_can(tmp_path: Path) -> None:
    """A drained process leaves no step half done: nothing runs twice."""
    async with hosting(tmp_path, drain_ms=30_000) as host:
        for _ in range(5):
            await host.start()
            sent: list[str] = []
            for u in (f"drained{index}" for index in range(10)):
                body, headers = {"u": u, "n": 6}, {"idempotency-key": u}
                answer = await host.persist("POST", "/Flow/steps/send", json=body, headers=headers)
                sent.append(answer.json()["invocationId"])
            await host.stop()
        await host.start()
        for index, invocation_id in enumerate(sent):
            response = await host.persist("GET", f"/restate/invocation/{invocation_id}/attach")
            Steps(host.ledger()).check_sequence(f"drained{index}", response.json())
        assert Steps(host.ledger()).repeated == 0
        await host.stop()
        check_database(host.db)
