"""One SurrealDB, embedded on disk or a server by URL, with errors that cannot be overlooked.

Embedded, measured with the Python SDK 2.0.0 (SurrealDB 2.3, SurrealKV 0.9) on Linux, SIGKILL right after an awaited
write, then reopening and counting: nothing acknowledged was ever lost, with or without SURREAL_SYNC_DATA. What that
variable adds is the fsync at each commit, which a power failure needs (1,800 instead of 2,700 small writes a second).
We set it. A transaction that was being committed at the kill was there or not, except for one in some hundred kills,
which was there in part (160 rows; ports without their edges). So recon relies on what was acknowledged, and repeats what
was not. Not protected by the engine: a second process may open the same directory and both write to it. Hence the lock.

A server: when its connection is lost, the calls that were waiting fail with `StoreUnavailable`, and the next call
connects again. All writes of recon may be repeated, so a step simply runs again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from surrealdb import AsyncEmbeddedSurrealConnection, AsyncWsSurrealConnection
from surrealdb.errors import SurrealError
from websockets.exceptions import WebSocketException

NAMESPACE = "spectra"
DATABASE = "intel_mesh"

CONNECT_TIMEOUT_S = 10
"""For connecting and signing in; a server that is there answers in milliseconds."""

AUTH_LEVELS = ("root", "namespace", "database")


class StoreError(Exception):
    """The database refused a query or failed; the text is its own."""


class StoreInUse(StoreError):
    """Another process owns the directory."""


class StoreRefused(StoreError):
    """Not a database of ours, one of a newer version, or credentials that the server does not take."""


class StoreUnavailable(StoreError):
    """The server cannot be reached, or the connection was lost. Trying again later may help."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A SurrealDB server and how to sign in."""

    url: str
    """`ws://` or `wss://`, without `/rpc`."""
    user: str
    password: str
    namespace: str = NAMESPACE
    database: str = DATABASE
    auth_level: str = "root"
    """Where the user is defined: `root`, `namespace` or `database`."""

    def __repr__(self) -> str:
        """Without the password: this may come into a log."""
        return f"{self.url} as {self.user}, {self.namespace}/{self.database}"

    def credentials(self) -> dict[str, Any]:
        """Parameters of `signin`."""
        named = {"username": self.user, "password": self.password}
        if self.auth_level != "root":
            named["namespace"] = self.namespace
        if self.auth_level == "database":
            named["database"] = self.database
        return named


