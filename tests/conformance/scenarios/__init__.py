"""Tables of scenarios, one module for each area. Importing this package registers all."""

from __future__ import annotations

from tests.conformance.scenarios import (
    calls,
    cancellation,
    concurrency,
    failures,
    ingress,
    state,
    steps,
    waits,
    workflows,
)

__all__ = ["calls", "cancellation", "concurrency", "failures", "ingress", "state", "steps", "waits", "workflows"]
