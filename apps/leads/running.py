"""All of leads in one process, on the engines that the settings name.

async with open_leads(Settings.from_environment()) as leads:
    job = await leads.jobs.start_discovery(DiscoveryRequest(user_id="ada", niche="bakery", location="Arlon"))

embedded   everything on an engine of this process, in `<directory>/engine.db`
restate    everything on a Restate server, which calls this process
hybrid     jobs, wallets and one kind of work embedded, the other kind of work on the server
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from restate import Context

from apps.leads import placed
from apps.leads.app import create_app
from apps.leads.gateway import Gateway
from apps.leads.jobs import Jobs, Wallets
from apps.leads.settings import Settings
from apps.leads.store import Store
from apps.leads.workflows import DISCOVERY
from holdfast import Engine, providers
from holdfast.providers import WorkflowProvider, WorkflowSpec

ENGINE_FILE = "engine.db"
WORK_HANDLERS = {"discovery": "discover", "enrichment": "enrichBatch"}


@dataclass(frozen=True)
class Leads:
    """Leads, open."""

    store: Store
    settings: Settings
    gateway: Gateway
    jobs: Jobs
    engine: Engine | None
    """The embedded engine, where there is one."""

    @property
    def wallets(self) -> Wallets:
        return self.jobs.wallets


@asynccontextmanager
async def open_leads(settings: Settings) -> AsyncGenerator[Leads]:
    """Open the database and the engines; what an earlier process left unfinished goes on.

    Raises:
        SettingsError: settings that make no sense.
        HoldfastError: an engine cannot be opened, or the server refuses.
    """
    settings.check()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store(settings.directory))
        provider = await stack.enter_async_context(await _server(store, settings)) if settings.needs_restate else None
        engine: Engine | None = None
        remote: Any = None
        if provider is not None:
            await _place_work(provider, settings)
            remote = _remote_at(provider)
        if settings.home_engine == "embedded":
            engine = Engine(create_app(store, settings, remote), db=settings.directory / ENGINE_FILE)
            await stack.enter_async_context(engine)
            gateway = Gateway.embedded(engine)
        else:
            assert provider is not None
            config = {"service": DISCOVERY}  # one of its services has to be the workflow; we start both by themselves
            spec = WorkflowSpec(
                workflow_id="leads", name="leads", definition="apps.leads.placed:jobs", provider_config=config
            )
            await provider.create_workflow(spec)
            admin_url = settings.restate_admin_url or _admin_url(settings.restate_ingress_url)
            gateway = Gateway.http(settings.restate_ingress_url, admin_url, settings.restate_auth_token)
        await stack.enter_async_context(gateway)
        jobs = Jobs(store, settings, gateway)
        await jobs.recover()
        yield Leads(store=store, settings=settings, gateway=gateway, jobs=jobs, engine=engine)


async def _server(store: Store, settings: Settings) -> WorkflowProvider:
    """The provider for the Restate server: it serves this process's handlers and registers them."""
    placed.bind(store, settings)
    options: dict[str, Any] = {
        "endpoint": settings.restate_ingress_url,
        "admin_endpoint": settings.restate_admin_url or None,
        "listen_host": settings.restate_listen_host,
        "listen_port": settings.restate_listen_port,
        "advertised_url": settings.restate_advertised_url or None,
    }
    if settings.restate_auth_token:
        options |= {"auth_type": "api_key", "api_key": settings.restate_auth_token}
    return await providers.open("restate", **{name: value for name, value in options.items() if value is not None})


async def _place_work(provider: WorkflowProvider, settings: Settings) -> None:
    """Create at the server what is to run there."""
    for workflow_id, engine, limit_s in (
        ("discovery", settings.discovery_engine, settings.discovery_time_max_s),
        ("enrichment", settings.enrichment_engine, settings.enrichment_time_max_s),
    ):
        if engine == "restate":
            await provider.create_workflow(
                WorkflowSpec(
                    workflow_id=workflow_id,
                    name=workflow_id.capitalize(),
                    definition={"reference": f"apps.leads.placed:{workflow_id}", "handler": WORK_HANDLERS[workflow_id]},
                    timeout=timedelta(seconds=limit_s),
                )
            )


def _remote_at(provider: WorkflowProvider) -> Any:
    """How jobs give work to the server."""

    async def remote(ctx: Context, workflow_id: str, request: Any, execution_name: str) -> Any:
        return await providers.call_remote(
            ctx, provider=provider, workflow_id=workflow_id, input=request, execution_name=execution_name
        )

    return remote


def _admin_url(ingress_url: str) -> str:
    """The usual place: the same host, port 9070."""
    scheme, _, rest = ingress_url.partition("://")
    return f"{scheme}://{rest.split('/')[0].rsplit(':', 1)[0]}:9070"
