"""What an engine knows at one moment, for whoever reads its rows: the half of an invocation that only memory has."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import apsw

from holdfast.core.catalog import Catalog, Deployment
from holdfast.core.model import Invocation, Status
from holdfast.protocol.discovery import ServiceSpec
from holdfast.protocol.messages import AttemptError


@dataclass(frozen=True, slots=True)
class Live:
    """An invocation that an attempt works on, or that waits for its next one. Times are epoch milliseconds."""

    id: str
    in_flight: bool
    attempt_count: int
    """Attempts so far, with the one in flight."""
    next_retry_at_ms: int | None
    last_error: AttemptError | None
    last_start_at_ms: int | None
    last_deployment_id: str | None
    last_sdk_version: str | None
    deployment_id: str | None
    """What it is bound to; in-process deployments are written to the row later."""
    protocol_version: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Plain data: it can be handed to another process."""

    database: bytes | None
    """A copy of a database that is in memory; None when it is a file, which anybody can read."""
    live: dict[int, Live]
    """By `seq`."""
    deployments: list[Deployment]
    """Oldest first."""
    services: dict[str, ServiceSpec]
    revisions: dict[str, tuple[int, str]]
    """Service -> its newest revision, and that one's deployment."""


def take_snapshot(writer: apsw.Connection | None, resident: Iterable[Invocation], catalog: Catalog) -> Snapshot:
    """Call it in the engine's loop while no batch is being committed.

    Args:
        writer: The engine's connection if its database is in memory.
    """
    live = {inv.seq: _live(inv) for inv in resident if inv.status == Status.INVOKED and inv.attempt}
    revisions: dict[str, tuple[int, str]] = {}
    for service in catalog.services:
        latest = catalog.latest(service)
        if latest is not None:
            revisions[service] = (latest.revisions[service], latest.id)
    database = None if writer is None else writer.serialize("main")
    return Snapshot(database, live, [*catalog.deployments.values()], dict(catalog.services), revisions)


def _live(inv: Invocation) -> Live:
    deployment = inv.attempt_deployment
    return Live(
        id=inv.id,
        in_flight=inv.in_flight,
        # Failures whose delay the handler's SDK chose do not count for the policy.
        attempt_count=max(inv.retry_count, inv.failures_since_entry) + (1 if inv.in_flight else 0),
        next_retry_at_ms=inv.next_retry_at_ms,
        last_error=inv.last_error,
        last_start_at_ms=inv.attempt_at_ms,
        last_deployment_id=deployment.id if deployment is not None else None,
        last_sdk_version=deployment.sdk_version if deployment is not None else None,
        deployment_id=inv.deployment_id,
        protocol_version=inv.protocol_version,
    )
