"""The filters of a query's plan, so that a table can tell which of them it was given.

DataFusion hands a dataset its filter as a pyarrow expression, which tells nobody what is in it. So the same filter is
taken from the plan, where it can be read, and made into an expression in the way DataFusion's Python package does; the
two are compared. A filter that is not recognised is applied to every row: slower, never wrong.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# pyarrow and DataFusion bring no types for what is used here.

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from holdfast.query.conditions import Condition, Filterable, condition_of

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "AND": operator.and_,
    "OR": operator.or_,
}


class _Unknown(Exception):
    """An expression that DataFusion would not hand over either."""


@dataclass(frozen=True, slots=True)
class Filter:
    """The conjunction of the filters on one scan of a table."""

    expressions: tuple[Any, ...]
    """DataFusion's."""
    mirrored: Any
    """As DataFusion hands it to the dataset."""
    exact: Any
    """The same, with SQL's meaning of NULL: `NULL NOT IN (…)` is not true."""
    columns: frozenset[str] = field(default=frozenset())

    def condition(self, filterable: Mapping[str, Filterable]) -> Condition | None:
        """What SQLite can do of it; None if nothing."""
        known = [condition_of(expression, filterable) for expression in self.expressions]
        found = [condition for condition in known if condition is not None]
        if not found:
            return None
        result = found[0] if len(found) == len(known) else found[0].widened()
        for condition in found[1:]:
            result &= condition
        return result


def filters_of(plan: Any) -> list[Filter]:
    """Of every scan in an optimized plan; a scan inside a subquery's expression is not seen."""
    found: list[Filter] = []
    for scan in _scans(plan):
        expressions = tuple(scan.filters())
        if not expressions:
            continue
        try:
            mirrored = _conjunction([_expression(expression, is_exact=False) for expression in expressions])
            exact = _conjunction([_expression(expression, is_exact=True) for expression in expressions])
        except (_Unknown, TypeError):  # TypeError: pyarrow's scalars cannot be combined with AND and OR
            continue
        names: set[str] = set()
        for expression in expressions:
            _collect(expression, names)
        found.append(Filter(expressions, mirrored, exact, frozenset(names)))
    return found


def _scans(plan: Any) -> Iterator[Any]:
    waiting = [plan]
    while waiting:
        node = waiting.pop()
        inputs = node.inputs()
        if inputs:
            waiting += inputs
        elif node.display().startswith("TableScan"):
            yield node.to_variant()


def _conjunction(expressions: list[Any]) -> Any:
    result = expressions[0]
    for expression in expressions[1:]:
        result = result & expression
    return result


def _expression(expression: Any, *, is_exact: bool) -> Any:
    """As the `PyArrowFilterExpression` of DataFusion's Python package makes it."""

    def of(inner: Any) -> Any:
        return _expression(inner, is_exact=is_exact)

    match expression.variant_name():
        case "Column":
            return pc.field(expression.to_variant().name())
        case "Literal":
            return expression.python_value()
        case "BinaryExpr":
            left, right = expression.rex_call_operands()
            apply = _OPERATORS.get(expression.rex_call_operator())
            if apply is None:
                raise _Unknown
            return apply(of(left), of(right))
        case "Not":
            return ~of(expression.rex_call_operands()[0])
        case "IsNotNull":
            return of(expression.rex_call_operands()[0]).is_valid()
        case "IsNull":
            return of(expression.rex_call_operands()[0]).is_null(nan_is_null=False)
        case "Between":
            subject, low, high = [of(inner) for inner in expression.rex_call_operands()]
            within = (low <= subject) & (subject <= high)
            return ~within if expression.to_variant().negated() else within
        case "InList":
            return _in_list(expression, of, is_exact=is_exact)
        case _:
            raise _Unknown


def _in_list(expression: Any, of: Callable[[Any], Any], *, is_exact: bool) -> Any:
    subject, *members = expression.rex_call_operands()
    if any(member.variant_name() != "Literal" for member in members):
        raise _Unknown
    column = of(subject)
    found = column.isin([member.python_value().as_py() for member in members])
    if not expression.to_variant().negated():
        return found
    return ~found & column.is_valid() if is_exact else ~found


def _collect(expression: Any, names: set[str]) -> None:
    match expression.variant_name():
        case "Column":
            names.add(expression.to_variant().name())
        case "Literal":
            pass
        case _:
            for inner in expression.rex_call_operands():
                _collect(inner, names)
