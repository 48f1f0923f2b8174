"""What providers run on the engine itself: the registry of workflows, and one durable supervisor for each execution.

Restate has no call to store a workflow, none to list executions by name and no time limit for an invocation. So these
services do it, as ordinary restate-sdk code, on either engine:

    holdfast.registry    object, key = workflow id: the stored definition (`record`)
    holdfast.names       object, key = service name: which workflow has it
    holdfast.executions  workflow, key = execution id: starts the handler, keeps reason and outcome, ends it in time
    holdfast.signals     service: named signals, which no HTTP API can send

State is bounded: a registry key holds one definition, a supervisor's key one execution, gone with its retention. There is
no index to keep: the engine's own list of supervisors is the list of executions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypedDict, cast

import restate
from restate.exceptions import TerminalError
from restate.logging import RestateLoggingFilter
from restate.serde import BytesSerde

from holdfast.providers.observe import transition
from holdfast.providers.types import ExecutionState, duration_text

REGISTRY = "holdfast.registry"
NAMES = "holdfast.names"
EXECUTIONS = "holdfast.executions"
SIGNALS = "holdfast.signals"
SYSTEM_SERVICES = (REGISTRY, NAMES, EXECUTIONS, SIGNALS)

RETENTION = timedelta(days=7)
"""How long a finished execution can be asked about. Longer than the engines' own day: a Friday's failure is looked at on
Monday."""

_REASON_WAIT = timedelta(seconds=2)
"""The reason of a stop and the cancellation come by two requests; this much later the second is not coming."""

_CANCELLED = ("cancelled", "canceled", "killed")
"""Messages of failure 409, by SDK and engine, when somebody ended the invocation."""

Kill = Callable[[str], Awaitable[None]]
"""Ends an invocation (by id) without its consent; succeeds when it is over already."""


class Registration(TypedDict):
    """What `create` answers."""

    record: dict[str, Any]
    is_new: bool


class ExecutionRequest(TypedDict):
    """Input of a supervisor: all it needs, so that it never has to look the workflow up again."""

    workflow_id: str
    execution_name: str
    service: str
    handler: str
    key: str | None
    """Key of the handler's object or workflow; None for a service."""
    idempotency_key: str | None
    input: Any
    has_input: bool
    timeout_ms: int | None
    grace_ms: int
    tags: dict[str, str]
    metadata: dict[str, Any]
    trigger_source: str


class StopRequest(TypedDict):
    """Input of `stop`."""

    reason: str
    grace_ms: int | None
    """None: do not kill."""


class SignalRequest(TypedDict):
    """Input of `signals/send`."""

    invocation_id: str
    name: str
    payload: Any


class Claim(TypedDict):
    """Input of `claim`."""

    workflow_id: str
    instead_of: str | None
    """An owner that is known to have given up."""


def system_services(
    *, kill: Kill | None = None, retention: timedelta = RETENTION
) -> list[restate.Service | restate.VirtualObject | restate.Workflow]:
    """The services that a provider needs on its engine.

    Providers of mechanism `local` and the embedded one serve them by themselves. A deployed application includes them:
    `restate.app([*my_services, *system_services()])`, or it is made by `holdfast.providers.app`.

    Args:
        kill: How to end what does not react to its cancellation, after a grace time. None uses the configured admin API
            (`workflow.restate.admin_endpoint`) when the need arises; without one such an execution is left alone.
        retention: How long finished executions are kept.
    """
    return [_registry(), _names(), _executions(kill or _kill_by_configuration, retention), _signals()]


def _names() -> restate.VirtualObject:
    names = restate.VirtualObject(NAMES, description="Which workflow has a service name", journal_retention=timedelta())

    @names.handler()
    async def claim(ctx: restate.ObjectContext, request: Claim) -> str:
        """Take the name for a workflow unless another one has it; answers who has it now."""
        owner = await ctx.get("owner", type_hint=str)
        if owner is None or owner == request["instead_of"]:
            owner = request["workflow_id"]
            ctx.set("owner", owner)
        return owner

    @names.handler()
    async def release(ctx: restate.ObjectContext, workflow_id: str) -> None:
        """Give the name back, if this workflow has it."""
        if await ctx.get("owner", type_hint=str) == workflow_id:
            ctx.clear("owner")

    return names


