"""`holdfast executions`: start them, follow them, end them."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import click

from holdfast.cli.body import check_json, read
from holdfast.cli.output import json_option, show, show_error, table, talk
from holdfast.cli.providing import Where, provider_options
from holdfast.cli.timeline import ago
from holdfast.cli.workflows import LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, pairs
from holdfast.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.providers.base import WorkflowProvider
    from holdfast.providers.types import ExecutionStatus, StateChange

STATES = ("pending", "running", "paused", "succeeded", "failed", "stopped", "timeout")

NOT_OVER = 124
"""Exit code of a wait whose time is up, as of timeout(1): it neither failed nor was wrong."""


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """`30s`, `5m`, `1h 30m`, or a number of seconds."""
    if value is None:
        return None
    from holdfast.providers.validation import parse_duration

    try:
        return parse_duration(float(value) if value.replace(".", "", 1).isdecimal() else value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.group()
def executions() -> None:
    """Executions of workflows."""


@executions.command()
@click.argument("workflow_id", metavar="WORKFLOW")
@click.argument("input", required=False)
@click.option("--name", help="Its identity: the same name again starts nothing.  [default: a fresh one]")
@click.option("--key", help="Of a virtual object.  [default: the name]")
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True)
@click.option("--metadata", metavar="JSON", help="Kept with the execution: a JSON object.")
@click.option("--wait", "is_waited_for", is_flag=True, help="Stay until it is over, and print its output.")
@click.option(
    "--timeout", metavar="DURATION", callback=_duration, help="With --wait: how long at most; the execution goes on."
)
@provider_options
@json_option
def start(
    where: Where,
    workflow_id: str,
    input: str | None,
    name: str | None,
    key: str | None,
    tags: Sequence[str],
    metadata: str | None,
    is_waited_for: bool,
    timeout: timedelta | None,
    as_json: bool,
) -> None:
    """Start an execution and print its id.

    INPUT is JSON, @FILE, or - for standard input.

    In Python: WorkflowProvider.start_execution.
    """
    value = None if input is None else _json(input)
    described: Any = {} if metadata is None else _json(metadata)
    if not isinstance(described, dict):
        raise InvalidRequest("--metadata is no JSON object", hint='e.g. --metadata \'{"config_hash": "x"}\'')

    async def begin(provider: WorkflowProvider) -> ExecutionStatus | None:
        started = await provider.start_execution(
            workflow_id,
            value,
            execution_name=name,
            tags=pairs(tags, "--tag"),
            metadata=cast("dict[str, Any]", described),
            trigger_source="cli",
            key=key,
        )
        if is_waited_for:
            return await _waited(provider, started.execution_id, timeout)
        show(started.to_json(), as_json, lambda: started.execution_id)
        if not as_json:
            before = "" if started.is_new else "was there already, "
            talk(f"{before}{started.state}; follow it: holdfast executions wait {started.execution_id}")
        return None

    with _not_over_told():
        status = where.run(begin)
    if status is not None:
        _show_outcome(status, as_json)


@executions.command()
@click.argument("execution_id", metavar="ID")
@click.option("--history/--no-history", default=True, show_default=True, help="Everything that happened, line by line.")
@provider_options
@json_option
def status(where: Where, execution_id: str, history: bool, as_json: bool) -> None:
    """How an execution stands: state, input, output or error, history.

    In Python: WorkflowProvider.get_execution_status.
    """
    found = where.run(lambda provider: provider.get_execution_status(execution_id, history=history), serves=False)
    show(found.to_json(), as_json, lambda: _description(found))


@executions.command("list")
@click.option("--workflow", "workflow_id", metavar="ID", help="Only of this workflow.")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be repeated.")
@click.option("--since", metavar="DURATION", callback=_duration, help="Only of the last 24h, 30m ….")
@click.option("--limit", type=click.IntRange(1, LIST_LIMIT_MAX), default=LIST_LIMIT_DEFAULT, show_default=True)
@click.option("--cursor", help="Go on behind the page before: its next_cursor.")
@provider_options
@json_option
def list_executions(
    where: Where,
    workflow_id: str | None,
    states: Sequence[str],
    since: timedelta | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """Executions, newest first.

    In Python: WorkflowProvider.list_executions.
    """
    page = where.run(
        lambda provider: provider.list_executions(
            workflow_id=workflow_id,
            states=states or None,
            created_after=None if since is None else datetime.now(UTC) - since,
            limit=limit,
            cursor=cursor,
        ),
        serves=False,
    )
    show(page.to_json(), as_json, lambda: _table(page.items) if page.items else "no executions")
    if page.next_cursor is not None and not as_json:
        talk(f"there may be more: --cursor '{page.next_cursor}'")


@executions.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", help="Kept with the execution.")
@click.option("--kill", is_flag=True, help="End it without its consent when the grace time is over.")
@click.option(
    "--grace",
    metavar="DURATION",
    callback=_duration,
    help="With --kill: how long it may clean up.  [default: stop_grace]",
)
@provider_options
@json_option
def stop(where: Where, ids: Sequence[str], reason: str, kill: bool, grace: timedelta | None, as_json: bool) -> None:
    """Ask executions to end; they may clean up first. One that is over stays as it is.

    In Python: WorkflowProvider.stop_execution.
    """

    async def end(provider: WorkflowProvider) -> list[ExecutionStatus]:
        return [await provider.stop_execution(each, reason, grace=grace, kill=kill) for each in ids]

    found = where.run(end)
    show([each.to_json() for each in found], as_json, lambda: "\n".join(map(_standing, found)))


@executions.command()
@click.argument("execution_id", metavar="ID")
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=_duration,
    help="How long at most; the execution goes on, the exit code is 124.",
)
@provider_options
@json_option
def wait(where: Where, execution_id: str, timeout: timedelta | None, as_json: bool) -> None:
    """Wait until an execution is over, and print its output.

    Exits with 1 if it failed, was stopped, or reached its time limit.

    In Python: WorkflowProvider.wait.
    """
    with _not_over_told():
        status = where.run(lambda provider: _waited(provider, execution_id, timeout))
    _show_outcome(status, as_json)


@executions.command()
@click.argument("execution_id", metavar="ID")
@provider_options
@json_option
def watch(where: Where, execution_id: str, as_json: bool) -> None:
    """Follow an execution: a line for each change, until it is over.

    With --json one document for each change. Exits as `wait`.

    In Python: WorkflowProvider.watch.
    """

    async def follow(provider: WorkflowProvider) -> StateChange | None:
        last: StateChange | None = None
        async with aclosing(_changes(provider, execution_id)) as changes:
            async for change in changes:
                click.echo(json.dumps(change.to_json()) if as_json else _line(change))
                last = change
        return last

    last = where.run(follow)
    if last is not None:
        _exit_by(last.execution_id, last.to_state, last.error, "")


@executions.command("signal")
@click.argument("execution_id", metavar="ID")
@click.argument("name")
@click.argument("payload", required=False)
@click.option("--idempotency-key", help="The same key again is delivered once.")
@provider_options
@json_option
def signal_execution(
    where: Where,
    execution_id: str,
    name: str,
    payload: str | None,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Tell a live execution something.

    NAME is an awakeable's id, a shared handler, whose answer is printed, a durable promise, or a named signal. PAYLOAD
    is JSON, @FILE, or - for standard input.

    In Python: WorkflowProvider.signal.
    """
    value = None if payload is None else _json(payload)
    answer = where.run(lambda provider: provider.signal(execution_id, name, value, idempotency_key=idempotency_key))
    show({"answer": answer}, as_json, lambda: "" if answer is None else json.dumps(answer, ensure_ascii=False))
    if not as_json and answer is None:
        talk("told")


