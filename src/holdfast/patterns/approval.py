"""Approval: wait for somebody's decision, for so long and no longer. No answer means no."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, cast

from restate import (
    Context,
    DurablePromise,
    RestateDurableFuture,
    RunOptions,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
    wait_completed,
)

from holdfast.patterns.actions import called

APPROVAL_TIME = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, by whom and why."""

    is_approved: bool
    by: str = ""
    comment: str = ""
    is_timeout: bool = False
    """Nobody decided in time, so it counts as denied."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `decision` reads it back."""
        return asdict(self)


def decision(answer: Any) -> Decision:
    """The decision in an answer from outside: a boolean, or an object `{"approved": …, "by": …, "comment": …}`.

    Only the JSON value `true` approves: whatever cannot be understood is a denial.
    """
    if not isinstance(answer, dict):
        return Decision(answer is True)
    fields: dict[str, Any] = {**answer}
    return Decision(
        is_approved=fields.get("is_approved", fields.get("approved")) is True,
        by=str(fields.get("by", "")),
        comment=str(fields.get("comment", "")),
        is_timeout=fields.get("is_timeout") is True,
    )


async def wait_for_approval(
    ctx: WorkflowContext, name: str = "approval", *, within: timedelta = APPROVAL_TIME
) -> Decision:
    """In a workflow's main handler: wait until a shared handler calls `decide`, but at most `within`.

    Use it where the asked person knows the workflow's key. Not in the handler of a service or virtual object, which
    have no promises: see `ask_for_approval`. The time-out is written into the promise, so that a decision that comes
    too late learns so, and can never contradict what the workflow did.

    Args:
        name: Of the durable promise. One for each decision of the workflow.
        within: From now on; the clock goes on while nothing runs.
    Raises:
        TerminalError: 409, the workflow was cancelled while it waited.
    """
    promise: DurablePromise[Any] = ctx.promise(name)
    answer = promise.value()
    completed, _ = await wait_completed(answer, ctx.sleep(within))
    if answer not in completed:
        await _try_resolve(promise.resolve(Decision(False, is_timeout=True).as_dict()))
    return await _read(answer)


async def decide(ctx: WorkflowSharedContext, answer: Any, name: str = "approval") -> Decision:
    """In a shared handler of that workflow: decide, unless that was done before. Returns the decision that counts.

    Args:
        answer: A boolean, or an object as `decision` takes it.
        name: The promise that `wait_for_approval` waits for.
    """
    promise: DurablePromise[Any] = ctx.promise(name)
    await _try_resolve(promise.resolve(decision(answer).as_dict()))
    return await _read(promise.value())


async def ask_for_approval(
    ctx: Context,
    request: Callable[[str], Any],
    *,
    within: timedelta = APPROVAL_TIME,
    retry: RunOptions[Any] | None = None,
) -> Decision:
    """In any handler: `request` sends somebody an awakeable's id; wait until that is resolved, but at most `within`.

    Whoever has the id answers by `POST /restate/awakeables/<id>/resolve` with `true`, or with an object as `decision`
    takes it; `reject` denies. An answer after the time-out changes nothing.

    Use it where the asked side needs nothing but an id, such as another system. Not in an exclusive handler of a
    virtual object: its key would be locked all the while. Ask from a service, and send the object the result.

    Args:
        request: A durable step: once it has succeeded it never runs again, so the mail goes out once.
        within: From the time on at which the request was sent.
        retry: For the step; None is the engine's policy.
    Raises:
        TerminalError: `request` raised it, or 409: this invocation was cancelled while it waited.
    """
    awakeable_id, answer = ctx.awakeable(type_hint=object)

    async def send() -> None:
        await called(request, awakeable_id)

    await ctx.run_typed("request approval", send, retry or RunOptions[Any]())
    completed, _ = await wait_completed(answer, ctx.sleep(within))
    return await _read(answer) if answer in completed else Decision(False, is_timeout=True)


async def _try_resolve(resolved: Awaitable[None]) -> None:
    """Wait for the end of a promise's resolution; that it was resolved or rejected before is no error here."""
    future = cast("RestateDurableFuture[None]", resolved)
    await wait_completed(future)  # raises for a cancellation, and for nothing else
    try:
        await future
    except TerminalError:
        pass


async def _read(answer: RestateDurableFuture[Any]) -> Decision:
    await wait_completed(answer)
    try:
        return decision(await answer)
    except TerminalError as rejection:
        return Decision(False, comment=rejection.message)
