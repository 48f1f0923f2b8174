"""The life of an import in the database, one function per transaction. `Store` calls them.

    pending -> preparing -> processing -> finalizing -> completed
       any of the four ... -> failed, cancelled, after its rows were taken out again

An extract belongs to an import from `preparing` on; one import at a time is in the states from there to `finalizing`.
"""

# ruff: noqa: S608 names in SQL are our own, from `formats` and `schema`; values are always bound

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import msgspec

from apps.imports.batches import Target, apply_batch, may_go_at_once
from apps.imports.files import Batch
from apps.imports.finalize import finalize, switch
from apps.imports.formats import BrokenExtract, Meta
from apps.imports.history import import_result
from apps.imports.model import ExtractType, ImportRequest, ImportResult, Operation, Status, job_id_of
from apps.imports.rejects import Reject
from apps.imports.schema import VERSIONED_TABLES
from apps.imports.settings import Settings

_WORKING = (Status.PREPARING, Status.PROCESSING, Status.FINALIZING)
"""Rows of the extract may be there."""
_GARBAGE_ROWS_MIN = 20


class Refused(Exception):
    """The import must not go on: its extract is there already, too old, or another import is at work."""


class Claim(msgspec.Struct, frozen=True):
    """An extract that an import may work on."""

    extract_number: int
    extract_type: ExtractType
    snapshot_date: str
    batch_rows: int
    delete_batch_rows: int
    warnings: list[str]


class Planned(msgspec.Struct, frozen=True):
    """How many batches and rows one operation on one table has."""

    table: str
    operation: Operation
    batches: int
    rows: int


class Plan(msgspec.Struct, frozen=True):
    """What `prepare` leads to. Small: it is in the journal."""

    extract_number: int
    extract_type: ExtractType
    snapshot_date: str
    batch_rows: int
    """As the batches were cut; they are never cut otherwise, whatever the settings say later."""
    delete_batch_rows: int
    operations: list[Planned]


class BatchDone(msgspec.Struct, frozen=True):
    """What one batch did."""

    rows: int
    """Lines of the file."""
    rejected: int
    elapsed_s: float


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def begin(con: duckdb.DuckDBPyConnection, request: ImportRequest) -> None:
    job_id = job_id_of(request.import_id)
    found = con.execute("SELECT status FROM import_jobs WHERE job_id = $1", [job_id]).fetchall()
    if found:
        status = Status(found[0][0])
        if status is Status.COMPLETED:
            raise Refused(f"{request.import_id} is completed; an import has one id, and an id has one import")
        if status in _WORKING:  # its workflow was killed and then purged: nobody rolled it back
            _take_out(con, job_id)
        con.execute("DELETE FROM import_job_batches WHERE job_id = $1", [job_id])
        con.execute("DELETE FROM rejected_rows WHERE job_id = $1", [job_id])
        con.execute(
            """UPDATE import_jobs SET status = 'pending', source = $2, worker_type = $3, sha256 = NULL,
            extract_number = NULL, extract_type = NULL, snapshot_date = NULL, completed_batches = 0, total_batches = 0,
            record_count = 0, rejected_count = 0, names_resolved = NULL, error = NULL, warnings = [], created_at = $4,
            started_at = NULL, completed_at = NULL WHERE job_id = $1""",
            [job_id, request.source, request.worker_type, _now()],
        )
        return
    con.execute(
        """INSERT INTO import_jobs (job_id, import_id, status, source, worker_type, created_at)
        VALUES ($1, $2, 'pending', $3, $4, $5)""",
        [job_id, request.import_id, request.source, request.worker_type, _now()],
    )


def claim(con: duckdb.DuckDBPyConnection, job_id: str, meta: Meta, settings: Settings) -> Claim:
    number = meta.extract_number
    own = con.execute("SELECT status, batch_rows, delete_batch_rows FROM import_jobs WHERE job_id = $1", [job_id])
    status, batch_rows, delete_batch_rows = own.fetchall()[0]
    # Taken out and put back: of two claims at a time, by two processes on one MotherDuck, one conflicts, and is repeated.
    current, base = con.execute("DELETE FROM current_extract RETURNING extract_number, base_number").fetchall()[0]
    con.execute("INSERT INTO current_extract (extract_number, base_number) VALUES ($1, $2)", [current, base])
    if status not in (Status.PENDING, *_WORKING):
        raise Refused(f"the import is {status}")
    others = con.execute(
        "SELECT import_id, status FROM import_jobs WHERE job_id <> $1 AND list_contains($2, status)",
        [job_id, [*_WORKING]],
    ).fetchall()
    if others:
        raise Refused(f"import {others[0][0]} is {others[0][1]}; wait until it is over, or cancel it")
    done = con.execute("SELECT import_id FROM extracts WHERE extract_number = $1", [number]).fetchall()
    if done:
        raise Refused(f"extract {number} was imported by {done[0][0]}")
    if number < current:
        raise Refused(f"extract {number} is older than extract {current}, which was imported")
    warnings = _warnings(meta, current)
    if status == Status.PENDING:  # sizes as of the first attempt: batches must not change in between
        batch_rows, delete_batch_rows = settings.batch_rows, settings.delete_batch_rows
        con.execute(
            """UPDATE import_jobs SET status = 'preparing', extract_number = $2, extract_type = $3, snapshot_date = $4,
            base_number = $5, extracted_at = $6, version = $7, batch_rows = $8, delete_batch_rows = $9, warnings = $10
            WHERE job_id = $1""",
            [
                job_id,
                number,
                meta.extract_type,
                meta.snapshot_date,
                number if meta.extract_type == "full" else base,
                meta.extracted_at,
                meta.version,
                batch_rows,
                delete_batch_rows,
                warnings,
            ],
        )
    return Claim(number, meta.extract_type, meta.snapshot_date.isoformat(), batch_rows, delete_batch_rows, warnings)


