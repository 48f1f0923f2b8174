"""Retry policy -> what happens after a failed attempt."""

from __future__ import annotations

from holdfast.protocol.discovery import RetryPolicy


def next_delay_ms(policy: RetryPolicy, failed_attempts: int) -> int | None:
    """Delay before the next attempt, or None when the attempts are exhausted.

    Args:
        failed_attempts: attempts of this residency that failed, at least 1.
    """
    if policy.max_attempts is not None and failed_attempts >= policy.max_attempts:
        return None
    try:
        delay = policy.initial_interval_ms * policy.exponentiation_factor ** (failed_attempts - 1)
    except OverflowError:
        return policy.max_interval_ms if policy.initial_interval_ms else 0
    return int(min(policy.max_interval_ms, delay))
