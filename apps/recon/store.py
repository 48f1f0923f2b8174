"""What recon keeps in SurrealDB: jobs, submissions, hosts, ports, services, the edges between them, the ledger of steps.

Every step of the workflow is one transaction that also writes the step's ledger line, and every write is an upsert
under an id made from the data. So a step that died after its commit but before the engine recorded it may run again
without harm, and does leave a second line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self, cast

import msgspec

from apps.recon import statements
from apps.recon.batches import Batch
from apps.recon.cursors import read_cursor, write_cursor
from apps.recon.migrations import all_migrations, migrate
from apps.recon.model import FINAL_STATES, IngestRequest, Job, JobState, PersistedCounts
from apps.recon.settings import Settings
from apps.recon.submissions import SubmissionWriter, unpack
from apps.recon.surreal import DATABASE, NAMESPACE, ServerAddress, StoreError, Surreal

ORDER_COLUMNS = ("created_at", "updated_at")


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
    next_cursor: str | None
    """Where the next page begins, or None when this is the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs; None means any."""

    state: JobState | None = None
    scanner_key: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def tests(self) -> list[str]:
        """Conditions of a query whose parameters are `params()`."""
        tests = {
            "state": "state = $state",
            "scanner_key": "scanner_key = $scanner_key",
            "created_after": "created_ns >= $created_after",
            "created_before": "created_ns < $created_before",
        }
        return [test for name, test in tests.items() if getattr(self, name) is not None]

    def params(self) -> dict[str, Any]:
        return {
            "state": self.state.value if self.state else None,
            "scanner_key": self.scanner_key,
            "created_after": to_ns(self.created_after) if self.created_after else None,
            "created_before": to_ns(self.created_before) if self.created_before else None,
        }


class Store:
    """The application's database. One per process; opened by the first call that needs it. All calls may overlap.

    Any call raises `StoreInUse` when another process has the directory open, `StoreRefused` when it is not ours or
    was written by a newer version, `StoreUnavailable` when a server cannot be reached, and `StoreError` when the
    database fails.
    """

    def __init__(self, where: Path | ServerAddress, *, namespace: str = NAMESPACE, database: str = DATABASE) -> None:
        """`where`: a directory of its own, made when missing, or a server. The names are for the directory."""
        self.where = where
        self.process = 0
        """How often this database has been opened, this time included; 0 while it is not open."""
        self._names = (namespace, database)
        self._surreal: Surreal | None = None
        self._opening = asyncio.Lock()
        self._submissions = SubmissionWriter()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The database that the settings name; not open yet."""
        return cls(
            settings.database_address,
            namespace=settings.surrealdb_namespace,
            database=settings.surrealdb_database,
        )

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
        if isinstance(self.where, Path):
            surreal = await Surreal.open(self.where, *self._names)
        else:
            surreal = await Surreal.connect(self.where)
        try:
            await migrate(surreal, all_migrations())
            (self.process,) = await surreal.write(
                "UPSERT ONLY meta:store SET open_count = (open_count ?? 0) + 1 RETURN VALUE open_count"
            )
        except BaseException:
            await surreal.close()
            raise
        return surreal

    # -- for all parts -------------------------------------------------------------------------------------------

    async def read(self, sql: str, **params: Any) -> list[Any]:
        """Run statements that change nothing. Returns the result of each.

        Raises:
            StoreError: any statement failed.
        """
        return await (await self._open()).read(sql, **params)

    async def write(self, sql: str, **params: Any) -> list[Any]:
        """Run statements that change something, while no other of this process does. Several that belong together
        need BEGIN and COMMIT around them. What it returns is on disk.

        Raises:
            StoreError: any statement failed; if they stand between BEGIN and COMMIT, none took effect.
        """
        return await (await self._open()).write(sql, **params)

    async def write_step(self, step: Step, sql: str, **params: Any) -> list[Any]:
        """One transaction: a step's work and its line in the ledger. `$job`, `$step`, `$attempt`, `$process` and
        `$began_at` are taken. Returns the result of each statement of `sql`.

        Raises:
            StoreError: a statement failed; nothing took effect.
        """
        surreal = await self._open()
        results = await surreal.write(
            f"BEGIN;{statements.LEDGER}{sql};COMMIT;",
            job=step.job_id,
            step=step.name,
            began_at=step.began_at,
            process=self.process,
            **params,
        )
        return results[statements.LEDGER_COUNT :]

    # -- jobs ----------------------------------------------------------------------------------------------------

    async def create_job(self, request: IngestRequest, scan: str) -> Job:
        """Create a job in state `pending` with its scan, or return the one that has this id, whatever its state."""
        surreal = await self._open()
        return _job(await self._submissions.create(surreal, request, scan))

    async def job(self, job_id: str) -> Job | None:
        """The job, or None."""
        (rows,) = await self.read("SELECT * FROM type::thing('job', $job)", job=job_id)
        return _job(rows[0]) if rows else None

    async def jobs(
        self,
        which: JobFilter | None = None,
        *,
        limit: int = 50,
        offset: int = 0,
        cursor: str | None = None,
        order_by: str = "created_at",
        descending: bool = True,
    ) -> JobPage:
        """A page of jobs. `order_by` is one of `ORDER_COLUMNS`.

        Raises:
            InvalidCursor: `cursor` is none of ours, or one of another order.
        """
        assert order_by in ORDER_COLUMNS  # it becomes part of the query's text
        tests = (which or JobFilter()).tests()
        params = (which or JobFilter()).params()
        direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
        behind: list[str] = []
        if cursor is not None:
            params["at"], params["last"] = read_cursor(cursor, order_by)
            at, last = "<datetime>$at", "type::thing('job', $last)"
            behind = [f"({order_by} {beyond} {at} OR ({order_by} = {at} AND id {beyond} {last}))"]
        where = f"WHERE {' AND '.join(tests)}" if tests else ""
        listed = f"WHERE {' AND '.join(tests + behind)}" if tests or behind else ""
        # With an index on each of two columns SurrealDB 2.3 answers the first form from one index and forgets the other
        # condition. Otherwise it is ten times faster than the second. WITH NOINDEX: the same fault in the list itself.
        counting = (
            f"(SELECT count() FROM job {where} GROUP ALL)[0].count ?? 0"
            if len(tests) < 2
            else f"count((SELECT VALUE id FROM job WITH NOINDEX {where}))"
        )
        by_index = "WITH NOINDEX" if len(tests) + len(behind) > 1 else ""
        rows, total = await self.read(
            f"""SELECT *, <string>{order_by} AS at FROM job {by_index} {listed}
                ORDER BY {order_by} {direction}, id {direction} LIMIT $limit START $offset;
            RETURN {counting};""",
            limit=limit + 1,
            offset=offset,
            **params,
        )
        more = len(rows) > limit
        page: list[dict[str, Any]] = rows[:limit]
        return JobPage(
            [_job(row) for row in page],
            total,
            write_cursor(order_by, page[-1]["at"], page[-1]["id"].id) if more and page else None,
        )

    async def changed_jobs(self, since: datetime, *, limit: int = 1000) -> list[Job]:
        """Jobs that changed after that moment, the oldest change first."""
        (rows,) = await self.read(
            """SELECT * FROM job WITH INDEX job_updated_ns WHERE updated_ns > $since_ns ORDER BY updated_ns LIMIT $limit""",
            since_ns=to_ns(since),
            limit=limit,
        )
        return [_job(row) for row in rows]

    async def count_jobs(self, *states: JobState) -> int:
        """How many jobs are in one of these states."""
        (counted,) = await self.read(
            "SELECT count() FROM job WHERE state IN $states GROUP ALL", states=[state.value for state in states]
        )
        return counted[0]["count"] if counted else 0

    async def state_counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        counted = await self.read(
            ";".join(f"SELECT count() FROM job WHERE state = '{state}' GROUP ALL" for state in JobState)
        )
        return {state: rows[0]["count"] if rows else 0 for state, rows in zip(JobState, counted, strict=True)}

    async def set_state(
        self,
        step: Step,
        state: JobState,
        *,
        host_count: int | None = None,
        port_count: int | None = None,
        error_message: str | None = None,
        invocation_id: str | None = None,
    ) -> None:
        """Move the step's job to `state`; a final one also drops what was kept for its steps.

        Raises:
            InvalidTransition: the stored state does not allow it.
            UnknownJob: there is no such job.
        """
        is_final = state in FINAL_STATES
        try:
            await self.write_step(
                step,
                statements.SET_STATE + (statements.DROP_WORK if is_final else ""),
                state=state.value,
                host_count=host_count,
                port_count=port_count,
                error_message=error_message,
                invocation_id=invocation_id,
            )
        except StoreError as error:
            if "no such job" in str(error):
                raise UnknownJob(f"there is no job {step.job_id}") from error
            if "for field `state`" in str(error):
                raise InvalidTransition(f"job {step.job_id} cannot become {state.value} now") from error
            raise

    async def close_job(self, step: Step, error_message: str) -> bool:
        """Fail the step's job, which nobody works on any more. False when it is final already; then nothing changes."""
        try:
            await self._write_work(
                step,
                statements.SET_STATE + statements.DROP_WORK,
                state=JobState.FAILED.value,
                error_message=error_message,
                host_count=None,
                port_count=None,
                invocation_id=None,
            )
        except InvalidTransition:
            return False
        return True

    async def set_cancel_reason(self, job_id: str, reason: str) -> None:
        """Note why a job is being cancelled; the first reason counts, and none once it is final."""
        await self.write(
            """UPDATE type::thing('job', $job) SET cancel_reason = cancel_reason ?? $reason
                WHERE state IN ['pending', 'processing'] RETURN NONE""",
            job=job_id,
            reason=reason,
        )

    async def unstarted(self, *, before: datetime, limit: int) -> list[IngestRequest]:
        """Jobs that have been `pending` since before that moment, oldest first."""
        (rows,) = await self.read(
            """SELECT record::id(id) AS job_id, scanner_key, created_at,
                    type::thing('submission', record::id(id)).observed_at_s AS observed_at_s
                FROM job WITH INDEX job_state WHERE state = 'pending' AND created_ns < $before
                ORDER BY created_at LIMIT $limit""",
            before=to_ns(before),
            limit=limit,
        )
        return [
            IngestRequest(row["job_id"], row["scanner_key"], row["observed_at_s"])
            for row in rows
            if row["observed_at_s"] is not None
        ]

    async def processing(self, *, before: datetime, limit: int) -> list[tuple[str, str]]:
        """Jobs that have been `processing` since before that moment, oldest first, each with what works on it."""
        (rows,) = await self.read(
            """SELECT record::id(id) AS job_id, invocation_id, updated_ns FROM job WITH INDEX job_state
                WHERE state = 'processing' AND updated_ns < $before AND invocation_id != NONE ORDER BY updated_ns LIMIT $limit""",
            before=to_ns(before),
            limit=limit,
        )
        return [(row["job_id"], row["invocation_id"]) for row in rows]

    # -- scans ---------------------------------------------------------------------------------------------------

    async def scan(self, job_id: str) -> str | None:
        """The scan that a job was submitted with; None once the job is final."""
        (row,) = await self.read("SELECT scan, packed_scan FROM ONLY type::thing('submission', $job)", job=job_id)
        if row is None or row.get("packed_scan") is None:
            return row and row["scan"]  # of a version that did not pack
        return await unpack(row["packed_scan"])

    async def stage(self, step: Step, batches: Sequence[Batch]) -> None:
        """Keep parsed batches for the persist steps of the same job, numbered from 0. Replaces earlier ones.

        Raises:
            InvalidTransition: the job is final.
        """
        rows = [
            {"id": [step.job_id, index], "body": msgspec.json.encode(batch).decode()}
            for index, batch in enumerate(batches)
        ]
        await self._write_work(step, f"{statements.DROP_BATCHES}INSERT INTO scan_batch $rows RETURN NONE", rows=rows)

    async def persist(self, step: Step, batch_index: int, observed_at_s: int) -> PersistedCounts:
        """Write one staged batch: hosts, ports, services, evidence, edges.

        What is known already stays: `first_seen` is kept, `last_seen` moves forward only, a name or product is
        replaced by one observed later, but never by nothing.

        Raises:
            InvalidTransition: the job is final.
        """
        (body,) = await self.read(
            "SELECT VALUE body FROM ONLY type::thing('scan_batch', $id)", id=[step.job_id, batch_index]
        )
        if body is None:  # or dropped, because the job is final
            raise StoreError(f"batch {batch_index} of job {step.job_id} was never staged")
        batch = msgspec.json.decode(body, type=Batch)
        await self._write_work(
            step,
            statements.PERSIST + (statements.PERSIST_SERVICES if batch.tells_services else ""),
            hosts=msgspec.to_builtins(batch.hosts),
            ports=msgspec.to_builtins(batch.ports),
            banners=msgspec.to_builtins(batch.banners),
            certificates=msgspec.to_builtins(batch.certificates, builtin_types=(datetime,)),
            at=datetime.fromtimestamp(observed_at_s, UTC),
        )
        return PersistedCounts(batch.host_count, len(batch.ports))

    async def _write_work(self, step: Step, sql: str, **params: Any) -> None:
        """A step that only a job that goes on may take."""
        try:
            await self.write_step(step, statements.UNLESS_FINAL + sql, **params)
        except StoreError as error:
            if "the job is final" in str(error):
                raise InvalidTransition(f"job {step.job_id} is final; {step.name} came too late") from error
            raise

    async def hosts_of_job(self, job_id: str, *, limit: int = 1000, after: str | None = None) -> list[str]:
        """Addresses of the hosts that a job told of, in order, at most `limit`, those behind `after`."""
        (rows,) = await self.read(
            "SELECT VALUE record::id(host) FROM sighting:[$job, $after]>..[$job, $last] LIMIT $limit",
            job=job_id,
            after=after or "",
            last="\U0010ffff",
            limit=limit,
        )
        return rows

    # -- for verification ----------------------------------------------------------------------------------------

    async def hosts(self) -> set[str]:
        """The addresses of all hosts."""
        (rows,) = await self.read("SELECT VALUE address FROM host")
        return set(cast(list[str], rows))

    async def ports(self) -> set[tuple[str, str, int]]:
        """Address, protocol and number of all ports."""
        (rows,) = await self.read("SELECT VALUE [host.address, protocol, number] FROM port")
        return {(address, protocol, number) for address, protocol, number in rows}

    async def edges(self) -> set[tuple[str, str, int]]:
        """All HAS edges that lead from a host to a port of its own: the host's address, the port's protocol and number."""
        (rows,) = await self.read("SELECT VALUE [record::id(in), record::id(out)] FROM HAS")
        return {(host, protocol, number) for host, (owner, protocol, number) in rows if host == owner}

    async def row_counts(self, *tables: str) -> dict[str, int]:
        """Rows per table; host, port, HAS and scan_batch when none is named."""
        tables = tables or ("host", "port", "HAS", "scan_batch")
        counted = await self.read(";".join(f"SELECT count() FROM {table} GROUP ALL" for table in tables))
        return {table: rows[0]["count"] if rows else 0 for table, rows in zip(tables, counted, strict=True)}

    async def ledger(self) -> list[LedgerLine]:
        """Every committed step execution."""
        (rows,) = await self.read("SELECT job, step, attempt, process, began_at FROM step_ledger")
        return [LedgerLine(row["job"].id, row["step"], row["attempt"], row["process"], row["began_at"]) for row in rows]


def to_ns(moment: datetime) -> int:
    """Nanoseconds since the epoch, exactly; times are compared as numbers (see `schema.py`)."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


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
        invocation_id=row.get("invocation_id"),
    )
