"""`holdfast metrics`: what an engine tells Prometheus."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from holdfast.admin.api import ADMIN_TOKEN_VARIABLE
from holdfast.cli.output import admin_option, json_option, show, talk
from holdfast.config import SecurityConfig


@click.command()
@admin_option
@click.option("--port", type=click.IntRange(0, 65535), help="Serve them on this port instead of printing them once.")
@click.option(
    "--host",
    envvar="HOLDFAST_HOST",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Other machines are let in only with tokens.",
)
@click.option("--tokens-file", envvar="HOLDFAST_TOKENS_FILE", show_envvar=True, help="Tokens of scope admin.")
@click.option("--insecure", envvar="HOLDFAST_INSECURE", is_flag=True, help="Let other machines in without tokens.")
@click.option("--tls-cert", envvar="HOLDFAST_TLS_CERT", help="PEM file: serve over TLS.")
@click.option("--tls-key", envvar="HOLDFAST_TLS_KEY", help="PEM file.  [default: in --tls-cert]")
@click.option("--allow-host", "allowed_hosts", multiple=True, metavar="NAME", help="A name it may be called by.")
@json_option
def metrics(admin_url: str, port: int | None, host: str, as_json: bool, **security: Any) -> None:
    """Print, or serve, what Prometheus reads.

    holdfast metrics --admin-url http://localhost:9070 --port 9464

    `holdfast serve` answers GET /metrics on its admin port by itself. With --port, those of a Restate server are
    served under the same names; counters begin when this starts. With --json, samples, or one line that tells where.

    In Python: holdfast.metrics.
    """
    import asyncio

    from holdfast.metrics import RestateMetrics, render
    from holdfast.security.bearer import bearer_headers

    token = os.environ.get(ADMIN_TOKEN_VARIABLE)
    headers = bearer_headers(token)
    source = RestateMetrics(admin_url, headers=headers)

    async def printed() -> None:
        own = await _own(admin_url, headers)
        if own is None:
            await source.look(0)  # an engine that does not answer is an error here, not a metric
            own = (await render([source]))[0].decode()
        text = own
        show(_samples(text), as_json, text.rstrip)

    def announce(url: str) -> None:
        if as_json:
            click.echo(json.dumps({"url": f"{url}/metrics", "pid": os.getpid()}))
        else:
            talk(f"metrics  {url}/metrics")

    async def served(port: int) -> None:
        from holdfast import logs
        from holdfast.server import serve_metrics

        logs.configure("console", "info")
        guarding = SecurityConfig(admin_token=token, **security)
        await serve_metrics(source, host=host, port=port, security=guarding, on_ready=announce)

    asyncio.run(printed() if port is None else served(port))


def _samples(text: str) -> list[dict[str, Any]]:
    from prometheus_client.parser import text_string_to_metric_families

    families = text_string_to_metric_families(text)
    return [
        {"name": sample.name, "labels": sample.labels, "value": sample.value}
        for family in families
        for sample in family.samples
    ]


async def _own(admin_url: str, headers: dict[str, str]) -> str | None:
    """What a holdfast engine tells by itself, which is more than its SQL does; None for a Restate server."""
    import httpx

    try:
        async with httpx.AsyncClient(headers=headers, timeout=10) as http:
            answer = await http.get(f"{admin_url.rstrip('/')}/metrics")
    except httpx.HTTPError:
        return None  # the queries that follow tell what is wrong
    return answer.text if answer.status_code == 200 and "holdfast_engine_up" in answer.text else None
