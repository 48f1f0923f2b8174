"""Campaigns in SurrealDB. Every write is one transaction, or repeatable, under ids made from the data.

A target's row is keyed by campaign and target, so a step that died before the engine recorded it finds what it wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from surrealdb import RecordID

from apps.recon.campaigns.model import (
    FINAL,
    BatchTarget,
    BatchTargets,
    Campaign,
    CampaignOptions,
    CampaignRequest,
    Cut,
    OpenPort,
    Phase,
    ScanResult,
    TargetRow,
    Validated,
    status_text,
)
from apps.recon.campaigns.schema import TARGET_STATES
from apps.recon.store import Store

SOURCE_PAGE = 1000
"""Lines of a caller's target list per row."""
ROWS_PER_WRITE = 1000

_FINAL_PHASES = [phase.value for phase in FINAL]

_CREATE = """
BEGIN;
LET $created = (INSERT IGNORE INTO campaign { id: $campaign, phase: 'initializing', digest: $digest,
    options: $options, scanner: $scanner, contributor: $contributor, total: $total } RETURN AFTER);
IF array::len($created) > 0 { INSERT INTO campaign_source $sources RETURN NONE; };
COMMIT;
SELECT * FROM type::thing('campaign', $campaign);
"""

_COUNT = """SELECT state, is_sensitive, count() FROM campaign_target:[$campaign, '']..[$campaign, {}]
    GROUP BY state, is_sensitive"""


class CampaignDiffers(Exception):
    """There is a campaign of this id, with other targets or options."""


