"""Tokens that are sent in a header. Checked where they come in: what goes wrong with a header later quotes it, in an error
and in the log."""

from __future__ import annotations

import click

UNSENDABLE = "has characters that no header can carry, such as the line end of a file; copy it again"


def can_be_sent(token: str) -> bool:
    return token.isascii() and token.isprintable() and token == token.strip()


def sendable(_context: click.Context, _parameter: click.Parameter, token: str | None) -> str | None:
    """Callback of an option: the token, unless no header can carry it. The error does not repeat it."""
    if token and not can_be_sent(token):
        raise click.BadParameter(UNSENDABLE)
    return token
