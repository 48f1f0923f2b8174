"""DataFusion's errors -> the messages and status codes of a Restate server. Pure.

The server answers 400 for what it finds wrong while parsing and planning, and 500 for everything else, which for its
version of DataFusion includes every error that points at a place in the query. Read off a server 1.7.12; a test asks both.
"""

from __future__ import annotations

import re

_SAYS_BAD_REQUEST = ("SQL error: ", "Error during planning: ")
_POINTS_AT_A_PLACE = (
    "Error during planning: Column in SELECT must be in GROUP BY",
    "Error during planning: Invalid function ",
    "Error during planning: Too many columns! The subquery",
    "Error during planning: UNION queries have different number of columns",
    'SQL error: ParserError("Expected: end of statement',
)
_UNKNOWN_TABLE = re.compile(r"Error during planning: table '(?P<table>[^']*)' not found$")
_DESCRIBES = re.compile(r"\s*(describe|desc|show)\b", re.IGNORECASE)
_PREFIX = "DataFusion error: "
"""Of the Python package, on errors while a query runs."""

_IDEMPOTENCY = (
    " (sys_idempotency is gone since Restate 1.7; ask instead: SELECT id, target, idempotency_key FROM sys_invocation "
    "WHERE idempotency_key IS NOT NULL)"
)


def refusal(sql: str, error: str) -> tuple[str, int]:
    """(message, HTTP status) for an error of DataFusion's."""
    text = error.removeprefix(_PREFIX)
    status = 400 if text.startswith(_SAYS_BAD_REQUEST) and not text.startswith(_POINTS_AT_A_PLACE) else 500
    unknown = _UNKNOWN_TABLE.fullmatch(text)
    if unknown is not None:
        status = 400 if _DESCRIBES.match(sql) else 500
        if unknown["table"].endswith(".sys_idempotency"):
            text += _IDEMPOTENCY
    return f"Datafusion error: {text}", status
