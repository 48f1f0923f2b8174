"""`holdfast deployments`: services of other processes, in any language, that this engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.output import admin_option, json_option, show, table, talk
from holdfast.errors import InvalidRequest, InvocationConflict

if TYPE_CHECKING:
    from holdfast.admin.client import AdminClient

_LIVE = ("pending", "ready", "running", "backing-off", "suspended", "paused")
_SHOWN_MAX = 1_000


@click.group()
def deployments() -> None:
    """Where services run: this process, and endpoints elsewhere."""


@deployments.command("register")
@click.argument("url")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with every request to it.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Yours; shown with the deployment.")
@click.option("--http1", is_flag=True, help="Do not try HTTP/2; every step is then a request of its own.")
@click.option("--force", is_flag=True, help="Discover a known address again, in place: for development.")
@click.option("--breaking", is_flag=True, help="Allow a service to change its type.")
@click.option("--dry-run", is_flag=True, help="Check, and change nothing.")
@admin_option
@json_option
def register_deployment(
    url: str,
    headers: Sequence[str],
    metadata: Sequence[str],
    http1: bool,
    force: bool,
    breaking: bool,
    dry_run: bool,
    admin_url: str,
    as_json: bool,
) -> None:
    """Have the services at URL run by this engine.

    New invocations of its services go there from now on; those in flight stay where they are. Give changed code another
    address and register that.

    In Python: AdminClient.register_deployment, Engine.register_deployment.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url) as admin:
        found, is_new = admin.register_deployment(
            url,
            headers=_headers(headers),
            metadata=_pairs(metadata, "=", "--metadata"),
            use_http_11=http1,
            force=force,
            breaking=breaking,
            dry_run=dry_run,
        )
    show({**found, "is_new": is_new, "dry_run": dry_run}, as_json, lambda: _registered(found))
    if dry_run:
        talk(f"{url} can be registered; nothing was changed")
    elif is_new:
        talk(f"registered {url} as {found['id']}")
    elif force:
        talk(f"discovered {url} again as {found['id']}")
    else:
        talk(f"{url} was registered before as {found['id']}; to discover it again: --force")


@deployments.command("list")
@admin_option
@json_option
def list_deployments(admin_url: str, as_json: bool) -> None:
    """Every deployment, oldest first.

    In Python: AdminClient.deployments.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url) as admin:
        found = admin.deployments()
        newest = {service["name"]: service["deployment_id"] for service in admin.services()}
    show(found, as_json, lambda: _table(found, newest) if found else "no deployments")


@deployments.command("describe")
@click.argument("deployment_id", metavar="ID")
@admin_option
@json_option
def describe_deployment(deployment_id: str, admin_url: str, as_json: bool) -> None:
    """One deployment, its services, and what is bound to it.

    In Python: AdminClient.deployment.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url) as admin:
        found = admin.deployment(deployment_id)
        bound = _bound(admin, deployment_id)
    show({**found, "live_invocations": bound}, as_json, lambda: _description(found, bound))


