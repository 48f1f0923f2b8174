"""One SQLite file, used from any event loop: statements run one after the other in a thread of their own."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

BUSY_TIMEOUT_S = 30.0
"""How long a write waits for one of another process."""


class Database:
    """A connection and its thread. Opened when it is made; `close` it."""

    def __init__(self, path: Path, schema: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leads-db")
        self._connection = self._executor.submit(_connected, path, schema).result()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` outside a transaction."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, _in_thread, self._connection, work)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction: all of it is on disk when this returns, or nothing."""
        return await self.read(lambda connection: _in_transaction(connection, work))

    def close(self) -> None:
        self._executor.submit(self._connection.close).result()
        self._executor.shutdown()


def _connected(path: Path, schema: str) -> sqlite3.Connection:
    # No statements are shared between cursors: one that an exception keeps alive ends in whatever thread drops it.
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=0
    )
    connection.row_factory = sqlite3.Row
    # FULL: what a step has written must survive a power failure if the journal says that the step is done.
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;" + schema)
    return connection


def _in_thread(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run `work`; no cursor leaves this thread, because its end elsewhere would meddle with what runs here."""
    result = work(connection)
    if isinstance(result, sqlite3.Cursor):
        result.close()
        return cast(T, None)
    return result


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return result


def as_json(value: Any) -> str | None:
    """JSON text for a column; None stays NULL."""
    return None if value is None else msgspec.json.encode(value).decode()


def from_json(text: str | None, kind: Any = Any) -> Any:
    """The other way."""
    return None if text is None else msgspec.json.decode(text, type=kind)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
