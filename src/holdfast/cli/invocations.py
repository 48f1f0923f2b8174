"""`holdfast invocations`: find them, look into their journal, stop them or let them go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from holdfast.admin.api import LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, STATUSES
from holdfast.cli.operations import COMMANDS
from holdfast.cli.output import admin_option, json_option, show, table, talk
from holdfast.cli.timeline import ago, description, timeline

if TYPE_CHECKING:
    from holdfast.runtime.introspect import InvocationInfo


@click.group()
def invocations() -> None:
    """Invocations of the engine."""


@invocations.command("list")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; may be repeated.")
@click.option("--service", help="Only of this service.")
@click.option("--handler", help="Only of handlers of this name.")
@click.option("--key", help="Only of this object or workflow key.")
@click.option("--bound-to", metavar="DEPLOYMENT", help="Only those that are bound to this deployment.")
@click.option(
    "--limit",
    type=click.IntRange(1, LIST_LIMIT_MAX),
    default=LIST_LIMIT_DEFAULT,
    show_default=True,
    help="Rows at most.",
)
@click.option("--before", metavar="ID", help="Go on behind this one, the last of the page before.")
@click.option("--oldest-first", is_flag=True, help="Instead of newest first.")
@admin_option
@json_option
def list_invocations(
    statuses: tuple[str, ...],
    service: str | None,
    handler: str | None,
    key: str | None,
    bound_to: str | None,
    limit: int,
    before: str | None,
    oldest_first: bool,
    admin_url: str,
    as_json: bool,
) -> None:
    """Invocations, newest first.

    In Python: AdminClient.list_invocations.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url) as admin:
        found = admin.list_invocations(
            statuses=statuses,
            service=service,
            handler=handler,
            key=key,
            deployment=bound_to,
            limit=limit,
            before=before,
            oldest_first=oldest_first,
        )
    show([asdict(info) for info in found], as_json, lambda: _table(found) if found else "no invocations")
    if len(found) == limit and not as_json:
        talk(f"there may be more: --before {found[-1].id}")


@invocations.command("show")
@click.argument("invocation_id", metavar="ID")
@admin_option
@json_option
def show_invocation(invocation_id: str, admin_url: str, as_json: bool) -> None:
    """One invocation and its journal as a timeline.

    In Python: AdminClient.invocation, AdminClient.journal, AdminClient.journal_events.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url) as admin:
        info, entries = admin.invocation(invocation_id), admin.journal(invocation_id)
        events = admin.journal_events(invocation_id)
    document = {"invocation": asdict(info), "journal": [asdict(entry) for entry in entries], "events": events}
    show(document, as_json, lambda: f"{description(info, entries, _now_ms())}\n\n{timeline(info, entries, events)}")


for operation in COMMANDS:
    invocations.add_command(operation)


def _table(found: Sequence[InvocationInfo]) -> str:
    now_ms = _now_ms()
    rows: list[Sequence[str]] = []
    for info in found:
        status = info.completion_result if info.status == "completed" and info.completion_result else info.status
        rows.append((info.id, info.target, status, ago(now_ms - info.created_at_ms), _note(info)))
    return table(("ID", "TARGET", "STATUS", "AGE", "NOTE"), rows)


def _note(info: InvocationInfo) -> str:
    if info.completion_failure:
        return info.completion_failure
    if info.last_failure:
        attempt = f"attempt {info.retry_count} failed: " if info.retry_count else ""
        return f"{attempt}{info.last_failure.splitlines()[0]}"
    return f"waits for {', '.join(info.waiting_for)}" if info.waiting_for else ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
