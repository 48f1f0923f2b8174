"""Questions to the database: past imports, their figures and rejects, and what readers see. `Store` calls them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import duckdb
import msgspec

from apps.imports.formats import TABLES
from apps.imports.model import ExtractType, HistoryEntry, ImportResult, RejectedRow, Status, TableResult


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What readers see now."""

    extract_number: int | None
    """None before the first import."""
    extract_type: ExtractType | None
    snapshot_date: str | None
    tables: list[TableResult]


ENTRIES = """
SELECT import_id, job_id, status, source, worker_type, sha256, extract_number, extract_type, snapshot_date,
    completed_batches, total_batches, record_count AS rows, rejected_count AS rejected_rows, names_resolved, error,
    warnings, created_at, started_at, completed_at
FROM import_jobs"""

_TABLES = """
SELECT table_name AS "table", inserted_count AS inserted_rows, closed_count AS closed_rows,
    rejected_count AS rejected_rows, current_count AS current_rows
FROM import_statistics"""


def entries(con: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> list[HistoryEntry]:
    return [_entry(row) for row in _dicts(con, sql, parameters)]


def tables(con: duckdb.DuckDBPyConnection, job_id: str) -> list[TableResult]:
    rows = {row["table"]: row for row in _dicts(con, f"{_TABLES} WHERE job_id = $job", {"job": job_id})}
    return [TableResult(**rows[table.name]) for table in TABLES if table.name in rows]


def rejected(con: duckdb.DuckDBPyConnection, parameters: dict[str, Any]) -> list[RejectedRow]:
    rows = _dicts(
        con,
        """SELECT import_id, extract_number, file, line, reason, text FROM rejected_rows WHERE job_id = $job
        ORDER BY file, line LIMIT $limit OFFSET $offset""",
        parameters,
    )
    return [RejectedRow(**row) for row in rows]


def statistics(con: duckdb.DuckDBPyConnection) -> Statistics:
    rows = con.execute(
        "SELECT job_id, extract_number, extract_type, snapshot_date FROM extracts SEMI JOIN current_extract USING (extract_number)"
    ).fetchall()
    if not rows:
        return Statistics(extract_number=None, extract_type=None, snapshot_date=None, tables=[])
    job_id, number, kind, snapshot = rows[0]
    return Statistics(
        extract_number=number, extract_type=kind, snapshot_date=snapshot.isoformat(), tables=tables(con, job_id)
    )


def import_result(con: duckdb.DuckDBPyConnection, job_id: str) -> ImportResult | None:
    """What the import came to, if it is completed."""
    found = entries(con, f"{ENTRIES} WHERE job_id = $job", {"job": job_id})
    if not found or found[0].status is not Status.COMPLETED:
        return None
    job = found[0]
    assert job.extract_number is not None
    assert job.extract_type is not None
    return ImportResult(
        import_id=job.import_id,
        job_id=job.job_id,
        extract_number=job.extract_number,
        extract_type=job.extract_type,
        snapshot_date=job.snapshot_date or "",
        rows=job.rows,
        names_resolved=job.names_resolved or 0,
        rejected_rows=job.rejected_rows,
        tables=tables(con, job_id),
        warnings=job.warnings,
    )


def _dicts(con: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    found = con.execute(sql, parameters)
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _entry(row: dict[str, Any]) -> HistoryEntry:
    for name, value in row.items():
        if isinstance(value, datetime):
            row[name] = value.replace(tzinfo=UTC)
        elif isinstance(value, date):
            row[name] = value.isoformat()
    row["status"] = Status(row["status"])
    return HistoryEntry(**row)
