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
import ssl
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from holdfast.admin.app import create_admin
from holdfast.admin.guarded import guarded
from holdfast.api.mount import Workflows, alone
from holdfast.config import EngineConfig, SecurityConfig
from holdfast.embedded import Engine
from holdfast.errors import CannotListen
from holdfast.ingress.app import create_ingress
from holdfast.protocol.discovery import ServiceSpec
from holdfast.security.exposure import check_exposure, is_loopback
from holdfast.security.guard import Guard, Origins
from holdfast.security.tokens import Scope, TokenFile, TokenGate, tokens_path
from holdfast.serving.connection import protocol_class
from holdfast.serving.limits import STATUS_MAX, Limits
from holdfast.serving.tls import server_context

if TYPE_CHECKING:
    from holdfast.api.app import Api
    from holdfast.metrics import Source

logger = logging.getLogger("holdfast.server")

# When the engine has stopped, every response is on its way; this is for clients that read slowly.
_FLUSH_S = 1
# Longer than the pools of HTTP clients keep an idle connection, so that it is the client who closes it.
_KEEP_ALIVE_S = 75
# One Ctrl-C can arrive twice: from the terminal, and passed on by a parent such as timeout, make or npm.
_SAME_SIGNAL_S = 1.0
# uvicorn looks ten times a second whether it should stop.
_TICKS_PER_S = 10
_TICKS_BETWEEN_LOOKS = 5


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
    admin_host: str | None = None,
    config: EngineConfig | None = None,
    security: SecurityConfig | None = None,
    on_ready: Callable[[Serving], None] | None = None,
) -> None:
    """Run `app` until SIGTERM or SIGINT, then drain: accept no more, let attempts finish or suspend, stop.

    A second signal ends the process at once. Either way nothing that was accepted is lost.

    Args:
        app: What `restate.app([...])` returns; None serves only what is registered from other processes.
        db: SQLite file; made when missing.
        host: Address to listen on. The default can be reached from this machine only.
        ingress_port: Port of the ingress API; 0 takes a free one.
        admin_port: Port of the admin API; 0 takes a free one.
        admin_host: Address of the admin API, if it is another one.
        config: Settings of the engine, `drain_ms` among them: how long attempts may go on after the first signal.
        security: Tokens, TLS, limits.
        on_ready: Called once, when both ports answer.
    Raises:
        UnsafeAddress: Other machines could reach an API that has no tokens; nothing was opened.
        InvalidSetting: Tokens, certificate or key cannot be used; nothing was opened.
        CannotListen: A port is taken; nothing was started.
        InvalidApp, InvalidManifest: `app` is no application with services.
        DatabaseInUse, DatabaseRefused: The file belongs to another engine, or is none of ours.
        EngineError: The engine had to stop by itself, for example because the disk is full.
    """
    security = security or SecurityConfig()
    admin_host = host if admin_host is None else admin_host
    tls = None if security.tls_cert is None else server_context(security.tls_cert, security.tls_key)
    gates = _gates(db, security)
    warnings = [
        _check_exposure(address, gate, f"holdfast tokens create --scope {gate.scope} --db {db}", security)
        for address, gate in ((host, gates["ingress"]), (admin_host, gates["admin"]))
    ]
    with (
        _listening(host, ingress_port, "ingress") as ingress_socket,
        _listening(admin_host, admin_port, "admin") as admin_socket,
    ):
        _warn(warnings)
        engine = Engine(app, db=db, config=config)
        await engine.start()
        _calm_collector()
        ingress_url, admin_url = _url(host, ingress_socket, tls), _url(admin_host, admin_socket, tls)
        serving = Serving(ingress_url, admin_url, str(db), engine.services)
        drain_ms = engine.config.drain_ms
        workflows = Workflows(engine)
        addresses: dict[Scope, str] = {"ingress": host, "admin": admin_host}
        ingress, admin = _guarded_apis(engine, workflows, ingress_url, addresses, gates, security)
        limits = Limits.of(security)
        servers = [
            _Server(ingress, drain_ms, limits, tls, gates["ingress"]),
            _Server(admin, drain_ms, limits, tls, gates["admin"]),
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
                workflows.resume()
                await _first(stop, engine.stopped, *tasks)
            finally:
                for server in servers:
                    server.should_exit = True  # accepts no more, answers what it has
                await workflows.close()
                await engine.stop()
                await asyncio.gather(*tasks)
        if engine.failure is not None:
            raise engine.failure
        logger.info("stopped")


def _gates(db: str | Path, security: SecurityConfig) -> dict[Scope, TokenGate]:
    # A database in memory has no place beside it.
    path = security.tokens_file or (None if str(db) == ":memory:" else tokens_path(db))
    file = None if path is None else TokenFile(path)
    return {
        "ingress": TokenGate("ingress", file, fixed=security.ingress_token),
        "admin": TokenGate("admin", file, fixed=security.admin_token),
    }


def _guarded_apis(
    engine: Engine,
    workflows: Workflows,
    ingress_url: str,
    addresses: dict[Scope, str],
    gates: dict[Scope, TokenGate],
    security: SecurityConfig,
) -> tuple[Any, Any]:
    """Ingress and admin API with every check that fits where they listen."""

    def guard(scope: Scope, origins: Origins) -> Guard:
        return _guard(scope, addresses[scope], origins, gates[scope], security)

    allowed = engine.config.allowed_origins
    ingress = create_ingress(engine, guard=guard("ingress", Origins(allowed)), status_max=STATUS_MAX)
    origins = Origins(allowed, allow_links=True)
    admin = workflows.beside(create_admin(engine, ingress_url=f"{ingress_url}/"))
    return ingress, guarded(admin, guard("admin", origins), origins)


def _guard(scope: Scope, host: str, origins: Origins, gate: TokenGate, security: SecurityConfig) -> Guard:
    # Who lets other machines in without tokens has said that whoever asks is answered, by whatever name.
    return Guard(scope, origins=origins, tokens=gate, hosts=security.allowed_hosts if is_loopback(host) else None)


async def serve_api(
    api: Api,
    *,
    host: str = "127.0.0.1",
    port: int = 9072,
    allowed_origins: Iterable[str] = (),
    security: SecurityConfig | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve only the workflows' HTTP API, in front of whatever engine, until SIGTERM or SIGINT. Closes `api`.

    Args:
        api: What `create_api` made.
        host: Address to listen on. The default can be reached from this machine only.
        port: 0 takes a free one.
        allowed_origins: Web pages that may use it.
        security: Tokens of the admin API, TLS, limits.
        on_ready: Called once with the address, when it answers.
    Raises:
        UnsafeAddress, InvalidSetting, CannotListen: as `serve`.
        InvalidConfiguration: the provider cannot be opened.
    """
    security = security or SecurityConfig()
    try:
        # Opened first: wrong settings end it here; an engine that does not answer is only a warning.
        await _serve_alone(alone(api), "api", host, port, allowed_origins, security, on_ready, opened=api.open)
    finally:
        await api.close()


async def serve_metrics(
    source: Source,
    *,
    host: str = "127.0.0.1",
    port: int = 9464,
    security: SecurityConfig | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Answer `GET /metrics` with what `source` tells, until SIGTERM or SIGINT.

    Args:
        source: `RestateMetrics` or `EngineMetrics`.
        port: 0 takes a free one.
        security: Tokens of the admin API, TLS, limits.
        on_ready: Called once with the address, when it answers.
    Raises:
        UnsafeAddress, InvalidSetting, CannotListen: as `serve`.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    from holdfast.metrics import metrics_endpoint

    app = Starlette(routes=[Route("/metrics", metrics_endpoint(source))])
    await _serve_alone(app, "metrics", host, port, (), security or SecurityConfig(), on_ready)


async def _serve_alone(
    app: Any,
    what: str,
    host: str,
    port: int,
    allowed_origins: Iterable[str],
    security: SecurityConfig,
    on_ready: Callable[[str], None] | None,
    *,
    opened: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """One application on one port, behind the admin API's checks."""
    tls = None if security.tls_cert is None else server_context(security.tls_cert, security.tls_key)
    file = None if security.tokens_file is None else TokenFile(security.tokens_file)
    gate = TokenGate("admin", file, fixed=security.admin_token)
    make_one = "HOLDFAST_ADMIN_TOKEN, or several in --tokens-file"
    warnings = [_check_exposure(host, gate, make_one, security)]
    with _listening(host, port, what, option="--port") as listener:
        _warn(warnings)
        origins = Origins(allowed_origins, allow_links=True)
        server = _Server(
            guarded(app, _guard("admin", host, origins, gate, security), origins), 0, Limits.of(security), tls, gate
        )
        if opened is not None:
            await opened()
        with _stop_on_signal(0) as stop:
            task = asyncio.create_task(server.serve([listener]))
            try:
                await _first(server.ready, task)
                if on_ready is not None:
                    on_ready(_url(host, listener, tls))
                await _first(stop, task)
            finally:
                server.should_exit = True
                await task
    logger.info("stopped")


def _check_exposure(host: str, gate: TokenGate, make_one: str, security: SecurityConfig) -> str | None:
    has_tls = security.tls_cert is not None
    return check_exposure(host, gate, make_one=make_one, insecure=security.insecure, has_tls=has_tls)


def _warn(warnings: Iterable[str | None]) -> None:
    for warning in warnings:
        if warning is not None:
            logger.warning(warning)


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

    def __init__(self, app: Any, drain_ms: int, limits: Limits, tls: ssl.SSLContext | None, gate: TokenGate) -> None:
        config = uvicorn.Config(
            app,
            http=protocol_class(limits),
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
        config.load()
        config.ssl = tls
        super().__init__(config)
        self.ready = asyncio.Event()
        self._gate = gate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            self._gate.look()
        if counter % _TICKS_PER_S == 0:
            connections: list[Any] = [*self.server_state.connections]
            for connection in connections:
                connection.sweep()
        return await super().on_tick(counter)

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
def _listening(host: str, port: int, what: str, *, option: str | None = None) -> Generator[socket.socket]:
    """A socket that already listens, so that a port in use is known before anything is started."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(2_048)
        except OSError as error:
            raise _cannot_listen(host, port, what, option or f"--{what}-port", error) from error
        yield listener


def _cannot_listen(host: str, port: int, what: str, option: str, error: OSError) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        message = f"{what} port {port} on {host} is in use"
        hint = f"another engine? stop it, or choose another port: {option} {port + 1}, or 0 for a free one"
    elif error.errno == errno.EACCES:
        message, hint = f"{what} port {port} needs more rights than this user has", f"try {option} 8080"
    else:
        message, hint = f"cannot listen on {host}: {error.strerror or error}", "--host takes an address of this machine"
    return CannotListen(message, hint=hint)


def _url(host: str, listener: socket.socket, tls: ssl.SSLContext | None) -> str:
    # An address that stands for all of them is none that a client could call.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    port = listener.getsockname()[1]
    scheme = "http" if tls is None else "https"
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"
