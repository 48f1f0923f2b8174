"""An argument that is JSON, `@FILE`, or `-` for standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from holdfast.errors import InvalidRequest


def read(argument: str) -> bytes:
    """The bytes that `argument` stands for.

    Raises:
        InvalidRequest: the file cannot be read.
    """
    if argument == "-":
        return sys.stdin.buffer.read()
    if not argument.startswith("@"):
        return argument.encode()
    try:
        return Path(argument[1:]).read_bytes()
    except OSError as error:
        message = f"cannot read {argument[1:]}: {error.strerror}"
        raise InvalidRequest(message, hint="@FILE stands for the content of a file") from error


def check_json(content: bytes, *, otherwise: str) -> None:
    """Refuse what is not JSON before it is sent.

    Args:
        otherwise: The option for content that is meant to be something else.
    Raises:
        InvalidRequest: with a hint about the usual cause, missing quotes.
    """
    try:
        json.loads(content)
    except ValueError as error:
        hint = f"text needs JSON quotes, inside the shell's: '\"Ada\"'; what is not JSON needs {otherwise}"
        raise InvalidRequest(f"not JSON: {error}", hint=hint) from error
