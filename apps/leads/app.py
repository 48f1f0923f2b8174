"""The application that an engine runs: `holdfast.Engine(create_app(store, settings))`, or any ASGI server for Restate.

DiscoveryJob, EnrichmentJob   workflows, one run each: money, time limit, state, message     (`workflows.py`)
discovery, enrichment         services that do the work                                      (`discovery.py` ...)
WorkElsewhere                 the same work, given to the other engine, where there are two   (`elsewhere.py`)
Wallet, WalletLedger          a virtual object per user, and its ledger                      (`wallet.py`)
Notifications                 a virtual object per webhook                                   (`notifications.py`)
"""

from __future__ import annotations

import restate
from restate.server_types import RestateAppT

from apps.leads import wallet
from apps.leads.discovery import discovery_service
from apps.leads.elsewhere import Remote, work_elsewhere
from apps.leads.enrichment import enrichment_service
from apps.leads.notifications import notifications
from apps.leads.settings import Settings
from apps.leads.store import Store
from apps.leads.workflows import Handlers, job_workflows

Services = list[restate.Service | restate.VirtualObject | restate.Workflow]


def create_services(
    store: Store, settings: Settings, remote: Remote | None = None, *, with_work: bool = True
) -> Services:
    """All services of leads, working on `store`. Each call makes new ones, but for the wallet's, which need nothing.

    Args:
        with_work: False leaves out `discovery` and `enrichment`: they are deployed for themselves.
    """
    discovery, discover = discovery_service(store, settings)
    enrichment, enrich_batch = enrichment_service(store, settings)
    messages, deliver = notifications(store, settings)
    work = [discovery, enrichment] if with_work else []
    if remote is not None:
        elsewhere, discover_there, enrich_there = work_elsewhere(remote)
        work.append(elsewhere)
        discover = discover if settings.discovery_engine == settings.home_engine else discover_there
        enrich_batch = enrich_batch if settings.enrichment_engine == settings.home_engine else enrich_there
    handlers = Handlers(discover=discover, enrich_batch=enrich_batch, deliver=deliver)
    return [*job_workflows(store, settings, handlers), *work, messages, *wallet.SERVICES]


def create_app(store: Store, settings: Settings, remote: Remote | None = None) -> RestateAppT:
    """The application.

    Args:
        remote: How work is given to the other engine; required when `settings` put some of it there (see `running.py`).
    """
    return restate.app(create_services(store, settings, remote))
