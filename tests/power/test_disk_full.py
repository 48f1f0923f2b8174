"""The disk is full: what is new is refused at once, what was accepted is kept, and all goes on when space returns.

First on the simulated disk, then on real ones: a small file system, a limit on the file, a limit on the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from holdfast import Engine, SyncEngine
from holdfast.admin.app import create_admin
from holdfast.errors import DiskFull, EngineError
from holdfast.runtime import standstill
from tests.ingress.asgi import exchange
from tests.ingress.backend import Ask, Got
from tests.power.disk import full_error, io_error
from tests.runtime import programs
from tests.runtime.support import PATIENCE_S, call, until
from tests.simulation.catalogue import CATALOGUE
from tests.simulation.crashes import Disaster, check, run
from tests.simulation.loop import VirtualLoop, run_virtually
from tests.simulation.machine import Machine

SAMPLE = 5

# ---- at every write --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_thread", [False, True], ids=["commits in the loop", "commits in a thread"])
def test_from_every_write_on_for_some_seconds(in_thread: bool, folder: Path) -> None:
    undisturbed = run(folder / "undisturbed", CATALOGUE["steps"], in_thread=in_thread)
    for at in range(1, undisturbed.counts.ops["write"] + 1):
        again = run(folder / str(at), CATALOGUE["steps"], Disaster("full", at), in_thread=in_thread)
        assert again.was_struck
        assert again.restarts == 0, "it goes on by itself"
        check(undisturbed, again)


@pytest.mark.parametrize("name", CATALOGUE)
def test_from_some_write_on_in_every_scenario(name: str, folder: Path) -> None:
    undisturbed = run(folder / "undisturbed", CATALOGUE[name])
    for at in Random(name).sample(range(1, undisturbed.counts.ops["write"] + 1), SAMPLE):
        again = run(folder / str(at), CATALOGUE[name], Disaster("full", at), seed=at)
        assert again.restarts == 0
        check(undisturbed, again)


# ---- what callers see --------------------------------------------------------------------------------------------------


def on_a_machine(folder: Path, story: Callable[[Machine], Awaitable[None]], **settings: Any) -> None:
    async def main(loop: VirtualLoop) -> None:
        machine = Machine(folder, loop, Random(0), **settings)
        async with machine.switched_on():
            await machine.start()
            await story(machine)

    run_virtually(main, Random(0))


async def fill(machine: Machine) -> Engine:
    """There is no byte left, and the engine has noticed."""
    engine = machine.engine
    assert engine is not None
    machine.disk.capacity_bytes = 0
    with pytest.raises(DiskFull):
        await engine.send(engine.services["Counter"].handlers["add"], "filler", b'{"u": "filler"}')
    assert engine.disk_full is not None
    return engine


async def free(machine: Machine) -> None:
    machine.disk.capacity_bytes = None
    engine = machine.engine
    assert engine is not None
    while engine.disk_full is not None:
        await asyncio.sleep(0.1)


async def ask(machine: Machine, method: str, path: str, body: Any = None) -> Got:
    assert machine.engine is not None
    content = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"content-type": "application/json"}
    return await exchange(machine.engine.ingress, Ask(method, path, content, headers))


@pytest.mark.parametrize(
    "path", ["/Counter/k/add", "/Counter/k/add/send", "/Approval/w/run/send", "/Counter/k/add/send?delay=1s"]
)
def test_a_request_is_refused_at_once_and_told_what_to_do(path: str, folder: Path) -> None:
    async def story(machine: Machine) -> None:
        await fill(machine)
        before_s = machine.loop.time()
        got = await ask(machine, "POST", path, {"u": "a"})
        assert machine.loop.time() == before_s
        assert got.status == 503
        assert got.headers["retry-after"] == "5"
        assert got.headers["x-holdfast-error-code"] == "HF0304"
        assert "disk is full" in got.body.decode()
        assert "free space" in got.body.decode()
        await free(machine)
        assert (await ask(machine, "POST", path, {"u": "b"})).status in (200, 202)
        await asyncio.sleep(2)
        assert not [entry for entry in machine.ledger if entry.u.startswith("a")], "it was refused, and it happened"

    on_a_machine(folder, story)


def test_health_says_so(folder: Path) -> None:
    async def story(machine: Machine) -> None:
        assert machine.engine is not None
        admin = create_admin(machine.engine)
        assert (await ask(machine, "GET", "/restate/health")).status == 200
        await fill(machine)
        assert (await ask(machine, "GET", "/restate/health")).status == 503
        got = await exchange(admin, Ask("GET", "/health"))
        assert (got.status, got.headers["x-holdfast-error-code"]) == (503, "HF0304")
        await free(machine)
        assert (await ask(machine, "GET", "/restate/health")).status == 200
        assert (await exchange(admin, Ask("GET", "/health"))).status == 200

    on_a_machine(folder, story)


def test_reads_go_on(folder: Path) -> None:
    async def story(machine: Machine) -> None:
        done = await machine.persist("POST", "/Counter/k/add", {"u": "a"})
        engine = await fill(machine)
        invocation_id = done.headers["x-restate-id"]
        assert engine.describe(invocation_id).status == "completed"
        assert [info.id for info in engine.list_invocations(statuses=["completed"])] == [invocation_id]
        assert engine.state("Counter", "k")["count"] == b"1"
        assert engine.journal(invocation_id)
        assert (await ask(machine, "GET", f"/restate/invocation/{invocation_id}/output")).status == 200
        assert (await ask(machine, "GET", f"/restate/invocation/{invocation_id}/attach")).status == 200

    on_a_machine(folder, story)


def test_operators_are_refused_too(folder: Path) -> None:
    async def story(machine: Machine) -> None:
        sent = await machine.persist("POST", "/Flow/nap/send", {"u": "a", "ms": 1000})
        engine = await fill(machine)
        with pytest.raises(DiskFull):
            await engine.cancel(sent.headers["x-restate-id"])
        with pytest.raises(DiskFull):
            await engine.mutate_state("Counter", "k", {})
        with pytest.raises(DiskFull):
            await engine.resolve_awakeable("sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ", b"")
        with pytest.raises(DiskFull):
            await engine.configure_service("Counter", {"public": False})
        await free(machine)
        await engine.cancel(sent.headers["x-restate-id"])

    on_a_machine(folder, story)


@pytest.mark.parametrize("in_thread", [False, True], ids=["commits in the loop", "commits in a thread"])
def test_whoever_waits_for_what_was_accepted_gets_it(in_thread: bool, folder: Path) -> None:
    """Callers of running, suspended, queued, delayed and backing-off invocations wait on, and are answered in the end."""

    async def story(machine: Machine) -> None:
        machine.here.slowest_step_s = 0.5
        waiting = [
            asyncio.ensure_future(ask(machine, "POST", path, body))
            for path, body in (
                ("/Flow/steps", {"u": "a", "n": 30}),
                ("/Flow/nap", {"u": "b", "ms": 2000}),
                ("/Counter/k/add", {"u": "c", "n": 3}),
                ("/Counter/k/add", {"u": "d"}),
                ("/Flow/post", {"u": "e", "ms": 2000}),
                ("/Flow/race", {"u": "f", "ms": 100}),
            )
        ]
        sent = await ask(machine, "POST", "/Flow/steps/send?delay=2s", {"u": "g", "n": 1})
        invocation_id = sent.headers["x-restate-id"]
        waiting.append(asyncio.ensure_future(ask(machine, "GET", f"/restate/invocation/{invocation_id}/attach")))
        await asyncio.sleep(0.1)
        machine.disk.before = lambda kind, file: full_error(kind) if kind == "write" else None
        await asyncio.sleep(5)
        assert machine.engine is not None
        assert machine.engine.disk_full is not None
        assert not [one for one in waiting if one.done()], "nobody was sent away"
        machine.disk.before = lambda kind, file: None
        await free(machine)
        assert [(await one).status for one in waiting] == [200] * 7

    on_a_machine(folder, story)


def test_it_is_full_again_and_again(folder: Path) -> None:
    async def story(machine: Machine) -> None:
        engine = machine.engine
        for number in range(5):
            await fill(machine)
            await asyncio.sleep(number)
            await free(machine)
            await machine.persist("POST", "/Counter/k/add", {"u": str(number)})
        assert machine.engine is engine
        assert json.loads((await machine.persist("GET", "/Counter/k/read")).body) == 5

    on_a_machine(folder, story)


def test_a_little_space_is_not_enough(folder: Path) -> None:
    """What would be full again at the next request is not taken for space."""

    async def story(machine: Machine) -> None:
        engine = await fill(machine)
        machine.disk.capacity_bytes = machine.disk.used_bytes + standstill.ROOM_BYTES // 2
        await asyncio.sleep(10 * standstill.PROBE_S)
        assert engine.disk_full is not None
        await free(machine)

    on_a_machine(folder, story)


def test_stop_while_it_is_full(folder: Path) -> None:
    async def story(machine: Machine) -> None:
        await machine.persist("POST", "/Flow/nap/send", {"u": "a", "ms": 1000})
        await fill(machine)
        await machine.stop()
        machine.disk.capacity_bytes = None
        await machine.start()
        await asyncio.sleep(2)
        assert machine.engine is not None
        assert [info.status for info in machine.engine.list_invocations()] == ["completed"]

    on_a_machine(folder, story)


def test_start_on_a_full_disk(folder: Path) -> None:
    """After a kill the log must be moved first, and there is no space for it: it starts, refuses, and recovers."""

    async def story(machine: Machine) -> None:
        for number in range(30):
            await machine.persist("POST", "/Counter/k/add", {"u": str(number)})
        await machine.kill()
        machine.disk.capacity_bytes = machine.disk.used_bytes
        engine = await machine.start()
        assert engine.disk_full is not None
        assert engine.state("Counter", "k")["count"] == b"30"
        assert (await ask(machine, "POST", "/Counter/k/add", {"u": "a"})).status == 503
        await free(machine)
        await machine.persist("POST", "/Counter/k/add", {"u": "b"})
        assert engine.state("Counter", "k")["count"] == b"31"

    on_a_machine(folder, story)


def test_an_io_error_while_it_is_full_ends_the_engine(folder: Path) -> None:
    async def story(machine: Machine) -> None:
        engine = await fill(machine)
        machine.may_stop = True
        machine.disk.before = lambda kind, file: io_error(kind) if kind == "write" else None
        await asyncio.sleep(3 * standstill.PROBE_S)
        assert engine.stopped.is_set()
        assert isinstance(engine.failure, EngineError)
        assert not isinstance(engine.failure, DiskFull)
        machine.disk.before = lambda kind, file: None
        await machine.has_stopped()

    on_a_machine(folder, story)


# ---- on real disks -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def empty_records() -> None:
    programs.clear()


async def write_until_full(engine: Engine) -> dict[str, int]:
    """What was acknowledged, by key."""
    acknowledged: dict[str, int] = {}

    async def writer(key: str) -> None:
        while True:
            acknowledged[key] = await call(engine, f"Counter/{key}/add", 1)
            await call(engine, f"Counter/{key}/fill", os.urandom(20_000).hex())

    writers = [asyncio.create_task(writer(f"k{index}")) for index in range(8)]
    await until(lambda: engine.disk_full is not None)
    for task in writers:  # whose request was accepted waits for its result, the others were sent away
        task.cancel()
    for error in await asyncio.gather(*writers, return_exceptions=True):
        assert isinstance(error, DiskFull | asyncio.CancelledError), error
    return acknowledged


async def check_after(engine: Engine, acknowledged: dict[str, int]) -> None:
    await until(lambda: engine.disk_full is None, "space")
    for key, count in acknowledged.items():
        assert await call(engine, f"Counter/{key}/value") >= count, "an acknowledged increment is lost"
    assert await call(engine, "Greeter/greet", "Ada") == "Hello, Ada!"
    await until(lambda: not engine.list_invocations(statuses=["ready", "running", "backing-off"]))


async def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    async with Engine(programs.app, db=tmp_path / "a.db") as engine:
        connection = engine._tables.connection
        connection.pragma("max_page_count", connection.pragma("page_count"))
        acknowledged = await write_until_full(engine)
        connection.pragma("max_page_count", 1 << 30)
        await check_after(engine, acknowledged)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of sixteen megabytes, where the machine lets us make one."""
    with tempfile.TemporaryDirectory() as home:
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", home]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("needs the right to mount a tmpfs")
        try:
            yield Path(home)
        finally:
            subprocess.run(["umount", home], check=True)


