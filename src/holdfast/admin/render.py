"""Service and deployment descriptions -> the JSON of Restate's admin API. Pure: no engine, no HTTP.

Field names, field order and the places where a field is left out follow Restate server 1.7.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from holdfast.core.catalog import Deployment
from holdfast.protocol.discovery import INACTIVITY_DEFAULT_MS, HandlerSpec, InputRules, RetryPolicy, ServiceSpec
from holdfast.protocol.durations import friendly_duration

_SERVICE_TYPES = {"SERVICE": "Service", "VIRTUAL_OBJECT": "VirtualObject", "WORKFLOW": "Workflow"}
_HANDLER_TYPES = {"EXCLUSIVE": "Exclusive", "SHARED": "Shared", "WORKFLOW": "Workflow"}
_EXHAUSTED = {"PAUSE": "Pause", "KILL": "Kill"}


def timestamp(at_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 with nine decimals, as Restate writes `created_at`."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}000000Z"


def deployment_item(deployment: Deployment) -> dict[str, Any]:
    """A deployment as lists show it; details have full descriptions in `services`."""
    optional = {"additional_headers": deployment.headers, "metadata": deployment.metadata}
    return {
        "id": deployment.id,
        "uri": deployment.uri,
        "protocol_type": deployment.protocol_mode,
        "http_version": "HTTP/1.1" if deployment.use_http_11 else "HTTP/2.0",
        **{name: value for name, value in optional.items() if value},
        "created_at": timestamp(deployment.created_at_ms),
        "min_protocol_version": deployment.min_protocol_version,
        "max_protocol_version": deployment.max_protocol_version,
        **({} if deployment.sdk_version is None else {"sdk_version": deployment.sdk_version}),
        "services": [{"name": name, "revision": revision} for name, revision in deployment.revisions.items()],
    }


def service_metadata(
    service: ServiceSpec, *, deployment_id: str, revision: int = 1, is_bidirectional: bool = True
) -> dict[str, Any]:
    """`ServiceMetadata` of the admin API.

    Args:
        is_bidirectional: Of the deployment. Otherwise an attempt ends whenever it must wait, whatever is configured.
    """
    inactivity_ms = service.inactivity_timeout_ms
    notes = (
        [] if is_bidirectional or inactivity_ms in (0, INACTIVITY_DEFAULT_MS) else [_unused("service", inactivity_ms)]
    )
    document: dict[str, Any] = {
        "name": service.name,
        "ty": _SERVICE_TYPES[service.ty],
        "handlers": [
            handler_metadata(handler, is_bidirectional=is_bidirectional) for handler in service.handlers.values()
        ],
        **_described(service.documentation, service.metadata),
        "deployment_id": deployment_id,
        "revision": revision,
        "public": service.public,
        "idempotency_retention": friendly_duration(service.idempotency_retention_ms),
    }
    if service.ty == "WORKFLOW":
        document["workflow_completion_retention"] = friendly_duration(service.workflow_retention_ms)
    return document | {
        "journal_retention": friendly_duration(service.journal_retention_ms),
        "inactivity_timeout": friendly_duration(inactivity_ms if is_bidirectional else 0),
        "abort_timeout": friendly_duration(service.abort_timeout_ms),
        "enable_lazy_state": service.lazy_state,
        "retry_policy": _retry_policy(service.retry),
        **({"info": notes} if notes else {}),
    }


def _unused(what: str, inactivity_ms: int) -> dict[str, str]:
    message = (
        f"The configured inactivity_timeout {friendly_duration(inactivity_ms)} will not be applied because the {what} is "
        "exposed in Request/Response mode."
    )
    return {"code": "RT0021", "message": message}


def handler_metadata(handler: HandlerSpec, *, is_bidirectional: bool = True) -> dict[str, Any]:
    """`HandlerMetadata` of the admin API: only what the handler sets itself, its service's settings are not repeated."""
    document: dict[str, Any] = {"name": handler.name}
    overrides = handler.overrides
    if not is_bidirectional:
        overrides = {name: value for name, value in overrides.items() if name != "inactivityTimeout"}
    if handler.ty is not None:
        document["ty"] = _HANDLER_TYPES[handler.ty]
    document |= _described(handler.documentation, handler.metadata) | _own_settings(overrides)
    document |= {
        "public": handler.public,
        "input_description": _input_description(handler.input),
        "output_description": _description(handler.output_content_type, handler.output_json_schema),
    }
    if handler.input.json_schema is not None:
        document["input_json_schema"] = handler.input.json_schema
    if handler.output_content_type is not None and handler.output_json_schema is not None:
        document["output_json_schema"] = handler.output_json_schema
    document["retry_policy"] = _own_retry_policy(overrides)
    if (unused_ms := handler.overrides.get("inactivityTimeout", 0)) and not is_bidirectional:
        document["info"] = [_unused("handler", unused_ms)]
    return document


