"""How much memory this process may take with the embedded database, which keeps all of its keys there.

Nothing here makes the database smaller. It refuses what would not fit while the service can still say so: a process
that the kernel kills for its size is killed again at each start.
"""

from __future__ import annotations

import os
from pathlib import Path

from apps.recon.settings import Settings

SHARE = 0.75
"""Of the machine's or container's memory, unless the settings say how much."""

FULL = (
    "the embedded database is full: it keeps its keys in memory; use a SurrealDB server, or raise RECON_MEMORY_MAX_MB"
)

_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Room:
    """Whether more may come in. There always is room with a SurrealDB server: what is in it is not in this process."""

    def __init__(self, settings: Settings) -> None:
        if settings.surrealdb_url is not None:
            self.max_bytes: int | None = None
        elif settings.memory_max_mb is not None:
            self.max_bytes = settings.memory_max_mb * 1_000_000
        else:
            self.max_bytes = int(available_bytes() * SHARE)

    @property
    def is_full(self) -> bool:
        """The process is larger than it may be. A look takes some microseconds."""
        return self.max_bytes is not None and resident_bytes() > self.max_bytes


def available_bytes() -> int:
    """What the machine has, or the container may take."""
    limits = [os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES]
    for file in _CONTAINER_LIMITS:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # not this version of cgroups, or no limit
            continue
    return min(limits)


def resident_bytes() -> int:
    """What this process takes; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
