"""`holdfast invocations`: find them, look into their journal, stop them or let them go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.admin.api import LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, STATUSES
from holdfast.cli.output import admin_option, exit_code, json_option, show, show_error, table, talk
from holdfast.cli.timeline import ago, description, timeline
from holdfast.errors import CallerError

if TYPE_CHECKING:
    from holdfast.admin.client import AdminClient
    from holdfast.runtime.introspect import InvocationInfo

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def invocations() -> None:
    """Invocations of the engine."""


@invocations.command("list")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; may be repeated.")
@click.option("--service", help="Only of this service.")
@click.option("--handler", help="Only of handlers of this name.")
@click.option("--key", help="Only of this object or workflow key.")
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


def _operation(command: _Command) -> _Command:
    return click.argument("ids", metavar="ID...", nargs=-1, required=True)(admin_option(json_option(command)))


@invocations.command()
@_operation
def cancel(ids: Sequence[str], admin_url: str, as_json: bool) -> None:
    """Ask handlers to stop; they may clean up first.

    In Python: AdminClient.cancel.
    """
    outcomes = {"appended": "told to stop; it may clean up first", "done": "had not started and is gone"}
    _each(ids, admin_url, as_json, lambda admin, one: outcomes[admin.cancel(one)])


@invocations.command()
@_operation
def kill(ids: Sequence[str], admin_url: str, as_json: bool) -> None:
    """End them and their children at once, without clean-up.

    In Python: AdminClient.kill.
    """
    _each(ids, admin_url, as_json, lambda admin, one: admin.kill(one) or "killed")


@invocations.command()
@_operation
def pause(ids: Sequence[str], admin_url: str, as_json: bool) -> None:
    """Hold running or failing ones until they are resumed.

    In Python: AdminClient.pause.
    """
    # `done` is also the answer for a suspended one, which goes on waiting for what it waits for.
    outcomes = {"accepted": "pauses, a running attempt is ended first", "done": "was not running: nothing to do"}
    _each(ids, admin_url, as_json, lambda admin, one: outcomes[admin.pause(one)])


@invocations.command()
@_operation
def resume(ids: Sequence[str], admin_url: str, as_json: bool) -> None:
    """Let paused ones go on, retry failing ones now.

    In Python: AdminClient.resume.
    """
    _each(ids, admin_url, as_json, lambda admin, one: admin.resume(one) or "goes on")


@invocations.command()
@_operation
@click.option("--journal", is_flag=True, help="Forget the journal only, keep the result.")
def purge(ids: Sequence[str], journal: bool, admin_url: str, as_json: bool) -> None:
    """Forget completed ones before their retention ends.

    In Python: AdminClient.purge, AdminClient.purge_journal.
    """
    if journal:
        _each(ids, admin_url, as_json, lambda admin, one: admin.purge_journal(one) or "journal forgotten")
    else:
        _each(ids, admin_url, as_json, lambda admin, one: admin.purge(one) or "forgotten")


def _each(ids: Sequence[str], admin_url: str, as_json: bool, operate: Callable[[AdminClient, str], str]) -> None:
    """Do it to every id, whatever became of the others; the exit code is that of the first refusal."""
    from holdfast.admin.client import AdminClient

    outcomes: list[dict[str, str]] = []
    refusals: list[CallerError] = []
    with AdminClient(admin_url) as admin:
        for invocation_id in ids:
            try:
                outcomes.append({"id": invocation_id, "outcome": operate(admin, invocation_id)})
            except CallerError as error:
                show_error(error, invocation_id)
                refusals.append(error)
                outcomes.append({"id": invocation_id, "error": error.code, "message": error.message})
    done = [outcome for outcome in outcomes if "outcome" in outcome]
    show(outcomes, as_json, lambda: "\n".join(f"{one['id']} {one['outcome']}" for one in done))
    if refusals:
        raise click.exceptions.Exit(exit_code(refusals[0]))


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
