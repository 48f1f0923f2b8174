"""What is checked before an engine is asked: form and limits, each refusal with the name of its field. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

from holdfast.protocol.durations import DAYS_MAX, parse_duration_ms
from holdfast.providers import naming
from holdfast.providers.errors import InvalidInput, InvalidSpec
from holdfast.providers.types import (
    DESCRIPTION_BYTES_MAX,
    NAME_CHARACTERS_MAX,
    PAYLOAD_BYTES_MAX,
    TAG_BYTES_MAX,
    TAGS_MAX,
    RetryPolicy,
    WorkflowSpec,
)

DURATION_MIN = timedelta(milliseconds=1)
DURATION_MAX = timedelta(days=DAYS_MAX)

REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
DEFINITION_FIELDS = ("reference", "handler", "version")
_SPEC_FIELDS = {
    "workflow_id": str,
    "provider_type": str,
    "name": str,
    "description": str,
    "definition": (str, Mapping),
    "timeout": object,
    "retry_policy": Mapping,
    "tags": Mapping,
    "provider_config": Mapping,
}
_RETRY_FIELDS = ("max_attempts", "backoff_rate", "initial_interval", "max_interval")


def parse_duration(value: Any) -> timedelta:
    """`30m`, `1h 30m`, `PT30M`, a timedelta, or a number of seconds.

    Raises:
        ValueError: anything else, or not above zero; the text says what is allowed.
    """
    try:
        found = _duration_value(value)
    except (OverflowError, ValueError) as error:  # of another form, longer than any timedelta, NaN
        raise ValueError(f"{value!r} is no duration ({error}); write e.g. 30s, 5m, 1h 30m") from None
    if found is None:
        raise ValueError(f"{value!r} is no duration; write one with its unit, e.g. 30s, 5m, 1h 30m")
    if found <= timedelta(0):
        raise ValueError(f"{value!r} is not above zero")
    # What is stored is text in milliseconds, which must be a duration again.
    if not DURATION_MIN <= found <= DURATION_MAX:
        raise ValueError(f"{value!r} is no duration from 1ms to {DURATION_MAX.days}d")
    return found


def _duration_value(value: Any) -> timedelta | None:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    if isinstance(value, str) and not value.strip().isdigit():
        return timedelta(milliseconds=parse_duration_ms(value.strip()))
    return None


def spec_from_json(document: Any) -> WorkflowSpec:
    """Read a spec's JSON form.

    Raises:
        InvalidSpec: with the field that is unknown or of a wrong type.
    """
    if not isinstance(document, Mapping):
        raise InvalidSpec("spec", "must be a JSON object", hint='e.g. {"workflow_id": "hello", "name": "Hello", …}')
    given = cast("Mapping[str, Any]", document)
    for field in given:
        if field not in _SPEC_FIELDS:
            raise InvalidSpec(field, "is no field of a workflow", hint=f"known are: {', '.join(_SPEC_FIELDS)}")
    values: dict[str, Any] = {}
    for field, types in _SPEC_FIELDS.items():
        value = given.get(field)
        if value is None:
            continue
        if not isinstance(value, types):
            raise InvalidSpec(field, f"must be {_type_text(types)}, not {type(value).__name__}")
        values[field] = value
    values.setdefault("workflow_id", "")
    if "timeout" in values:
        values["timeout"] = _duration("timeout", values["timeout"])
    if "retry_policy" in values:
        values["retry_policy"] = retry_policy_from_json(values["retry_policy"])
    return WorkflowSpec(**values)


def retry_policy_from_json(document: Mapping[str, Any], field: str = "retry_policy") -> RetryPolicy:
    """Read a retry policy's JSON form.

    Raises:
        InvalidSpec: with the field.
    """
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in _RETRY_FIELDS:
            raise InvalidSpec(f"{field}.{name}", "is unknown", hint=f"known are: {', '.join(_RETRY_FIELDS)}")
        if name.endswith("_interval"):
            values[name] = _duration(f"{field}.{name}", value)
        elif isinstance(value, bool) or not isinstance(value, int if name == "max_attempts" else int | float):
            raise InvalidSpec(f"{field}.{name}", f"must be a number, not {value!r}")
        else:
            values[name] = value
    return RetryPolicy(**values)


def check_spec(spec: WorkflowSpec) -> None:
    """Everything that can be said without loading the definition.

    Raises:
        InvalidSpec: with the field.
    """
    if not spec.workflow_id:
        raise InvalidSpec("workflow_id", "is required", hint=naming.WORKFLOW_ID_RULE)
    if not naming.WORKFLOW_ID.fullmatch(spec.workflow_id):
        raise InvalidSpec("workflow_id", f"{spec.workflow_id[:140]!r} is not {naming.WORKFLOW_ID_RULE}")
    if not spec.name:
        raise InvalidSpec("name", "is required")
    if len(spec.name) > NAME_CHARACTERS_MAX:
        raise InvalidSpec("name", f"has {len(spec.name)} characters, at most {NAME_CHARACTERS_MAX} are allowed")
    if len(spec.description.encode()) > DESCRIPTION_BYTES_MAX:
        raise InvalidSpec("description", f"is longer than {DESCRIPTION_BYTES_MAX} bytes")
    definition_reference(spec)
    if spec.timeout is not None:
        _check_duration("timeout", spec.timeout)
    if spec.retry_policy is not None:
        _check_retry_policy(spec.retry_policy)
    _check_tags(spec.tags, InvalidSpec)


def definition_reference(spec: WorkflowSpec) -> tuple[str, str | None, str]:
    """(`module:attribute`, handler or None, version) of a spec.

    Raises:
        InvalidSpec: `definition` is missing or malformed.
    """
    example = "a Python reference, e.g. my_app.flows:enrich"
    definition = spec.definition
    if not definition:
        raise InvalidSpec("definition", "is required", hint=example)
    if isinstance(definition, str):
        reference, handler, version = definition, None, ""
    else:
        for field in definition:
            if field not in DEFINITION_FIELDS:
                known = ", ".join(DEFINITION_FIELDS)
                raise InvalidSpec(f"definition.{field}", "is unknown", hint=f"known are: {known}")
        reference, handler = definition.get("reference", ""), definition.get("handler")
        given = definition.get("version")
        if handler is not None and not isinstance(handler, str):
            raise InvalidSpec("definition.handler", f"must be text, not {handler!r}")
        if given is not None and (isinstance(given, bool) or not isinstance(given, str | int | float)):
            raise InvalidSpec("definition.version", f"must be text, not {given!r}")
        version = "" if given is None else str(given)
    if (
        len(json.dumps(definition if isinstance(definition, str) else dict(definition), default=str))
        > PAYLOAD_BYTES_MAX
    ):
        raise InvalidSpec("definition", f"is longer than {PAYLOAD_BYTES_MAX} bytes")
    if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
        raise InvalidSpec("definition", f"{str(reference)[:140]!r} is not of the form module:attribute", hint=example)
    return reference, handler, version


def check_provider_config(spec: WorkflowSpec, known: Mapping[str, str]) -> None:
    """
    Args:
        known: Setting -> what it is, of the provider that asks.
    Raises:
        InvalidSpec: an unknown setting, or a value that is no text.
    """
    for field, value in spec.provider_config.items():
        if field not in known:
            raise InvalidSpec(
                f"provider_config.{field}", "is not understood by this provider", hint=f"known are: {', '.join(known)}"
            )
        if not isinstance(value, str) or not value:
            raise InvalidSpec(f"provider_config.{field}", f"must be text, not {value!r}")
    name = spec.provider_config.get("service_name")
    if name is not None:
        check_service_name(name, "provider_config.service_name")


def check_service_name(name: str, field: str) -> None:
    """
    Raises:
        InvalidSpec: not a name that Restate accepts.
    """
    if not naming.SERVICE_NAME.fullmatch(name):
        raise InvalidSpec(field, f"{name!r} is no name of a service: {naming.SERVICE_NAME_RULE}")
    if naming.is_reserved(name) or name.startswith(naming.SYSTEM_PREFIX):
        raise InvalidSpec(field, f"{name!r} is reserved; names may not begin with restate or {naming.SYSTEM_PREFIX}")


def check_execution(
    workflow_id: str,
    execution_name: str,
    value: Any,
    tags: Mapping[str, str],
    metadata: Mapping[str, Any],
    payload_bytes_max: int = PAYLOAD_BYTES_MAX,
) -> None:
    """
    Raises:
        InvalidInput: with the argument.
    """
    if not naming.WORKFLOW_ID.fullmatch(workflow_id):
        raise InvalidInput("workflow_id", f"{workflow_id[:140]!r} is not {naming.WORKFLOW_ID_RULE}")
    if not naming.EXECUTION_NAME.fullmatch(execution_name):
        raise InvalidInput("execution_name", f"{execution_name[:140]!r} is not {naming.EXECUTION_NAME_RULE}")
    for field, payload in (("input", value), ("metadata", dict(metadata))):
        text = json_text(field, payload)
        if len(text.encode()) > payload_bytes_max:
            hint = "pass an address of the data, or raise workflow.<provider>.payload_bytes_max"
            raise InvalidInput(field, f"has {len(text)} bytes, at most {payload_bytes_max} are allowed", hint=hint)
    _check_tags(tags, InvalidInput)


def json_text(field: str, value: Any) -> str:
    """
    Raises:
        InvalidInput: it is no JSON value.
    """
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(field, f"is not JSON: {error}") from None


def check_grace(grace: timedelta | None) -> None:
    """
    Raises:
        InvalidInput: it is no length of time.
    """
    given: Any = grace
    if given is not None and not isinstance(given, timedelta):
        raise InvalidInput("grace", f"must be a timedelta, not {given!r}", hint="e.g. timedelta(seconds=30)")
    if given is not None and given < timedelta(0):
        raise InvalidInput("grace", f"must not be below zero, as {given} is")


def _check_retry_policy(policy: RetryPolicy) -> None:
    if policy.max_attempts < 0:
        raise InvalidSpec("retry_policy.max_attempts", f"must be 0 or more, not {policy.max_attempts}")
    if policy.backoff_rate < 1:
        raise InvalidSpec("retry_policy.backoff_rate", f"must be 1 or more, not {policy.backoff_rate}")
    for name in ("initial_interval", "max_interval"):
        _check_duration(f"retry_policy.{name}", getattr(policy, name))


def _check_duration(field: str, value: Any) -> None:
    if not isinstance(value, timedelta):
        raise InvalidSpec(field, f"must be a timedelta, not {value!r}", hint="e.g. timedelta(seconds=30)")
    if value <= timedelta(0):
        raise InvalidSpec(field, f"must be above zero, not {value}")


def _check_tags(tags: Mapping[str, Any], error: type[InvalidSpec] | type[InvalidInput]) -> None:
    if len(tags) > TAGS_MAX:
        raise error("tags", f"there are {len(tags)}, at most {TAGS_MAX} are allowed")
    for name, value in cast("Mapping[Any, Any]", tags).items():
        for part in (name, value):
            if not isinstance(part, str):
                raise error("tags", f"{name!r}: {part!r} must be text")
            if len(part.encode()) > TAG_BYTES_MAX:
                raise error("tags", f"{part[:40]!r}… is longer than {TAG_BYTES_MAX} bytes")


def _duration(field: str, value: Any) -> timedelta:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise InvalidSpec(field, str(error)) from None


def _type_text(types: Any) -> str:
    names = {str: "text", Mapping: "an object"}
    several = cast("tuple[Any, ...]", types if isinstance(types, tuple) else (types,))
    return " or ".join(names[each] for each in several)
