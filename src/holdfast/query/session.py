"""Runs queries in DataFusion. In the worker process only, which needs the extra `holdfast[sql]`."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# pyarrow and DataFusion bring no types for what is used here.

from __future__ import annotations

from typing import Any

import datafusion
import pyarrow as pa
from datafusion.catalog import Table

from holdfast.query import render
from holdfast.query.dataset import Scans, TableDataset
from holdfast.query.exchange import Answer, Query
from holdfast.query.filters import filters_of
from holdfast.query.reading import Reading
from holdfast.query.refusals import refusal
from holdfast.query.schema import VIEWS
from holdfast.query.sources import SOURCES

_OUT_OF_MEMORY = "Resources exhausted"
_OF_PYTHON = "External error: "
"""An error of Python code inside DataFusion: ours, or that of its own package."""


class Session:
    """DataFusion with our tables. Keeps nothing from one query to the next."""

    def __init__(self, bytes_max: int) -> None:
        """
        Args:
            bytes_max: Memory for sorting, grouping and joining; more is refused, nothing is written to disk.
        """
        self.bytes_max = bytes_max
        # Nothing but reading; and no SET or PREPARE, which on a server change the session that all clients share.
        self._options = (
            datafusion.SQLOptions()
            .with_allow_ddl(allow=False)
            .with_allow_dml(allow=False)
            .with_allow_statements(allow=False)
        )
        self._scans = Scans()
        self._context = self._made()
        self._plain: Any = None

    def _made(self) -> Any:
        config = (
            datafusion.SessionConfig()
            .with_default_catalog_and_schema("restate", "public")
            .with_information_schema(enabled=True)
            .with_target_partitions(1)  # the engine beside us needs the other processors more
        )
        runtime = datafusion.RuntimeEnvBuilder().with_greedy_memory_pool(self.bytes_max).with_disk_manager_disabled()
        context = datafusion.SessionContext(config, runtime)
        for name, source in SOURCES.items():
            table = Table(TableDataset(name, source, self._scans))
            if name in VIEWS:
                context.register_view(name, _widened(context.read_table(table)))
            else:
                context.register_table(name, table)
        return context

    def answer(self, query: Query, reading: Reading) -> Answer:
        """Run a query to its end."""
        self._scans.reading = reading
        try:
            try:
                return self._answer(query, self._context)
            except Exception as error:
                if _OF_PYTHON not in str(error):
                    raise
                # Some filters the Python package cannot hand over, such as constants; then it must not try.
                if self._plain is None:
                    self._plain = self._made()
                    self._plain.remove_optimizer_rule("push_down_filter")
                return self._answer(query, self._plain)
        except Exception as error:  # noqa: BLE001 DataFusion's errors have no type of their own
            text = str(error)
            if _OUT_OF_MEMORY in text:
                return Answer("limited", f"needs more than {query.bytes_max} bytes of memory for sorting and grouping")
            message, status = refusal(query.sql, text)
            return Answer("refused", message, status)
        finally:
            self._scans.reading, self._scans.filters = None, ()

    def _answer(self, query: Query, context: Any) -> Answer:
        planned = context.sql_with_options(query.sql, self._options)
        plan = planned.optimized_logical_plan()
        self._scans.filters = filters_of(plan)
        # The optimized plan, so that `now()` is the same in the filters above and in those the tables will get.
        frame = context.create_dataframe_from_logical_plan(plan)
        schema = planned.schema()
        batches: list[Any] = []
        row_count = byte_count = 0
        for piece in frame.execute_stream():
            batch = piece.to_pyarrow()
            row_count += batch.num_rows
            byte_count += batch.nbytes
            if row_count > query.rows_max:
                return Answer("limited", f"has more than {query.rows_max} rows")
            if byte_count > query.bytes_max:
                return Answer("limited", f"has more than {query.bytes_max} bytes")
            batches.append(batch)
        if batches:
            schema = batches[0].schema
        body = render.json_rows(batches) if query.form == "json" else render.arrow_stream(schema, batches)
        if len(body) > query.bytes_max:  # as JSON it may take some times as much
            return Answer("limited", f"has more than {query.bytes_max} bytes")
        return Answer(columns=tuple(schema.names), row_count=row_count, body=body)


def _widened(frame: Any) -> Any:
    """The view over a dataset whose texts are narrow."""
    columns = [
        datafusion.col(field.name).cast(pa.large_utf8()).alias(field.name) if field.type == pa.utf8() else field.name
        for field in frame.schema()
    ]
    return frame.select(*columns)
