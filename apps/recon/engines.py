"""recon's two engines behind one shape: embedded in this process, or a Restate server elsewhere.

With a server, the services of recon are served from here (the SDK's endpoint) and registered at it; whoever asks for
work uses its ingress.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import restate

from apps.recon.application import create_app
from apps.recon.control import send_sweeper, start_sweeper
from apps.recon.metrics import ReconMetrics
from apps.recon.settings import Settings
from apps.recon.store import Store
from apps.recon.surreal import StoreUnavailable
from holdfast import Engine
from holdfast.endpoint import serve_endpoint
from holdfast.metrics import EngineMetrics, RestateMetrics

logger = logging.getLogger("recon.serve")

T = TypeVar("T")

ENGINE_FILE = "engine.db"

RETRY_S = 1.0
"""Between two looks for something that is not there yet at start."""


class EngineUnavailable(Exception):
    """The Restate server did not answer in time, or refused us."""


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """What the API needs of an engine."""

    client: restate.RestateClient
    metrics: Any
    """ASGI application for `/metrics`."""
    probe: Callable[[], Awaitable[None]]
    """Returns when the engine answers, else raises."""


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncGenerator[Store]:
    """The database, waited for when it is a server that is not up yet.

    Raises:
        StoreError: it is not ours, or did not answer within `startup_wait`.
    """
    store = Store.from_settings(settings)

    async def look() -> None:
        await store.read("RETURN 1")

    try:
        await _wait_for(look, StoreUnavailable, settings, "SurrealDB")
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def run_engine(store: Store, settings: Settings) -> AsyncGenerator[RunningEngine]:
    """Run the services of recon on the engine that the settings name.

    Raises:
        EngineUnavailable: the Restate server did not answer within `startup_wait`, or refused to register recon.
        HoldfastError: the embedded engine's file is in use or not an engine's.
    """
    running = _on_restate(store, settings) if settings.engine == "restate" else _embedded(store, settings)
    async with running as engine:
        yield engine


@asynccontextmanager
async def _embedded(store: Store, settings: Settings) -> AsyncGenerator[RunningEngine]:
    settings.directory.mkdir(parents=True, exist_ok=True)
    async with Engine(create_app(store, settings), db=settings.directory / ENGINE_FILE) as engine:
        await start_sweeper(engine.client)

        async def probe() -> None:
            engine.list_invocations(limit=1)

        yield RunningEngine(engine.client, ReconMetrics(store, EngineMetrics(engine)), probe)


@asynccontextmanager
async def _on_restate(store: Store, settings: Settings) -> AsyncGenerator[RunningEngine]:
    headers = authorization(settings)
    worker = serve_worker(store, settings) if settings.serve_worker else nullcontext()
    async with worker, httpx.AsyncClient(headers=headers, timeout=5) as http:
        if not settings.serve_worker:
            await find_ingress(settings)

        async def probe() -> None:
            (await http.get(f"{settings.restate_ingress_url}/restate/health")).raise_for_status()

        async with restate.create_client(settings.restate_ingress_url, headers=headers) as client:
            if not settings.serve_worker:  # whoever serves them may not know of it, as hypercorn
                await send_sweeper(client)
            metrics = ReconMetrics(store, RestateMetrics(settings.restate_admin_url, headers=headers))
            yield RunningEngine(client, metrics, probe)


@asynccontextmanager
async def serve_worker(store: Store, settings: Settings) -> AsyncGenerator[str]:
    """Serve the SDK endpoint and register it at the Restate server, which is waited for. Yields the endpoint's URL.

    Raises:
        EngineUnavailable: the server did not answer within `startup_wait`, or refused.
        OSError: the port is taken.
    """
    app = create_app(store, settings)
    async with serve_endpoint(app, host=settings.worker_host, port=settings.worker_port) as endpoint:
        url = settings.worker_url or endpoint.url
        await find_ingress(settings)  # before anything is registered that nobody could call
        await register(url, settings)
        logger.info("registered at the Restate server", extra={"url": url, "admin": settings.restate_admin_url})
        async with restate.create_client(settings.restate_ingress_url, headers=authorization(settings)) as client:
            try:
                await _wait_for(
                    lambda: start_sweeper(client), httpx.TransportError, settings, "the Restate server's ingress"
                )
            except (restate.HttpError, httpx.TransportError) as error:
                raise EngineUnavailable(
                    f"the Restate server's ingress {settings.restate_ingress_url} did not take a request: "
                    f"{str(error) or type(error).__name__}; check RESTATE_INGRESS_URL"
                ) from error
        yield url


async def find_ingress(settings: Settings) -> None:
    """Wait until the Restate server's ingress answers.

    Raises:
        EngineUnavailable: it did not within `startup_wait`, or something else is there.
    """
    await _find(settings, "ingress", settings.restate_ingress_url, "/restate/health", "RESTATE_INGRESS_URL")


async def _find(settings: Settings, what: str, url: str, health_path: str, variable: str) -> None:
    async with httpx.AsyncClient(headers=authorization(settings), timeout=5) as http:

        async def ask() -> httpx.Response:
            answer = await http.get(url + health_path)
            return answer.raise_for_status() if answer.is_server_error else answer  # it may still be starting

        try:
            answer = await _wait_for(ask, httpx.HTTPError, settings, f"the Restate server's {what}")
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                f"the Restate server's {what} {url} cannot be reached: {str(error) or type(error).__name__}; check {variable}"
            ) from error
    if answer.status_code in (401, 403):
        raise EngineUnavailable(f"the Restate server's {what} {url} refused us; check RESTATE_AUTH_TOKEN")
    if not answer.is_success:
        raise EngineUnavailable(
            f"{url} is no Restate server's {what}: asked for its health it answered {answer.status_code}; check {variable}"
        )


async def register(url: str, settings: Settings) -> None:
    """Tell the Restate server where recon's services are; known already is as good.

    Raises:
        EngineUnavailable: it did not answer within `startup_wait`, or refused.
    """
    await _find(settings, "admin address", settings.restate_admin_url, "/health", "RESTATE_ADMIN_URL")
    try:
        async with httpx.AsyncClient(headers=authorization(settings), timeout=30) as http:
            answer = await http.post(f"{settings.restate_admin_url}/deployments", json={"uri": url, "force": True})
    except httpx.TransportError as error:
        raise EngineUnavailable(
            f"{settings.restate_admin_url} did not register {url}: {str(error) or type(error).__name__}; try again"
        ) from error
    if answer.status_code in (401, 403):
        raise EngineUnavailable(f"{settings.restate_admin_url} refused us; check RESTATE_AUTH_TOKEN")
    if answer.is_error:
        raise EngineUnavailable(
            f"{settings.restate_admin_url} did not register {url}: {answer.status_code} {answer.text[:300]}; "
            "can the server reach that address? set RECON_WORKER_URL if it needs another"
        )


def authorization(settings: Settings) -> dict[str, str]:
    """Headers for the Restate server."""
    return {"Authorization": f"Bearer {settings.restate_auth_token}"} if settings.restate_auth_token else {}


async def _wait_for(ask: Callable[[], Awaitable[T]], absent: type[Exception], settings: Settings, what: str) -> T:
    """Ask until there is an answer, as long as the error says that nobody is there yet. The last error is raised."""
    deadline_s = asyncio.get_running_loop().time() + settings.startup_wait.total_seconds()
    waited = False
    while True:
        try:
            return await ask()
        except absent as error:
            if asyncio.get_running_loop().time() + RETRY_S > deadline_s:
                raise
            if not waited:
                logger.warning("waiting for %s: %s", what, str(error) or type(error).__name__)
                waited = True
        await asyncio.sleep(RETRY_S)
