"""From a workflow on one engine to one on another, exactly once.

    result = await holdfast.providers.call_remote(ctx, provider="restate", workflow_id="enrich", input={"ids": ids})

The name of the remote execution is decided before it is started, and recorded; starting it twice under one name starts it
once. So a crash at any point, of either side, leaves one execution. Waiting holds nothing: a durable sleep, a look, and
again, with growing pauses; between two looks the caller is suspended.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import restate
from restate.exceptions import TerminalError

from holdfast.errors import CallerError
from holdfast.providers.base import WorkflowProvider
from holdfast.providers.errors import ExecutionNotFound, ProviderNotFound
from holdfast.providers.naming import execution_id_for
from holdfast.providers.opening import shared
from holdfast.providers.types import ExecutionState

FIRST_PAUSE = timedelta(milliseconds=500)
LAST_PAUSE = timedelta(seconds=30)
_GROWTH = 1.5


async def call_remote(
    ctx: restate.Context,
    *,
    provider: str | WorkflowProvider,
    workflow_id: str,
    input: Any = None,
    execution_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    first_pause: timedelta = FIRST_PAUSE,
    last_pause: timedelta = LAST_PAUSE,
) -> Any:
    """Run a workflow at another provider as a step of this handler; returns its output.

    When this handler is cancelled while it waits, the remote execution is stopped too.

    Args:
        provider: Name of a provider that this process has open, or that its configuration describes; or the provider.
        workflow_id: The workflow there; it must have been created.
        input: JSON value for it.
        execution_name: Its identity there; None derives a fresh one that stays the same on every replay.
        tags, metadata: As for `start_execution`.
        first_pause, last_pause: Between two looks; each pause is half as long again as the one before.
    Raises:
        TerminalError: it failed (with its code and message), was stopped (409) or reached its time limit (408); or it
            could not be started because of the request (unknown workflow, wrong input).
    """
    name = execution_name or str(ctx.uuid())

    async def start() -> None:
        try:
            await (await _provider(provider)).start_execution(
                workflow_id, input, execution_name=name, tags=tags, metadata=metadata, trigger_source="workflow"
            )
        except CallerError as error:  # trying again would not help
            raise TerminalError(error.message, error.status) from error

    async def look() -> dict[str, Any]:
        try:
            status = await (await _provider(provider)).get_execution_status(execution_id, history=False)
        except ExecutionNotFound as error:
            raise TerminalError(error.message, 404) from error
        error = status.error
        return {
            "state": status.state.value,
            "output": status.output,
            "error": {"code": error.code, "message": error.message} if error is not None else None,
            "reason": status.reason,
        }

    async def stop() -> None:
        await (await _provider(provider)).stop_execution(execution_id, "its caller was cancelled")

    execution_id = execution_id_for(workflow_id, name)
    is_started = False
    pause = first_pause
    try:
        await ctx.run_typed(f"start {workflow_id}", start)
        is_started = True
        while True:
            seen = await ctx.run_typed(f"look at {workflow_id}", look)
            if ExecutionState(seen["state"]).is_final:
                return _result(execution_id, seen)
            await ctx.sleep(pause)
            pause = min(pause * _GROWTH, last_pause)
    except TerminalError as error:
        if (error.status_code, error.message) == (409, "cancelled"):
            if not is_started:
                # The start may be on its way. Only what was started for certain can be stopped for certain.
                await ctx.run_typed(f"start {workflow_id}", start)
            await ctx.run_typed(f"stop {workflow_id}", stop)
        raise


def _result(execution_id: str, seen: Mapping[str, Any]) -> Any:
    if seen["state"] == ExecutionState.SUCCEEDED:
        return seen["output"]
    error: dict[str, Any] = seen["error"] or {
        "code": 409,
        "message": f"execution {execution_id} was stopped: {seen['reason']}",
    }
    raise TerminalError(error["message"], error["code"])


async def _provider(provider: str | WorkflowProvider) -> WorkflowProvider:
    if isinstance(provider, WorkflowProvider):
        return provider
    try:
        return await shared(provider)
    except ProviderNotFound as error:
        raise TerminalError(error.message, 404) from error
