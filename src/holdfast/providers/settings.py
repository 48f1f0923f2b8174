"""Every setting of the workflow layer: key, form, default, meaning. Documentation, checks and `config show` read this.

Keys are `workflow.<provider>.<name>`, and `workflow.default_provider`, `workflow.routing.<pattern>`. Each value here is
read alone; what must fit together is in `check_together`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from holdfast.providers.errors import InvalidSpec
from holdfast.providers.types import PAYLOAD_BYTES_MAX, duration_text
from holdfast.providers.validation import check_service_name, parse_duration
from holdfast.security.bearer import can_be_sent

MECHANISMS = ("lambda", "fargate", "kubernetes", "self-hosted", "local")
AUTH_TYPES = ("api_key", "iam", "none")
DURABILITIES = ("full", "relaxed")
LOCAL_ENDPOINT = "http://localhost:8080"
ADMIN_PORT = 9070

DEFAULT_PROVIDER = "workflow.default_provider"
ROUTING = "workflow.routing"

MASK = "********"

_ARN = re.compile(r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]+:[A-Za-z0-9_$-]+")
_ROLE_ARN = re.compile(r"arn:[a-z-]+:iam::\d{12}:role/\S+")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a provider."""

    name: str
    form: str
    """What a value looks like, for people."""
    parse: Callable[[Any], Any]
    """From text or TOML value; ValueError says what is allowed."""
    doc: str
    default: Any = None
    is_secret: bool = False
    is_required: bool = False


def text(value: Any) -> str:
    """Any text but the empty one."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no text")
    return value


def bearer_token(value: Any) -> str:
    """What a header can carry: the line end of a file, for example, is none."""
    if not can_be_sent(text(value)):
        raise ValueError("has characters that no header can carry")
    return str(value)


def url(value: Any) -> str:
    """An http or https address without query; a trailing slash is dropped."""
    try:
        parts = urlsplit(text(value))
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        has_credentials = "@" in parts.netloc
    except ValueError:
        is_address = has_credentials = False
    else:
        is_address = is_address and not parts.query and not parts.fragment
    if has_credentials:  # not repeated
        raise ValueError("has a user or password in it; leave them out: auth_type and api_key are for that")
    if not is_address:
        raise ValueError(f"{value!r} is no http or https URL, e.g. {LOCAL_ENDPOINT}")
    return str(value).rstrip("/")


def one_of(*allowed: str) -> Callable[[Any], str]:
    """One of these words."""

    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"{value!r} is unknown; allowed: {', '.join(allowed)}")
        return str(value)

    return parse


def whole_number(at_least: int, at_most: int | None = None) -> Callable[[Any], int]:
    """A whole number in its limits."""
    limits = f"{at_least} or more" if at_most is None else f"{at_least} to {at_most}"

    def parse(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"{value!r} is no whole number; allowed: {limits}")
        if number < at_least or (at_most is not None and number > at_most):
            raise ValueError(f"{number} is not allowed: {limits}")
        return number

    return parse


def service_name(value: Any) -> str:
    """A name that Restate accepts."""
    try:
        check_service_name(text(value), "service_name")
    except InvalidSpec as error:
        raise ValueError(error.message.partition(": ")[2]) from None
    return str(value)


def lambda_arn(value: Any) -> str:
    """A qualified function ARN."""
    if not _ARN.fullmatch(text(value)):
        example = "arn:aws:lambda:eu-central-1:123456789012:function:flows:1"
        raise ValueError(f"{value!r} is no qualified Lambda ARN (with version or alias), e.g. {example}")
    return str(value)


def role_arn(value: Any) -> str:
    """A role's ARN."""
    if not _ROLE_ARN.fullmatch(text(value)):
        raise ValueError(f"{value!r} is no role ARN, e.g. arn:aws:iam::123456789012:role/restate-invoker")
    return str(value)


def identity_key(value: Any) -> str:
    """A server's public key."""
    if not text(value).startswith("publickeyv1_"):
        raise ValueError(f"{value!r} is no public key of a server: they begin with publickeyv1_")
    return str(value)


_COMMON = (
    Setting("service_name", "text", service_name, "Name of a workflow's service; default: made from the workflow id"),
    Setting("timeout", "duration", parse_duration, "Time limit of executions whose workflow has none; none by default"),
    Setting(
        "retry_attempts",
        "whole number, 0 or more",
        whole_number(0),
        "Further attempts after a failed one, before an execution is `failed`; 0 is one attempt in all. By default the "
        "engine's own policy: about 70 attempts, then `paused`",
    ),
    Setting(
        "stop_grace",
        "duration",
        parse_duration,
        "How long a handler may clean up, after a time limit or a stop with `kill`, before it is killed",
        timedelta(seconds=10),
    ),
    Setting(
        "payload_bytes_max",
        "whole number, 1 or more",
        whole_number(1),
        "Largest input of an execution, as JSON",
        PAYLOAD_BYTES_MAX,
    ),
)

