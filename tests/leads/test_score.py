"""Scores: each component, each cap, the same facts the same score."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.leads.model import Business
from apps.leads.score import discovery_score, lead_score
from apps.leads.settings import ScoreWeights
from apps.leads.web.types import (
    Access,
    AuditReport,
    Contact,
    Email,
    Failure,
    Owner,
    Phone,
    Score,
    Signal,
    SiteScan,
)

WEIGHTS = ScoreWeights()
PIXEL = Signal("facebook_pixel")


def scan(*, ads: bool = False, readable: bool = False, up: bool = True, **fields: Any) -> SiteScan:
    return SiteScan(
        access=Access(
            url="http://b.example", final_url="http://b.example", is_reachable=up, status=200 if up else None
        ),
        failure=None if up else Failure(code="timeout", message="not done in 10 s"),
        trackers=[PIXEL] if ads else [],
        ai_readability=Score(points=60 if readable else 20, points_max=100, is_passed=readable, components=[]),
        **fields,
    )


def business(reviews: int | None = None, **fields: Any) -> Business:
    return Business(place_id="p", name="B", review_count=reviews, **fields)


DISCOVERY = {
    "no website": (None, None, 65),
    "a website that is down": (scan(up=False), None, 65),
    "a website that is down, although it had ads": (scan(up=False, ads=True), None, 65),
    "a plain website": (scan(), None, 85),
    "with ads": (scan(ads=True), None, 95),
    "readable": (scan(readable=True), None, 70),
    "readable, with ads": (scan(readable=True, ads=True), None, 80),
    "20 reviews are not more than 20": (scan(readable=True), 20, 70),
    "21 reviews": (scan(readable=True), 21, 75),
    "everything": (scan(ads=True), 500, 100),
}


@pytest.mark.parametrize("case", DISCOVERY)
def test_discovery_score(case: str) -> None:
    looked_at, reviews, score = DISCOVERY[case]
    report = discovery_score(business(reviews), looked_at, WEIGHTS)
    assert report.score == score
    assert sum(part.points for part in report.parts) == score
    assert all(part.reason for part in report.parts)


def test_a_website_that_nobody_looked_at_earns_and_costs_nothing() -> None:
    assert discovery_score(business(30), None, WEIGHTS, is_scanned=False).score == 55


def test_weights_are_settings_and_the_sum_is_capped() -> None:
    report = discovery_score(business(30), scan(ads=True), ScoreWeights(base=80))
    assert report.score == 100
    assert {part.name: part.points for part in report.parts}["cap"] == -30
    assert sum(part.points for part in report.parts) == 100


def report(score: int) -> AuditReport:
    return AuditReport(source="local", url="", score=score, scores={}, issues=[])


OWNER = Owner("Ada", "website", 0.9)
LEAD = {
    "nothing known": (50, business(), None, None, None, 25 + 30 + 0),
    "a perfect site": (50, business(), scan(), None, report(100), 25 + 0 + 0),
    "half way": (80, business(), scan(), None, report(50), 40 + 15 + 0),
    "an owner": (80, business(), scan(), OWNER, report(50), 40 + 15 + 8),
    "an e-mail in the directory": (80, business(email="a@b.example"), None, None, report(50), 40 + 15 + 6),
    "a phone in the directory": (80, business(phone="1"), None, None, report(50), 40 + 15 + 6),
    "contacts on the page": (
        80,
        business(),
        scan(contact=Contact(phones=[Phone("+32", "", "tel")], emails=[Email("a@b.example", "mailto")])),
        None,
        report(50),
        40 + 15 + 12,
    ),
    "a fax is no phone": (
        80,
        business(),
        scan(contact=Contact(phones=[Phone("+32", "", "tel", is_fax=True)])),
        None,
        report(50),
        40 + 15,
    ),
    "everything": (100, business(phone="1", email="a@b.example"), scan(), OWNER, report(0), 100),
}


@pytest.mark.parametrize("case", LEAD)
def test_lead_score(case: str) -> None:
    discovery, who, looked_at, owner, audit, score = LEAD[case]
    made = lead_score(discovery, who, looked_at, owner, audit, WEIGHTS)
    assert made.score == score
    assert sum(part.points for part in made.parts) == pytest.approx(score)
    assert made == lead_score(discovery, who, looked_at, owner, audit, WEIGHTS)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(
    st.floats(0, 100),
    st.integers(0, 100),
    st.booleans(),
    st.builds(ScoreWeights, base=st.floats(0, 200), owner=st.floats(0, 200), share_need=st.floats(0, 1)),
)
def test_a_score_is_from_0_to_100_whatever_the_weights(
    discovery: float, audit: int, has_owner: bool, weights: ScoreWeights
) -> None:
    who = business(25, phone="1", email="x")
    owner = OWNER if has_owner else None
    assert 0 <= lead_score(discovery, who, scan(), owner, report(audit), weights).score <= 100
    assert 0 <= discovery_score(who, scan(ads=True), weights).score <= 100
