"""imports in one process: workflow, API and pages, on an engine of its own or on a Restate server.

    embedded   the engine runs here, on `engine.db`; nothing else is needed
    restate    the engine is a Restate server; it calls the workflow here, over HTTP/2 on a port of its own

Both may be killed at any moment: started again on the same directory, imports go on where they were.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from apps.imports.access import LOOPBACK_NAMES
from apps.imports.api import create_api
from apps.imports.app import create_app
from apps.imports.database import StoreError
from apps.imports.engine import PATIENCE_S, EngineClient, RegistrationRefused, RemoteEngine, register
from apps.imports.service import Imports
from apps.imports.settings import InvalidSetting, Settings
from apps.imports.store import Store
from apps.serving import Server, listen, stop_on_eof, stop_on_signal
from holdfast import Engine, HoldfastError
from holdfast.endpoint import serve_endpoint

logger = logging.getLogger("imports.serve")

ENGINE_FILE = "engine.db"
API_PORT = 3002
WORKER_PORT = 9080
OPEN_STREAMS_S = 1
"""What followers of events get at the end. They connect again to the next process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where and for whom. Data and limits are in `Settings`."""

    directory: Path
    """Of the embedded engine's database."""
    host: str = "127.0.0.1"
    port: int = API_PORT
    token: str | None = None
    """Asked of whoever uses API and pages."""
    hosts: tuple[str, ...] = ()
    """Further names that the API answers to; with none, a port on the loopback interface answers to its names only."""
    is_restate: bool = False
    worker_host: str = "127.0.0.1"
    worker_port: int = WORKER_PORT
    worker_url: str | None = None
    """Where the Restate server reaches the worker; None means on this machine."""
    identity_keys: tuple[str, ...] = ()
    """Public keys of servers: with them, only their signed requests reach the workflow."""
    patience_s: float = PATIENCE_S

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """For `access.Guard`."""
        if self.host in LOOPBACK_NAMES:
            return LOOPBACK_NAMES | set(self.hosts)
        return frozenset(self.hosts)


async def serve(settings: Settings, serving: ServeSettings, *, until: Callable[[str, asyncio.Event], None]) -> None:
    """Serve until the event that is handed to `until` is set, then stop cleanly.

    Args:
        until: Called with the API's address when requests are answered.
    Raises:
        OSError: a port is taken.
        StoreError: the database cannot be used.
        HoldfastError: the engine's database cannot be used.
        RegistrationRefused: the Restate server does not take the worker.
    """
    with listen(serving.host, serving.port) as listener:
        running = _on_restate if serving.is_restate else _embedded
        async with Store(settings) as store, running(settings, serving, store) as (client, background):
            api = create_api(Imports(client, store), token=serving.token, hosts=serving.allowed_hosts)
            await _serve_api(api, listener, background, until)


@asynccontextmanager
async def _embedded(
    settings: Settings, serving: ServeSettings, store: Store
) -> AsyncGenerator[tuple[EngineClient, asyncio.Task[None] | None]]:
    serving.directory.mkdir(parents=True, exist_ok=True)
    async with (
        Engine(create_app(store, settings), db=serving.directory / ENGINE_FILE) as engine,
        EngineClient.embedded(engine) as client,
    ):
        yield client, None


@asynccontextmanager
async def _on_restate(
    settings: Settings, serving: ServeSettings, store: Store
) -> AsyncGenerator[tuple[EngineClient, asyncio.Task[None] | None]]:
    app = create_app(store, settings, identity_keys=list(serving.identity_keys) or None)
    remote = RemoteEngine(settings.ingress_url, settings.admin_url, settings.auth_token)
    async with (
        serve_endpoint(app, host=serving.worker_host, port=serving.worker_port) as endpoint,
        EngineClient.remote(remote, patience_s=serving.patience_s) as client,
    ):
        registering = asyncio.create_task(_register(remote, serving.worker_url or endpoint.url))
        try:
            yield client, registering
        finally:
            registering.cancel()
            await asyncio.wait({registering})


