"""A disk that can lose power and fail: a SQLite file system layer (VFS) with a model of what is really on the platters.

Every database opened in `folder` while a `Disk` is installed goes through it; nothing of the engine or of SQLite is
replaced. Reads and writes go to real files, as to the operating system's cache; beside them `Platters` keeps what would
be left if power failed now. A write is on the platters for certain when a sync of its file has returned, a new or
deleted name when its directory was synced. Everything younger may be there, or not, sector by sector, in any
combination; the rest of a file that became longer may be zeros, and a sector that was being written may be garbage.
What SQLite assumes of a disk is kept: bytes outside of a write do not change (`powersafe overwrite`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import apsw

SECTOR = 512
PAGE = 4096
"""What the operating system writes at once: a page with one new byte goes to the disk as a whole."""

_NEW_NAME_IS_SYNCED = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
"""SQLite syncs the directory with the first sync of these, and of no other file."""

CHANGES = ("create", "write", "truncate", "sync", "delete")
CALLS = ("open", "read", *CHANGES)

Images = dict[str, bytes]
"""File name -> content."""


@dataclass(frozen=True, slots=True)
class Op:
    """One call of SQLite to its file system that changes something."""

    kind: str
    """One of CHANGES."""
    file: str
    offset: int = 0
    """`truncate`: the new size."""
    data: bytes = b""
    syncs_folder: bool = False
    failed: bool = False
    """`sync` only: it returned an error, and the operating system took the dirty pages for clean."""


class _File:
    __slots__ = ("cache", "durable", "lost", "pending")

    def __init__(self, content: bytes = b"") -> None:
        self.cache = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[Op] = []
        """Since the last sync, in order."""
        self.lost: set[int] = set()
        """Pages that the cache has, the disk has not, and nobody will write: a sync of them has failed."""


class Platters:
    """What the disk holds, and what it may hold when power fails."""

    def __init__(self, images: Images | None = None) -> None:
        self._files = {name: _File(content) for name, content in (images or {}).items()}
        self._names: list[tuple[str, str, _File]] = []
        """Creations and deletions that the directory may not have yet, in order."""
        self._durable_names = dict(self._files)

    def apply(self, op: Op) -> None:
        if op.kind == "create":
            self._files[op.file] = file = _File()
            self._names.append(("create", op.file, file))
        elif op.kind == "delete":
            file = self._files.pop(op.file, None)
            if file is not None:
                self._names.append(("delete", op.file, file))
        elif op.kind == "sync":
            self._sync(self._files[op.file], failed=op.failed)
        else:
            self._change(self._files[op.file], op)
        if op.syncs_folder:
            self._durable_names = dict(self._files)
            self._names.clear()

    def _change(self, file: _File, op: Op) -> None:
        _perform(file.cache, op)
        pages = range(op.offset // PAGE, (op.offset + max(1, len(op.data)) - 1) // PAGE + 1)
        if op.kind == "write" and not file.lost.isdisjoint(pages):
            # These pages are dirty again, and are written as they are in the cache: with what was lost before.
            start = pages[0] * PAGE
            op = Op("write", op.file, start, bytes(file.cache[start : (pages[-1] + 1) * PAGE]))
            file.lost.difference_update(pages)
        file.pending.append(op)

    @staticmethod
    def _sync(file: _File, *, failed: bool) -> None:
        if failed:
            for op in file.pending:
                file.lost.update(range(op.offset // PAGE, (op.offset + max(1, len(op.data)) - 1) // PAGE + 1))
        else:
            for op in file.pending:
                _perform(file.durable, op)
        file.pending.clear()

    @property
    def is_settled(self) -> bool:
        """A power failure now has one outcome only."""
        return not self._names and not any(file.pending for file in self._files.values())

    def unsynced(self, start: int, stop: int) -> set[str]:
        """Files of which something between these offsets was written and not synced."""
        return {
            name
            for name, file in self._files.items()
            if any(op.kind == "write" and op.offset < stop and start < op.offset + len(op.data) for op in file.pending)
        }

    def cache(self) -> Images:
        """What the operating system shows: all that is left when only a process dies."""
        return {name: bytes(file.cache) for name, file in self._files.items()}

    def after_power_loss(self, random: Random, keep: float | None = None) -> Images:
        """One of the many contents the disk may have if power fails now.

        Args:
            keep: share of the unsynced sectors and names that have arrived; None picks one, 0 and 1 among them.
        """
        keep = random.choice((0.0, 1.0, 0.1, 0.5, 0.9)) if keep is None else keep
        names = dict(self._durable_names)
        for change, name, file in self._names:
            if random.random() < keep:
                if change == "create":
                    names[name] = file
                else:
                    names.pop(name, None)
        garbage = random.random() < 0.2
        return {name: self._file_after(file, random, keep, garbage=garbage) for name, file in names.items()}

    @staticmethod
    def _file_after(file: _File, random: Random, keep: float, *, garbage: bool) -> bytes:
        content = bytearray(file.durable)
        torn = random.random() < 0.5  # else each write is there as a whole or not at all
        for op in file.pending:
            if op.kind == "truncate":
                if random.random() < keep:
                    _perform(content, op)
                continue
            if not torn:
                if random.random() < keep:
                    _perform(content, op)
                continue
            for at in range(0, len(op.data), SECTOR):
                piece = op.data[at : at + SECTOR]
                if random.random() < keep:
                    _perform(content, Op("write", op.file, op.offset + at, piece))
                elif garbage and keep > 0 and random.random() < 0.3:
                    _perform(content, Op("write", op.file, op.offset + at, random.randbytes(len(piece))))
                elif random.random() < keep / 2:  # the file is longer already, its new sectors were never written
                    end = op.offset + at + len(piece)
                    content.extend(bytes(max(0, end - len(content))))
        return bytes(content)


def _perform(content: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        del content[op.offset :]
        content.extend(bytes(op.offset - len(content)))
        return
    if len(content) < op.offset:
        content.extend(bytes(op.offset - len(content)))
    content[op.offset : op.offset + len(op.data)] = op.data


def write_images(folder: Path, images: Images) -> Path:
    """Put these files into a folder, and nothing else; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in images.items():
        (folder / name).write_bytes(content)
    return folder


