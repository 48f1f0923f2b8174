"""Endpoint manifest (what `GET /discover` answers) -> services and handlers.

Pure: bytes in, frozen descriptions out. Source of every field and default: the Restate endpoint manifest, versions
1 to 4, and the defaults of Restate server 1.7.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from holdfast.errors import InvalidManifest
from holdfast.protocol.durations import DURATION_MS_MAX
from holdfast.protocol.schemas import schema_fault

ServiceType = Literal["SERVICE", "VIRTUAL_OBJECT", "WORKFLOW"]
HandlerType = Literal["EXCLUSIVE", "SHARED", "WORKFLOW"]

ACCEPT = b", ".join(b"application/vnd.restate.endpointmanifest.v%d+json" % version for version in (1, 2, 3, 4))

_SERVICE_NAME = re.compile(r"^([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*$")
_HANDLER_NAME = re.compile(r"^([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*$")

DAY_MS = 86_400_000
INACTIVITY_DEFAULT_MS = 60_000


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
    """The manifest has no `input`: every body that has a content type, or none."""
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
    """Decode and check a manifest. Unknown fields are errors at every level, as they are for the server.

    Raises:
        InvalidManifest: not JSON, a field that is unknown, missing or of the wrong type, a bad name (status 500); an
            illegal handler type, a reserved name, or a setting where it does not belong (status 400).
    """
    manifest = _checked(_decoded(body), _TOP, "the manifest", "minProtocolVersion", "maxProtocolVersion", "services")
    if manifest.get("protocolMode") is None:
        raise InvalidManifest("received a bad response from the SDK: missing protocol mode", restate_code="META0013")
    lowest, highest = manifest["minProtocolVersion"], manifest["maxProtocolVersion"]
    if lowest > highest:
        text = f"received a bad response from the SDK: min protocol version {lowest} is above max {highest}"
        raise InvalidManifest(text, restate_code="META0013")
    for raw in manifest["services"]:
        _check_service(raw)
    try:
        services = [_service(raw) for raw in manifest["services"]]
    except RecursionError:
        raise InvalidManifest("a JSON schema is nested too deeply", status=400) from None
    return Manifest(
        bidirectional=manifest["protocolMode"] == "BIDI_STREAM",
        min_protocol_version=lowest,
        max_protocol_version=highest,
        services={service.name: service for service in services},
    )


# ---- form ------------------------------------------------------------------------------------------------------------


def _decoded(body: bytes) -> Any:
    try:
        document: Any = json.loads(body, parse_constant=_refuse_constant)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(f"the discovery answer is not JSON: {error}") from None
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(type(v) is str for v in cast(dict[str, Any], value).values())


_Kind = tuple[str, Callable[[Any], bool]]


def _one_of(*choices: str) -> _Kind:
    return f"one of {', '.join(choices)}", lambda value: value in choices


_TEXT: _Kind = ("a string", lambda value: type(value) is str)
_FLAG: _Kind = ("a boolean", lambda value: type(value) is bool)
_NUMBER: _Kind = ("a number from 0 to 2^64-1", _is_number)
_VERSION: _Kind = ("a number from 1", lambda value: _is_number(value) and value > 0)
_FACTOR: _Kind = ("a number", lambda value: type(value) in (int, float))
_TEXT_MAP: _Kind = ("an object of strings", _is_text_map)
_LIST: _Kind = ("a list", lambda value: isinstance(value, list))
_OBJECT: _Kind = ("an object", lambda value: isinstance(value, dict))
_ANY: _Kind = ("anything", lambda value: True)

_TOP = {
    "protocolMode": _one_of("BIDI_STREAM", "REQUEST_RESPONSE"),
    "minProtocolVersion": _VERSION,
    "maxProtocolVersion": _VERSION,
    "lambdaCompression": _one_of("zstd"),
    "services": _LIST,
}
_SETTINGS = {
    "documentation": _TEXT,
    "metadata": _TEXT_MAP,
    "inactivityTimeout": _NUMBER,
    "abortTimeout": _NUMBER,
    "journalRetention": _NUMBER,
    "idempotencyRetention": _NUMBER,
    "enableLazyState": _FLAG,
    "ingressPrivate": _FLAG,
    "retryPolicyInitialInterval": _NUMBER,
    "retryPolicyMaxInterval": _NUMBER,
    "retryPolicyExponentiationFactor": _FACTOR,
    "retryPolicyMaxAttempts": _NUMBER,
    "retryPolicyOnMaxAttempts": _one_of("PAUSE", "KILL"),
}
_SERVICE_FIELDS = {
    "name": _TEXT,
    "ty": _one_of("SERVICE", "VIRTUAL_OBJECT", "WORKFLOW"),
    "handlers": _LIST,
    **_SETTINGS,
}
_HANDLER_FIELDS = {
    "name": _TEXT,
    "ty": _one_of("WORKFLOW", "EXCLUSIVE", "SHARED"),
    "input": _OBJECT,
    "output": _OBJECT,
    "workflowCompletionRetention": _NUMBER,
    **_SETTINGS,
}
_INPUT_FIELDS = {"required": _FLAG, "contentType": _TEXT, "jsonSchema": _ANY}
_OUTPUT_FIELDS = {"contentType": _TEXT, "setContentTypeIfEmpty": _FLAG, "jsonSchema": _ANY}


def _checked(raw: Any, known: Mapping[str, _Kind], where: str, *required: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise InvalidManifest(f"{where} must be a JSON object")
    fields = cast(dict[str, Any], raw)
    for name, value in fields.items():
        kind = known.get(name)
        if kind is None:
            raise InvalidManifest(f"{where} has an unknown field {name!r}; known are {', '.join(known)}")
        if value is not None and not kind[1](value):
            raise InvalidManifest(f"{where}: {name} must be {kind[0]}, not {value!r:.80}")
    for name in required:
        if fields.get(name) is None:
            raise InvalidManifest(f"{where} has no field {name!r}")
    return fields


def _check_service(raw: Any) -> None:
    service = _checked(raw, _SERVICE_FIELDS, "a service", "name", "ty", "handlers")
    name = service["name"]
    if not _SERVICE_NAME.fullmatch(name):
        raise InvalidManifest(f"{name!r} is not a valid service name")
    for entry in service["handlers"]:
        handler = _checked(entry, _HANDLER_FIELDS, f"a handler of {name}", "name")
        where = f"{name}/{handler['name']}"
        if not _HANDLER_NAME.fullmatch(handler["name"]):
            raise InvalidManifest(f"{handler['name']!r} is not a valid handler name")
        _checked(handler.get("input") or {}, _INPUT_FIELDS, f"the input of {where}")
        _checked(handler.get("output") or {}, _OUTPUT_FIELDS, f"the output of {where}")


# ---- meaning ---------------------------------------------------------------------------------------------------------


def _service(raw: dict[str, Any]) -> ServiceSpec:
    name, ty = raw["name"], cast(ServiceType, raw["ty"])
    if name.lower().startswith("restate") or name.lower() == "openapi":
        text = f"cannot insert/modify service '{name}' as it contains a reserved name"
        raise InvalidManifest(text, status=400, restate_code="META0005", hint="give the service another name")
    handlers = [_handler(raw, ty, entry) for entry in raw["handlers"]]
    return ServiceSpec(
        name=name,
        ty=ty,
        handlers={handler.name: handler for handler in handlers},
        public=not raw.get("ingressPrivate"),
        documentation=raw.get("documentation"),
        metadata=raw.get("metadata") or {},
        retry=_retry(raw),
        inactivity_timeout_ms=_first_ms(INACTIVITY_DEFAULT_MS, raw.get("inactivityTimeout")),
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
    name, declared = raw["name"], raw.get("ty")
    where = f"{service['name']}/{name}"
    if declared not in _ALLOWED[service_ty]:
        text = f"{where}: handler type {declared} does not fit service type {service_ty}"
        raise InvalidManifest(text, status=400)
    ty: HandlerType | None = _DEFAULT_TYPE[service_ty] if declared is None else declared
    if service_ty == "SERVICE":
        ty = None
    if raw.get("workflowCompletionRetention") is not None and ty != "WORKFLOW":
        raise InvalidManifest(f"{where} sets a workflow retention but is not a workflow's run handler", status=400)
    if raw.get("idempotencyRetention") is not None and ty == "WORKFLOW":
        raise InvalidManifest(f"{where} sets an idempotency retention, but a workflow is keyed by its id", status=400)
    if service.get("ingressPrivate") and raw.get("ingressPrivate") is False:
        raise InvalidManifest(f"service {service['name']!r} is private, but {name!r} is explicitly public", status=400)
    output: dict[str, Any] | None = raw.get("output")
    for side in ("input", "output"):
        schema: Any = cast(dict[str, Any], raw.get(side) or {}).get("jsonSchema")
        if schema is not None and (fault := schema_fault(schema)) is not None:
            raise InvalidManifest(f"the json schema for {where} {side} is invalid: {fault}", status=400)
    merged = {**service, **{k: v for k, v in raw.items() if v is not None}}
    return HandlerSpec(
        service=service["name"],
        name=name,
        ty=ty,
        keyed=service_ty != "SERVICE",
        public=not merged.get("ingressPrivate"),
        input=_input_rules(raw.get("input")),
        output_content_type="application/json" if output is None else output.get("contentType"),
        set_content_type_if_empty=bool(output and output.get("setContentTypeIfEmpty")),
        output_json_schema=output.get("jsonSchema") if output else None,
        retry=_retry(merged),
        inactivity_timeout_ms=_first_ms(INACTIVITY_DEFAULT_MS, merged.get("inactivityTimeout")),
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
        raise InvalidManifest(f"content type {content_type!r} is not valid", status=400)
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
    return RetryPolicy(
        initial_interval_ms=_first_ms(default.initial_interval_ms, raw.get("retryPolicyInitialInterval")),
        exponentiation_factor=float(raw.get("retryPolicyExponentiationFactor") or default.exponentiation_factor),
        max_interval_ms=_first_ms(default.max_interval_ms, raw.get("retryPolicyMaxInterval")),
        # 0 is accepted and treated as 1, as the server does.
        max_attempts=default.max_attempts if attempts is None else max(1, attempts),
        on_max_attempts=raw.get("retryPolicyOnMaxAttempts") or default.on_max_attempts,
    )


def _first_ms(default: int, value: int | None) -> int:
    # "For ever" is sent as a number that no row could hold together with a date.
    return default if value is None else min(value, DURATION_MS_MAX)
