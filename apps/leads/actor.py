"""A hosted crawler with an Apify-style API: a run is started, asked after until it is over, and its data set fetched."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from restate import TerminalError

from apps.leads.directory import ANSWER_TIMEOUT_S, BusinessDirectory, Found, SearchQuery, found, retry_after_s
from apps.leads.model import Business
from apps.leads.outside import http_client
from apps.leads.settings import ActorSettings, UnitCosts
from holdfast.patterns import raise_for_status

RUNNING = frozenset({"READY", "RUNNING", "TIMING-OUT", "ABORTING"})


class ActorRun(msgspec.Struct, kw_only=True):
    """A run as the crawler describes it."""

    id: str
    status: str
    dataset_id: str
    """Where its results are."""

    @property
    def is_over(self) -> bool:
        return self.status not in RUNNING


class ActorDirectory(BusinessDirectory):
    """Businesses from a crawler's actor. Each method is one request; waiting between them is up to the caller."""

    name = "apify"

    def __init__(self, settings: ActorSettings, costs: UnitCosts) -> None:
        self.settings = settings
        self.result_cost_usd = costs.map_search_usd

    async def start(self, query: SearchQuery, key: str) -> ActorRun:
        """Start a run, which costs money. `key` travels along: the same key again is the same run where that is known."""
        wanted: dict[str, Any] = {
            "searchStringsArray": [query.query],
            "city": query.city,
            "state": query.state,
            "maxCrawledPlacesPerSearch": query.max_results,
        }
        answer = await self._request(
            "POST", f"/v2/acts/{self.settings.actor}/runs", json=wanted, headers={"idempotency-key": key}
        )
        return _run(answer)

    async def look(self, run_id: str) -> ActorRun:
        """How is the run?"""
        return _run(await self._request("GET", f"/v2/actor-runs/{run_id}"))

    async def abort(self, run_id: str) -> ActorRun:
        """End a run whose results nobody waits for any more."""
        return _run(await self._request("POST", f"/v2/actor-runs/{run_id}/abort"))

    async def fetch(self, dataset_id: str, query: SearchQuery) -> Found:
        """The results of a run that is over."""
        items = await self._request(
            "GET", f"/v2/datasets/{dataset_id}/items?format=json&clean=true&limit={2 * query.max_results}"
        )
        if not isinstance(items, list):
            raise TerminalError(
                f"{self.settings.url}: a data set is a list, not {type(items).__name__}", status_code=502
            )
        return found([_business(item) for item in cast("list[Any]", items)], query)

    async def _request(self, method: str, path: str, **arguments: Any) -> Any:
        headers = {"authorization": f"Bearer {self.settings.token}", **arguments.pop("headers", {})}
        async with http_client(base_url=self.settings.url, timeout=ANSWER_TIMEOUT_S) as client:
            answer = await client.request(method, path, headers=headers, **arguments)
        raise_for_status(
            answer.status_code,
            f"{method} {self.settings.url}{path} answered with {answer.status_code}",
            retry_after_s=retry_after_s(answer),
        )
        return answer.json()


def _run(answer: Any) -> ActorRun:
    try:
        data = answer["data"]
        return ActorRun(id=data["id"], status=data["status"], dataset_id=data.get("defaultDatasetId") or "")
    except (KeyError, TypeError) as error:
        raise TerminalError(f"the crawler's answer has no {error}", status_code=502) from error


def _business(item: Any) -> Business | None:
    """The common record of one result; None if it has no name or no identity."""
    if not isinstance(item, dict):
        return None
    place = cast("dict[str, Any]", item)
    if not place.get("title") or not place.get("placeId"):
        return None
    location = place.get("location") or {}
    hours = place.get("openingHours") or []
    return Business(
        place_id=f"apify:{place['placeId']}",
        name=str(place["title"]),
        category=str(place.get("categoryName") or ""),
        website=place.get("website") or None,
        phone=place.get("phoneUnformatted") or place.get("phone") or None,
        email=next(iter(place.get("emails") or []), None),
        street=place.get("street") or place.get("address") or None,
        postal_code=place.get("postalCode") or None,
        city=place.get("city") or None,
        state=place.get("state") or None,
        country=place.get("countryCode") or None,
        latitude=location.get("lat"),
        longitude=location.get("lng"),
        opening_hours="; ".join(f"{each.get('day')} {each.get('hours')}" for each in hours) or None,
        rating=place.get("totalScore"),
        review_count=place.get("reviewsCount"),
        source="apify",
    )
