"""What can be said in SQL, what comes back and how: each statement is asked of holdfast and of a Restate server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.query.history import Asked
from tests.query.normal import Names

pytestmark = pytest.mark.restate_server

ANSWERED = {
    "numbers": "SELECT 1, -1 AS minus, 18446744073709551615 AS u64, 1.5 AS float, cast(0.1 AS float) AS narrow",
    "extreme floats": "SELECT 1e21 AS a, 1e-7 AS b, cast('inf' AS double) AS c, cast('nan' AS double) AS d, -0.0 AS e",
    "decimals": "SELECT cast(12345.678 AS decimal(20,3)) AS a, cast(-0.5 AS decimal(5,1)) AS b",
    "booleans and nulls": "SELECT true AS t, false AS f, null AS n",
    "text": "SELECT 'a\"b\\c' || chr(1) || chr(10) || 'ü😀' || chr(127) || '/' AS t",
    "names that need escapes": 'SELECT 1 AS "a b", 2 AS "q""x"',
    "bytes": "SELECT cast('ab' AS bytea) AS b, arrow_cast(cast('ab' AS bytea), 'BinaryView') AS v",
    "times": "SELECT timestamp '2020-01-01 00:00:00.5' AS a, timestamp '2020-01-01 00:00:00' AS b, date '2020-01-01' AS c",
    "times with zones": """
        SELECT arrow_cast('2020-01-01T00:00:00.123456Z', 'Timestamp(Microsecond, Some("+02:00"))') AS a,
               arrow_cast('1960-01-01T00:00:00.001Z', 'Timestamp(Millisecond, Some("+00:00"))') AS b,
               arrow_cast('2020-07-01T00:00:00Z', 'Timestamp(Nanosecond, Some("Europe/Berlin"))') AS c
    """,
    "times of day": "SELECT cast('12:34:56.789' AS time) AS a, arrow_cast('12:34:56', 'Time32(Second)') AS b",
    "durations": """
        SELECT arrow_cast(0, 'Duration(Millisecond)') AS a, arrow_cast(-1500, 'Duration(Millisecond)') AS b,
               arrow_cast(1, 'Duration(Nanosecond)') AS c, arrow_cast(90000, 'Duration(Second)') AS d
    """,
    "intervals": """
        SELECT interval '1 month 2 days 3 hours 4.5 seconds' AS a, interval '1 year' AS b, interval '-1 day' AS c,
               interval '0 day' AS d, interval '90 minutes' AS e, interval '-1.25 second' AS f
    """,
    "lists and structs": """
        SELECT named_struct('a', 1, 'b', null, 'c', [1, null, 3], 'd', named_struct('x', null)) AS s,
               make_array(null, 1) AS l, make_array() AS e, make_array(named_struct('a', null)) AS ls
    """,
    "maps": "SELECT map(['a', 'b'], ['x', null]) AS m",
    "other encodings": "SELECT arrow_cast('x', 'Dictionary(Int32, Utf8)') AS a, arrow_cast('x', 'Utf8View') AS b",
    "no rows": "SELECT 1 WHERE false",
    "values": "VALUES (1, 2)",
    "with": "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
    "recursion": "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
    "table functions": "SELECT value FROM generate_series(1, 3) WHERE value > (SELECT 1)",
    "unnest": "SELECT unnest([1, 2]) AS n",
    "windows": "SELECT value, sum(value) OVER (ORDER BY value) AS s FROM range(0, 3)",
    "version": "SELECT version() AS version",
    "full names": "SELECT count(*) AS n FROM restate.public.sys_rules",
    "a final semicolon": "SELECT 1;",
    "a keyword as a column": "SELECT count(index) AS n FROM sys_rules, sys_journal",
    "distinct on": "SELECT DISTINCT ON (name) name FROM sys_service ORDER BY name",
    "describe": "DESCRIBE sys_inbox",
    "show columns": "SHOW COLUMNS FROM sys_inbox",
    "show a setting": "SHOW datafusion.execution.time_zone",
    "show create": "SHOW CREATE TABLE state",
    "schemata": "SELECT * FROM information_schema.schemata",
}

REFUSED = {
    "nothing": "",
    "only a comment": "-- nothing",
    "no expression": "SELECT",
    "a typing error": "SELEC 1",
    "an unfinished condition": "SELECT * FROM state WHERE key = 'a' AND",
    "an unfinished text": "SELECT 'abc",
    "something behind": "LOAD DATA INPATH 'x' INTO TABLE y",
    "two statements": "SELECT 1; SELECT 2",
    "an unknown table": "SELECT * FROM nope",
    "an unknown schema": "SELECT * FROM nope.state",
    "an unknown catalog": "SELECT * FROM datafusion.public.state",
    "an unknown column": "SELECT nope FROM state",
    "an unknown column of the view": "SELECT * FROM sys_invocation WHERE nope = 1",
    "an ambiguous column": "SELECT a.id FROM sys_invocation a, sys_invocation b WHERE id = '1'",
    "an unknown table function": "SELECT * FROM read_parquet('x')",
    "no argument": "SELECT max() FROM state",
    "a column that is not grouped": "SELECT id, count(*) FROM sys_invocation",
    "a sum of texts": "SELECT sum(id) FROM sys_invocation",
    "the same name twice": "SELECT 1 AS a, 2 AS a",
    "a limit that is no number": "SELECT * FROM sys_invocation LIMIT 'x'",
    "a negative offset": "SELECT * FROM state LIMIT 1 OFFSET -1",
    "a union of unequals": "SELECT * FROM (SELECT 1) UNION SELECT 1, 2",
    "a subquery of two columns": "SELECT 1 IN (SELECT 1, 2)",
    "a subquery of two rows": "SELECT (SELECT 1 UNION ALL SELECT 2)",
    "a filter that is no condition": "SELECT * FROM state WHERE key",
    "a placeholder": "SELECT $1",
    "a map that JSON cannot say": "SELECT map([1, 2], ['x', 'y']) AS m",
    "a division by zero": "SELECT 1/0",
    "a text that is no number": "SELECT cast('x' AS int)",
    "a text that is no time": "SELECT cast('a' AS timestamp)",
    "a text that is no interval": "SELECT interval 'x'",
    "an unknown unit": "SELECT date_trunc('nope', now())",
    "describe what is not there": "DESCRIBE nope",
    "show what is not there": "SHOW nope",
    "show columns of what is not there": "SHOW COLUMNS FROM nope",
    "explain nothing": "EXPLAIN",
    "use": "USE x",
    "begin": "BEGIN",
    "call": "CALL x()",
    "grant": "GRANT ALL ON state TO me",
}

WRITES = {
    "create table": "CREATE TABLE x (a int)",
    "create table as": "CREATE TABLE x AS SELECT 1",
    "create external table": "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
    "create view": "CREATE VIEW v AS SELECT 1",
    "create function": "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "create schema": "CREATE SCHEMA x",
    "create database": "CREATE DATABASE x",
    "drop table": "DROP TABLE state",
    "drop view": "DROP VIEW sys_invocation",
    "alter table": "ALTER TABLE state ADD COLUMN x int",
    "insert": "INSERT INTO state SELECT * FROM state",
    "insert one column": "INSERT INTO state (key) VALUES ('a')",
    "insert too little": "INSERT INTO state VALUES (1)",
    "update": "UPDATE state SET key = 'x'",
    "delete": "DELETE FROM state",
    "truncate": "TRUNCATE state",
    "merge": "MERGE INTO state USING state ON 1=1 WHEN MATCHED THEN DELETE",
    "copy": "COPY (SELECT 1) TO 'x.csv'",
    "copy a table": "COPY state TO 'x.csv'",
    "explain copy": "EXPLAIN COPY (SELECT 1) TO 'x.csv'",
    "explain analyze copy": "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'",
    "unload": "UNLOAD (SELECT 1) TO 'x'",
    "a file as a table": "SELECT * FROM '/etc/passwd'",
    "a file in quotes": 'SELECT * FROM "/etc/passwd"',
    "a URL as a table": "SELECT * FROM 'file:///etc/passwd.csv'",
    "read_csv": "SELECT * FROM read_csv('/etc/passwd')",
    "glob": "SELECT * FROM glob('/etc/*')",
}


@pytest.mark.parametrize("case", [*ANSWERED, *REFUSED, *WRITES])
def test_the_same_answer(holdfast_side: Asked, restate_side: Asked, case: str) -> None:
    sql = (ANSWERED | REFUSED | WRITES)[case]
    ours, theirs = holdfast_side.ask(sql), restate_side.ask(sql)
    assert (ours.status_code, ours.headers["content-type"]) == (theirs.status_code, theirs.headers["content-type"])
    assert ours.json() == theirs.json()
    assert (ours.status_code == 200) == (case in ANSWERED)


_IDEMPOTENCY = (
    "(sys_idempotency is gone since Restate 1.7; ask instead: SELECT id, target, idempotency_key FROM sys_invocation "
    "WHERE idempotency_key IS NOT NULL)"
)
# Statement -> status and message of ours, where they are not the server's, and why.
DIFFERENT: dict[str, tuple[str, int, str]] = {
    "a setting would be for all": (
        "SET datafusion.execution.batch_size = 1",
        400,
        "Datafusion error: Error during planning: Statement not supported: SetVariable",
    ),
    "so would its reset": (
        "RESET datafusion.execution.batch_size",
        400,
        "Datafusion error: Error during planning: Statement not supported: ResetVariable",
    ),
    "and a prepared statement": (
        "PREPARE p AS SELECT 1",
        400,
        "Datafusion error: Error during planning: Statement not supported: Prepare",
    ),
    "a table of older servers": (
        "SELECT * FROM sys_idempotency",
        500,
        f"Datafusion error: Error during planning: table 'restate.public.sys_idempotency' not found {_IDEMPOTENCY}",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_different_answer(holdfast_side: Asked, case: str) -> None:
    sql, status, message = DIFFERENT[case]
    answer = holdfast_side.ask(sql)
    assert (answer.status_code, answer.json()) == (status, {"message": message})
    assert answer.headers["x-holdfast-error-code"] == "HF0120"


def test_what_the_message_about_sys_idempotency_advises(holdfast_side: Asked) -> None:
    advice = DIFFERENT["a table of older servers"][2].partition("ask instead: ")[2].removesuffix(")")
    assert {"id": holdfast_side.ids["echo"], "target": "Worker/echo", "idempotency_key": "once"} in holdfast_side.rows(
        advice
    )


# ---- what the restate command asks ---------------------------------------------------------------------------------------

_LIST = """
    SELECT inv.id, inv.target, inv.target_service_ty, inv.idempotency_key, inv.status, inv.created_at,
      inv.modified_at as state_modified_at, inv.pinned_deployment_id, inv.retry_count as num_retries,
      inv.last_failure as last_failure_message, inv.last_failure_related_entry_index as last_failure_entry_index,
      inv.last_failure_related_entry_name as last_failure_entry_name,
      inv.last_failure_related_entry_type as last_failure_entry_ty, inv.last_attempt_deployment_id,
      inv.last_attempt_server, inv.next_retry_at, inv.last_start_at, inv.invoked_by_id, inv.invoked_by_target,
      inv.trace_id, inv.completion_result, inv.completion_failure, dp.id IS NOT NULL as pinned_deployment_exists
    FROM sys_invocation inv LEFT JOIN sys_deployment dp ON dp.id = inv.pinned_deployment_id
    {where} ORDER BY inv.created_at DESC, inv.id
