"""Commands for campaigns, approvals, threats and contributors: the API from a terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from apps.recon.campaigns.model import BATCH_SIZE, BATCH_SIZE_MAX, FINAL, Phase
from apps.recon.campaigns.schema import APPROVAL_STATES
from apps.recon.cli.client import Api, Failure

COLUMNS = ("id", "status", "scanned", "total", "rejected", "failed", "created_at")
WATCH_PAUSE_S = 1.0


@click.group()
def campaigns() -> None:
    """Scan many targets and see what was found."""


@campaigns.command()
@click.argument("targets", nargs=-1)
@click.option(
    "--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Targets, one a line."
)
@click.option("--id", "campaign_id", help="Sent again, it is the same campaign.")
@click.option("--scanner", type=click.Choice(["tcp", "nmap"]), default="tcp", show_default=True)
@click.option("--ports", help="With commas between them, e.g. 22,80,443.")
@click.option("--batch-size", type=click.IntRange(1, BATCH_SIZE_MAX), default=BATCH_SIZE, show_default=True)
@click.option("--target-timeout", "target_timeout_s", type=float, help="Seconds for each target.  [default: 30]")
@click.option("--contributor", help="The scanner key that gets the credit.")
@click.option("--wait", is_flag=True, help="Until the campaign is over; exit status 1 if it is not complete.")
@click.pass_obj
def start(
    api: Api,
    targets: tuple[str, ...],
    file: Path | None,
    campaign_id: str | None,
    scanner: str,
    ports: str | None,
    batch_size: int,
    target_timeout_s: float | None,
    contributor: str | None,
    wait: bool,
) -> None:
    """Scan TARGETS: addresses, networks or names."""
    lines = file.read_text().splitlines() if file is not None else []
    options: dict[str, Any] = {"scanner": scanner, "batch_size": batch_size}
    if ports is not None:
        options["ports"] = _ports(ports)
    if target_timeout_s is not None:
        options["target_timeout_s"] = target_timeout_s
    if contributor is not None:
        options["contributor"] = contributor
    body: dict[str, Any] = {"targets": [*targets, *(line for line in lines if line.strip())], "options": options}
    if campaign_id is not None:
        body["campaign_id"] = campaign_id
    started = api.post("/v1/campaigns", body)
    if wait:
        _show_end(api, started["id"])
    else:
        api.show(started)


@campaigns.command("list")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0)
@click.pass_obj
def list_campaigns(api: Api, limit: int, offset: int) -> None:
    """Campaigns, the newest first."""
    found = api.get("/v1/campaigns", limit=limit, offset=offset)
    if api.as_json:
        api.show(found)
        return
    api.table(COLUMNS, [[campaign[name] for name in COLUMNS] for campaign in found["campaigns"]])


@campaigns.command()
@click.argument("campaign_id")
@click.option("--wait", is_flag=True, help="Until the campaign is over; exit status 1 if it is not complete.")
@click.pass_obj
def status(api: Api, campaign_id: str, wait: bool) -> None:
    """How far it is."""
    if wait:
        _show_end(api, campaign_id)
    else:
        api.show(api.get(f"/v1/campaigns/{quote(campaign_id, '')}/status"))


@campaigns.command()
@click.argument("campaign_id")
@click.pass_obj
def cancel(api: Api, campaign_id: str) -> None:
    """Stop it between two targets."""
    api.show(api.post(f"/v1/campaigns/{quote(campaign_id, '')}/cancel"))


@campaigns.command()
@click.argument("campaign_id")
@click.option("--limit", type=click.IntRange(1, 5000), default=1000, show_default=True, help="Targets.")
@click.option("--after", help="Go on behind this target.")
@click.pass_obj
def report(api: Api, campaign_id: str, limit: int, after: str | None) -> None:
    """What it found."""
    found = api.get(f"/v1/campaigns/{quote(campaign_id, '')}/report", limit=limit, after=after)
    if api.as_json:
        api.show(found)
        return
    api.table(
        ("target", "state", "open", "reason"),
        [
            [row["target"], row["state"], " ".join(str(port["number"]) for port in row["ports"]), row["reason"]]
            for row in [*found["results"], *found["rejected"]]
        ],
    )
    if found["threats"]:
        click.echo()
        columns = ("threat_id", "severity", "host_count", "title")
        api.table(columns, [[threat[name] for name in columns] for threat in found["threats"]])
    if found["next"]:
        click.echo(f"more: --after {found['next']}", err=True)


@click.group()
def approvals() -> None:
    """Questions that wait for somebody's yes or no."""


