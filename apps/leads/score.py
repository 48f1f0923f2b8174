"""How good a lead is, from 0 to 100, and why. Pure functions: the same facts give the same score."""

from __future__ import annotations

from apps.leads.model import Business, ScorePart, ScoreReport
from apps.leads.settings import ScoreWeights
from apps.leads.web.types import AuditReport, Owner, SiteScan


def discovery_score(
    business: Business, scan: SiteScan | None, weights: ScoreWeights, *, is_scanned: bool = True
) -> ScoreReport:
    """What can be said after a quick look: 50, and points for a website that could do better.

    Args:
        scan: None: the business has no website.
        is_scanned: False: nobody looked, so that nothing is known of its website.
    """
    is_reachable = scan is not None and scan.is_reachable
    runs_ads = is_reachable and scan is not None and scan.runs_ads
    is_readable = is_reachable and scan is not None and scan.is_ai_readable
    reviews = business.review_count
    if scan is None and not is_scanned:
        website = ads = readable = "the website was not looked at"
    elif scan is None:
        website = ads = readable = "no website is known"
    elif not is_reachable:
        reason = scan.failure.message if scan.failure is not None else "no page"
        website = ads = readable = f"the website does not answer: {reason}"
    else:
        points = scan.ai_readability.points if scan.ai_readability is not None else 0
        website = f"answers with {scan.access.status}"
        ads = (
            "Facebook pixel or Google Analytics on the page"
            if runs_ads
            else "neither Facebook pixel nor Google Analytics"
        )
        readable = f"{points} of 100 points for being readable by programs"
    parts = [
        _part("base", weights.base, True, "every business that was found"),
        _part("website", weights.website, is_reachable, website),
        _part("ads", weights.ads, runs_ads, ads),
        # A site that does not answer is not readable either: that business needs us most.
        _part("not_ai_readable", weights.not_ai_readable, is_scanned and not is_readable, readable),
        _part(
            "reviews",
            weights.reviews,
            reviews is not None and reviews > weights.reviews_more_than,
            "the directory has no reviews" if reviews is None else f"{reviews} reviews",
        ),
    ]
    return _report(parts)


def lead_score(
    discovery: float,
    business: Business,
    scan: SiteScan | None,
    owner: Owner | None,
    audit: AuditReport | None,
    weights: ScoreWeights,
) -> ScoreReport:
    """What can be said after an enrichment: the discovery's score, how much there is to do, whom to talk to.

    Args:
        discovery: The discovery's score, 0 to 100.
        audit: None: there is no page to audit, so that everything is still to do.
    """
    need = 100 - (audit.score if audit is not None else 0)
    emails = [business.email] if business.email else [email.address for email in scan.contact.emails] if scan else []
    phones = (
        [business.phone]
        if business.phone
        else [phone.number for phone in scan.contact.phones if not phone.is_fax]
        if scan
        else []
    )
    found = {
        "owner": (weights.owner, owner.name if owner is not None else None),
        "e-mail": (weights.email, next(iter(emails), None)),
        "phone": (weights.phone, next(iter(phones), None)),
    }
    reach = min(100.0, sum(points for points, value in found.values() if value))
    how = ", ".join(f"{name} {value or 'unknown'}" for name, (_, value) in found.items())
    report = f"the audit gives {audit.score} of 100" if audit is not None else "there is no page to audit"
    parts = [
        _share("discovery", weights.share_discovery, discovery, f"discovery score {discovery:g}"),
        _share("need", weights.share_need, need, f"{report}: {need:g} to gain"),
        _share("reach", weights.share_reach, reach, f"{how}: {reach:g}"),
    ]
    return _report(parts)


def _part(name: str, points: float, is_earned: bool, reason: str) -> ScorePart:
    return ScorePart(name=name, points=points if is_earned else 0, points_max=points, reason=reason)


def _share(name: str, share: float, value: float, reason: str) -> ScorePart:
    return ScorePart(name=name, points=round(share * value, 2), points_max=round(share * 100, 2), reason=reason)


def _report(parts: list[ScorePart]) -> ScoreReport:
    total = sum(part.points for part in parts)
    if total > 100:
        parts = [*parts, ScorePart(name="cap", points=round(100 - total, 2), points_max=0, reason="at most 100")]
    return ScoreReport(score=round(min(100, max(0, total)), 1), parts=parts)
