"""What imports asks of its engine: start, progress, cancel, by the two HTTP APIs that both engines have.

    EngineClient.embedded(engine)                   an engine of this process, without a network
    EngineClient.remote(RemoteEngine(ingress_url="http://localhost:8080", admin_url="http://localhost:9070"))

Every request may be repeated: a workflow starts once per key, and a second cancellation changes nothing. So requests
that meet a limit (429), a proxy without a server behind it (502, 503, 504) or nobody at all are tried again for
`patience_s` seconds, as `Retry-After` says, else after growing pauses. This is the only place where imports repeats
anything: whatever runs already is the engine's to retry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx
import msgspec
from httpx_retries import Retry, RetryTransport

from apps.imports.model import SERVICE
from holdfast import Engine

PATIENCE_S = 10.0
PAUSE_S_MAX = 2.0
REQUEST_TIMEOUT_S = 10.0
REGISTER_TIMEOUT_S = 60.0

RunState = Literal["unknown", "running", "ended"]
NOT_READY = 470
"""The engine's status for the result of a workflow that is not over."""


class EngineAway(Exception):
    """The engine cannot be reached, or does not let us in. The message says which and where."""


class RegistrationRefused(Exception):
    """The server does not take the worker; the message has its reason."""


@dataclass(frozen=True, slots=True)
class RemoteEngine:
    """Where a Restate server is, and what it takes to be let in."""

    ingress_url: str
    admin_url: str
    token: str | None = None
    """Sent as a bearer token with every request."""


@dataclass(frozen=True, slots=True)
class Started:
    """Answer to a start. `is_new` is false if the id was taken: then nothing was started.

    `is_repeated` if the request had to be made again: then it may be our own first one that took the id.
    """

    invocation_id: str
    is_new: bool
    is_repeated: bool


class _Sent(msgspec.Struct):
    invocationId: str  # noqa: N815 the engine's own name
    status: str