"""
_STATUS = """
    SELECT target_service_name, target_handler_name, {status} as status, COUNT(1) as num_invocations,
      MIN(created_at) as oldest_at, FIRST_VALUE(id ORDER BY created_at ASC) as oldest_invocation
    FROM {table} WHERE {where} target_service_name IN ('Counter', 'Worker')
    GROUP BY target_service_name, target_handler_name {order}
"""
FILTERS = {
    "none": "",
    "not completed": "WHERE status != 'completed'",
    "services": "WHERE inv.target_service_name IN ('Counter', 'Worker')",
    "five services": "WHERE inv.target_service_name IN ('Counter', 'Worker', 'a', 'b', 'c')",
    "handlers": "WHERE inv.target_handler_name IN ('add', 'run')",
    "keys": "WHERE inv.target_service_key IN ('a', 'busy', 'x', 'y', 'z')",
    "statuses": "WHERE status IN ('suspended', 'paused', 'pending', 'backing-off', 'scheduled')",
    "objects": "WHERE inv.target_service_name IN (select name from sys_service where ty = 'virtual_object')",
    "failed": "WHERE status = 'completed' AND inv.completion_result = 'failure'",
    "zombies": "WHERE (inv.pinned_deployment_id IS NOT NULL AND inv.pinned_deployment_id NOT IN "
    "(select id from sys_deployment))",
    "on a deployment": "WHERE (inv.pinned_deployment_id IN ('dp_1') OR inv.last_attempt_deployment_id IN ('dp_1'))",
}
_TARGETS = (
    "((target = 'Worker/wait_timer' AND target_service_ty = 'service') OR "
    "(target LIKE 'Worker/wait_timer/%' AND target_service_ty != 'service'))"
)
STATUSES = {
    "cancel": "status != 'completed'",
    "purge": "status = 'completed'",
    "pause": "status IN ('invoked', 'suspended')",
    "resume": "status IN ('paused', 'invoked', 'suspended')",
}
_LOCKED = """
    SELECT target_service_name as service_name, target_service_key as service_key, status as invocation_status,
      first_value(id) as invocation_holding_lock, first_value(target_handler_name) as invocation_method_holding_lock,
      first_value(created_at) as invocation_created_at, first_value(modified_at) as modified_at,
      first_value(pinned_deployment_id) as pinned_deployment_id,
      first_value(last_attempt_deployment_id) as last_attempt_deployment_id,
      first_value(last_failure) as last_failure_message, first_value(next_retry_at) as next_retry_at,
      first_value(last_start_at) as last_start_at, 0 as num_pending, sum(retry_count) as num_retries
    FROM sys_invocation WHERE status != 'pending' AND target_service_name IN ('Counter') AND target_service_key = 'busy'
    GROUP BY target_service_name, target_service_key, status
