"""Open the database file: one owner, never a foreign or damaged file, pragmas that make a commit mean something."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import logging
import os
import shutil
import stat
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import IO

import apsw

from holdfast.errors import DatabaseInUse, DatabaseRefused
from holdfast.store import leftovers

log = logging.getLogger("holdfast.store")

APPLICATION_ID = 0x484F4C44  # "HOLD", in the SQLite header of every holdfast database
SCHEMA_VERSION = 5
CHECKED_BYTES_MAX = 64 << 20
"""Files up to this size are checked page by page at start (about 0.1 s); SQLite finds damage in larger ones on use."""

CHECKPOINT_PAGES = 4000
"""Write-ahead log size that starts a checkpoint: 16 MiB, so that its fsync is paid for by thousands of commits."""


_COPY_BYTES = 1 << 16
"""SQLite's own VFS writes at most 128 KiB - 1 at a time, and takes a multiple of 128 KiB for nothing: `disk is full`."""

CACHE_KIB = 4 * 1024
"""SQLite's page cache. What the hot path touches fits; the operating system caches the rest of the file."""


class Owner:
    """The right to write one database file, held by an operating-system lock that dies with the process."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DatabaseInUse: another engine holds it; the message names its pid.
            DatabaseRefused: there can be no file at this path.
        """
        check_place(path)
        self._path = path.with_name(path.name + ".owner")
        self._file: IO[str] = os.fdopen(_make_file(self._path), "r+")
        if not _try_lock(self._file):
            pid = self._file.read().strip() or "unknown"
            self._file.close()
            raise DatabaseInUse(
                f"{path} is in use by the engine of process {pid}",
                hint="stop that process first, use its HTTP API or `holdfast` commands, or choose another file",
            )
        try:
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), str(os.getpid()).encode())
        except OSError:
            pass  # the disk is full: the lock counts, the pid only tells others who has it

    def release(self) -> None:
        # The file stays: removing it would let a third process lock a new one while a second holds the old.
        os.ftruncate(self._file.fileno(), 0)
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


def _make_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DatabaseRefused(
            f"{path} cannot be opened: {error.strerror or error}",
            hint="the user of this process needs the right to write it and its directory, and space on the disk",
        ) from error


def connect(path: Path | None, *, fsync: bool) -> apsw.Connection:
    """A connection to a checked, migrated database; None means in memory.

    Args:
        fsync: every commit waits until the disk has it. Without, a power loss may take the last commits; a crash of
            the process never does.
    Raises:
        DatabaseRefused: not a holdfast database, a newer schema, or damaged. The file was not changed.
        apsw.Error: the file cannot be used: I/O error, disk full.
    """
    if path is None:
        connection = apsw.Connection(":memory:")
    else:
        check_place(path)
        if path.exists() and path.stat().st_size > 0:
            _refuse_foreign(path)
        elif not path.exists():
            os.close(_make_file(path))
        _make_private(path)
        _write_log_again(path)
        connection = apsw.Connection(str(path))
    try:
        _prepare(connection, fsync=fsync)
    except BaseException:
        connection.close(True)  # not by the garbage collector, some time later
        raise
    return connection


