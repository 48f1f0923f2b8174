"""Structured logs of providers: one line for each operation and for each change of state, with ids as fields.

    operation     create_workflow, start_execution … or `transition`
    provider, workflow_id, execution_id, duration_ms, state, is_new
    error_code, server_status, server_body, endpoint    when it failed
    from, to, ts                                        of a transition

Credentials never come here: requests are not logged, answers are.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from holdfast.errors import CallerError, HoldfastError
from holdfast.providers.naming import split_execution_id
from holdfast.providers.types import ExecutionState, time_text

log = logging.getLogger("holdfast.providers")

BODY_CHARACTERS_MAX = 2_000
"""Of a server's answer in a log line; the whole of it is in the error."""

Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])

_SUBJECTS = ("spec", "workflow_id", "execution_id")


def operation(method: Method) -> Method:
    """Log a provider's operation: one line when it is done, or when it failed, with the server's own answer."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def logged(*args: Any, **kwargs: Any) -> Any:
        fields = _subject(signature, args, kwargs)
        fields |= {"operation": method.__name__, "provider": getattr(args[0], "name", "")}
        started_at = time.perf_counter()
        try:
            result = await method(*args, **kwargs)
        except Exception as error:
            fields["duration_ms"] = _since_ms(started_at)
            _log_failure(method.__name__, error, fields)
            raise
        for name in ("workflow_id", "execution_id", "state", "is_new", "service_name", "deployment_id"):
            value = getattr(result, name, None)
            if value is not None:
                fields[name] = str(value) if isinstance(value, ExecutionState) else value
        fields["duration_ms"] = _since_ms(started_at)
        log.info("%s done", method.__name__, extra=fields)
        return result

    return cast(Method, logged)


def transition(
    workflow_id: str,
    execution_id: str,
    before: ExecutionState | None,
    after: ExecutionState,
    at: datetime | None = None,
) -> None:
    """Log that an execution has changed its state.

    Args:
        at: When; None means now.
    """
    log.info(
        "execution is %s",
        after.value,
        extra={
            "operation": "transition",
            "workflow_id": workflow_id,
            "execution_id": execution_id,
            "from": before.value if before is not None else None,
            "to": after.value,
            "ts": time_text(at or datetime.now(UTC)),
        },
    )


def _subject(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What the call is about. Both ids are always there: a line without one would look like one that forgot it."""
    given = signature.bind_partial(*args, **kwargs).arguments
    found = {name: given[name] for name in _SUBJECTS if given.get(name) is not None}
    execution_id = found.get("execution_id")
    workflow_id = found.get("workflow_id") or getattr(found.get("spec"), "workflow_id", None)
    if workflow_id is None and isinstance(execution_id, str):
        parts = split_execution_id(execution_id)
        workflow_id = parts[0] if parts else None
    return {"workflow_id": workflow_id, "execution_id": execution_id}


def _log_failure(name: str, error: Exception, fields: dict[str, Any]) -> None:
    fields["error"] = str(error) or type(error).__name__
    fields["error_code"] = error.code if isinstance(error, HoldfastError) else None
    status_code = cast("int | None", getattr(error, "status_code", None))
    if status_code is not None:
        fields["server_status"] = status_code
        fields["server_body"] = cast(str, getattr(error, "body", ""))[:BODY_CHARACTERS_MAX]
    endpoint = getattr(error, "endpoint", None)
    if endpoint is not None:
        fields["endpoint"] = endpoint
    # A request that cannot be served is the caller's matter, who is told; the rest is the operator's.
    level = logging.INFO if isinstance(error, CallerError) else logging.ERROR
    log.log(level, "%s failed", name, extra=fields)


def _since_ms(started_at: float) -> float:
    return round((time.perf_counter() - started_at) * 1_000, 1)
