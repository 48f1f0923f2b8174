"""One batch into the database: read by DuckDB's CSV reader, checked, applied. Runs inside the caller's transaction.

There are two ways. *At once*: from the file straight into the table, then one look at what came; if anything is not as
it should be, the transaction is given up. *With care*: through a temporary table, from which bad rows are taken out one
by one. The first takes a third less time, and the second is right for every batch.

A batch is in memory once; its size bounds what an import needs.
"""

# ruff: noqa: S608 names in SQL are our own, from `formats` and `schema`; values are always bound

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import duckdb

from apps.imports.database import unordered
from apps.imports.files import Batch
from apps.imports.formats import BY_NAME, BrokenExtract, Column, Table
from apps.imports.model import ExtractType
from apps.imports.rejects import Reject, Unreadable, located

_READ_BYTES = 4 << 20
"""What a thread of the reader takes at a time. The default of 32 MB leaves one without work at the end of each batch."""

_ENTERPRISE = r"[01]\d{3}\.\d{3}\.\d{3}"
_ESTABLISHMENT = r"[2-8]\.\d{3}\.\d{3}\.\d{3}"
_SHAPES = {"entity": f"{_ENTERPRISE}|{_ESTABLISHMENT}", "enterprise": _ENTERPRISE, "establishment": _ESTABLISHMENT}
_SHAPE_WORDS = {
    "entity": "an enterprise or establishment number",
    "enterprise": "an enterprise number dddd.ddd.ddd",
    "establishment": "an establishment number d.ddd.ddd.ddd",
}


@dataclass(frozen=True, slots=True)
class Target:
    """The extract that batches belong to."""

    extract_number: int
    extract_type: ExtractType
    snapshot_date: str
    """yyyy-mm-dd."""
    base_number: int
    """Rows of extracts before this one are history already."""


@dataclass(frozen=True, slots=True)
class Applied:
    inserted: int
    closed: int
    rejects: list[Reject]


class NeedsCare(Exception):
    """A batch has something in it that must be looked at. The transaction must be rolled back."""


def may_go_at_once(batch: Batch, target: Target) -> bool:
    """Whether the batch's rows are only added, so that all that can be wrong with them shows in the table afterwards."""
    return batch.operation == "insert" and target.extract_type == "full"


def apply_batch(
    con: duckdb.DuckDBPyConnection, batch: Batch, path: Path, target: Target, at_once: bool = False
) -> Applied:
    """Apply the batch in `path`. Lines of the rejects count within that file.

    Args:
        at_once: Only for a batch that `may_go_at_once`.
    Raises:
        BrokenExtract: the reader cannot make anything of the file.
        NeedsCare: it cannot be applied at once.
    """
    table = BY_NAME[batch.table]
    if at_once:
        return _apply_at_once(con, batch, path, table, target)
    columns = table.columns[:1] if batch.operation == "delete" else table.columns
    unreadable = _load(con, path, columns)
    rejects = _reject(con, batch, path, table, target, unreadable)
    if batch.operation == "delete":
        return Applied(0, _close_keys(con, table, target), rejects)
    if table.name == "code" and target.extract_type == "update":
        return Applied(*_merge_codes(con, table, target), rejects)
    closed = _close_replaced(con, table, target) if target.extract_type == "update" else 0
    return Applied(_insert(con, table, target), closed, rejects)


def _apply_at_once(con: duckdb.DuckDBPyConnection, batch: Batch, path: Path, table: Table, target: Target) -> Applied:
    try:
        _forget_unreadable(con)
        (before,) = con.execute(f"SELECT coalesce(max(rowid), -1) FROM {table.target}").fetchall()[0]
        inserted = _insert(con, table, target, _reader(table.columns), {"path": str(path)})
        # Rows of a transaction are numbered after all others, and only their row groups are read.
        new = f"(SELECT * FROM {table.target} WHERE rowid > {before})"
        clashing = _may_clash(table, target)
        distinct = f"count(DISTINCT hash({', '.join(table.id_columns)}))" if clashing else "count(*)"
        counts = con.execute(f"SELECT count(*), {distinct} FROM {new}").fetchall()[0]
        # Fewer rows than lines: some were not readable, or a value holds a line end.
        is_clean = counts == (inserted, inserted) and inserted == batch.line_count
        is_clean = is_clean and not _has_bad_rows(con, table.columns, new, repeats_key=table.repeats_key)
        if is_clean and clashing and batch.number > 1:
            exists = (
                f"EXISTS (FROM {table.target} t WHERE t.rowid <= {before} AND {_came_before(table, target, '$first')})"
            )
            found = con.execute(f"SELECT 1 FROM {new} b WHERE {exists} LIMIT 1", {"first": _first_key(path)})
            is_clean = not found.fetchall()
    except (duckdb.Error, UnicodeDecodeError, csv.Error) as error:  # a fault of the batch shows again with care
        raise NeedsCare from error
    if not is_clean:
        raise NeedsCare
    return Applied(inserted, 0, [])


