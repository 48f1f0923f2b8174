"""Every operation of the API: a table for the routes and for the OpenAPI document, and one function for each.

Thin by intent: what a request carries is checked by its types, everything else by the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from holdfast.api import events
from holdfast.api.documents import (
    DeleteQuery,
    ExecutionsOfWorkflowQuery,
    ExecutionsQuery,
    PageQuery,
    SignalAnswer,
    SignalRequest,
    StartRequest,
    StatusQuery,
    StopRequest,
    Validity,
    WaitQuery,
)
from holdfast.api.responses import json_response
from holdfast.errors import EngineStopped, HoldfastError, InvocationFailed
from holdfast.providers.base import WorkflowProvider
from holdfast.providers.errors import (
    ExecutionNotFound,
    InvalidInput,
    InvalidSpec,
    ProviderConflict,
    ProviderNotFound,
    RegistrationFailed,
    WaitTimeout,
    WorkflowInUse,
    WorkflowNotFound,
)
from holdfast.providers.types import (
    CreateWorkflowResult,
    ExecutionResult,
    ExecutionStatus,
    Page,
    WorkflowInfo,
    WorkflowSpec,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, checked."""

    request: Request
    provider: WorkflowProvider
    closing: asyncio.Event
    """Set when the API is closed: nobody waits any longer."""
    heartbeat_s: float
    query: Any
    body: Any

    def part(self, name: str) -> str:
        """A part of the path."""
        return self.request.path_params[name]

    def location(self, *parts: str) -> str:
        """The path of something else in this API."""
        return "/".join([self.request.scope.get("root_path", ""), *(quote(part, safe="") for part in parts)])


@dataclass(frozen=True, slots=True)
class Answer:
    """One way in which an operation succeeds, for the document."""

    type: Any
    description: str
    media_type: str = "application/json"
    headers: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row of the table."""

    method: str
    path: str
    run: Callable[[Call], Awaitable[ASGIApp]]
    answers: Mapping[int, Answer]
    errors: tuple[type[HoldfastError], ...] = ()
    query: Any = None
    body: Any = None
    is_body_required: bool = True
    headers: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Its operation id in the document."""
        return self.run.__name__


# --- workflows


async def create_workflow(call: Call) -> Response:
    """Create a workflow.

    Registers its service with the engine and stores its definition there. The same id again changes nothing and answers
    what is stored, with 200 instead of 201.
    """
    result = await call.provider.create_workflow(call.body)
    headers = {"location": call.location("workflows", result.workflow_id)}
    return json_response(result, 201 if result.is_new else 200, headers)


async def validate_workflow(call: Call) -> Response:
    """Check what a workflow would be created from.

    Nothing is created. A problem names the wrong part in `field`.
    """
    await call.provider.validate(call.body)
    return json_response(Validity(valid=True, workflow_id=call.body.workflow_id))


async def list_workflows(call: Call) -> Response:
    """Workflows, in the order of their ids."""
    page = await call.provider.list_workflows(limit=call.query.limit, cursor=call.query.cursor)
    return _page(call, page)


async def get_workflow(call: Call) -> Response:
    """One workflow, with its definition."""
    return json_response(await call.provider.get_workflow(call.part("workflow_id")))


async def delete_workflow(call: Call) -> Response:
    """Forget a workflow.

    An unknown id succeeds. With running executions it is refused (409) and they are named, unless `force` stops them.
    """
    await call.provider.delete_workflow(call.part("workflow_id"), force=call.query.force)
    return Response(status_code=204)


# --- executions


async def start_execution(call: Call) -> Response:
    """Start an execution.

    The answer comes when the execution is durable, not when it is over. An `execution_name` that exists answers the
    existing execution, with 200 instead of 201, and starts nothing.
    """
    start: StartRequest = call.body
    result = await call.provider.start_execution(
        call.part("workflow_id"),
        start.input,
        execution_name=start.execution_name,
        tags=start.tags,
        metadata=start.metadata,
        trigger_source=start.trigger_source,
        key=start.key,
    )
    headers = {"location": call.location("executions", result.execution_id)}
    return json_response(result, 201 if result.is_new else 200, headers)


