"""docs/query.md is true: its queries run, its tables exist, its limits are the defaults."""

from __future__ import annotations

import re

import pytest

from holdfast import EngineConfig
from holdfast.query.schema import TABLES
from tests.query.history import Asked
from tests.support.restate_server import REPOSITORY

PAGE = (REPOSITORY / "docs" / "query.md").read_text()
EXAMPLES = [
    statement.strip()
    for block in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    for statement in block.split(";")
    if statement.strip()
]
ON_THE_COMMAND_LINE = re.findall(r'(?:sql|sql --json) "([^"]+)"', PAGE)


@pytest.mark.parametrize("sql", [*EXAMPLES, *ON_THE_COMMAND_LINE])
def test_examples_run(holdfast_side: Asked, sql: str) -> None:
    assert holdfast_side.rows(sql.replace("inv_1…", holdfast_side.ids["steps"]))


@pytest.mark.restate_server
@pytest.mark.parametrize("sql", [*EXAMPLES, *ON_THE_COMMAND_LINE])
def test_examples_run_on_a_server(restate_side: Asked, sql: str) -> None:
    assert restate_side.rows(sql.replace("inv_1…", restate_side.ids["steps"])) or sql.endswith("sys_inbox")


def test_every_table_is_listed() -> None:
    named = set(re.findall(r"`(sys_\w+|state)`", PAGE))
    unnamed = {table for table in TABLES if not table.startswith("sys_vqueue")} - named
    assert unnamed == set()
    assert named - TABLES.keys() <= {"sys_idempotency", "sys_vqueue"}


def test_limits_are_the_defaults() -> None:
    config = EngineConfig()
    for name, value in re.findall(r"\| `(query_\w+)` \| ([\d,]+(?: MiB)?) \|", PAGE):
        number = int(value.removesuffix(" MiB").replace(",", "")) * (1 << 20 if value.endswith("MiB") else 1)
        assert getattr(config, name) == number
    assert len(re.findall(r"\| `query_\w+` \|", PAGE)) == 3
