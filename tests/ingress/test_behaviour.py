"""The behaviour table, played against our engine and, where there is one, against a real Restate server."""

from __future__ import annotations

import pytest

from tests.ingress.backend import Backend
from tests.ingress.expect import play
from tests.ingress.table import TABLE


@pytest.mark.parametrize("row", TABLE)
def test_table(backend: Backend, row: str) -> None:
    play(backend, TABLE[row])
