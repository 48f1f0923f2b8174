"""Serve a restate-sdk application where a Restate server can call it: HTTP/2 without TLS, one process, one port.

    async with serve_endpoint(app) as endpoint:             # in a program of yours
        print(endpoint.url)

    python -m holdfast.endpoint greeter:app --port 9080     # as a process; SIGTERM drains it

This file needs restate-sdk and hypercorn and nothing else of holdfast, so that `holdfast deploy render` can put a copy of
it next to a Dockerfile: an image needs neither holdfast nor a second way to serve.

Why not the command `hypercorn greeter:app` (0.18, measured with restate-sdk 1.3): in one process SIGTERM does nothing,
because the SDK takes the signal at its first request; with a worker process a running handler holds up the stop without
limit; and after a thousand requests it closes a connection together with the attempts that are running on it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import importlib
import logging
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from hypercorn.config import Config

logger = logging.getLogger("holdfast.endpoint")
logger.getChild("hypercorn").setLevel(logging.WARNING)  # below that, it only repeats what we say

PORT = 9080
"""Where a Restate server looks for services by custom."""

DRAIN_S = 8.0
"""Less than the ten seconds between SIGTERM and SIGKILL that container runtimes give by default."""

IDENTITY_KEYS_VARIABLE = "RESTATE_IDENTITY_KEYS"
"""Public keys (`publickeyv1_…`, comma-separated) of the servers that may call. Set, it must be obeyed: see `load`."""

_UNLIMITED = 2**31 - 1
# Restate closes what is idle for five minutes. When we do it first, a request can be on its way meanwhile.
_KEEP_ALIVE_S = 600.0
# One Ctrl-C can arrive twice: from the terminal, and passed on by a parent such as timeout, make or npm.
_SAME_SIGNAL_S = 1.0
# What an attempt needs to notice that its caller has gone: a turn of the loop, unless user code holds it.
_ABANDON_S = 0.2
# When every handler has ended or was cancelled, what is left is to flush and close.
_CLOSE_S = 3.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an application is served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Where a server on this machine reaches it, without a trailing slash."""
        # An address that stands for all of them is none that anybody could call.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@contextlib.asynccontextmanager
async def serve_endpoint(
    app: Any, *, host: str = "127.0.0.1", port: int = 0, drain_s: float = DRAIN_S
) -> AsyncGenerator[Endpoint]:
    """Serve an ASGI application (what `restate.app([...])` returns) over HTTP/2 and HTTP/1.1 until the block ends.

    On entry requests are answered. On exit nothing new is accepted, running handlers get `drain_s` to end or suspend, and
    are then cancelled: the Restate server tries them again, here or elsewhere.

    Args:
        host: Address to listen on. Anybody who reaches it can run handlers, unless the application checks who calls
            (`identity_keys`).
        port: 0 takes a free one.
        drain_s: Seconds that running handlers get.
    Raises:
        OSError: the port is taken, or this process may not have it.
        Exception: the application's own start-up (ASGI lifespan) failed.
    """
    tracked = _Tracked(app)
    async with _serve(tracked, host, port, drain_s) as endpoint:
        yield endpoint


