"""The command line: `leads discover|enrich|jobs|leads|report|export|wallet|scan-website|serve|discord-commands`.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 cancelled or out of time, 130 stopped looking (Ctrl-C).
"""

from __future__ import annotations

import logging
import sys
import uuid
from pathlib import Path
from typing import Any

import click
import msgspec

from apps.leads.booking import TIER_DISCOUNT_PERCENT
from apps.leads.cli_output import Failure, as_json, client_of, emit, job_line, job_option, leads_table, table, watch
from apps.leads.export import FORMATS
from apps.leads.model import Business, JobStatus
from apps.leads.report import dollars, time_text, what
from apps.serving.secrets import sendable

API_PORT = 3001
DEFAULT_URL = f"http://127.0.0.1:{API_PORT}"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", envvar="LEADS_API_URL", default=DEFAULT_URL, show_default=True, help="where leads answers")
@click.option("--key", envvar="LEADS_API_KEY", default=None, callback=sendable, help="your key, if it asks for one")
@click.option("--user", envvar="LEADS_API_USER", default=None, help="for whom, with the master key or without keys")
@click.pass_context
def main(context: click.Context, url: str, key: str | None, user: str | None) -> None:
    """Find businesses, look closely at them, pay once."""
    context.obj = {"url": url, "key": key or None, "user": user or None}


# ---- work ----------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("niche")
@click.argument("location")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True)
@click.option("--directory", default=None, help="osm, overpass or apify, as configured")
@click.option("--no-scan", is_flag=True, help="do not look at the websites")
@job_option
@click.pass_obj
def discover(
    target: dict[str, Any],
    niche: str,
    location: str,
    limit: int,
    directory: str | None,
    no_scan: bool,
    **how: Any,
) -> None:
    """Find businesses of a NICHE in a LOCATION and score them: `leads discover bakery Arlon`."""
    body = {"niche": niche, "location": location, "limit": limit, "directory": directory, "scan": not no_scan}
    _start(target, "discovery", body, **how)


@main.command()
@click.argument("job_id", required=False)
@click.option("--place", "place_ids", multiple=True, help="only this lead of the discovery; may be repeated")
@click.option("--file", "path", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="a JSON list of businesses instead")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 50), default=50, show_default=True)
@job_option
@click.pass_obj
def enrich(
    target: dict[str, Any],
    job_id: str | None,
    place_ids: tuple[str, ...],
    path: Path | None,
    limit: int,
    **how: Any,
) -> None:
    """Look closely at the best leads of the discovery JOB_ID, or of the newest: whole website, owner, audit, lead score."""
    if job_id is not None and path is not None:
        raise click.UsageError("give either a discovery's job id or --file")
    if path is None:
        job_id = job_id or _newest_discovery(target)
    body: dict[str, Any] = {"limit": limit, "place_ids": [*place_ids], "discovery_job_id": job_id}
    if path is not None:
        try:
            businesses = msgspec.json.decode(path.read_bytes(), type=list[Business])
        except msgspec.DecodeError as error:
            raise Failure(f"{path}: {error}", "give a JSON list of objects with place_id and name") from error
        body["businesses"] = msgspec.to_builtins(businesses)
    _start(target, "enrichment", body, **how)


def _newest_discovery(target: dict[str, Any]) -> str:
    query = {"workflow_id": "discovery", "status": "completed", "limit": 1}
    with client_of(target) as client:
        found = client.jobs(**query, **({"user_id": target["user"]} if target["user"] else {})).jobs
    if not found:
        raise Failure("there is no completed discovery yet", "`leads discover NICHE LOCATION`, or give --file")
    return found[0].job_id


def _start(
    target: dict[str, Any],
    kind: str,
    body: dict[str, Any],
    *,
    client_key: str | None,
    notify: tuple[str, ...],
    no_wait: bool,
    json_output: bool,
) -> None:
    body |= {"user_id": target["user"], "client_key": client_key or uuid.uuid4().hex, "notify": [*notify]}
    with client_of(target) as client:
        job = client.start(kind, body)
        if no_wait:
            emit(job, json_output, lambda: click.echo(job_line(job)))
            return
        job = watch(client, job.job_id)
        found = client.leads(job.job_id)
        if json_output:
            click.echo(as_json({"job": job, "leads": found}))
        else:
            if found and job.status is JobStatus.COMPLETED:
                leads_table(found)
            click.echo(job_line(job), err=job.status is not JobStatus.COMPLETED)
    sys.exit(_exit_code(job.status))


