"""Slow disks, and commits that fail. Full disks are in tests/power."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast import Engine
from holdfast.errors import EngineError
from holdfast.store.sqlite import SqliteTables
from tests.runtime import programs
from tests.runtime.support import PATIENCE_S, call, result, send, status, ticking, until


class SlowDisk:
    """Wraps the store's commit in real work on a file, and counts commits by thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, commit_s: float) -> None:
        import threading

        commit = SqliteTables.commit
        self.threads: list[str] = []
        self.closed = threading.Event()
        """Set: a commit that has begun waits at `release`."""
        self.release = threading.Event()
        self.waiting = threading.Event()

        def slow(tables: SqliteTables) -> None:
            started = time.perf_counter()
            while time.perf_counter() - started < commit_s:
                with path.open("ab") as file:
                    file.write(b"x" * 4096)
                    file.flush()
                    os.fsync(file.fileno())
                time.sleep(0.0005)
            self.threads.append(threading.current_thread().name)
            if self.closed.is_set() and threading.current_thread() is not threading.main_thread():
                self.waiting.set()
                self.release.wait(PATIENCE_S)
            commit(tables)

        monkeypatch.setattr(SqliteTables, "commit", slow)

    @property
    def in_thread(self) -> int:
        return sum(name.startswith("holdfast-commit") for name in self.threads)


SlowDisks = Callable[[float], SlowDisk]


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SlowDisks:
    return lambda commit_s: SlowDisk(monkeypatch, tmp_path / "ballast", commit_s)


async def slowed(engine: Engine, disk: SlowDisk) -> None:
    """Commit until the engine has noticed that its disk is slow."""
    while disk.in_thread == 0:
        await call(engine, "Counter/warm/add", 1)


async def test_a_mixed_load_on_a_slow_disk(slow_disk: SlowDisks, tmp_path: Path) -> None:
    disk = slow_disk(0.004)
    async with Engine(programs.app, db=tmp_path / "a.db", suspend_after_ms=1, attempts_max=20) as engine:
        await slowed(engine, disk)
        work = [call(engine, f"Counter/k{index % 3}/add", 1) for index in range(60)]
        work += [call(engine, "Greeter/fan_out", 5) for _ in range(10)]
        work += [call(engine, "Waiter/nap", index) for index in range(20)]
        work += [call(engine, "Flaky/twice", f"f{index}") for index in range(5)]
        waiting = [await send(engine, "Waiter/awakeable", f"w{index}") for index in range(30)]
        results = asyncio.gather(*work)
        for index, invocation_id in enumerate(waiting):
            name = f"w{index}"
            awakeable_id = (await until(lambda name=name: programs.notes[name]))[0]
            await engine.resolve_awakeable(awakeable_id, json.dumps(name).encode())
            assert await result(engine, invocation_id) == name
        done = await asyncio.wait_for(results, PATIENCE_S)
        assert sorted(done[:60]) == sorted(count for count in range(1, 21) for _ in range(3))
        assert done[60:70] == [list(range(5))] * 10
        assert all(took >= index for index, took in enumerate(done[70:90]))
        assert [engine.state("Counter", f"k{index}") for index in range(3)] == [{"value": b"20"}] * 3
        assert disk.in_thread > 20


async def test_the_loop_is_free_while_a_slow_commit_runs(slow_disk: SlowDisks, tmp_path: Path) -> None:
    disk = slow_disk(0.3)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        await slowed(engine, disk)
        async with ticking() as longest:
            await asyncio.gather(*(call(engine, "Counter/k/add", 1) for _ in range(3)))
        assert disk.in_thread >= 2
        assert longest[0] < 0.2, "a commit held up the loop"


async def test_a_notification_committed_while_the_attempt_gives_up(slow_disk: SlowDisks, tmp_path: Path) -> None:
    """The attempt suspends while the answer to what it waits for is on its way to the disk. It must wake again."""
    disk = slow_disk(0.003)
    async with Engine(programs.app, db=tmp_path / "a.db", suspend_after_ms=0) as engine:
        await slowed(engine, disk)
        await until(lambda: engine.statistics()["attempts"] == 0)
        invocation_id = await send(engine, "Waiter/awakeable", "a")
        awakeable_id = (await until(lambda: programs.notes["a"]))[0]
        disk.closed.set()
        resolving = asyncio.create_task(engine.resolve_awakeable(awakeable_id, b'"there"'))
        await until(disk.waiting.is_set, "the commit")
        attempts = engine._invoker.attempts
        # With the answer applied and not yet committed, the attempt that only waits is asked, and ends.
        await until(lambda: not attempts or all(attempt.terminal for attempt in attempts.values()), "the suspension")
        disk.closed.clear()
        disk.release.set()
        await resolving
        assert await result(engine, invocation_id) == "there"


async def test_what_is_not_committed_is_not_told(slow_disk: SlowDisks, tmp_path: Path) -> None:
    disk = slow_disk(0.003)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        await slowed(engine, disk)
        await until(lambda: engine.statistics()["attempts"] == 0)
        disk.closed.set()
        sending = asyncio.create_task(send(engine, "Counter/k/add", 1, idempotency_key="x"))
        await until(disk.waiting.is_set, "the commit")
        invocation_id = engine.idempotent_invocation_id("Counter", "k", "add", "x")
        asking = asyncio.create_task(engine.attach(invocation_id))
        _, pending = await asyncio.wait([sending, asking], timeout=0.05)
        assert pending == {sending, asking}
        assert not engine.list_invocations(handler="add", key="k")
        disk.closed.clear()
        disk.release.set()
        assert await sending == invocation_id
        assert (await asking).value == b"1"