def _registry() -> restate.VirtualObject:
    registry = restate.VirtualObject(
        REGISTRY, description="Workflow definitions, stored in the engine itself", journal_retention=timedelta()
    )

    @registry.handler()
    async def create(ctx: restate.ObjectContext, record: dict[str, Any]) -> Registration:
        """Store a definition unless there is one; answers the one that is stored."""
        stored = cast("dict[str, Any] | None", await ctx.get("record"))
        if stored is not None:
            return {"record": stored, "is_new": False}
        # Claimed before the code was placed; meanwhile another creation may have taken the name for abandoned.
        request: Claim = {"workflow_id": ctx.key(), "instead_of": None}
        name = record["service_name"]
        owner = json.loads(await ctx.generic_call(NAMES, "claim", json.dumps(request).encode(), key=name))
        if owner != ctx.key():
            raise TerminalError(f"service name {name!r} belongs to workflow {owner!r}", 409)
        ctx.set("record", record)
        return {"record": record, "is_new": True}

    @registry.handler()
    async def update(ctx: restate.ObjectContext, changes: dict[str, Any]) -> None:
        """Where a workflow is deployed has changed."""
        stored = cast("dict[str, Any] | None", await ctx.get("record"))
        if stored is not None:
            ctx.set("record", stored | changes)

    @registry.handler()
    async def remove(ctx: restate.ObjectContext) -> None:
        """Forget the definition."""
        ctx.clear_all()

    return registry


def _signals() -> restate.Service:
    signals = restate.Service(SIGNALS, description="Named signals for executions", journal_retention=timedelta())

    @signals.handler()
    async def send(ctx: restate.Context, request: SignalRequest) -> None:
        ctx.resolve_signal(request["invocation_id"], request["name"], request["payload"])

    return signals


def _executions(kill: Kill, retention: timedelta) -> restate.Workflow:
    executions = restate.Workflow(
        EXECUTIONS,
        description="Supervisors: one durable run for each execution",
        # All that is worth reading is state; the journal would repeat input and output.
        journal_retention=timedelta(),
        # The run only writes: loading input and outcome into every attempt would be waste.
        enable_lazy_state=True,
    )

    # What the supervisor journals is replayed after an upgrade of holdfast. A change of its commands or their order needs a
    # service of another name beside this one, which goes on serving what it has begun.
    @executions.main(workflow_retention=retention)
    async def run(ctx: restate.WorkflowContext, request: ExecutionRequest) -> str:
        return await _Supervisor(ctx, request, kill).run()

    @executions.handler()
    async def stop(ctx: restate.WorkflowSharedContext, request: StopRequest) -> None:
        """The first stop's reason counts; a later one can only add the permission to kill."""
        await _resolve_once(ctx, "stop", request["reason"])
        if request["grace_ms"] is not None:
            await _resolve_once(ctx, "kill", request["grace_ms"])

    return executions


async def _resolve_once(ctx: restate.WorkflowSharedContext, name: str, value: Any) -> None:
    try:
        await cast(Any, ctx.promise(name)).resolve(value)
    except TerminalError as error:
        if error.status_code != 409:  # 409: completed already
            raise


