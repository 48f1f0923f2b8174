"""Changed code under an invocation in flight: what was recorded, what the code does now, where, and how to go on.

The SDK compares the commands of the code with those of the journal and reports the first difference with code 570; 571
says that the two sides of the protocol disagree otherwise. Trying again changes neither, so the invocation is paused,
with a message that a person can act on. Pure: an error and a journal in, a better error out.

Source: the Error messages of restate-sdk 1.3. It names the command of the code by index, type and name, says in its text
how the two differ, and sends no stack trace with a mismatch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from holdfast.protocol import messages as m
from holdfast.protocol.messages import AttemptError
from holdfast.protocol.wire import MalformedFrame, message, split, string

JOURNAL_MISMATCH, PROTOCOL_VIOLATION = 570, 571

NAME_CHARS_MAX = 80
"""Of names in a message; what is longer is cut."""

_PYTHON_LINE = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)
_JS_LINE = re.compile(
    r"^\s*at (?:(?P<function>[^(\n]+) \()?(?:file://)?(?P<file>[^()\n]+?):(?P<line>\d+):\d+\)?$", re.MULTILINE
)
_FOREIGN = re.compile(
    r"[/\\](?:site|dist)-packages[/\\]restate[/\\]|[/\\]lib[/\\]python[\d.]+[/\\](?!(?:site|dist)-packages)|^<"
    r"|[/\\]node_modules[/\\]|^node:"
)
_DIFFERENCE = re.compile(r"^- Difference:\n((?:   ?.*\n?)+)", re.MULTILINE)
_FIELD = re.compile(r"(?P<field>\w+): (?P<quote>'?)(?P<old>.*)(?P=quote) != (?P=quote)(?P<new>.*)(?P=quote)")
_AWAITED = re.compile(r"^Notifications awaited on this await point:\n((?: - .*\n?)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A command of the journal."""

    number: int
    """Among the commands, Input being 0: how the SDK counts."""
    index: int
    """Among all entries: how the journal is shown."""
    text: str
    message_type: int | None = None
    names: tuple[tuple[str, str], ...] = ()
    """What it is about, by the field's name in the SDK's differences."""


def is_mismatch(error: AttemptError) -> bool:
    """Whether the code and the journal disagree, so that another attempt of the same code fails the same way."""
    return error.code in (JOURNAL_MISMATCH, PROTOCOL_VIOLATION)


def explain(
    error: AttemptError, journal: bytes, invocation_id: str, target: str, *, is_workflow_run: bool
) -> AttemptError:
    """The error with a message that names both entries and the user's line, and says how to go on.

    Args:
        error: As the SDK sent it; `is_mismatch` holds.
        journal: All frames of the journal.
        target: `Service/handler` or `Object/key/handler`.
        is_workflow_run: It cannot be started anew under another id.
    """
    where = source_line(error.stacktrace)
    at, keeps = f" ({where})" if where else "", 0
    ways = [
        "To go on, serve code that takes the recorded path again, then:",
        f"  holdfast invocations resume {invocation_id} --deployment latest",
    ]
    detail: dict[str, Any] = {"source_line": where}
    if error.code == PROTOCOL_VIOLATION:
        first = f"protocol violation{at}: {error.message} [RT0012]"
        lines = [first, "The code changed after this invocation began, or engine and SDK do not understand each other."]
    else:
        recorded, awaited = _recorded(error, journal), _awaited(error)
        attempted = _attempted(error, target, recorded)
        detail |= {
            "recorded": recorded.text,
            "attempted": f"awaits {awaited}" if awaited else attempted,
            "journal_index": recorded.index,
        }
        place = f"command {recorded.number} (journal entry {recorded.index})"
        if awaited:
            first = (
                f"journal mismatch: the code now awaits {awaited}{at}, for which nothing is recorded; "
                f"the journal goes on to {recorded.text}, {place}"
            )
        else:
            keeps = max(0, recorded.index - 1)
            first = f"journal mismatch at {place}: recorded {recorded.text}, but the code now {attempted}{at}"
        lines = [
            f"{first} [RT0016]",
            *_difference(error.message),
            "The code changed after this invocation recorded its journal, or it is not deterministic.",
        ]
    if not is_workflow_run:
        ways += _begin_anew(invocation_id, keeps)
    return replace(error, message="\n".join([*lines, *ways]), detail=detail)


def _begin_anew(invocation_id: str, keeps: int) -> list[str]:
    """How to start it over; `keeps`: the last entry of the journal that the code still fits, 0 if that is the input."""
    but = f"; with `--from {keeps}` only those behind that entry" if keeps else ""
    return [
        f"To begin anew with the code of now (recorded steps run again{but}):",
        f"  holdfast invocations kill {invocation_id}",
        f"  holdfast invocations restart-as-new {invocation_id}",
    ]


