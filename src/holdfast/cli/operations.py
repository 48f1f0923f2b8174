"""`holdfast invocations cancel`, `kill`, `pause`, `resume`, `restart-as-new`, `purge`: by id, or all that a filter finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.admin.api import LIST_LIMIT_MAX, STATUSES
from holdfast.cli.output import admin_option, exit_code, json_option, show, show_error, talk
from holdfast.errors import CallerError

if TYPE_CHECKING:
    from holdfast.admin.client import AdminClient, BatchOperation

_Command = TypeVar("_Command", bound=Callable[..., Any])

_LIVE = ("pending", "ready", "running", "backing-off", "suspended", "paused")


@dataclass(frozen=True, slots=True)
class _Operation:
    """What is done, and to which of those that a filter finds."""

    name: BatchOperation
    outcome: str
    statuses: tuple[str, ...]
    """If the filter names none."""


_CANCEL = _Operation("cancel", "told to stop, or had not started and is gone", ("scheduled", *_LIVE))
_KILL = _Operation("kill", "killed", ("scheduled", *_LIVE))
_PAUSE = _Operation("pause", "pauses, a running attempt is ended first", ("ready", "running", "backing-off"))
_RESUME = _Operation("resume", "goes on", ("paused",))
_RESTART = _Operation("restart-as-new", "runs again", ("completed",))
_PURGE = _Operation("purge", "forgotten", ("completed",))
_PURGE_JOURNAL = _Operation("purge-journal", "journal forgotten", ("completed",))


@dataclass(frozen=True, slots=True)
class Selection:
    """Invocations named on the command line, one by one or by a filter."""

    ids: Sequence[str]
    statuses: Sequence[str]
    service: str | None
    handler: str | None
    key: str | None
    bound_to: str | None
    failed: bool
    yes: bool
    admin_url: str
    as_json: bool

    @property
    def has_filter(self) -> bool:
        named = (self.service, self.handler, self.key, self.bound_to)
        return bool(self.statuses) or self.failed or any(value is not None for value in named)


def _selecting(command: _Command) -> _Command:
    options = (
        click.argument("ids", metavar="[ID...]", nargs=-1),
        click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="All of this status."),
        click.option("--service", help="All of this service."),
        click.option("--handler", help="All of handlers of this name."),
        click.option("--key", help="All of this object or workflow key."),
        click.option("--bound-to", metavar="DEPLOYMENT", help="All that are bound to this deployment."),
        click.option("--failed", is_flag=True, help="Only completed ones that failed."),
        click.option("--yes", is_flag=True, help="Do not ask before many are changed."),
        admin_option,
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_selecting
def cancel(**options: Any) -> None:
    """Ask handlers to stop; they may clean up first.

    Name invocations by id, or all that a filter finds: --service Greeter --status running.

    In Python: AdminClient.cancel, AdminClient.batch.
    """
    outcomes = {"appended": "told to stop; it may clean up first", "done": "had not started and is gone"}
    _run(_CANCEL, Selection(**options), lambda admin, one: outcomes[admin.cancel(one)])


@click.command()
@_selecting
def kill(**options: Any) -> None:
    """End them and their children at once, without clean-up.

    In Python: AdminClient.kill, AdminClient.batch.
    """
    _run(_KILL, Selection(**options), lambda admin, one: admin.kill(one) or "killed")


@click.command()
@_selecting
def pause(**options: Any) -> None:
    """Hold running or failing ones until they are resumed.

    In Python: AdminClient.pause, AdminClient.batch.
    """
    # `done` is also the answer for a suspended one, which goes on waiting for what it waits for.
    outcomes = {"accepted": "pauses, a running attempt is ended first", "done": "was not running: nothing to do"}
    _run(_PAUSE, Selection(**options), lambda admin, one: outcomes[admin.pause(one)])


@click.command()
@_selecting
@click.option("--deployment", default="keep", metavar="ID|latest", help="Go on there instead of where it was.")
def resume(deployment: str, **options: Any) -> None:
    """Let paused ones go on, retry failing ones now.

    With --deployment, paused and suspended ones go on with other code: the journal must fit it.

    In Python: AdminClient.resume, AdminClient.batch.
    """
    _run(_RESUME, Selection(**options), lambda admin, one: admin.resume(one, deployment) or "goes on", deployment)


@click.command("restart-as-new")
@_selecting
@click.option("--from", "from_index", type=click.IntRange(min=0), default=0, help="Keep the journal up to this entry.")
@click.option("--deployment", default="latest", metavar="ID|keep", help="Run there.  [default: the newest]")
def restart_as_new(from_index: int, deployment: str, **options: Any) -> None:
    """Run completed ones again, as new invocations.

    They get the same input, and with --from also the results of the steps up to that entry of the journal (holdfast
    invocations show ID prints their numbers), so that these steps do not run again.

    In Python: AdminClient.restart_as_new, AdminClient.batch.
    """
    selection = Selection(**options)
    if from_index and not selection.ids:
        raise click.UsageError("--from is a place in one journal: name the invocations by id")

    def restart(admin: AdminClient, one: str) -> str:
        return f"runs again as {admin.restart_as_new(one, from_index=from_index, deployment=deployment)}"

    _run(_RESTART, selection, restart, deployment)


@click.command()
@_selecting
@click.option("--journal", is_flag=True, help="Forget the journal only, keep the result.")
def purge(journal: bool, **options: Any) -> None:
    """Forget completed ones before their retention ends.

    In Python: AdminClient.purge, AdminClient.purge_journal, AdminClient.batch.
    """
    if journal:
        _run(_PURGE_JOURNAL, Selection(**options), lambda admin, one: admin.purge_journal(one) or "journal forgotten")
    else:
        _run(_PURGE, Selection(**options), lambda admin, one: admin.purge(one) or "forgotten")


COMMANDS = (cancel, kill, pause, resume, restart_as_new, purge)


def _run(
    operation: _Operation,
    selection: Selection,
    operate: Callable[[AdminClient, str], str],
    deployment: str | None = None,
) -> None:
    if bool(selection.ids) == selection.has_filter:
        raise click.UsageError("name invocations by id, or all of a filter such as --service NAME; not both")
    if selection.ids:
        _each(selection, operate)
    else:
        _all(operation, selection, deployment)


def _each(selection: Selection, operate: Callable[[AdminClient, str], str]) -> None:
    """Do it to every id, whatever became of the others; the exit code is that of the first refusal."""
    from holdfast.admin.client import AdminClient

    outcomes: list[dict[str, str]] = []
    refusals: list[CallerError] = []
    with AdminClient(selection.admin_url) as admin:
        for invocation_id in selection.ids:
            try:
                outcomes.append({"id": invocation_id, "outcome": operate(admin, invocation_id)})
            except CallerError as error:
                show_error(error, invocation_id)
                refusals.append(error)
                outcomes.append({"id": invocation_id, "error": error.code, "message": error.message})
    done = [outcome for outcome in outcomes if "outcome" in outcome]
    show(outcomes, selection.as_json, lambda: "\n".join(f"{one['id']} {one['outcome']}" for one in done))
    if refusals:
        raise click.exceptions.Exit(exit_code(refusals[0]))


def _all(operation: _Operation, selection: Selection, deployment: str | None) -> None:
    """Do it to everything that the filter finds now; 1 is the exit code when one of them could not be changed."""
    from holdfast.admin.client import AdminClient

    with AdminClient(selection.admin_url) as admin:
        found = _found(admin, operation, selection)
        if found and not selection.yes:
            what = f"{operation.name} {len(found)} invocation{'s' if len(found) > 1 else ''}"
            click.confirm(f"{what}?", abort=True, err=True)
        result = admin.batch(operation.name, found, deployment)
    outcomes: list[dict[str, str]] = []
    for invocation_id in result.succeeded:
        fresh = result.restarted.get(invocation_id)
        outcomes.append({"id": invocation_id, "outcome": f"runs again as {fresh}" if fresh else operation.outcome})
    show(
        [*outcomes, *({"id": one, "message": message} for one, message in result.failed.items())],
        selection.as_json,
        lambda: "\n".join(f"{one['id']} {one['outcome']}" for one in outcomes),
    )
    for message in result.failed.values():
        talk(f"error: {message}")
    talk(f"{operation.name}: {len(outcomes)} of {len(found)}" if found else "no such invocations: nothing to do")
    if result.failed:
        raise click.exceptions.Exit(1)


def _found(admin: AdminClient, operation: _Operation, selection: Selection) -> list[str]:
    """Oldest first, page by page."""
    found: list[str] = []
    before: str | None = None
    while True:
        page = admin.list_invocations(
            statuses=selection.statuses or operation.statuses,
            service=selection.service,
            handler=selection.handler,
            key=selection.key,
            deployment=selection.bound_to,
            limit=LIST_LIMIT_MAX,
            before=before,
            oldest_first=True,
        )
        found += [info.id for info in page if not selection.failed or info.completion_result == "failure"]
        if len(page) < LIST_LIMIT_MAX:
            return found
        before = page[-1].id
