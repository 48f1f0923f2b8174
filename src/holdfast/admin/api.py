"""What both ends of the admin API must agree on."""

from __future__ import annotations

API_VERSIONS = (2, 3, 4)

ERROR_CODE_HEADER = "x-holdfast-error-code"
"""Our error code (`HF0101`) beside Restate's error body, which has no place for it."""

STATUSES = ("scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused", "completed")
"""Public statuses of an invocation, as shown and as filtered by."""

LIST_LIMIT_DEFAULT = 100
LIST_LIMIT_MAX = 1_000

ADMIN_URL = "http://127.0.0.1:9070"
INGRESS_URL = "http://127.0.0.1:8080"

BATCH_MAX = 1_000
"""Invocations that one batch request may name."""

ADMIN_TOKEN_VARIABLE = "HOLDFAST_ADMIN_TOKEN"  # noqa: S105 - a name
INGRESS_TOKEN_VARIABLE = "HOLDFAST_INGRESS_TOKEN"  # noqa: S105 - a name
"""Where clients find the token to send, and `holdfast serve` one to ask for."""