@approvals.command("list")
@click.option("--state", type=click.Choice(APPROVAL_STATES), default="pending", show_default=True)
@click.pass_obj
def list_approvals(api: Api, state: str) -> None:
    """Approvals, the newest first."""
    found = api.get("/v1/approvals", state=state)
    if api.as_json:
        api.show(found)
        return
    columns = ("id", "state", "expires_at", "question")
    api.table(columns, [[approval[name] for name in columns] for approval in found["approvals"]])


@approvals.command()
@click.argument("approval_id")
@click.option("--by", default="", help="Who says so.")
@click.option("--comment", default="")
@click.pass_obj
def approve(api: Api, approval_id: str, by: str, comment: str) -> None:
    """Say yes."""
    _decide(api, approval_id, approved=True, by=by, comment=comment)


@approvals.command()
@click.argument("approval_id")
@click.option("--by", default="", help="Who says so.")
@click.option("--comment", default="")
@click.pass_obj
def deny(api: Api, approval_id: str, by: str, comment: str) -> None:
    """Say no."""
    _decide(api, approval_id, approved=False, by=by, comment=comment)


@click.group()
def threats() -> None:
    """What campaigns found, over all of them."""


@threats.command("list")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.pass_obj
def list_threats(api: Api, limit: int) -> None:
    """Threats, last seen first."""
    found = api.get("/v1/threats", limit=limit)
    if api.as_json:
        api.show(found)
        return
    columns = ("threat_id", "severity", "updates", "host_count", "last_seen", "title")
    api.table(columns, [[threat[name] for name in columns] for threat in found["threats"]])


@threats.command("show")
@click.argument("threat_id")
@click.pass_obj
def show_threat(api: Api, threat_id: str) -> None:
    """One threat with its latest history."""
    api.show(api.get(f"/v1/threats/{quote(threat_id, '')}"))


@click.command()
@click.argument("key")
@click.pass_obj
def contributor(api: Api, key: str) -> None:
    """What a contributor's KEY has earned."""
    api.show(api.get(f"/v1/contributors/{quote(key, '')}"))


def commands() -> list[click.Command]:
    """All of them, for `python -m apps.recon`."""
    return [campaigns, approvals, threats, contributor]


def _decide(api: Api, approval_id: str, *, approved: bool, by: str, comment: str) -> None:
    path = f"/v1/approvals/{quote(approval_id, '')}"
    decided = api.post(path, {"approved": approved, "by": by, "comment": comment})
    api.show(decided)
    if decided["is_approved"] is not approved:
        reasons = {"timeout": "the time was over", "cancelled": "the campaign was cancelled"}
        first = f"{decided['by'] or 'somebody'} was first"
        raise Failure(f"this answer did not count: {reasons.get(api.get(path)['state'], first)}")


def _show_end(api: Api, campaign_id: str) -> None:
    """Wait until the campaign is over, and say how it ended."""
    final, is_told = {phase.value for phase in FINAL}, False
    while (found := api.get(f"/v1/campaigns/{quote(campaign_id, '')}/status"))["status"] not in final:
        if found["status"] == Phase.AWAITING_APPROVAL and not is_told:
            click.echo(f"campaign {campaign_id} awaits approval: approvals approve {campaign_id}, or deny", err=True)
            is_told = True
        time.sleep(WATCH_PAUSE_S)
    api.show(found)
    if found["status"] != Phase.COMPLETE:
        raise Failure(f"campaign {campaign_id} is {found['status']}")


def _ports(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter("numbers with commas between them, e.g. 22,80,443", param_hint="--ports") from None
