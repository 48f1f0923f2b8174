"""A site judged by what its scan holds: performance, SEO, accessibility, security. Pure but for an outside service.

Every category begins at 100 and loses points per check that finds something. The checks are tables in
`audit_checks.py`; the same scan always gives the same report.
"""

from __future__ import annotations

from collections.abc import Sequence

from apps.leads.web.audit_checks import CHECKS
from apps.leads.web.audit_service import AuditService
from apps.leads.web.types import AuditIssue, AuditReport, SiteScan

OWN_AUDIT = "local"
"""Source of reports by our own checks."""
CATEGORY_WEIGHTS = {"performance": 0.25, "seo": 0.3, "accessibility": 0.2, "security": 0.25}
"""What each category counts for in the score of the whole."""


def judge(scan: SiteScan) -> AuditReport:
    """The report of a scan. A site that could not be read scores 0, with that as its one issue."""
    url = scan.access.final_url
    if not scan.is_reachable:
        why = scan.failure.message if scan.failure is not None else "no answer"
        issue = AuditIssue(
            "performance",
            "unreachable",
            "high",
            100.0,
            f"The site cannot be read: {why}",
            "Bring the site back on line.",
        )
        return AuditReport(OWN_AUDIT, url, 0, dict.fromkeys(CATEGORY_WEIGHTS, 0), [issue])
    issues: list[AuditIssue] = []
    passed: list[str] = []
    for check in CHECKS:
        finding = check.find(scan)
        if finding is None:
            passed.append(check.code)
        elif finding.share > 0:
            points = round(check.points * min(finding.share, 1.0), 1)
            severity = "high" if points >= 15 else "medium" if points >= 7 else "low"
            issues.append(AuditIssue(check.category, check.code, severity, points, finding.message, check.advice))
    scores = {category: _score(category, issues) for category in CATEGORY_WEIGHTS}
    total = sum(scores[category] * weight for category, weight in CATEGORY_WEIGHTS.items())
    issues.sort(key=lambda issue: (-issue.points_lost, issue.category, issue.code))
    return AuditReport(OWN_AUDIT, url, round(total), scores, issues, passed)


def _score(category: str, issues: Sequence[AuditIssue]) -> int:
    lost = sum(issue.points_lost for issue in issues if issue.category == category)
    return round(max(0.0, 100.0 - lost))


async def audit(
    scan: SiteScan,
    *,
    business_name: str = "",
    locations: Sequence[str] = (),
    service: AuditService | None = None,
    idempotency_key: str | None = None,
) -> AuditReport:
    """Judge a site, by our own checks or by an outside service.

    Args:
        scan: A comprehensive one gives the better report.
        service: Asked instead of our own checks; expensive.
        idempotency_key: For the service, which must not be paid twice.
    Raises:
        AuditUnavailable: The service did not answer; try again.
        AuditRefused: It will never do this one.
    """
    if service is None:
        return judge(scan)
    return await service.audit(
        scan.access.final_url, business_name, locations=locations, idempotency_key=idempotency_key
    )
