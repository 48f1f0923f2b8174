"""`query` on the command line: what the API offers."""

from __future__ import annotations

from typing import Any, get_args

import click

from apps.recon.queries.model import DEPTH_MAX, LIMIT, GraphKind, K, Via
from apps.recon.queries.new import KINDS


def commands() -> list[click.Command]:
    """The command for `python -m apps.recon`."""
    return [query]


@click.group()
def query() -> None:
    """Ask the graph of hosts, ports, services and vulnerabilities."""


@query.command()
@click.argument("ip")
@click.option("--depth", type=click.IntRange(0, DEPTH_MAX), default=2, show_default=True)
@click.pass_obj
def host(api: Any, ip: str, depth: int) -> None:
    """Show one host: 1 ports, 2 services, 3 vulnerabilities, 4 place, 5 network."""
    api.show(api.get(f"/v1/query/host/{ip}", depth=depth))


@query.command()
@click.argument("query_type", type=click.Choice(get_args(GraphKind)))
@click.option("--asn", type=int)
@click.option("--city")
@click.option("--region", help="Name or code.")
@click.option("--country", help="Two letters.")
@click.option("--cve")
@click.option("--product")
@click.option("--service")
@click.option("--port", type=int)
@click.option("--protocol", type=click.Choice(["tcp", "udp"]))
@click.option("--ip", help="For neighbours.")
@click.option("--via", type=click.Choice(get_args(Via)), multiple=True, help="For neighbours; may be repeated.")
@click.option("--limit", default=LIMIT, show_default=True)
@click.option("--offset", default=0, show_default=True)
@click.pass_obj
def graph(api: Any, **given: Any) -> None:
    """List hosts by what they have."""
    body = {name: list(value) if name == "via" else value for name, value in given.items() if value not in (None, ())}
    api.show(api.post("/v1/query/graph", body))


@query.command()
@click.option("--since", help="A time with its zone, as 2026-01-31T12:00:00Z.")
@click.option("--cursor", help="Of a page before, instead of a time.")
@click.option("--kind", type=click.Choice(KINDS), default="host", show_default=True)
@click.option("--limit", default=LIMIT, show_default=True)
@click.pass_obj
def new(api: Any, **given: Any) -> None:
    """List what was added since a time."""
    api.show(api.get("/v1/query/new", **{name: value for name, value in given.items() if value is not None}))


@query.command()
@click.argument("text")
@click.option("-k", default=K, show_default=True, help="How many.")
@click.pass_obj
def similar(api: Any, text: str, k: int) -> None:
    """Search the texts of vulnerabilities."""
    api.show(api.post("/v1/query/similar", {"query": text, "k": k}))
