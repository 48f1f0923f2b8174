"""The behaviour table, played against our engine and, where there is one, against a real Restate server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ingress.backend import Backend, holdfast_backend, restate_backend
from tests.ingress.expect import play
from tests.ingress.table import TABLE
from tests.support.restate_server import skip_without_server


@pytest.fixture(scope="module", params=["holdfast", pytest.param("restate", marks=pytest.mark.restate_server)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "restate":
        skip_without_server()
        with restate_backend() as running:
            yield running
    else:
        with holdfast_backend() as running:
            yield running


@pytest.mark.parametrize("row", TABLE)
def test_table(backend: Backend, row: str) -> None:
    play(backend, TABLE[row])
