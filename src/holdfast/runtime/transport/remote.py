"""Endpoints of other processes, in any language: discovery and attempts over HTTP/2 (cleartext and TLS) and HTTP/1.1.

Headers, answers and what they mean: the Restate service protocol, as a Restate server 1.7 uses it.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from holdfast.logs import current_invocation
from holdfast.protocol import messages as m
from holdfast.protocol.discovery import ACCEPT
from holdfast.protocol.wire import MalformedFrame
from holdfast.runtime.attempt import Attempt, Listener, Order, unreadable
from holdfast.runtime.transport.http2 import Connection, NotHttp2, Pool, Stream, Unreachable

if TYPE_CHECKING:
    import httpx

    from holdfast.runtime.transport.identity import Identity

DRAIN_S = 5.0
"""How long an endpoint may take to end its response after its last frame."""
OPENED_MAX = 3
"""An endpoint that restarts refuses requests that were under way to it; they go to its next connection."""
DISCOVERY_TIMEOUT_S = 30.0
DISCOVERY_BYTES_MAX = 32 << 20
CLUSTER_NAME = "localcluster"


class EndpointFailed(Exception):
    """The endpoint could not be reached, or answered with something else than it should."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, if there was one."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """A discovery answer."""

    manifest: bytes
    content_type: str
    is_http_2: bool
    sdk_version: str | None


class Endpoint:
    """One HTTP endpoint: where its services are reached, and how."""

    def __init__(
        self,
        uri: str,
        *,
        headers: Mapping[str, str],
        use_http_11: bool,
        tls: ssl.SSLContext | None,
        identity: Identity | None,
        connect_timeout_s: float,
    ) -> None:
        parts = urlsplit(uri)
        self.uri = uri
        self.is_http_2 = not use_http_11
        self._scheme = parts.scheme
        self._authority = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._identity = identity
        self._connect_timeout_s = connect_timeout_s
        if parts.scheme == "https":
            tls = tls or ssl.create_default_context()
            self._tls = tls
        else:
            self._tls = None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._pool = Pool(parts.hostname or "", port, self._tls, connect_timeout_s)
        self._client: httpx.AsyncClient | None = None

    async def discover(self) -> Discovered:
        """Ask what it serves.

        Raises:
            EndpointFailed: no connection, or any status but 200.
        """
        exchange = _Whole()
        try:
            async with asyncio.timeout(DISCOVERY_TIMEOUT_S):
                await self._discover(exchange)
        except TimeoutError:
            raise EndpointFailed(f"the endpoint did not answer discovery within {DISCOVERY_TIMEOUT_S:g} s") from None
        if exchange.status != 200:
            text = bytes(exchange.body[:200]).decode(errors="replace").strip()
            raise EndpointFailed(
                f"got status code '{exchange.status}'" + (f": {text}" if text else ""), status=exchange.status
            )
        headers = exchange.headers
        return Discovered(
            bytes(exchange.body),
            headers.get("content-type", ""),
            self.is_http_2,
            headers.get("x-restate-server"),
        )

    async def _discover(self, exchange: _Whole) -> None:
        headers = {"accept": ACCEPT.decode(), "x-restate-cluster-name": CLUSTER_NAME, **self._headers}
        path = f"{self._prefix}/discover"
        if self.is_http_2:
            try:
                stream = await self.open("GET", path, headers, None, exchange)
            except NotHttp2:
                self.is_http_2 = False
            else:
                try:
                    stream.end()
                    failure = await exchange.done
                finally:
                    stream.reset()
                if failure is not None:
                    raise EndpointFailed(f"unable to reach the remote endpoint: {failure}")
                return
        async with self.exchange_11("GET", path, headers, None, b"") as response:
            exchange.response(response.status_code, dict(response.headers))
            async for chunk in response.aiter_bytes():
                exchange.received(chunk)

    # ---- requests ----------------------------------------------------------------------------------------------------

    async def open(self, method: str, path: str, headers: Mapping[str, str], key: str | None, sink: Any) -> Stream:
        """Open a request over HTTP/2.

        Raises:
            EndpointFailed: no connection.
            NotHttp2: the endpoint chose HTTP/1.1.
        """
        try:
            connection: Connection = await self._pool.connection()
        except Unreachable as error:
            raise EndpointFailed(f"unable to reach the remote endpoint {self.uri}: {error}") from error
        pseudo = [(":method", method), (":scheme", self._scheme), (":authority", self._authority), (":path", path)]
        return connection.request([*pseudo, *self._signed(path, headers, key).items()], sink)

    @asynccontextmanager
    async def exchange_11(
        self, method: str, path: str, headers: Mapping[str, str], key: str | None, body: bytes
    ) -> AsyncGenerator[httpx.Response]:
        """A request over HTTP/1.1, whose body is sent whole.

        Raises:
            EndpointFailed: no connection, or it was lost.
        """
        import httpx

        if self._client is None:
            timeout = httpx.Timeout(None, connect=self._connect_timeout_s)
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30)
            # trust_env: a proxy of the environment is not meant for what was registered here.
            self._client = httpx.AsyncClient(
                timeout=timeout, limits=limits, verify=self._tls or False, trust_env=False, follow_redirects=False
            )
        url = f"{self._scheme}://{self._authority}{path}"
        # httpx would decompress, and name itself as a browser would.
        sent = {"accept-encoding": "identity", "user-agent": "holdfast", **self._signed(path, headers, key)}
        try:
            async with self._client.stream(method, url, headers=sent, content=body) as response:
                yield response
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise EndpointFailed(f"unable to reach the remote endpoint {self.uri}: {reason}") from error

    def invocation_headers(self, order: Order) -> dict[str, str]:
        """Of an attempt."""
        content_type = m.CONTENT_TYPE % order.version
        headers = {
            "content-type": content_type,
            "accept": content_type,
            "x-restate-invocation-id": order.invocation_id,
            "x-restate-cluster-name": CLUSTER_NAME,
        }
        if order.key is not None:
            headers["x-restate-service-key"] = quote(order.key, safe="")
        return {**headers, **self._headers}

    def path(self, order: Order) -> str:
        return f"{self._prefix}/invoke/{order.service}/{order.handler}"

    def _signed(self, path: str, headers: Mapping[str, str], key: str | None) -> dict[str, str]:
        if self._identity is None:
            return dict(headers)
        return {**headers, **self._identity.headers(path, key, int(time.time()))}

    def attempt(self, listener: Listener, order: Order, loop: asyncio.AbstractEventLoop) -> Attempt:
        """Run an attempt there."""
        kind = StreamingAttempt if self.is_http_2 else WholeAttempt
        return kind(listener, order, self, loop)

    def retire(self) -> None:
        """Nothing new is sent on its connections; they close when they have been idle for a while."""
        self._pool.retire()

    async def close(self) -> None:
        """Close its connections."""
        await self._pool.close()
        if self._client is not None:
            await self._client.aclose()


