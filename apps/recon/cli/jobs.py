"""Looking at jobs, following them, cancelling them."""

from __future__ import annotations

import json
from typing import Any

import click
import httpx

from apps.recon.cli.client import Api, Failure
from apps.recon.model import FINAL_STATES, JobState

COLUMNS = ("id", "state", "host_count", "port_count", "created_at", "error_message")


@click.group()
def jobs() -> None:
    """Submitted scans and what became of them."""


@jobs.command("list")
@click.option("--state", type=click.Choice([state.value for state in JobState]), help="Only these.")
@click.option("--scanner-key", help="Only those of one scanner.")
@click.option("--created-after", help="Only newer ones, e.g. 2026-01-31T12:00:00Z.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--cursor", help="Go on where a page ended.")
@click.pass_obj
def list_jobs(api: Api, **filters: Any) -> None:
    """Jobs, the newest first."""
    found = api.get("/v1/jobs", **filters)
    if api.as_json:
        api.show(found)
        return
    rows = [[job[name] for name in COLUMNS] for job in found["jobs"]]
    more = f"; more: --cursor {found['next_cursor']}" if found["next_cursor"] else ""
    api.table(COLUMNS, rows, note=f"{len(rows)} of {found['total']}{more}")


@jobs.command()
@click.argument("job_id")
@click.pass_obj
def get(api: Api, job_id: str) -> None:
    """One job."""
    api.show(api.get(f"/v1/jobs/{job_id}"))


@jobs.command()
@click.argument("job_id")
@click.option("--reason", default="", help="Kept with the job.")
@click.pass_obj
def cancel(api: Api, job_id: str, reason: str) -> None:
    """Cancel a job: it ends as failed, at its next step."""
    api.show(api.post(f"/v1/jobs/{job_id}/cancel", {"reason": reason}))


@jobs.command()
@click.argument("job_id")
@click.pass_obj
def watch(api: Api, job_id: str) -> None:
    """Follow one job until it has ended; exit status 1 if it failed."""
    job = wait_until_final(api, job_id, is_shown=True)
    if job["state"] == "failed":
        raise Failure(f"the job failed: {job['error_message']}")


def wait_until_final(api: Api, job_id: str, *, is_shown: bool = False) -> dict[str, Any]:
    """Follow a job's events up to its end; returns it.

    Raises:
        Failure: there is no such job, or the connection ended and the job had not.
    """
    job: dict[str, Any] = api.get(f"/v1/jobs/{job_id}")
    if is_shown:
        _show_state(api, job)
    try:
        with httpx.stream("GET", f"{api.url}/v1/jobs/{job_id}/events", timeout=60) as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    changed = json.loads(line.removeprefix("data: "))
                    if is_shown and changed["state"] != job["state"]:
                        _show_state(api, changed)
                    job = changed
    except httpx.TransportError as error:
        raise Failure(f"the connection was lost: {error}", hint=f"recon jobs watch {job_id}") from None
    if JobState(job["state"]) not in FINAL_STATES:
        raise Failure("the server ended the connection first", hint=f"recon jobs watch {job_id}")
    return job


def _show_state(api: Api, job: dict[str, Any]) -> None:
    if api.as_json:
        api.show(job)
    else:
        click.echo(f"{job['updated_at']}  {job['state']}  {job['host_count']} hosts, {job['port_count']} ports")
