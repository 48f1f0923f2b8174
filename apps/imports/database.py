"""One DuckDB database (a file, or MotherDuck), owned by one process, called from outside the event loop.

Writes take turns in one thread. Reads have a thread and a cursor of their own: they see the last committed state and
do not wait for a batch that is being written.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb

from apps.imports.settings import Settings

_T = TypeVar("_T")


class StoreError(Exception):
    """The database refused or failed; the text is its own, in one line and without the token."""


class StoreBroken(StoreError):
    """The open database cannot be used any more, for example after a full disk; it must be opened again."""


class StoreInUse(StoreError):
    """Another process has the file open for writing."""


class StoreRefused(StoreError):
    """Not a database of ours, or one of a newer version, or no database at all."""


class Database:
    """An open database. `open` it, `close` it; after that it cannot be used again."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lock_fd: int | None, secret: str | None) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._lock_fd = lock_fd
        self._secret = secret
        self._writer = ThreadPoolExecutor(1, "duckdb-write")
        self._reader = ThreadPoolExecutor(1, "duckdb-read")

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open or create the database that `settings` names. Blocks.

        Raises:
            StoreInUse: another process owns the file.
            StoreRefused: it is no DuckDB file, or MotherDuck cannot be reached or refuses the token.
        """
        url, token = settings.database_url, settings.motherduck_token
        config: dict[str, Any] = {"memory_limit": f"{settings.memory_limit_mb}MiB", "preserve_insertion_order": "true"}
        if settings.threads:
            config["threads"] = settings.threads
        lock_fd = None
        if settings.is_motherduck:
            if token:
                config["motherduck_token"] = token
        else:
            path = Path(url).absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            lock_fd = _own(path)
            config["temp_directory"] = str(path.with_name(path.name + ".tmp"))
        try:
            return cls(duckdb.connect(url, config=config), lock_fd, token)
        except duckdb.Error as error:
            if lock_fd is not None:
                os.close(lock_fd)
            text = one_line(error, token)
            if "lock" in text.lower() and not settings.is_motherduck:
                raise StoreInUse(f"{url} is in use: {text}") from None
            raise StoreRefused(f"cannot open {url}: {text}") from None  # the original may hold the token

    async def write(self, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        """Run `work` in one transaction, after all writes before it.

        Raises:
            StoreError: the database failed; nothing of `work` is there.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._in_transaction, work)

    async def read(self, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        """Run `work`, which only reads, on one state of the database.

        Raises:
            StoreError
        """
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._on_one_state, work)

    async def close(self) -> None:
        """Wait for what runs, then close."""
        await asyncio.to_thread(self._close)

    def _in_transaction(self, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        with self._errors(), transaction(self._connection):
            return work(self._connection)

    def _on_one_state(self, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        with self._errors(), transaction(self._cursor):
            return work(self._cursor)

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except duckdb.Error as error:
            is_broken = isinstance(error, duckdb.FatalException) or "has been invalidated" in str(error)
            raise (StoreBroken if is_broken else StoreError)(one_line(error, self._secret)) from None

    def _close(self) -> None:
        self._reader.shutdown()
        self._writer.shutdown()
        self._cursor.close()
        self._connection.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Generator[None]:
    """All of the block, or nothing."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        try:
            connection.rollback()
        except duckdb.Error:
            pass  # a failed commit has rolled back already
        raise


@contextmanager
def unordered(connection: duckdb.DuckDBPyConnection) -> Generator[None]:
    """For inserts whose order does not matter. With order, two threads leave row groups half full, and the checkpoint
    writes the table a second time: measured, 0.5 s after 0.75 s of inserting."""
    connection.execute("SET preserve_insertion_order = false")
    try:
        yield
    finally:
        with suppress(duckdb.Error):  # after a failed statement only a rollback is possible
            connection.execute("SET preserve_insertion_order = true")


def one_line(error: BaseException, secret: str | None = None) -> str:
    """The error's text in one line, at most 500 characters, with `secret` blotted out."""
    text = " ".join(str(error).split())
    return (text.replace(secret, "***") if secret else text)[:500]


def _own(path: Path) -> int:
    """DuckDB's own lock does not tell two stores of one process apart, and its message is long."""
    lock = path.with_name(path.name + ".lock")
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(fd, 20).decode(errors="replace").strip()
        os.close(fd)
        raise StoreInUse(
            f"{path} is in use by process {holder or 'unknown'}; a database file has one writer: "
            "stop that process, or give this one another file"
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return fd
