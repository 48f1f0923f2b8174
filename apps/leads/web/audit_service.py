"""A client of an audit service: `POST <address>/api/public-audit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import msgspec

from apps.leads.outside import http_client
from apps.leads.web.types import AuditIssue, AuditReport

REPORT_BYTES_MAX = 5_000_000
_SEVERITIES = {"critical": "high", "high": "high", "error": "high", "medium": "medium", "warning": "medium"}


class AuditUnavailable(Exception):
    """No answer, or one of 429 or 5xx: another attempt may succeed.

    Args:
        retry_after_s: What the service asks to wait, if it says so.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AuditRefused(Exception):
    """The service will never do this: 4xx, or an answer that is no report.

    Args:
        status: The HTTP status; 502 for an answer that cannot be read.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Issue(msgspec.Struct):
    message: str = ""
    title: str = ""
    category: str = "other"
    code: str = ""
    severity: str = "medium"
    advice: str = ""
    recommendation: str = ""


class _Report(msgspec.Struct):
    score: float
    scores: dict[str, float] = {}
    categories: dict[str, float] = {}
    issues: list[_Issue | str] = []
    citations: list[Any] = []
    html: str | None = None


class AuditService:
    """One audit service.

    Args:
        base_url: Its address, without `/api/public-audit`.
        keys: Sent in the body as `keys`: what the service needs of other providers.
        timeout_s: For the whole audit; these take minutes.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        keys: dict[str, str] | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._keys = keys or {}
        self._timeout_s = timeout_s

    async def audit(
        self,
        website_url: str,
        business_name: str,
        *,
        locations: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> AuditReport:
        """Have a website audited. Expensive: give the same `idempotency_key` when it is asked again.

        Raises:
            AuditUnavailable: Try again.
            AuditRefused: Never try again.
        """
        headers = {"authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        body = {
            "website_url": website_url,
            "business_name": business_name,
            "locations": list(locations),
            "keys": self._keys,
        }
        try:
            async with http_client(timeout=self._timeout_s, trust_env=False) as client:
                response = await client.post(f"{self.base_url}/api/public-audit", json=body, headers=headers)
        except httpx.InvalidURL as error:
            raise AuditRefused(f"audit service {self.base_url!r}: {error}", status=400) from error
        except httpx.HTTPError as error:
            raise AuditUnavailable(f"audit service: no answer: {str(error) or type(error).__name__}") from error
        if response.status_code == 429 or response.status_code >= 500:
            wait = response.headers.get("retry-after", "")
            raise AuditUnavailable(
                f"audit service: status {response.status_code}", retry_after_s=float(wait) if wait.isdecimal() else None
            )
        if response.status_code >= 300:
            raise AuditRefused(
                f"audit service: status {response.status_code}: {response.text[:200]}", status=response.status_code
            )
        if len(response.content) > REPORT_BYTES_MAX:
            raise AuditRefused(f"audit service: a report of {len(response.content)} bytes", status=502)
        return self._report(website_url, response.content)

    def _report(self, url: str, content: bytes) -> AuditReport:
        try:
            report = msgspec.json.decode(content, type=_Report)
        except (msgspec.DecodeError, ValueError) as error:
            raise AuditRefused(f"audit service: an answer that is no report: {error}", status=502) from error
        return AuditReport(
            source=self.base_url,
            url=url,
            score=_percent(report.score),
            scores={name: _percent(points) for name, points in (report.scores or report.categories).items()},
            issues=[_issue(one) for one in report.issues[:200]],
            citations=[one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in report.citations],
            html=report.html,
        )


def _percent(value: float) -> int:
    return round(min(max(value, 0.0), 100.0))


def _issue(one: _Issue | str) -> AuditIssue:
    if isinstance(one, str):
        one = _Issue(message=one)
    message = one.message or one.title
    code = one.code or "-".join(message.lower().split()[:5])
    severity = _SEVERITIES.get(one.severity.lower(), "low")
    return AuditIssue(one.category, code, severity, 0.0, message, one.advice or one.recommendation)