def _recorded(error: AttemptError, journal: bytes) -> _Recorded:
    """The command at the place where the SDK found the difference; the last one when it does not name a place."""
    entries = list(split(journal))
    commands = [index for index, (message_type, _) in enumerate(entries) if m.is_command(message_type)]
    number = len(commands) - 1 if error.command_index is None else error.command_index
    if not 0 <= number < len(commands):
        return _Recorded(number, len(entries), "nothing more")
    message_type, body = entries[commands[number]]
    return _Recorded(number, commands[number], describe(message_type, body), message_type, _names(message_type, body))


def _attempted(error: AttemptError, target: str, recorded: _Recorded) -> str:
    if error.command_type is None:
        return "does something else"
    if error.command_type == m.OUTPUT:
        return f"returns from {target}"
    title = _title(error.command_type, error.command_name or "")
    differences = [found for line in _difference(error.message) if (found := _FIELD.fullmatch(line.strip()))]
    if error.command_name or not differences or error.command_type != recorded.message_type or not recorded.names:
        return f"does {title}"
    # The SDK names steps only. Of two commands of one type it says how they differ, and one of them is here.
    changed = {found["field"]: found["new"] for found in differences}
    text = f"{title} {_joined((field, changed.get(field, name)) for field, name in recorded.names)}"
    return f"does {text}" if text != recorded.text else f"does {text} with another {', '.join(changed)}"


def _awaited(error: AttemptError) -> str:
    """What the code waits for, when that is the difference."""
    found = _AWAITED.search(error.message)
    if found is None:
        return ""
    waits = [line.removeprefix(" - ") for line in found[1].splitlines()]
    # The SDK listens for the cancellation at every await.
    return ", ".join(one for one in waits if one != "Cancellation") or waits[0]


def _difference(text: str) -> list[str]:
    """Field by field, recorded != now, when both commands are of one type."""
    found = _DIFFERENCE.search(text)
    return [f"  {line.strip()}" for line in found[1].splitlines() if line.strip()] if found else []


def describe(message_type: int, body: bytes) -> str:
    """A command for people: `Run "charge card"`, `Call Payments/charge`, `SetState status`."""
    try:
        content = message(body)
        title = _title(message_type, string(content, 12))
    except MalformedFrame:  # stored as it came; the message is for people and must not fail
        return _title(message_type, "")
    names = _names(message_type, body)
    return f"{title} {_joined(names)}" if names else title


def _names(message_type: int, body: bytes) -> tuple[tuple[str, str], ...]:
    try:
        if message_type in (m.CALL, m.ONE_WAY_CALL):
            call = m.call_request(message_type, body)
            return ("service_name", call.service), ("key", call.key or ""), ("handler_name", call.handler)
        field = _FIRST_FIELDS.get(message_type)
        return ((field, string(message(body), 1)),) if field is not None else ()
    except MalformedFrame:
        return ()


def _joined(names: Iterable[tuple[str, str]]) -> str:
    return "/".join(_cut(name) for _, name in names if name)


_STATE = (m.GET_LAZY_STATE, m.GET_EAGER_STATE, m.SET_STATE, m.CLEAR_STATE)
_PROMISE = (m.GET_PROMISE, m.PEEK_PROMISE, m.COMPLETE_PROMISE)
_FIRST_FIELDS = {
    **dict.fromkeys((*_STATE, *_PROMISE), "key"),
    m.SEND_SIGNAL: "target_invocation_id",
    m.COMPLETE_AWAKEABLE: "awakeable_id",
}
"""Type -> how the SDK calls the first field, which names the command."""


def _title(message_type: int, name: str) -> str:
    kind = m.COMMAND_NAMES.get(message_type, hex(message_type))
    return f'{kind} "{_cut(name)}"' if name else kind


def _cut(text: str) -> str:
    return text if len(text) <= NAME_CHARS_MAX else f"{text[:NAME_CHARS_MAX]}…"


def source_line(stacktrace: str) -> str | None:
    """`/app/orders.py:31, in checkout`: the user's innermost line of a Python or JavaScript stack trace.

    Lines of libraries and of the language's own runtime are passed over; None when nothing else is there.
    """
    # Python names the innermost frame last, JavaScript first.
    frames = [*reversed([*_PYTHON_LINE.finditer(stacktrace)]), *_JS_LINE.finditer(stacktrace)]
    for found in frames:
        if not _FOREIGN.search(found["file"]):
            function = f", in {found['function']}" if found["function"] else ""
            return f"{found['file']}:{found['line']}{function}"
    return None