def _exit_code(status: JobStatus) -> int:
    return {JobStatus.COMPLETED: 0, JobStatus.CANCELLED: 3, JobStatus.TIMED_OUT: 3}.get(status, 1)


# ---- jobs ----------------------------------------------------------------------------------------------------------------


@main.group()
def jobs() -> None:
    """Look at jobs, cancel and resume them."""


_json_option = click.option("--json", "json_output", is_flag=True, help="machine-readable output")


@jobs.command("list")
@click.option("--status", type=click.Choice([status.value for status in JobStatus]), multiple=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@_json_option
@click.pass_obj
def list_jobs(target: dict[str, Any], status: tuple[str, ...], limit: int, json_output: bool) -> None:
    """Newest first."""
    query = {"limit": limit, "status": [*status]} | ({"user_id": target["user"]} if target["user"] else {})
    with client_of(target) as client:
        page = client.jobs(**query)
    rows = [
        (job.job_id, what(job), job.user_id, job.status, dollars(job.price_cents), time_text(job.created_at_ms))
        for job in page.jobs
    ]
    emit(page, json_output, lambda: table(("JOB", "WHAT", "USER", "STATUS", "PRICE", "BEGUN (UTC)"), rows))


@jobs.command("show")
@click.argument("job_id")
@_json_option
@click.pass_obj
def show_job(target: dict[str, Any], job_id: str, json_output: bool) -> None:
    """One job, its steps and its log."""
    with client_of(target) as client:
        job, steps, lines = client.job(job_id), client.steps(job_id), client.logs(job_id)
    if json_output:
        click.echo(as_json({"job": job, "steps": steps, "logs": lines}))
        return
    click.echo(job_line(job))
    rows = [
        (str(step.index), step.name, step.subject, step.status, str(step.attempt_count), f"{step.duration_ms or 0} ms")
        for step in steps
    ]
    table(("", "STEP", "OF", "STATUS", "ATTEMPTS", "TIME"), rows)
    for line in lines:
        click.echo(f"{time_text(line.at_ms)} {line.level:7} {line.step}: {line.message}")


@jobs.command("cost")
@click.argument("job_id")
@_json_option
@click.pass_obj
def cost(target: dict[str, Any], job_id: str, json_output: bool) -> None:
    """What a job cost us, step by step, and what its user paid."""
    with client_of(target) as client:
        found = client.cost(job_id)
    rows = [(step.step, str(step.event_count), f"{step.quantity:g}", f"${step.cost_usd:.4f}") for step in found.steps]
    rows.append(("all", str(len(found.events)), "", f"${found.total_usd:.4f}"))
    emit(found, json_output, lambda: table(("STEP", "EVENTS", "QUANTITY", "COST"), rows))


@jobs.command("watch")
@click.argument("job_id")
@_json_option
@click.pass_obj
def watch_job(target: dict[str, Any], job_id: str, json_output: bool) -> None:
    """Follow a job to its end."""
    with client_of(target) as client:
        job = watch(client, job_id)
    emit(job, json_output, lambda: click.echo(job_line(job)))
    sys.exit(_exit_code(job.status))


@jobs.command("cancel")
@click.argument("job_id")
@click.option("--yes", "-y", is_flag=True, help="do not ask")
@_json_option
@click.pass_obj
def cancel(target: dict[str, Any], job_id: str, yes: bool, json_output: bool) -> None:
    """End a job; what it took or held is given back."""
    if not yes:
        click.confirm(f"Cancel {job_id} and give its money back?", abort=True, err=True)
    with client_of(target) as client:
        client.cancel(job_id)
        job = watch(client, job_id)
    emit(job, json_output, lambda: click.echo(job_line(job)))
    sys.exit(0 if job.status is JobStatus.CANCELLED else 1)


@jobs.command("resume")
@click.argument("job_id")
@_json_option
@click.pass_obj
def resume(target: dict[str, Any], job_id: str, json_output: bool) -> None:
    """Let a failed or cancelled job go on after its last good step, and follow it."""
    with client_of(target) as client:
        client.resume(job_id)
        job = watch(client, job_id)
    emit(job, json_output, lambda: click.echo(job_line(job)))
    sys.exit(_exit_code(job.status))


# ---- leads ---------------------------------------------------------------------------------------------------------------


@main.command("leads")
@click.argument("job_id", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@_json_option
@click.pass_obj
def list_leads(target: dict[str, Any], job_id: str | None, limit: int, json_output: bool) -> None:
    """Leads of JOB_ID, or of the newest jobs together, each business once; best score first."""
    with client_of(target) as client:
        found = client.leads(job_id, limit)
    emit(found, json_output, lambda: leads_table(found))


@main.command("report")
@click.argument("lead_id", required=False)
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), default=None, help="a file; without one, standard output")  # fmt: skip
@click.pass_obj
def report(target: dict[str, Any], lead_id: str | None, output: Path | None) -> None:
    """The report page of the lead LEAD_ID (see `leads leads --json`), or of the best enriched one, as one HTML file."""
    with client_of(target) as client:
        if lead_id is None:
            found = client.leads(None)
            if not found:
                raise Failure("there is no lead yet", "`leads discover NICHE LOCATION`")
            # The score of a discovery is on another scale, and there is less to report.
            lead_id = next((one for one in found if one.lead.audit is not None), found[0]).lead_id
        _write(client.report(lead_id), output)


