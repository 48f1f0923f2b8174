"""What a scanner promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from apps.recon.campaigns.model import OpenPort


class ScanFailed(Exception):
    """The scan did not work this time; it may work later."""


class ScanTimedOut(Exception):
    """The target took longer than its limit. Scanning it again at once would take as long again."""


class ScannerMissing(Exception):
    """The scanner's program is not installed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one scan of one address found."""

    is_up: bool
    """It answered: a port was open, or refused the connection."""
    ports: list[OpenPort] = field(default_factory=list[OpenPort])
    """In the order of their numbers."""


class Scanner(Protocol):
    """One way to scan. May be called for many addresses at the same time."""

    async def scan(self, address: str, ports: Sequence[int], *, limit_s: float) -> Found:
        """Scan one address.

        Args:
            address: Checked against the allow-list by the caller; never a name.
            ports: TCP ports to look at.
            limit_s: For the whole target.
        Raises:
            ScanFailed: try again.
            ScanTimedOut: it took longer than `limit_s`.
            ScannerMissing: it cannot work on this machine.
        """
        ...
