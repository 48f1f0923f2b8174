"""JSON and query strings -> dataclasses, by their type hints. Pure.

The same hints make the OpenAPI document (`schemas.py`), so that what is documented is what is checked. The client reads
answers with it as well.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar, cast

from holdfast.errors import InvalidRequest
from holdfast.providers.errors import InvalidInput
from holdfast.providers.validation import parse_duration

T = TypeVar("T")

_SPACE_FOR_PLUS = re.compile(r" (?=\d\d:\d\d$)")


def parse_json(body: bytes) -> Any:
    """A request's body.

    Raises:
        InvalidRequest: not JSON, or JSON that cannot be written again: NaN, a number beyond all limits, half a
            surrogate pair, too deep a nesting.
    """
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", hint=_BODY_HINT) from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}", hint=_BODY_HINT) from None
    return document


_BODY_HINT = "send a JSON object, e.g. curl -d @request.json"


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def from_json(kind: type[T], document: Any, at: str = "") -> T:
    """A dataclass from its JSON form.

    Args:
        at: Where the document is inside a larger one; the beginning of field names in errors.
    Raises:
        InvalidInput: with the name of the field that is unknown, missing, or of a wrong type.
    """
    if not isinstance(document, Mapping):
        raise InvalidInput(at or "body", f"must be a JSON object, not {_json_kind(document)}")
    return _read_object(kind, cast("Mapping[str, Any]", document), at, refuse_unknown=True)


def from_answer(kind: type[T], document: Mapping[str, Any]) -> T:
    """A dataclass from the answer of a server, which may be newer than we are and tell more."""
    return _read_object(kind, document, "", refuse_unknown=False)


def from_query(kind: type[T], items: Sequence[tuple[str, str]]) -> T:
    """A dataclass from the parameters of a query string.

    Raises:
        InvalidInput: with the name of the parameter that is unknown, given twice, or malformed.
    """
    given: dict[str, list[str]] = {}
    for name, value in items:
        given.setdefault(name, []).append(value)
    hints = hints_of(kind)
    _check_known(given, hints, "", "parameter")
    values: dict[str, Any] = {}
    for name, texts in given.items():
        hint = hints[name]
        if typing.get_origin(hint) is tuple:
            item = typing.get_args(hint)[0]
            values[name] = tuple(_read(_from_text(item, text), item, name, True) for text in texts)
        elif len(texts) > 1:
            raise InvalidInput(name, f"is given {len(texts)} times")
        else:
            values[name] = _read(_from_text(hint, texts[0]), hint, name, True)
    _check_limits(kind, values)
    return _made(kind, values, hints, "")


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """Field -> type of a dataclass, also of a generic one with its argument, in the order of its fields."""
    origin = typing.get_origin(kind) or kind
    hints = typing.get_type_hints(origin)
    meant = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(kind), strict=True))
    return {field.name: _substituted(hints[field.name], meant) for field in dataclasses.fields(origin)}


def optional(hint: Any) -> Any:
    """`X` of `X | None`; None when the hint is no such thing."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        others = [each for each in typing.get_args(hint) if each is not types.NoneType]
        if len(others) == 1 and len(typing.get_args(hint)) == 2:
            return others[0]
    return None


def _substituted(hint: Any, meant: Mapping[Any, Any]) -> Any:
    if hint in meant:
        return meant[hint]
    if typing.get_origin(hint) is tuple:
        return tuple[(*(_substituted(each, meant) for each in typing.get_args(hint)),)]
    return hint


def _read_object(kind: Any, document: Mapping[str, Any], at: str, *, refuse_unknown: bool) -> Any:
    hints = hints_of(kind)
    if refuse_unknown:
        _check_known(document, hints, at, "field")
    values = {
        name: _read(document[name], hint, f"{at}{name}", refuse_unknown)
        for name, hint in hints.items()
        if name in document
    }
    if refuse_unknown:
        _check_limits(kind, values)
    return _made(kind, values, hints, at)