class CampaignStore:
    """Campaigns, their targets and batches, on recon's database."""

    def __init__(self, store: Store) -> None:
        self.base = store

    # -- campaigns -------------------------------------------------------------------------------------------------

    async def create(self, request: CampaignRequest, total: int) -> Campaign:
        """Keep a new campaign with its targets, or return the one that has this id already.

        Args:
            request: With its targets.
            total: How many targets these are at most; the exact number comes with validation.
        Raises:
            CampaignDiffers: the known one is another.
        """
        digest = hashlib.sha256(msgspec.json.encode(request)).hexdigest()
        sources = [
            {"id": [request.campaign_id, page], "targets": request.targets[first : first + SOURCE_PAGE]}
            for page, first in enumerate(range(0, len(request.targets), SOURCE_PAGE))
        ]
        answers = await self.base.write(
            _CREATE,
            campaign=request.campaign_id,
            digest=digest,
            options=msgspec.json.encode(request.options).decode(),
            scanner=request.options.scanner,
            contributor=request.options.contributor,
            total=total,
            sources=sources,
        )
        [row] = answers[-1]
        if row["digest"] != digest:
            raise CampaignDiffers(f"campaign {request.campaign_id} exists, with other targets or options")
        return _campaign(row)

    async def campaign(self, campaign_id: str) -> Campaign | None:
        """The campaign with what is done up to now, or None."""
        (rows,) = await self.base.read("SELECT * FROM type::thing('campaign', $campaign)", campaign=campaign_id)
        if not rows:
            return None
        campaign = _campaign(rows[0])
        (counted,) = await self.base.read(_COUNT, campaign=campaign_id)
        states = _by_state(counted)
        campaign.scanned = min(states["scanned"] + states["failed"], campaign.total)
        campaign.failed, campaign.rejected = states["failed"], states["rejected"]
        return campaign

    async def campaigns(self, *, limit: int, offset: int) -> list[Campaign]:
        """The newest first; their counts are those of the last finished batch."""
        (rows,) = await self.base.read(
            "SELECT * FROM campaign ORDER BY created_at DESC, id LIMIT $limit START $offset", limit=limit, offset=offset
        )
        return [_campaign(row) for row in rows]

    async def set_phase(self, campaign_id: str, phase: Phase, *, batch: int = 0, error: str | None = None) -> None:
        """Move on, unless the campaign is over."""
        await self.base.write(
            """UPDATE type::thing('campaign', $campaign) SET phase = $phase, batch = $batch, error = error ?? $error,
                approval = IF $phase IN $final AND approval = 'pending' THEN 'cancelled' ELSE approval END,
                completed_at = IF $phase IN $final THEN completed_at ?? time::now() END
                WHERE phase NOT IN $final RETURN NONE""",
            final=_FINAL_PHASES,
            campaign=campaign_id,
            phase=phase.value,
            batch=batch,
            error=error,
        )

    async def set_invocation(self, campaign_id: str, invocation_id: str) -> bool:
        """Which invocation to cancel. False if the campaign is over: it was cancelled before it began."""
        (rows,) = await self.base.write(
            """UPDATE type::thing('campaign', $campaign) SET invocation = $invocation
                WHERE phase NOT IN $final RETURN AFTER""",
            final=_FINAL_PHASES,
            campaign=campaign_id,
            invocation=invocation_id,
        )
        return bool(rows)

    async def cancel_unstarted(self, campaign_id: str) -> bool:
        """Cancel a campaign that the engine knows nothing of. False if it does, or if the campaign is over."""
        (rows,) = await self.base.write(
            """UPDATE type::thing('campaign', $campaign) SET phase = $cancelled, completed_at = time::now(),
                error = 'cancelled before it began'
                WHERE invocation = NONE AND phase NOT IN $final RETURN AFTER""",
            cancelled=Phase.CANCELLED.value,
            final=_FINAL_PHASES,
            campaign=campaign_id,
        )
        return bool(rows)

    async def unstarted(self, *, before: datetime, limit: int) -> list[CampaignRequest]:
        """Campaigns that were recorded before that moment and never begun, the oldest first; without their targets."""
        (rows,) = await self.base.read(
            """SELECT record::id(id) AS campaign_id, options, created_at FROM campaign
                WHERE phase = $initializing AND invocation = NONE AND created_at < $before
                ORDER BY created_at LIMIT $limit""",
            initializing=Phase.INITIALIZING.value,
            before=before,
            limit=limit,
        )
        return [
            CampaignRequest(row["campaign_id"], options=msgspec.json.decode(row["options"], type=CampaignOptions))
            for row in rows
        ]

    async def unwatched(self, *, before: datetime, limit: int) -> list[tuple[str, str]]:
        """Campaigns that have not moved since that moment and that nobody watches: their ids and invocations."""
        (rows,) = await self.base.read(
            """SELECT record::id(id) AS campaign_id, invocation, updated_at FROM campaign
                WHERE phase NOT IN $final AND invocation != NONE AND is_watched != true AND updated_at < $before
                ORDER BY updated_at LIMIT $limit""",
            final=_FINAL_PHASES,
            before=before,
            limit=limit,
        )
        return [(row["campaign_id"], row["invocation"]) for row in rows]

    async def set_watched(self, campaign_id: str) -> None:
        """Somebody waits for the end of its workflow."""
        await self.base.write(
            "UPDATE type::thing('campaign', $campaign) SET is_watched = true RETURN NONE", campaign=campaign_id
        )

    async def set_approval(self, campaign_id: str, state: str) -> None:
        """What became of the question about sensitive targets; while it is open, the campaign awaits the answer."""
        await self.base.write(
            """UPDATE type::thing('campaign', $campaign) SET approval = $state, phase = $phase
                WHERE phase NOT IN $final RETURN NONE""",
            final=_FINAL_PHASES,
            campaign=campaign_id,
            state=state,
            phase=(Phase.AWAITING_APPROVAL if state == "pending" else Phase.INITIALIZING).value,
        )

    async def set_published(self, campaign_id: str, is_published: bool) -> None:
        """Make the report public, or withdraw it."""
        await self.base.write(
            "UPDATE type::thing('campaign', $campaign) SET is_published = $is_published RETURN NONE",
            campaign=campaign_id,
            is_published=is_published,
        )

    # -- targets ---------------------------------------------------------------------------------------------------

    async def source_count(self, campaign_id: str) -> int:
        """How many pages of lines its caller gave."""
        (rows,) = await self.base.read(
            "SELECT count() FROM campaign_source:[$campaign, 0]..[$campaign, 1000000] GROUP ALL", campaign=campaign_id
        )
        return rows[0]["count"] if rows else 0

    async def source(self, campaign_id: str, page: int) -> list[str]:
        """One page of lines, as the caller wrote them."""
        (targets,) = await self.base.read(
            "SELECT VALUE targets FROM ONLY type::thing('campaign_source', $id)", id=[campaign_id, page]
        )
        return targets or []

    async def add_targets(self, campaign_id: str, rows: Iterable[dict[str, Any]]) -> None:
        """Keep checked targets; one that is known stays as it was decided the first time."""
        complete = [{**row, "id": [campaign_id, row["target"]], "campaign": campaign_id} for row in rows]
        for first in range(0, len(complete), ROWS_PER_WRITE):
            await self.base.write(
                "INSERT IGNORE INTO campaign_target $rows RETURN NONE", rows=complete[first : first + ROWS_PER_WRITE]
            )

    async def validated(self, campaign_id: str) -> Validated:
        """What validation came to; from now on the campaign has so many targets."""
        (counted,) = await self.base.read(_COUNT, campaign=campaign_id)
        sensitive = sum(row["count"] for row in counted if row["is_sensitive"] and row["state"] == "ready")
        states = _by_state(counted)
        await self.base.write(
            "UPDATE type::thing('campaign', $campaign) SET total = $total RETURN NONE",
            campaign=campaign_id,
            total=states["ready"],
        )
        return Validated(states["ready"], sensitive, states["rejected"])

    async def cut(self, campaign_id: str, batch_size: int, *, refuse_sensitive: str | None) -> Cut:
        """Divide what is ready into batches; `refuse_sensitive` is why sensitive targets are not scanned, if so.

        Repeating it before the first batch runs changes nothing.
        """
        if refuse_sensitive is not None:
            await self.base.write(
                """UPDATE campaign_target:[$campaign, '']..[$campaign, {}] SET state = 'rejected', reason = $reason
                    WHERE is_sensitive AND state = 'ready' RETURN NONE""",
                campaign=campaign_id,
                reason=refuse_sensitive,
            )
        (rows,) = await self.base.read(
            """SELECT target, address FROM campaign_target:[$campaign, '']..[$campaign, {}] WHERE state = 'ready'""",
            campaign=campaign_id,
        )
        ready = [[row["target"], row["address"]] for row in rows]
        batches = [ready[first : first + batch_size] for first in range(0, len(ready), batch_size)]
        await self.base.write(
            """BEGIN;
            DELETE campaign_batch:[$campaign, 0]..[$campaign, 1000000] RETURN NONE;
            INSERT INTO campaign_batch $batches RETURN NONE;
            UPDATE type::thing('campaign', $campaign) SET total = $total RETURN NONE;
            DELETE campaign_source:[$campaign, 0]..[$campaign, 1000000] RETURN NONE;
            COMMIT;"""
            if batches
            else "UPDATE type::thing('campaign', $campaign) SET total = $total RETURN NONE",
            campaign=campaign_id,
            batches=[{"id": [campaign_id, number], "targets": each} for number, each in enumerate(batches, 1)],
            total=len(ready),
        )
        return Cut(len(ready), len(batches))

    async def begin_batch(self, campaign_id: str, number: int) -> BatchTargets:
        """Say that this batch is being scanned; returns those of its targets that have no result yet."""
        await self.set_phase(campaign_id, Phase.SCANNING, batch=number)
        batch = await self._batch(campaign_id, number)
        (done,) = await self.base.read(
            "SELECT VALUE target FROM $ids WHERE state != 'ready'", ids=_target_ids(campaign_id, batch)
        )
        finished = set(done)
        return BatchTargets([BatchTarget(target, address) for target, address in batch if target not in finished])

    async def batch_rows(self, campaign_id: str, number: int) -> list[TargetRow]:
        """The targets of a batch with their results."""
        batch = await self._batch(campaign_id, number)
        (rows,) = await self.base.read("SELECT * FROM $ids", ids=_target_ids(campaign_id, batch))
        return [target_row(row) for row in rows]

    async def count(self, campaign_id: str) -> None:
        """Bring the counts in the campaign's own row, which lists show, up to date."""
        campaign = await self.campaign(campaign_id)
        if campaign is not None:
            await self.base.write(
                """UPDATE type::thing('campaign', $campaign)
                    SET scanned = $scanned, failed = $failed, rejected = $rejected RETURN NONE""",
                campaign=campaign_id,
                scanned=campaign.scanned,
                failed=campaign.failed,
                rejected=campaign.rejected,
            )

    # -- results ---------------------------------------------------------------------------------------------------

    async def result(self, campaign_id: str, target: str) -> TargetRow | None:
        """A target with its result, if it has one."""
        (rows,) = await self.base.read("SELECT * FROM $ids", ids=_target_ids(campaign_id, [[target]]))
        return target_row(rows[0]) if rows else None

    async def save_result(self, campaign_id: str, result: ScanResult, scanned_with: str) -> None:
        """Keep what a scan found. `scanned_with` identifies address, scanner and ports, for `reusable`."""
        await self.base.write(
            """UPDATE type::thing('campaign_target', $id) SET state = 'scanned', address = $address, is_up = $is_up,
                ports = $ports, scanned_with = $scanned_with, scanned_at = time::now(), elapsed_ms = $elapsed_ms
                WHERE state = 'ready' RETURN NONE""",
            id=[campaign_id, result.target],
            address=result.address,
            is_up=result.is_up,
            ports=msgspec.to_builtins(result.ports),
            # A reused result is as old as its scan: it must not keep itself fresh.
            scanned_with=None if result.is_reused else scanned_with,
            elapsed_ms=result.elapsed_ms,
        )

    async def save_failure(self, campaign_id: str, target: str, reason: str) -> None:
        """Keep why a target could not be scanned."""
        await self.base.write(
            """UPDATE type::thing('campaign_target', $id) SET state = 'failed', reason = $reason,
                scanned_at = time::now() WHERE state = 'ready' RETURN NONE""",
            id=[campaign_id, target],
            reason=reason,
        )

    async def reusable(self, scanned_with: str, since: datetime) -> TargetRow | None:
        """The newest result of the same address, scanner and ports, not older than `since`."""
        (rows,) = await self.base.read(
            """SELECT * FROM campaign_target WHERE scanned_with = $scanned_with AND scanned_at >= $since
                ORDER BY scanned_at DESC LIMIT 1""",
            scanned_with=scanned_with,
            since=since,
        )
        return target_row(rows[0]) if rows else None

    async def targets(self, campaign_id: str, *, states: Sequence[str], after: str = "", limit: int) -> list[TargetRow]:
        """Targets in these states, in the order of their names, behind `after`."""
        (rows,) = await self.base.read(
            "SELECT * FROM campaign_target:[$campaign, $after]>..[$campaign, {}] WHERE state IN $states LIMIT $limit",
            campaign=campaign_id,
            after=after,
            states=list(states),
            limit=limit,
        )
        return [target_row(row) for row in rows]

    async def _batch(self, campaign_id: str, number: int) -> list[Sequence[str]]:
        (targets,) = await self.base.read(
            "SELECT VALUE targets FROM ONLY type::thing('campaign_batch', $id)", id=[campaign_id, number]
        )
        return targets or []


