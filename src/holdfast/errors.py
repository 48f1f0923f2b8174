"""Every error holdfast raises, in one tree. A branch says who must act.

    HoldfastError
    ├── CallerError          fix the request; the ingress and admin APIs answer 4xx
    │   ├── InvocationNotFound
    │   ├── InvocationNotReady
    │   ├── InvocationConflict
    │   ├── InvocationTooEarly
    │   ├── InvalidRequest
    │   ├── InvocationFailed
    │   ├── Unauthorized
    │   ├── Forbidden
    │   ├── QueryRefused
    │   └── QueryLimited
    ├── DeploymentError      fix the application
    │   ├── InvalidApp
    │   ├── InvalidManifest
    │   └── DeploymentRefused
    └── EngineError          the engine or its file; nothing was changed
        ├── DatabaseInUse
        ├── DatabaseRefused
        ├── EngineStopped
        ├── DiskFull
        ├── CannotListen
        ├── UnsafeAddress
        ├── InvalidSetting
        └── SqlNotInstalled

Each carries `code` (explained in docs/errors.md; a test keeps the two in step) and `hint`: what to do next.
"""

from __future__ import annotations


class HoldfastError(Exception):
    """Base of all holdfast errors. `str()` says what happened, `hint` what to do next."""

    code = "HF0000"
    restate_code: str | None = None
    """Restate's code for the same refusal, such as `META0003`, where it has one."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CallerError(HoldfastError):
    """The request cannot be served as it stands."""

    code = "HF0100"
    status = 400


class InvocationNotFound(CallerError):
    """Never accepted, or already purged."""

    code = "HF0101"
    status = 404


class InvocationNotReady(CallerError):
    """Accepted, but it has no output yet (HTTP 470, as Restate answers)."""

    code = "HF0102"
    status = 470


class InvocationConflict(CallerError):
    """The operation does not fit the invocation's status, e.g. cancel of a completed one."""

    code = "HF0103"
    status = 409


class InvocationTooEarly(CallerError):
    """The invocation has not started yet, so the operation does not apply."""

    code = "HF0104"
    status = 425


class InvalidRequest(CallerError):
    """A malformed id, header, path or body."""

    code = "HF0105"

    def __init__(self, message: str, *, status: int = 400, restate_code: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.restate_code = restate_code


class InvocationFailed(CallerError):
    """The invocation ended with a terminal error; `failure_code` is its HTTP-like code."""

    code = "HF0106"

    def __init__(
        self, message: str, *, failure_code: int, invocation_id: str = "", metadata: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.failure_code = failure_code
        self.invocation_id = invocation_id
        self.metadata = metadata or {}


class Unauthorized(CallerError):
    """This API asks for a token, and the request has none, or none that it knows."""

    code = "HF0110"
    status = 401


class Forbidden(CallerError):
    """The request comes from a web page, or under a name, that this API does not answer."""

    code = "HF0111"
    status = 403


class QueryRefused(CallerError):
    """The SQL is wrong, asks for what is not there, or would do more than read."""

    code = "HF0120"

    def __init__(self, message: str, *, status: int = 400, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class QueryLimited(CallerError):
    """The query takes more time or memory, or gives more rows, than one may."""

    code = "HF0121"

    def __init__(self, message: str, *, status: int = 400, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class DeploymentError(HoldfastError):
    """The application, not the request, must be changed."""

    code = "HF0200"


class InvalidApp(DeploymentError):
    """The reference does not lead to a restate-sdk application with services."""

    code = "HF0201"


class InvalidManifest(DeploymentError):
    """The application's discovery answer is not a valid endpoint manifest."""

    code = "HF0202"

    def __init__(self, message: str, *, status: int = 500, restate_code: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        """What the admin API answers when somebody registers it."""
        self.restate_code = restate_code


class DeploymentRefused(DeploymentError):
    """An endpoint cannot be registered: it is not reachable, or offers what cannot be served."""

    code = "HF0203"

    def __init__(self, message: str, *, status: int = 500, restate_code: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        """What the admin API answers."""
        self.restate_code = restate_code


class EngineError(HoldfastError):
    """The engine or its database cannot go on; stopping is the safe answer."""

    code = "HF0300"


class DatabaseInUse(EngineError):
    """Another engine owns the file."""

    code = "HF0301"


class DatabaseRefused(EngineError):
    """Not a holdfast database, a newer one, or a damaged one. It was not touched."""

    code = "HF0302"


class EngineStopped(EngineError):
    """The engine is not running (not started, stopping, or stopped after a failure)."""

    code = "HF0303"


class DiskFull(EngineError):
    """A commit could not be written; the request was not accepted."""

    code = "HF0304"


class CannotListen(EngineError):
    """A port is taken, or this process may not have it. Nothing was started."""

    code = "HF0305"


class UnsafeAddress(EngineError):
    """Other machines could reach an API that asks nobody for a token. Nothing was opened."""

    code = "HF0310"


class InvalidSetting(EngineError):
    """A file or setting that guards the server cannot be used: tokens, certificate, key. Nothing was opened."""

    code = "HF0311"


class SqlNotInstalled(EngineError):
    """SQL introspection needs the extra `holdfast[sql]` where the engine runs. Everything else works without."""

    code = "HF0320"
    status = 501
