"""Our tables as Arrow datasets, which is how DataFusion's Python package takes a table that is read lazily.

DataFusion asks a dataset for the columns it needs and the filters it can express, and reads batches until it has
enough: nothing is loaded that a query does not ask for, and no table is ever in memory as a whole.

Imported in the worker process only, which needs the extra `holdfast[sql]`.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportUnknownParameterType=false
# pyarrow and DataFusion bring no types for what is used here.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from holdfast.query.conditions import Condition
from holdfast.query.filters import Filter
from holdfast.query.reading import Reading, Row
from holdfast.query.schema import NOT_NULL, TABLES, VIEWS, Type
from holdfast.query.tables import Source

FIRST_ROWS, BATCH_ROWS = 128, 4096
"""Batches grow, so that a query with a small LIMIT reads little."""
BATCH_BYTES = 8 << 20

_UTC = "+00:00"  # as the server names it
_TYPES: dict[Type, Any] = {
    "text": pa.large_utf8(),
    "u32": pa.uint32(),
    "u64": pa.uint64(),
    "bool": pa.bool_(),
    "time": pa.timestamp("ms", tz=_UTC),
    "duration": pa.duration("ms"),
    "bytes": pa.large_binary(),
    "u32s": pa.list_(pa.uint32()),
    "texts": pa.list_(pa.large_utf8()),
}


def arrow_schema(table: str) -> Any:
    """The columns that a dataset has: those of the table.

    For a view, texts are narrow: the view widens them, and of narrow ones DataFusion can hand over `IN (…)` lists.
    """
    types = _TYPES | ({"text": pa.utf8()} if table in VIEWS else {})
    fields = [
        pa.field(name, types[kind], nullable=(table, name) not in NOT_NULL) for name, kind in TABLES[table].items()
    ]
    return pa.schema(fields)


@dataclass(slots=True)
class Scans:
    """What the datasets of one DataFusion context read from, set anew for every query."""

    reading: Reading | None = None
    filters: Sequence[Filter] = ()
    """Those of the query's plan."""


class TableDataset(pads.Dataset):
    """One table. Not a dataset of pyarrow's own: only what DataFusion calls is there."""

    def __init__(self, table: str, source: Source, scans: Scans) -> None:
        # pyarrow's constructor is for its own datasets; subclasses in Python leave it out.
        self._schema = arrow_schema(table)
        self._source = source
        self._scans = scans

    @property
    def schema(self) -> Any:
        return self._schema

    def get_fragments(self, filter: Any = None) -> list[_Fragment]:
        return [_Fragment(self)]

    def scanner(self, columns: list[str] | None = None, filter: Any = None, batch_size: int | None = None) -> _Scan:
        wanted = self._schema.names if columns is None else columns
        if filter is None:
            return _Scan(self, wanted, wanted)
        if not isinstance(filter, pc.Expression):  # a constant, such as `false`
            return _Scan(self, wanted, wanted, is_empty=filter.as_py() is not True)
        found = _recognised(filter, self._scans.filters)
        if found is None:  # whatever is named in it may be needed
            more = [name for name in self._schema.names if name in str(filter)]
            return _Scan(self, wanted, [*dict.fromkeys([*wanted, *more])], checked=filter)
        condition = found.condition(self._source.filterable)
        if condition is not None and condition.is_exact:
            return _Scan(self, wanted, wanted, condition)
        return _Scan(self, wanted, [*dict.fromkeys([*wanted, *sorted(found.columns)])], condition, found.exact)

    def batches(self, scan: _Scan) -> Iterator[Any]:
        reading = self._scans.reading
        assert reading is not None, "a table is read while a query runs"
        schema = pa.schema([self._schema.field(name) for name in scan.needed])
        for part in _parts(self._source.rows(reading, scan.needed, scan.condition)):
            batch = _batch(part, schema)
            if scan.checked is not None:
                batch = batch.filter(scan.checked)
            if batch.num_rows:
                yield batch.select(scan.wanted)


class _Fragment:
    """The whole of a table: a dataset's only part."""

    def __init__(self, dataset: TableDataset) -> None:
        self._dataset = dataset

    def scanner(self, _schema: Any, columns: list[str] | None, filter: Any, batch_size: int) -> _Scan:
        return self._dataset.scanner(columns, filter, batch_size)


@dataclass(frozen=True, slots=True)
class _Scan:
    """One reading of a table."""

    dataset: TableDataset
    wanted: list[str]
    """Columns that DataFusion asks for."""
    needed: list[str]
    """Those, and what the filter looks at."""
    condition: Condition | None = None
    """What SQLite does of the filter."""
    checked: Any = None
    """What is left of it to be done here."""
    is_empty: bool = False

    @property
    def projected_schema(self) -> Any:
        return pa.schema([self.dataset.schema.field(name) for name in self.wanted])

    def to_batches(self) -> Iterator[Any]:
        return iter(()) if self.is_empty else self.dataset.batches(self)


def _recognised(filter: Any, known: Sequence[Filter]) -> Filter | None:
    for candidate in known:
        if filter.equals(candidate.mirrored):
            return candidate
    # The one expression that means something else to Arrow than in SQL: there, NULL is not "not in" a list.
    if "invert(is_in(" in str(filter):
        raise NotImplementedError("NOT IN inside a subquery")  # the query is run without handing filters over
    return None


def _parts(rows: Iterator[Row]) -> Iterator[list[Row]]:
    limit, size = FIRST_ROWS, 0
    part: list[Row] = []
    for row in rows:
        part.append(row)
        size += sum([len(value) for value in row if type(value) is bytes or type(value) is str])
        if len(part) >= limit or size >= BATCH_BYTES:
            yield part
            limit, size, part = min(limit * 4, BATCH_ROWS), 0, []
    if part:
        yield part


def _batch(rows: list[Row], schema: Any) -> Any:
    if not schema.names:  # `count(*)` asks for rows without columns
        return pa.RecordBatch.from_arrays([pa.nulls(len(rows))], names=["none"])
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