@deployments.command("update")
@click.argument("deployment_id", metavar="ID")
@click.option("--uri", metavar="URL", help="Where the same services are reached from now on.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="In place of all that it has.")
@click.option("--no-headers", is_flag=True, help="Send none from now on.")
@click.option("--http1/--http2", "http1", default=None, help="Speak this from now on.")
@click.option("--overwrite", is_flag=True, help="Take the services as the address offers them now.")
@click.option("--dry-run", is_flag=True, help="Check, and change nothing.")
@admin_option
@json_option
def update_deployment(
    deployment_id: str,
    uri: str | None,
    headers: Sequence[str],
    no_headers: bool,
    http1: bool | None,
    overwrite: bool,
    dry_run: bool,
    admin_url: str,
    as_json: bool,
) -> None:
    """Move a deployment to another address; it must offer the same services.

    In Python: AdminClient.update_deployment, Engine.update_deployment.
    """
    from holdfast.admin.client import AdminClient

    if uri is None and not headers and not no_headers and http1 is None:
        raise click.UsageError("nothing to change: give --uri, --header, --no-headers, --http1 or --http2")
    with AdminClient(admin_url) as admin:
        found = admin.update_deployment(
            deployment_id,
            uri=uri,
            headers=_headers(headers) if headers or no_headers else None,
            use_http_11=http1,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    show(found, as_json, lambda: _description(found, None))
    talk(f"{deployment_id} can be changed; nothing was" if dry_run else f"{deployment_id} is at {found['uri']}")


@deployments.command("remove")
@click.argument("deployment_id", metavar="ID")
@click.option("--force", is_flag=True, help="Even if invocations are bound to it: they fail until they are moved.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@admin_option
@json_option
def remove_deployment(deployment_id: str, force: bool, yes: bool, admin_url: str, as_json: bool) -> None:
    """Forget a deployment that nothing is bound to any more.

    In Python: AdminClient.remove_deployment, Engine.remove_deployment.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url) as admin:
        found = admin.deployment(deployment_id)
        bound = _bound(admin, deployment_id)
        if bound and not force:
            raise InvocationConflict(
                f"{_count(bound)} bound to {deployment_id}",
                hint=f"see them: holdfast invocations list --bound-to {deployment_id}; let them finish, or remove it "
                "with --force, then pause them and resume them elsewhere",
            )
        if not yes:
            click.confirm(f"remove {deployment_id} at {found['uri']}?", abort=True, err=True)
        admin.remove_deployment(deployment_id)
    show(
        {"id": deployment_id, "outcome": "removed", "live_invocations": bound},
        as_json,
        lambda: f"{deployment_id} removed",
    )


def _bound(admin: AdminClient, deployment_id: str) -> int:
    """Live invocations bound to it, counted up to a limit."""
    return len(admin.list_invocations(statuses=_LIVE, deployment=deployment_id, limit=_SHOWN_MAX))


def _count(bound: int) -> str:
    if bound == 1:
        return "1 live invocation is"
    return f"{bound}{' or more' if bound == _SHOWN_MAX else ''} live invocations are"


def _registered(found: dict[str, Any]) -> str:
    rows = [(service["name"], str(service["revision"]), str(len(service["handlers"]))) for service in found["services"]]
    return table(("SERVICE", "REVISION", "HANDLERS"), rows) if rows else "no services"


def _table(found: Sequence[dict[str, Any]], newest: dict[str, str]) -> str:
    rows: list[Sequence[str]] = []
    for deployment in found:
        # A service whose new invocations run elsewhere is shown in brackets.
        services = [
            name if newest.get(name) == deployment["id"] else f"({name})"
            for name in (service["name"] for service in deployment["services"])
        ]
        rows.append((deployment["id"], deployment["uri"], _protocol(deployment), ", ".join(services) or "-"))
    return table(("ID", "ADDRESS", "PROTOCOL", "SERVICES"), rows)


def _protocol(deployment: dict[str, Any]) -> str:
    kind = "" if deployment["protocol_type"] == "BidiStream" else ", request/response"
    return f"{deployment['http_version']}{kind}"


def _description(found: dict[str, Any], bound: int | None) -> str:
    from holdfast.cli.services import services_table

    lowest, highest = found["min_protocol_version"], found["max_protocol_version"]
    lines = [f"{found['id']}  {found['uri']}", f"{_protocol(found)}, service protocol {lowest} to {highest}"]
    if "sdk_version" in found:
        lines.append(f"SDK {found['sdk_version']}")
    lines.append(f"registered {found['created_at'][:19].replace('T', ' ')} UTC")
    lines += [f"sends {name}: {value}" for name, value in found.get("additional_headers", {}).items()]
    lines += [f"{name}={value}" for name, value in found.get("metadata", {}).items()]
    if bound is not None:
        lines.append(f"{_count(bound)} bound to it" if bound else "no live invocation is bound to it")
    revisions = ", ".join(f"{service['name']} {service['revision']}" for service in found["services"])
    lines += [f"revisions: {revisions}", "", services_table(found["services"])] if revisions else ["no services"]
    return "\n".join(lines)


def _headers(given: Sequence[str]) -> dict[str, str]:
    return _pairs(given, ":", "--header")


def _pairs(given: Sequence[str], divider: str, option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, found_divider, value = text.partition(divider)
        if not found_divider or not name.strip():
            raise InvalidRequest(f"{option} {text!r} has no name and value", hint=f"write it as NAME{divider}VALUE")
        found[name.strip()] = value.strip()
    return found