RESTATE = (
    Setting(
        "endpoint",
        "http(s) URL",
        url,
        f"Ingress of the server, `{LOCAL_ENDPOINT}` for a local one",
        is_required=True,
    ),
    Setting("admin_endpoint", "http(s) URL", url, f"Admin API; default: the endpoint's host, port {ADMIN_PORT}"),
    Setting(
        "execution_mechanism",
        f"one of {', '.join(MECHANISMS)}",
        one_of(*MECHANISMS),
        "Where the code of workflows runs; unset means local",
        "local",
    ),
    *_COMMON[:1],
    Setting(
        "auth_type", f"one of {', '.join(AUTH_TYPES)}", one_of(*AUTH_TYPES), "How requests prove themselves", "none"
    ),
    Setting(
        "api_key",
        "ASCII text, one line",
        bearer_token,
        "Sent as `Authorization: Bearer` with every request; never logged",
        is_secret=True,
    ),
    *_COMMON[1:],
    Setting("request_timeout", "duration", parse_duration, "How long one request may take", timedelta(seconds=10)),
    Setting(
        "request_attempts",
        "whole number, 1 to 20",
        whole_number(1, 20),
        "How often a request is sent while there is no answer, or 502, 503, 504",
        3,
    ),
    Setting("ca_file", "path of a PEM file", text, "Authorities whose certificates an https endpoint may have"),
    Setting(
        "deployment_url",
        "http(s) URL",
        url,
        "Where the server reaches the deployed application (self-hosted, kubernetes, fargate)",
    ),
    Setting("deployment_arn", "qualified Lambda ARN", lambda_arn, "The deployed function (lambda)"),
    Setting("assume_role_arn", "role ARN", role_arn, "Role that the server assumes to invoke it (lambda with iam)"),
    Setting(
        "listen_host", "host", text, "Local mechanism: address on which this process serves workflows", "127.0.0.1"
    ),
    Setting("listen_port", "port", whole_number(0, 65535), "Local mechanism: its port; 0 takes a free one", 0),
    Setting(
        "advertised_url",
        "http(s) URL",
        url,
        "Local mechanism: where the server reaches this process; default: listen_host and listen_port",
    ),
    Setting(
        "identity_key",
        "publickeyv1_…",
        identity_key,
        "Local mechanism: public key of the server; then requests that it did not sign are refused",
    ),
    Setting(
        "drain",
        "duration",
        parse_duration,
        "Local mechanism: on close, how long running handlers may take; the server tries them again elsewhere",
        timedelta(seconds=2),
    ),
)

EMBEDDED = (
    Setting("db", "path", text, "Database file; `:memory:` keeps nothing", "holdfast.db"),
    Setting(
        "durability",
        f"one of {', '.join(DURABILITIES)}",
        one_of(*DURABILITIES),
        "`full`: fsync for every commit; `relaxed`: leave it to the operating system",
        "full",
    ),
    Setting(
        "ingress_port", "port", whole_number(0, 65535), "Serve the ingress API here; unset: not at all, 0: a free one"
    ),
    Setting("admin_port", "port", whole_number(0, 65535), "Serve the admin API here; unset: not at all, 0: a free one"),
    Setting("attempts_max", "whole number, 1 or more", whole_number(1), "Attempts that run at the same time", 1000),
    Setting(
        "body_bytes_max", "whole number, 1 or more", whole_number(1), "Largest request and journal entry", 32 << 20
    ),
    Setting(
        "drain",
        "duration",
        parse_duration,
        "On close, how long running attempts may take to finish or suspend",
        timedelta(seconds=10),
    ),
    *_COMMON,
)

SECTIONS: Mapping[str, tuple[Setting, ...]] = {"embedded": EMBEDDED, "restate": RESTATE}


def setting_text(value: Any) -> Any:
    """A setting's value as `config show` prints it: JSON types, durations as text."""
    return duration_text(value) if isinstance(value, timedelta) else value


def check_together(provider: str, values: Mapping[str, Any]) -> list[str]:
    """What does not fit together in one provider's settings: (name: reason) lines.

    Args:
        values: All settings of the provider, defaults included.
    """
    if provider != "restate":
        return []
    problems: list[str] = []
    mechanism, auth, key = values["execution_mechanism"], values["auth_type"], values["api_key"]
    if auth == "iam" and mechanism != "lambda":
        problems.append(f"auth_type: iam fits the mechanism lambda only, not {mechanism}; allowed here: api_key, none")
    if auth == "api_key" and not key:
        problems.append("api_key: is required with auth_type api_key")
    if auth != "api_key" and key:
        problems.append(f"auth_type: is {auth}, but there is an api_key; allowed with one: api_key")
    if values["deployment_arn"] and mechanism != "lambda":
        problems.append(f"deployment_arn: belongs to the mechanism lambda, not {mechanism}")
    if values["deployment_url"] and mechanism in ("lambda", "local"):
        problems.append(f"deployment_url: belongs to self-hosted, kubernetes and fargate, not {mechanism}")
    if values["assume_role_arn"] and auth != "iam":
        problems.append(f"assume_role_arn: belongs to auth_type iam, not {auth}")
    return problems
