"""`holdfast tokens`: who may use the two APIs of an engine. Works on the file beside its database, running or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.cli.output import json_option, show, table, talk
from holdfast.errors import InvalidRequest

if TYPE_CHECKING:
    from holdfast.security.tokens import Scope, Token, TokenFile

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def tokens() -> None:
    """Tokens that callers and operators must send.

    As soon as there is one for the ingress, or for the admin API, that API asks everybody for one.
    """


def _file_options(command: _Command) -> _Command:
    options = [
        click.option("--db", envvar="HOLDFAST_DB", default="holdfast.db", show_default=True, help="The engine's file."),
        tokens_file_option,
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def tokens_file_option(command: _Command) -> _Command:
    """`--tokens-file`, for the commands and for `serve`."""
    option = click.option(
        "--tokens-file", envvar="HOLDFAST_TOKENS_FILE", show_envvar=True, help="[default: beside the database]"
    )
    return option(command)


@tokens.command("create")
@click.option("--scope", type=click.Choice(["ingress", "admin"]), required=True, help="The API it is for.")
@click.option("--name", help="To recognise it by; default: its id.")
@click.option("--expires", metavar="DURATION", help="How long it is good for: 90d, 12h. Default: until it is revoked.")
@_file_options
def create_token(
    scope: Scope, name: str | None, expires: str | None, db: str, tokens_file: str | None, as_json: bool
) -> None:
    """Make a token and print it. It is not kept, only its hash is: nobody can print it again.

    In Python: holdfast.security.tokens.TokenFile.create.
    """
    file = _file(db, tokens_file)
    token, secret = file.create(scope, name, expires_in_ms=None if expires is None else _duration_ms(expires))
    show({**_document(token), "token": secret}, as_json, lambda: secret)
    if not as_json:
        talk(f"{token.id} ({token.name}) in {file.path}; {_how_to_send(token)}")


@tokens.command("list")
@_file_options
def list_tokens(db: str, tokens_file: str | None, as_json: bool) -> None:
    """Every token there ever was, oldest first.

    In Python: holdfast.security.tokens.TokenFile.tokens.
    """
    found = _file(db, tokens_file).tokens()
    show([_document(token) for token in found], as_json, lambda: _table(found))


@tokens.command("revoke")
@click.argument("token", metavar="ID_OR_NAME")
@_file_options
def revoke_token(token: str, db: str, tokens_file: str | None, as_json: bool) -> None:
    """End a token; running engines refuse it within a second.

    The last one does not open the API again: to go back to an API without tokens, remove the file and restart the
    engine.

    In Python: holdfast.security.tokens.TokenFile.revoke.
    """
    file = _file(db, tokens_file)
    ended = file.revoke(token)
    show(_document(ended) | {"status": "revoked"}, as_json, lambda: f"revoked {ended.id}")


def _file(db: str, tokens_file: str | None) -> TokenFile:
    from holdfast.security.tokens import TokenFile, tokens_path

    return TokenFile(tokens_file or tokens_path(db))


def _duration_ms(text: str) -> int:
    from holdfast.protocol.durations import parse_duration_ms

    try:
        duration_ms = parse_duration_ms(text)
    except ValueError as error:
        raise InvalidRequest(f"--expires {text!r}: {error}", hint="write 90d, 12h or PT1H") from error
    if duration_ms <= 0:
        raise InvalidRequest(f"--expires {text!r} is over already", hint="write 90d, 12h or PT1H")
    return duration_ms


def _how_to_send(token: Token) -> str:
    return f"the commands take it from HOLDFAST_{token.scope.upper()}_TOKEN, others send 'authorization: Bearer TOKEN'"


def _status(token: Token) -> str:
    if token.revoked_at_ms is not None:
        return "revoked"
    return "usable" if token.is_usable(time.time_ns() // 10**6) else "expired"


def _document(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "scope": token.scope,
        "status": _status(token),
        "created_at_ms": token.created_at_ms,
        "expires_at_ms": token.expires_at_ms,
        "revoked_at_ms": token.revoked_at_ms,
    }


def _table(found: list[Token]) -> str:
    rows: list[Sequence[str]] = [
        (
            token.id,
            token.name,
            token.scope,
            _status(token),
            _instant(token.created_at_ms),
            _instant(token.expires_at_ms),
        )
        for token in found
    ]
    return table(("ID", "NAME", "SCOPE", "STATUS", "CREATED", "EXPIRES"), rows)


def _instant(at_ms: int | None) -> str:
    return "-" if at_ms is None else datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(" ", "seconds")
