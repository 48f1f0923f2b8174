"""The leads in the database: businesses of a job with what was found out about each."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from apps.leads.database import Database, as_json, from_json
from apps.leads.model import Business, EnrichedBusiness, Lead, ScoreReport
from apps.leads.web.types import AuditReport, Owner, SiteScan


class Records:
    """Reads and writes the table `leads`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def keep_businesses(
        self, job_id: str, businesses: Sequence[Business], scores: dict[str, float] | None = None
    ) -> None:
        """Make each a lead of the job; one that is there stays as it is. `scores`: a discovery's, by place id."""
        rows = [
            (job_id, each.place_id, rank, as_json(each), (scores or {}).get(each.place_id))
            for rank, each in enumerate(businesses)
        ]
        await self._db.write(
            lambda db: db.executemany(
                "INSERT INTO leads (job_id, place_id, rank, business, discovery_score) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                rows,
            )
        )

    async def keep_scan(self, job_id: str, place_id: str, scan: SiteScan) -> None:
        await self._update(job_id, place_id, {"scan": as_json(scan)})

    async def keep_discovery_scores(self, job_id: str, reports: dict[str, ScoreReport]) -> None:
        """The discovery's score of each place, which is the lead's score until an enrichment."""
        rows = [(report.score, report.score, as_json(report), job_id, place_id) for place_id, report in reports.items()]
        await self._db.write(
            lambda db: db.executemany(
                "UPDATE leads SET discovery_score = ?, score = ?, score_report = ? WHERE (job_id, place_id) = (?, ?)",
                rows,
            )
        )

    async def keep_enriched(self, job_id: str, enriched: EnrichedBusiness, discovery_score: float) -> None:
        await self._update(
            job_id,
            enriched.place_id,
            {
                "scan": as_json(enriched.scan_result),
                "owner": as_json(enriched.owner),
                "audit": as_json(enriched.audit_result),
                "discovery_score": discovery_score,
                "score": enriched.lead_score.score,
                "score_report": as_json(enriched.lead_score),
                "warnings": as_json(enriched.warnings),
                "error": None,
                "is_enriched": 1,
            },
        )

    async def keep_error(self, job_id: str, place_id: str, error: str) -> None:
        await self._update(job_id, place_id, {"error": error})

    async def _update(self, job_id: str, place_id: str, values: dict[str, Any]) -> None:
        assignments = ", ".join(f"{column} = ?" for column in values)
        statement = f"UPDATE leads SET {assignments} WHERE (job_id, place_id) = (?, ?)"  # noqa: S608 column names of this module
        await self._db.write(lambda db: db.execute(statement, [*values.values(), job_id, place_id]))

    async def places_to_scan(self, job_id: str) -> list[str]:
        """Place ids of all leads with a website, in order, scanned or not."""
        rows = await self._rows(
            "SELECT place_id FROM leads WHERE job_id = ? AND business ->> 'website' IS NOT NULL ORDER BY rank", job_id
        )
        return [row["place_id"] for row in rows]

    async def unscanned(self, job_id: str, place_ids: Sequence[str]) -> list[Business]:
        """Those of `place_ids` that have no scan yet."""
        rows = await self._rows("SELECT place_id, business FROM leads WHERE job_id = ? AND scan IS NULL", job_id)
        found = {row["place_id"]: row["business"] for row in rows}
        return [from_json(found[place_id], Business) for place_id in place_ids if place_id in found]

    async def leads(self, job_id: str, *, limit: int = 1000, offset: int = 0) -> list[Lead]:
        """Best score first."""
        rows = await self._db.read(
            lambda db: db.execute(
                "SELECT * FROM leads WHERE job_id = ? ORDER BY score DESC NULLS LAST, rank LIMIT ? OFFSET ?",
                (job_id, limit, offset),
            ).fetchall()
        )
        return [_lead(row) for row in rows]

    async def lead(self, job_id: str, place_id: str) -> Lead | None:
        rows = await self._rows("SELECT * FROM leads WHERE job_id = ? AND place_id = ?", job_id, place_id)
        return _lead(rows[0]) if rows else None

    async def enriched(self, job_id: str, place_id: str) -> Lead | None:
        """The lead, if its enrichment is complete."""
        rows = await self._rows(
            "SELECT * FROM leads WHERE job_id = ? AND place_id = ? AND is_enriched", job_id, place_id
        )
        return _lead(rows[0]) if rows else None

    async def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return await self._db.read(lambda db: db.execute(query, values).fetchall())


def _lead(row: sqlite3.Row) -> Lead:
    return Lead(
        job_id=row["job_id"],
        rank=row["rank"],
        business=from_json(row["business"], Business),
        score=row["score"],
        score_report=from_json(row["score_report"], ScoreReport),
        discovery_score=row["discovery_score"],
        scan=from_json(row["scan"], SiteScan),
        owner=from_json(row["owner"], Owner),
        audit=from_json(row["audit"], AuditReport),
        error=row["error"],
        warnings=from_json(row["warnings"]),
    )
