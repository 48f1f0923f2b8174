"""What recon keeps in SurrealDB: jobs, hosts, ports, the edges between them, and the ledger of steps.

Every step of the workflow is one transaction that also writes the step's ledger line, and every write is an upsert
under an id made from the data. So a step that died after its commit but before the engine recorded it may run again
without harm, and does leave a second line.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

import msgspec

from apps.recon.batches import Batch
from apps.recon.model import Job, JobState, PersistedCounts
from apps.recon.schema import DATABASE, NAMESPACE, SCHEMA, SCHEMA_VERSION
from apps.recon.surreal import StoreError, StoreRefused, Surreal


class InvalidTransition(StoreError):
    """The job's state does not allow the change; the row was not touched."""


class UnknownJob(StoreError):
    """There is no such job."""


@dataclass(frozen=True, slots=True)
class Step:
    """One execution of one step, for the ledger."""

    job_id: str
    name: str
    began_at: datetime

    @classmethod
    def begin(cls, job_id: str, name: str) -> Step:
        """Now. Call it when the step's work starts, not when it is written."""
        return cls(job_id, name, datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class LedgerLine:
    job_id: str
    step: str
    attempt: int
    """1 for the first committed execution of this step."""
    process: int
    """How many times the database had been opened when it ran: tells before a crash from after it."""
    began_at: datetime


@dataclass(frozen=True, slots=True)
class JobPage:
    jobs: list[Job]
    total: int
    """How many jobs fit the filter, not how many are on the page."""


ORDER_COLUMNS = ("created_at", "updated_at")

_LEDGER = """
LET $attempt = count((SELECT VALUE id FROM step_ledger:[$job, $step, 0]..[$job, $step, 1000000])) + 1;
CREATE step_ledger CONTENT {
    id: [$job, $step, $attempt], job: type::thing('job', $job), step: $step, attempt: $attempt,
    process: $process, began_at: $began_at
} RETURN NONE;
"""

_SET_STATE = """
LET $changed = (UPDATE type::thing('job', $job) SET
    state = $state,
    error_message = error_message ?? $error_message,
    host_count = $host_count ?? host_count,
    port_count = $port_count ?? port_count,
    completed_at = IF $state IN ['completed', 'failed'] THEN completed_at ?? time::now() END);
IF array::len($changed) = 0 { THROW 'no such job' };
"""

_DROP_BATCHES = "DELETE scan_batch:[$job, 0]..[$job, 1000000] RETURN NONE;"

_SEEN = "last_seen = IF $at > last_seen THEN $at ELSE last_seen END"

_PERSIST = f"""
INSERT INTO host (
    SELECT id, id AS address, ip, name, $at AS first_seen, $at AS last_seen FROM $hosts
) ON DUPLICATE KEY UPDATE name = $input.name ?? name, {_SEEN} RETURN NONE;
INSERT INTO port (
    SELECT id, type::thing('host', id[0]) AS host, id[1] AS protocol, id[2] AS number, service, product, version,
        $at AS first_seen, $at AS last_seen FROM $ports
) ON DUPLICATE KEY UPDATE service = $input.service ?? service, product = $input.product ?? product,
    version = $input.version ?? version, {_SEEN} RETURN NONE;
INSERT RELATION INTO HAS (
    SELECT id, type::thing('host', id[0]) AS in, type::thing('port', id) AS out,
        $at AS first_seen, $at AS last_seen FROM $ports
) ON DUPLICATE KEY UPDATE {_SEEN} RETURN NONE;
"""


class Store:
    """The application's database. One per process; opened by the first call that needs it. All calls may overlap.

    Any call raises `StoreInUse` when another process has the directory open, `StoreRefused` when it is not ours or
    was written by a newer version, and `StoreError` when the database fails.
    """

    def __init__(self, path: Path) -> None:
        """`path`: a directory of its own, made when missing."""
        self.path = path
        self.process = 0
        """How often this database has been opened, this time included; 0 while it is not open."""
        self._surreal: Surreal | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for the write in progress, then close. A later call opens it again."""
        async with self._opening:
            if self._surreal is not None:
                await self._surreal.close()
                self._surreal = None

    async def _open(self) -> Surreal:
        if self._surreal is not None:
            return self._surreal
        async with self._opening:
            if self._surreal is None:
                self._surreal = await self._connect()
            return self._surreal

    async def _connect(self) -> Surreal:
        surreal = await Surreal.open(self.path, NAMESPACE, DATABASE)
        try:
            (version,) = await surreal.read("SELECT VALUE schema_version FROM ONLY meta:store")
            if version is not None and version > SCHEMA_VERSION:
                raise StoreRefused(f"{self.path} has schema version {version}; this program knows {SCHEMA_VERSION}")
            if version != SCHEMA_VERSION:
                await surreal.write(SCHEMA)
            (self.process,) = await surreal.write(
                "UPSERT ONLY meta:store SET open_count = (open_count ?? 0) + 1 RETURN VALUE open_count"
            )
        except BaseException:
            await surreal.close()
            raise
        return surreal

    async def _read(self, sql: str, **params: Any) -> list[Any]:
        return await (await self._open()).read(sql, **params)

    async def _write(self, sql: str, **params: Any) -> list[Any]:
        return await (await self._open()).write(sql, **params)

    async def _write_step(self, step: Step, sql: str, **params: Any) -> None:
        """One transaction: the step's work and its line in the ledger."""
        surreal = await self._open()
        await surreal.write(
            f"BEGIN;{_LEDGER}{sql}COMMIT;",
            job=step.job_id,
            step=step.name,
            began_at=step.began_at,
            process=self.process,
            **params,
        )

    # -- jobs ----------------------------------------------------------------------------------------------------

    async def create_job(self, job_id: str, scanner_key: str) -> Job:
        """Create a job in state `pending`, or return the one that has this id already, whatever its state."""
        _, rows = await self._write(
            """INSERT IGNORE INTO job { id: $job, state: 'pending', scanner_key: $scanner_key } RETURN NONE;
            SELECT * FROM type::thing('job', $job);""",
            job=job_id,
            scanner_key=scanner_key,
        )
        return _job(rows[0])

    async def job(self, job_id: str) -> Job | None:
        """The job, or None."""
        (rows,) = await self._read("SELECT * FROM type::thing('job', $job)", job=job_id)
        return _job(rows[0]) if rows else None

    async def jobs(
        self,
        *,
        limit: int = 50,
        offset: int = 0,
        state: JobState | None = None,
        scanner_key: str | None = None,
        order_by: str = "created_at",
        descending: bool = True,
    ) -> JobPage:
        """A page of jobs. `order_by` is one of `ORDER_COLUMNS`."""
        assert order_by in ORDER_COLUMNS  # it becomes part of the query's text
        tests = [f"{name} = ${name}" for name, value in (("state", state), ("scanner_key", scanner_key)) if value]
        where = f"WHERE {' AND '.join(tests)}" if tests else ""
        direction = "DESC" if descending else "ASC"
        # With an index on each of two columns SurrealDB 2.3 answers the first form from one index and forgets the other
        # condition. Otherwise it is ten times faster than the second.
        counting = (
            f"(SELECT count() FROM job {where} GROUP ALL)[0].count ?? 0"
            if len(tests) < 2
            else f"count((SELECT VALUE id FROM job {where}))"
        )
        rows, total = await self._read(
            f"""SELECT * FROM job {where} ORDER BY {order_by} {direction}, id {direction} LIMIT $limit START $offset;
            RETURN {counting};""",
            limit=limit,
            offset=offset,
            state=state.value if state else None,
            scanner_key=scanner_key,
        )
        return JobPage([_job(row) for row in rows], total)

    async def count_jobs(self, *states: JobState) -> int:
        """How many jobs are in one of these states."""
        (counted,) = await self._read(
            "SELECT count() FROM job WHERE state IN $states GROUP ALL", states=[state.value for state in states]
        )
        return counted[0]["count"] if counted else 0

    async def set_state(
        self,
        step: Step,
        state: JobState,
        *,
        host_count: int | None = None,
        port_count: int | None = None,
        error_message: str | None = None,
    ) -> None:
        """Move the step's job to `state`; a final one also drops what was staged for it.

        Raises:
            InvalidTransition: the stored state does not allow it.
            UnknownJob: there is no such job.
        """
        is_final = state in (JobState.COMPLETED, JobState.FAILED)
        try:
            await self._write_step(
                step,
                _SET_STATE + (_DROP_BATCHES if is_final else ""),
                state=state.value,
                host_count=host_count,
                port_count=port_count,
                error_message=error_message,
            )
        except StoreError as error:
            if "no such job" in str(error):
                raise UnknownJob(f"there is no job {step.job_id}") from error
            if "for field `state`" in str(error):
                raise InvalidTransition(f"job {step.job_id} cannot become {state.value} now") from error
            raise

    # -- scans ---------------------------------------------------------------------------------------------------

    async def stage(self, step: Step, batches: list[Batch]) -> None:
        """Keep parsed batches for the persist steps of the same job, numbered from 0. Replaces earlier ones."""
        rows = [
            {"id": [step.job_id, index], "body": msgspec.json.encode(batch).decode()}
            for index, batch in enumerate(batches)
        ]
        await self._write_step(step, f"{_DROP_BATCHES}INSERT INTO scan_batch $rows RETURN NONE;", rows=rows)

    async def persist(self, step: Step, batch_index: int, observed_at_s: int) -> PersistedCounts:
        """Write one staged batch: hosts, ports, edges.

        What is known already stays: `first_seen` is kept, `last_seen` moves forward only, a name or product is
        replaced by a newer one but never by nothing.
        """
        (body,) = await self._read(
            "SELECT VALUE body FROM ONLY type::thing('scan_batch', $id)", id=[step.job_id, batch_index]
        )
        if body is None:
            raise StoreError(f"batch {batch_index} of job {step.job_id} was never staged")
        batch = msgspec.json.decode(body, type=Batch)
        await self._write_step(
            step,
            _PERSIST,
            hosts=msgspec.to_builtins(batch.hosts),
            ports=msgspec.to_builtins(batch.ports),
            at=datetime.fromtimestamp(observed_at_s, UTC),
        )
        return PersistedCounts(batch.host_count, len(batch.ports))

    # -- for verification ----------------------------------------------------------------------------------------

    async def hosts(self) -> set[str]:
        """The addresses of all hosts."""
        (rows,) = await self._read("SELECT VALUE address FROM host")
        return set(cast(list[str], rows))

    async def ports(self) -> set[tuple[str, str, int]]:
        """Address, protocol and number of all ports."""
        (rows,) = await self._read("SELECT VALUE [host.address, protocol, number] FROM port")
        return {(address, protocol, number) for address, protocol, number in rows}

    async def edges(self) -> set[tuple[str, str, int]]:
        """All HAS edges that lead from a host to a port of its own: the host's address, the port's protocol and number."""
        (rows,) = await self._read("SELECT VALUE [record::id(in), record::id(out)] FROM HAS")
        return {(host, protocol, number) for host, (owner, protocol, number) in rows if host == owner}

    async def row_counts(self) -> dict[str, int]:
        """Rows per table: host, port, HAS, scan_batch."""
        tables = ("host", "port", "HAS", "scan_batch")
        counted = await self._read(";".join(f"SELECT count() FROM {table} GROUP ALL" for table in tables))
        return {table: rows[0]["count"] if rows else 0 for table, rows in zip(tables, counted, strict=True)}

    async def ledger(self) -> list[LedgerLine]:
        """Every committed step execution."""
        (rows,) = await self._read("SELECT job, step, attempt, process, began_at FROM step_ledger")
        return [LedgerLine(row["job"].id, row["step"], row["attempt"], row["process"], row["began_at"]) for row in rows]


def _job(row: dict[str, Any]) -> Job:
    return Job(
        id=row["id"].id,
        state=JobState(row["state"]),
        scanner_key=row["scanner_key"],
        host_count=row["host_count"],
        port_count=row["port_count"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        completed_at=row.get("completed_at"),
        error_message=row.get("error_message"),
    )
