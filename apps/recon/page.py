"""The dashboard at `/`: jobs, counts and what the parts show, rendered here and kept current by server-sent events."""

from __future__ import annotations

from starlette.routing import BaseRoute

from apps.recon.events import JobFeed
from apps.recon.parts import ApiContext


def routes(context: ApiContext, feed: JobFeed) -> list[BaseRoute]:
    """The routes, for `create_api`."""
    return []
