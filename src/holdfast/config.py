"""Every setting of the embedded engine, with unit, default and limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Durability = Literal["full", "relaxed"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine.

    Raises:
        ValueError: a value outside its limits, with the limits.
    """

    durability: Durability = "full"
    """`full`: a commit is on disk (fsync) before anything of it leaves the process. `relaxed`: a commit is with the
    operating system; nothing is lost when the process dies, the last commits may be when the machine does."""

    attempts_max: int = 1000
    """Attempts that run at the same time; more invocations wait in status ready."""

    suspend_after_ms: int = 1000
    """An attempt that only waits is suspended after this time, so that it costs no memory. With more work waiting
    for a place, it is suspended at once. Needs protocol version 7, which tells that an attempt only waits; with 5 and 6
    it is the handler's inactivity timeout (a minute) that suspends."""

    body_bytes_max: int = 32 << 20
    """Largest request body and largest single journal entry."""

    eager_state_bytes_max: int = 32 << 20
    """State up to this size is sent along with the start of an attempt; of larger state the handler asks what it
    reads."""

    drain_ms: int = 10_000
    """On stop, how long running attempts may take to finish or suspend."""

    cleanup_interval_ms: int = 600_000
    """How often results past their retention are removed."""

    refuse_deadlocks: bool = True
    """A call to a key that is held by the caller itself, or by a handler that waits for the caller, fails with a terminal
    error (409) that says so. A Restate server lets such a call wait for ever."""

    protocol_version_max: int = 7
    """Newest service protocol version to use, 5 to 7."""

    def __post_init__(self) -> None:
        if self.durability not in ("full", "relaxed"):
            raise ValueError(f"durability must be 'full' or 'relaxed', not {self.durability!r}")
        if not 5 <= self.protocol_version_max <= 7:
            raise ValueError(f"protocol_version_max must be 5, 6 or 7, not {self.protocol_version_max}")
        for name in ("attempts_max", "body_bytes_max", "cleanup_interval_ms"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("suspend_after_ms", "eager_state_bytes_max", "drain_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