def _warnings(meta: Meta, current: int) -> list[str]:
    if meta.extract_type == "full":
        return []
    if current == 0:
        return ["there was no full extract before this update: what it does not mention is not there"]
    missing = range(current + 1, meta.extract_number)
    if not missing:
        return []
    which = f"extract {missing[0]} was" if len(missing) == 1 else f"extracts {missing[0]} to {missing[-1]} were"
    return [f"{which} never imported: what changed there is missing until the next full extract"]


def plan(con: duckdb.DuckDBPyConnection, job_id: str, batches: list[Batch]) -> Plan:
    status, number, kind, snapshot, batch_rows, delete_batch_rows = con.execute(
        """SELECT status, extract_number, extract_type, snapshot_date, batch_rows, delete_batch_rows
        FROM import_jobs WHERE job_id = $1""",
        [job_id],
    ).fetchall()[0]
    if status == Status.PREPARING:
        con.execute(
            """INSERT INTO import_job_batches BY NAME SELECT $job AS job_id, 'pending' AS state,
            unnest($table) AS table_name, unnest($operation) AS operation, unnest($number) AS batch_number,
            unnest($first) AS first_line, unnest($lines) AS line_count, unnest($bytes) AS byte_count""",
            {
                "job": job_id,
                "table": [batch.table for batch in batches],
                "operation": [batch.operation for batch in batches],
                "number": [batch.number for batch in batches],
                "first": [batch.first_line for batch in batches],
                "lines": [batch.line_count for batch in batches],
                "bytes": [batch.byte_count for batch in batches],
            },
        )
        con.execute(
            """UPDATE import_jobs SET status = 'processing', total_batches = $2, started_at = $3 WHERE job_id = $1""",
            [job_id, len(batches), _now()],
        )
    elif status not in _WORKING:
        raise Refused(f"the import is {status}")
    operations: dict[tuple[str, Operation], Planned] = {}
    for batch in batches:
        before = operations.get((batch.table, batch.operation))
        batch_count, rows = (before.batches, before.rows) if before else (0, 0)
        operations[batch.table, batch.operation] = Planned(
            batch.table, batch.operation, batch_count + 1, rows + batch.line_count
        )
    return Plan(number, kind, snapshot.isoformat(), batch_rows, delete_batch_rows, list(operations.values()))


def fetched(con: duckdb.DuckDBPyConnection, job_id: str, sha256: str) -> None:
    con.execute("UPDATE import_jobs SET sha256 = $2 WHERE job_id = $1", [job_id, sha256])


def batch(
    con: duckdb.DuckDBPyConnection, job_id: str, table: str, operation: Operation, number: int
) -> tuple[Batch, bool]:
    rows = con.execute(
        """SELECT first_line, line_count, byte_count, state FROM import_job_batches
        WHERE job_id = $1 AND table_name = $2 AND operation = $3 AND batch_number = $4""",
        [job_id, table, operation, number],
    ).fetchall()
    if not rows:
        raise Refused(f"batch {table}-{operation}-{number} is not planned any more: the import was rolled back")
    first_line, line_count, byte_count, state = rows[0]
    return Batch(table, operation, number, first_line, line_count, byte_count), state == "completed"


def apply(
    con: duckdb.DuckDBPyConnection, job_id: str, batch: Batch, path: Path, rejected_max: int, with_care: bool
) -> BatchDone:
    """Raises `batches.NeedsCare` if it has to be done again `with_care`, in a new transaction."""
    began_s = time.monotonic()
    key = [job_id, batch.table, batch.operation, batch.number]
    state, rejected, elapsed_s = con.execute(
        f"SELECT state, rejected_count, elapsed_s FROM import_job_batches WHERE {_BATCH_KEY}", key
    ).fetchall()[0]
    if state == "completed":
        return BatchDone(batch.line_count, rejected, elapsed_s)
    target = _target(con, job_id, Status.PROCESSING)
    applied = apply_batch(con, batch, path, target, may_go_at_once(batch, target) and not with_care)
    _keep_rejects(con, job_id, batch, target, applied.rejects, rejected_max)
    elapsed_s = time.monotonic() - began_s
    con.execute(
        f"""UPDATE import_job_batches SET state = 'completed', inserted_count = $5, closed_count = $6,
        rejected_count = $7, processed_at = $8, elapsed_s = $9 WHERE {_BATCH_KEY}""",
        [*key, applied.inserted, applied.closed, len(applied.rejects), _now(), elapsed_s],
    )
    con.execute(
        """UPDATE import_jobs SET completed_batches = completed_batches + 1, record_count = record_count + $2,
        rejected_count = rejected_count + $3 WHERE job_id = $1""",
        [job_id, applied.inserted, len(applied.rejects)],
    )
    return BatchDone(batch.line_count, len(applied.rejects), elapsed_s)