# --- waiting


async def _waited(provider: WorkflowProvider, execution_id: str, timeout: timedelta | None) -> ExecutionStatus:  # noqa: ASYNC109 the option
    """The status when it is over; what happens meanwhile is told."""
    import asyncio

    from holdfast.cli.progress import Progress
    from holdfast.providers.errors import WaitTimeout

    limit_s = None if timeout is None else timeout.total_seconds()
    state = ""
    try:
        async with asyncio.timeout(limit_s), aclosing(_changes(provider, execution_id)) as changes:
            with Progress(execution_id) as progress:
                async for change in changes:
                    progress.show(change)
                    state = change.to_state.value
    except TimeoutError:
        raise WaitTimeout(execution_id, limit_s or 0, state or "not known") from None
    return await provider.get_execution_status(execution_id)


@contextmanager
def _not_over_told() -> Generator[None]:
    """An exit code of its own for a wait whose time is up."""
    from holdfast.providers.errors import WaitTimeout

    try:
        yield
    except WaitTimeout as error:
        show_error(error)
        raise click.exceptions.Exit(NOT_OVER) from error


def _changes(provider: WorkflowProvider, execution_id: str) -> AsyncGenerator[StateChange]:
    return cast("AsyncGenerator[StateChange]", provider.watch(execution_id))


