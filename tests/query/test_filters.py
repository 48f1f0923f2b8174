"""A filter that is handed to SQLite keeps the rows that DataFusion would keep: no more, no fewer, NULLs included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Engine
from holdfast.core.model import Status
from holdfast.query.conditions import Condition, Filterable, condition_of
from holdfast.query.exchange import Query
from holdfast.query.reading import Reading, Row, open_copy
from holdfast.query.session import Session
from holdfast.runtime.snapshot import Snapshot
from tests.query.history import Asked, Rows
from tests.query.sample_app import app

TEXTS = st.sampled_from(
    [
        "Worker",
        "Counter",
        "Signup",
        "Board",
        "add",
        "run",
        "busy",
        "k",
        "a",
        "Worker/steps",
        "Counter/a/add",
        "steps",
        "once",
        "ingress",
        "service",
        "success",
        "failure",
        "total",
        "one",
        "zwei",
        "approved",
        "f x",
        "",
        "no'ne",
    ]
)
STATUSES = st.sampled_from(
    [
        "scheduled",
        "pending",
        "ready",
        "running",
        "backing-off",
        "suspended",
        "paused",
        "completed",
        "inboxed",
        "invoked",
        "nonsense",
    ]
)
TIMES = st.sampled_from(["'2020-01-01T00:00:00Z'", "now()", "now() - interval '1 hour'", "'2100-01-01T00:00:00Z'"])
COMPARISONS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])

COLUMNS = {
    "sys_invocation": (
        [
            "id",
            "target",
            "target_service_name",
            "target_service_key",
            "target_handler_name",
            "idempotency_key",
            "invoked_by",
            "invoked_by_service_name",
            "invoked_by_target",
            "completion_result",
            "last_failure_error_code",
        ],
        ["created_at", "completed_at", "scheduled_start_at", "modified_at", "next_retry_at"],
        ["journal_size", "retry_count"],
        True,
    ),
    "sys_invocation_status": (
        ["id", "target", "target_service_key", "invoked_by_id", "completion_failure", "pinned_deployment_id"],
        ["created_at", "completed_at"],
        ["journal_commands_size"],
        True,
    ),
    "state": (["service_name", "service_key", "key", "value_utf8"], [], ["key_length", "value_length"], False),
    "sys_promise": (["service_key", "key", "completion_failure"], [], [], False),
    "sys_journal": (["id", "entry_type", "name"], ["appended_at"], ["index"], False),
    "sys_journal_events": (["id", "event_type"], ["appended_at"], ["after_journal_entry_index"], False),
}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def _leaf(draw: st.DrawFn, table: str, known: list[str]) -> str:
    texts, times, numbers, has_status = COLUMNS[table]
    kinds = ["text", "text", "null"] + ["time"] * bool(times) + ["number"] * bool(numbers) + ["status"] * has_status
    values = st.one_of(TEXTS, st.sampled_from(known)).map(_quoted)
    kind = draw(st.sampled_from(kinds))
    if kind == "null":
        column = draw(st.sampled_from([*texts, *times, *numbers]))
        return f"{column} IS {draw(st.sampled_from(['', 'NOT ']))}NULL"
    if kind == "status":
        column, values = "status", STATUSES.map(_quoted)
    elif kind == "time":
        column, values = draw(st.sampled_from(times)), TIMES
    elif kind == "number":
        column, values = draw(st.sampled_from(numbers)), st.integers(0, 9).map(str)
    else:
        column = draw(st.sampled_from(texts))
    match draw(st.sampled_from(["compare", "compare", "reversed", "in", "between", "like"])):
        case "in":
            members = draw(st.lists(values, min_size=1, max_size=6))
            return f"{column} {draw(st.sampled_from(['', 'NOT ']))}IN ({', '.join(members)})"
        case "between":
            return f"{column} {draw(st.sampled_from(['', 'NOT ']))}BETWEEN {draw(values)} AND {draw(values)}"
        case "reversed":
            return f"{draw(values)} {draw(COMPARISONS)} {column}"
        case "like" if kind == "text":
            return f"{column} LIKE {draw(st.sampled_from(['%e%', 'Worker/%', '%']))!r}"
        case _:
            return f"{column} {draw(COMPARISONS)} {draw(values)}"


def _filters(table: str, known: list[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        _leaf(table, known),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda parts: f"({' '.join(parts)})"),
            inner.map(lambda one: f"(NOT {one})"),
        ),
        max_leaves=4,
    )


@pytest.mark.parametrize("table", COLUMNS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_filter_keeps_the_same_rows(holdfast_side: Asked, table: str, data: st.DataObject) -> None:
    known = [holdfast_side.ids[name] for name in ("steps", "hold", "stumble", "queued 1")]
    condition = data.draw(_filters(table, known))
    # No filter passes a LIMIT: what is around it is DataFusion's work alone.
    all_rows = f"(SELECT * FROM {table} LIMIT 1000000)"
    with_us = _in_order(holdfast_side.rows(f"SELECT * FROM {table} t WHERE {condition}"))
    without_us = _in_order(holdfast_side.rows(f"SELECT * FROM {all_rows} t WHERE {condition}"))
    assert with_us == without_us


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM sys_invocation a JOIN sys_invocation b ON a.id = b.invoked_by_id WHERE b.status = 'completed'",
        "SELECT count(*) AS n FROM state WHERE key = 'total' AND value_utf8 < (SELECT max(value_utf8) FROM state)",
        "SELECT count(*) AS n FROM sys_invocation WHERE id IN (SELECT id FROM sys_journal WHERE entry_type LIKE '%Sleep')",
        "SELECT count(*) AS n FROM sys_invocation a WHERE EXISTS (SELECT 1 FROM sys_inbox b WHERE b.id = a.id)",
        "SELECT count(*) AS n FROM sys_invocation WHERE id = 'x' UNION ALL SELECT count(*) FROM sys_invocation WHERE id != 'x'",
        "SELECT count(*) AS n FROM sys_invocation WHERE target_service_key NOT IN ('a', 'b', 'c', 'd')",
        # What the Python package cannot hand over to a table, or not rightly:
        "SELECT count(*) AS n FROM sys_invocation_status WHERE target = 'a' AND invoked_by_id = 'b' AND invoked_by_id = 'c'",
        "SELECT (SELECT count(*) FROM sys_invocation WHERE target_service_key NOT IN ('a', 'b', 'c', 'd')) AS n",
    ],
)  # fmt: skip
def test_tables_that_are_read_more_than_once(holdfast_side: Asked, sql: str) -> None:
    tables = ("sys_invocation", "sys_journal", "sys_inbox", "state")
    unfiltered = sql
    for table in tables:
        unfiltered = unfiltered.replace(f"FROM {table}", f"FROM (SELECT * FROM {table} LIMIT 1000000)")
        unfiltered = unfiltered.replace(f"JOIN {table}", f"JOIN (SELECT * FROM {table} LIMIT 1000000)")
    assert _in_order(holdfast_side.rows(sql)) == _in_order(holdfast_side.rows(unfiltered))


def _in_order(rows: Rows) -> Rows:
    """Rows of a query without ORDER BY."""
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


# ---- what SQLite is told -------------------------------------------------------------------------------------------------

FILTERABLE = {
    "id": Filterable("i.id"),
    "n": Filterable("i.n", "number"),
    "status": Filterable("i.status", "public status"),
    "stored": Filterable("i.status", "stored status"),
}
LIVE = f"i.status <> '{Status.COMPLETED}' AND "

CONDITIONS: dict[str, Condition | None] = {
    "id = 'x'": Condition("(i.id = ?)", ("x",), True),
    "'x' = id": Condition("(i.id = ?)", ("x",), True),
    "5 < n": Condition("(i.n > ?)", (5,), True),
    "id = 'x' AND other = 'y'": Condition("(i.id = ?)", ("x",), False),
    "id = 'x' OR other = 'y'": None,
    "NOT (id = 'x' AND other = 'y')": None,
    "id IN ('a', 'b', 'c', 'd', 'e')": Condition("(i.id IN (?, ?, ?, ?, ?))", ("a", "b", "c", "d", "e"), True),
    "n IS NULL": Condition("(i.n IS NULL)", (), True),
    "status = 'suspended'": Condition(f"({LIVE}i.status = 'suspended')", (), True),
    "status = 'pending'": Condition(f"({LIVE}i.status = 'inboxed')", (), True),
    "status = 'running'": Condition(f"({LIVE}i.status = 'invoked')", (), False),
    "status != 'running'": None,
    "status != 'completed'": Condition("(i.status <> 'completed')", (), True),
    "status = 'inboxed'": Condition("(0)", (), True),
    "stored = 'inboxed'": Condition(f"({LIVE}i.status = 'inboxed')", (), True),
    "stored = 'pending'": Condition("(0)", (), True),
    "status > 'a'": None,
    "other = 'x'": None,
    "length(id) = 3": None,
}


@pytest.mark.parametrize("filter", CONDITIONS)
def test_conditions(filter: str) -> None:
    import datafusion
    import pyarrow as pa

    text = pa.utf8()
    schema = pa.schema([("id", text), ("n", pa.int64()), ("status", text), ("stored", text), ("other", text)])
    context = datafusion.SessionContext()
    context.register_record_batches("t", [[pa.RecordBatch.from_pylist([], schema=schema)]])
    plan = context.sql(f"SELECT * FROM t WHERE {filter}").optimized_logical_plan()
    (found,) = [node.to_variant() for node in (plan, *plan.inputs()) if node.display().startswith("Filter")]
    assert condition_of(found.predicate(), FILTERABLE) == CONDITIONS[filter]


# ---- what is read --------------------------------------------------------------------------------------------------------


class Counted(Reading):
    """Counts the rows that SQLite gives."""

    def __init__(self, connection: apsw.Connection, snapshot: Snapshot) -> None:
        super().__init__(connection, snapshot)
        self.row_count = 0

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        for row in super().rows(sql, values):
            self.row_count += 1
            yield row


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """Of an engine with 1,000 completed invocations and ten that wait."""

    async def take() -> Snapshot:
        async with Engine(app, drain_ms=0) as engine:
            echo, wait = [engine.services["Worker"].handlers[name] for name in ("echo", "wait_timer")]
            receipts = await asyncio.gather(*[engine.send(echo, None, b"1") for _ in range(1000)])
            await asyncio.gather(*[engine.attach(receipt.invocation_id) for receipt in receipts])
            await asyncio.gather(*[engine.send(wait, None, b"null") for _ in range(10)])
            return await engine.snapshot(_no_file)

    return asyncio.run(take())


async def _no_file(_path: Path) -> None:
    raise AssertionError("an engine in memory has no file")


READS = {
    "SELECT * FROM sys_invocation WHERE id = '{0}'": 1,
    "SELECT id FROM sys_invocation WHERE id IN ('{0}', '{1}', '{2}', '{3}', '{4}', 'inv_1')": 5,
    "SELECT inv.id, dp.id IS NOT NULL AS there FROM sys_invocation inv LEFT JOIN sys_deployment dp "
    "ON dp.id = inv.pinned_deployment_id WHERE inv.id IN ('{0}', '{1}', '{2}', '{3}')": 4,
    "SELECT id FROM sys_invocation WHERE status != 'completed' ORDER BY created_at DESC, id LIMIT 100": 10,
    "SELECT count(*) FROM sys_invocation_status WHERE pinned_deployment_id = 'dp_1' AND status != 'completed'": 10,
    "SELECT id FROM sys_invocation WHERE target_handler_name = 'wait_timer'": 10,
    "SELECT * FROM sys_journal WHERE id = '{0}'": 1,  # Input and Output are in the invocation's own row
    "SELECT * FROM sys_inbox WHERE service_name = 'Worker'": 0,
    "SELECT * FROM state WHERE service_name = 'Counter' AND service_key = 'a'": 0,
    "SELECT id FROM sys_invocation WHERE created_at > now() + interval '1 hour'": 0,
}


@pytest.mark.parametrize("sql", READS)
def test_only_what_is_asked_for_is_read(snapshot: Snapshot, sql: str) -> None:
    assert snapshot.database is not None
    connection = open_copy(snapshot.database)
    try:
        ids = [row[0] for row in connection.execute("SELECT id FROM invocation WHERE status = 'completed' LIMIT 10")]
        reading = Counted(connection, snapshot)
        query = Query(sql.format(*ids), "json", snapshot, rows_max=10_000, bytes_max=1 << 28, timeout_s=60)
        answer = Session(query.bytes_max).answer(query, reading)
        assert answer.outcome == "done", answer.text
        assert reading.row_count == READS[sql]
    finally:
        connection.close()


def test_a_limit_stops_reading(snapshot: Snapshot) -> None:
    assert snapshot.database is not None
    connection = open_copy(snapshot.database)
    try:
        reading = Counted(connection, snapshot)
        query = Query("SELECT id FROM sys_invocation LIMIT 5", "json", snapshot, 10_000, 1 << 28, 60)
        assert Session(query.bytes_max).answer(query, reading).row_count == 5
        assert reading.row_count < 300
    finally:
        connection.close()