async def test_a_really_full_disk(small_disk: Path) -> None:
    """Filled, freed, filled, and started again while full."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(12 << 20))
    async with Engine(programs.app, db=small_disk / "a.db") as engine:
        waiting = asyncio.create_task(call(engine, "Waiter/awakeable", "a"))
        awakeable_id = (await until(lambda: programs.notes["a"]))[0]
        acknowledged = await write_until_full(engine)
        ballast.unlink()
        await check_after(engine, acknowledged)
        await engine.resolve_awakeable(awakeable_id, b'"there"')
        assert await asyncio.wait_for(waiting, PATIENCE_S) == "there"
        ballast.write_bytes(bytes(5 << 20))
        acknowledged = await write_until_full(engine)
    ballast.unlink()
    async with Engine(programs.app, db=small_disk / "a.db") as engine:
        await check_after(engine, acknowledged)


async def test_a_start_without_space_for_anything(small_disk: Path) -> None:
    """There is no room for the file itself: one clear error, and nothing is left half made."""
    (small_disk / "ballast").write_bytes(bytes((16 << 20) - 8192))
    engine = Engine(programs.app, db=small_disk / "a.db")
    with pytest.raises(EngineError) as caught:
        await engine.start()
    assert caught.value.hint
    (small_disk / "ballast").unlink()
    async with Engine(programs.app, db=small_disk / "a.db") as engine:
        assert await call(engine, "Greeter/greet", "Ada") == "Hello, Ada!"


LIMITED = """
    import asyncio, resource, sys
    from holdfast import Engine
    from tests.runtime import programs
    from tests.runtime.support import call, until

    async def main():
        async with Engine(programs.app, db=sys.argv[1]) as engine:
            assert await call(engine, "Counter/k/add", 1) == 1
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))

            async def fill():
                while True:
                    await call(engine, "Counter/k/fill", "x" * 20_000)

            filling = asyncio.create_task(fill())
            await until(lambda: engine.disk_full is not None)
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
            await until(lambda: engine.disk_full is None)
            assert await call(engine, "Counter/k/add", 1) == 2
            print("went on")

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of processes")
def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """To SQLite that is an I/O error, not a full disk; to us it is the same."""
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path / "a.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "went on"


def test_without_an_event_loop(tmp_path: Path) -> None:
    with SyncEngine(programs.app, db=tmp_path / "a.db") as engine:

        async def limit(pages: int | None) -> None:
            connection = engine.engine._tables.connection
            connection.pragma("max_page_count", pages or connection.pragma("page_count"))

        async def is_full() -> bool:
            return engine.engine.disk_full is not None

        engine.run(limit(None))
        texts = [json.dumps(os.urandom(20_000).hex()).encode() for _ in range(20)]
        for text in texts:
            engine.run(_send(engine.engine, text))
            if engine.run(is_full()):
                break
        with pytest.raises(DiskFull) as caught:
            engine.call("Counter/k/add", b"1")
        assert caught.value.hint
        engine.run(limit(1 << 30))
        engine.run(until_async(is_full))
        assert engine.call("Greeter/greet", b'"Ada"') == b'"Hello, Ada!"'


async def _send(engine: Engine, text: bytes) -> None:
    try:
        await engine.send(engine.services["Counter"].handlers["fill"], "k", text)
    except DiskFull:
        pass
    await asyncio.sleep(0.01)


async def until_async(is_full: Callable[[], Awaitable[bool]]) -> None:
    while await is_full():
        await asyncio.sleep(0.01)
