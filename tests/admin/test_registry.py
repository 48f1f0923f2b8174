"""Deployments and services: every row of the table, on both engines."""

from __future__ import annotations

import pytest

from tests.admin import refused_table, registry_table
from tests.admin.conftest import System
from tests.admin.steps import Step, play

ROWS = {**registry_table.ROWS, **refused_table.ROWS}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_holdfast_answers(holdfast_system: System, zoo: dict[str, str], row: list[Step]):
    await play(row, holdfast_system.apis, zoo, is_holdfast=True)


@pytest.mark.restate_server
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_restate_answers_the_same(restate_system: System, zoo: dict[str, str], row: list[Step]):
    await play(row, restate_system.apis, zoo, is_holdfast=False)
