"""The words of leads: businesses, jobs, leads and what is asked for. Plain data; knows no engine and no database.

Money is in whole cents of a dollar (`_cents`), the price of a provider's service in dollars (`_usd`), because those are
fractions of a cent. Times are milliseconds since 1970 (`_at_ms`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

from apps.leads.web.types import AuditReport, Owner, SiteScan

DISCOVERY_BUSINESSES_MAX = 100
ENRICHMENT_BUSINESSES_MAX = 50
TEXT_CHARACTERS_MAX = 500
"""Of a niche, a location, a user's id, and of the name and the id of a business."""


class JobStatus(StrEnum):
    """Where a job stands. The last four are final; only `resume` leaves them."""

    PENDING = "pending"
    """Accepted and kept; its workflow has not begun."""
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """A person ended it."""
    TIMED_OUT = "timed_out"
    """Its time limit ended it."""

    @property
    def is_final(self) -> bool:
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


class JobKind(StrEnum):
    DISCOVERY = "discovery"
    ENRICHMENT = "enrichment"


class Business(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One business, whichever directory it comes from: the common record."""

    place_id: str
    """Its identity in the directory, with the directory's name: `osm:node/470916907`, `apify:ChIJ...`."""
    name: str
    category: str = ""
    """What it is, in the directory's words: `shop=bakery`, `Bakery`."""
    website: str | None = None
    phone: str | None = None
    email: str | None = None
    street: str | None = None
    """With the number."""
    postal_code: str | None = None
    city: str | None = None
    state: str | None = None
    country: str | None = None
    """Two letters."""
    latitude: float | None = None
    longitude: float | None = None
    opening_hours: str | None = None
    rating: float | None = None
    """0 to 5. OpenStreetMap has none."""
    review_count: int | None = None
    """None: the directory does not say."""
    social: dict[str, str] = {}
    source: str = ""
    """Directory: `osm`, `overpass`, `apify`."""
    licence: str = ""
    """What must be shown with it."""


# ---- scores --------------------------------------------------------------------------------------------------------------


class ScorePart(msgspec.Struct, frozen=True, kw_only=True):
    """One component of a score."""

    name: str
    points: float
    """What it adds; at the end all add up to the score, except where `cap` takes some away."""
    points_max: float
    reason: str


class ScoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """A score from 0 to 100 and how it came about."""

    score: float
    parts: list[ScorePart]


# ---- discovery -----------------------------------------------------------------------------------------------------------


class DiscoveryRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Find businesses of one kind in one place, look at their websites, score them."""

    user_id: str
    niche: str
    """`bakery`, `hair salon`, or an OpenStreetMap tag: `shop=bakery`."""
    location: str
    """`Arlon` or `Springfield, IL`."""
    limit: int = 10
    """1 to 100."""
    directory: str | None = None
    """Name of a configured directory; None: the configured default."""
    scan: bool = True
    """Look at the websites."""
    tenant_id: str = "default"
    client_key: str | None = None
    """Chosen by the caller: the same key again is the same job."""
    notify: list[str] = []
    """Where to tell the end: names of configured webhooks, or `interaction/<application id>/<token>`."""
    is_free: bool = False
    """Not charged: the API sets it for holders of the master key."""


class DiscoveryStats(msgspec.Struct, kw_only=True):
    total: int = 0
    with_website: int = 0
    scanned: int = 0
    """Websites that answered."""
    with_ads: int = 0
    with_booking: int = 0
    with_chat: int = 0
    seo_ok: int = 0
    ai_readable: int = 0


class DiscoveryResult(msgspec.Struct, kw_only=True):
    """What a discovery found. The businesses themselves are leads in the store."""

    job_id: str
    found_count: int
    """What the directory gave, before duplicates were taken out."""
    duplicate_count: int
    lead_count: int
    best_score: float | None
    stats: DiscoveryStats
    warnings: list[str] = []


# ---- enrichment ----------------------------------------------------------------------------------------------------------


class EnrichmentRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Look closely at businesses: whole website, owner, audit, lead score.

    Either `businesses`, or the leads of a finished discovery: the best `limit` of `discovery_job_id`, or those named by
    `place_ids`.
    """

    user_id: str
    businesses: list[Business] = []
    discovery_job_id: str | None = None
    place_ids: list[str] = []
    limit: int = ENRICHMENT_BUSINESSES_MAX
    tenant_id: str = "default"
    client_key: str | None = None
    notify: list[str] = []
    is_free: bool = False


class EnrichBusinessRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Input of the handler `enrichBusiness`."""

    business: Business
    job_id: str = ""
    """Whose steps, costs and lead this is; empty: nobody's, the answer is all there is."""
    run: int = 1
    discovery_score: float | None = None
    """From a discovery; None: computed from this scan."""
    cost_max_usd: float | None = None
    """Of the whole job, not of this business; None: no limit."""
    is_brief: bool = False
    """Answer the score only. The lead is in the store then, under `job_id`."""


class EnrichedBusiness(msgspec.Struct, kw_only=True, rename="camel"):
    """Answer of the handler `enrichBusiness`; the field names in JSON are those callers know: `scanResult` ..."""

    place_id: str
    name: str
    scan_result: SiteScan | None
    owner: Owner | None
    audit_result: AuditReport | None
    lead_score: ScoreReport
    warnings: list[str] = []


class EnrichBatchRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Input of the handler `enrichBatch`: at most 50 businesses."""

    businesses: list[Business]
    job_id: str = ""
    run: int = 1
    discovery_scores: dict[str, float] = {}
    """By place id."""
    cost_max_usd: float | None = None
    """What the job may cost us; None: no limit."""


class BatchFailure(msgspec.Struct, kw_only=True, rename="camel"):
    place_id: str
    name: str
    error: str
    code: int


class BatchEntry(msgspec.Struct, kw_only=True, rename="camel"):
    """One business that succeeded, without its facts: those are in the store (with a job) or asked for one by one."""

    place_id: str
    name: str
    lead_score: float
    owner: str | None = None
    audit_score: int | None = None


class EnrichBatchResult(msgspec.Struct, kw_only=True, rename="camel"):
    """Answer of `enrichBatch`: every business is in one of both lists."""

    results: list[BatchEntry]
    errors: list[BatchFailure]


class EnrichmentResult(msgspec.Struct, kw_only=True):
    """What an enrichment job achieved. The leads are in the store."""

    job_id: str
    business_count: int
    enriched_count: int
    failed_count: int
    best_score: float | None
    results: list[BatchEntry]
    errors: list[BatchFailure]


class Lead(msgspec.Struct, kw_only=True):
    """A business as one job knows it."""

    job_id: str
    rank: int
    """In the order in which the directory gave them, from 0. Lists are ordered by score."""
    business: Business
    score: float | None = None
    """The discovery's score, or after an enrichment the lead score."""
    score_report: ScoreReport | None = None
    discovery_score: float | None = None
    scan: SiteScan | None = None
    owner: Owner | None = None
    audit: AuditReport | None = None
    error: str | None = None
    """Why its enrichment failed."""
    warnings: list[str] = []


# ---- jobs ----------------------------------------------------------------------------------------------------------------


class JobOrder(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Input of the job workflows, whose key is `run_id`."""

    job_id: str
    run: int
    """1, and one more for each `resume`."""
    tenant_id: str
    user_id: str
    kind: JobKind
    request: dict[str, Any]
    """A DiscoveryRequest or EnrichmentRequest as JSON."""
    notify: list[str] = []
    is_free: bool = False
    cost_max_usd: float | None = None
    """What the job may cost us: the workflow says it to the work, once it is paid. None: no limit."""

    @property
    def run_id(self) -> str:
        return run_id(self.job_id, self.run)


def run_id(job_id: str, run: int) -> str:
    """Key of the workflow that does run `run` of a job: the job's id for the first one."""
    return job_id if run == 1 else f"{job_id}-r{run}"


class JobError(msgspec.Struct, kw_only=True, frozen=True):
    code: int
    """Like an HTTP status."""
    message: str
    is_retryable: bool = msgspec.field(name="retryable")
    """A `resume` may succeed without any other change."""
    details: dict[str, Any] = {}
    """For 402: `required_cents` and `available_cents`."""


class JobView(msgspec.Struct, kw_only=True):
    """A job as its owner sees it."""

    job_id: str
    tenant_id: str
    user_id: str
    workflow_id: str
    """`discovery` or `enrichment`."""
    status: JobStatus
    current_step: int
    """Steps that are done."""
    step_results: dict[str, Any]
    """Step name -> its result, which is small: counts, ids, scores."""
    request: dict[str, Any]
    result: dict[str, Any] | None
    """A DiscoveryResult or EnrichmentResult as JSON; None until it is completed."""
    error: JobError | None
    run: int
    engine: Literal["embedded", "restate"]
    """Which engine does the work."""
    invocation_id: str | None
    """Of the job's workflow, on the engine where jobs live."""
    price_cents: int | None
    """What it cost its user, once that is known; 0 after a refund or release."""
    created_at_ms: int
    updated_at_ms: int
    finished_at_ms: int | None


class StepView(msgspec.Struct, kw_only=True):
    """One step of a job. Read from what steps write; the engine's journal is what decides."""

    index: int
    """Order in which they first began, from 0."""
    name: str
    subject: str
    """Place id, for steps of one business; else empty."""
    run: int
    status: Literal["running", "completed", "failed"]
    attempt_count: int
    result: Any
    error: str | None
    started_at_ms: int
    finished_at_ms: int | None

    @property
    def duration_ms(self) -> int | None:
        return None if self.finished_at_ms is None else self.finished_at_ms - self.started_at_ms


class LogLine(msgspec.Struct, kw_only=True):
    at_ms: int
    level: Literal["info", "warning", "error"]
    step: str
    message: str


class CostEvent(msgspec.Struct, kw_only=True):
    """Something that a provider is paid for, or could be: one event per job, step and thing."""

    step: str
    subject: str = ""
    type: str
    """`map_search`, `website_scan`, `owner_search`, `audit` ..."""
    provider: str
    quantity: float
    unit: str
    cost_usd: float
    duration_ms: int = 0
    at_ms: int = 0
    run: int = 1


class StepCost(msgspec.Struct, kw_only=True):
    step: str
    event_count: int
    quantity: float
    cost_usd: float
    duration_ms: int


class CostView(msgspec.Struct, kw_only=True):
    """What a job cost us, in all and per step."""

    job_id: str
    total_usd: float
    price_cents: int | None
    steps: list[StepCost]
    events: list[CostEvent]