async def list_executions_of_workflow(call: Call) -> Response:
    """Executions of one workflow, newest first.

    Without history, input, output and K/V state.
    """
    workflow_id = call.part("workflow_id")
    await call.provider.get_workflow(workflow_id)  # an empty list of a workflow that is not there would mislead
    return await _executions(call, workflow_id)


async def list_executions(call: Call) -> Response:
    """Executions of all workflows, newest first.

    Without history, input, output and K/V state.
    """
    return await _executions(call, call.query.workflow_id)


async def get_execution(call: Call) -> Response:
    """One execution: state, input, output, error, progress, K/V state and history."""
    status = await call.provider.get_execution_status(call.part("execution_id"), history=call.query.history)
    return json_response(status)


async def stop_execution(call: Call) -> Response:
    """Ask an execution to end.

    Its handler is cancelled and may clean up; with `kill` it is ended after a grace time whatever it does. The answer is
    the status after that; `sub_state` is `stopping` where it takes longer. A second stop changes nothing.
    """
    stop: StopRequest = call.body
    status = await call.provider.stop_execution(
        call.part("execution_id"), stop.reason, grace=stop.grace, kill=stop.kill
    )
    return json_response(status)


async def signal_execution(call: Call) -> Response:
    """Tell a live execution something.

    `name` is the id of an awakeable, a shared handler, whose answer is returned, a durable promise, or a named signal.
    """
    signal: SignalRequest = call.body
    answer = await call.provider.signal(
        call.part("execution_id"), signal.name, signal.payload, idempotency_key=signal.idempotency_key
    )
    return json_response(SignalAnswer(answer=answer))


async def wait_for_execution(call: Call) -> Response:
    """Wait until an execution is over.

    After `timeout` the answer is 408, and the execution goes on; wait again.
    """
    waiting = call.provider.wait(call.part("execution_id"), timeout=call.query.timeout)
    return json_response(await _attended(call, waiting))


async def watch_execution(call: Call) -> ASGIApp:
    """Follow an execution, as server-sent events.

    Events `state` have a `StateChange` as data: first the present state, then each change, until the execution is over
    and the stream ends. A client that lost the stream sends the last event's id as `Last-Event-ID`; when that was the
    end, the answer is 204. An event `problem` tells why a stream ended early.
    """
    last_event_id = call.request.headers.get("last-event-id", "")
    state = events.state_of(last_event_id)
    if state is not None and state.is_final:
        await call.provider.get_execution_status(call.part("execution_id"), history=False)  # an unknown one is 404
        return Response(status_code=204)
    changes = call.provider.watch(call.part("execution_id"))
    first = await _attended(call, _first(changes))
    return events.EventStream(
        first, changes, last_event_id=last_event_id, closing=call.closing, heartbeat_s=call.heartbeat_s
    )


async def _first(changes: Any) -> Any:
    return await anext(changes)


async def _executions(call: Call, workflow_id: str | None) -> Response:
    query: ExecutionsOfWorkflowQuery = call.query
    page = await call.provider.list_executions(
        workflow_id=workflow_id,
        states=query.state or None,
        created_after=query.created_after,
        created_before=query.created_before,
        limit=query.limit,
        cursor=query.cursor,
    )
    return _page(call, page)


def _page(call: Call, page: Page[Any]) -> Response:
    headers: dict[str, str] = {}
    if page.next_cursor is not None:
        others = [(name, value) for name, value in call.request.query_params.multi_items() if name != "cursor"]
        query = urlencode([*others, ("cursor", page.next_cursor)])
        headers["link"] = f'<{quote(call.request.url.path)}?{query}>; rel="next"'
    return json_response(page, headers=headers)


class ClientGone(Exception):
    """The client has closed the connection; there is nobody to answer."""


