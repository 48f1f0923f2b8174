"""Whatever comes from outside, to the protocol and to the HTTP APIs: an answer or an error that has a name, in time.

    HOLDFAST_FUZZ=10000 HOLDFAST_SEED=7 python -m pytest tests/fuzz

asks more, and others.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz.properties import ALL, ask

EXAMPLES = int(os.environ.get("HOLDFAST_FUZZ", "0"))
SEED = int(os.environ.get("HOLDFAST_SEED", "0"))


@pytest.mark.timeout(120 + EXAMPLES)
@pytest.mark.parametrize("name", ALL)
def test_it_holds(name: str) -> None:
    one = ALL[name]
    examples = EXAMPLES or one.examples
    assert ask(one, examples=examples, first=SEED) >= examples
