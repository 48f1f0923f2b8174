"""Rows of two engines made comparable: what must differ (ids, times, ports, paths) gets a name that does not."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from tests.query.history import Asked, Rows

_PATTERNS = [
    (re.compile(r"inv_1\w{33}"), "<invocation>"),
    (re.compile(r"dp_1\w{22}"), "<deployment>"),
    (re.compile(r"sign_1[\w-]+"), "<awakeable>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"(?<=http://)127\.0\.0\.1:\d+"), "<address>"),
    (re.compile(r'File "[^"]*/', re.MULTILINE), 'File "'),
    (re.compile(r"line \d+, in"), "line <n>, in"),
]
_TIME_FIELDS = frozenset(("wake_up_time", "invoke_time"))
_UNORDERED = frozenset(("services", "suspended_waiting_for_signals"))


class Names:
    """Invocation ids of one engine, named by what made them."""

    def __init__(self, side: Asked) -> None:
        self._names = {invocation_id: f"<{name}>" for name, invocation_id in side.ids.items()}
        counts: Counter[str] = Counter()
        sql = "SELECT id, invoked_by_id, target FROM sys_invocation WHERE invoked_by_id IS NOT NULL ORDER BY created_at"
        for row in side.rows(sql):
            caller = self._names.get(row["invoked_by_id"], "?")
            label = f"{caller} calls {row['target']}"
            counts[label] += 1
            self._names.setdefault(row["id"], f"<{label} {counts[label]}>")

    def text(self, value: str) -> str:
        """The text with names in place of ids, times and places."""
        for invocation_id, name in self._names.items():
            value = value.replace(invocation_id, name)
        for pattern, name in _PATTERNS:
            value = pattern.sub(name, value)
        return value

    def rows(self, rows: Rows, *, without: frozenset[str] = frozenset()) -> Rows:
        """Comparable rows, in an order of their own."""
        named = [
            {column: self._value(column, value) for column, value in row.items() if column not in without}
            for row in rows
        ]
        return sorted(named, key=lambda row: json.dumps(row, sort_keys=True))

    def _value(self, column: str, value: Any) -> Any:
        if column.endswith("_json"):
            return self._document(json.loads(value))
        if column in _UNORDERED:
            return sorted(value)
        return self._document(value)

    def _document(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case list():
                items = cast(list[Any], value)
                if len(items) > 1 and all(type(item) is int and 0 <= item < 256 for item in items):
                    return self.text(bytes(items).decode(errors="replace"))
                return [self._document(item) for item in items]
            case dict():
                members = cast(dict[str, Any], value)
                return {
                    name: "<time>" if name in _TIME_FIELDS and item else self._document(item)
                    for name, item in members.items()
                }
            case _:
                return value


def differences(one: Rows, other: Rows, same: Callable[[Any, Any], bool] = lambda a, b: a == b) -> list[str]:
    """Where the rows of two engines differ, for a message that can be read."""
    found: list[str] = []
    for mine, theirs in zip(one, other, strict=False):
        found += [
            f"{column}: {mine.get(column)!r} instead of {theirs.get(column)!r} in {theirs}"
            for column in sorted(mine.keys() | theirs.keys())
            if not same(mine.get(column), theirs.get(column))
        ]
    if len(one) != len(other):
        found.append(f"{len(one)} rows instead of {len(other)}")
    return found