class _Whole:
    """Takes a response as a whole."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def response(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers

    def received(self, body: bytes) -> None:
        self.body += body
        if len(self.body) > DISCOVERY_BYTES_MAX:
            raise EndpointFailed("the discovery answer is too large")

    def ended(self, failure: str | None, *, is_untouched: bool = False) -> None:
        if not self.done.done():
            self.done.set_result(failure)


class RemoteAttempt(Attempt):
    """What attempts at an endpoint share."""

    __slots__ = ("_endpoint", "_failure", "_order", "server")
    is_remote = True

    def __init__(self, listener: Listener, order: Order, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(listener, order, loop)
        self._order = order
        self._endpoint = endpoint
        self._failure: str | None = None
        self.server: str | None = None
        """What the endpoint calls itself."""
        self.task = loop.create_task(self._run())

    def probe(self) -> None:
        """Nothing asks an endpoint what its handler waits for; from here on its own word for it counts."""
        self.probed = True

    def abort(self) -> None:
        self.aborted = True
        self.close()
        self.task.cancel()

    async def _run(self) -> None:
        current_invocation.set((self.invocation_id, self._order.target))
        try:
            await self._exchange()
        except asyncio.CancelledError:
            self._failure = "the attempt was aborted"
        except EndpointFailed as error:
            self._failure = f"{error} [RT0010]"
        except NotHttp2:
            self._failure = f"{self._endpoint.uri} no longer speaks HTTP/2; register it again with force [RT0010]"
        except MalformedFrame as error:
            self._failure = unreadable(error)
        self._ended(self._failure)

    async def _exchange(self) -> None:
        raise NotImplementedError

    def response(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.server = headers.get("x-restate-server")
        self.active_at_s = self._loop.time()
        self._failure = _refused(status, headers.get("content-type", ""), m.CONTENT_TYPE % self.version)
        if status == 415:
            self.failure_code = status
        if status in (429, 503):
            self.retry_after_ms = _retry_after_ms(headers.get("retry-after"), time.time())
        if self._failure is not None:
            self.close()


def _refused(status: int, content_type: str, expected: str) -> str | None:
    """What is wrong with the head of a response, if anything."""
    if status == 200:
        if content_type == expected:
            return None
        return f"unexpected content type '{content_type}', expected '{expected}' [RT0012]"
    meaning = {
        415: "the SDK does not support this protocol version [RT0015]",
        413: "the payload is too large for the endpoint [RT0019]",
        429: "the endpoint limits its rate: got status code 429 [RT0023]",
        503: "the endpoint is not available: got status code 503 [RT0023]",
        502: "service unavailable: got status code 502 [RT0010]",
        504: "service unavailable: got status code 504 [RT0010]",
    }
    return meaning.get(status, f"got status code {status} from the endpoint [RT0012]")


def _retry_after_ms(value: str | None, now_s: float) -> int | None:
    """`Retry-After`: seconds, or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return int(value) * 1000
    try:
        return max(0, round((email.utils.parsedate_to_datetime(value).timestamp() - now_s) * 1000))
    except ValueError:
        return None


