"""recon for an engine: every service of the frame and of the parts."""

from __future__ import annotations

import restate
from restate.server_types import RestateAppT

from apps.recon import parts
from apps.recon.control import control_service, sweeper, watcher
from apps.recon.settings import Settings
from apps.recon.store import Store
from apps.recon.workflow import ingest_workflow


def create_app(store: Store, settings: Settings | None = None) -> RestateAppT:
    """The application that an engine runs: `holdfast.Engine(create_app(store))`, or any ASGI server for a Restate one.

    Args:
        store: Opened by the first step that needs it.
        settings: None takes the defaults.
    """
    settings = settings or Settings()
    return restate.app(
        [
            ingest_workflow(store, settings),
            control_service,
            watcher(store),
            sweeper(store, settings).service,
            *parts.collect("services", store, settings),
        ]
    )
