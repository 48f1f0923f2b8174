"""Job tracker: what became of each piece of work, kept apart from the handlers that do it."""

from __future__ import annotations

from typing import Any, TypedDict, cast

from restate import ObjectContext, ObjectSharedContext, TerminalError, VirtualObject

from holdfast.patterns.context import now_ms, read_state

TRANSITIONS: dict[str, frozenset[str]] = {
    "pending": frozenset({"processing", "failed", "cancelled"}),
    "processing": frozenset({"completed", "failed", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""State -> those that may follow."""


class Job(TypedDict):
    """What is known of a job. Times are milliseconds since the epoch, 0 while they are to come."""

    state: str
    details: Any
    """What `create` was given."""
    done: int
    total: int
    note: str
    """Of the last `advance`, for display."""
    result: Any
    error: str
    created_at_ms: int
    started_at_ms: int
    ended_at_ms: int


class Advance(TypedDict, total=False):
    """How far a job is. `done` above `total` counts as `total`; a `total` of 0 is not known yet."""

    done: int
    total: int
    note: str


class JobTracker:
    """A virtual object with a job for each key: `pending → processing → completed | failed | cancelled`.

        jobs = JobTracker("ImportJobs")
        app = restate.app([imports, jobs.service])
        ctx.object_send(jobs.complete, key=job_id, arg={"rows": 17})    # in the handler that works
        POST /ImportJobs/<job id>/get                                    # whoever wants to know

    Use it where something without a state of its own, a service, has progress that others read, or where the record
    must outlive the invocation's retention. Not for a workflow that only its own callers ask: `ctx.set` and a shared
    handler do that, see `progress_to_state`. It is a record, not a queue: it starts nothing and cancels nothing.

    The handlers are attributes, to be given to `ctx.object_call` and `ctx.object_send`: `create(details)`, `start()`,
    `advance(Advance)`, `complete(result)`, `fail(error)`, `cancel(reason)`, `remove()` and, shared, `get()`. All but
    the last two return the job; going to the state where it already is changes nothing, and any other transition than
    those of `TRANSITIONS` is refused with code 409. An unknown key is 404.

    Args:
        name: Of the virtual object; several trackers in one application need several.
    """

    def __init__(self, name: str = "Jobs") -> None:
        service = self.service = VirtualObject(name, description="Records of jobs")

        @service.handler()
        async def create(ctx: ObjectContext, details: Any) -> Job:
            if (known := await read_state(ctx, "job")) is not None:
                return Job(**known)
            job = Job(
                state="pending",
                details=details,
                done=0,
                total=0,
                note="",
                result=None,
                error="",
                created_at_ms=await now_ms(ctx),
                started_at_ms=0,
                ended_at_ms=0,
            )
            ctx.set("job", job)
            return job

        @service.handler()
        async def start(ctx: ObjectContext) -> Job:
            return await _move(ctx, "processing")

        @service.handler()
        async def advance(ctx: ObjectContext, step: Advance) -> Job:
            _check(step)
            job = await _known(ctx)
            if job["state"] != "processing":
                raise TerminalError(f"job {ctx.key()} is {job['state']}, not processing", status_code=409)
            job["total"] = step.get("total", job["total"])
            done = step.get("done", job["done"])
            job["done"] = min(done, job["total"]) if job["total"] else done
            job["note"] = step.get("note", job["note"])
            ctx.set("job", job)
            return job

        @service.handler()
        async def complete(ctx: ObjectContext, result: Any) -> Job:
            return await _move(ctx, "completed", result=result)

        @service.handler()
        async def fail(ctx: ObjectContext, error: str) -> Job:
            return await _move(ctx, "failed", error=error)

        @service.handler()
        async def cancel(ctx: ObjectContext, reason: str) -> Job:
            return await _move(ctx, "cancelled", error=reason)

        @service.handler()
        async def remove(ctx: ObjectContext) -> None:
            ctx.clear_all()

        @service.handler(kind="shared")
        async def get(ctx: ObjectSharedContext) -> Job:
            return await _known(ctx)

        self.create, self.start, self.advance = create, start, advance
        self.complete, self.fail, self.cancel = complete, fail, cancel
        self.remove, self.get = remove, get


def _check(step: Any) -> None:
    """What a caller over HTTP got wrong would otherwise be retried for ever, and its job be locked meanwhile.

    Raises:
        TerminalError: 400.
    """
    fields = cast("dict[str, Any]", step) if isinstance(step, dict) else None
    if (
        fields is None
        or any(type(fields.get(name, 0)) is not int or fields.get(name, 0) < 0 for name in ("done", "total"))
        or not isinstance(fields.get("note", ""), str)
    ):
        raise TerminalError(
            "give an object with any of done and total, whole numbers from 0, and note, a text", status_code=400
        )


async def _known(ctx: ObjectContext | ObjectSharedContext) -> Job:
    job = await read_state(ctx, "job")
    if job is None:
        raise TerminalError(f"there is no job {ctx.key()}", status_code=404)
    return Job(**job)


async def _move(ctx: ObjectContext, state: str, *, result: Any = None, error: str = "") -> Job:
    job = await _known(ctx)
    if job["state"] == state:
        return job
    if state not in TRANSITIONS[job["state"]]:
        raise TerminalError(f"job {ctx.key()} is {job['state']}; it cannot become {state}", status_code=409)
    at_ms = await now_ms(ctx)
    job["started_at_ms" if state == "processing" else "ended_at_ms"] = at_ms
    job["state"], job["result"], job["error"] = state, result, error
    ctx.set("job", job)
    return job