async def run_endpoint(
    app: Any,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    drain_s: float = DRAIN_S,
    on_ready: Callable[[Endpoint], Awaitable[None] | None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then stop as `serve_endpoint` does. A second signal ends the process at once.

    Args, Raises: as `serve_endpoint`.
        on_ready: Called once, when requests are answered; awaited if it is a coroutine function. If it raises, the
            endpoint stops and the error is raised here.
    """
    with _stop_on_signal(drain_s) as (stop, claim):
        # The SDK installs a SIGTERM handler of its own at its first request, in place of ours.
        tracked = _Tracked(app, before_request=claim)
        async with _serve(tracked, host, port, drain_s) as endpoint:
            if on_ready is not None and (waiting := on_ready(endpoint)) is not None:
                await waiting
            await stop.wait()


@contextlib.asynccontextmanager
async def _serve(tracked: _Tracked, host: str, port: int, drain_s: float) -> AsyncGenerator[Endpoint]:
    serve: Any = importlib.import_module("hypercorn.asyncio").serve  # its types are partly unknown

    with _listening(host, port) as listener:
        endpoint = Endpoint(host, listener.getsockname()[1])
        stop = asyncio.Event()
        serving = asyncio.create_task(
            serve(tracked, _config(listener, drain_s), shutdown_trigger=stop.wait, mode="asgi")
        )
        try:
            await _ready(serving, endpoint)
            yield endpoint
        finally:
            stop.set()
            if not serving.done():
                await tracked.drain(drain_s)
            # hypercorn waits for connections; with the requests gone it closes them. The rest is for a peer that stalls.
            await asyncio.wait({serving}, timeout=_CLOSE_S)
            serving.cancel()
            # Not for ever: an application may swallow its cancellation, and hypercorn waits for it.
            await asyncio.wait({serving}, timeout=_CLOSE_S)
            if serving.done() and not serving.cancelled():
                serving.exception()  # seen; the stop is not the place for it


def _config(listener: socket.socket, drain_s: float) -> Config:
    from hypercorn.config import Config

    config = Config()
    # hypercorn owns and closes the descriptor that it is given.
    config.bind = [f"fd://{socket.dup(listener.fileno())}"]
    config.backlog = 2_048
    # Every attempt that waits holds a stream. The server limits how many attempts it runs at once, not we.
    config.h2_max_concurrent_streams = _UNLIMITED
    # The default of 1000 closes a connection with all the attempts that are running on it.
    config.keep_alive_max_requests = _UNLIMITED
    config.keep_alive_timeout = _KEEP_ALIVE_S
    # Later than our own end, so that it is never hypercorn that cuts connections with attempts on them.
    config.graceful_timeout = drain_s + 2 * _CLOSE_S
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logger.getChild("hypercorn")
    return config


@contextlib.contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket]:
    """A socket that already listens, so that a port in use is known before anything is started."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((host, port))
            listener.listen(2_048)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        yield listener


async def _ready(serving: asyncio.Task[None], endpoint: Endpoint) -> None:
    """Wait until a request is answered, whatever the answer. The error of a start-up that failed is raised here."""
    probe = asyncio.create_task(_answered(endpoint))
    try:
        await asyncio.wait({serving, probe}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            raise RuntimeError("the server ended before it was ready")
        await probe
    finally:
        probe.cancel()


async def _answered(endpoint: Endpoint) -> None:
    host = endpoint.url.removeprefix("http://").rpartition(":")[0].strip("[]")
    reader, writer = await asyncio.open_connection(host, endpoint.port)
    try:
        writer.write(f"GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        await reader.read()
    finally:
        writer.close()


class _Tracked:
    """An ASGI application whose running requests are known, so that a stop can wait for them, and end them."""

    def __init__(self, app: Any, before_request: Callable[[], None] | None = None) -> None:
        self._app = app
        self._before_request = before_request
        self._running: set[asyncio.Task[Any]] = set()
        self._receiving: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_cut = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        if self._before_request is not None:
            # After the first step of the application, in which the SDK takes the signal.
            asyncio.get_running_loop().call_soon(self._before_request)
        self._running.add(task)
        self._idle.clear()
        try:
            await self._app(scope, functools.partial(self._receive, receive), send)
        finally:
            self._running.discard(task)
            if not self._running:
                self._idle.set()

    async def _receive(self, receive: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        if not self._is_cut:
            self._receiving.add(task)
            try:
                return await receive()
            except asyncio.CancelledError:
                if not self._is_cut:
                    raise
                task.uncancel()
            finally:
                self._receiving.discard(task)
        return {"type": "http.disconnect"}

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass it on. An application that raises before it has asked for an event, as the SDK's does, has no lifespan."""
        has_lifespan = False

        async def asked() -> Any:
            nonlocal has_lifespan
            has_lifespan = True
            return await receive()

        try:
            await self._app(scope, asked, send)
        except Exception:
            if has_lifespan:
                raise
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    async def drain(self, drain_s: float) -> None:
        """Wait until nothing runs, `drain_s` at most. What still does is told that its caller has gone, then cancelled."""
        is_idle = await self._is_idle_within(drain_s)
        # The SDK then abandons an attempt without a word. Cancelled, it would report an error and wait for an answer. From
        # here on also of requests that were under way to us: a kept connection brings them until it is closed.
        self._is_cut = True
        if is_idle:
            return
        logger.warning("giving up %d running requests; the server will try them again", len(self._running))
        for task in self._receiving:
            task.cancel()
        if not await self._is_idle_within(_ABANDON_S):
            for task in self._running:  # user code that waits for something else
                task.cancel()
            await self._is_idle_within(_CLOSE_S)

    async def _is_idle_within(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return not self._running


@contextlib.contextmanager
def _stop_on_signal(drain_s: float) -> Generator[tuple[asyncio.Event, Callable[[], None]]]:
    """An event that SIGTERM and SIGINT set, and a function that takes SIGTERM back from whoever took it."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    first_at_s = 0.0

    def on_signal(number: int) -> None:
        nonlocal first_at_s
        if stop.is_set():
            if time.monotonic() - first_at_s < _SAME_SIGNAL_S:
                return
            os._exit(128 + number)
        logger.info("stopping: running handlers get up to %g s; signal again to stop at once", drain_s)
        first_at_s = time.monotonic()
        stop.set()

    def claim() -> None:
        loop.add_signal_handler(signal.SIGTERM, on_signal, signal.SIGTERM)

    claim()
    loop.add_signal_handler(signal.SIGINT, on_signal, signal.SIGINT)
    try:
        yield stop, claim
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)


def load(reference: str, path: str = "", environment: Mapping[str, str] = os.environ) -> Any:
    """Import `module:attribute` and make an application of it, if it is none yet.

    Args:
        reference: names what `restate.app([...])` returned, or a service, or a list of services. Services are bound with
            the identity keys of the environment.
        path: where the SDK's application is mounted in it.
        environment: may have `RESTATE_IDENTITY_KEYS`.
    Raises:
        SystemExit: keys are set, but the application is already built and answers requests that nobody signed.
    """
    import restate

    sys.path.insert(0, str(Path.cwd()))
    module, _, attribute = reference.partition(":")
    target: Any = importlib.import_module(module)
    for name in (attribute or "app").split("."):
        target = getattr(target, name)
    keys = [key.strip() for key in environment.get(IDENTITY_KEYS_VARIABLE, "").split(",") if key.strip()]
    if isinstance(target, restate.Service | restate.VirtualObject | restate.Workflow):
        target = [target]
    if isinstance(target, list | tuple):
        return restate.app(cast("Any", target), identity_keys=keys or None)
    if keys and not asyncio.run(refuses_unsigned(target, path)):
        sys.exit(
            f"error: {IDENTITY_KEYS_VARIABLE} is set, but {reference} answers anybody\n"
            f"next: restate.app([...], identity_keys=os.environ['{IDENTITY_KEYS_VARIABLE}'].split(','))"
        )
    return target


async def refuses_unsigned(app: Any, path: str = "") -> bool:
    """Whether a call without a signature is answered 401.

    Args:
        app: an ASGI application.
        path: where the SDK's application is mounted in it.
    """
    statuses: list[int] = []
    events = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return events.pop(0) if events else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "2", "method": "GET", "scheme": "http"}
    scope |= {"path": f"{path}/discover", "raw_path": f"{path}/discover".encode(), "root_path": "", "query_string": b""}
    scope |= {"headers": [(b"accept", b"application/vnd.restate.endpointmanifest.v3+json")], "client": None}
    await app(scope | {"server": None}, receive, send)
    return statuses == [401]


def is_healthy(url: str) -> bool:
    """Whether the endpoint at `url` answers its health check within two seconds."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is for the internet
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the process: serve, or check the health of one that serves."""
    environment_port = os.environ.get("PORT", "")
    parser = argparse.ArgumentParser(description="Serve a restate-sdk application over HTTP/2 without TLS.")
    parser.add_argument("reference", nargs="?", help="module:attribute of the application, a service or a list of them")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=int(environment_port or PORT), help=f"0: a free one ($PORT, else {PORT})"
    )
    parser.add_argument("--path", default="", help="where the application is mounted, e.g. /restate (at the root)")
    parser.add_argument("--drain", type=float, default=DRAIN_S, help=f"seconds to finish after SIGTERM ({DRAIN_S:g})")
    parser.add_argument("--check", metavar="URL", help="only ask the endpoint at URL for its health; exit 0 or 1")
    arguments = parser.parse_args(argv)
    if arguments.check:
        return 0 if is_healthy(arguments.check) else 1
    if not arguments.reference:
        parser.error("name the application: module:attribute")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    app = load(arguments.reference, arguments.path)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(
                run_endpoint(
                    app,
                    host=arguments.host,
                    port=arguments.port,
                    drain_s=arguments.drain,
                    on_ready=lambda endpoint: logger.info("serving %s on %s", arguments.reference, endpoint.url),
                )
            )
    except OSError as error:
        sys.stderr.write(f"error: cannot listen on {arguments.host}:{arguments.port}: {error.strerror}\n")
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it is not needed, only quicker
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
