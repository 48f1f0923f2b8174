"""Runs of enrichment in the database: which hosts they are about, how far they are, how they ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from surrealdb import RecordID

from apps.recon.enrich.model import Enrichment, EnrichRequest, Progress
from apps.recon.store import Store

PAGE_MAX = 100


@dataclass(frozen=True, slots=True)
class HostList:
    """A part of the hosts of a run, in order."""

    addresses: list[str]
    """Those with an IP address; one that is known by name only cannot be looked up."""
    host_count: int
    unknown: list[str]
    """Asked for, and not in the database."""
    last: str | None
    """Where the next part begins, or None when this is the last."""


async def announce(store: Store, run_id: str, request: EnrichRequest) -> None:
    """Note that a run was asked for; changes nothing when it is noted already."""
    await store.write(
        "INSERT IGNORE INTO enrichment { id: $id, job_id: $job_id, kinds: $kinds, state: 'running' } RETURN NONE",
        id=run_id,
        job_id=request.job_id,
        kinds=request.kinds,
    )


async def begin(store: Store, run_id: str, request: EnrichRequest, invocation_id: str) -> int:
    """Note that a run has begun. Returns when that was, Unix milliseconds: at a repetition the same."""
    await announce(store, run_id, request)
    (started_at,) = await store.write(
        """UPDATE ONLY type::thing('enrichment', $id) SET invocation_id = $invocation_id RETURN VALUE started_at""",
        id=run_id,
        invocation_id=invocation_id,
    )
    return int(started_at.timestamp() * 1000)


async def record(store: Store, run_id: str, done: Progress) -> None:
    """Note how far it is."""
    await store.write(
        """UPDATE type::thing('enrichment', $id) SET host_count = $host_count, totals = $totals
            WHERE state = 'running' RETURN NONE""",
        id=run_id,
        host_count=done.host_count,
        totals=msgspec.to_builtins(done),
    )


async def finish(store: Store, run_id: str, state: str, error_message: str | None = None) -> None:
    """Note how it ended; the first end counts."""
    await store.write(
        """UPDATE type::thing('enrichment', $id) SET state = $state, error_message = $error_message,
            finished_at = time::now() WHERE state = 'running' RETURN NONE""",
        id=run_id,
        state=state,
        error_message=error_message,
    )


async def list_hosts(store: Store, request: EnrichRequest, *, after: str | None, limit: int) -> HostList:
    """The next hosts of a run, behind the address `after`."""
    if request.job_id is not None:
        wanted = await store.hosts_of_job(request.job_id, limit=limit + 1, after=after)
    else:
        wanted = [address for address in sorted(set(request.hosts)) if after is None or address > after][: limit + 1]
    page = wanted[:limit]
    (rows,) = await store.read("SELECT address, ip FROM $ids", ids=[RecordID("host", address) for address in page])
    known = {row["address"]: row["ip"] for row in rows}
    return HostList(
        addresses=[address for address in page if known.get(address)],
        host_count=len(known),
        unknown=[address for address in page if address not in known],
        last=page[-1] if len(wanted) > limit else None,
    )


async def get(store: Store, run_id: str) -> Enrichment | None:
    """One run, or None."""
    (rows,) = await store.read("SELECT * FROM type::thing('enrichment', $id)", id=run_id)
    return _enrichment(rows[0]) if rows else None


async def invocation_of(store: Store, run_id: str) -> str | None:
    """Which invocation works on it, once it does."""
    (found,) = await store.read("SELECT VALUE invocation_id FROM ONLY type::thing('enrichment', $id)", id=run_id)
    return found


async def latest(store: Store, *, limit: int, offset: int = 0) -> tuple[list[Enrichment], int]:
    """Runs, the latest first, and how many there are."""
    rows, counted = await store.read(
        """SELECT * FROM enrichment ORDER BY started_at DESC, id DESC LIMIT $limit START $offset;
        SELECT count() FROM enrichment GROUP ALL;""",
        limit=limit,
        offset=offset,
    )
    return [_enrichment(row) for row in rows], counted[0]["count"] if counted else 0


def _enrichment(row: dict[str, Any]) -> Enrichment:
    return Enrichment(
        id=row["id"].id,
        state=row["state"],
        kinds=row["kinds"],
        host_count=row["host_count"],
        result=msgspec.convert(row["totals"] or {}, Progress),
        started_at=row["started_at"],
        updated_at=row["updated_at"],
        job_id=row.get("job_id"),
        error_message=row.get("error_message"),
        finished_at=row.get("finished_at"),
    )
