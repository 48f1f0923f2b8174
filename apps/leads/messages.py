"""What the API takes and gives, beyond the words of `model.py`. Plain data and its reading."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from apps.leads.booking import LedgerEntry
from apps.leads.errors import LeadsError
from apps.leads.model import ENRICHMENT_BUSINESSES_MAX, Business, JobView, Lead, LogLine, StepView

T = TypeVar("T")
LEAD_ID_SEPARATOR = ":"


class StartBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every start may say."""

    user_id: str | None = None
    """Whose wallet pays. A user's key says it already."""
    client_key: str | None = None
    """The same key again is the same job. The header `Idempotency-Key` says the same."""
    notify: list[str] = []
    """Names of configured Discord webhooks that hear of the end."""
    is_free: bool | None = None
    """For the master key only, whose default is true."""


class DiscoveryBody(StartBody, kw_only=True):
    niche: str
    location: str
    limit: int = 10
    directory: str | None = None
    scan: bool = True


class EnrichmentBody(StartBody, kw_only=True):
    businesses: list[Business] = []
    discovery_job_id: str | None = None
    place_ids: list[str] = []
    limit: int = ENRICHMENT_BUSINESSES_MAX


class TopUpBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    amount_cents: int
    key: str | None = None
    """Of the payment: the same again is booked once. The header `Idempotency-Key` says the same."""
    reference: str = ""


class TierBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    tier: str
    key: str | None = None


class LeadItem(msgspec.Struct, kw_only=True):
    """A lead with the id it is asked for by."""

    lead_id: str
    lead: Lead


class LeadsPage(msgspec.Struct, kw_only=True):
    leads: list[LeadItem]
    """Best score first."""


class JobsPage(msgspec.Struct, kw_only=True):
    jobs: list[JobView]
    """Newest first."""
    next_before_ms: int | None
    """For `before_ms`, to see older ones."""


class StepsPage(msgspec.Struct, kw_only=True):
    steps: list[StepView]


class LogsPage(msgspec.Struct, kw_only=True):
    logs: list[LogLine]


class LedgerPage(msgspec.Struct, kw_only=True):
    ledger: list[LedgerEntry]
    """The newest lines, oldest of them first."""


class Health(msgspec.Struct, kw_only=True):
    status: str
    discovery_engine: str
    enrichment_engine: str


class ErrorBody(msgspec.Struct, kw_only=True):
    code: int
    """The HTTP status."""
    message: str
    """One line, with what to do next where something can be done."""
    retryable: bool
    """The same request may succeed a moment later."""
    details: dict[str, int] = {}
    """402: `required_cents` and `available_cents`."""


def parse(body: bytes, kind: type[T]) -> T:
    """Read a JSON body.

    Raises:
        LeadsError: 400 it is not JSON, 422 a field is wrong.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise LeadsError(422, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LeadsError(400, f"the body is not JSON: {error}") from error


def lead_id(job_id: str, place_id: str) -> str:
    """How a lead is asked for: `discovery-12ab:osm:node/7`."""
    return f"{job_id}{LEAD_ID_SEPARATOR}{place_id}"


def item(lead: Lead) -> LeadItem:
    return LeadItem(lead_id=lead_id(lead.job_id, lead.business.place_id), lead=lead)


def shown(job: JobView) -> JobView:
    """The job as others may see it: the token of a Discord interaction is a secret for a quarter of an hour."""
    targets: list[str] = job.request.get("notify", [])
    hidden = ["discord interaction" if one.startswith("interaction/") else one for one in targets]
    request: dict[str, Any] = {**job.request, "notify": hidden} if targets else job.request
    return msgspec.structs.replace(job, request=request)
