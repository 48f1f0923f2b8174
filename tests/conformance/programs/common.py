"""What all programs share: the shape of requests and quick retry policies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from restate import InvocationRetryPolicy

Request = dict[str, Any]
"""JSON object. `t` is the test id; objects find it in their key too."""


def ms(milliseconds: float) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def policy(max_attempts: int, on_max_attempts: Literal["pause", "kill"]) -> InvocationRetryPolicy:
    """Retries 20 ms apart, so that a scenario with several attempts stays quick."""
    return InvocationRetryPolicy(
        initial_interval=ms(20),
        exponentiation_factor=1.0,
        max_interval=ms(20),
        max_attempts=max_attempts,
        on_max_attempts=on_max_attempts,
    )


RETRY = policy(60, "kill")
"""For programs that recover; kills at the end, so that a divergence becomes a result and not a timeout."""


def id_from_key(key: str) -> str:
    """Keys are `{test id}~{name}`."""
    return key.partition("~")[0]
