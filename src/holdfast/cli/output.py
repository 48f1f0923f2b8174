"""How the CLI talks: data on stdout, talk on stderr, `--json` for machines, errors that say what to do next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from holdfast.admin.api import ADMIN_TOKEN_VARIABLE, ADMIN_URL, INGRESS_TOKEN_VARIABLE, INGRESS_URL
from holdfast.errors import CallerError, HoldfastError, InvalidApp, InvalidRequest, InvocationFailed

_Command = TypeVar("_Command", bound=Callable[..., Any])

_NO_EDGE = 10_000

_NEXT = {
    "HF0101": "it may be purged, or its retention over; recent ones: holdfast invocations list",
    "HF0103": "see its status: holdfast invocations show {subject}",
    "HF0104": "to drop it before it starts: holdfast invocations cancel {subject}",
    "HF0120": "tables: holdfast sql 'SHOW TABLES'; columns: holdfast sql 'DESCRIBE sys_invocation'",
    "HF0121": "narrow it, best by id or target_service_name, or add a LIMIT",
    "HF0203": "what the endpoint answers: curl -i --http2-prior-knowledge URL/discover",
    "HF0110": "make one: holdfast tokens create; then HOLDFAST_ADMIN_TOKEN (ingress: HOLDFAST_INGRESS_TOKEN) or --token",
}
"""What a person at a terminal can do next, for errors that arrive over HTTP without a hint."""

_NEXT_BY_WORDS = {
    "CERTIFICATE_VERIFY_FAILED": "name the file of the authority that made it: holdfast serve --endpoint-ca ca.pem",
    "status code '401'": "does it ask for signed requests? holdfast serve --identity-key identity.pem; for a token? "
    "holdfast deployments register URL --header 'authorization: …'",
    "server possibly supports only HTTP/1.1": "say so: --http1; or serve it with a server that speaks HTTP/2, like hypercorn",
    "status code '404'": "where is the SDK's application mounted? Register the URL with that path, such as "
    "http://localhost:9080/restate",
    "Service type cannot be changed": "give the service another name; or, if the change is meant, --breaking",
    "The request field 'invocation_id' is invalid": "ids begin with inv_1 and are copied whole: holdfast invocations list",
    "only absolute URIs can be used": "write all of it, e.g. http://localhost:9080",
}
"""The same, by words of the message where a code alone says too little."""


def json_option(command: _Command) -> _Command:
    """`--json`: one JSON document on stdout instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(command)


def admin_option(command: _Command) -> _Command:
    """`--admin-url`, else the environment, else the usual port on this machine."""
    option = click.option(
        "--admin-url",
        envvar="HOLDFAST_ADMIN_URL",
        default=ADMIN_URL,
        show_default=True,
        show_envvar=True,
        help="Admin API of the engine.",
    )
    return option(token_option(ADMIN_TOKEN_VARIABLE)(command))


def ingress_option(command: _Command) -> _Command:
    """`--ingress-url`, else the environment, else the usual port on this machine."""
    option = click.option(
        "--ingress-url",
        envvar="HOLDFAST_INGRESS_URL",
        default=INGRESS_URL,
        show_default=True,
        show_envvar=True,
        help="Ingress of the engine.",
    )
    return option(token_option(INGRESS_TOKEN_VARIABLE)(command))


def token_option(variable: str) -> Callable[[_Command], _Command]:
    """`--token`, else the environment, where the clients look themselves: `--token` is put there for this command."""

    def remember(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        before = os.environ.get(variable)

        def restore() -> None:
            os.environ.pop(variable, None)
            if before is not None:
                os.environ[variable] = before

        os.environ[variable] = value
        ctx.call_on_close(restore)

    return click.option(
        "--token",
        envvar=variable,
        show_envvar=True,
        expose_value=False,
        callback=remember,
        help="For an engine that asks for one. `ps` shows options, not the environment.",
    )


def show(document: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print `document` as JSON, or what `text` makes of it."""
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
    elif rendered := text():
        click.echo(rendered)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text, each of them one line: what is too long for a terminal, the terminal wraps best."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        grid.add_row(*map(Text, row))  # as it is: brackets in a value are no markup
    console = Console(width=_NO_EDGE, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(grid)
    header, *lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([click.style(header, bold=True), *lines])  # click prints styles to terminals only


def talk(message: str) -> None:
    """Tell the person at the terminal something that is not data."""
    click.echo(message, err=True)


def show_error(error: HoldfastError, subject: str = "ID") -> None:
    """`error HF0101: what happened`, and what to do next.

    Args:
        subject: The invocation it is about.
    """
    talk(f"error {error.code}: {error.message}")
    if hint := error.hint or _next(error, subject):
        talk(f"  next: {hint}")


def _next(error: HoldfastError, subject: str) -> str:
    for words, hint in _NEXT_BY_WORDS.items():
        if words in error.message:
            return hint
    is_unknown = isinstance(error, InvalidRequest) and (error.status == 404 or error.message.startswith("Invalid URL"))
    if is_unknown:
        what = "deployments" if "deployment" in error.message else "services"
        return f"what there is: holdfast {what} list"
    return _NEXT.get(error.code, "").format(subject=subject)


def exit_code(error: HoldfastError) -> int:
    """2 when the request was wrong, 1 when it failed."""
    if isinstance(error, InvocationFailed):
        return 1
    return 2 if isinstance(error, CallerError | InvalidApp) else 1
