"""The database: tables, views for readers, and the state at any extract. DDL made from `formats.TABLES`.

Rows are never changed after their extract was imported, except for the one number that ends them:

    extract_number       the extract that brought the row
    deleted_at_extract   the extract that ended it, or NULL

An update ends rows and adds rows. A full extract ends nothing: it begins anew, and everything before it is history. So
the state at extract N is: rows from the last full extract up to N, that were not ended up to N. While extract N is
being imported all its rows are there already, but `current_extract` still says N-1, and so do the views.
"""

# ruff: noqa: S608 names in SQL are our own, from `formats` and `schema`; values are always bound

from __future__ import annotations

from apps.imports.formats import TABLES, Table

SCHEMA_VERSION = 1

SUMMARIES = "enterprise_summaries"
VERSIONED_TABLES = (*(table.target for table in TABLES), SUMMARIES)
"""Every table whose rows have `extract_number` and `deleted_at_extract`."""

SUMMARY_COLUMNS = {
    "primary_name": "VARCHAR NOT NULL",
    "primary_name_language": "VARCHAR",
    "zipcode": "VARCHAR",
    "municipality_nl": "VARCHAR",
    "municipality_fr": "VARCHAR",
    "main_nace_version": "VARCHAR",
    "main_nace_code": "VARCHAR",
    "establishment_count": "INTEGER NOT NULL",
}
"""What an enterprise has from other tables. Versioned like everything else; `enterprises_current` shows it."""

_VERSION_COLUMNS = "snapshot_date DATE NOT NULL, extract_number INTEGER NOT NULL, deleted_at_extract INTEGER"

_BOOKKEEPING = """
CREATE TABLE imports_meta (schema_version INTEGER NOT NULL);
CREATE TABLE extracts (
    extract_number INTEGER PRIMARY KEY, extract_type VARCHAR NOT NULL, snapshot_date DATE NOT NULL,
    extracted_at TIMESTAMP NOT NULL, version VARCHAR NOT NULL, import_id VARCHAR NOT NULL, job_id VARCHAR NOT NULL,
    base_number INTEGER NOT NULL
);
CREATE TABLE current_extract (extract_number INTEGER NOT NULL, base_number INTEGER NOT NULL);
INSERT INTO current_extract VALUES (0, 0);
CREATE TABLE import_jobs (
    job_id VARCHAR PRIMARY KEY, import_id VARCHAR NOT NULL, status VARCHAR NOT NULL, source VARCHAR NOT NULL,
    worker_type VARCHAR NOT NULL, sha256 VARCHAR, extract_number INTEGER, extract_type VARCHAR, snapshot_date DATE,
    base_number INTEGER, extracted_at TIMESTAMP, version VARCHAR, batch_rows INTEGER, delete_batch_rows INTEGER,
    completed_batches INTEGER NOT NULL DEFAULT 0, total_batches INTEGER NOT NULL DEFAULT 0,
    record_count BIGINT NOT NULL DEFAULT 0, rejected_count BIGINT NOT NULL DEFAULT 0, names_resolved BIGINT,
    error VARCHAR, warnings VARCHAR[] NOT NULL DEFAULT [], created_at TIMESTAMP NOT NULL, started_at TIMESTAMP,
    completed_at TIMESTAMP
);
CREATE TABLE import_job_batches (
    job_id VARCHAR NOT NULL, table_name VARCHAR NOT NULL, operation VARCHAR NOT NULL, batch_number INTEGER NOT NULL,
    state VARCHAR NOT NULL, first_line BIGINT NOT NULL, line_count BIGINT NOT NULL, byte_count BIGINT NOT NULL,
    inserted_count BIGINT NOT NULL DEFAULT 0, closed_count BIGINT NOT NULL DEFAULT 0,
    rejected_count BIGINT NOT NULL DEFAULT 0, processed_at TIMESTAMP, elapsed_s DOUBLE,
    PRIMARY KEY (job_id, table_name, operation, batch_number)
);
CREATE TABLE import_statistics (
    job_id VARCHAR NOT NULL, extract_number INTEGER NOT NULL, table_name VARCHAR NOT NULL,
    inserted_count BIGINT NOT NULL, closed_count BIGINT NOT NULL, rejected_count BIGINT NOT NULL,
    current_count BIGINT NOT NULL
);
CREATE TABLE rejected_rows (
    job_id VARCHAR NOT NULL, import_id VARCHAR NOT NULL, extract_number INTEGER NOT NULL, file VARCHAR NOT NULL,
    line BIGINT NOT NULL, reason VARCHAR NOT NULL, text VARCHAR NOT NULL
);
"""

