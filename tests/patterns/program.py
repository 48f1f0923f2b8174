"""The application under test: one service per pattern, as its users would write it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate

from tests.patterns import (
    approval_program,
    archive_program,
    cache_program,
    external_program,
    fan_out_program,
    guard_program,
    jobs_program,
    limits_program,
    saga_program,
    schedules_program,
    ticker_program,
)

MODULES = (
    approval_program,
    archive_program,
    cache_program,
    external_program,
    fan_out_program,
    guard_program,
    jobs_program,
    limits_program,
    saga_program,
    schedules_program,
    ticker_program,
)


def application(inactivity_timeout: timedelta | None = None) -> Any:
    """All services. `inactivity_timeout`: after which a waiting attempt is suspended, so that the rest is a replay."""
    services = [service for module in MODULES for service in module.SERVICES]
    for service in services:
        service.inactivity_timeout = inactivity_timeout
    return restate.app(services)
