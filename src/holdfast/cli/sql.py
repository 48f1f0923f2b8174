"""`holdfast sql`: ask a running engine about invocations, journals, state and the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.output import admin_option, json_option, show, table

if TYPE_CHECKING:
    from holdfast.admin.client import QueryResult

_TIMEOUT_S = 300.0
"""The engine has a limit of its own (`query_timeout_ms`), which its operator may have raised."""


@click.command()
@click.argument("statement", metavar="SQL")
@admin_option
@json_option
def sql(statement: str, admin_url: str, as_json: bool) -> None:
    """Ask in SQL: invocations, journals, state and more.

    Example: "SELECT status, count(*) FROM sys_invocation GROUP BY status". Reads only. Tables and columns are those of a Restate server: SHOW TABLES, DESCRIBE sys_invocation.

    In Python: AdminClient.query, or holdfast.query.query in the engine's process.
    """
    from holdfast.admin.client import AdminClient

    with AdminClient(admin_url, timeout_s=_TIMEOUT_S) as admin:
        result = admin.query(statement)
    show(result.rows, as_json, lambda: _table(result))


def _table(result: QueryResult) -> str:
    count = len(result.rows)
    total = f"{count} row{'' if count == 1 else 's'}"
    if not result.columns:
        return total
    rows = [[_cell(row[name]) for name in result.columns] for row in result.rows]
    return f"{table(result.columns, rows)}\n\n{total}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("\n", "\\n")  # one line for each row
