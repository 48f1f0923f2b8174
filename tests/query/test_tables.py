"""Tables of a running engine beside those of a Restate server: the same columns, and the same rows after the same history."""

from __future__ import annotations

import pytest

from tests.query.history import Asked
from tests.query.normal import Names, differences

pytestmark = pytest.mark.restate_server

COLUMNS = """
    SELECT table_name, column_name, ordinal_position, data_type, is_nullable FROM information_schema.columns
    WHERE table_schema = 'public' ORDER BY table_name, ordinal_position
"""
KINDS = "SELECT table_schema, table_name, table_type FROM information_schema.tables ORDER BY table_schema, table_name"

UNKNOWN_TO_US = frozenset(("created_using_restate_version", "last_awaiting_on_future_json"))
"""Columns that holdfast leaves null; see docs/query.md."""
SOMETIMES_UNKNOWN = frozenset(("idempotency_key",))
"""Calls without an idempotency key are given none."""

EXCEPT = {
    "sys_invocation": UNKNOWN_TO_US | SOMETIMES_UNKNOWN,
    "sys_invocation_status": UNKNOWN_TO_US | SOMETIMES_UNKNOWN,
    "sys_invocation_state": UNKNOWN_TO_US,
    # An empty value is encoded with one field more; ids and times are in it too.
    "sys_journal": frozenset(("raw", "raw_length")),
    "sys_inbox": frozenset(("sequence_number",)),
    "sys_deployment": frozenset(("endpoint",)),
    "state": frozenset(("value",)),  # holds ids; value_utf8 is compared
}
ONLY_WHERE = {"sys_journal_events": "WHERE event_type != 'Suspended'"}
"""With protocol version 7, the server also notes every suspension."""

TABLES = [
    "sys_invocation",
    "sys_invocation_status",
    "sys_invocation_state",
    "sys_journal",
    "sys_journal_events",
    "sys_inbox",
    "sys_keyed_service_status",
    "sys_promise",
    "sys_service",
    "sys_deployment",
    "state",
    "sys_locks",
    "sys_rules",
    "sys_scheduler",
    "sys_user_limits",
    "sys_vqueue_entry_status",
    "sys_vqueue_meta",
    "sys_vqueues",
]


@pytest.mark.parametrize("sql", [COLUMNS, KINDS])
def test_the_same_tables_and_columns(holdfast_side: Asked, restate_side: Asked, sql: str) -> None:
    assert holdfast_side.rows(sql) == restate_side.rows(sql)


@pytest.mark.parametrize("table", TABLES)
def test_the_same_rows(holdfast_side: Asked, restate_side: Asked, table: str) -> None:
    without = EXCEPT.get(table, frozenset[str]()) | {"partition_key"}
    ours, theirs = [
        Names(side).rows(side.rows(f"SELECT * FROM {table} {ONLY_WHERE.get(table, '')}"), without=without)
        for side in (holdfast_side, restate_side)
    ]
    assert differences(ours, theirs) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DISTINCT service_key, partition_key FROM state WHERE service_name = 'Counter'",
        "SELECT service_key, partition_key FROM sys_inbox",
        "SELECT service_key, partition_key FROM sys_keyed_service_status",
        "SELECT service_key, key, partition_key FROM sys_promise",
        "SELECT target, partition_key FROM sys_invocation_status WHERE target_service_key IS NOT NULL",
    ],
)
def test_the_same_partition_keys_of_keys(holdfast_side: Asked, restate_side: Asked, sql: str) -> None:
    ours, theirs = [sorted(map(str, side.rows(sql))) for side in (holdfast_side, restate_side)]
    assert ours == theirs
    assert ours


def test_waiting_for_a_key_is_a_time_of_its_own(holdfast_side: Asked, restate_side: Asked) -> None:
    sql = """
        SELECT inboxed_at >= created_at AS queued, running_at > inboxed_at AS waited, completed_at >= running_at AS ran
        FROM sys_invocation WHERE id = '{}' AND running_at <= now()
    """
    for side in (holdfast_side, restate_side):
        assert side.rows(sql.format(side.ids["had its turn"])) == [{"queued": True, "waited": True, "ran": True}]


def test_partition_keys_of_one_invocation_agree(holdfast_side: Asked) -> None:
    sql = """
        SELECT count(*) AS n, count(DISTINCT s.partition_key) AS partitions FROM sys_invocation_status s
        JOIN sys_journal j ON j.id = s.id AND j.partition_key = s.partition_key
        WHERE s.id = '{}'
    """
    assert holdfast_side.rows(sql.format(holdfast_side.ids["steps"])) == [{"n": 21, "partitions": 1}]


def test_stored_bytes_are_those_of_the_protocol(holdfast_side: Asked, restate_side: Asked) -> None:
    # Entries without ids and times in them; only how an empty value is written differs.
    sql = """
        SELECT j.index, j.raw, j.raw_length FROM sys_journal j
        WHERE j.id = '{}' AND j.index > 0 ORDER BY j.index
    """
    for name in ("fill", "look", "failing step", "raw"):
        ours, theirs = [side.rows(sql.format(side.ids[name])) for side in (holdfast_side, restate_side)]
        assert ours == theirs, name