def state_values(state: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """State of one key, readable where it is text: `{"count": {"utf8": "42"}, "photo": {"base64": "/9j/…"}}`."""
    return {key: encoded_bytes(value) for key, value in state.items()}


def encoded_bytes(value: bytes) -> dict[str, str]:
    """Bytes in JSON: `{"utf8": …}` when they are valid UTF-8, else `{"base64": …}`."""
    try:
        return {"utf8": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _described(documentation: str | None, metadata: Mapping[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if documentation is not None:
        document["documentation"] = documentation
    if metadata:
        document["metadata"] = dict(metadata)
    return document


def _own_settings(overrides: Mapping[str, Any]) -> dict[str, Any]:
    # A run handler's workflow retention is shown on its service only.
    fields = {
        "idempotency_retention": "idempotencyRetention",
        "journal_retention": "journalRetention",
        "inactivity_timeout": "inactivityTimeout",
        "abort_timeout": "abortTimeout",
    }
    settings: dict[str, Any] = {
        name: friendly_duration(int(overrides[field])) for name, field in fields.items() if field in overrides
    }
    if "enableLazyState" in overrides:
        settings["enable_lazy_state"] = bool(overrides["enableLazyState"])
    return settings


def _retry_policy(policy: RetryPolicy) -> dict[str, Any]:
    return {
        "initial_interval": friendly_duration(policy.initial_interval_ms),
        "exponentiation_factor": policy.exponentiation_factor,
        "max_attempts": policy.max_attempts,
        "max_interval": friendly_duration(policy.max_interval_ms),
        "on_max_attempts": _EXHAUSTED[policy.on_max_attempts],
    }


def _own_retry_policy(overrides: Mapping[str, Any]) -> dict[str, Any]:
    policy: dict[str, Any] = {}
    if "retryPolicyInitialInterval" in overrides:
        policy["initial_interval"] = friendly_duration(int(overrides["retryPolicyInitialInterval"]))
    if "retryPolicyExponentiationFactor" in overrides:
        policy["exponentiation_factor"] = float(overrides["retryPolicyExponentiationFactor"])
    attempts = overrides.get("retryPolicyMaxAttempts")
    # Always present, null when the handler leaves it to its service: that is how Restate writes it.
    policy["max_attempts"] = None if attempts is None else max(1, int(attempts))
    if "retryPolicyMaxInterval" in overrides:
        policy["max_interval"] = friendly_duration(int(overrides["retryPolicyMaxInterval"]))
    if "retryPolicyOnMaxAttempts" in overrides:
        policy["on_max_attempts"] = _EXHAUSTED[overrides["retryPolicyOnMaxAttempts"]]
    return policy


def _input_description(rules: InputRules) -> str:
    return "*/*" if rules.any_body else _description(rules.content_type, rules.json_schema)


def _description(content_type: str | None, json_schema: Any) -> str:
    if content_type is None:
        return "none"
    schema = cast(dict[str, Any], json_schema) if isinstance(json_schema, dict) else {}
    if isinstance(title := schema.get("title"), str):
        return f"JSON '{title}'"
    if isinstance(json_type := schema.get("type"), str):
        return f"JSON {json_type}"
    return content_type
