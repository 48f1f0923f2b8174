"""The dashboard at `/`: jobs, counts and what the parts show. Rendered here; a few lines of script keep it current.

It works without the script as well, and shows nothing that the API does not: whoever may read jobs may read it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.recon import parts
from apps.recon.model import JobState
from apps.recon.parts import ApiContext, Panel

logger = logging.getLogger("recon.page")

JOBS_SHOWN = 15

_TABLES = {"host": "hosts", "port": "ports", "service": "services"}

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def routes(context: ApiContext) -> list[BaseRoute]:
    """The routes, for `create_api`."""
    texts = {name: files("apps.recon").joinpath("templates", name).read_text() for name in _FILES}
    environment = Environment(loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined)
    environment.filters["cell"] = _cell
    page = environment.get_template("page.html")

    async def show(request: Request) -> Response:
        context.limit(request)
        text = await asyncio.to_thread(page.render, **await _contents(context))
        return Response(text, media_type="text/html", headers=_headers("no-store"))

    async def style(_: Request) -> Response:
        return Response(texts["page.css"], media_type="text/css", headers=_headers("max-age=300"))

    async def script(_: Request) -> Response:
        return Response(texts["page.js"], media_type="text/javascript", headers=_headers("max-age=300"))

    return [Route("/", show), Route("/page.css", style), Route("/page.js", script)]


_FILES = ("page.html", "page.css", "page.js")


def _headers(cache: str) -> dict[str, str]:
    return {
        "Cache-Control": cache,
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


async def _contents(context: ApiContext) -> dict[str, Any]:
    states, page, tables, panels = await asyncio.gather(
        context.store.state_counts(),
        context.store.jobs(limit=JOBS_SHOWN),
        context.store.row_counts(*_TABLES),
        _panels(context),
    )
    facts = [(state.value, states[state], f"state-{state.value}") for state in JobState]
    facts += [(label, tables[table], f"count-{table}") for table, label in _TABLES.items()]
    facts += [(label, count, "") for panel in panels for label, count in panel.facts.items()]
    return {
        "facts": facts,
        "jobs": page.jobs,
        "total": page.total,
        "panels": panels,
        "key_mode": context.settings.key_mode,
        "engine": context.settings.engine,
    }


async def _panels(context: ApiContext) -> list[Panel]:
    shown: list[Panel] = []
    for panels in parts.offers("panels"):
        shown += await panels(context)
    return shown


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(str(each) for each in value)
    return str(value)
