"""DataFusion's filters -> conditions for SQLite, so that a query for one invocation reads one row.

A condition may let through more rows than the filter, never fewer; `is_exact` says when it lets through the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from holdfast.core.model import Status

_COMPARISONS = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_DEPTH_MAX = 100
_SQL_INTEGER = 1 << 63

Kind = Literal["text", "number", "time", "stored status", "public status"]

_STORED_ALIKE = {
    "scheduled": Status.SCHEDULED,
    "pending": Status.INBOXED,
    "suspended": Status.SUSPENDED,
    "paused": Status.PAUSED,
    "completed": Status.COMPLETED,
}
"""Public statuses that are told apart by the row alone."""
_IN_MEMORY = frozenset(("ready", "running", "backing-off"))
_STORED = frozenset(
    (Status.SCHEDULED, Status.INBOXED, Status.INVOKED, Status.SUSPENDED, Status.PAUSED, Status.COMPLETED)
)


@dataclass(frozen=True, slots=True)
class Filterable:
    """A column that SQLite can compare: its expression there, and what its literals are."""

    sql: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Condition:
    sql: str
    values: tuple[Any, ...]
    is_exact: bool

    def __and__(self, other: Condition) -> Condition:
        return Condition(f"({self.sql} AND {other.sql})", self.values + other.values, self.is_exact and other.is_exact)

    def __or__(self, other: Condition) -> Condition:
        return Condition(f"({self.sql} OR {other.sql})", self.values + other.values, self.is_exact and other.is_exact)

    def widened(self) -> Condition:
        return Condition(self.sql, self.values, False)


def condition_of(expression: Any, columns: Mapping[str, Filterable], depth: int = 0) -> Condition | None:
    """What SQLite can say about a filter; None if nothing.

    Args:
        expression: DataFusion's `RawExpr`.
        columns: What SQLite can compare, by column name.
    """
    if depth > _DEPTH_MAX:
        return None
    translate = _TRANSLATORS.get(expression.variant_name())
    return translate(expression, columns, depth) if translate is not None else None


def _binary(expression: Any, columns: Mapping[str, Filterable], depth: int) -> Condition | None:
    operator, (left, right) = expression.rex_call_operator(), expression.rex_call_operands()
    if operator in ("AND", "OR"):
        one, other = condition_of(left, columns, depth + 1), condition_of(right, columns, depth + 1)
        if one is not None and other is not None:
            return one & other if operator == "AND" else one | other
        # Of a conjunction, either half alone lets through enough.
        half = one or other
        return half.widened() if operator == "AND" and half is not None else None
    comparison = _COMPARISONS.get(operator)
    if comparison is None:
        return None
    column = _column(left, columns)
    if column is not None:
        return _compared(column, comparison, right)
    column = _column(right, columns)
    return _compared(column, _MIRRORED[comparison], left) if column is not None else None


def _not(expression: Any, columns: Mapping[str, Filterable], depth: int) -> Condition | None:
    inner = condition_of(expression.rex_call_operands()[0], columns, depth + 1)
    # The opposite of a condition that lets through too much would let through too little.
    return Condition(f"(NOT {inner.sql})", inner.values, True) if inner is not None and inner.is_exact else None


def _null_test(test: str) -> Callable[[Any, Mapping[str, Filterable], int], Condition | None]:
    def translate(expression: Any, columns: Mapping[str, Filterable], _depth: int) -> Condition | None:
        column = _column(expression.rex_call_operands()[0], columns)
        return Condition(f"({column.sql} {test})", (), True) if column is not None else None

    return translate


def _between(expression: Any, columns: Mapping[str, Filterable], _depth: int) -> Condition | None:
    subject, low, high = expression.rex_call_operands()
    column = _column(subject, columns)
    if column is None or expression.to_variant().negated():
        return None
    above, below = _compared(column, ">=", low), _compared(column, "<=", high)
    return above & below if above is not None and below is not None else None


def _in_list(expression: Any, columns: Mapping[str, Filterable], _depth: int) -> Condition | None:
    subject, *members = expression.rex_call_operands()
    column = _column(subject, columns)
    if column is None:
        return None
    if expression.to_variant().negated():
        return _all([_compared(column, "<>", member) for member in members])
    if column.kind in ("text", "number"):
        values = [_literal(member, column.kind) for member in members]
        if None in values:
            return None
        return Condition(f"({column.sql} IN ({', '.join('?' * len(values))}))", tuple(values), True)
    each = [_compared(column, "=", member) for member in members]
    if not all(each):
        return None
    joined = cast(list[Condition], each)
    result = joined[0]
    for condition in joined[1:]:
        result |= condition
    return result


def _all(conditions: list[Condition | None]) -> Condition | None:
    known = [condition for condition in conditions if condition is not None]
    if not known:
        return None
    result = known[0] if len(known) == len(conditions) else known[0].widened()
    for condition in known[1:]:
        result &= condition
    return result


_TRANSLATORS: dict[str, Callable[[Any, Mapping[str, Filterable], int], Condition | None]] = {
    "BinaryExpr": _binary,
    "Not": _not,
    "IsNull": _null_test("IS NULL"),
    "IsNotNull": _null_test("IS NOT NULL"),
    "Between": _between,
    "InList": _in_list,
}


def _column(expression: Any, columns: Mapping[str, Filterable]) -> Filterable | None:
    return columns.get(expression.to_variant().name()) if expression.variant_name() == "Column" else None


def _compared(column: Filterable, comparison: str, literal: Any) -> Condition | None:
    value = _literal(literal, column.kind)
    if value is None:
        return None
    if column.kind == "stored status":
        return _status(column.sql, comparison, value if value in _STORED else None)
    if column.kind == "public status":
        return _public_status(column.sql, comparison, str(value))
    return Condition(f"({column.sql} {comparison} ?)", (value,), True)


def _public_status(sql: str, comparison: str, public: str) -> Condition | None:
    if public not in _IN_MEMORY:
        return _status(sql, comparison, _STORED_ALIKE.get(public))
    if comparison == "=":  # which of the three it is, memory knows
        found = _status(sql, "=", Status.INVOKED)
        return found.widened() if found is not None else None
    return None


def _status(sql: str, comparison: str, stored: str | None) -> Condition | None:
    """Written out, not bound: only then does SQLite see that its index of what is not completed will do."""
    if comparison not in ("=", "<>"):
        return None
    if stored is None:
        return Condition("(0)" if comparison == "=" else "(1)", (), True)
    live = "" if stored == Status.COMPLETED else f"{sql} <> '{Status.COMPLETED}' AND "
    return Condition(f"({live if comparison == '=' else ''}{sql} {comparison} '{stored}')", (), True)


def _literal(expression: Any, kind: Kind) -> str | int | None:
    """The value of a literal if it is of the column's kind."""
    if expression.variant_name() != "Literal":
        return None
    scalar = expression.python_value()
    if kind == "time":
        return scalar.value if str(scalar.type).startswith("timestamp[ms") else None
    value = scalar.as_py()
    if kind == "number":
        return value if type(value) is int and abs(value) < _SQL_INTEGER else None
    return value if isinstance(value, str) else None
