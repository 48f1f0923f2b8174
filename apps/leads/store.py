"""What leads keeps: jobs with their steps, logs and costs, and the leads themselves (`records.py`).

Every write may come twice, because a step that was running when the process died runs again: keys are made of the data.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any, Self

import msgspec

from apps.leads.database import Database, as_json, from_json, now_ms
from apps.leads.model import (
    CostEvent,
    CostView,
    JobError,
    JobKind,
    JobStatus,
    JobView,
    LogLine,
    StepCost,
    StepView,
)
from apps.leads.records import Records
from apps.leads.schema import SCHEMA

FILE = "leads.db"


class JobNotFound(Exception):
    """There is no such job."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id}")
        self.job_id = job_id


class JobConflict(Exception):
    """The job is in another state, or belongs to another request."""


class Store:
    """The database of leads in `directory`. Usable as an async context manager, or closed with `close`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._db = Database(self.path, SCHEMA)
        self.records = Records(self._db)

    def close(self) -> None:
        self._db.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    # ---- jobs ------------------------------------------------------------------------------------------------------------

    async def create_job(
        self, job_id: str, *, tenant_id: str, user_id: str, kind: JobKind, engine: str, request: Any
    ) -> tuple[JobView, bool]:
        """Keep a new job as `pending`; or find the one that has this id. Returns it, and whether it is new.

        Raises:
            JobConflict: the id belongs to a job with another request.
        """
        text = msgspec.json.encode(request).decode()
        digest = hashlib.sha256(text.encode()).hexdigest()

        def work(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT request_hash FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
            if row is not None:
                if row["request_hash"] != digest:
                    raise JobConflict(f"job {job_id} has another request; next: use a client_key of its own")
                return False
            db.execute(
                "INSERT INTO workflow_states (job_id, tenant_id, workflow_id, status) VALUES (?, ?, ?, 'pending')",
                (job_id, tenant_id, kind),
            )
            db.execute(
                "INSERT INTO jobs (job_id, user_id, request, request_hash, engine, created_at_ms, updated_at_ms) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (job_id, user_id, text, digest, engine, now_ms(), now_ms()),
            )
            return True

        is_new = await self._db.write(work)
        return await self.job(job_id), is_new

    async def job(self, job_id: str) -> JobView:
        """Raises: JobNotFound."""
        [*found] = await self._jobs("WHERE jobs.job_id = ?", [job_id])
        if not found:
            raise JobNotFound(job_id)
        return found[0]

    async def jobs(
        self,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        statuses: list[JobStatus] | None = None,
        workflow_id: str | None = None,
        limit: int = 100,
        before_ms: int | None = None,
    ) -> list[JobView]:
        """Newest first, with what fits the filters."""
        clauses: list[str] = []
        values: list[Any] = []
        for column, value in (("tenant_id", tenant_id), ("user_id", user_id), ("workflow_id", workflow_id)):
            if value is not None:
                clauses.append(f"{column} = ?")
                values.append(value)
        if statuses:
            clauses.append(f"status IN ({', '.join('?' * len(statuses))})")
            values += statuses
        if before_ms is not None:
            clauses.append("created_at_ms < ?")
            values.append(before_ms)
        where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        return await self._jobs(f"{where} ORDER BY created_at_ms DESC, jobs.rowid DESC LIMIT ?", [*values, limit])

    async def _jobs(self, rest: str, values: list[Any]) -> list[JobView]:
        query = f"SELECT *, jobs.error AS error_json FROM jobs JOIN workflow_states USING (job_id) {rest}"  # noqa: S608 columns and marks only
        rows = await self._db.read(lambda db: db.execute(query, values).fetchall())
        return [_job(row) for row in rows]

    async def started_since(self, user_id: str, since_ms: int) -> tuple[list[int], int]:
        """When runs of a user's jobs since then were started, oldest first; and how many of all jobs are not over."""
        finals = ", ".join(f"'{status}'" for status in JobStatus if status.is_final)
        count = f"SELECT count(*) FROM jobs JOIN workflow_states USING (job_id) WHERE user_id = ? AND status NOT IN ({finals})"  # noqa: S608
        runs = (
            "SELECT created_at_ms AS at_ms FROM jobs WHERE user_id = :user AND created_at_ms > :since UNION ALL "
            "SELECT started_at_ms FROM jobs JOIN job_steps s USING (job_id) WHERE user_id = :user "
            "AND s.run > 1 AND s.name = 'mark-running' AND started_at_ms > :since ORDER BY at_ms"
        )
        return await self._db.read(
            lambda db: (
                [row["at_ms"] for row in db.execute(runs, {"user": user_id, "since": since_ms})],
                int(db.execute(count, (user_id,)).fetchone()[0]),
            )
        )

    async def set_invocation(self, job_id: str, run: int, invocation_id: str) -> None:
        """Remember which invocation does the run."""
        await self._db.write(
            lambda db: db.execute(
                "UPDATE jobs SET invocation_id = ? WHERE job_id = ? AND run = ?", (invocation_id, job_id, run)
            )
        )

    async def begin_run(self, job_id: str, run: int) -> bool:
        """Make an ended job pending again, as run `run`. False: somebody else did; the run has begun already.

        Raises:
            JobConflict: it is not over, or completed.
            JobNotFound.
        """
        await self.job(job_id)

        def work(db: sqlite3.Connection) -> bool:
            row = db.execute(
                "SELECT run, status FROM jobs JOIN workflow_states USING (job_id) WHERE job_id = ?", (job_id,)
            )
            found = row.fetchone()
            if found["run"] >= run:
                return False
            status = JobStatus(found["status"])
            if not status.is_final or status is JobStatus.COMPLETED:
                raise JobConflict(f"job {job_id} is {status}; only a failed, cancelled or timed out job is resumed")
            db.execute("UPDATE workflow_states SET status = 'pending', error = NULL WHERE job_id = ?", (job_id,))
            db.execute(
                "UPDATE jobs SET run = ?, invocation_id = NULL, error = NULL, finished_at_ms = NULL, updated_at_ms = ? "
                "WHERE job_id = ?",
                (run, now_ms(), job_id),
            )
            return True

        return await self._db.write(work)

    async def set_status(
        self, job_id: str, run: int, status: JobStatus, *, result: Any = None, error: JobError | None = None
    ) -> bool:
        """Write what became of a run. False, and nothing is written: the job is in another run, or over already."""

        def work(db: sqlite3.Connection) -> bool:
            row = db.execute(
                "SELECT run, status FROM jobs JOIN workflow_states USING (job_id) WHERE job_id = ?", (job_id,)
            ).fetchone()
            if row is None or row["run"] != run or JobStatus(row["status"]).is_final:
                return False
            db.execute(
                "UPDATE workflow_states SET status = ?, error = ? WHERE job_id = ?",
                (status, error.message if error else None, job_id),
            )
            db.execute(
                "UPDATE jobs SET result = coalesce(?, result), error = ?, updated_at_ms = ?, finished_at_ms = ? "
                "WHERE job_id = ?",
                (as_json(result), as_json(error), now_ms(), now_ms() if status.is_final else None, job_id),
            )
            if status.is_final:  # what was under way says nothing any more; the step that writes this ends by itself
                db.execute(
                    "UPDATE job_steps SET status = 'failed', error = 'the job ended', finished_at_ms = ? "
                    "WHERE (job_id, run, status) = (?, ?, 'running') AND name NOT IN ('mark-failed', 'mark-completed')",
                    (now_ms(), job_id, run),
                )
            return True

        return await self._db.write(work)

    async def set_price(self, job_id: str, price_cents: int) -> None:
        await self._db.write(
            lambda db: db.execute("UPDATE jobs SET price_cents = ? WHERE job_id = ?", (price_cents, job_id))
        )

    # ---- steps, logs ------------------------------------------------------------------------------------------------------

    async def begin_step(self, job_id: str, run: int, name: str, subject: str = "") -> int:
        """A step's attempt begins. Returns its number, from 1."""

        def work(db: sqlite3.Connection) -> int:
            db.execute(
                "INSERT INTO job_steps (job_id, run, name, subject, status, attempt_count, started_at_ms) "
                "VALUES (?, ?, ?, ?, 'running', 1, ?) ON CONFLICT DO UPDATE SET attempt_count = attempt_count + 1, "
                "status = 'running', error = NULL, finished_at_ms = NULL",
                (job_id, run, name, subject, now_ms()),
            )
            found = db.execute(
                "SELECT attempt_count FROM job_steps WHERE (job_id, run, name, subject) = (?, ?, ?, ?)",
                (job_id, run, name, subject),
            )
            return int(found.fetchone()["attempt_count"])

        return await self._db.write(work)

    async def end_step(self, job_id: str, run: int, name: str, subject: str, result: Any, error: str | None) -> None:
        """A step's attempt is over. A result is added to the job's `step_results`; others stay."""
        text = as_json(result) or "null"

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE job_steps SET status = ?, result = ?, error = ?, finished_at_ms = ? "
                "WHERE (job_id, run, name, subject) = (?, ?, ?, ?)",
                (
                    "failed" if error else "completed",
                    None if error else text,
                    error,
                    now_ms(),
                    job_id,
                    run,
                    name,
                    subject,
                ),
            )
            if error:
                return
            label = f"{name} {subject}" if subject else name
            # json_patch would take `null` for "remove"; a path would read dots in a place's id as levels.
            row = db.execute("SELECT step_results FROM workflow_states WHERE job_id = ?", (job_id,)).fetchone()
            if row is not None:
                results = {**from_json(row["step_results"]), label: msgspec.Raw(text.encode())}
                db.execute(
                    "UPDATE workflow_states SET step_results = ?, current_step = ? WHERE job_id = ?",
                    (as_json(results), len(results), job_id),
                )

        await self._db.write(work)

    async def step_result(self, job_id: str, name: str, subject: str = "") -> Any:
        """Result of a step that some run of the job has completed; None if none has."""
        rows = await self._db.read(
            lambda db: db.execute(
                "SELECT result FROM job_steps WHERE (job_id, name, subject, status) = (?, ?, ?, 'completed') "
                "ORDER BY run DESC LIMIT 1",
                (job_id, name, subject),
            ).fetchall()
        )
        return from_json(rows[0]["result"]) if rows else None

    async def steps(self, job_id: str) -> list[StepView]:
        """All steps of all runs, in the order in which they first began."""
        rows = await self._db.read(
            lambda db: db.execute("SELECT * FROM job_steps WHERE job_id = ? ORDER BY rowid", (job_id,)).fetchall()
        )
        return [
            StepView(
                index=index,
                name=row["name"],
                subject=row["subject"],
                run=row["run"],
                status=row["status"],
                attempt_count=row["attempt_count"],
                result=from_json(row["result"]),
                error=row["error"],
                started_at_ms=row["started_at_ms"],
                finished_at_ms=row["finished_at_ms"],
            )
            for index, row in enumerate(rows)
        ]

    async def log(self, job_id: str, level: str, step: str, message: str) -> None:
        await self._db.write(
            lambda db: db.execute(
                "INSERT INTO job_logs VALUES (?, ?, ?, ?, ?)", (job_id, now_ms(), level, step, message[:2000])
            )
        )

    async def logs(self, job_id: str, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """In order; `after` leaves out so many lines at the start."""
        rows = await self._db.read(
            lambda db: db.execute(
                "SELECT * FROM job_logs WHERE job_id = ? ORDER BY rowid LIMIT ? OFFSET ?", (job_id, limit, after)
            ).fetchall()
        )
        return [
            LogLine(at_ms=row["at_ms"], level=row["level"], step=row["step"], message=row["message"]) for row in rows
        ]

    # ---- costs ------------------------------------------------------------------------------------------------------------

    async def add_costs(self, job_id: str, events: list[CostEvent]) -> None:
        """One event per job, run, step, subject, type and provider: the same again is the same event."""
        rows = [_cost_row(job_id, each) for each in events]
        await self._db.write(lambda db: db.executemany(_ADD_COST, rows))

    async def take_cost(self, job_id: str, event: CostEvent, limit_usd: float | None) -> bool:
        """Note a cost before it is made, once for all runs of the job: a question that is asked again is the same one.

        False, and nothing is written: all of the job would cost more than `limit_usd`.
        """
        row = _cost_row(job_id, event)

        def work(db: sqlite3.Connection) -> bool:
            costs = f"SELECT cost_usd, {_SAME_COST} AS is_same FROM cost_events WHERE job_id = :job_id"  # noqa: S608
            known = db.execute(costs, row).fetchall()
            if any(one["is_same"] and one["cost_usd"] >= event.cost_usd for one in known):
                return True
            # In micro-dollars: ten times 0.05 is 0.5.
            total = round(sum((one["cost_usd"] for one in known if not one["is_same"]), event.cost_usd) * 1e6)
            if limit_usd is not None and event.cost_usd > 0 and total > round(limit_usd * 1e6):
                return False
            db.execute(_DROP_COST, row)
            db.execute(_ADD_COST, row)
            return True

        return await self._db.write(work)

    async def set_cost_duration(self, job_id: str, event: CostEvent) -> None:
        """How long what was noted before has taken."""
        row = _cost_row(job_id, event)
        statement = f"UPDATE cost_events SET duration_ms = :duration_ms WHERE job_id = :job_id AND {_SAME_COST}"  # noqa: S608
        await self._db.write(lambda db: db.execute(statement, row))

    async def drop_cost(self, job_id: str, event: CostEvent) -> None:
        """It was not made after all."""
        row = _cost_row(job_id, event)
        await self._db.write(lambda db: db.execute(_DROP_COST, row))

    async def cost(self, job_id: str) -> CostView:
        """What a job cost, per step and in all. Raises: JobNotFound."""
        job = await self.job(job_id)
        rows = await self._db.read(
            lambda db: db.execute("SELECT * FROM cost_events WHERE job_id = ? ORDER BY rowid", (job_id,)).fetchall()
        )
        events = [CostEvent(**{name: row[name] for name in CostEvent.__struct_fields__}) for row in rows]
        steps: dict[str, StepCost] = {}
        for each in events:
            so_far = steps.setdefault(
                each.step, StepCost(step=each.step, event_count=0, quantity=0, cost_usd=0, duration_ms=0)
            )
            so_far.event_count += 1
            so_far.quantity += each.quantity
            so_far.cost_usd = round(so_far.cost_usd + each.cost_usd, 6)
            so_far.duration_ms += each.duration_ms
        return CostView(
            job_id=job_id,
            total_usd=round(sum(each.cost_usd for each in events), 6),
            price_cents=job.price_cents,
            steps=[*steps.values()],
            events=events,
        )

    # ---- notifications ----------------------------------------------------------------------------------------------------

    async def begin_delivery(self, event_id: str, target: str, attempt: int) -> bool:
        """Claim one attempt to deliver. False: it was claimed before, so the message may be out already."""

        def work(db: sqlite3.Connection) -> bool:
            done = db.execute(
                "INSERT INTO deliveries VALUES (?, ?, ?, 'sending', NULL, ?) ON CONFLICT DO NOTHING",
                (event_id, target, attempt, now_ms()),
            )
            return done.rowcount == 1

        return await self._db.write(work)

    async def end_delivery(self, event_id: str, target: str, attempt: int, state: str, detail: str = "") -> None:
        await self._db.write(
            lambda db: db.execute(
                "UPDATE deliveries SET state = ?, detail = ? WHERE (event_id, target, attempt) = (?, ?, ?)",
                (state, detail, event_id, target, attempt),
            )
        )

    async def deliveries(self, event_id: str) -> list[dict[str, Any]]:
        """Attempts to tell somebody of an event, in order."""
        rows = await self._db.read(
            lambda db: db.execute(
                "SELECT * FROM deliveries WHERE event_id = ? ORDER BY target, attempt", (event_id,)
            ).fetchall()
        )
        return [dict(row) for row in rows]


_COST_COLUMNS = ("job_id", *CostEvent.__struct_fields__)
_ADD_COST = (
    f"INSERT INTO cost_events ({', '.join(_COST_COLUMNS)}) "  # noqa: S608 names of our own fields
    f"VALUES ({', '.join(f':{column}' for column in _COST_COLUMNS)}) ON CONFLICT DO NOTHING"
)
_SAME_COST = "(step, subject, type, provider) = (:step, :subject, :type, :provider)"
_DROP_COST = f"DELETE FROM cost_events WHERE job_id = :job_id AND {_SAME_COST}"  # noqa: S608


def _cost_row(job_id: str, event: CostEvent) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in CostEvent.__struct_fields__}
    return {"job_id": job_id, **values, "at_ms": event.at_ms or now_ms()}


def _job(row: sqlite3.Row) -> JobView:
    return JobView(
        job_id=row["job_id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        workflow_id=row["workflow_id"],
        status=JobStatus(row["status"]),
        current_step=row["current_step"],
        step_results=from_json(row["step_results"]),
        request=from_json(row["request"]),
        result=from_json(row["result"]),
        error=from_json(row["error_json"], JobError),
        run=row["run"],
        engine=row["engine"],
        invocation_id=row["invocation_id"],
        price_cents=row["price_cents"],
        created_at_ms=row["created_at_ms"],
        updated_at_ms=row["updated_at_ms"],
        finished_at_ms=row["finished_at_ms"],
    )
