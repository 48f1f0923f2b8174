"""recon for a Restate server elsewhere: `app` is what the server calls, `api` is the whole of recon in one process.

    RECON_INGRESS_URL=http://127.0.0.1:8080 hypercorn --bind 127.0.0.1:3000 apps.recon.app:api
    restate deployments register http://127.0.0.1:3000/restate

Everything in one process without a server is `python -m apps.recon.serve`. `app` alone can also be run by
`holdfast serve apps.recon.app:app`, for a look at the invocations of a database that recon left behind.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import restate
from starlette.applications import Starlette
from starlette.routing import Mount

from apps.recon.api import create_api
from apps.recon.store import Store
from apps.recon.workflow import create_app

store = Store(Path(os.environ.get("RECON_STORE", "recon-data/surreal")))
"""Opened by the first request that needs it. One process owns it: `app` and `api` must not run in two."""

app = create_app(store)


@asynccontextmanager
async def _connected(outer: Starlette) -> AsyncGenerator[None]:
    url = os.environ.get("RECON_INGRESS_URL", "http://127.0.0.1:8080")
    async with restate.create_client(url) as client, store:
        outer.mount("/", create_api(store, client))
        yield


api = Starlette(routes=[Mount("/restate", app)], lifespan=_connected)