class EngineClient:
    """Requests to one engine. An async context manager: it owns its connections.

    Args:
        ingress, admin: Clients whose base URLs are the engine's two APIs.
        where: The engine's address in messages.
    """

    def __init__(self, ingress: httpx.AsyncClient, admin: httpx.AsyncClient, where: str) -> None:
        self._ingress = ingress
        self._admin = admin
        self._where = where

    @classmethod
    def embedded(cls, engine: Engine) -> Self:
        """For an engine of this process."""
        ingress, admin = (
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine", timeout=REQUEST_TIMEOUT_S)
            for app in (engine.ingress, engine.admin)
        )
        return cls(ingress, admin, "the embedded engine")

    @classmethod
    def remote(cls, engine: RemoteEngine, *, patience_s: float = PATIENCE_S) -> Self:
        """For a Restate server.

        Args:
            patience_s: Seconds for which one request is tried again before it fails.
        """
        ingress, admin = (_remote_client(engine, url, patience_s) for url in (engine.ingress_url, engine.admin_url))
        return cls(ingress, admin, f"the engine at {engine.ingress_url}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._ingress.aclose()
        await self._admin.aclose()

    async def start(self, import_id: str, source: Any) -> Started:
        """Start the workflow of this id, unless it was started before.

        Raises:
            EngineAway
        """
        answer = await self._ask(self._ingress, "POST", f"{_path(import_id)}/run/send", json=source)
        sent = msgspec.json.decode(answer.content, type=_Sent)
        retry = answer.extensions.get("retry")
        is_repeated = isinstance(retry, Retry) and retry.attempts_made > 0
        return Started(sent.invocationId, sent.status == "Accepted", is_repeated)

    async def state(self, import_id: str) -> RunState:
        """Whether the workflow of this id is at work, has ended, or is not known (any more).

        Raises:
            EngineAway
        """
        answer = await self._ask(
            self._ingress,
            "GET",
            f"/restate/workflow{_path(import_id)}/output",
            accept_below=500,  # one of a sick engine must not count as an end: what ended may be rolled back
        )
        if _is_unknown(answer):
            return "unknown"
        return "running" if answer.status_code == NOT_READY else "ended"

    async def progress(self, import_id: str) -> bytes:
        """What the workflow's progress handler says, as JSON. It answers for ids that never ran as well.

        Raises:
            EngineAway
        """
        return (await self._ask(self._ingress, "POST", f"{_path(import_id)}/progress")).content

    async def invocation_id(self, import_id: str) -> str:
        """The invocation of a workflow that is not unknown: starting it again starts nothing and tells.

        Raises:
            EngineAway
        """
        return (await self.start(import_id, "")).invocation_id

    async def cancel(self, invocation_id: str) -> bool:
        """Ask the engine to cancel an invocation: its handler is told at its next wait, and may clean up.

        Returns:
            False if there was nothing to cancel: it is over.
        Raises:
            EngineAway
        """
        path = f"/invocations/{quote(invocation_id, safe='')}/cancel"
        answer = await self._ask(self._admin, "PATCH", path, accept_below=500)
        return answer.is_success

    async def check(self) -> None:
        """Return if the engine answers; one look, without patience.

        Raises:
            EngineAway
        """
        await self._ask(self._ingress, "GET", "/restate/health", extensions={"retry": Retry(total=0)})

    async def _ask(
        self, client: httpx.AsyncClient, method: str, path: str, *, accept_below: int = 400, **request: Any
    ) -> httpx.Response:
        """One request. Errors below `accept_below` are for the caller, but none that says that nobody is there."""
        try:
            answer = await client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise EngineAway(f"{self._where} does not answer: {str(error) or type(error).__name__}") from error
        if answer.status_code in (401, 403):
            raise EngineAway(f"{self._where} refuses the token (status {answer.status_code}); set RESTATE_AUTH_TOKEN")
        if answer.is_success or (answer.status_code < accept_below and answer.status_code != 429):
            return answer
        if _is_unknown(answer):
            raise EngineAway(f"{self._where} does not know {SERVICE}; the worker is not registered there yet")
        raise EngineAway(f"{self._where} answered {answer.status_code}: {answer.text[:200]}")


def _path(import_id: str) -> str:
    return f"/{SERVICE}/{quote(import_id, safe='')}"


def _is_unknown(answer: httpx.Response) -> bool:
    return answer.status_code == 404


async def register(engine: RemoteEngine, worker_url: str) -> None:
    """Tell a Restate server where the worker is. Waits for a server that is not there yet, for as long as it takes.

    An address that it knows is looked at again: the worker there has been replaced by this one.

    Raises:
        RegistrationRefused: waiting would not help.
    """
    retry = Retry(
        total=1_000_000,
        allowed_methods=("POST",),
        status_forcelist=(429, 500, 502, 503, 504),
        retry_on_exceptions=(httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError),
        backoff_factor=0.1,
        backoff_jitter=0.5,
        max_backoff_wait=PAUSE_S_MAX,
    )
    async with _client(engine, engine.admin_url, retry) as admin:
        answer = await admin.post("/deployments", json={"uri": worker_url, "force": True}, timeout=REGISTER_TIMEOUT_S)
    if not answer.is_success:
        raise RegistrationRefused(
            f"{engine.admin_url} does not register {worker_url}: {answer.status_code} {answer.text[:300]}"
        )


def _remote_client(engine: RemoteEngine, url: str, patience_s: float) -> httpx.AsyncClient:
    retry = Retry(
        total=max(1, math.ceil(patience_s) * 4),  # the seconds are the limit, not the count
        total_timeout=max(patience_s, 0.001),
        allowed_methods=("GET", "POST", "PATCH"),
        # Not what takes too long: that already cost its whole time.
        retry_on_exceptions=(httpx.NetworkError, httpx.RemoteProtocolError),
        backoff_factor=0.1,
        backoff_jitter=0.5,
        max_backoff_wait=PAUSE_S_MAX,
    )
    return _client(engine, url, retry)


def _client(engine: RemoteEngine, url: str, retry: Retry) -> httpx.AsyncClient:
    headers = {} if engine.token is None else {"authorization": f"Bearer {engine.token}"}
    transport = RetryTransport(transport=httpx.AsyncHTTPTransport(), retry=retry)
    return httpx.AsyncClient(transport=transport, base_url=url, headers=headers, timeout=REQUEST_TIMEOUT_S)