def _show_outcome(status: ExecutionStatus, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(status.to_json(), ensure_ascii=False))
    elif status.state == "succeeded" and status.output is not None:  # one that came after a time-out is no outcome
        click.echo(json.dumps(status.output, ensure_ascii=False))
    _exit_by(status.execution_id, status.state, status.error, status.reason)


def _exit_by(execution_id: str, state: Any, error: Any, reason: str) -> None:
    """1 unless it succeeded, with the reason on stderr."""
    if state == "succeeded":
        return
    from holdfast.errors import InvocationFailed

    why = f"[{error.code}] {error.message}" if error is not None else reason
    ended = InvocationFailed(
        ": ".join(filter(None, (f"{execution_id} {_ENDS[state]}", reason if state == "stopped" else why))),
        failure_code=error.code if error is not None else 500,
    )
    ended.hint = f"how it got there: holdfast executions status {execution_id}"
    raise ended


_ENDS = {"failed": "failed", "stopped": "was stopped", "timeout": "reached its time limit"}


# --- text


def _json(argument: str) -> Any:
    content = read(argument)
    check_json(content, otherwise="encoding as JSON")
    return json.loads(content)


def _line(change: StateChange) -> str:
    from holdfast.cli.progress import summary

    return f"{change.at:%H:%M:%S}  {summary(change)}"


def _table(found: Sequence[ExecutionStatus]) -> str:
    now = datetime.now(UTC)
    rows = [
        (
            each.execution_id,
            each.provider_type,
            _state(each),
            ago(_ms((each.stop_time or now) - (each.start_time or each.created_at))),
            ago(_ms(now - each.created_at)),
            each.reason or (each.error.message.splitlines()[0] if each.error and each.error.message else ""),
        )
        for each in found
    ]
    return table(("ID", "PROVIDER", "STATE", "TOOK", "AGE", "NOTE"), rows)


def _state(status: ExecutionStatus) -> str:
    if status.state.value in (status.sub_state.value,):
        return status.state.value
    return f"{status.state} ({status.sub_state})"


def _standing(status: ExecutionStatus) -> str:
    return f"{status.execution_id} {_state(status)}{f': {status.reason}' if status.reason else ''}"


def _description(status: ExecutionStatus) -> str:
    lines = {
        "id": status.execution_id,
        "state": _state(status),
        "reason": status.reason,
        "error": f"[{status.error.code}] {status.error.message}" if status.error else "",
        "progress": "" if status.progress is None else _short(status.progress),
        "input": _short(status.input),
        "output": _short(status.output),
        "provider": status.provider_type,
        "created": f"{status.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "took": _took(status),
        "tags": ", ".join(f"{name}={value}" for name, value in status.tags.items()),
        "invocation": str(status.metadata.get("invocation_id", "")),
    }
    width = max(map(len, lines))
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items() if value)
    return f"{text}\n\n{_history(status)}" if status.history else text


def _took(status: ExecutionStatus) -> str:
    if status.start_time is None or status.stop_time is None:
        return ""
    return ago(_ms(status.stop_time - status.start_time))


def _history(status: ExecutionStatus) -> str:
    rows: list[tuple[str, str]] = []
    for event in status.history:
        details = " ".join(
            f"{name}={_short(value)}" for name, value in event.details.items() if name != "index" and value != ""
        )
        name = f' "{event.name}"' if event.name else ""
        rows.append((f"+{ago(_ms(event.timestamp - status.created_at))}", f"{event.type}{name}  {details}".rstrip()))
    width = max(len(at) for at, _ in rows)
    return "\n".join(f"{at:>{width}}  {text}" for at, text in rows)


_TEXT_MAX = 100


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"


def _ms(duration: timedelta) -> int:
    return max(0, duration // timedelta(milliseconds=1))
