"""What the command line prints: tables, progress, JSON, errors of one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from apps.leads.client import ApiClient, Refused
from apps.leads.messages import LeadItem
from apps.leads.model import JobView, LogLine
from apps.leads.report import dollars, emails, figure, host, phones, what

Command = TypeVar("Command", bound=Callable[..., Any])
INTERRUPTED = 130
PIPE_WIDTH = 160
"""Columns of a table that nobody looks at: enough for its lines to stay whole."""


class Failure(click.ClickException):
    """One line, and what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}" + (f"\nnext: {self.hint}" if self.hint else ""), err=True)


@contextmanager
def client_of(target: dict[str, Any]) -> Generator[ApiClient]:
    """A client; what it refuses ends the command."""
    with ApiClient(target["url"], key=target["key"]) as client:
        try:
            yield client
        except Refused as refused:
            raise Failure(str(refused), refused.hint) from refused


def job_option(command: Command) -> Command:
    """Options of everything that starts a job."""
    for option in (
        click.option("--json", "json_output", is_flag=True, help="machine-readable output"),
        click.option("--no-wait", is_flag=True, help="do not follow it"),
        click.option("--notify", multiple=True, help="a configured webhook that hears of the end"),
        click.option("--client-key", default=None, help="the same key again is the same job"),
    ):
        command = option(command)
    return command


def as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def emit(value: Any, json_output: bool, text: Callable[[], object]) -> None:
    """The value as JSON, or what `text` prints."""
    if json_output:
        click.echo(as_json(value))
    else:
        text()


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """A plain table; names of businesses are printed as they are, brackets and all."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        shown.add_column(title, justify="right" if title in numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def leads_table(found: Sequence[LeadItem]) -> None:
    """Scored leads, best first."""
    rows = [
        (
            figure(one.lead.score),
            one.lead.business.name,
            one.lead.business.city or "",
            host(one.lead.business.website),
            one.lead.owner.name if one.lead.owner is not None else "",
            next(iter(emails(one.lead)), ""),
            next(iter(phones(one.lead)), ""),
            str(one.lead.audit.score) if one.lead.audit is not None else "",
        )
        for one in found
    ]
    titles = ("SCORE", "BUSINESS", "CITY", "WEBSITE", "OWNER", "E-MAIL", "PHONE", "AUDIT")
    table(titles, rows, numbers=("SCORE", "AUDIT"))


def job_line(job: JobView) -> str:
    """A job in one line."""
    price = "" if job.price_cents is None else f", {dollars(job.price_cents)}"
    why = f": {job.error.message}" if job.error is not None else ""
    return f"{job.status} {job.job_id}, {what(job)}{price}{why}"


def watch(client: ApiClient, job_id: str) -> JobView:
    """Follow a job to its end; shows progress if somebody looks at it."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    try:
        # To standard error: what is printed stays usable in a pipe.
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("pending")
            last: LogLine | None = None
            for job, lines in client.follow(job_id):
                last = lines[-1] if lines else last
                now = f"  {last.step}: {last.message}" if last is not None else ""
                progress.update(task, description=f"{job.status}, {job.current_step} steps done{now}"[:120])
                if job.status.is_final:
                    return job
    except KeyboardInterrupt:
        click.echo(f"\n{job_id} goes on without you; `leads jobs watch {job_id}` looks again", err=True)
        sys.exit(INTERRUPTED)
    raise AssertionError("a followed job ends")