@main.command("export")
@click.argument("job_id", required=False)
@click.option("--format", "file_format", type=click.Choice(FORMATS), default=None, help="without one, by the file's name")  # fmt: skip
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), default=None, help="a file; without one, standard output")  # fmt: skip
@click.pass_obj
def export(target: dict[str, Any], job_id: str | None, file_format: str | None, output: Path | None) -> None:
    """Leads of JOB_ID, or of the newest jobs, each business once, as CSV, JSON or Parquet."""
    by_name = output.suffix.removeprefix(".").lower() if output is not None else "csv"
    if file_format is None and by_name not in FORMATS:
        raise click.UsageError(f"--format: one of {', '.join(FORMATS)}")
    with client_of(target) as client:
        _write(client.export(job_id, file_format or by_name), output)


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(content)
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror}", "choose another --output") from error
    click.echo(f"wrote {output}, {len(content)} bytes")


# ---- wallet --------------------------------------------------------------------------------------------------------------


@main.group()
def wallet() -> None:
    """Money of one user."""


@wallet.command("show")
@_json_option
@click.pass_obj
def show_wallet(target: dict[str, Any], json_output: bool) -> None:
    """Balance and holds."""
    with client_of(target) as client:
        found = client.wallet(target["user"] or "me")
    text = f"{found.user_id}: {dollars(found.balance_cents)}, {dollars(found.held_cents)} of it held; tier {found.tier}"
    emit(found, json_output, lambda: click.echo(text))


@wallet.command("ledger")
@click.option("--count", type=click.IntRange(1, 1000), default=50, show_default=True)
@_json_option
@click.pass_obj
def ledger(target: dict[str, Any], count: int, json_output: bool) -> None:
    """What was booked; the amounts add up to the balance, the held amounts to what is held."""
    with client_of(target) as client:
        lines = client.ledger(target["user"] or "me", count)
    rows = [
        (str(line.seq), line.kind, f"{line.amount_cents:+d}", f"{line.held_cents:+d}", str(line.balance_after_cents),
         line.job_id or line.reference) for line in lines
    ]  # fmt: skip
    emit(lines, json_output, lambda: table(("", "KIND", "CENTS", "HELD", "BALANCE", "FOR"), rows))


@wallet.command("top-up")
@click.argument("cents", type=click.IntRange(1))
@click.option("--payment", default=None, help="the payment's id: the same again is booked once")
@click.option("--reference", default="")
@_json_option
@click.pass_obj
def top_up(target: dict[str, Any], cents: int, payment: str | None, reference: str, json_output: bool) -> None:
    """Put CENTS in. Needs the master key, where there are keys."""
    with client_of(target) as client:
        receipt = client.top_up(target["user"] or "me", cents, payment or uuid.uuid4().hex, reference)
        now = client.wallet(target["user"] or "me")  # the receipt of a payment that was booked before is of that time
    emit(receipt, json_output, lambda: click.echo(f"booked {dollars(cents)}; balance {dollars(now.balance_cents)}"))


