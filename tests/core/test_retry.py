"""Delays between attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.retry import next_delay_ms
from holdfast.protocol.discovery import RetryPolicy

DEFAULT = RetryPolicy()
FOREVER = RetryPolicy(max_attempts=None)

DELAYS = {
    "first": (DEFAULT, 1, 500),
    "second": (DEFAULT, 2, 1_000),
    "seventh": (DEFAULT, 7, 32_000),
    "eighth: at the limit": (DEFAULT, 8, 60_000),
    "the last that is tried again": (DEFAULT, 69, 60_000),
    "exhausted: 70 attempts in all": (DEFAULT, 70, None),
    "beyond": (DEFAULT, 71, None),
    "one attempt only": (RetryPolicy(max_attempts=1), 1, None),
    "four attempts: three retries": (RetryPolicy(max_attempts=4), 3, 2_000),
    "four attempts: then the policy": (RetryPolicy(max_attempts=4), 4, None),
    "for ever": (FOREVER, 10**6, 60_000),
    "for ever, far beyond what a float holds": (FOREVER, 10**9, 60_000),
    "constant": (RetryPolicy(exponentiation_factor=1.0), 50, 500),
    "fraction": (RetryPolicy(initial_interval_ms=3, exponentiation_factor=1.5), 2, 4),
    "initial above the limit": (RetryPolicy(initial_interval_ms=100, max_interval_ms=10), 1, 10),
    "at once": (RetryPolicy(initial_interval_ms=0), 5, 0),
    "at once, far beyond what a float holds": (RetryPolicy(initial_interval_ms=0, max_attempts=None), 5_000, 0),
}


@pytest.mark.parametrize(("policy", "failed", "expected"), DELAYS.values(), ids=DELAYS.keys())
def test_delay(policy: RetryPolicy, failed: int, expected: int | None):
    assert next_delay_ms(policy, failed) == expected


@given(
    st.builds(
        RetryPolicy,
        initial_interval_ms=st.integers(1, 100_000),
        exponentiation_factor=st.floats(1, 10),
        max_interval_ms=st.integers(1, 100_000),
        max_attempts=st.integers(1, 100) | st.none(),
    ),
    st.integers(1, 2_000),
)
def test_delays_grow_to_the_limit_and_attempts_are_counted(policy: RetryPolicy, failed: int):
    delay = next_delay_ms(policy, failed)
    following = next_delay_ms(policy, failed + 1)
    exhausted = policy.max_attempts is not None and failed >= policy.max_attempts
    assert (delay is None) == exhausted
    if delay is not None:
        assert 0 <= delay <= policy.max_interval_ms
        assert following is None or following >= delay
