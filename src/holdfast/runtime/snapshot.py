"""What an engine knows at one moment: its rows, and the half of an invocation that only memory has."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

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
    last_deployment: Deployment | None
    deployment_id: str | None
    """What it is bound to; in-process deployments are written to the row later."""
    protocol_version: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Nothing that happens later is seen in it. Close the connection soon: the write-ahead log grows meanwhile."""

    connection: apsw.Connection
    """For this snapshot alone: read-only, in a transaction. May be used from any thread, by one at a time."""
    live: dict[int, Live]
    """By `seq`."""
    deployments: list[Deployment]
    """Oldest first."""
    services: dict[str, ServiceSpec]
    revisions: dict[str, tuple[int, str]]
    """Service -> its newest revision, and that one's deployment."""


def take_snapshot(
    path: Path | None, writer: apsw.Connection, resident: Iterable[Invocation], catalog: Catalog
) -> Snapshot:
    """Of rows and memory together: call it in the engine's loop while no batch is being committed.

    Args:
        path: The database file; None when `writer` is in memory, and all of it is copied.
    """
    live = {
        inv.seq: Live(
            id=inv.id,
            in_flight=inv.in_flight,
            attempt_count=inv.retry_count + (1 if inv.in_flight else 0),
            next_retry_at_ms=inv.next_retry_at_ms,
            last_error=inv.last_error,
            last_start_at_ms=inv.attempt_at_ms,
            last_deployment=inv.attempt_deployment,
            deployment_id=inv.deployment_id,
            protocol_version=inv.protocol_version,
        )
        for inv in resident
        if inv.status == Status.INVOKED and inv.attempt
    }
    revisions: dict[str, tuple[int, str]] = {}
    for service in catalog.services:
        latest = catalog.latest(service)
        if latest is not None:
            revisions[service] = (latest.revisions[service], latest.id)
    return Snapshot(_reader(path, writer), live, [*catalog.deployments.values()], dict(catalog.services), revisions)


def _reader(path: Path | None, writer: apsw.Connection) -> apsw.Connection:
    if path is None:
        connection = apsw.Connection(":memory:")
        connection.deserialize("main", writer.serialize("main"))
    else:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.pragma("query_only", True)
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the first read decides what is seen
    except BaseException:
        connection.close(True)
        raise
    return connection
