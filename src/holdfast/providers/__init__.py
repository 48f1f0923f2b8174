"""One interface over the embedded engine and a Restate server: create workflows, start, follow and stop executions.

async with await holdfast.providers.open("embedded", db="app.db") as provider:
    await provider.create_workflow(WorkflowSpec(workflow_id="hello", name="Hello", definition="greeter:greeter"))
    started = await provider.start_execution("hello", "Ada", execution_name="first")
    print((await provider.wait(started.execution_id)).output)
"""

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

__all__ = [
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
    "StateChange",
    "SubState",
    "WaitTimeout",
    "WorkflowInUse",
    "WorkflowInfo",
    "WorkflowNotFound",
    "WorkflowProvider",
    "WorkflowSpec",
]