async def _attended(call: Call, work: Coroutine[Any, Any, T]) -> T:
    """Do something that may take long, but only while there is a client that waits for it.

    Raises:
        ClientGone: there is none any more.
        EngineStopped: the API is closed.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(events.disconnected(call.request.receive))
    closing = asyncio.ensure_future(call.closing.wait())
    try:
        await asyncio.wait([task, gone, closing], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientGone
        raise EngineStopped("the API is stopping", hint="the execution goes on; ask again in a moment")
    finally:
        await events.discard(task, gone, closing)


_LOCATION = {"location": {"description": "Where it can be asked for.", "schema": {"type": "string"}}}
_LINK = {"link": {"description": "The next page, if there is one (RFC 8288).", "schema": {"type": "string"}}}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "Id of the last event that was seen; browsers send it by themselves.",
    "schema": {"type": "string"},
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/workflows",
        run=create_workflow,
        body=WorkflowSpec,
        answers={
            201: Answer(CreateWorkflowResult, "It is new.", headers=_LOCATION),
            200: Answer(CreateWorkflowResult, "It was there already; nothing was changed.", headers=_LOCATION),
        },
        errors=(InvalidSpec, ProviderConflict, ProviderNotFound, RegistrationFailed),
    ),
    Operation(
        method="GET",
        path="/workflows",
        run=list_workflows,
        query=PageQuery,
        answers={200: Answer(Page[WorkflowInfo], "One page.", headers=_LINK)},
        errors=(InvalidInput,),
    ),
    Operation(
        method="POST",
        path="/workflows/validate",
        run=validate_workflow,
        body=WorkflowSpec,
        answers={200: Answer(Validity, "It can be created.")},
        errors=(InvalidSpec, ProviderNotFound),
    ),
    Operation(
        method="GET",
        path="/workflows/{workflow_id}",
        run=get_workflow,
        answers={200: Answer(WorkflowInfo, "The workflow.")},
        errors=(WorkflowNotFound,),
    ),
    Operation(
        method="DELETE",
        path="/workflows/{workflow_id}",
        run=delete_workflow,
        query=DeleteQuery,
        answers={204: Answer(None, "It is gone, or never was there.")},
        errors=(WorkflowInUse, InvalidInput),
    ),
    Operation(
        method="POST",
        path="/workflows/{workflow_id}/executions",
        run=start_execution,
        body=StartRequest,
        is_body_required=False,
        answers={
            201: Answer(ExecutionResult, "It is accepted and durable.", headers=_LOCATION),
            200: Answer(ExecutionResult, "An execution of this name was there already.", headers=_LOCATION),
        },
        errors=(WorkflowNotFound, InvalidInput),
    ),
    Operation(
        method="GET",
        path="/workflows/{workflow_id}/executions",
        run=list_executions_of_workflow,
        query=ExecutionsOfWorkflowQuery,
        answers={200: Answer(Page[ExecutionStatus], "One page.", headers=_LINK)},
        errors=(WorkflowNotFound, InvalidInput),
    ),
    Operation(
        method="GET",
        path="/executions",
        run=list_executions,
        query=ExecutionsQuery,
        answers={200: Answer(Page[ExecutionStatus], "One page.", headers=_LINK)},
        errors=(InvalidInput,),
    ),
    Operation(
        method="GET",
        path="/executions/{execution_id}",
        run=get_execution,
        query=StatusQuery,
        answers={200: Answer(ExecutionStatus, "The execution.")},
        errors=(ExecutionNotFound, InvalidInput),
    ),
    Operation(
        method="POST",
        path="/executions/{execution_id}/stop",
        run=stop_execution,
        body=StopRequest,
        is_body_required=False,
        answers={200: Answer(ExecutionStatus, "The execution after the stop.")},
        errors=(ExecutionNotFound, InvalidInput),
    ),
    Operation(
        method="POST",
        path="/executions/{execution_id}/signal",
        run=signal_execution,
        body=SignalRequest,
        answers={200: Answer(SignalAnswer, "It was told.")},
        errors=(ExecutionNotFound, InvalidInput, InvocationFailed),
    ),
    Operation(
        method="GET",
        path="/executions/{execution_id}/wait",
        run=wait_for_execution,
        query=WaitQuery,
        answers={200: Answer(ExecutionStatus, "The execution is over.")},
        errors=(ExecutionNotFound, WaitTimeout, InvalidInput),
    ),
    Operation(
        method="GET",
        path="/executions/{execution_id}/watch",
        run=watch_execution,
        headers=(_LAST_EVENT_ID,),
        answers={
            200: Answer(str, "The changes, as they come.", media_type=events.MEDIA_TYPE),
            204: Answer(None, "The client has seen the end."),
        },
        errors=(ExecutionNotFound,),
    ),
)
