"""What a handler accepts, and what a request's headers and query say about the call. Pure.

The order in which a request's faults are reported is Restate's; `app.py` calls these checks in that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from holdfast.errors import InvalidRequest
from holdfast.ingress.durations import parse_delay_ms
from holdfast.protocol.discovery import InputRules

INGRESS_PATH = "x-restate-ingress-path"

# Of the connection, or of the ingress itself: not part of the handler's input.
_NOT_STORED = frozenset({b"host", b"connection", b"idempotency-key", b"idempotency-expires"})


class StoredHeaders:
    """Which of a request's headers become part of the handler's input.

    Args:
        deny: Names, lower-case, that are left out.
        allow: If given, everything else is left out as well.
    """

    def __init__(self, deny: Iterable[str] = (), allow: Iterable[str] | None = None) -> None:
        self._denied = _NOT_STORED | _names(deny)
        self._allowed = None if allow is None else _names(allow)

    def of(self, fields: Mapping[bytes, bytes], path_and_query: str) -> list[tuple[str, str]]:
        """What is stored of `fields`, in order, the request's path first.

        Raises:
            InvalidRequest: a value is not ASCII, so the journal cannot hold it as text.
        """
        headers = [(INGRESS_PATH, path_and_query)]
        denied = self._denied
        if self._allowed is not None:
            fields = {name: value for name, value in fields.items() if name in self._allowed}
        try:
            for name, value in fields.items():
                if name not in denied:
                    headers.append((str(name, "ascii"), str(value, "ascii").strip(" \t")))
        except UnicodeDecodeError:
            for name, value in fields.items():
                if name not in denied:
                    header_text(str(name, "latin-1"), value)
            raise
        return headers


def _names(names: Iterable[str]) -> frozenset[bytes]:
    return frozenset(name.strip().lower().encode() for name in names)


def check_input(rules: InputRules, content_type: bytes | None, body: bytes) -> None:
    """Whether a handler accepts a content type and body; the body's bytes are not looked at.

    Raises:
        InvalidRequest: no rule of the handler matches; the message tells why the last one does not.
    """
    declared = None if content_type is None else header_text("content-type", content_type)
    if rules.any_body:
        if declared is None and body:
            raise _invalid_input("Empty content-type")
        return
    if rules.empty and declared is None and not body:
        return
    if rules.content_type is None:
        seen = "None" if declared is None else f'Some("{declared}")'
        raise _invalid_input(f"Expected body and content-type to be empty, but wasn't with content-type '{seen}'")
    if declared is None:
        raise _invalid_input("Empty content-type")
    if not _matches(declared, rules.content_type):
        raise _invalid_input(f"Content-type '{declared}' does not match '{rules.content_type}'")
    if rules.non_empty and not body:
        raise _invalid_input("Empty body not allowed")


def _matches(declared: str, accepted: str) -> bool:
    essence = declared.partition(";")[0].strip()
    if accepted == "*/*":
        return True
    if accepted.endswith("/*"):
        return essence.startswith(accepted[:-1])
    # Case counts, and parameters of the accepted type are compared as well: so a Restate server does.
    return essence == accepted


def _invalid_input(reason: str) -> InvalidRequest:
    return InvalidRequest(f"input validation error: {reason}")


def header_fields(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name, in order. Of several with one name the first counts, as on a Restate server."""
    fields = dict(headers)
    if len(fields) != len(headers):
        fields.clear()
        for name, value in headers:
            fields.setdefault(name, value)
    return fields


def header_text(name: str, value: bytes) -> str:
    """A header's value as text, without the space around it, which some HTTP servers leave there.

    Raises:
        InvalidRequest: it is not ASCII.
    """
    try:
        return str(value, "ascii").strip(" \t")
    except UnicodeDecodeError:
        raise InvalidRequest(f"bad header {name}: only ASCII is allowed") from None


def delay_and_limit_key(query: bytes) -> tuple[int | None, bool]:
    """The `delay` of a query in milliseconds, and whether it has a limit key.

    Raises:
        InvalidRequest: `delay` is not a duration.
    """
    delay_ms, has_limit_key = None, False
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        match name.lower():
            case "delay" if delay_ms is None:
                delay_ms = parse_delay_ms(value)
            case "limit-key" if value:
                has_limit_key = True
            case _:
                pass
    return delay_ms, has_limit_key