async def test_attach_under_a_constant_load_on_a_slow_disk(slow_disk: SlowDisks, tmp_path: Path) -> None:
    """Something is always being committed; whoever asks for a result is answered all the same."""
    disk = slow_disk(0.003)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        await slowed(engine, disk)
        invocation_id = await send(engine, "Counter/k/add", 1, idempotency_key="x")

        async def load(index: int) -> None:
            while True:
                await call(engine, f"Counter/load{index}/add", 1)

        loads = [asyncio.create_task(load(index)) for index in range(20)]
        try:
            for _ in range(20):
                assert await asyncio.wait_for(engine.attach(invocation_id), 5) is not None
        finally:
            for task in loads:
                task.cancel()
            await asyncio.gather(*loads, return_exceptions=True)


async def test_stop_on_a_slow_disk(slow_disk: SlowDisks, tmp_path: Path) -> None:
    disk = slow_disk(0.004)
    engine = Engine(programs.app, db=tmp_path / "a.db")
    await engine.start()
    await slowed(engine, disk)
    ids = [await send(engine, "Waiter/nap", 30) for _ in range(10)]
    ids += [await send(engine, "Counter/k/add", 1, delay_ms=index) for index in range(20)]
    await asyncio.wait_for(engine.stop(), PATIENCE_S)
    await engine.stop()
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        results = [await result(engine, invocation_id) for invocation_id in ids]
        assert all(took >= 30 for took in results[:10])
        assert sorted(results[10:]) == list(range(1, 21))


# ---- commits that fail -----------------------------------------------------------------------------------------------


async def test_a_commit_that_fails_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An I/O error: callers get one line that says what to do, and nothing that was told them is lost."""
    engine = Engine(programs.app, db=tmp_path / "a.db")
    await engine.start()
    assert await call(engine, "Counter/k/add", 1) == 1
    waiting = asyncio.create_task(call(engine, "Waiter/awakeable", "a"))
    await until(lambda: programs.notes["a"])

    def broken(_: SqliteTables) -> None:
        raise apsw.IOError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteTables, "commit", broken)
        for error in await asyncio.gather(call(engine, "Counter/k/add", 1), waiting, return_exceptions=True):
            assert isinstance(error, EngineError)
            assert "disk I/O error" in str(error)
            assert "start it again" in error.hint
        await engine.stop()
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        assert await call(engine, "Counter/k/add", 1) == 2
        [info] = engine.list_invocations(handler="awakeable")
        await engine.resolve_awakeable(programs.notes["a"][0], b'"go"')
        assert await result(engine, info.id) == "go"


async def test_a_failure_while_stopping_on_a_slow_disk(
    slow_disk: SlowDisks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last commits fail while more is waiting: stop ends all the same."""
    disk = slow_disk(0.003)
    engine = Engine(programs.app, db=tmp_path / "a.db")
    await engine.start()
    await slowed(engine, disk)
    ids = [await send(engine, "Waiter/blocked_step", f"s{index}") for index in range(10)]
    await until(lambda: all(programs.seen[f"step s{index}"] for index in range(10)))
    slow = SqliteTables.commit

    def broken(tables: SqliteTables) -> None:
        slow(tables) if tables.connection is not engine._tables.connection else time.sleep(0.005)
        raise apsw.IOError("disk I/O error")

    monkeypatch.setattr(SqliteTables, "commit", broken)
    stopping = asyncio.create_task(engine.stop())
    for index in range(10):
        programs.gates[f"s{index}"].set()
        await asyncio.sleep(0)
    await asyncio.wait_for(stopping, PATIENCE_S)
    assert isinstance(engine.failure, EngineError)
    monkeypatch.setattr(SqliteTables, "commit", slow)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        assert [await result(engine, one) for one in ids] == [f"s{index}!" for index in range(10)]


async def test_no_request_can_stop_the_engine(tmp_path: Path) -> None:
    """What SQLite cannot hold is refused or cut, and does not count as a failed commit."""
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        requests: list[Any] = [
            send(engine, "Counter/k/add", 1, delay_ms=1 << 63),
            send(engine, "Counter/k/add", 1, delay_ms=1 << 70),
            send(engine, "Counter/\x00/add", 1),
            send(engine, "Counter/\ud800/add", 1),
        ]
        await asyncio.gather(*requests, return_exceptions=True)
        assert engine.failure is None, engine.failure
        assert await call(engine, "Greeter/greet", "Ada") == "Hello, Ada!"


async def test_status_during_a_slow_commit(slow_disk: SlowDisks, tmp_path: Path) -> None:
    """Looking at invocations does not disturb a commit in the other thread."""
    disk = slow_disk(0.003)
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        await slowed(engine, disk)
        ids = [await send(engine, "Waiter/nap", 20) for _ in range(20)]
        for invocation_id in ids:
            await status(engine, invocation_id, "completed")
            assert [entry.index for entry in engine.journal(invocation_id)][-1] >= 6
        assert engine.failure is None
