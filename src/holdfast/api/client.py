"""A provider behind the HTTP API: the same interface, on whatever the other side runs.

    async with HttpProvider("http://127.0.0.1:9070") as provider:
        started = await provider.start_execution("hello", "Ada", execution_name="first")
        print((await provider.wait(started.execution_id)).output)

Errors are those that the provider on the other side raised. Waiting and watching survive restarts of the server.
"""

from __future__ import annotations

import asyncio
import json as jsons
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast
from urllib.parse import quote

import httpx

from holdfast.api import problems
from holdfast.api.events import HEARTBEAT_S, RETRY_MS, EventReader
from holdfast.api.reading import from_answer
from holdfast.errors import Forbidden, HoldfastError, Unauthorized
from holdfast.providers.base import PAGE_LIMIT_DEFAULT, WorkflowProvider
from holdfast.providers.errors import (
    ExecutionNotFound,
    InvalidInput,
    ProviderUnauthorized,
    ProviderUnavailable,
    WaitTimeout,
    WorkflowNotFound,
)
from holdfast.providers.types import (
    CreateWorkflowResult,
    ExecutionResult,
    ExecutionState,
    ExecutionStatus,
    Page,
    StateChange,
    WorkflowInfo,
    WorkflowSpec,
    duration_text,
    time_text,
)
from holdfast.providers.validation import check_grace
from holdfast.security.bearer import bearer_headers

T = TypeVar("T")

REQUEST_TIMEOUT_S = 30.0
WAIT_SLICE_S = 25.0
"""One request waits so long at most: proxies cut what says nothing for half a minute or more."""

PATIENCE_S = 60.0
"""How long a server may be gone while we wait or watch: longer than a restart takes."""


