"""After the demo: does what is on disk agree with what went in? Reads both databases; believes no counter of the run."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apps.recon.application import create_app
from apps.recon.demo_scans import Item
from apps.recon.demo_tally import Tally
from apps.recon.model import Job, JobState
from apps.recon.serve import ENGINE_FILE, STORE_DIRECTORY
from apps.recon.store import LedgerLine, Store
from apps.recon.workflow import SERVICE
from holdfast import Engine, InvocationInfo

_INGEST_STEP = re.compile(r"mark-[a-z]+|parse|persist-\d+")
"""The parts' workflows have lines of their own in the ledger."""

_PAGE = 500
_ENDING_S = 10
_EPOCH, _MS = datetime.fromtimestamp(0, UTC), timedelta(milliseconds=1)


@dataclass
class Report:
    """What was found."""

    completed_count: int = 0
    failed_count: int = 0
    host_count: int = 0
    port_count: int = 0
    edge_count: int = 0
    recorded_step_count: int = 0
    repeated_recorded_count: int = 0
    """Steps that ran again although their result was in the journal. Must be 0."""
    repeated_unrecorded_count: int = 0
    """Steps whose work was committed, but whose result was not yet recorded when the process died: run again, rightly."""
    first_completed_at_s: float | None = None
    """When the first job after the restart became final, Unix seconds."""
    problems: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A step as the engine's journal has it."""

    job_id: str
    name: str
    at_ms: int
    """When its result was recorded."""


async def verify(directory: Path, accepted: dict[str, Item], *, restarted_at_s: float) -> Report:
    """Open what the demo left in `directory` and compare.

    Args:
        directory: Where `engine.db` and `surreal/` are; no process may have them open.
        accepted: What was submitted, by job id.
        restarted_at_s: When the second process was started.
    """
    report = Report()
    async with Store(directory / STORE_DIRECTORY) as store:
        jobs = await check_database(report, store, accepted)
        ends = [job.completed_at.timestamp() for job in jobs if job.completed_at is not None]
        report.first_completed_at_s = min((end for end in ends if end > restarted_at_s), default=None)
        ledger = await store.ledger()
        # Every invocation has ended, so this engine has nothing to run; it only reads the file.
        async with Engine(create_app(store), db=directory / ENGINE_FILE) as engine:
            invocations = await ended_invocations(engine)
            _check_invocations(report, invocations, jobs)
            recorded = [step for each in invocations for step in recorded_steps(engine, each)]
    check_steps(report, recorded, ledger)
    return report


async def check_database(report: Report, store: Store, accepted: dict[str, Item]) -> list[Job]:
    """Jobs and graph against the input, whatever the engine was. Returns the jobs."""
    jobs = await _all_jobs(store)
    _check_jobs(report, jobs, accepted)
    await _check_graph(report, store, accepted)
    return jobs


async def _all_jobs(store: Store) -> list[Job]:
    jobs: list[Job] = []
    while True:
        page = await store.jobs(limit=_PAGE, offset=len(jobs))
        jobs += page.jobs
        if not page.jobs or len(jobs) >= page.total:
            return jobs


def _check_jobs(report: Report, jobs: list[Job], accepted: dict[str, Item]) -> None:
    report.completed_count = sum(job.state is JobState.COMPLETED for job in jobs)
    report.failed_count = sum(job.state is JobState.FAILED for job in jobs)
    known = {job.id for job in jobs}
    if lost := accepted.keys() - known:
        report.problems.append(f"{len(lost)} accepted jobs are not in the database, e.g. {min(lost)}")
    if strange := known - accepted.keys():
        report.problems.append(f"{len(strange)} jobs are in the database that nobody submitted, e.g. {min(strange)}")
    for job in jobs:
        if (item := accepted.get(job.id)) is None:
            continue
        expected = JobState.COMPLETED if item.tally.hosts else JobState.FAILED
        counts, expected_counts = (job.host_count, job.port_count), (len(item.tally.hosts), len(item.tally.ports))
        if job.state is not expected:
            report.problems.append(f"{item.name}: the job is {job.state}, expected {expected} ({job.error_message})")
        elif counts != expected_counts:
            report.problems.append(f"{item.name}: hosts and ports are {counts}, the file has {expected_counts}")
        elif job.completed_at is None:
            report.problems.append(f"{item.name}: the job is {job.state} but has no end time")


