"""recon for `holdfast serve apps.recon.app:app` and for any server that serves ASGI applications.

    holdfast serve apps.recon.app:app                            # its services on the embedded engine
    hypercorn --bind 127.0.0.1:9080 apps.recon.app:app           # the endpoint that a Restate server calls
    hypercorn --bind 127.0.0.1:3000 apps.recon.app:api           # endpoint below /restate, HTTP API at the root

Settings come from the environment (`settings.py`). Everything in one process is `python -m apps.recon serve`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import restate
from starlette.applications import Starlette
from starlette.routing import Mount

from apps.recon.api import create_api
from apps.recon.application import create_app
from apps.recon.engines import authorization
from apps.recon.settings import Settings
from apps.recon.store import Store

settings = Settings.load()

store = Store.from_settings(settings)
"""Opened by the first request that needs it. With an embedded database one process owns it: `app` and `api` must not
run in two."""

app = create_app(store, settings)


@asynccontextmanager
async def _connected(outer: Starlette) -> AsyncGenerator[None]:
    url = settings.restate_ingress_url
    async with restate.create_client(url, headers=authorization(settings)) as client, store:
        outer.mount("/", create_api(store, client, settings))
        yield


api = Starlette(routes=[Mount("/restate", app)], lifespan=_connected)
