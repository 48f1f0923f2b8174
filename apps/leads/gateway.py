"""Our way to an engine: its ingress and admin API, in process or over HTTP, the same for both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from apps.leads.errors import EngineRefused, EngineUnreachable
from apps.leads.outside import http_client

REQUEST_TIMEOUT_S = 30.0
NOT_READY = 470
"""What both engines answer when an invocation goes on."""


class Gateway:
    """Requests to one engine.

    Raises from every method: `EngineRefused`, and `EngineUnreachable` when there is no answer.
    """

    def __init__(self, ingress: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
        self._ingress = ingress
        self._admin = admin

    @classmethod
    def embedded(cls, engine: Any) -> Gateway:
        """To a `holdfast.Engine` of this process."""
        return cls(
            httpx.AsyncClient(transport=httpx.ASGITransport(engine.ingress), base_url="http://engine", timeout=None),  # noqa: S113 in process
            httpx.AsyncClient(transport=httpx.ASGITransport(engine.admin), base_url="http://engine", timeout=None),  # noqa: S113
        )

    @classmethod
    def http(cls, ingress_url: str, admin_url: str, token: str = "") -> Gateway:
        """To a Restate server, or an engine that is served."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return cls(
            http_client(base_url=ingress_url, headers=headers, timeout=REQUEST_TIMEOUT_S),
            http_client(base_url=admin_url, headers=headers, timeout=REQUEST_TIMEOUT_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ingress.aclose()
        await self._admin.aclose()

    async def send(self, service: str, key: str, handler: str, argument: Any) -> str:
        """Start a workflow, or find it started. Returns the invocation's id once the engine has it on disk."""
        answer = await self._post(f"/{service}/{quote(key, safe='')}/{handler}/send", argument)
        return answer["invocationId"]

    async def call(self, service: str, key: str, handler: str, argument: Any = None) -> Any:
        """Call a handler of a virtual object and wait for its answer."""
        return await self._post(f"/{service}/{quote(key, safe='')}/{handler}", argument)

    async def is_over(self, workflow: str, key: str) -> bool:
        """Has the workflow ended, or does the engine know nothing of it (any more)?"""
        answer = await _answer(self._ingress.get(f"/restate/workflow/{workflow}/{key}/output"))
        return answer.status_code != NOT_READY

    async def attach(self, workflow: str, key: str, timeout_s: float) -> bool:
        """Wait for the workflow's end. False: not in time."""
        try:
            # A transport inside the process knows no timeouts of its own.
            async with asyncio.timeout(timeout_s):
                await _answer(self._ingress.get(f"/restate/workflow/{workflow}/{key}/attach", timeout=None))
        except TimeoutError:
            return False
        return True

    async def cancel(self, invocation_id: str) -> None:
        """Ask an invocation to end; one that is over stays as it is."""
        await self._patch(invocation_id, "cancel")

    async def resume(self, invocation_id: str) -> bool:
        """Let a paused invocation go on at once. False: it was not paused."""
        return await self._patch(invocation_id, "resume")

    async def _patch(self, invocation_id: str, verb: str) -> bool:
        answer = await _answer(self._admin.patch(f"/invocations/{invocation_id}/{verb}"))
        if answer.status_code in (404, 409, 410, 425):
            return False
        _raise(answer)
        return True

    async def _post(self, path: str, argument: Any) -> Any:
        body = b"" if argument is None else msgspec.json.encode(argument)
        headers = {} if argument is None else {"content-type": "application/json"}
        answer = await _answer(self._ingress.post(path, content=body, headers=headers))
        _raise(answer)
        return answer.json() if answer.content else None


async def _answer(request: Awaitable[httpx.Response]) -> httpx.Response:
    try:
        return await request
    except httpx.TransportError as error:
        raise EngineUnreachable(error) from error


def _raise(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        error = answer.json()
        message, details = str(error["message"]), error.get("metadata") or {}
    except (ValueError, KeyError, TypeError):
        message, details = answer.text[:500], {}
    raise EngineRefused(answer.status_code, message, {str(name): str(value) for name, value in details.items()})