_BATCH_KEY = "job_id = $1 AND table_name = $2 AND operation = $3 AND batch_number = $4"


def _keep_rejects(
    con: duckdb.DuckDBPyConnection,
    job_id: str,
    batch: Batch,
    target: Target,
    rejects: list[Reject],
    rejected_max: int,
) -> None:
    """Write down what was left out.

    Raises:
        BrokenExtract: it is too much for a file with a few bad rows.
    """
    if not rejects:
        return
    file = batch.table if batch.table == "code" or target.extract_type == "full" else f"{batch.table}_{batch.operation}"
    first = f"{file}.csv line {batch.first_line - 1 + rejects[0].line}"
    (before,) = con.execute(
        """SELECT coalesce(sum(rejected_count), 0) FROM import_job_batches
        WHERE job_id = $1 AND table_name = $2 AND operation = $3""",
        [job_id, batch.table, batch.operation],
    ).fetchall()[0]
    if before + len(rejects) > rejected_max:
        raise BrokenExtract(f"{first}: {rejects[0].reason}; the file has more than {rejected_max} bad rows")
    if len(rejects) > _GARBAGE_ROWS_MIN and 2 * len(rejects) > batch.line_count:
        raise BrokenExtract(f"{first}: {rejects[0].reason}; {len(rejects)} of {batch.line_count} rows are bad")
    con.execute(
        """INSERT INTO rejected_rows SELECT $job, import_id, extract_number, $file, $first + unnest($lines),
        unnest($reasons), unnest($texts) FROM import_jobs WHERE job_id = $job""",
        {
            "job": job_id,
            "file": f"{file}.csv",
            "first": batch.first_line - 1,
            "lines": [reject.line for reject in rejects],
            "reasons": [reject.reason for reject in rejects],
            "texts": [reject.text for reject in rejects],
        },
    )


def _target(con: duckdb.DuckDBPyConnection, job_id: str, *expected: Status) -> Target:
    status, number, kind, snapshot, base = con.execute(
        """SELECT status, extract_number, extract_type, snapshot_date, base_number FROM import_jobs
        WHERE job_id = $1""",
        [job_id],
    ).fetchall()[0]
    if status not in expected:  # an attempt that went on after its import was rolled back
        raise Refused(f"the import is {status}")
    return Target(number, kind, snapshot.isoformat(), base)


def begin_finalizing(con: duckdb.DuckDBPyConnection, job_id: str) -> None:
    con.execute("UPDATE import_jobs SET status = 'finalizing' WHERE job_id = $1 AND status = 'processing'", [job_id])


def finish(con: duckdb.DuckDBPyConnection, job_id: str) -> ImportResult:
    if (done := import_result(con, job_id)) is not None:
        return done
    target = _target(con, job_id, Status.FINALIZING)
    (missing,) = con.execute(
        "SELECT count(*) FROM import_job_batches WHERE job_id = $1 AND state <> 'completed'", [job_id]
    ).fetchall()[0]
    if missing:
        raise Refused(f"{missing} batches are not completed")
    names = finalize(con, target)
    switch(con, target, job_id)
    con.execute(
        "UPDATE import_jobs SET status = 'completed', names_resolved = $2, completed_at = $3 WHERE job_id = $1",
        [job_id, names, _now()],
    )
    result = import_result(con, job_id)
    assert result is not None
    return result


def roll_back(
    con: duckdb.DuckDBPyConnection, job_id: str, status: Status, error: str, completed: int | None
) -> ImportResult | None:
    if (done := import_result(con, job_id)) is not None:
        return done
    found = con.execute("SELECT status FROM import_jobs WHERE job_id = $1", [job_id]).fetchall()
    if not found:
        return None
    if Status(found[0][0]) in _WORKING:
        _take_out(con, job_id)
    con.execute("DELETE FROM import_job_batches WHERE job_id = $1", [job_id])
    con.execute(
        """UPDATE import_jobs SET status = $2, error = $3, completed_at = $4, record_count = 0,
        completed_batches = coalesce($5, completed_batches) WHERE job_id = $1""",
        [job_id, status, error, _now(), completed],
    )
    return None


def _take_out(con: duckdb.DuckDBPyConnection, job_id: str) -> None:
    """Undo an extract that no reader has seen: its rows go, rows that it ended are open again."""
    (number,) = con.execute("SELECT extract_number FROM import_jobs WHERE job_id = $1", [job_id]).fetchall()[0]
    for table in VERSIONED_TABLES:
        con.execute(f"DELETE FROM {table} WHERE extract_number = $1", [number])
        con.execute(f"UPDATE {table} SET deleted_at_extract = NULL WHERE deleted_at_extract = $1", [number])
