"""Leads as CSV, JSON or Parquet: one flat row each, written by DuckDB from one table with fixed types."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from apps.leads.messages import lead_id
from apps.leads.model import Lead
from apps.leads.report import emails, phones

Format = Literal["csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
COLUMNS = {
    "lead_id": "VARCHAR",
    "job_id": "VARCHAR",
    "place_id": "VARCHAR",
    "name": "VARCHAR",
    "category": "VARCHAR",
    "score": "DOUBLE",
    "discovery_score": "DOUBLE",
    "audit_score": "INTEGER",
    "owner": "VARCHAR",
    "owner_source": "VARCHAR",
    "email": "VARCHAR",
    "phone": "VARCHAR",
    "website": "VARCHAR",
    "website_reachable": "BOOLEAN",
    "runs_ads": "BOOLEAN",
    "has_booking": "BOOLEAN",
    "has_chat": "BOOLEAN",
    "ai_readability": "INTEGER",
    "technology": "VARCHAR",
    "street": "VARCHAR",
    "postal_code": "VARCHAR",
    "city": "VARCHAR",
    "country": "VARCHAR",
    "latitude": "DOUBLE",
    "longitude": "DOUBLE",
    "rating": "DOUBLE",
    "review_count": "INTEGER",
    "error": "VARCHAR",
    "licence": "VARCHAR",
}
_COPY: dict[Format, str] = {
    "csv": "(FORMAT csv, HEADER true)",
    "json": "(FORMAT json, ARRAY true)",
    "parquet": "(FORMAT parquet, COMPRESSION zstd)",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def export(leads: Sequence[Lead], file_format: Format) -> bytes:
    """The leads in their order, as the content of a file.

    In CSV, a text that a spreadsheet would take for a formula gets an apostrophe in front: names of businesses are written
    by strangers. Telephone numbers keep their plus: they have digits and blanks only, and no formula comes of them.
    """
    import duckdb  # here: the command line, which only knows the formats' names, starts faster

    rows = [[_safe(value) if file_format == "csv" else value for value in row(lead).values()] for lead in leads]
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    with tempfile.TemporaryDirectory(prefix="leads-") as folder, duckdb.connect(":memory:") as database:
        path = Path(folder) / f"leads.{file_format}"
        database.execute(f"CREATE TABLE leads ({columns})")
        if rows:
            marks = ", ".join("?" * len(COLUMNS))
            database.executemany(f"INSERT INTO leads VALUES ({marks})", rows)  # noqa: S608 question marks
        database.execute(f"COPY leads TO '{path}' {_COPY[file_format]}")
        return path.read_bytes()


def row(lead: Lead) -> dict[str, Any]:
    """The columns of one lead."""
    business, scan = lead.business, lead.scan
    is_reachable = scan is not None and scan.is_reachable
    return {
        "lead_id": lead_id(lead.job_id, business.place_id),
        "job_id": lead.job_id,
        "place_id": business.place_id,
        "name": business.name,
        "category": business.category or None,
        "score": lead.score,
        "discovery_score": lead.discovery_score,
        "audit_score": lead.audit.score if lead.audit is not None else None,
        "owner": lead.owner.name if lead.owner is not None else None,
        "owner_source": lead.owner.source if lead.owner is not None else None,
        "email": next(iter(emails(lead)), None),
        "phone": next(iter(phones(lead)), None),
        "website": business.website,
        "website_reachable": None if scan is None else is_reachable,
        "runs_ads": scan.runs_ads if scan is not None and is_reachable else None,
        "has_booking": scan.has_booking if scan is not None and is_reachable else None,
        "has_chat": scan.has_chat if scan is not None and is_reachable else None,
        "ai_readability": scan.ai_readability.points if scan is not None and scan.ai_readability is not None else None,
        "technology": ", ".join(one.name for one in scan.technology) or None if scan is not None else None,
        "street": business.street,
        "postal_code": business.postal_code,
        "city": business.city,
        "country": business.country,
        "latitude": business.latitude,
        "longitude": business.longitude,
        "rating": business.rating,
        "review_count": business.review_count,
        "error": lead.error,
        "licence": business.licence or None,
    }


def _safe(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    if value.startswith("+") and value[1:].replace(" ", "").replace("-", "").isdigit():
        return value
    return f"'{value}"