class _Supervisor:
    """One run: start the handler, wait for its end, its time limit or a stop, and write down what became of it."""

    def __init__(self, ctx: restate.WorkflowContext, request: ExecutionRequest, kill: Kill) -> None:
        self._ctx = ctx
        self._request = request
        self._kill = kill
        self._ending: dict[str, Any] | None = None

    async def run(self) -> str:
        ctx, request = self._ctx, self._request
        self._log(None, ExecutionState.PENDING)
        ctx.set("record", {name: value for name, value in request.items() if name not in ("input", "has_input")})
        if request["has_input"]:
            ctx.set("input", request["input"])
        invocation_id, is_cancelled = await self._start()
        ctx.set("invocation_id", invocation_id)
        self._log(ExecutionState.PENDING, ExecutionState.RUNNING)
        outcome = await self._outcome(invocation_id, is_cancelled)
        outcome["finished_at"] = await self._now()
        ctx.set("outcome", outcome)
        self._log(ExecutionState.RUNNING, ExecutionState(outcome["state"]))
        return outcome["state"]

    async def _start(self) -> tuple[str, bool]:
        """(invocation id of the handler, whether a cancellation arrived meanwhile)."""
        request = self._request
        body = json.dumps(request["input"]).encode() if request["has_input"] else b""
        is_cancelled = False
        while True:
            handle = self._ctx.generic_send(
                request["service"],
                request["handler"],
                body,
                key=request["key"],
                idempotency_key=request["idempotency_key"],
            )
            try:
                return await handle.invocation_id(), is_cancelled
            except TerminalError:
                # A cancellation interrupts this wait too. Sent once more, it is the same invocation: the key sees to it.
                is_cancelled = True

    async def _outcome(self, invocation_id: str, is_cancelled: bool) -> dict[str, Any]:
        ctx, timeout_ms = self._ctx, self._request["timeout_ms"]
        result = ctx.attach_invocation(invocation_id, serde=BytesSerde())
        stop = ctx.promise("stop", type_hint=str).value()
        limit = None if timeout_ms is None else ctx.sleep(timedelta(milliseconds=timeout_ms), "time limit")
        done = None if is_cancelled else await _first(result, stop, limit)
        if done is None:
            await self._end(invocation_id, ExecutionState.STOPPED, await self._reason(stop))
        elif result in done:
            return await self._ended(result)
        elif stop in done:
            await self._end(invocation_id, ExecutionState.STOPPED, await stop)
        else:
            reason = f"time limit of {duration_text(timedelta(milliseconds=timeout_ms or 0))} reached"
            await self._end(invocation_id, ExecutionState.TIMEOUT, reason)
        await self._until_ended(invocation_id, result)
        return await self._ended(result)

    async def _reason(self, stop: Any) -> str:
        """Why the run was cancelled: as its `stop` says, if there is one."""
        wait = self._ctx.sleep(_REASON_WAIT, "reason")
        while (done := await _first(stop, wait)) is None:
            pass  # cancelled once more: known already
        return str(await stop) if stop in done else "cancelled at the engine"

    async def _end(self, invocation_id: str, state: ExecutionState, reason: str) -> None:
        """Send the one cancellation there will ever be: a second one would interrupt the handler's clean-up."""
        self._ending = {"state": state.value, "reason": reason, "at": await self._now()}
        self._ctx.set("ending", self._ending)
        self._ctx.cancel_invocation(invocation_id)

    async def _until_ended(self, invocation_id: str, result: Any) -> None:
        assert self._ending is not None
        ctx = self._ctx
        grace: Any = None
        if self._ending["state"] == ExecutionState.TIMEOUT:  # a limit is a limit; a stop kills only if it was told to
            grace = ctx.sleep(timedelta(milliseconds=self._request["grace_ms"]), "grace")
        allowed: Any = ctx.promise("kill", type_hint=int).value() if grace is None else None
        while True:
            done = await _first(result, allowed, grace)
            if done is None:
                continue  # cancelled once more: it is ending already
            if result in done:
                return
            if allowed is not None and allowed in done:
                grace, allowed = ctx.sleep(timedelta(milliseconds=await allowed), "grace"), None
            elif await self._killed(invocation_id):
                grace = None

    async def _killed(self, invocation_id: str) -> bool:
        """Kill the handler; False when a cancellation came in between."""
        try:
            await self._ctx.run_typed("kill", self._kill, restate.RunOptions(), invocation_id)
        except TerminalError as error:
            if (error.status_code, error.message) != (409, "cancelled"):
                raise
            return False
        return True

    async def _ended(self, result: Any) -> dict[str, Any]:
        ending = self._ending
        try:
            output = cast(bytes, await result)
        except TerminalError as error:
            failure = {"code": error.status_code, "message": error.message}
            if ending is not None:
                return {"state": ending["state"], "reason": ending["reason"], "error": failure}
            if error.status_code == 409 and error.message in _CANCELLED:
                reason = f"{error.message} at the engine"
                return {"state": ExecutionState.STOPPED.value, "reason": reason, "error": failure}
            return {"state": ExecutionState.FAILED.value, "error": failure}
        value = {"output": _json_value(output)} if output else {}
        if ending is not None:
            return {"state": ending["state"], "reason": ending["reason"], **value}
        return {"state": ExecutionState.SUCCEEDED.value, **value}

    async def _now(self) -> float:
        """Durable time, seconds; a cancellation does not get in the way."""
        while True:
            try:
                return await self._ctx.time()
            except TerminalError:
                continue

    def _log(self, before: ExecutionState | None, after: ExecutionState) -> None:
        if RestateLoggingFilter().filter(logging.makeLogRecord({})):  # said once, not again on every replay
            execution_id = self._ctx.key()
            transition(self._request["workflow_id"], execution_id, before, after)


async def _first(*futures: Any) -> list[Any] | None:
    """Those that are completed, as soon as one is; None when the run was cancelled instead."""
    try:
        done, _ = await restate.wait_completed(*filter(None, futures))
    except TerminalError:
        return None
    return done


def _json_value(body: bytes) -> Any:
    """A handler's output as JSON: parsed where it is JSON, as text where it is text, else as base64."""
    try:
        return json.loads(body)
    except ValueError:
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        import base64

        return {"base64": base64.b64encode(body).decode()}


async def _kill_by_configuration(invocation_id: str) -> None:
    """Through the admin API that the environment of this process names."""
    from holdfast.providers.restate import kill_configured

    await kill_configured(invocation_id)