class PowerIsOff(apsw.IOError):
    """Every call after the cut ends like this: there is no disk any more."""


class Disk:
    """The layer under SQLite for all databases in `folder`. Install it with `installed()`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.platters = Platters(
            {path.name: path.read_bytes() for path in sorted(self.folder.iterdir()) if path.is_file()}
        )
        self.log: list[Op] = []
        self.calls = 0
        """All calls so far, also those that change nothing."""
        self.is_off = False
        self.capacity_bytes: int | None = None
        """Size of the disk: writes beyond it fail as those of a full disk do."""
        self.checkpoint_errors = 0
        """Calls that failed while SQLite moved its log to the database after a commit."""
        self.before: Callable[[str, str], BaseException | None] = lambda kind, file: None
        """Asked at every call, with one of CALLS and the file's name: an error fails the call."""
        self.after: Callable[[Op], None] = lambda op: None
        """Told every change, after it was made."""

    # ---- what the layer asks ---------------------------------------------------------------------------------------------

    def call(self, kind: str, file: str) -> None:
        """
        Raises:
            PowerIsOff, or what `before` says.
        """
        if self.is_off:
            raise PowerIsOff("power is off")
        self.calls += 1
        error = self.before(kind, file)
        if error is not None:
            self.fail(kind, file, error)

    def fail(self, kind: str, file: str, error: BaseException) -> NoReturn:
        if not self.is_off and self._is_checkpoint(kind, file):
            self.checkpoint_errors += 1
        if kind == "sync":
            self.record(Op("sync", file, failed=True))
        raise error

    def _is_checkpoint(self, kind: str, file: str) -> bool:
        """Whether this call belongs to a checkpoint: the database itself is written by nothing else."""
        if kind not in ("write", "sync", "truncate") or f"{file}-journal" in self.platters.cache():
            return False
        if file.endswith("-wal"):  # a checkpoint begins with a sync of the log, which has nothing to sync
            return kind == "sync" and not self.platters._files[file].pending
        return not file.endswith("-journal")

    def record(self, op: Op) -> None:
        self.platters.apply(op)
        self.log.append(op)
        self.after(op)

    def room_for(self, file: str, end: int) -> bool:
        """Whether this file may grow until `end`."""
        if self.capacity_bytes is None or end <= self._size(file):
            return True
        others = sum(len(one.cache) for name, one in self.platters._files.items() if name != file)
        return others + end <= self.capacity_bytes

    def _size(self, file: str) -> int:
        return len(self.platters._files[file].cache)

    @property
    def used_bytes(self) -> int:
        return sum(len(one.cache) for one in self.platters._files.values())

    # ---- what a test does ------------------------------------------------------------------------------------------------

    def cut_power(self) -> None:
        """From now on every call fails. What is on the platters is in `platters`."""
        self.is_off = True

    def restore_power(self, images: Images) -> None:
        """The machine starts again, and finds this. All files must be closed."""
        write_images(self.folder, images)
        self.platters = Platters(images)
        self.is_off = False

    @contextmanager
    def installed(self, random: Random | None = None) -> Generator[Disk]:
        """Every database in the folder that is opened inside is on this disk.

        Args:
            random: where SQLite takes the salt of its log and the like from; the operating system by default.
        """
        layer = _Layer(self, random)
        apsw.randomness(0)  # its generator is the process's, and asks a layer for a new seed after this only
        try:
            yield self
        finally:
            layer.unregister()
            apsw.randomness(0)