class StreamingAttempt(RemoteAttempt):
    """Over HTTP/2: notifications go out while frames come in. Takes its own response as a `Sink`."""

    __slots__ = ("_done", "_is_untouched", "_stream", "_unanswered")

    def __init__(self, listener: Listener, order: Order, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self._stream: Stream | None = None
        self._unanswered = bytearray(order.first_input)
        """Everything sent before the response began: it may have to be sent again."""
        self._is_untouched = False
        self._done: asyncio.Future[str | None] = loop.create_future()
        super().__init__(listener, order, endpoint, loop)

    def feed(self, frames: bytes) -> None:
        self.active_at_s = self._loop.time()
        if self.status == 0:
            self._unanswered += frames
        if self._stream is not None:
            self._stream.send(frames)

    def close(self) -> None:
        if self._input_ended:
            return
        self._input_ended = True
        self.closed_at_s = self._loop.time()
        if self._failure is not None:
            self.ended(None)  # refused: the request is reset, not completed
            return
        if self._stream is not None:
            self._stream.end()
        if self.terminal:
            self._loop.call_later(DRAIN_S, self.ended, None)

    async def _exchange(self) -> None:
        failure: str | None = None
        for _ in range(OPENED_MAX):
            failure = await self._try()
            if not self._is_untouched:
                break
            self._is_untouched, self._done = False, self._loop.create_future()
        if failure is not None:
            self._failure = self._failure or failure

    async def _try(self) -> str | None:
        """One request; the reason why its response was cut off, if it was."""
        endpoint, order = self._endpoint, self._order
        stream = await endpoint.open("POST", endpoint.path(order), endpoint.invocation_headers(order), order.key, self)
        try:
            stream.send(bytes(self._unanswered))
            if self._input_ended:
                stream.end()
            self._stream = stream
            return await self._done
        finally:
            self._stream = None
            stream.reset()  # does nothing when both sides are done

    def response(self, status: int, headers: dict[str, str]) -> None:
        self._unanswered.clear()
        super().response(status, headers)

    def received(self, body: bytes) -> None:
        if self._failure is not None:
            return
        try:
            self._received(body)
        except MalformedFrame as error:
            self._failure = unreadable(error)
            self.ended(None)

    def ended(self, failure: str | None, *, is_untouched: bool = False) -> None:
        if not self._done.done():
            self._is_untouched = is_untouched and self.status == 0
            self._done.set_result(None if failure is None else f"{self._endpoint.uri}: {failure} [RT0010]")


class WholeAttempt(RemoteAttempt):
    """Over HTTP/1.1: the request is sent whole, so the handler runs until it must wait."""

    __slots__ = ()

    def __init__(self, listener: Listener, order: Order, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(listener, order, endpoint, loop)
        self.close()

    def feed(self, frames: bytes) -> None:
        raise AssertionError("the input of a request/response attempt is closed from the start")

    def close(self) -> None:
        if not self._input_ended:
            self._input_ended = True
            self.closed_at_s = self._loop.time()

    async def _exchange(self) -> None:
        endpoint, order = self._endpoint, self._order
        headers = endpoint.invocation_headers(order)
        async with endpoint.exchange_11("POST", endpoint.path(order), headers, order.key, order.first_input) as answer:
            self.response(answer.status_code, dict(answer.headers))
            if self._failure is not None:
                return
            async for chunk in answer.aiter_raw():
                self._received(chunk)