async def _register(remote: RemoteEngine, worker_url: str) -> None:
    logger.info("telling %s that the worker is at %s", remote.admin_url, worker_url)
    await register(remote, worker_url)
    logger.info("registered; imports can run")


async def _serve_api(
    api: object,
    listener: socket.socket,
    background: asyncio.Task[None] | None,
    until: Callable[[str, asyncio.Event], None],
) -> None:
    """Until the event is set, or `background` fails: its error is raised here."""
    config = uvicorn.Config(
        api,  # type: ignore[arg-type]
        lifespan="off",
        access_log=False,
        log_level="warning",
        ws="none",
        timeout_graceful_shutdown=OPEN_STREAMS_S,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    stop = asyncio.Event()
    host, port = listener.getsockname()[:2]
    until(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", stop)
    if background is not None:
        background.add_done_callback(lambda task: stop.set() if _has_failed(task) else None)
    await stop.wait()
    server.should_exit = True
    await serving
    if background is not None and _has_failed(background):
        background.result()


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def load_settings(
    *,
    is_restate: bool,
    directory: Path,
    ingress_url: str | None,
    admin_url: str | None,
    environ: Mapping[str, str] = os.environ,
    **serving: Any,
) -> tuple[Settings, ServeSettings]:
    """Both settings, from flags and environment. Everything is kept below `directory` unless a setting says otherwise.

    Raises:
        InvalidSetting: one cannot be used, or the engine is a Restate server and nothing says where.
    """
    flags: dict[str, Any] = {"ingress_url": ingress_url, "admin_url": admin_url}
    if is_restate:
        for name, flag in flags.items():
            if flag is None and not environ.get(f"RESTATE_{name.upper()}"):
                raise InvalidSetting(f"RESTATE_{name.upper()} is not set; --engine restate needs it")
    if not environ.get("IMPORTS_FILES"):
        flags["files"] = directory / "files"
    if not environ.get("IMPORTS_DATABASE") and not environ.get("MOTHERDUCK_TOKEN"):
        flags["database"] = str(directory / "kbo.duckdb")
    settings = Settings.load(environ=environ, **flags)
    return settings, ServeSettings(directory=directory, is_restate=is_restate, **serving)


def run(settings: Settings, serving: ServeSettings, *, is_child: bool = False) -> tuple[str, str] | None:
    """Serve until SIGINT or SIGTERM.

    Args:
        is_child: For a parent process: the address as JSON on standard output, stop when standard input ends.
    Returns:
        None after a clean stop; else what went wrong, and what to do next.
    """
    if serving.host not in LOOPBACK_NAMES and serving.token is None:
        logger.warning("anybody who reaches %s:%d can start imports; set IMPORTS_TOKEN", serving.host, serving.port)
    if serving.is_restate and serving.worker_host not in LOOPBACK_NAMES and not serving.identity_keys:
        where = f"{serving.worker_host}:{serving.worker_port}"
        logger.warning(
            "anybody who reaches %s can run steps; set RESTATE_SIGNING_PUBLIC_KEY, or keep it private", where
        )

    def announce(url: str, stop: asyncio.Event) -> None:
        human = f"imports answers on {url}, data in {serving.directory}; Ctrl-C stops it"
        sys.stdout.write((json.dumps({"url": url}) if is_child else human) + "\n")
        sys.stdout.flush()
        stop_on_signal(stop)
        if is_child:
            stop_on_eof(stop)

    try:
        asyncio.run(serve(settings, serving, until=announce))
    except OSError as error:
        return f"cannot serve on {serving.host}:{serving.port}: {error}", "choose another --port or --worker-port"
    except (StoreError, HoldfastError) as error:
        return str(error), getattr(error, "hint", "")
    except RegistrationRefused as error:
        return str(error), "can the server reach the worker there? Say where with --worker-url"
    return None