class Surreal:
    """A database that checks every statement of a query and lets one transaction of this process write at a time."""

    def __init__(self, connection: Any, *, lock_fd: int | None = None, address: ServerAddress | None = None) -> None:
        self._connection: Any = connection
        self._lock_fd = lock_fd
        self._address = address
        self._connecting = asyncio.Lock()
        # The engine detects conflicting transactions and fails one of them. Taking turns costs less than repeating.
        self._writing = asyncio.Lock()
        # Only the first of those that wait here stands before `_writing`, so whoever is urgent waits for two at most.
        self._queue = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, namespace: str = NAMESPACE, database: str = DATABASE) -> Surreal:
        """Open or create the database directory `path`.

        Raises:
            StoreInUse: another process has it open.
            StoreRefused: `path` is something else.
        """
        path = path.absolute()
        if path.exists() and not path.is_dir():
            raise StoreRefused(f"{path} is a file; SurrealDB needs a directory of its own")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_fd = _own(path.with_name(path.name + ".lock"))
        try:
            # Read by the engine when its first database opens. A user's own choice is respected.
            os.environ.setdefault("SURREAL_SYNC_DATA", "true")
            connection = AsyncEmbeddedSurrealConnection(f"surrealkv://{path}")
            await connection.connect()
            await connection.use(namespace, database)
        except RuntimeError as error:
            os.close(lock_fd)
            raise StoreRefused(f"{path} cannot be opened as a SurrealDB database: {error}") from error
        return cls(connection, lock_fd=lock_fd)

    @classmethod
    async def connect(cls, address: ServerAddress) -> Surreal:
        """Connect to a server and sign in.

        Raises:
            StoreUnavailable: nothing answers there.
            StoreRefused: what answers is no SurrealDB, or does not take user and password.
        """
        return cls(await _connect(address), address=address)

    async def close(self) -> None:
        """Close the database and give up ownership."""
        async with self._writing:
            if self._connection is not None:
                await self._connection.close()
            if self._lock_fd is not None:
                os.close(self._lock_fd)

    async def read(self, sql: str, **params: Any) -> list[Any]:
        """Run statements that change nothing. Returns the result of each.

        Raises:
            StoreError: any statement failed.
        """
        return await self._run(sql, params)

    async def write(self, sql: str, **params: Any) -> list[Any]:
        """Run statements that change something, alone, in the order of the calls. What it returns is on disk.

        Raises:
            StoreError: any statement failed; if they stand between BEGIN and COMMIT, none took effect.
            StoreUnavailable: the connection was lost; they may have taken effect or not.
        """
        async with self._queue, self._writing:
            return await self._run(sql, params)

    async def write_urgently(self, sql: str, **params: Any) -> list[Any]:
        """The same before all others that wait: for what somebody waits for."""
        async with self._writing:
            return await self._run(sql, params)

    async def _run(self, sql: str, params: dict[str, Any]) -> list[Any]:
        # Not `query()`: that looks at the first statement only and drops the errors of all others.
        if self._address is None:
            try:
                response: dict[str, Any] = await self._connection.query_raw(sql, params)
            except RuntimeError as error:
                raise StoreError(str(error)) from error
        else:
            response = await self._ask_server(self._address, sql, params)
        if response.get("error"):
            error: Any = response["error"]
            raise StoreError(str(cast(dict[str, Any], error).get("message") if isinstance(error, dict) else error))
        statements = cast(list[dict[str, Any]], response["result"])
        failures = [str(each["result"]) for each in statements if each["status"] != "OK"]
        if failures:
            # In a failed transaction every statement reports failure; the one that says why is worth showing.
            raise StoreError(next((text for text in failures if "not executed" not in text), failures[0]))
        return [each["result"] for each in statements]

    async def _ask_server(self, address: ServerAddress, sql: str, params: dict[str, Any]) -> dict[str, Any]:
        async with self._connecting:
            if self._connection is None:
                self._connection = await _connect(address)
            connection: Any = self._connection
        try:
            return await connection.query_raw(sql, params)
        except (OSError, WebSocketException, SurrealError) as error:
            await self._drop(connection)
            raise StoreUnavailable(f"the connection to SurrealDB at {address.url} was lost: {error}") from error
        except (KeyError, asyncio.CancelledError):
            # When the connection ends, the SDK (2.0) cancels what waits for an answer, and then trips over its own
            # table of what waits. It is a cancellation only if somebody cancelled us.
            if _is_cancelled():
                raise
            await self._drop(connection)
            raise StoreUnavailable(f"the connection to SurrealDB at {address.url} was lost") from None

    async def _drop(self, connection: Any) -> None:
        async with self._connecting:
            if self._connection is connection:
                self._connection = None
                await connection.close()


async def _connect(address: ServerAddress) -> Any:
    connection = AsyncWsSurrealConnection(address.url)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connection.connect()
            await connection.signin(address.credentials())
            await connection.use(address.namespace, address.database)
    except SurrealError as error:
        await connection.close()
        raise StoreRefused(
            f"SurrealDB at {address.url} refused user {address.user!r} ({address.auth_level} user) for "
            f"{address.namespace}/{address.database}: {error}; check SURREALDB_USER, SURREALDB_PASS, "
            "SURREALDB_NAMESPACE and SURREALDB_DATABASE"
        ) from None
    except TimeoutError:
        await connection.close()
        raise StoreUnavailable(
            f"SurrealDB at {address.url} did not answer within {CONNECT_TIMEOUT_S} s; check SURREALDB_URL"
        ) from None
    except OSError as error:
        raise StoreUnavailable(f"SurrealDB at {address.url} cannot be reached: {error}; check SURREALDB_URL") from None
    except WebSocketException as error:
        raise StoreRefused(f"{address.url} is no SurrealDB server: {error}; check SURREALDB_URL") from None
    except (KeyError, asyncio.CancelledError):  # as in `_ask_server`
        if _is_cancelled():
            raise
        raise StoreUnavailable(f"SurrealDB at {address.url} closed the connection; check SURREALDB_URL") from None
    return connection


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _own(lock_path: Path) -> int:
    """Take the lock that the kernel gives back when the process ends, however it ends."""
    lock_fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock_fd, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock_fd)
        directory = str(lock_path).removesuffix(".lock")
        raise StoreInUse(f"{directory} is in use by process {owner}; stop it, or choose another directory") from None
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
    return lock_fd
