"""One interface over the embedded engine and a Restate server: create workflows, start, follow and stop executions.

async with await holdfast.providers.open("embedded", db="app.db") as provider:
    await provider.create_workflow(WorkflowSpec(workflow_id="hello", name="Hello", definition="greeter:greeter"))
    started = await provider.start_execution("hello", "Ada", execution_name="first")
    print((await provider.wait(started.execution_id)).output)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.providers import registry
from holdfast.providers.base import WorkflowProvider
from holdfast.providers.errors import (
    ExecutionNotFound,
    InvalidConfiguration,
    InvalidInput,
    InvalidSpec,
    ProviderConflict,
    ProviderNotFound,
    ProviderUnauthorized,
    ProviderUnavailable,
    RegistrationFailed,
    WaitTimeout,
    WorkflowInUse,
    WorkflowNotFound,
)
from holdfast.providers.types import (
    CreateWorkflowResult,
    ExecutionError,
    ExecutionResult,
    ExecutionState,
    ExecutionStatus,
    HistoryEvent,
    Page,
    RetryPolicy,
    StateChange,
    SubState,
    WorkflowInfo,
    WorkflowSpec,
)

if TYPE_CHECKING:
    from holdfast.providers.application import app
    from holdfast.providers.configuration import Configuration
    from holdfast.providers.opening import open_provider as open  # noqa: A004 as tarfile.open: said with its module
    from holdfast.providers.opening import open_router
    from holdfast.providers.remote import call_remote
    from holdfast.providers.router import Router
    from holdfast.providers.system import system_services

__all__ = [
    "Configuration",
    "CreateWorkflowResult",
    "ExecutionError",
    "ExecutionNotFound",
    "ExecutionResult",
    "ExecutionState",
    "ExecutionStatus",
    "HistoryEvent",
    "InvalidConfiguration",
    "InvalidInput",
    "InvalidSpec",
    "Page",
    "ProviderConflict",
    "ProviderNotFound",
    "ProviderUnauthorized",
    "ProviderUnavailable",
    "RegistrationFailed",
    "RetryPolicy",
    "Router",
    "StateChange",
    "SubState",
    "WaitTimeout",
    "WorkflowInUse",
    "WorkflowInfo",
    "WorkflowNotFound",
    "WorkflowProvider",
    "WorkflowSpec",
    "app",
    "call_remote",
    "open",
    "open_router",
    "registry",
    "system_services",
]

# Loaded when first asked for: types and errors need neither the SDK nor an HTTP client.
_HOMES = {
    "Configuration": ("configuration", "Configuration"),
    "Router": ("router", "Router"),
    "app": ("application", "app"),
    "call_remote": ("remote", "call_remote"),
    "open": ("opening", "open_provider"),
    "open_router": ("opening", "open_router"),
    "system_services": ("system", "system_services"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast.providers' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = globals()[name] = getattr(import_module(f"holdfast.providers.{module}"), attribute)
    return value
