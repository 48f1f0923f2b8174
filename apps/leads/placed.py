"""What a Restate server's provider loads: `apps.leads.placed:enrichment`, `:discovery`, and `:jobs` with all the rest.

Three deployments, so that each kind of work can move to the other engine and back, whatever else the server runs.

A provider keeps the name and loads it again in whatever process serves it. In a process that has opened leads
(`running.open_leads`) the services work on its database; in any other, on what the environment says.
"""

from __future__ import annotations

from typing import Any

import restate

from apps.leads.app import create_services
from apps.leads.discovery import discovery_service
from apps.leads.enrichment import enrichment_service
from apps.leads.settings import Settings
from apps.leads.store import Store

_bound: tuple[Store, Settings] | None = None


def bind(store: Store, settings: Settings) -> None:
    """From now on this process's services work on `store`."""
    global _bound  # noqa: PLW0603 what is loaded by name has no other way to be told
    _bound = (store, settings)


def __getattr__(name: str) -> Any:
    if name not in ("jobs", "discovery", "enrichment"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _bound is None:
        settings = Settings.from_environment()
        bind(Store(settings.directory), settings)
    assert _bound is not None
    store, settings = _bound
    if name == "jobs":
        return restate.app(create_services(store, settings, with_work=False))
    return (discovery_service if name == "discovery" else enrichment_service)(store, settings)[0]
