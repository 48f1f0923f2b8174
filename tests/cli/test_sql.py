"""`sql`: tables for people, JSON for machines, one line for mistakes."""

from __future__ import annotations

from tests.cli.support import Served


def test_rows_as_a_table(engine: Served):
    invocation_id = engine.call("Greeter/greet", "Ada")
    columns = "id, target, idempotency_key AS key, journal_size AS size"
    output = engine.done("sql", f"SELECT {columns} FROM sys_invocation WHERE id = '{invocation_id}'")
    assert [line.split() for line in output.splitlines()] == [
        ["id", "target", "key", "size"],
        [invocation_id, "Greeter/greet", "2"],
        [],
        ["1", "row"],
    ]


def test_rows_as_json(engine: Served):
    assert engine.json("sql", "SELECT 1 AS a, null AS b, 'ü' AS c") == [{"a": 1, "b": None, "c": "ü"}]


def test_values_stay_on_their_line(engine: Served):
    output = engine.done("sql", "SELECT 'a' || chr(10) || '[b]' AS text, [1, 2] AS list, true AS flag")
    assert output.splitlines()[:2] == ["text    list    flag", "a\\n[b]  [1, 2]  true"]


def test_no_rows(engine: Served):
    assert engine.done("sql", "SELECT id FROM sys_invocation WHERE false").splitlines() == ["id", "", "0 rows"]
    assert engine.json("sql", "SELECT id FROM sys_invocation WHERE false") == []


def test_mistakes(engine: Served):
    result = engine.cli("sql", "SELECT * FROM nope")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error HF0120: Datafusion error: Error during planning: table 'restate.public.nope' not found",
        "  next: tables: holdfast sql 'SHOW TABLES'; columns: holdfast sql 'DESCRIBE sys_invocation'",
    ]
    result = engine.cli("sql", "DELETE FROM state")
    assert result.exit_code == 2
    assert "DML not supported: Delete" in result.stderr


def test_in_python(engine: Served):
    result = engine.admin.query("SELECT null AS a, name FROM sys_service WHERE name = 'Greeter'")
    assert result.columns == ["a", "name"]
    assert result.rows == [{"a": None, "name": "Greeter"}]
