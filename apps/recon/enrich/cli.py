"""`enrich` on the command line: what the API offers."""

from __future__ import annotations

from typing import Any

import click

from apps.recon.enrich.schema import KINDS


def commands() -> list[click.Command]:
    """The command for `python -m apps.recon`."""
    return [enrich]


@click.group()
def enrich() -> None:
    """Find out who announces hosts, where they are, and what affects them."""


@enrich.command()
@click.argument("hosts", nargs=-1)
@click.option("--job", "job_id", help="All hosts of this job, instead of addresses.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only this; may be repeated.")
@click.option("--force", is_flag=True, help="Ask the sources again, whatever is cached.")
@click.pass_obj
def start(api: Any, hosts: tuple[str, ...], job_id: str | None, kinds: tuple[str, ...], force: bool) -> None:
    """Enrich HOSTS, or the hosts of a job."""
    body: dict[str, Any] = {"force_refresh": force}
    if job_id:
        body["job_id"] = job_id
    if hosts:
        body["hosts"] = list(hosts)
    if kinds:
        body["kinds"] = list(kinds)
    api.show(api.post("/v1/enrich", body))


@enrich.command()
@click.argument("run_id")
@click.pass_obj
def get(api: Any, run_id: str) -> None:
    """Show one run: how far it is, and what came of it."""
    api.show(api.get(f"/v1/enrich/{run_id}"))


@enrich.command("list")
@click.option("--limit", default=20, show_default=True)
@click.pass_obj
def list_runs(api: Any, limit: int) -> None:
    """List the latest runs."""
    found = api.get("/v1/enrich", limit=limit)["enrichments"]
    api.table(
        ["id", "state", "hosts", "started", "job"],
        [[each["id"], each["state"], each["host_count"], each["started_at"], each["job_id"] or ""] for each in found],
    )


@enrich.command()
@click.argument("run_id")
@click.pass_obj
def cancel(api: Any, run_id: str) -> None:
    """Stop a run after what it is doing."""
    api.show(api.post(f"/v1/enrich/{run_id}/cancel", {}))
