"""The ingress over HTTP/2 without TLS: the behaviour table again, on both engines."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.ingress.backend import Ask, Backend, Got
from tests.ingress.expect import Step, play
from tests.ingress.http2 import HOP_BY_HOP, connected
from tests.ingress.table import TABLE


@dataclass(frozen=True, slots=True)
class OverHttp2:
    """A backend whose ingress is asked over HTTP/2."""

    backend: Backend

    @property
    def name(self) -> str:
        return self.backend.name

    def ask(self, ask: Ask) -> Got:
        with connected(self.backend.ingress_url) as client:
            return client.ask(ask)


def can_be_said(steps: list[Step]) -> bool:
    """HTTP/2 has no chunks and no headers of the connection; names are lower-case, so none differ in case only."""
    return all(
        not HOP_BY_HOP & {name.lower() for name in ask.headers}
        and len({name.lower() for name in ask.headers}) == len(ask.headers)
        for ask, _ in steps
    )


# Here a Restate server sends bodies after heads that announce none, which clients take for an error.
BODY_OF_THE_BODYLESS = {
    "failures: code 100",
    "failures: code 204 has no body",
    "failures: code 304 has no body",
    "methods: HEAD is no call",
}
ROWS = [
    row
    for row, steps in TABLE.items()
    if can_be_said(steps) and row not in BODY_OF_THE_BODYLESS and not row.startswith("delays: ")
]


@pytest.mark.parametrize("row", ROWS)
def test_table(backend: Backend, row: str) -> None:
    play(OverHttp2(backend), TABLE[row])
