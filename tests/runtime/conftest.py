"""Every test starts with empty records."""

from __future__ import annotations

import pytest

from tests.runtime import programs


@pytest.fixture(autouse=True)
def empty_records() -> None:
    programs.clear()
