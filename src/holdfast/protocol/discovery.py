"""Endpoint manifest (what `GET /discover` answers) -> services and handlers.

Pure: bytes in, frozen descriptions out. Source of every field and default: the Restate endpoint manifest, versions
1 to 4, and the defaults of Restate server 1.7.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from holdfast.errors import InvalidManifest

ServiceType = Literal["SERVICE", "VIRTUAL_OBJECT", "WORKFLOW"]
HandlerType = Literal["EXCLUSIVE", "SHARED", "WORKFLOW"]

ACCEPT = b", ".join(b"application/vnd.restate.endpointmanifest.v%d+json" % version for version in (1, 2, 3, 4))

_SERVICE_NAME = re.compile(r"^([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*$")
_HANDLER_NAME = re.compile(r"^([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*$")

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again. Defaults are Restate's."""

    initial_interval_ms: int = 500
    exponentiation_factor: float = 2.0
    max_interval_ms: int = 60_000
    max_attempts: int | None = 70
    """Total attempts, the first one included; None means for ever."""
    on_max_attempts: Literal["PAUSE", "KILL"] = "PAUSE"


@dataclass(frozen=True, slots=True)
class InputRules:
    """What the ingress accepts for a handler; a request passes if any rule matches."""

    any_body: bool = False
    """The manifest has no `input`: every body, or none."""
    empty: bool = False
    """No body and no content type is accepted."""
    content_type: str | None = None
    """This content type is accepted (may hold wildcards)."""
    non_empty: bool = False
    """With `content_type`: the body must not be empty."""
    json_schema: Any = None
    """As declared; shown by the admin API, never used to validate."""
    required: bool = False
    """As declared; shown by OpenAPI documents. What is accepted follows from the fields above."""


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """One entry point, with the settings of its service already folded in."""

    service: str
    name: str
    ty: HandlerType | None
    """None for handlers of plain services."""
    keyed: bool
    public: bool
    input: InputRules
    output_content_type: str | None
    set_content_type_if_empty: bool
    output_json_schema: Any
    retry: RetryPolicy
    inactivity_timeout_ms: int
    abort_timeout_ms: int
    journal_retention_ms: int
    idempotency_retention_ms: int
    workflow_retention_ms: int
    lazy_state: bool
    documentation: str | None
    metadata: Mapping[str, str]
    overrides: Mapping[str, Any]
    """Manifest fields that this handler sets itself (for the admin API)."""

    @property
    def is_exclusive(self) -> bool:
        """Holds the lock of its key while it is live."""
        return self.ty == "EXCLUSIVE"

    @property
    def is_workflow_run(self) -> bool:
        return self.ty == "WORKFLOW"


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    name: str
    ty: ServiceType
    handlers: Mapping[str, HandlerSpec]
    public: bool
    documentation: str | None
    metadata: Mapping[str, str]
    retry: RetryPolicy
    inactivity_timeout_ms: int
    abort_timeout_ms: int
    journal_retention_ms: int
    idempotency_retention_ms: int
    workflow_retention_ms: int
    lazy_state: bool

    @property
    def keyed(self) -> bool:
        return self.ty != "SERVICE"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A decoded discovery answer."""

    bidirectional: bool
    min_protocol_version: int
    max_protocol_version: int
    services: Mapping[str, ServiceSpec] = field(default_factory=dict[str, ServiceSpec])


def parse_manifest(body: bytes) -> Manifest:
    """Decode and check a manifest.

    Raises:
        InvalidManifest: not JSON, a bad name, an illegal handler type, or a setting where it does not belong.
    """
    try:
        document: Any = json.loads(body)
    except ValueError as error:
        raise InvalidManifest(f"the discovery answer is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidManifest("the discovery answer is not a JSON object")
    manifest = cast(dict[str, Any], document)
    try:
        services = [_service(entry) for entry in manifest["services"]]
        return Manifest(
            bidirectional=manifest.get("protocolMode") == "BIDI_STREAM",
            min_protocol_version=int(manifest["minProtocolVersion"]),
            max_protocol_version=int(manifest["maxProtocolVersion"]),
            services={service.name: service for service in services},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidManifest(f"the discovery answer lacks or garbles a field: {error!r}") from error


def _service(raw: dict[str, Any]) -> ServiceSpec:
    name, ty = str(raw["name"]), cast(ServiceType, raw["ty"])
    if not _SERVICE_NAME.fullmatch(name):
        raise InvalidManifest(f"{name!r} is not a valid service name")
    if name.lower().startswith("restate") or name.lower() == "openapi":
        raise InvalidManifest(f"service name {name!r} contains a reserved name")
    if ty not in ("SERVICE", "VIRTUAL_OBJECT", "WORKFLOW"):
        raise InvalidManifest(f"service {name!r} has unknown type {ty!r}")
    handlers = [_handler(raw, ty, entry) for entry in raw["handlers"]]
    return ServiceSpec(
        name=name,
        ty=ty,
        handlers={handler.name: handler for handler in handlers},
        public=not raw.get("ingressPrivate"),
        documentation=raw.get("documentation"),
        metadata=raw.get("metadata") or {},
        retry=_retry(raw),
        inactivity_timeout_ms=_first_ms(60_000, raw.get("inactivityTimeout")),
        abort_timeout_ms=_first_ms(600_000, raw.get("abortTimeout")),
        journal_retention_ms=_first_ms(DAY_MS, raw.get("journalRetention")),
        idempotency_retention_ms=_first_ms(DAY_MS, raw.get("idempotencyRetention")),
        workflow_retention_ms=_workflow_retention(raw),
        lazy_state=bool(raw.get("enableLazyState")),
    )


def _workflow_retention(service: dict[str, Any]) -> int:
    # The manifest carries it on the run handler only.
    runs = [h for h in service["handlers"] if h.get("ty") == "WORKFLOW"]
    return _first_ms(DAY_MS, runs[0].get("workflowCompletionRetention") if runs else None)


_ALLOWED: dict[str, set[str | None]] = {
    "SERVICE": {None, "SHARED"},
    "VIRTUAL_OBJECT": {None, "EXCLUSIVE", "SHARED"},
    "WORKFLOW": {None, "SHARED", "WORKFLOW"},
}
_DEFAULT_TYPE: dict[str, HandlerType | None] = {"SERVICE": None, "VIRTUAL_OBJECT": "EXCLUSIVE", "WORKFLOW": "SHARED"}
_OVERRIDES = (
    "inactivityTimeout",
    "abortTimeout",
    "journalRetention",
    "idempotencyRetention",
    "workflowCompletionRetention",
    "enableLazyState",
    "retryPolicyInitialInterval",
    "retryPolicyMaxInterval",
    "retryPolicyExponentiationFactor",
    "retryPolicyMaxAttempts",
    "retryPolicyOnMaxAttempts",
)


def _handler(service: dict[str, Any], service_ty: str, raw: dict[str, Any]) -> HandlerSpec:
    name, declared = str(raw["name"]), raw.get("ty")
    where = f"{service['name']}/{name}"
    if not _HANDLER_NAME.fullmatch(name):
        raise InvalidManifest(f"{name!r} is not a valid handler name")
    if declared not in _ALLOWED[service_ty]:
        raise InvalidManifest(f"{where}: handler type {declared} does not fit service type {service_ty}")
    ty: HandlerType | None = _DEFAULT_TYPE[service_ty] if declared is None else declared
    if service_ty == "SERVICE":
        ty = None
    if raw.get("workflowCompletionRetention") is not None and ty != "WORKFLOW":
        raise InvalidManifest(f"{where} sets a workflow retention but is not a workflow's run handler")
    if raw.get("idempotencyRetention") is not None and ty == "WORKFLOW":
        raise InvalidManifest(f"{where} sets an idempotency retention, but a workflow is keyed by its id")
    if service.get("ingressPrivate") and raw.get("ingressPrivate") is False:
        raise InvalidManifest(f"service {service['name']!r} is private, but {name!r} is explicitly public")
    output: dict[str, Any] | None = raw.get("output")
    merged = {**service, **{k: v for k, v in raw.items() if v is not None}}
    return HandlerSpec(
        service=str(service["name"]),
        name=name,
        ty=ty,
        keyed=service_ty != "SERVICE",
        public=not merged.get("ingressPrivate"),
        input=_input_rules(raw.get("input")),
        output_content_type="application/json" if output is None else output.get("contentType"),
        set_content_type_if_empty=bool(output and output.get("setContentTypeIfEmpty")),
        output_json_schema=output.get("jsonSchema") if output else None,
        retry=_retry(merged),
        inactivity_timeout_ms=_first_ms(60_000, merged.get("inactivityTimeout")),
        abort_timeout_ms=_first_ms(600_000, merged.get("abortTimeout")),
        journal_retention_ms=_first_ms(DAY_MS, merged.get("journalRetention")),
        idempotency_retention_ms=_first_ms(DAY_MS, merged.get("idempotencyRetention")),
        workflow_retention_ms=_first_ms(DAY_MS, raw.get("workflowCompletionRetention")),
        lazy_state=bool(merged.get("enableLazyState")),
        documentation=raw.get("documentation"),
        metadata=raw.get("metadata") or {},
        overrides={k: raw[k] for k in _OVERRIDES if raw.get(k) is not None},
    )


def _input_rules(raw: dict[str, Any] | None) -> InputRules:
    if raw is None:
        return InputRules(any_body=True)
    content_type = raw.get("contentType")
    if content_type is None:
        return InputRules(empty=True)
    if "/" not in content_type:
        raise InvalidManifest(f"content type {content_type!r} is not valid")
    schema = raw.get("jsonSchema")
    return InputRules(
        empty=raw.get("required") is not True,  # left out, it is false: so the server takes it
        content_type=content_type,
        non_empty=schema is not None,
        json_schema=schema,
        required=raw.get("required") is True,
    )


def _retry(raw: dict[str, Any]) -> RetryPolicy:
    default = RetryPolicy()
    attempts = raw.get("retryPolicyMaxAttempts")
    on_max_attempts = raw.get("retryPolicyOnMaxAttempts") or default.on_max_attempts
    if on_max_attempts not in ("PAUSE", "KILL"):
        raise InvalidManifest(f"retryPolicyOnMaxAttempts must be PAUSE or KILL, not {on_max_attempts!r}")
    return RetryPolicy(
        initial_interval_ms=_first_ms(default.initial_interval_ms, raw.get("retryPolicyInitialInterval")),
        exponentiation_factor=float(raw.get("retryPolicyExponentiationFactor") or default.exponentiation_factor),
        max_interval_ms=_first_ms(default.max_interval_ms, raw.get("retryPolicyMaxInterval")),
        # 0 is accepted and treated as 1, as the server does.
        max_attempts=default.max_attempts if attempts is None else max(1, int(attempts)),
        on_max_attempts=on_max_attempts,
    )


def _first_ms(default: int, value: Any) -> int:
    return default if value is None else int(value)
