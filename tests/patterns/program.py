"""The application under test: one service per pattern, as its users would write it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import restate

from tests.patterns import fan_out_program, saga_program

MODULES = (fan_out_program, saga_program)


def application(inactivity_timeout: timedelta | None = None) -> Any:
    """All services. `inactivity_timeout`: after which a waiting attempt is suspended, so that the rest is a replay."""
    services = [service for module in MODULES for service in module.SERVICES]
    for service in services:
        service.inactivity_timeout = inactivity_timeout
    return restate.app(services)
