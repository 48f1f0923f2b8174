"""Approval: wait for somebody's decision, for so long and no longer. No answer means no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from restate import (
    Context,
    RestateDurableFuture,
    RunOptions,
    TerminalError,
    WorkflowContext,
    WorkflowSharedContext,
    wait_completed,
)

TIMEOUT = timedelta(hours=24)


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
    ctx: WorkflowContext, name: str = "approval", *, timeout: timedelta = TIMEOUT
) -> Decision:
    """In a workflow's main handler: wait until a shared handler calls `decide`, but at most `timeout`.

    Use it where the asked person knows the workflow's key. Not in the handler of a service or virtual object, which
    have no promises: see `ask_for_approval`. The time-out is written into the promise, so that a decision that comes
    too late learns so, and can never contradict what the workflow did.

    Args:
        name: Of the durable promise. One for each decision of the workflow.
        timeout: From now on; the clock goes on while nothing runs.
    Raises:
        TerminalError: 409, the workflow was cancelled while it waited.
    """
    promise = ctx.promise(name)
    answer = promise.value()
    await wait_completed(answer, ctx.sleep(timeout))
    first, _ = await wait_completed(answer, *_already(ctx))
    if answer not in first:
        await _try_resolve(promise.resolve(Decision(False, is_timeout=True).as_dict()))
    return await _read(answer)


async def decide(ctx: WorkflowSharedContext, answer: Any, name: str = "approval") -> Decision:
    """In a shared handler of that workflow: decide, unless that was done before. Returns the decision that counts.

    Args:
        answer: A boolean, or an object as `decision` takes it.
        name: The promise that `wait_for_approval` waits for.
    """
    promise = ctx.promise(name)
    await _try_resolve(promise.resolve(decision(answer).as_dict()))
    return await _read(promise.value())


async def ask_for_approval(
    ctx: Context, request: Callable[[str], Any], *, timeout: timedelta = TIMEOUT, retry: RunOptions[Any] | None = None
) -> Decision:
    """In any handler: `request` sends somebody an awakeable's id; wait until that is resolved, but at most `timeout`.

    Whoever has the id answers by `POST /restate/awakeables/<id>/resolve` with `true`, or with an object as `decision`
    takes it; `reject` denies. An answer after the time-out changes nothing.

    Use it where the asked side needs nothing but an id, such as another system. Not in an exclusive handler of a
    virtual object: its key would be locked all the while. Ask from a service, and send the object the result.

    Args:
        request: A durable step: once it has succeeded it never runs again, so the mail goes out once.
        timeout: From the time on at which the request was sent.
        retry: For the step; None is the engine's policy.
    Raises:
        TerminalError: `request` raised it, or 409: this invocation was cancelled while it waited.
    """
    awakeable_id, answer = ctx.awakeable()

    async def send() -> None:
        await _called(request, awakeable_id)

    await ctx.run_typed("request approval", send, retry or RunOptions[Any]())
    completed, _ = await wait_completed(answer, ctx.sleep(timeout))
    return await _read(answer) if answer in completed else Decision(False, is_timeout=True)