async def _check_graph(report: Report, store: Store, accepted: dict[str, Item]) -> None:
    expected = Tally()
    for item in accepted.values():
        expected.add(item.tally)
    hosts, ports, edges, rows = await store.hosts(), await store.ports(), await store.edges(), await store.row_counts()
    report.host_count, report.port_count, report.edge_count = len(hosts), len(ports), len(edges)
    for what, found, wanted, row_count in (
        ("hosts", hosts, expected.hosts, rows["host"]),
        ("ports", ports, expected.ports, rows["port"]),
        ("edges", edges, expected.ports, rows["HAS"]),
    ):
        if found != wanted:
            report.problems.append(f"{what}: {len(wanted - found)} missing, {len(found - wanted)} too many")
        if row_count != len(found):
            report.problems.append(f"{what}: {row_count} rows for {len(found)} distinct ones")
    if rows["scan_batch"]:
        report.problems.append(f"{rows['scan_batch']} staged batches were left behind")


async def ended_invocations(engine: Engine) -> list[InvocationInfo]:
    """Every ingest invocation. Lets one that was stopped between its last step and its output end first."""
    with suppress(TimeoutError):  # what has not ended then is reported as a problem
        async with asyncio.timeout(_ENDING_S):
            for each in _invocations(engine):
                if each.status != "completed":
                    await engine.attach(each.id)
    return _invocations(engine)


def _invocations(engine: Engine) -> list[InvocationInfo]:
    found: list[InvocationInfo] = []
    while True:
        page = engine.list_invocations(service=SERVICE, limit=_PAGE, before=found[-1].id if found else None)
        found += page
        if len(page) < _PAGE:
            return found


def _check_invocations(report: Report, invocations: list[InvocationInfo], jobs: list[Job]) -> None:
    per_job = Counter(each.key for each in invocations)
    if wrong := [job.id for job in jobs if per_job[job.id] != 1]:
        report.problems.append(f"{len(wrong)} jobs have not exactly one workflow, e.g. {wrong[0]}: {per_job[wrong[0]]}")
    if open_ones := [each for each in invocations if each.status != "completed"]:
        report.problems.append(f"{len(open_ones)} workflows have not ended, e.g. {open_ones[0].id}")
    states = {job.id: job.state for job in jobs}
    for each in invocations:
        expected = "success" if states.get(each.key or "") is JobState.COMPLETED else "failure"
        if each.status == "completed" and each.completion_result != expected:
            report.problems.append(f"workflow {each.id} ended with {each.completion_result}, its job with {expected}")


def recorded_steps(engine: Engine, invocation: InvocationInfo) -> list[RecordedStep]:
    """The steps whose result is in the journal, by way of the command that names them."""
    entries = engine.journal(invocation.id)
    names = {entry.completion_id: entry.name for entry in entries if entry.entry_type == "Command: Run"}
    return [
        RecordedStep(invocation.key or "", names[entry.completion_id], entry.appended_at_ms)
        for entry in entries
        if entry.entry_type == "Notification: Run"
    ]


def check_steps(report: Report, recorded: list[RecordedStep], ledger: list[LedgerLine]) -> None:
    """Compare the journal with the ledger, which has a line for each time a step's work was committed.

    A line that began after the step's result was recorded is an execution that should never have been. A second line
    that began before is the step that was running when the process died.
    """
    recorded_at_ms = {(step.job_id, step.name): step.at_ms for step in recorded}
    report.recorded_step_count = len(recorded)
    if len(recorded_at_ms) != len(recorded):
        report.problems.append(f"{len(recorded) - len(recorded_at_ms)} steps are in a journal twice")
    for line in ledger:
        at_ms = recorded_at_ms.get((line.job_id, line.step))
        if at_ms is not None and (line.began_at - _EPOCH) // _MS > at_ms:
            report.repeated_recorded_count += 1
        elif line.attempt > 1:
            report.repeated_unrecorded_count += 1
    if report.repeated_recorded_count:
        report.problems.append(f"{report.repeated_recorded_count} recorded steps ran again")
    done = {(line.job_id, line.step) for line in ledger if _INGEST_STEP.fullmatch(line.step)}
    # A step that ends in a terminal error is recorded but commits nothing: the parse of a scan without hosts.
    missing = [key for key in recorded_at_ms.keys() - done if key[1] != "parse"]
    if missing:
        report.problems.append(f"{len(missing)} recorded steps left no trace in the database, e.g. {missing[0]}")
    if unrecorded := done - recorded_at_ms.keys():
        report.problems.append(f"{len(unrecorded)} committed steps are in no journal, e.g. {min(unrecorded)}")