def _write_log_again(path: Path) -> None:
    """Bring to the disk what an earlier process left of its log, whatever became of its syncs.

    When a sync fails the operating system takes the pages for clean: they are in its cache, and neither on the disk nor
    ever written. SQLite would move them to the database and believe its log to be as new; a power loss would then find
    an older log, and play it back over a newer database. Written again, the pages are dirty, and a sync means something.

    Raises:
        apsw.Error: the log cannot be read or written.
    """
    log_path = path.with_name(path.name + "-wal")
    size = log_path.stat().st_size if log_path.exists() else 0
    if size == 0:
        return
    file = apsw.VFSFile("", str(log_path), [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        for offset in range(0, size, _COPY_BYTES):
            file.xWrite(file.xRead(min(_COPY_BYTES, size - offset), offset), offset)
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()


def _make_private(path: Path) -> None:
    """Take from others what rights they have to a file that was made elsewhere: it holds what callers sent."""
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        try:
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                file.chmod(mode & stat.S_IRWXU)
                log.warning("others could read the database; now only its owner can", extra={"file": str(file)})
        except FileNotFoundError:
            pass
        except PermissionError:
            log.warning("others can read the database, and only its owner can change that", extra={"file": str(file)})


def _prepare(connection: apsw.Connection, *, fsync: bool) -> None:
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full" if fsync else "normal")
    connection.pragma("fullfsync", True)  # macOS: fsync alone leaves data in the drive's cache
    connection.pragma("checkpoint_fullfsync", True)
    connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
    connection.pragma("cache_size", -CACHE_KIB)
    connection.pragma("temp_store", "memory")
    connection.pragma("foreign_keys", False)
    _migrate(connection)


def check_place(path: Path) -> None:
    """
    Raises:
        DatabaseRefused: there can be no database file at this path.
    """
    if not path.parent.is_dir():
        raise DatabaseRefused(
            f"the directory {path.parent} does not exist", hint=f"create it first: mkdir -p {path.parent}"
        )
    if path.is_dir():
        raise DatabaseRefused(f"{path} is a directory", hint="give the path of a file")


_UNTOUCHED = "it was left untouched"


def _refuse_foreign(path: Path) -> None:
    """Read the file's header, and the whole of a small file, without changing anything, not even its log."""
    header = leftovers.header(path)
    if not header:
        return
    if not header.startswith(leftovers.MAGIC):
        raise DatabaseRefused(f"{path} is not a SQLite database", hint=f"{_UNTOUCHED}; choose another file")
    # Offsets 60 and 68 of the SQLite header: user version and application id.
    version, application_id = int.from_bytes(header[60:64], "big"), int.from_bytes(header[68:72], "big")
    if application_id == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise DatabaseRefused(
                f"{path} has schema version {version}, this holdfast knows up to {SCHEMA_VERSION}",
                hint=f"{_UNTOUCHED}. A newer holdfast wrote it: upgrade this one (pip install -U holdfast)",
            )
        _refuse_damaged(path)
    elif application_id or version or _has_tables(path):
        raise DatabaseRefused(
            f"{path} is a SQLite database of another program", hint=f"{_UNTOUCHED}; choose another file"
        )


def _refuse_damaged(path: Path) -> None:
    beside = leftovers.companions(path)
    if sum(file.stat().st_size for file in (path, *beside)) > CHECKED_BYTES_MAX:
        return
    try:
        if not beside:
            damage = _quick_check(path, immutable=True)
        else:
            # After a crash only file and log together make sense, and reading them together writes a third file.
            with tempfile.TemporaryDirectory() as folder:
                for file in (path, *beside):
                    shutil.copyfile(file, Path(folder, file.name))
                damage = _quick_check(Path(folder, path.name), immutable=False)
    except OSError:
        return  # no space for a copy: SQLite finds damage on use
    except apsw.Error as error:
        damage = str(error)
    if damage != "ok":
        raise DatabaseRefused(
            f"{path} is damaged: {damage}",
            hint=f"{_UNTOUCHED}. Restore a backup, or save what can be read: "
            f"sqlite3 {path} .recover | sqlite3 saved.db",
        )


def _quick_check(path: Path, *, immutable: bool) -> str:
    reader = _open_reader(path, immutable=immutable)
    try:
        return str(reader.execute("PRAGMA quick_check(1)").get)
    finally:
        reader.close()


def _has_tables(path: Path) -> bool:
    try:
        reader = _open_reader(path, immutable=True)
        try:
            return bool(reader.execute("SELECT count(*) FROM sqlite_schema").get)
        finally:
            reader.close()
    except apsw.Error as error:
        raise DatabaseRefused(f"{path} cannot be read: {error}", hint=f"{_UNTOUCHED}; choose another file") from error


def _open_reader(path: Path, *, immutable: bool) -> apsw.Connection:
    uri = path.absolute().as_uri() + ("?immutable=1" if immutable else "")
    access = apsw.SQLITE_OPEN_READONLY if immutable else apsw.SQLITE_OPEN_READWRITE
    return apsw.Connection(uri, flags=access | apsw.SQLITE_OPEN_URI)


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
    if version < len(scripts):
        connection.wal_checkpoint(
            mode=apsw.SQLITE_CHECKPOINT_TRUNCATE
        )  # so that the file's own header says whose it is
