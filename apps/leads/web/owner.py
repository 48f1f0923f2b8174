"""Who owns a business: sources asked one after another until one answers, each with its price."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

import httpx
import msgspec

from apps.leads.outside import http_client
from apps.leads.web.people import is_person_name
from apps.leads.web.types import Owner, OwnerSearch, SiteScan, SourceUse

# US dollars per question.
OWNER_SOURCE_COSTS_USD = {"answer_engine": 0.005, "search_data": 0.10, "profile_search": 0.15, "website": 0.0}
CONFIDENCE_MIN = 0.5
ANSWER_BYTES_MAX = 200_000


class OwnerSourceFailed(Exception):
    """A source did not answer, or not in a form that can be read. The next one is asked."""


class OwnerSource(Protocol):
    """Something that may know who owns a business."""

    @property
    def name(self) -> str: ...

    @property
    def cost_usd(self) -> float:
        """Of one question, whatever the answer."""
        ...

    async def ask(self, business_name: str, scan: SiteScan) -> Owner | None:
        """The owner, or None when the source does not know.

        Raises:
            OwnerSourceFailed: It could not be asked; costs nothing.
        """
        ...


class WebsiteSource:
    """The business's own pages: structured data, imprint, contact and about pages. Free; asks nobody."""

    name = "website"
    cost_usd = OWNER_SOURCE_COSTS_USD["website"]

    async def ask(self, business_name: str, scan: SiteScan) -> Owner | None:
        words = set(business_name.lower().split())
        for one in scan.owner_candidates:
            confidence = one.confidence
            # A business that carries the name of a person most often belongs to this person.
            if words & {word.lower() for word in one.name.split()[1:]}:
                confidence = min(0.99, round(confidence + 0.05, 2))
            if confidence >= CONFIDENCE_MIN:
                return Owner(one.name, self.name, confidence, role=one.role, evidence=one.page_url)
        return None


class _Answer(msgspec.Struct):
    name: str | None = None
    role: str | None = None
    confidence: float = 0.6
    evidence: str | None = None


class _Envelope(msgspec.Struct):
    owner: _Answer | None = None


class HttpOwnerSource:
    """A paid service over HTTP: `POST <url>` with business_name and website gives `{"owner": {"name": ..., ...}}`.

    Args:
        name: One of `OWNER_SOURCE_COSTS_USD`, or another with `cost_usd`.
        token: Sent as `Authorization: Bearer`.
        scope: What one question belongs to, such as a job id. Together with the question it makes the idempotency key:
            a step that was running when the process died asks again, and must not be paid again.
        timeout_s: For the whole question.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        cost_usd: float | None = None,
        token: str | None = None,
        scope: str = "",
        timeout_s: float = 20.0,
    ) -> None:
        self.name = name
        self.cost_usd = OWNER_SOURCE_COSTS_USD.get(name, 0.0) if cost_usd is None else cost_usd
        self._url = url
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._scope = scope
        self._timeout_s = timeout_s

    async def ask(self, business_name: str, scan: SiteScan) -> Owner | None:
        question = {"business_name": business_name, "website": scan.access.final_url}
        key = sha256("\n".join([self._scope, self.name, *question.values()]).encode()).hexdigest()[:32]
        try:
            async with http_client(timeout=self._timeout_s, trust_env=False) as client:
                response = await client.post(
                    self._url, json=question, headers={**self._headers, "idempotency-key": key}
                )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OwnerSourceFailed(f"{self.name}: no answer: {str(error) or type(error).__name__}") from error
        if response.status_code == 404:
            return None
        if response.status_code != 200 or len(response.content) > ANSWER_BYTES_MAX:
            raise OwnerSourceFailed(f"{self.name}: status {response.status_code}, {len(response.content)} bytes")
        try:
            answer = msgspec.json.decode(response.content, type=_Envelope).owner
        except msgspec.DecodeError as error:
            raise OwnerSourceFailed(f"{self.name}: an answer that cannot be read: {error}") from error
        if answer is None or not answer.name or not is_person_name(answer.name):
            return None
        confidence = min(max(answer.confidence, 0.0), 1.0)
        return Owner(answer.name.strip(), self.name, confidence, role=answer.role, evidence=answer.evidence)


async def search_owner(
    business_name: str, scan: SiteScan, *, sources: Sequence[OwnerSource] = (WebsiteSource(),)
) -> OwnerSearch:
    """Ask `sources` in their order until one knows. Says what was asked and what it cost, found or not.

    A source that fails is noted and passed over: an owner is nice to have, and no reason for a business to fail.
    """
    asked: list[SourceUse] = []
    for source in sources:
        try:
            owner = await source.ask(business_name, scan)
        except OwnerSourceFailed as error:
            asked.append(SourceUse(source.name, 0.0, is_found=False, error=str(error)))
            continue
        asked.append(SourceUse(source.name, source.cost_usd, is_found=owner is not None))
        if owner is not None:
            return OwnerSearch(owner, asked)
    return OwnerSearch(None, asked)


async def find_owner(
    business_name: str, scan: SiteScan, *, sources: Sequence[OwnerSource] = (WebsiteSource(),)
) -> Owner | None:
    """The owner alone; `search_owner` also says what the search cost."""
    return (await search_owner(business_name, scan, sources=sources)).owner
