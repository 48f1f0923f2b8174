"""The programs as one restate-sdk application."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import restate

from tests.conformance.programs import calls, failures, state, steps, waits, workflows

SERVICES = (
    steps.steps,
    state.state,
    state.lazy_state,
    state.other_state,
    calls.callee,
    calls.hidden,
    calls.diary,
    calls.caller,
    waits.waits,
    workflows.simple_flow,
    workflows.short_flow,
    workflows.forgetful_flow,
    workflows.approval,
    workflows.runs_workflows,
    failures.failing,
    failures.locked,
)


def application(inactivity_timeout: timedelta | None = None) -> Any:
    """An ASGI application with all services.

    Args:
        inactivity_timeout: after which a waiting invocation is suspended; zero makes every attempt a plain request
            and response, so that each step and each wait is replayed. None leaves the engine's default.
    """
    services = [copy.copy(service) for service in SERVICES]
    for service in services:
        service.inactivity_timeout = inactivity_timeout
    return restate.app(services)
