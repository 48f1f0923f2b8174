"""The command line: `imports start|watch|cancel|history|serve`.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 the import was cancelled, 130 stopped looking (Ctrl-C).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from apps.imports.client import ApiClient, Refused
from apps.imports.messages import import_id_of
from apps.imports.model import WORKER_TYPES, Progress, Status
from apps.serving.secrets import sendable

DEFAULT_URL = "http://127.0.0.1:3002"
EXIT_CODES = {Status.COMPLETED: 0, Status.FAILED: 1, Status.CANCELLED: 3}
INTERRUPTED = 130

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


class Failure(click.ClickException):
    """One line, and what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}" + (f"\nnext: {self.hint}" if self.hint else ""), err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", envvar="IMPORTS_URL", default=DEFAULT_URL, show_default=True, help="where imports answers")
@click.option("--token", envvar="IMPORTS_TOKEN", default=None, callback=sendable, help="if it asks for one")
@click.option("--patience", type=float, default=60.0, show_default=True, metavar="SECONDS",
              help="how long to try again while it is away")  # fmt: skip
@click.pass_context
def main(context: click.Context, url: str, token: str | None, patience: float) -> None:
    """Batched open-data import with progress and cancel."""
    context.obj = {"url": url, "token": token or None, "patience_s": patience}


def _json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="machine-readable output")(command)


@main.command()
@click.argument("source")
@click.option(
    "--id", "import_id", default="", help="import id; without one, import-<extract number> by the file's name"
)
@click.option("--sha256", default=None, help="what the file's SHA-256 has to be")
@click.option("--worker-type", type=click.Choice(WORKER_TYPES), default="local", show_default=True)
@click.option("--watch", "-w", "is_watched", is_flag=True, help="follow it to its end")
@_json_option
@click.pass_obj
def start(
    target: dict[str, Any],
    source: str,
    import_id: str,
    sha256: str | None,
    worker_type: str,
    is_watched: bool,
    as_json: bool,
) -> None:
    """Start the import of the zip at SOURCE: an address, or a path on the worker's machine."""
    is_here = "://" not in source and Path(source).exists()
    if not import_id and import_id_of(source) is None:
        missing = "" if is_here or "://" in source else f"there is no file {source} here, and "
        raise Failure(
            f"{missing}no extract number in the file's name to make an import id from",
            "check the path, or choose an id with --id" if missing else "choose an id with --id",
        )
    if is_here:  # the worker may have another working directory than this shell
        source = str(Path(source).resolve())
    body = {"source": source, "import_id": import_id, "sha256": sha256, "worker_type": worker_type}
    with _client(target) as client:
        accepted = _ask(lambda: client.start(body))
        if as_json:
            click.echo(msgspec.json.encode(accepted))
        else:
            click.echo(f"started {accepted.workflow_id}; {target['url']}{accepted.page_url}")
        if is_watched:
            _watch(client, accepted.workflow_id, as_json)


@main.command()
@click.argument("import_id")
@_json_option
@click.pass_obj
def watch(target: dict[str, Any], import_id: str, as_json: bool) -> None:
    """Follow an import to its end. With --json: one line per change."""
    with _client(target) as client:
        _watch(client, import_id, as_json)


@main.command()
@click.argument("import_id")
@click.option("--yes", "-y", is_flag=True, help="do not ask")
@click.option("--watch", "-w", "is_watched", is_flag=True, help="follow it until it is rolled back")
@_json_option
@click.pass_obj
def cancel(target: dict[str, Any], import_id: str, yes: bool, is_watched: bool, as_json: bool) -> None:
    """Cancel an import: it stops before its next batch and is rolled back."""
    if not yes:
        click.confirm(f"Cancel {import_id} and roll back what it wrote?", abort=True)
    with _client(target) as client:
        _ask(lambda: client.cancel(import_id))
        if is_watched:
            last = _ask(lambda: _follow_with_bar(client, import_id))
            _tell(last, as_json)
            sys.exit(0 if last.status is Status.CANCELLED else 1)
    if as_json:
        click.echo(json.dumps({"workflow_id": import_id, "status": "cancelling"}))
    else:
        click.echo(f"cancelling {import_id}; `imports watch {import_id}` shows its end")