class HttpProvider(WorkflowProvider):
    """Workflows behind `/v1` of a running `holdfast serve` or `holdfast api`."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | None = None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """
        Args:
            url: Where the API is, without `/v1`.
            token: Of the admin API, where it asks for one.
            ca_file: PEM file of the authorities whose certificates it may have; None means those of the system.
            request_timeout_s: How long one answer may take, seconds; `wait` and `watch` take as long as they need.
            patience_s: How long the server may be gone while we wait or watch.
        Raises:
            InvalidRequest: no header can carry the token.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self._patience_s = patience_s
        self._was_reached = False
        # Loading the certificate store takes longer than everything else here; plain HTTP needs none.
        verify = (
            ssl.create_default_context(cafile=ca_file)
            if self.url.startswith("https:")
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        self._http = httpx.AsyncClient(
            headers=bearer_headers(token),
            timeout=httpx.Timeout(request_timeout_s, connect=5.0),
            trust_env=False,  # proxies of the environment are for the internet, not for an engine next door
            verify=verify,
        )

    @property
    def name(self) -> str:
        return "http"

    # --- workflows

    async def validate(self, spec: WorkflowSpec) -> None:
        await self._request("POST", "/workflows/validate", json=spec.to_json())

    async def create_workflow(self, spec: WorkflowSpec) -> CreateWorkflowResult:
        answer = await self._request("POST", "/workflows", json=spec.to_json())
        return from_answer(CreateWorkflowResult, answer)

    async def get_workflow(self, workflow_id: str) -> WorkflowInfo:
        return from_answer(WorkflowInfo, await self._request("GET", _workflow(workflow_id)))

    async def list_workflows(self, *, limit: int = PAGE_LIMIT_DEFAULT, cursor: str | None = None) -> Page[WorkflowInfo]:
        answer = await self._request("GET", "/workflows", query={"limit": limit, "cursor": cursor})
        return from_answer(Page[WorkflowInfo], answer)

    async def delete_workflow(self, workflow_id: str, *, force: bool = False) -> None:
        if _is_part(workflow_id):  # another one is nobody's
            await self._request("DELETE", _workflow(workflow_id), query={"force": "true" if force else None})

    # --- executions

    async def start_execution(
        self,
        workflow_id: str,
        input: Any = None,
        *,
        execution_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        trigger_source: str = "api",
        key: str | None = None,
    ) -> ExecutionResult:
        body = {
            "execution_name": execution_name,
            "input": input,
            "tags": dict(tags or {}),
            "metadata": dict(metadata or {}),
            "trigger_source": trigger_source,
            "key": key,
        }
        answer = await self._request("POST", _workflow(workflow_id, "executions"), json=body)
        return from_answer(ExecutionResult, answer)

    async def get_execution_status(self, execution_id: str, *, history: bool = True) -> ExecutionStatus:
        query = {"history": None if history else "false"}
        return from_answer(ExecutionStatus, await self._request("GET", _execution(execution_id), query=query))

    async def list_executions(
        self,
        *,
        workflow_id: str | None = None,
        states: Iterable[ExecutionState | str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = PAGE_LIMIT_DEFAULT,
        cursor: str | None = None,
    ) -> Page[ExecutionStatus]:
        query = {
            "workflow_id": workflow_id,
            "state": None if states is None else [str(state) for state in states],
            "created_after": None if created_after is None else time_text(created_after),
            "created_before": None if created_before is None else time_text(created_before),
            "limit": limit,
            "cursor": cursor,
        }
        return from_answer(Page[ExecutionStatus], await self._request("GET", "/executions", query=query))

    async def stop_execution(
        self, execution_id: str, reason: str = "", *, grace: timedelta | None = None, kill: bool = False
    ) -> ExecutionStatus:
        check_grace(grace)
        body = {"reason": reason, "grace": None if grace is None else duration_text(grace), "kill": kill}
        # The answer waits for the end, or for the grace time: that long and a little longer.
        limit_s = REQUEST_TIMEOUT_S + (grace.total_seconds() if grace is not None else 60.0 if kill else 0.0)
        answer = await self._request("POST", _execution(execution_id, "stop"), json=body, timeout_s=limit_s)
        return from_answer(ExecutionStatus, answer)

    async def wait(self, execution_id: str, *, timeout: timedelta | float | None = None) -> ExecutionStatus:  # noqa: ASYNC109 as the interface
        limit_s = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        deadline = None if limit_s is None else time.monotonic() + limit_s
        path = _execution(execution_id, "wait")

        async def ask() -> dict[str, Any]:
            left_s = WAIT_SLICE_S if deadline is None else max(deadline - time.monotonic(), 0.001)
            slice_s = min(left_s, WAIT_SLICE_S)
            return await self._request(
                "GET", path, query={"timeout": f"{slice_s:.3f}"}, timeout_s=slice_s + REQUEST_TIMEOUT_S
            )

        while True:
            try:
                return from_answer(ExecutionStatus, await self._patiently(ask))
            except WaitTimeout as error:
                if deadline is not None and time.monotonic() >= deadline:
                    raise WaitTimeout(execution_id, limit_s or 0.0, error.state) from None

    async def watch(self, execution_id: str) -> AsyncIterator[StateChange]:
        last_id = ""
        lost_at_s: float | None = None
        while True:
            try:
                async with aclosing(self._stream(execution_id, last_id)) as stream:
                    async for event_id, change in stream:
                        last_id, lost_at_s = event_id, None
                        yield change
                        if change.to_state.is_final:
                            return
                # The server is stopping, or a proxy has had enough: connect again.
                raise ProviderUnavailable(f"the stream of {self.url} ended early", endpoint=self.url)
            except HoldfastError as error:
                if not _may_pass(error):
                    raise
                now_s = time.monotonic()
                lost_at_s = now_s if lost_at_s is None else lost_at_s
                if not self._was_reached or now_s - lost_at_s > self._patience_s:
                    raise
            await asyncio.sleep(RETRY_MS / 1_000)

    async def signal(
        self, execution_id: str, name: str, payload: Any = None, *, idempotency_key: str | None = None
    ) -> Any:
        body = {"name": name, "payload": payload, "idempotency_key": idempotency_key}
        return (await self._request("POST", _execution(execution_id, "signal"), json=body))["answer"]

    async def close(self) -> None:
        await self._http.aclose()

    # --- requests

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        params = {name: value for name, value in (query or {}).items() if value is not None}
        more: dict[str, Any] = {} if timeout_s is None else {"timeout": httpx.Timeout(timeout_s, connect=5.0)}
        if json is not None:
            more |= {"content": _encoded(json), "headers": {"content-type": "application/json"}}
        try:
            answer = await self._http.request(method, f"{self.url}/v1{path}", params=params, **more)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._was_reached = True
        if answer.status_code == 204:
            return {}
        if not answer.is_success:
            raise self._refusal(answer)
        return _document(answer)

    async def _stream(self, execution_id: str, last_id: str) -> AsyncGenerator[tuple[str, StateChange]]:
        """Events of one connection: (id, change)."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        limit = httpx.Timeout(REQUEST_TIMEOUT_S, connect=5.0, read=3 * HEARTBEAT_S)
        url = f"{self.url}/v1{_execution(execution_id, 'watch')}"
        reader = EventReader()
        try:
            async with self._http.stream("GET", url, headers=headers, timeout=limit) as answer:
                self._was_reached = True
                if answer.status_code == 204:  # it ended with what we saw last
                    return
                if answer.status_code != 200:
                    await answer.aread()
                    raise self._refusal(answer)
                async for line in answer.aiter_lines():
                    for event in reader.feed(line):
                        if event.name == "problem":
                            raise self._told(event.data)
                        if event.name == "state":
                            yield event.id, from_answer(StateChange, _parsed(event.data))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again while the server restarts; one that never answered is given up at once."""
        deadline: float | None = None
        while True:
            try:
                return await ask()
            except HoldfastError as error:
                if not _may_pass(error) or not self._was_reached:
                    raise
                deadline = deadline or time.monotonic() + self._patience_s
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(RETRY_MS / 1_000)

    def _unreachable(self, error: httpx.TransportError) -> ProviderUnavailable:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            message = f"no API answers at {self.url}"
        else:
            message = f"lost the API at {self.url}: {str(error) or type(error).__name__}"
        hint = "start one: holdfast serve module:app, or, in front of a Restate server, holdfast api"
        return ProviderUnavailable(message, endpoint=self.url, hint=hint)

    def _refusal(self, answer: httpx.Response) -> HoldfastError:
        try:
            document: Any = answer.json()
        except ValueError:
            document = None
        told = problems.error_of(document, answer.status_code)
        if told is not None:
            return told
        said = document.get("message") if isinstance(document, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        message = str(said or answer.text.strip()[:200] or problems.reason_of(answer.status_code))  # pyright: ignore[reportUnknownArgumentType]
        if answer.status_code == 401:
            return Unauthorized(message, hint="give one: --token, or HOLDFAST_ADMIN_TOKEN")
        if answer.status_code == 403:
            return Forbidden(message)
        return ProviderUnavailable(
            f"{answer.request.method} {answer.request.url} was answered {answer.status_code}: {message}",
            endpoint=self.url,
            status_code=answer.status_code,
            body=answer.text,
            hint="is that the API of holdfast?",
        )

    def _told(self, data: str) -> HoldfastError:
        """What a stream said before it ended."""
        document = _parsed(data)
        told = problems.error_of(document, int(document.get("status", 503)))
        return told or ProviderUnavailable(f"the stream of {self.url} ended: {data[:200]}", endpoint=self.url)


def _encoded(body: Mapping[str, Any]) -> bytes:
    for name, value in body.items():
        try:
            jsons.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(name, f"is not JSON: {error}") from None
    return jsons.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _may_pass(error: HoldfastError) -> bool:
    return problems.status_of(error) in (502, 503, 504) and not isinstance(error, ProviderUnauthorized)


def _workflow(workflow_id: str, *rest: str) -> str:
    if not _is_part(workflow_id):
        raise WorkflowNotFound(workflow_id)
    return _path("workflows", workflow_id, *rest)


def _execution(execution_id: str, *rest: str) -> str:
    if not _is_part(execution_id):
        raise ExecutionNotFound(execution_id)
    return _path("executions", execution_id, *rest)


def _is_part(text: str) -> bool:
    """Whether it can be a part of a path. What cannot would be another path, escaped or not."""
    return "/" not in text and text not in ("", ".", "..")


def _path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", answer.json())
    except ValueError:
        url = str(answer.request.url)
        raise ProviderUnavailable(
            f"{url} did not answer with JSON", endpoint=url, status_code=answer.status_code, body=answer.text
        ) from None


def _parsed(data: str) -> dict[str, Any]:
    return cast("dict[str, Any]", jsons.loads(data))