_number = 0


class _Layer(apsw.VFS):
    def __init__(self, disk: Disk, random: Random | None) -> None:
        global _number  # noqa: PLW0603 - a name of its own for every layer of this process
        _number += 1
        self._disk = disk
        self._random = random
        self._below = "unix"
        super().__init__(f"power-{_number}", self._below, makedefault=True)

    def _name(self, path: str) -> str | None:
        """The file's name, or None when it is none of ours (temporary copies, other folders)."""
        place = Path(path)
        return place.name if place.parent.resolve() == self._disk.folder else None

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's names, here and below
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        ours = None if path is None else self._name(path)
        if ours is None or path is None:
            return apsw.VFSFile(self._below, name, flags)
        self._disk.call("open", ours)
        is_new = not Path(path).exists()
        file = _LayerFile(self._disk, ours, self._below, name, flags)
        # A file that the engine made itself, with the operating system's own calls, is new to us all the same.
        if is_new or ours not in self._disk.platters._files:
            self._disk.call("create", ours)
            self._disk.record(Op("create", ours))
            file.syncs_folder = bool(flags[0] & _NEW_NAME_IS_SYNCED)
        return file

    def xRandomness(self, numbytes: int) -> bytes | None:  # noqa: N802
        return super().xRandomness(numbytes) if self._random is None else self._random.randbytes(numbytes)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        ours = self._name(filename)
        if ours is None:
            super().xDelete(filename, syncdir)
            return
        self._disk.call("delete", ours)
        super().xDelete(filename, syncdir)
        self._disk.record(Op("delete", ours, syncs_folder=bool(syncdir)))


class _LayerFile(apsw.VFSFile):
    def __init__(self, disk: Disk, file: str, below: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._file = file
        self.syncs_folder = False
        super().__init__(below, name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.call("read", self._file)
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        disk = self._disk
        content = bytes(data)
        disk.call("write", self._file)
        if not disk.room_for(self._file, offset + len(content)):
            disk.fail("write", self._file, apsw.FullError("database or disk is full"))
        super().xWrite(content, offset)
        disk.record(Op("write", self._file, offset, content))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.call("truncate", self._file)
        super().xTruncate(newsize)
        self._disk.record(Op("truncate", self._file, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        # Not passed on: the model is the disk, and a real sync would only cost time.
        self._disk.call("sync", self._file)
        self._disk.record(Op("sync", self._file, syncs_folder=self.syncs_folder))
        self.syncs_folder = False


# ---- errors as SQLite's own layer reports them -----------------------------------------------------------------------------


def io_error(kind: str) -> BaseException:
    """EIO at a call of this kind."""
    codes = {
        "open": apsw.SQLITE_CANTOPEN,
        "create": apsw.SQLITE_CANTOPEN,
        "read": apsw.SQLITE_IOERR_READ,
        "write": apsw.SQLITE_IOERR_WRITE,
        "truncate": apsw.SQLITE_IOERR_TRUNCATE,
        "sync": apsw.SQLITE_IOERR_FSYNC,
        "delete": apsw.SQLITE_IOERR_DELETE,
    }
    return apsw.exception_for(codes[kind])


def full_error(kind: str) -> BaseException:
    """ENOSPC: SQLite's layer makes SQLITE_FULL of it at a write, and an I/O error at all other calls."""
    return apsw.FullError("database or disk is full") if kind == "write" else io_error(kind)


ENOSPC = errno.ENOSPC