_SUMMARIES = f"""
CREATE TABLE {SUMMARIES} (
    enterprise_number VARCHAR NOT NULL,
    {", ".join(f"{name} {type_}" for name, type_ in SUMMARY_COLUMNS.items())}, {_VERSION_COLUMNS}
);
"""

_BASE_AT = """coalesce(
    (SELECT max(e.extract_number) FROM extracts e WHERE e.extract_type = 'full' AND e.extract_number <= n), 0)"""


def id_expression(table: Table) -> str:
    """SQL of the id that one row has among all of its table, across extracts."""
    if len(table.id_columns) == 1:
        return table.id_columns[0]
    parts = [f"coalesce({name}, '')" for name in table.id_columns]
    if table.name in ("contact", "denomination"):  # the last part may be long and may hold anything
        parts[-1] = f"right(md5({parts[-1]}), 8)"
    return f"concat_ws('_', {', '.join(parts)})"


def is_enterprise(column: str) -> str:
    """SQL: the number is an enterprise's, not an establishment's. The place of the first dot tells."""
    return f"{column}[5] = '.'"


def _data_table(table: Table) -> str:
    columns = ", ".join(
        f"{column.name} {column.sql_type}{' NOT NULL' if column.required else ''}" for column in table.columns
    )
    return f"CREATE TABLE {table.target} ({columns}, {_VERSION_COLUMNS});\n"


def _readers(target: str, select: str) -> str:
    """`<target>_at(n)`: the state at extract n. `<target>_current`: at the extract that readers are to see."""
    current = "(SELECT extract_number FROM current_extract)"
    base = "(SELECT base_number FROM current_extract)"
    return f"""
CREATE MACRO {target}_at(n) AS TABLE
    {_state(target, select, f"{SUMMARIES}_at(n)", "n", _BASE_AT)};
CREATE VIEW {target}_current AS
    {_state(target, select, f"{SUMMARIES}_current", current, base)};
CREATE VIEW {target}_history AS
    SELECT {select}, t.extract_number <= c.extract_number AND t.extract_number >= c.base_number
        AND (t.deleted_at_extract IS NULL OR t.deleted_at_extract > c.extract_number) AS is_current
    FROM {target} t, current_extract c;
"""


def _state(target: str, select: str, summaries: str, number: str, base: str) -> str:
    state = (
        f"SELECT {select} FROM {target} t WHERE t.extract_number <= {number} AND t.extract_number >= {base} "
        f"AND (t.deleted_at_extract IS NULL OR t.deleted_at_extract > {number})"
    )
    if target != "enterprises":
        return state
    names = ", ".join(f"s.{name}" for name in SUMMARY_COLUMNS)
    return f"SELECT e.*, {names} FROM ({state}) e LEFT JOIN {summaries} s USING (enterprise_number)"


def _select(table: Table) -> str:
    own_id = "" if table.id_columns == ("id",) else f"{id_expression(table)} AS id, "
    kind = (
        f", CASE WHEN {is_enterprise('t.entity_number')} THEN 'enterprise' ELSE 'establishment' END AS entity_kind"
        if table.key.kind == "entity"
        else ""
    )
    return f"{own_id}t.*{kind}"


_NACE_CODES = """
CREATE VIEW nace_codes AS
    SELECT category[5:] AS nace_version, code AS nace_code, language, description
    FROM codes_current WHERE category LIKE 'Nace%';
"""


def ddl() -> str:
    """Everything, for an empty database."""
    parts = [_BOOKKEEPING, *(_data_table(table) for table in TABLES), _SUMMARIES]
    parts.append(_readers(SUMMARIES, "t.*"))  # before enterprises, whose readers join it
    parts += [_readers(table.target, _select(table)) for table in TABLES]
    parts.append(_NACE_CODES)
    parts.append(f"INSERT INTO imports_meta VALUES ({SCHEMA_VERSION});")
    return "".join(parts)
