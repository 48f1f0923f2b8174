"""The import as a durable workflow: one run per import id, one journaled step per piece of work.

    download -> prepare -> <table>-delete-1 ... -> <table>-insert-1 ... -> next table ... -> finalize
       anything that cannot succeed, or a cancellation  -> rollback

Each step is repeated by the engine until it succeeds, and never again after that. What goes into the journal are
addresses, checksums and counts. Readers see the extract before until `finalize`, and this one from then on.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import restate
from restate import RunOptions, TerminalError, Workflow, WorkflowContext, WorkflowSharedContext
from restate.serde import Serde

from apps.imports.fetch import Fetched
from apps.imports.jobs import BatchDone, Plan, Planned
from apps.imports.model import (
    SERVICE,
    ImportRequest,
    ImportResult,
    Progress,
    Status,
    check_import_id,
    job_id_of,
)
from apps.imports.settings import Settings
from apps.imports.store import Store
from apps.imports.worker import Worker

FILES_SERVICE = "KboImportFiles"
"""Removes what a failed import left, when its time has come."""

PROGRESS_KEY = "progress"

# One step may unpack gigabytes without a word to the engine in between.
_STEP_S_MAX = timedelta(hours=2)
_KEPT = timedelta(days=7)

_PLAN = RunOptions(type_hint=Plan)
_BATCH = RunOptions(type_hint=BatchDone)
_RESULT = RunOptions(type_hint=ImportResult)
_MAYBE_RESULT = RunOptions[ImportResult | None](type_hint=ImportResult | None)  # type: ignore[arg-type]


class RequestSerde(Serde[ImportRequest]):
    """A request as an object, or as a string that is its source alone."""

    def deserialize(self, buf: bytes) -> ImportRequest | None:
        """What is neither gives a request without a source, which the handler refuses: the SDK would answer 500."""
        try:
            given = msgspec.json.decode(buf, type=ImportRequest | str)
        except msgspec.DecodeError as error:
            return _Unusable(source="", reason=str(error))
        return ImportRequest(source=given) if isinstance(given, str) else given

    def serialize(self, obj: ImportRequest | None) -> bytes:
        return msgspec.json.encode(obj)


class _Unusable(ImportRequest, frozen=True, kw_only=True):
    reason: str


def kbo_import(store: Store, settings: Settings) -> list[Any]:
    """The workflow and its helper, as services for `restate.app([...])`."""
    worker = Worker(store, settings)
    workflow = Workflow(SERVICE, description="Imports one extract of the Belgian company register.")

    @workflow.main(
        input_serde=RequestSerde(),
        inactivity_timeout=_STEP_S_MAX,
        abort_timeout=_STEP_S_MAX,
        workflow_retention=_KEPT,
    )
    async def run(ctx: WorkflowContext, request: ImportRequest) -> ImportResult:
        return await _Run(ctx, worker, settings, _checked(ctx.key(), request)).run()

    async def get_progress(ctx: WorkflowSharedContext) -> Progress:
        stored = await ctx.get(PROGRESS_KEY, type_hint=dict)
        return msgspec.convert(stored, Progress) if stored else Progress(import_id=ctx.key())

    workflow.handler(name="getProgress")(get_progress)
    workflow.handler(name="progress")(get_progress)

    files = restate.Service(FILES_SERVICE, description="Removes stored zips of failed imports.", ingress_private=True)

    @files.handler()
    async def expire(ctx: restate.Context, request: ImportRequest) -> bool:
        return await ctx.run_typed("remove", worker.expire, RunOptions(type_hint=bool), request)

    assert run is not None  # decorators register them; nothing here calls them
    assert expire is not None
    return [workflow, files]


def _checked(key: str, request: ImportRequest) -> ImportRequest:
    if isinstance(request, _Unusable):
        raise TerminalError(f"the request is neither an address nor an import request: {request.reason}", 400)
    if request.import_id not in ("", key):
        raise TerminalError(f"the workflow key is {key}, but the request is for import {request.import_id}", 400)
    try:
        check_import_id(key)
    except ValueError as error:
        raise TerminalError(str(error), 400) from error
    if not request.source.strip():
        raise TerminalError("the request has no source; give the address of the zip", 400)
    return msgspec.structs.replace(request, import_id=key)


def _is_cancellation(error: TerminalError) -> bool:
    """The SDK raises this for a cancelled invocation, at whatever it waits for."""
    return error.status_code == 409 and error.message == "cancelled"


class _Run:
    """One run of the workflow. Deterministic: it knows only what steps returned."""

    def __init__(self, ctx: WorkflowContext, worker: Worker, settings: Settings, request: ImportRequest) -> None:
        self._ctx = ctx
        self._worker = worker
        self._settings = settings
        self._request = request
        self._working_s = 0.0
        self._progress = Progress(
            import_id=request.import_id,
            job_id=job_id_of(request.import_id),
            invocation_id=ctx.request().id,
        )

    async def run(self) -> ImportResult:
        try:
            return await self._import()
        except TerminalError as error:
            result = await self._roll_back(error)
            if result is None:
                raise
            return result  # cancelled too late: readers see it already

    async def _import(self) -> ImportResult:
        self._report(step="download")
        patience = RunOptions(
            type_hint=Fetched,
            max_duration=timedelta(seconds=self._settings.fetch_patience_s),
            initial_retry_interval=timedelta(milliseconds=500),
            max_retry_interval=timedelta(seconds=30),
        )
        fetched = await self._ctx.run_typed("download", self._worker.download, patience, self._request)
        self._report(status=Status.PREPARING, step="prepare")
        plan = await self._ctx.run_typed("prepare", self._worker.prepare, _PLAN, self._request, fetched)
        self._report(
            status=Status.PROCESSING,
            step=None,
            extract_number=plan.extract_number,
            extract_type=plan.extract_type,
            snapshot_date=plan.snapshot_date,
            total=sum(each.batches for each in plan.operations),
            rows_total=sum(each.rows for each in plan.operations),
        )
        for operation in plan.operations:  # table by table, deletes first
            await self._apply(fetched, plan, operation)
        self._report(
            status=Status.FINALIZING, step="finalize", current_table=None, current_operation=None, current_batch=None
        )
        result = await self._ctx.run_typed("finalize", self._worker.finalize, _RESULT, self._request)
        self._completed(result)
        return result

    async def _apply(self, fetched: Fetched, plan: Plan, each: Planned) -> None:
        for number in range(1, each.batches + 1):
            step = f"{each.table}-{each.operation}-{number}"
            self._report(step=step, current_table=each.table, current_operation=each.operation, current_batch=number)
            done = await self._ctx.run_typed(
                step,
                self._worker.batch,
                _BATCH,
                self._request,
                fetched.sha256,
                plan,
                each.table,
                each.operation,
                number,
            )
            self._count(done)

    def _count(self, done: BatchDone) -> None:
        """Time is what the steps measured: it is the same when the handler is replayed."""
        self._working_s += done.elapsed_s
        rows = self._progress.rows_completed + done.rows
        per_second = rows / self._working_s if self._working_s else None
        self._report(
            completed=self._progress.completed + 1,
            rows_completed=rows,
            rejected_rows=self._progress.rejected_rows + done.rejected,
            rows_per_second=per_second,
            estimate_s=(self._progress.rows_total - rows) / per_second if per_second else None,
        )

    def _report(self, **changes: Any) -> None:
        self._progress = msgspec.structs.replace(self._progress, **changes)
        self._ctx.set(PROGRESS_KEY, msgspec.to_builtins(self._progress))

    def _completed(self, result: ImportResult) -> None:
        self._report(
            status=Status.COMPLETED,
            step=None,
            current_table=None,
            current_operation=None,
            current_batch=None,
            estimate_s=0.0,
            names_resolved=result.names_resolved,
        )

    async def _roll_back(self, error: TerminalError) -> ImportResult | None:
        status = Status.CANCELLED if _is_cancellation(error) else Status.FAILED
        self._report(step="rollback")
        result = await self._rolled_back(status, error.message)
        if result is not None:
            self._completed(result)
            return result
        self._report(status=status, step=None, error=error.message, estimate_s=None)
        self._ctx.generic_send(
            FILES_SERVICE,
            "expire",
            msgspec.json.encode(self._request),
            send_delay=timedelta(hours=self._settings.keep_zip_hours),
        )
        return None

    async def _rolled_back(self, status: Status, message: str) -> ImportResult | None:
        while True:
            try:
                return await self._ctx.run_typed(
                    "rollback",
                    self._worker.roll_back,
                    _MAYBE_RESULT,
                    self._request,
                    status,
                    message,
                    self._progress.completed,
                )
            except TerminalError as error:
                if not _is_cancellation(error):  # a second cancellation must not leave half an extract
                    raise