@wallet.command("tier")
@click.argument("tier", type=click.Choice([*TIER_DISCOUNT_PERCENT]))
@_json_option
@click.pass_obj
def set_tier(target: dict[str, Any], tier: str, json_output: bool) -> None:
    """Set the tier: starter takes 20 % off prices, pro and enterprise 50 %."""
    with client_of(target) as client:
        receipt = client.set_tier(target["user"] or "me", tier, uuid.uuid4().hex)
    emit(receipt, json_output, lambda: click.echo(f"tier {tier} from now on"))


# ---- scanner, server -----------------------------------------------------------------------------------------------------


@main.command("scan-website")
@click.argument("address", required=False)
@click.option("--file", "path", type=click.Path(dir_okay=False), help="a saved page instead")
@click.option("--country", default=None, help="two letters: where the business is, for telephone numbers")
@click.option("--allow-network", "networks", multiple=True, help="a network that is not public, such as 127.0.0.0/8")
@_json_option
def scan_website(
    address: str | None, path: str | None, country: str | None, networks: tuple[str, ...], json_output: bool
) -> None:
    """Try the scanner alone, on an ADDRESS or a saved page. Needs no server."""
    from apps.leads.web.cli import main as scan  # its own command line, whose wording is the same

    if (address is None) == (path is None):
        raise click.UsageError("give either an address or --file")
    arguments = [
        path or address or "",
        *(["--country", country] if country else []),
        *(["--json"] if json_output else []),
    ]
    for network in networks:
        arguments += ["--allow-network", network]
    sys.exit(scan(arguments))


@main.command()
@click.option("--engine", type=click.Choice(["embedded", "restate", "hybrid"]), default=None,
              help="without it, LEADS_ENGINE; without that, hybrid where RESTATE_INGRESS_URL is set, else embedded")  # fmt: skip
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), default=None,
              help="where everything is kept  [env: LEADS_DIRECTORY; default: leads-data]")  # fmt: skip
@click.option("--host", envvar="LEADS_API_HOST", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), envvar=["LEADS_API_PORT", "PORT"], default=API_PORT,
              show_default=True, help="0 takes a free one")  # fmt: skip
@click.option("--allow-host", "hosts", multiple=True, envvar="LEADS_API_ALLOW_HOST",
              help="a further name that browsers may use for it")  # fmt: skip
@click.option("--keys", envvar="LEADS_API_KEYS", default="", help='users by their keys: {"key": "user"}')
@click.option("--master-key", envvar="LEADS_API_MASTER_KEY", default="", help="may do everything, and is not charged")
@click.option("--discord-public-key", envvar="LEADS_API_DISCORD_PUBLIC_KEY", default="",
              help="of the Discord application whose slash commands are answered")  # fmt: skip
@click.option("--demo-sites", is_flag=True,
              help="pages of this machine stand in for the businesses' websites: no outside traffic")  # fmt: skip
@click.option("--child", is_flag=True, hidden=True, help="for a parent: the address as JSON; stop when stdin ends")
def serve(engine: str | None, directory: Path | None, keys: str, demo_sites: bool, child: bool, **options: Any) -> None:
    """Run the workflows, the API and the pages."""
    # Here: other commands need neither the engine nor the server.
    from apps.leads.serve import ServeSettings, load_settings, parse_keys, run
    from apps.leads.settings import SettingsError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = load_settings(engine, directory=directory)
        serving = ServeSettings(user_keys=parse_keys(keys), has_demo_sites=demo_sites, **options).check()
    except SettingsError as error:
        raise Failure(str(error), "see apps/leads/.env.example") from error
    if (failure := run(settings, serving, is_child=child)) is not None:
        raise Failure(*failure)


@main.command("discord-commands")
@click.option("--application", required=True, help="the Discord application's id")
@click.option(
    "--bot-token", envvar="DISCORD_BOT_TOKEN", required=True, callback=sendable, help="[env: DISCORD_BOT_TOKEN]"
)
def discord_commands(application: str, bot_token: str) -> None:
    """Register /discover and /wallet with Discord, once per application."""
    from apps.leads.discord_commands import CannotRegister, register
    from apps.leads.serve import load_settings
    from apps.leads.settings import SettingsError

    try:
        names = register(load_settings(None).discord_api_url, application, bot_token)
    except (CannotRegister, SettingsError) as error:
        raise Failure(str(error), "check the application's id and the bot's token") from error
    click.echo(f"registered {', '.join(f'/{name}' for name in names)}")