@main.command()
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--cursor", default=None, help="next_cursor of an earlier page")
@_json_option
@click.pass_obj
def history(target: dict[str, Any], limit: int, cursor: str | None, as_json: bool) -> None:
    """List imports, newest first."""
    with _client(target) as client:
        page = _ask(lambda: client.history(limit, cursor))
    if as_json:
        click.echo(msgspec.json.encode(page))
        return
    if not page.imports:
        click.echo("no import yet")
        return
    table = Table(box=None, header_style="bold")
    table.add_column("IMPORT", overflow="fold")  # whole, for the next command
    for title in ("STATUS", "BEGUN (UTC)"):
        table.add_column(title, no_wrap=True)
    for title in ("EXTRACT", "BATCHES", "ADDED", "REJECTED"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in page.imports:
        extract = "-" if each.extract_number is None else str(each.extract_number)
        batches = f"{each.completed_batches}/{each.total_batches}"
        begun = each.created_at.strftime("%Y-%m-%d %H:%M")
        table.add_row(each.import_id, each.status, begun, extract, batches, f"{each.rows:,}", f"{each.rejected_rows:,}")
    Console().print(table)
    if page.next_cursor:
        click.echo(f"older: imports history --cursor {page.next_cursor}")


def _client(target: dict[str, Any]) -> ApiClient:
    return ApiClient(target["url"], token=target["token"], patience_s=target["patience_s"])


def _ask(request: Callable[[], T]) -> T:
    try:
        return request()
    except Refused as refused:
        raise Failure(str(refused), refused.hint) from refused


def _watch(client: ApiClient, import_id: str, as_json: bool) -> NoReturn:
    try:
        last = _ask(lambda: _follow_as_json(client, import_id) if as_json else _follow_with_bar(client, import_id))
    except KeyboardInterrupt:
        click.echo(f"\n{import_id} goes on without you; `imports watch {import_id}` looks again", err=True)
        sys.exit(INTERRUPTED)
    if not as_json:
        _tell(last, as_json)
    sys.exit(EXIT_CODES[last.status])


def _follow_as_json(client: ApiClient, import_id: str) -> Progress:
    last = Progress()
    for last in client.follow(import_id):
        click.echo(msgspec.json.encode(last))
    return last


def _follow_with_bar(client: ApiClient, import_id: str) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
    )
    last = Progress()
    # To standard error, and only if somebody sees it: what is printed stays usable in a pipe and in a log.
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pending", total=None, now="")
        for last in client.follow(import_id):
            bar.update(
                task, description=last.status, completed=last.completed, total=last.total or None, now=_now(last)
            )
    return last


def _now(progress: Progress) -> str:
    rate = "" if progress.rows_per_second is None else f" {progress.rows_per_second:,.0f} rows/s"
    left = "" if progress.estimate_s is None else f", {progress.estimate_s:.0f} s left"
    return f"{progress.step or ''}{rate}{left}"


def _tell(progress: Progress, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(progress))
        return
    match progress.status:
        case Status.COMPLETED:
            click.echo(
                f"completed {progress.import_id}: extract {progress.extract_number}, {progress.rows_completed:,} rows read, "
                f"{progress.names_resolved or 0:,} names resolved, {progress.rejected_rows:,} rows rejected"
            )
        case Status.CANCELLED:
            click.echo(f"cancelled {progress.import_id}: rolled back; readers see the extract before it")
        case _:
            click.echo(f"{progress.status} {progress.import_id}: {progress.error}", err=True)


@main.command()
@click.option("--engine", type=click.Choice(["embedded", "restate"]), envvar="IMPORTS_ENGINE", default="embedded",
              show_default=True)  # fmt: skip
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), envvar="IMPORTS_DIR",
              default=Path("imports-data"), show_default=True, help="where everything is kept")  # fmt: skip
@click.option("--host", envvar="IMPORTS_HOST", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), envvar=["IMPORTS_PORT", "PORT"], default=3002,
              show_default=True, help="0 takes a free one")  # fmt: skip
@click.option("--allow-host", "hosts", multiple=True, envvar="IMPORTS_ALLOW_HOST",
              help="a further name that browsers may use for it")  # fmt: skip
@click.option("--ingress-url", default=None, help="of a Restate server  [env: RESTATE_INGRESS_URL]")
@click.option("--admin-url", default=None, help="of a Restate server  [env: RESTATE_ADMIN_URL]")
@click.option("--worker-host", envvar="IMPORTS_WORKER_HOST", default="127.0.0.1", show_default=True)
@click.option("--worker-port", type=click.IntRange(0, 65535), envvar="IMPORTS_WORKER_PORT", default=9080,
              show_default=True)  # fmt: skip
@click.option("--worker-url", envvar="IMPORTS_WORKER_URL", default=None,
              help="where the Restate server reaches the worker, if not on this machine")  # fmt: skip
@click.option("--identity-key", "identity_keys", multiple=True, envvar="RESTATE_SIGNING_PUBLIC_KEY",
              help="publickeyv1_… of the server: unsigned requests are refused")  # fmt: skip
@click.option("--engine-patience", "patience_s", type=click.FloatRange(0), envvar="IMPORTS_ENGINE_PATIENCE_S", default=10.0,
              show_default=True, metavar="SECONDS",
              help="how long a request is tried again while the engine is away")  # fmt: skip
@click.option("--child", is_flag=True, hidden=True, help="for a parent: the address as JSON; stop when stdin ends")
@click.pass_obj
def serve(target: dict[str, Any], engine: str, child: bool, **options: Any) -> None:
    """Run the workflow, the API and the pages."""
    from apps.imports.serve import load_settings, run  # here: other commands need neither DuckDB nor the engine
    from apps.imports.settings import InvalidSetting

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings, serving = load_settings(is_restate=engine == "restate", token=target["token"], **options)
    except InvalidSetting as error:
        raise Failure(str(error), "see apps/imports/.env.example") from error
    failure = run(settings, serving, is_child=child)
    if failure is not None:
        raise Failure(*failure)