def _made(kind: Any, values: Mapping[str, Any], hints: Mapping[str, Any], at: str) -> Any:
    origin = typing.get_origin(kind) or kind
    for field in dataclasses.fields(origin):
        if field.name not in values and not has_default(field):
            if optional(hints[field.name]) is not None:
                values = {**values, field.name: None}
                continue
            raise InvalidInput(f"{at}{field.name}", "is required")
    return origin(**values)


def has_default(field: dataclasses.Field[Any]) -> bool:
    """Whether a field may be left out."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _check_known(given: Mapping[str, Any], hints: Mapping[str, Any], at: str, what: str) -> None:
    for name in given:
        if name not in hints:
            known = ", ".join(hints) or "none"
            raise InvalidInput(f"{at}{name}", f"is no {what} of this request", hint=f"known are: {known}")


def _check_limits(kind: Any, values: Mapping[str, Any]) -> None:
    for field in dataclasses.fields(typing.get_origin(kind) or kind):
        value = values.get(field.name)
        least, most = field.metadata.get("minimum"), field.metadata.get("maximum")
        if field.metadata.get("minLength") and value == "":
            raise InvalidInput(field.name, "must not be empty")
        if value is not None and least is not None and not least <= value <= most:
            raise InvalidInput(field.name, f"must be {least} to {most}, not {value}")


def _from_text(hint: Any, text: str) -> Any:
    """A parameter's text as the JSON value that it stands for."""
    hint = optional(hint) or hint
    if hint is bool:
        return {"true": True, "false": False}.get(text, text)
    if hint is int:
        return int(text) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else text
    if hint is timedelta and re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text, re.ASCII):
        return float(text)
    if hint is datetime:
        return _SPACE_FOR_PLUS.sub("+", text)  # `+` is a space in a query string, and nobody remembers
    return text


def _read(value: Any, hint: Any, at: str, strict: bool) -> Any:
    """One value. `at` names it in errors."""
    if hint is Any:
        return value
    if (inner := optional(hint)) is not None:
        return None if value is None else _read(value, inner, at, strict)
    origin = typing.get_origin(hint)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(value, typing.get_args(hint)[1], at, strict)
    if origin is tuple:
        if not isinstance(value, list):
            raise InvalidInput(at, f"must be a list, not {_json_kind(value)}")
        item = typing.get_args(hint)[0]
        return tuple(_read(each, item, f"{at}[{index}]", strict) for index, each in enumerate(cast("list[Any]", value)))
    if isinstance(hint, types.UnionType):  # of JSON's own types: text or an object
        return value
    if dataclasses.is_dataclass(origin or hint):
        if not isinstance(value, Mapping):
            raise InvalidInput(at, f"must be an object, not {_json_kind(value)}")
        return _read_object(hint, cast("Mapping[str, Any]", value), f"{at}.", refuse_unknown=strict)
    return _scalar(value, hint, at)


def _mapping(value: Any, item: Any, at: str, strict: bool) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(at, f"must be an object, not {_json_kind(value)}")
    given = cast("Mapping[str, Any]", value)
    return {name: _read(each, item, f"{at}.{name}", strict) for name, each in given.items()}


def _scalar(value: Any, hint: type, at: str) -> Any:
    if hint is timedelta:
        try:
            return parse_duration(value)
        except (ValueError, OverflowError) as error:
            raise InvalidInput(at, str(error)) from None
    if hint is datetime:
        return _time(value, at)
    if issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            known = ", ".join(hint)
            raise InvalidInput(at, f"{str(value)[:100]!r} is not one of {known}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InvalidInput(at, f"must be {_TYPES[hint]}, not {_json_kind(value)}")
    return value


def _time(value: Any, at: str) -> datetime:
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidInput(at, f"{str(value)[:100]!r} is no time with a zone; write one like 2025-12-31T23:59:00Z")


_TYPES: dict[type, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _json_kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {value[:40]!r}"
        case int() | float():
            return f"the number {value!r:.40}"
        case list():
            return "a list"
        case _:
            return "an object"