"""
JSON_STATEMENTS = {
    **{f"L2 {name}": f"SELECT id FROM sys_invocation inv {where} ORDER BY inv.created_at DESC, inv.id LIMIT 100"
       for name, where in FILTERS.items()},
    **{f"L3 {name}": _LIST.format(where=where) for name, where in FILTERS.items()},
    "L2 describe": "SELECT id FROM sys_invocation inv WHERE inv.id = '{steps}' LIMIT 1",
    "L3 describe": _LIST.format(where="WHERE inv.id = '{steps}' AND inv.id in ('{steps}')"),
    "L3 many": _LIST.format(where="WHERE inv.id in ('{steps}', '{echo}', '{add}', '{hold}', '{stumble}', '{eve}')"),
    "E3": "SELECT sj.index, sj.entry_type, sj.completed, sj.invoked_id, sj.invoked_target, sj.sleep_wakeup_at, sj.name, "
    "sj.promise_name, sj.version, sj.entry_json, sj.appended_at FROM sys_journal sj WHERE sj.id = '{steps}' "
    "ORDER BY index DESC LIMIT 100",
    **{f"C1 {name}": f"SELECT id, target FROM sys_invocation_status WHERE {_TARGETS} AND {status} LIMIT 500"
       for name, status in STATUSES.items()},
    **{f"C1 {name} one": f"SELECT id, target FROM sys_invocation_status WHERE id = '{{give up}}' AND {status} LIMIT 500"
       for name, status in STATUSES.items()},
    "S1": _STATUS.format(status="'pending'", table="sys_invocation_status", where="status == 'inboxed' AND", order=""),
    "S2": _STATUS.format(
        status="status", table="sys_invocation", where="", order=", status ORDER BY target_handler_name"
    ),
    "S3": "SELECT service_name, service_key, COUNT(1) as num_pending FROM sys_inbox WHERE service_name IN ('Counter') "
    "GROUP BY service_name, service_key ORDER BY num_pending DESC",
    "S4": _LOCKED,
    "D2": "SELECT target_service_name as service, target_handler_name as handler, COUNT(1) AS inv_count "
    "FROM sys_invocation_status WHERE pinned_deployment_id = '{deployment}' AND status != 'completed' "
    "GROUP BY pinned_deployment_id, target_service_name, target_handler_name",
    "K1": "select key, value from state where service_name = 'Counter' and service_key = 'f x' ;",
    "K2": "SELECT service_name, service_key, key, value FROM state WHERE service_name = 'Counter' AND service_key = 'a'",
    "R1": "SELECT pattern, concurrency, description, disabled, version, last_modified FROM sys_rules ORDER BY pattern",
}  # fmt: skip
WITHOUT_ROWS = {
    "R1",
    "L2 zombies",
    "L3 zombies",
    "L2 on a deployment",
    "L3 on a deployment",
    "C1 purge one",
    "C1 pause one",
}
ARROW_STATEMENTS = {
    **{f"L1 {name}": f"SELECT COUNT(1) FROM (SELECT * FROM sys_invocation inv LIMIT 50000 ) {where.replace('inv.', '')}"
       for name, where in FILTERS.items()},
    "E1": "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 'sys_journal' AND column_name IN "
    "('promise_name')",
    "E2": "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 'sys_journal' AND column_name IN "
    "('version', 'entry_json', 'appended_at')",
    "D1": "SELECT COUNT(1) AS inv_count FROM sys_invocation_status WHERE pinned_deployment_id = '{deployment}' AND "
    "status != 'completed'",
}  # fmt: skip

# What calls without an idempotency key get on a server, as docs/compatibility.md has it.
_INVENTED = frozenset(("idempotency_key",))


def _filled(statement: str, side: Asked) -> str:
    for name, invocation_id in side.ids.items():
        statement = statement.replace(f"{{{name}}}", invocation_id)
    return statement.replace("{deployment}", side.rows("SELECT id FROM sys_deployment")[0]["id"])


@pytest.mark.parametrize("name", JSON_STATEMENTS)
def test_statements_of_the_restate_command(holdfast_side: Asked, restate_side: Asked, name: str) -> None:
    ours, theirs = [
        Names(side).rows(side.rows(_filled(JSON_STATEMENTS[name], side)), without=_INVENTED)
        for side in (holdfast_side, restate_side)
    ]
    assert ours == theirs
    assert bool(ours) == (name not in WITHOUT_ROWS)


@pytest.mark.parametrize("name", ARROW_STATEMENTS)
def test_counts_of_the_restate_command(holdfast_side: Asked, restate_side: Asked, name: str) -> None:
    ours, theirs = [_arrow(side, _filled(ARROW_STATEMENTS[name], side)) for side in (holdfast_side, restate_side)]
    assert ours == theirs
    assert ours[0][0][1] == "int64"


def _arrow(side: Asked, sql: str) -> tuple[list[tuple[str, str]], list[dict[str, Any]]]:
    """Columns with their types, and rows."""
    import pyarrow as pa

    answer = side.ask(sql, accept="*/*")
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answer.content).read_all()
    return [(field.name, str(field.type)) for field in table.schema], table.to_pylist()


@pytest.mark.parametrize("table", ["sys_invocation", "sys_journal", "sys_deployment", "state", "sys_rules"])
def test_arrow_has_the_same_types(holdfast_side: Asked, restate_side: Asked, table: str) -> None:
    ours, theirs = [_arrow(side, f"SELECT * FROM {table} LIMIT 3") for side in (holdfast_side, restate_side)]
    assert ours[0] == theirs[0]
    assert len(ours[1]) == len(theirs[1])


# ---- the request ---------------------------------------------------------------------------------------------------------

REQUESTS: dict[str, tuple[bytes, dict[str, str]]] = {
    "JSON": (b'{"query":"SELECT 1"}', {"accept": "application/json"}),
    "Arrow": (b'{"query":"SELECT 1"}', {"accept": "application/vnd.apache.arrow.stream"}),
    "a list of types is not JSON": (b'{"query":"SELECT 1"}', {"accept": "application/json, */*"}),
    "nor is one with a parameter": (b'{"query":"SELECT 1"}', {"accept": "application/json; charset=utf-8"}),
    "nor in capitals": (b'{"query":"SELECT 1"}', {"accept": "APPLICATION/JSON"}),
    "more fields": (b'{"query":"SELECT 1","more":1}', {"accept": "application/json"}),
    "a content type with a parameter": (b'{"query":"SELECT 1"}', {"content-type": "application/json; charset=utf-8"}),
    "a content type of a kind of JSON": (b'{"query":"SELECT 1"}', {"content-type": "application/vnd.api+json"}),
    "another content type": (b'{"query":"SELECT 1"}', {"content-type": "text/plain"}),
    "no content type": (b'{"query":"SELECT 1"}', {"content-type": ""}),
    "no JSON": (b"{", {}),
    "no body": (b"", {}),
    "another field": (b'{"sql":"SELECT 1"}', {}),
    "no text": (b'{"query":1}', {}),
    "an error, although Arrow is asked for": (b'{"query":"SELEC"}', {"accept": "*/*"}),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_requests(holdfast_side: Asked, restate_side: Asked, case: str) -> None:
    content, headers = REQUESTS[case]
    ours, theirs = [
        side.http.post(
            f"{side.admin_url}/query",
            content=content,
            headers={name: value for name, value in {"content-type": "application/json", **headers}.items() if value},
        )
        for side in (holdfast_side, restate_side)
    ]
    assert (ours.status_code, ours.headers["content-type"]) == (theirs.status_code, theirs.headers["content-type"])
    if ours.headers["content-type"] == "application/json":
        assert ours.json() == theirs.json()
    elif ours.status_code != 200:  # the reason is the JSON library's own
        assert ours.text.partition(":")[0] == theirs.text.partition(":")[0]


@pytest.mark.parametrize("path", ["/query", "/v2/query", "/v3/query", "/v4/query", "/query/"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_paths(holdfast_side: Asked, restate_side: Asked, method: str, path: str) -> None:
    ours, theirs = [
        side.http.request(method, f"{side.admin_url}{path}", json={"query": "SELECT 1"})
        for side in (holdfast_side, restate_side)
    ]
    assert ours.status_code == theirs.status_code
    assert ours.headers.get("allow") == theirs.headers.get("allow")


def test_columns_that_are_null_are_told_beside(holdfast_side: Asked) -> None:
    answer = holdfast_side.ask("SELECT null AS a, 1 AS b, 'ü' AS \"c d\"")
    assert answer.json() == {"rows": [{"b": 1, "c d": "ü"}]}
    assert json.loads(answer.headers["x-holdfast-columns"]) == ["a", "b", "c d"]
