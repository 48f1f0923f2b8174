"""The process that is killed: engine, ingress and admin API over one file.

`python -m tests.crash.process` imports everything once and then forks one engine process per command, because a start
from nothing takes most of a second and there are many. The engine process is a whole process: its own pid, its own
files and locks, nothing shared with the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60.0
"""Patience for a start; it takes a tenth of a second."""


# ---- in the engine's process ---------------------------------------------------------------------------------------------


def _main() -> None:
    """Fork an engine process per line of stdin, wait for its end, tell how it ended."""
    for module in ("holdfast.server", "tests.crash.program"):
        importlib.import_module(module)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _engine_process(json.loads(line))
        _, status = os.waitpid(pid, 0)
        _tell({"ended": pid, "exit_code": os.waitstatus_to_exitcode(status)})


def _tell(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _engine_process(command: dict[str, Any]) -> None:
    import traceback

    exit_code = 1
    try:
        asyncio.run(_serve(command))
        exit_code = 0
    except BaseException:  # noqa: BLE001 - the forked process must never go on with the parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(exit_code)


async def _serve(command: dict[str, Any]) -> None:
    import holdfast.server
    from holdfast import EngineConfig
    from tests.crash import program

    _tell({"started": os.getpid()})
    program.here.ledger = program.Ledger(Path(command["ledger"]), fsync=command["fsync"])
    program.here.opened = asyncio.Event()
    if command["commit_ms"]:
        _slow_commits(command["commit_ms"])
    if command["die_at_commit"]:
        _die_at_commit(command["die_at_commit"], before=command["die_before"])

    def ready(_: holdfast.server.Serving) -> None:
        _tell({"ready": os.getpid()})

    await holdfast.server.serve(
        program.app,
        db=command["db"],
        ingress_port=command["ports"][0],
        admin_port=command["ports"][1],
        config=EngineConfig(**command["config"]),
        on_ready=ready,
    )


def _slow_commits(commit_ms: float) -> None:
    """A disk on which every commit takes this long, so that the engine commits in its other thread."""
    from holdfast.store.sqlite import SqliteTables

    commit = SqliteTables.commit

    def slow(tables: SqliteTables) -> None:
        time.sleep(commit_ms / 1000)
        commit(tables)

    SqliteTables.commit = slow  # pyright: ignore[reportAttributeAccessIssue]


def _die_at_commit(number: int, *, before: bool) -> None:
    """Have this process killed right before or after its n-th commit, where no effect of it was performed yet."""
    from holdfast.store.sqlite import SqliteTables

    commit = SqliteTables.commit
    commits = 0

    def deadly(tables: SqliteTables) -> None:
        nonlocal commits
        commits += 1
        if commits == number and before:
            os.kill(os.getpid(), signal.SIGKILL)
        commit(tables)
        if commits == number:
            os.kill(os.getpid(), signal.SIGKILL)

    SqliteTables.commit = deadly  # pyright: ignore[reportAttributeAccessIssue]


# ---- in the test ---------------------------------------------------------------------------------------------------------


def _ports() -> list[int]:
    from tests.support.restate_server import free_ports  # pulls in pytest, of which the engine's process has no use

    return free_ports(2)


@dataclass(slots=True)
class Host:
    """Starts, kills and restarts the engine process on one file, and reads the ledger."""

    home: Path
    client: httpx.AsyncClient
    config: dict[str, Any]
    fsync: bool
    ports: list[int] = field(default_factory=_ports)
    """Of the ingress and of the admin API."""
    pid: int | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)
    down: asyncio.Event = field(default_factory=asyncio.Event)
    exit_codes: list[int] = field(default_factory=list[int])
    _started: asyncio.Event = field(default_factory=asyncio.Event)
    _factory: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None
    _log: IO[bytes] | None = None
    _ledger_offset: int = 0
    _ledger: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def db(self) -> Path:
        return self.home / "engine.db"

    @property
    def ingress(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    async def open(self) -> None:
        self._log = (self.home / "stderr.log").open("ab")
        self._factory = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.crash.process",
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
        )
        self.down.set()
        self._reader = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._factory is not None
        assert self._factory.stdout is not None
        async for line in self._factory.stdout:
            message = json.loads(line)
            if "started" in message:
                self.pid = message["started"]
                self._started.set()
            elif "ready" in message:
                self.up.set()
            elif "ended" in message:
                self.pid = None
                self.exit_codes.append(message["exit_code"])
                self.up.clear()
                self.down.set()

    def begin(self, *, commit_ms: float = 0, die_at_commit: int = 0, die_before: bool = False) -> None:
        """Start an engine process and do not wait for it."""
        assert self.down.is_set(), "one at a time"
        assert self._factory is not None
        assert self._factory.stdin is not None
        self.down.clear()
        self._started.clear()
        command = {
            "db": str(self.db),
            "ledger": str(self.home / "ledger.jsonl"),
            "fsync": self.fsync,
            "ports": self.ports,
            "config": self.config,
            "commit_ms": commit_ms,
            "die_at_commit": die_at_commit,
            "die_before": die_before,
        }
        self._factory.stdin.write(json.dumps(command).encode() + b"\n")

    async def start(self) -> None:
        """Start an engine process and wait until it answers."""
        self.begin()
        await self.answers()

    async def answers(self) -> None:
        """Wait until the process that was begun answers; one that ends instead is a failure."""
        ended = asyncio.create_task(self.down.wait())
        ready = asyncio.create_task(self.up.wait())
        await asyncio.wait((ended, ready), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        ready.cancel()
        assert self.up.is_set(), self.log()

    async def kill(self, signal_number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; the exit code."""
        await asyncio.wait_for(self._started.wait(), START_S)
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(self.pid, signal_number)
        await asyncio.wait_for(self.down.wait(), START_S)
        return self.exit_codes[-1]

    async def stop(self) -> None:
        """Stop in order."""
        assert await self.kill(signal.SIGTERM) == 0, self.log()

    async def close(self) -> None:
        if self._factory is not None and self._factory.stdin is not None:
            if not self.down.is_set():
                await self.kill()
            self._factory.stdin.close()
            await self._factory.wait()
        if self._reader is not None:
            await self._reader
        if self._log is not None:
            self._log.close()

    def log(self) -> str:
        return (self.home / "stderr.log").read_text()[-4000:]

    def ledger(self) -> list[dict[str, Any]]:
        """All complete lines so far. A line that a kill cut in half never counted as an effect."""
        path = self.home / "ledger.jsonl"
        if path.exists():
            with path.open("rb") as file:
                file.seek(self._ledger_offset)
                new = file.read()
            end = new.rfind(b"\n") + 1
            self._ledger_offset += end
            self._ledger += [json.loads(line) for line in new[:end].splitlines()]
        return self._ledger

    async def persist(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Repeat a request until it is answered: a dead process costs time only."""
        while True:
            response = await self.attempt(method, path, **request)
            if response is not None:
                return response
            await self.up.wait()
            await asyncio.sleep(0.005)  # the port may be gone although we were not told of the end yet

    async def attempt(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        """One request; None when nobody answered, so that nobody knows whether it was accepted."""
        try:
            response = await self.client.request(method, self.ingress + path, **request)
        except httpx.TransportError:
            return None
        return None if response.status_code == 503 else response


@contextlib.asynccontextmanager
async def hosting(home: Path, *, fsync: bool = True, **config: Any) -> AsyncIterator[Host]:
    """A host that keeps its files in `home`. The engine is not started yet."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        host = Host(home, client, config, fsync)
        try:
            await host.open()
            yield host
        finally:
            await host.close()


if __name__ == "__main__":
    _main()
