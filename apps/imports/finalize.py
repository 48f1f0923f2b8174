"""The end of an import, in the caller's transaction: names and other summaries, figures, and the switch for readers."""

# ruff: noqa: S608 names in SQL are our own, from `formats` and `schema`; values are always bound

from __future__ import annotations

import duckdb

from apps.imports.batches import Target
from apps.imports.database import unordered
from apps.imports.formats import NAME_LANGUAGES, NAME_TYPE, TABLES
from apps.imports.schema import SUMMARIES, is_enterprise

_LIVE = "extract_number <= $number AND extract_number >= $base AND deleted_at_extract IS NULL"
"""True for rows of the state that the extract leads to. Nothing newer is there yet."""

_TOUCHED = "(extract_number = $number OR deleted_at_extract = $number)"

# One text to compare, so that the choice does not depend on the order of rows: the language's rank, then the name.
_RANKED_NAME = f"position(language IN '{''.join(NAME_LANGUAGES)}') || denomination"

# Newest version of the code first, then the activity group (001 is VAT), then the lowest code.
_RANKED_NACE = "(9999 - TRY_CAST(nace_version AS INTEGER)) || activity_group || nace_code"


def finalize(con: duckdb.DuckDBPyConnection, target: Target) -> int:
    """Bring the summaries of enterprises up to the extract. Returns the number of its enterprises that have a name."""
    parameters = {"number": target.extract_number, "base": target.base_number}
    affected = ""
    if target.extract_type == "update":
        con.execute(f"CREATE OR REPLACE TEMP TABLE affected AS {_affected()}", {"number": target.extract_number})
        con.execute(
            f"""UPDATE {SUMMARIES} SET deleted_at_extract = $number
            WHERE enterprise_number IN (FROM affected) AND extract_number < $number AND {_LIVE}""",
            parameters,
        )
        affected = "AND {column} IN (FROM affected)"
    with unordered(con):
        con.execute(_summaries(affected), parameters | {"snapshot": target.snapshot_date})
    return con.execute(
        f"""SELECT count(*) FROM enterprises e JOIN {SUMMARIES} s USING (enterprise_number)
        WHERE e.extract_number = $number AND s.extract_number = $number AND s.primary_name <> s.enterprise_number""",
        {"number": target.extract_number},
    ).fetchall()[0][0]


def switch(con: duckdb.DuckDBPyConnection, target: Target, job_id: str) -> None:
    """Write down the figures, and let readers see the extract."""
    con.execute(
        """INSERT INTO extracts SELECT extract_number, extract_type, snapshot_date, extracted_at, version,
        import_id, job_id, base_number FROM import_jobs WHERE job_id = $job""",
        {"job": job_id},
    )
    names = [table.name for table in TABLES]
    con.execute(
        """INSERT INTO import_statistics
        SELECT $job, $number, t.name, coalesce(b.inserted, 0), coalesce(b.closed, 0), coalesce(b.rejected, 0),
            coalesce(s.current_count, 0) + coalesce(b.inserted, 0) - coalesce(b.closed, 0)
        FROM (SELECT unnest($names) AS name) t
        LEFT JOIN (
            SELECT table_name, sum(inserted_count) AS inserted, sum(closed_count) AS closed,
                sum(rejected_count) AS rejected
            FROM import_job_batches WHERE job_id = $job GROUP BY table_name
        ) b ON b.table_name = t.name
        LEFT JOIN import_statistics s ON s.table_name = t.name AND $base < $number
            AND s.extract_number = (SELECT extract_number FROM current_extract)""",
        {"job": job_id, "names": names, "number": target.extract_number, "base": target.base_number},
    )
    con.execute(
        "UPDATE current_extract SET extract_number = $number, base_number = $base",
        {"number": target.extract_number, "base": target.base_number},
    )


def _affected() -> str:
    """Numbers of enterprises of which anything changed in this extract."""
    parts = [
        f"SELECT enterprise_number AS number FROM {table} WHERE {_TOUCHED}"
        for table in ("enterprises", "establishments")
    ]
    parts += [
        f"SELECT entity_number FROM {table} WHERE {_TOUCHED} AND {is_enterprise('entity_number')}"
        for table in ("denominations", "addresses", "activities")
    ]
    return f"SELECT DISTINCT number FROM ({' UNION ALL '.join(parts)}) WHERE number IS NOT NULL"


def _summaries(affected: str) -> str:
    """SQL that writes one summary for each living enterprise that is affected."""

    def only(column: str) -> str:
        return affected.format(column=column)

    of_enterprise = f"{is_enterprise('entity_number')} AND {_LIVE} {only('entity_number')}"
    return f"""
    INSERT INTO {SUMMARIES} BY NAME
    SELECT e.enterprise_number,
        coalesce(n.name[2:], e.enterprise_number) AS primary_name,
        '{"".join(NAME_LANGUAGES)}'[CAST(n.name[1] AS INTEGER)] AS primary_name_language,
        a.zipcode, a.municipality_nl, a.municipality_fr,
        CAST(9999 - CAST(m.nace[:4] AS INTEGER) AS VARCHAR) AS main_nace_version, m.nace[8:] AS main_nace_code,
        coalesce(s.establishment_count, 0) AS establishment_count,
        CAST($snapshot AS DATE) AS snapshot_date, CAST($number AS INTEGER) AS extract_number
    FROM (SELECT enterprise_number FROM enterprises WHERE {_LIVE} {only("enterprise_number")}) e
    LEFT JOIN (
        SELECT entity_number, min({_RANKED_NAME}) AS name FROM denominations
        WHERE type_of_denomination = '{NAME_TYPE}' AND denomination <> ''
            AND language IN {NAME_LANGUAGES} AND {of_enterprise} GROUP BY entity_number
    ) n ON n.entity_number = e.enterprise_number
    LEFT JOIN (
        SELECT entity_number, min(zipcode) AS zipcode, min(municipality_nl) AS municipality_nl,
            min(municipality_fr) AS municipality_fr FROM addresses
        WHERE type_of_address = 'REGO' AND {of_enterprise} GROUP BY entity_number
    ) a ON a.entity_number = e.enterprise_number
    LEFT JOIN (
        SELECT entity_number, min({_RANKED_NACE}) AS nace FROM activities
        WHERE classification = 'MAIN' AND length(activity_group) = 3 AND {of_enterprise} GROUP BY entity_number
    ) m ON m.entity_number = e.enterprise_number
    LEFT JOIN (
        SELECT enterprise_number, count(*) AS establishment_count FROM establishments
        WHERE {_LIVE} {only("enterprise_number")} GROUP BY enterprise_number
    ) s ON s.enterprise_number = e.enterprise_number
    """
