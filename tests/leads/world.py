"""Leads on one engine, for tests: opened with settings of the test's own, closed at its end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import restate

from apps.leads.app import create_services
from apps.leads.gateway import Gateway
from apps.leads.jobs import Jobs, Wallets, until_over
from apps.leads.model import DiscoveryRequest, EnrichmentRequest, JobView
from apps.leads.settings import RetryPreset, Settings
from apps.leads.store import Store
from apps.leads.web.types import LOOPBACK_ALLOWED, FetchLimits
from holdfast import Engine
from tests.leads.local_web import LocalWeb
from tests.support.restate_server import RunningRestate, serving_h2c

PATIENCE_S = 40.0
QUICK = RetryPreset(first_wait_s=0.01, wait_max_s=0.04)
PAGES = Path(__file__).resolve().parents[2] / "apps" / "leads" / "data" / "pages"


@dataclass
class World:
    """One engine with leads on it."""

    store: Store
    settings: Settings
    gateway: Gateway
    jobs: Jobs
    user: str
    """Nobody else's."""

    @property
    def wallets(self) -> Wallets:
        return self.jobs.wallets

    async def rich(self, cents: int = 1000) -> str:
        """The user, with money."""
        await self.wallets.top_up(self.user, cents, key=uuid.uuid4().hex)
        return self.user

    async def discover(self, niche: str = "bakery", location: str = "Arlon", **more: Any) -> JobView:
        """A discovery, when it is over."""
        request = DiscoveryRequest(user_id=self.user, niche=niche, location=location, **more)
        return await self.over(await self.jobs.start_discovery(request))

    async def enrich(self, **more: Any) -> JobView:
        """An enrichment, when it is over."""
        return await self.over(await self.jobs.start_enrichment(EnrichmentRequest(user_id=self.user, **more)))

    async def over(self, job: JobView) -> JobView:
        return await until_over(self.jobs, job.job_id, patience_s=PATIENCE_S)

    async def balance(self) -> tuple[int, int]:
        """(balance, held)."""
        wallet = await self.wallets.get(self.user)
        return wallet.balance_cents, wallet.held_cents

    async def kinds(self) -> list[str]:
        """What the ledger says was booked, in order."""
        booked = (await self.wallets.get(self.user)).booking_count

        async def all_lines() -> list[str] | None:
            lines = await self.wallets.ledger(self.user, 1000)
            return [line.kind for line in lines] if len(lines) == booked else None

        return await until(all_lines)


async def until(look: Callable[[], Awaitable[Any]] | Callable[[], Any]) -> Any:
    """Look until the answer is true; returns it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = look()
            found = await found if isinstance(found, Awaitable) else found
            if found:
                return found
            await asyncio.sleep(0.01)  # between two looks at the condition


def settings_for(directory: Path, web: LocalWeb | None = None, **changes: Any) -> Settings:
    """Quick retries, sites of this machine only."""
    values: dict[str, Any] = {
        "directory": directory,
        "search_retry": QUICK,
        "step_retry": QUICK,
        "network": LOOPBACK_ALLOWED,
        "site_mirror_url": web.mirror if web is not None else "http://127.0.0.1:1/{host}/",
        "discovery_limits": FetchLimits(site_time_s=10, pages_max=1, assets_max=0, pause_s=0),
        "enrichment_limits": FetchLimits(site_time_s=30, pause_s=0),
    }
    return Settings(**values | changes)


async def open_world(
    stack: AsyncExitStack, settings: Settings, server: RunningRestate | None, *, is_suspending: bool
) -> World:
    """Leads on `server`, or embedded; `is_suspending`: every wait suspends, so that all that follows is a replay."""
    store = await stack.enter_async_context(Store(settings.directory))
    services = create_services(store, settings)
    for service in services:
        service.inactivity_timeout = timedelta(0) if is_suspending else None
    app = restate.app(services)
    if server is not None:
        url = stack.enter_context(serving_h2c(app))
        await asyncio.to_thread(server.register, url, force=True)
        gateway = Gateway.http(server.ingress_url, server.admin_url)
    else:
        gateway = Gateway.embedded(await stack.enter_async_context(Engine(app, db=settings.directory / "engine.db")))
    await stack.enter_async_context(gateway)
    jobs = Jobs(store, settings, gateway)
    return World(store=store, settings=settings, gateway=gateway, jobs=jobs, user=uuid.uuid4().hex)
