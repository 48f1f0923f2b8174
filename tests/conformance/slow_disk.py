"""A disk on which every fsync takes its time: SQLite's own file system layer with a delay, no engine code replaced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

FSYNC_S = 0.005
"""A network disk, or a hard disk under load. An engine that commits in the event loop's thread must not do so here."""


@contextmanager
def slow_disk() -> Iterator[None]:
    """Every database opened inside is on the slow disk."""
    real = apsw.vfs_names()[0]

    class SlowFile(apsw.VFSFile):
        def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
            time.sleep(FSYNC_S)  # the fault itself, not a wait for something
            super().xSync(flags)

    class SlowDisk(apsw.VFS):
        def __init__(self) -> None:
            super().__init__("slow-disk", real, makedefault=True)

        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
            return SlowFile(real, name, flags)

    disk = SlowDisk()
    try:
        yield
    finally:
        disk.unregister()
