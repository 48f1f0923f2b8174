"""Rows of each table: where they come from, and how a filter on them reaches SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.core import ids
from holdfast.query.conditions import Condition, Filterable, Kind
from holdfast.query.reading import Reading, Row

Make = Callable[..., Any]
"""(reading, the value of each expression) -> the column's value."""


class Source(Protocol):
    """Rows of one table."""

    @property
    def filterable(self) -> Mapping[str, Filterable]:
        """What a condition may speak of."""
        ...

    def rows(self, reading: Reading, columns: Sequence[str], condition: Condition | None) -> Iterator[Row]:
        """Values of `columns`, in that order, of at least the rows that satisfy `condition`."""
        ...


@dataclass(frozen=True, slots=True)
class Column:
    """A column out of SQLite expressions. Without `make` it is the value of the one expression."""

    reads: tuple[str, ...]
    make: Make | None = None
    kind: Kind | None = None
    """How filters on it are handed to SQLite; None: they are not."""


_NULL = Column(("NULL",))


@dataclass(frozen=True, slots=True)
class Selected:
    """A table that is a SELECT. Columns without an entry are null."""

    source: str
    where: str
    columns: Mapping[str, Column]
    filterable: Mapping[str, Filterable] = field(init=False)

    def __post_init__(self) -> None:
        known = {name: Filterable(c.reads[0], c.kind) for name, c in self.columns.items() if c.kind is not None}
        object.__setattr__(self, "filterable", known)

    def rows(self, reading: Reading, columns: Sequence[str], condition: Condition | None) -> Iterator[Row]:
        plan = [self.columns.get(name, _NULL) for name in columns]
        reads = list(dict.fromkeys(read for column in plan for read in column.reads))
        where = self.where if condition is None else f"{self.where} AND {condition.sql}"
        sql = f"SELECT {', '.join(reads) or '1'} FROM {self.source} WHERE {where}"  # noqa: S608 ours; values are bound
        found = reading.rows(sql, () if condition is None else condition.values)
        place = {read: index for index, read in enumerate(reads)}
        if any(column.make for column in plan):
            return _made(reading, found, [(column.make, [place[read] for read in column.reads]) for column in plan])
        order = [place[column.reads[0]] for column in plan]
        if order == list(range(len(reads))):
            return found  # as asked for: nothing to do for each row
        return (tuple([row[index] for index in order]) for row in found)


def _made(reading: Reading, rows: Iterable[Row], plan: list[tuple[Make | None, list[int]]]) -> Iterator[Row]:
    for row in rows:
        yield tuple(
            [
                row[places[0]] if make is None else make(reading, *[row[index] for index in places])
                for make, places in plan
            ]
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """A table whose rows somebody makes, each as the values of some of its columns; the others are null.

    Args:
        make: (reading, the columns that are wanted, condition) -> rows by column.
    """

    make: Callable[[Reading, frozenset[str], Condition | None], Iterable[Mapping[str, Any]]]
    filterable: Mapping[str, Filterable] = field(default_factory=dict[str, Filterable])

    def rows(self, reading: Reading, columns: Sequence[str], condition: Condition | None) -> Iterator[Row]:
        for row in self.make(reading, frozenset(columns), condition):
            yield tuple([row.get(name) for name in columns])


# ---- what several tables say ---------------------------------------------------------------------------------------------


def as_stored(sql: str, kind: Kind | None = None) -> Column:
    """A column that is one SQLite expression."""
    return Column((sql,), None, kind)


def partition_key_of_id(invocation_id: str) -> int:
    return int.from_bytes(ids.invocation_bytes(invocation_id)[:8], "big")


def partition_key_of_key(key: str) -> int:
    return int.from_bytes(ids.partition_key(key), "big")


def computed(sql: str, of: Callable[[Any], Any]) -> Column:
    """A column that is made of one SQLite expression."""

    def make(_reading: Reading, value: Any) -> Any:
        return of(value)

    return Column((sql,), make)


def text_or_none(value: bytes) -> str | None:
    """UTF-8 text; None for bytes that are none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def no_rows(_reading: Reading, _columns: frozenset[str], _condition: Condition | None) -> Iterable[Mapping[str, Any]]:
    return ()
