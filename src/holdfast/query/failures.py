"""Failures of attempts as the server words them in SQL. Pure.

The names of codes were read off a server 1.7.12; all others have none.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

from holdfast.protocol.messages import COMMAND_NAMES, AttemptError

_NAMES = {
    400: "Bad request",
    404: "Not found",
    409: "Aborted",
    410: "Gone",
    415: "Unsupported media type",
    470: "Not ready",
    500: "Internal",
    570: "Journal mismatch",
    571: "Protocol violation",
    572: "Awaiting two async results",
    573: "Unsupported feature",
}
_DOC_CODES = {570: "RT0016", 571: "RT0012"}
_HANDLER_ERROR = "RT0007"
_OWN_DOC_CODE = re.compile(r" \[(RT\d{4})\]$")
"""How the engine's own failures end."""

_RELATED = ("related_command_index", "related_command_name", "related_command_type")


def coded(code: int) -> str:
    """`500 Internal`; a code without a name alone."""
    name = _NAMES.get(code)
    return f"{code} {name}" if name else str(code)


def last_failure(error: AttemptError) -> str:
    """`[500 Internal] what happened`, and the stack trace on the next lines."""
    text, _ = _worded(error.message, error.code)
    trace = f"\n{error.stacktrace}" if error.stacktrace else ""
    return f"[{coded(error.code)}] {text}{trace}"


def doc_code(error: AttemptError) -> str:
    """The code under which Restate documents the failure, `RT0007` and the like."""
    return _worded(error.message, error.code)[1]


def related_command_type(error: AttemptError) -> str | None:
    return COMMAND_NAMES.get(error.command_type) if error.command_type else None


def event_json(stored: str) -> str:
    """A stored journal event in the server's fields and their order."""
    event = cast(dict[str, Any], json.loads(stored))
    failure = event.get("last_failure")
    if event["ty"] == "TransientError":
        document = {"ty": event["ty"], **_failure(event)}
    else:
        document = {"ty": event["ty"]} | ({"last_failure": _failure(failure)} if failure else {})
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _failure(stored: dict[str, Any]) -> dict[str, Any]:
    text, doc = _worded(stored["error_message"], stored["error_code"])
    document = {
        "error_code": stored["error_code"],
        "error_message": text,
        "error_stacktrace": stored.get("error_stacktrace"),
        "restate_doc_error_code": doc,
        **{name: stored.get(name) for name in _RELATED},
    }
    return {name: value for name, value in document.items() if value is not None}


def _worded(text: str, code: int) -> tuple[str, str]:
    """(message, documentation code)."""
    own = _OWN_DOC_CODE.search(text)
    if own is not None:
        return text[: own.start()], own[1]
    return text, _DOC_CODES.get(code, _HANDLER_ERROR)
