"""Open the database file: one owner, never a foreign or damaged file, pragmas that make a commit mean something."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import os
import sys
from importlib import resources
from pathlib import Path
from typing import IO

import apsw

from holdfast.errors import DatabaseInUse, DatabaseRefused

APPLICATION_ID = 0x484F4C44  # "HOLD", in the SQLite header of every holdfast database
SCHEMA_VERSION = 1
CHECKED_BYTES_MAX = 64 << 20
"""Files up to this size are checked page by page at start (about 0.1 s); SQLite finds damage in larger ones on use."""

CHECKPOINT_PAGES = 4000
"""Write-ahead log size that starts a checkpoint: 16 MiB, so that its fsync is paid for by thousands of commits."""


CACHE_KIB = 4 * 1024
"""SQLite's page cache. What the hot path touches fits; the operating system caches the rest of the file."""


class Owner:
    """The right to write one database file, held by an operating-system lock that dies with the process."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DatabaseInUse: another engine holds it; the message names its pid.
        """
        self._path = path.with_name(path.name + ".owner")
        self._file: IO[str] = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        if not _try_lock(self._file):
            pid = self._file.read().strip() or "unknown"
            self._file.close()
            raise DatabaseInUse(
                f"{path} is in use by the engine of process {pid}",
                hint="stop that process first, use its HTTP API or `holdfast` commands, or choose another file",
            )
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        # The file stays: removing it would let a third process lock a new one while a second holds the old.
        self._file.seek(0)
        self._file.truncate(0)
        self._file.close()


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _try_lock(file: IO[str]) -> bool:
        try:
            # One byte far behind the pid, because a locked region cannot be read by others on Windows.
            file.seek(1 << 20)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        except OSError:
            file.seek(0)
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def connect(path: Path | None, *, fsync: bool) -> apsw.Connection:
    """A connection to a checked, migrated database; None means in memory.

    Args:
        fsync: every commit waits until the disk has it. Without, a power loss may take the last commits; a crash of
            the process never does.
    Raises:
        DatabaseRefused: not a holdfast database, a newer schema, or damaged. The file was not changed.
    """
    if path is None:
        connection = apsw.Connection(":memory:")
    else:
        if not path.parent.is_dir():
            raise DatabaseRefused(
                f"the directory {path.parent} does not exist", hint=f"create it first: mkdir -p {path.parent}"
            )
        if path.exists():
            _refuse_foreign(path)
        else:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full" if fsync else "normal")
    connection.pragma("fullfsync", True)  # macOS: fsync alone leaves data in the drive's cache
    connection.pragma("checkpoint_fullfsync", True)
    connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
    connection.pragma("cache_size", -CACHE_KIB)
    connection.pragma("temp_store", "memory")
    connection.pragma("foreign_keys", False)
    _migrate(connection)
    return connection


def _refuse_foreign(path: Path) -> None:
    if path.is_dir():
        raise DatabaseRefused(f"{path} is a directory", hint="give the path of a file")
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        magic = file.read(16)
    if magic != b"SQLite format 3\x00":
        raise DatabaseRefused(f"{path} is not a SQLite database", hint="it was left untouched; choose another file")
    try:
        # Read-only, so that nothing of a foreign file is changed, not even its log.
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            application_id = int(str(reader.pragma("application_id")))
            version = int(str(reader.pragma("user_version")))
            tables = reader.execute("SELECT count(*) FROM sqlite_schema").get
            damage = None
            if application_id == APPLICATION_ID and path.stat().st_size <= CHECKED_BYTES_MAX:
                damage = reader.execute("PRAGMA quick_check(1)").get
        finally:
            reader.close()
    except apsw.Error as error:
        raise DatabaseRefused(
            f"{path} cannot be read: {error}",
            hint="the file is damaged or locked by another program; it was left untouched. Restore a backup, or move "
            "it away together with its -wal file and start anew",
        ) from error
    if damage not in (None, "ok"):
        raise DatabaseRefused(
            f"{path} is damaged: {damage}",
            hint="it was left untouched. Restore a backup, or save what can be read with: "
            f"sqlite3 {path} .recover | sqlite3 saved.db",
        )
    if application_id != APPLICATION_ID and tables:
        raise DatabaseRefused(
            f"{path} is a SQLite database of another program", hint="it was left untouched; choose another file"
        )
    if application_id == APPLICATION_ID and version > SCHEMA_VERSION:
        raise DatabaseRefused(
            f"{path} has schema version {version}, this holdfast knows up to {SCHEMA_VERSION}",
            hint="it was written by a newer holdfast: upgrade this one (pip install -U holdfast)",
        )


def _migrate(connection: apsw.Connection) -> None:
    version = int(str(connection.pragma("user_version")))
    scripts = sorted(
        (entry for entry in resources.files("holdfast.store.migrations").iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    for number, script in enumerate(scripts, start=1):
        if number > version:
            with connection:
                connection.execute(script.read_text())
                connection.pragma("user_version", number)
                connection.pragma("application_id", APPLICATION_ID)
