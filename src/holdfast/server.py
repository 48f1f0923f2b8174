"""Serve an application: engine, ingress and admin API in one process, until a signal asks it to stop.

    asyncio.run(serve(app, db="app.db"))

Stopping is orderly but never needed: an engine that is killed goes on from its database when it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from holdfast.admin.app import create_admin
from holdfast.config import EngineConfig
from holdfast.embedded import Engine
from holdfast.errors import CannotListen
from holdfast.protocol.discovery import ServiceSpec

logger = logging.getLogger("holdfast.server")

# When the engine has stopped, every response is on its way; this is for clients that read slowly.
_FLUSH_S = 1
# Longer than the pools of HTTP clients keep an idle connection, so that it is the client who closes it.
_KEEP_ALIVE_S = 75
# One Ctrl-C can arrive twice: from the terminal, and passed on by a parent such as timeout, make or npm.
_SAME_SIGNAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served and where, once requests are answered."""

    ingress_url: str
    admin_url: str
    db: str
    services: Mapping[str, ServiceSpec]


async def serve(
    app: Any,
    *,
    db: str | Path = "holdfast.db",
    host: str = "127.0.0.1",
    ingress_port: int = 8080,
    admin_port: int = 9070,
    config: EngineConfig | None = None,
    on_ready: Callable[[Serving], None] | None = None,
) -> None:
    """Run `app` until SIGTERM or SIGINT, then drain: accept no more, let attempts finish or suspend, stop.

    A second signal ends the process at once. Either way nothing that was accepted is lost.

    Args:
        app: What `restate.app([...])` returns.
        db: SQLite file; made when missing.
        host: Address to listen on. The default can be reached from this machine only; neither API checks who calls.
        ingress_port: Port of the ingress API; 0 takes a free one.
        admin_port: Port of the admin API; 0 takes a free one.
        config: Settings of the engine, `drain_ms` among them: how long attempts may go on after the first signal.
        on_ready: Called once, when both ports answer.
    Raises:
        CannotListen: A port is taken; nothing was started.
        InvalidApp, InvalidManifest: `app` is no application with services.
        DatabaseInUse, DatabaseRefused: The file belongs to another engine, or is none of ours.
        EngineError: The engine had to stop by itself, for example because the disk is full.
    """
    with (
        _listening(host, ingress_port, "ingress") as ingress_socket,
        _listening(host, admin_port, "admin") as admin_socket,
    ):
        engine = Engine(app, db=db, config=config)
        await engine.start()
        _calm_collector()
        serving = Serving(_url(host, ingress_socket), _url(host, admin_socket), str(db), engine.services)
        drain_ms = engine.config.drain_ms
        servers = [
            _Server(engine.ingress, drain_ms),
            _Server(create_admin(engine, ingress_url=f"{serving.ingress_url}/"), drain_ms),
        ]
        # Only now: the SDK puts a handler of its own in place at its first request, which was discovery.
        with _stop_on_signal(drain_ms) as stop:
            tasks = [
                asyncio.create_task(server.serve([listener]))
                for server, listener in zip(servers, (ingress_socket, admin_socket), strict=True)
            ]
            try:
                for server in servers:
                    await _first(server.ready, *tasks)
                if on_ready is not None:
                    on_ready(serving)
                await _first(stop, engine.stopped, *tasks)
            finally:
                for server in servers:
                    server.should_exit = True  # accepts no more, answers what it has
                await engine.stop()
                await asyncio.gather(*tasks)
        if engine.failure is not None:
            raise engine.failure
        logger.info("stopped")


def _calm_collector() -> None:
    """This process is ours, so its garbage collector may be told what it serves.

    What was imported stays, and short-lived objects are many: looking through both over and over costs a fifth of an
    empty invocation (measured: 105 to 84 us of CPU). An embedding program may do the same after it has started.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def _first(*awaited: asyncio.Event | asyncio.Task[None]) -> None:
    """Wait until one of them is set or has ended. The error of a task is raised here, where it stops everything."""
    waiters = [asyncio.create_task(one.wait()) for one in awaited if isinstance(one, asyncio.Event)]
    tasks = [one for one in awaited if isinstance(one, asyncio.Task)]
    try:
        done, _ = await asyncio.wait([*waiters, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done:
                task.result()
    finally:
        for waiter in waiters:
            waiter.cancel()


class _Server(uvicorn.Server):
    """One port. Leaves signals to `serve`, which stops both ports and the engine in order."""

    def __init__(self, app: Any, drain_ms: int) -> None:
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(drain_ms / 1_000) + _FLUSH_S,
        )
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.contextmanager
def _stop_on_signal(drain_ms: int) -> Generator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set. The second of them ends the process: the database needs no goodbye."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    first_at_s = 0.0

    def on_signal(signal_number: int) -> None:
        nonlocal first_at_s
        if stop.is_set():
            if loop.time() - first_at_s < _SAME_SIGNAL_S:
                return
            logger.warning("stopped at once by a second signal")
            os._exit(128 + signal_number)
        logger.info("stopping: running handlers get up to %g s; signal again to stop at once", drain_ms / 1_000)
        first_at_s = loop.time()
        stop.set()

    handled: list[int] = []
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        # In another thread than the main one, and on Windows, whoever runs us cancels `serve` instead.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal_number, on_signal, signal_number)
            handled.append(signal_number)
    try:
        yield stop
    finally:
        for signal_number in handled:
            loop.remove_signal_handler(signal_number)


@contextlib.contextmanager
def _listening(host: str, port: int, what: str) -> Generator[socket.socket]:
    """A socket that already listens, so that a port in use is known before anything is started."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(2_048)
        except OSError as error:
            raise _cannot_listen(host, port, what, error) from error
        yield listener


def _cannot_listen(host: str, port: int, what: str, error: OSError) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        message = f"{what} port {port} on {host} is in use"
        hint = f"another engine? stop it, or choose another port: --{what}-port {port + 1}, or 0 for a free one"
    elif error.errno == errno.EACCES:
        message, hint = f"{what} port {port} needs more rights than this user has", f"try --{what}-port 8080"
    else:
        message, hint = f"cannot listen on {host}: {error.strerror or error}", "--host takes an address of this machine"
    return CannotListen(message, hint=hint)


def _url(host: str, listener: socket.socket) -> str:
    # An address that stands for all of them is none that a client could call.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    port = listener.getsockname()[1]
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
