"""One simulated machine: a disk, a clock, and engine processes on it, one after the other.

The engine is the real one, with its store, processor, ingress and the SDK in process; only time, threads, the network
between engine and SDK, and the disk below SQLite are simulated.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random as global_random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import apsw

from holdfast import Engine
from holdfast.errors import EngineStopped
from holdfast.runtime import processor
from holdfast.store import database
from holdfast.store.sqlite import SqliteTables
from tests.ingress.asgi import exchange
from tests.ingress.backend import Ask, Got
from tests.power.disk import Disk, PowerIsOff
from tests.simulation import program
from tests.simulation.loop import VirtualClock, VirtualLoop
from tests.simulation.wire import Wire

RESTART_S = 0.3
UNWIND_S = 60.0


class Machine:
    """`start`, `kill`, `lose_power`, `stop`: what happens to an engine process and the machine below it."""

    def __init__(self, folder: Path, loop: VirtualLoop, random: Random, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.random = random
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.disk = Disk(folder)
        self.wire = Wire(program.app, random, self.clock)
        self.settings = settings
        self.engine: Engine | None = None
        self.up = asyncio.Event()
        self.may_stop = False
        """The engine is expected to stop by itself."""
        self.stopped_by_itself: asyncio.Future[BaseException | None] = loop.create_future()
        """Done when it did so although it should not."""
        self.incarnation = 0
        self.commits = 0
        self.dies_at: tuple[int, str] | None = None
        """Have the process die `before` or `after` its n-th commit."""
        self.on_death: Callable[[], None] = lambda: None
        self.commits_in_thread = False
        self.checkpoint_pages = database.CHECKPOINT_PAGES
        here = program.here = program.Here(random, self.clock.now_ms)
        here.is_dead = lambda: self.engine is None
        self.ledger = here.ledger
        self.here = here
        global_random.seed(random.random())  # the invoker's jitter

    @asynccontextmanager
    async def switched_on(self) -> AsyncIterator[Machine]:
        """The disk is there; whatever still runs at the end is killed."""
        before = processor.SLOW_COMMIT_S
        loggers = [logging.getLogger(name) for name in ("holdfast", "restate")]
        levels = [logger.level for logger in loggers]
        pages, commit = database.CHECKPOINT_PAGES, SqliteTables.commit
        database.CHECKPOINT_PAGES = self.checkpoint_pages
        SqliteTables.commit = self._commit(commit)  # pyright: ignore[reportAttributeAccessIssue]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)  # they report every failure that is made here
        with self.disk.installed(Random(self.random.random())):
            try:
                yield self
            finally:
                if self.engine is not None:
                    await self.kill()
                processor.SLOW_COMMIT_S, database.CHECKPOINT_PAGES = before, pages
                SqliteTables.commit = commit
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)

    def _commit(self, commit: Callable[[SqliteTables], None]) -> Callable[[SqliteTables], None]:
        """SQLite passes over an error in the checkpoint behind a commit and tries it again at the next. apsw does not: it
        raises what a layer written in Python has raised, although the commit has succeeded."""

        def counted(tables: SqliteTables) -> None:
            self.commits += 1
            self._die_at((self.commits, "before"))
            errors = self.disk.checkpoint_errors
            try:
                commit(tables)
            except apsw.Error:
                if self.disk.is_off or self.disk.checkpoint_errors == errors:
                    raise
            self._die_at((self.commits, "after"))

        return counted

    def _die_at(self, moment: tuple[int, str]) -> None:
        if moment == self.dies_at:
            self.on_death()
            self.disk.cut_power()
            raise PowerIsOff("killed")

    async def start(self) -> Engine:
        """A new process on what the disk has."""
        processor.SLOW_COMMIT_S = -1.0 if self.commits_in_thread else 1e9
        self.incarnation += 1
        self.here.incarnation = self.incarnation
        engine = Engine(
            self.wire,
            db=self.disk.folder / "engine.db",
            clock=self.clock,
            entropy=self.random.randbytes,
            **self.settings,
        )
        self.engine = engine
        try:
            await engine.start()
        except BaseException:
            self.engine = None
            raise
        self.up.set()
        self._watch = asyncio.create_task(self._watched(engine))
        return engine

    async def _watched(self, engine: Engine) -> None:
        await engine.stopped.wait()
        if self.engine is engine and not self.may_stop and not self.disk.is_off:
            self.stopped_by_itself.set_result(engine.failure)

    async def kill(self) -> None:
        """SIGKILL: what the operating system's cache has, stays."""
        self.disk.cut_power()
        await self._end()
        self.disk.is_off = False

    async def lose_power(self, keep: float | None = None) -> None:
        """What was synced stays, of the rest some."""
        self.disk.cut_power()
        images = self.disk.platters.after_power_loss(self.random, keep)
        await self._end()
        self.disk.restore_power(images)

    async def stop(self) -> None:
        """SIGTERM."""
        assert self.engine is not None
        self.up.clear()
        self.may_stop = True
        await self.engine.stop()
        await self._end()
        self.may_stop = False

    async def has_stopped(self) -> None:
        """The engine has ended by itself: let go of what is left of it."""
        self.up.clear()
        await self._end()

    def restore_after_failed_start(self, keep: float | None = None) -> None:
        """The power failed while an engine opened its file."""
        self.disk.restore_power(self.disk.platters.after_power_loss(self.random, keep))

    @property
    def has_database(self) -> bool:
        """There may be none when the power failed before the first start was done."""
        return "engine.db" in self.disk.platters.cache()

    async def _end(self) -> None:
        """The process is dead from here on; its coroutines learn it by and by."""
        engine, self.engine = self.engine, None
        self.up.clear()
        assert engine is not None
        if not engine.stopped.is_set():
            engine._processor.fail(EngineStopped("the process died"))
        self.loop.kill_threads()
        deadline_s = self.loop.time() + UNWIND_S
        while self.wire.open_streams:
            assert self.loop.time() < deadline_s, "a handler of a dead process does not end"
            await asyncio.sleep(0.01)

    # ---- requests --------------------------------------------------------------------------------------------------------

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> Got | None:
        """One HTTP request to the ingress; None when nobody can know what became of it."""
        engine = self.engine
        if engine is None:
            return None
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            fields["content-type"] = "application/json"
        got = await exchange(engine.ingress, Ask(method, path, content, fields))
        assert got.status < 500 or got.status == 503, f"{method} {path}: {got.status} {got.body!r}"
        return None if got.status == 503 else got

    async def persist(self, method: str, path: str, body: Any = None, **headers: str) -> Got:
        """Repeat the request until it is answered."""
        delay_s = 0.05
        while True:
            await self.up.wait()
            got = await self.request(method, path, body, **headers)
            if got is not None:
                return got
            await asyncio.sleep(delay_s)
            delay_s = min(1.0, 2 * delay_s)