def _first_key(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as lines:
        return next(csv.reader(lines))[0]


def _reader(columns: tuple[Column, ...]) -> str:
    """The file at $path as SQL. Rows that cannot be read go to the temporary table `unreadable`."""
    types = {column.name: column.sql_type for column in columns}
    return f"""read_csv($path, columns = {types},
        header = false, auto_detect = false, delim = ',', quote = '"', escape = '"', nullstr = '',
        allow_quoted_nulls = false, dateformat = '%d-%m-%Y', encoding = 'utf-8',
        store_rejects = true, rejects_table = 'unreadable', rejects_scan = 'unreadable_scans',
        buffer_size = {_READ_BYTES})"""


def _forget_unreadable(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("DROP TABLE IF EXISTS temp.unreadable; DROP TABLE IF EXISTS temp.unreadable_scans")


def _load(con: duckdb.DuckDBPyConnection, path: Path, columns: tuple[Column, ...]) -> dict[int, Unreadable]:
    """The readable rows into the temporary table `batch`, in their order; what the reader rejected as answer."""
    con.execute("SET preserve_insertion_order = true")  # whatever became of the statement before
    _forget_unreadable(con)
    try:
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE batch AS SELECT * FROM {_reader(columns)}",
            {"path": str(path)},
        )
    except duckdb.InvalidInputException as error:
        raise BrokenExtract(" ".join(str(error).split())[:300]) from error
    found = con.execute(
        """SELECT line, first(column_name ORDER BY error_type <> 'UNQUOTED VALUE', error_message),
            first(error_message ORDER BY error_type <> 'UNQUOTED VALUE', error_message),
            any_value(csv_line), bool_or(error_type = 'UNQUOTED VALUE')
        FROM unreadable GROUP BY line"""
    ).fetchall()
    return {
        record: Unreadable(record, _reason(column, message), _line_count(text), is_unterminated)
        for record, column, message, text, is_unterminated in found
    }


def _reason(column: str | None, message: str) -> str:
    message = " ".join(message.split())
    return message if column is None or column in message else f"{column}: {message}"


def _line_count(text: str) -> int:
    text = text.lstrip("\n")  # empty lines before it are records of their own
    return max(1, text.count("\n") + (not text.endswith("\n")))


def _reject(
    con: duckdb.DuckDBPyConnection,
    batch: Batch,
    path: Path,
    table: Table,
    target: Target,
    unreadable: dict[int, Unreadable],
) -> list[Reject]:
    """Take bad rows out of the temporary table; say where they stood."""
    columns = table.columns[:1] if batch.operation == "delete" else table.columns
    bad = {reason: sql for column in columns for reason, sql in _checks(column).items()}
    may_clash = batch.operation == "insert" and _may_clash(table, target)
    distinct = f"count(DISTINCT hash({', '.join(table.id_columns)}))" if may_clash else "count(*)"
    # Rows of a transaction that is not committed are not numbered from 0.
    first_rowid, row_count, distinct_count = con.execute(
        f"SELECT min(rowid), count(*), {distinct} FROM batch"
    ).fetchall()[0]
    bad_rows: dict[int, str] = {}
    if _has_bad_rows(con, columns, "batch", repeats_key=table.repeats_key):
        cases = " ".join(f"WHEN {sql} THEN {_quoted(reason)}" for reason, sql in bad.items())
        bad_rows = _rows(con, f"SELECT rowid, CASE {cases} END AS reason FROM batch WHERE reason IS NOT NULL")
    if distinct_count < row_count:
        bad_rows = _rows(con, _LATER_ROW_WINS.format(ids=", ".join(table.id_columns))) | bad_rows
    if may_clash and batch.number > 1:
        first = f"(SELECT {table.key.name} FROM batch ORDER BY rowid LIMIT 1)"
        exists = f"EXISTS (FROM {table.target} t WHERE {_came_before(table, target, first)})"
        bad_rows = _rows(con, f"SELECT rowid, 'the same row came before' FROM batch b WHERE {exists}") | bad_rows
    if bad_rows:
        con.execute("DELETE FROM batch WHERE rowid IN (SELECT unnest($rows))", {"rows": list(bad_rows)})
    if not bad_rows and row_count == batch.line_count:
        return []
    with path.open("rb") as lines:  # slow, but only where something is wrong, or a value holds a line end
        by_place = {rowid - first_rowid: reason for rowid, reason in bad_rows.items()}
        return list(located(lines, unreadable, by_place, has_one_column=len(columns) == 1))


def _may_clash(table: Table, target: Target) -> bool:
    """Whether rows of one id are looked for. In the big tables of a full extract they could only be equal, not differ,
    and looking would cost a tenth of the import."""
    return target.extract_type == "update" or len(table.id_columns) < len(table.columns)


def _has_bad_rows(con: duckdb.DuckDBPyConnection, columns: tuple[Column, ...], rows: str, *, repeats_key: bool) -> bool:
    """Whether a check fails for any of `rows`, a table or a query in parentheses.

    Args:
        repeats_key: Rows of one entity follow each other, by and large: its number is looked at where it changes. For
            activities that takes two thirds of the time, for others twice.
    """
    key, *others = columns
    wrong = [sql for column in others for sql in _checks(column).values()]
    of_key = " OR ".join(_checks(key).values())
    if repeats_key:
        changes = f"SELECT {key.name}, lag({key.name}) OVER () AS before FROM {rows}"
        sql = (
            f"SELECT 1 FROM ({changes}) WHERE (before IS DISTINCT FROM {key.name} OR {key.name} IS NULL) AND ({of_key})"
        )
        if wrong:
            sql += f" UNION ALL SELECT 1 FROM {rows} WHERE {' OR '.join(wrong)}"
    else:
        sql = f"SELECT 1 FROM {rows} WHERE {' OR '.join([of_key, *wrong])}"
    return bool(con.execute(f"SELECT EXISTS ({sql})").fetchall()[0][0])


_LATER_ROW_WINS = """
SELECT rowid, 'the same row comes again below' FROM
    (SELECT rowid, row_number() OVER (PARTITION BY {ids} ORDER BY rowid DESC) AS place FROM batch)
WHERE place > 1
"""


def _came_before(table: Table, target: Target, first: str) -> str:
    """True for a row `b` of a batch of which `t` was brought by this extract already. A full extract lists an entity's
    rows together: only those of the `first` key can have been cut."""
    same = f"t.extract_number = {target.extract_number} AND {_same_id(table)}"
    if target.extract_type == "full":
        same += f" AND t.{table.key.name} = {first} AND b.{table.key.name} = {first}"
    return same


def _same_id(table: Table) -> str:
    return " AND ".join(f"t.{name} IS NOT DISTINCT FROM b.{name}" for name in table.id_columns)


def _checks(column: Column) -> dict[str, str]:
    """Reason -> SQL that is true for a bad row."""
    name, checks = column.name, {}
    if column.required:
        checks[f"{column.header} is missing"] = f"({name} IS NULL)"
    if column.length_max is not None:
        checks[f"{column.header} is longer than {column.length_max}"] = f"(length({name}) > {column.length_max})"
    if column.kind in _SHAPES:
        checks[f"{column.header} is not {_SHAPE_WORDS[column.kind]}"] = (
            f"(NOT regexp_full_match({name}, '{_SHAPES[column.kind]}'))"
        )
        digits = f"TRY_CAST(replace({name}, '.', '') AS BIGINT)"
        checks[f"the check digits of {column.header} are wrong"] = f"(97 - {digits} // 100 % 97 <> {digits} % 100)"
    return checks


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> dict[int, str]:
    return dict(con.execute(sql).fetchall())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _close_keys(con: duckdb.DuckDBPyConnection, table: Table, target: Target) -> int:
    """End all rows of the listed numbers."""
    return _count(
        con,
        f"""UPDATE {table.target} SET deleted_at_extract = $number
        WHERE {table.key.name} IN (SELECT {table.key.name} FROM batch) AND {_OPEN}""",
        target,
    )


def _close_replaced(con: duckdb.DuckDBPyConnection, table: Table, target: Target) -> int:
    """A row that comes again without having been deleted replaces the one that is there."""
    return _count(
        con,
        f"""UPDATE {table.target} AS t SET deleted_at_extract = $number FROM batch b
        WHERE {_same_id(table)} AND {_OPEN}""",
        target,
    )


def _merge_codes(con: duckdb.DuckDBPyConnection, table: Table, target: Target) -> tuple[int, int]:
    """The code table comes whole with every extract: only the difference is kept."""
    same = " AND ".join(f"t.{name} IS NOT DISTINCT FROM b.{name}" for name in table.column_names)
    closed = _count(
        con,
        f"UPDATE codes AS t SET deleted_at_extract = $number WHERE NOT EXISTS (FROM batch b WHERE {same}) AND {_OPEN}",
        target,
    )
    still = f"FROM codes t WHERE {same} AND t.deleted_at_extract IS NULL AND t.extract_number >= {target.base_number}"
    con.execute(f"DELETE FROM batch AS b WHERE EXISTS ({still})")
    return _insert(con, table, target), closed


_OPEN = "extract_number < $number AND extract_number >= $base AND deleted_at_extract IS NULL"


def _count(con: duckdb.DuckDBPyConnection, sql: str, target: Target) -> int:
    parameters = {"number": target.extract_number, "base": target.base_number}
    return con.execute(sql, parameters).fetchall()[0][0]


def _insert(
    con: duckdb.DuckDBPyConnection,
    table: Table,
    target: Target,
    rows: str = "batch",
    parameters: dict[str, str] | None = None,
) -> int:
    """`rows` with the columns of the extract into the table. `parameters`: what `rows` needs."""
    with unordered(con):
        return con.execute(
            f"""INSERT INTO {table.target} BY NAME SELECT *, CAST($snapshot AS DATE) AS snapshot_date,
            CAST($number AS INTEGER) AS extract_number FROM {rows}""",
            {"snapshot": target.snapshot_date, "number": target.extract_number} | (parameters or {}),
        ).fetchall()[0][0]
