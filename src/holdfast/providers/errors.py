"""Errors of providers, as branches of the one tree in `holdfast.errors`: a branch says who must act.

CallerError
├── InvalidSpec             422  the workflow's description; `field` names the part
├── InvalidInput            422  the input, name, tags or cursor of a request; `field` names the part
├── WorkflowNotFound        404
├── ExecutionNotFound       404
├── ProviderNotFound        404
├── ProviderConflict        409  a name that is taken: of a provider, of a service
├── WorkflowInUse           409  delete with running executions, which it names
├── WaitTimeout             408  the execution goes on; wait again
└── InvalidConfiguration    400  every problem found, each with its key and what is allowed
DeploymentError
└── RegistrationFailed      the server refused the deployment; its own response is inside
EngineError
├── ProviderUnavailable     503  no answer, or a server error; endpoint, status and body are inside
└── ProviderUnauthorized    401/403 of the server: the api_key
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import CallerError, DeploymentError, EngineError


class InvalidSpec(CallerError):
    """The workflow's description is wrong; `field` names the part, e.g. `definition` or `provider_config.handler`."""

    code = "HF0400"
    status = 422

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {message}", hint=hint)
        self.field = field


class InvalidInput(CallerError):
    """An argument of an operation on executions is wrong; `field` names it."""

    code = "HF0401"
    status = 422

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {message}", hint=hint)
        self.field = field


class WorkflowNotFound(CallerError):
    """No workflow of this id was created, or it was deleted."""

    code = "HF0402"
    status = 404

    def __init__(self, workflow_id: str, *, hint: str = "") -> None:
        super().__init__(f"there is no workflow {workflow_id!r}", hint=hint or "what there is: holdfast workflows list")
        self.workflow_id = workflow_id


class ExecutionNotFound(CallerError):
    """No execution of this id was started, or its retention is over."""

    code = "HF0403"
    status = 404

    def __init__(self, execution_id: str, *, hint: str = "") -> None:
        super().__init__(
            f"there is no execution {execution_id!r}",
            hint=hint or "it was never started, or its retention is over: holdfast executions list",
        )
        self.execution_id = execution_id


class ProviderNotFound(CallerError):
    """No provider is registered under this name."""

    code = "HF0404"
    status = 404

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no provider {name!r}; known: {', '.join(known)}", hint="see: holdfast providers")
        self.name = name


class ProviderConflict(CallerError):
    """A name that must be unique is taken: of a provider, or of a service at the engine."""

    code = "HF0405"
    status = 409


class WorkflowInUse(CallerError):
    """The workflow has executions that are not over; `execution_ids` names them."""

    code = "HF0406"
    status = 409

    def __init__(self, workflow_id: str, execution_ids: Sequence[str]) -> None:
        names = ", ".join(execution_ids[:10]) + (" …" if len(execution_ids) > 10 else "")
        super().__init__(
            f"workflow {workflow_id!r} has running executions: {names}",
            hint="wait for them, stop them, or delete with force, which stops them",
        )
        self.workflow_id = workflow_id
        self.execution_ids = tuple(execution_ids)


class WaitTimeout(CallerError):
    """The execution was not over in time. It goes on; wait again."""

    code = "HF0407"
    status = 408

    def __init__(self, execution_id: str, timeout_s: float, state: str) -> None:
        super().__init__(
            f"execution {execution_id!r} is still {state} after {timeout_s:g} s",
            hint="it goes on; wait again, or stop it",
        )
        self.execution_id = execution_id
        self.state = state


class InvalidConfiguration(CallerError):
    """Settings that cannot be used. `problems` are all of them, one line each, with key and allowed values."""

    code = "HF0408"
    status = 400

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(
            "\n".join(problems), hint="see all settings and where they come from: holdfast config show --origin"
        )
        self.problems = tuple(problems)


class RegistrationFailed(DeploymentError):
    """The engine refused the workflow's deployment. `status`, `body` and `server_code` are its own response."""

    code = "HF0410"
    status = 502

    def __init__(self, message: str, *, status_code: int, body: str, server_code: str | None = None) -> None:
        super().__init__(message, hint="is the address reachable from the server, and does it serve the workflow?")
        self.status_code = status_code
        self.body = body
        self.server_code = server_code


class ProviderUnavailable(EngineError):
    """The engine gave no usable answer; the message names the endpoint.

    `status_code` and `body` are the server's response; None and "" when there was none.
    """

    code = "HF0420"
    status = 503

    def __init__(
        self, message: str, *, endpoint: str, status_code: int | None = None, body: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint or f"is the server up? try: curl -v {endpoint}")
        self.endpoint = endpoint
        self.status_code = status_code
        self.body = body


class ProviderUnauthorized(ProviderUnavailable):
    """The server refused the credentials (401 or 403)."""

    code = "HF0421"
    status = 502