def _target_ids(campaign_id: str, targets: Iterable[Sequence[str]]) -> list[RecordID]:
    return [RecordID("campaign_target", [campaign_id, target[0]]) for target in targets]


def _by_state(counted: list[dict[str, Any]]) -> dict[str, int]:
    states: dict[str, int] = dict.fromkeys(TARGET_STATES, 0)
    for row in counted:
        states[row["state"]] += row["count"]
    return states


def target_row(row: dict[str, Any]) -> TargetRow:
    """A row of `campaign_target` as the API shows it."""
    return TargetRow(
        target=row["target"],
        state=row["state"],
        address=row.get("address"),
        reason=row.get("reason"),
        is_up=row["is_up"],
        ports=msgspec.convert(row["ports"], list[OpenPort]),
        scanned_at=row.get("scanned_at"),
        elapsed_ms=row.get("elapsed_ms"),
    )


def _campaign(row: dict[str, Any]) -> Campaign:
    return Campaign(
        id=row["id"].id,
        status=status_text(Phase(row["phase"]), row["batch"]),
        scanned=row["scanned"],
        total=row["total"],
        rejected=row["rejected"],
        failed=row["failed"],
        approval=row.get("approval"),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        completed_at=row.get("completed_at"),
        error=row.get("error"),
        contributor=row["contributor"],
        scanner=row["scanner"],
        is_published=row["is_published"],
        invocation_id=row.get("invocation"),
    )
