"""Where businesses come from: `BusinessDirectory` and two of OpenStreetMap, files and the Overpass API.

A directory either answers at once (`InstantDirectory`), or runs a search that has to be started, asked after and fetched
(`actor.ActorDirectory`). Neither waits or retries: errors say whether another attempt may help, and the engine does both.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from pathlib import Path

import httpx
import msgspec
from restate import TerminalError

from apps.leads.model import DISCOVERY_BUSINESSES_MAX, TEXT_CHARACTERS_MAX, Business, DiscoveryRequest
from apps.leads.niches import Tag, UnknownNiche, plain, tags_for
from apps.leads.osm import BadExtract, business_of, has_tag, overpass_query, read_places
from apps.leads.outside import http_client
from apps.leads.web.types import USER_AGENT
from holdfast.patterns import raise_for_status

ANSWER_TIMEOUT_S = 60.0


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a directory is asked."""

    query: str
    """The niche, as the user wrote it."""
    city: str
    state: str = ""
    """Empty if the location names none."""
    max_results: int = 10

    @classmethod
    def of(cls, request: DiscoveryRequest) -> SearchQuery:
        """From `niche` and `location` ("City" or "City, ST").

        Raises:
            TerminalError: 422, with the field.
        """
        city, _, state = (part.strip() for part in request.location.partition(","))
        for field in ("niche", "location"):
            if len(getattr(request, field)) > TEXT_CHARACTERS_MAX:
                raise TerminalError(f"{field}: at most {TEXT_CHARACTERS_MAX} characters", status_code=422)
        if not request.niche.strip():
            raise TerminalError("niche: is required, e.g. bakery", status_code=422)
        if not city:
            raise TerminalError("location: is required, e.g. Arlon or Springfield, IL", status_code=422)
        if not 1 <= request.limit <= DISCOVERY_BUSINESSES_MAX:
            raise TerminalError(f"limit: 1 to {DISCOVERY_BUSINESSES_MAX}, not {request.limit}", status_code=422)
        return cls(query=request.niche.strip(), city=city, state=state, max_results=request.limit)


class Found(msgspec.Struct, kw_only=True):
    """What a search gave."""

    businesses: list[Business]
    """Each place once, at most as many as asked for."""
    found_count: int
    duplicate_count: int
    unnamed_count: int = 0


class BusinessDirectory(ABC):
    """A source of businesses."""

    name: str
    result_cost_usd: float = 0.0
    """Per result."""

    def check(self, query: SearchQuery) -> None:  # noqa: B027 most have nothing to object to
        """Is it a question that this directory can answer? Asked before anything is paid.

        Raises:
            TerminalError: 422, with the field and what it may be.
        """


class InstantDirectory(BusinessDirectory):
    """Answers one request."""

    @abstractmethod
    async def search(self, query: SearchQuery) -> Found:
        """Raises: TerminalError: asking again would not help. Any other exception: it may."""


def found(places: list[Business | None], query: SearchQuery) -> Found:
    """Take out what has no name and what comes twice, and cut to what was asked for."""
    once: dict[str, Business] = {}
    named = [place for place in places if place is not None]
    for place in named:
        once.setdefault(place.place_id, place)
    return Found(
        businesses=[*once.values()][: query.max_results],
        found_count=len(places),
        duplicate_count=len(named) - len(once),
        unnamed_count=len(places) - len(named),
    )


class OsmFiles(InstantDirectory):
    """Extracts in a folder: `<place>_<date>.geojson`, or answers of the Overpass API as `.json`.

    A place matches by the file's name, or by `addr:city` inside any file. Of several files of one place the newest counts.
    """

    name = "osm"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self, query: SearchQuery) -> None:
        tags_of(query)
        if not newest_extracts(self._folder):
            raise TerminalError(
                f"{self._folder} has no extracts; LEADS_OSM_FILES names a folder with <place>_<date>.geojson files",
                status_code=500,
            )

    async def search(self, query: SearchQuery) -> Found:
        return await asyncio.to_thread(self._search, tags_of(query), query)

    def _search(self, tags: tuple[Tag, ...], query: SearchQuery) -> Found:
        city = plain(query.city)
        places: list[Business | None] = []
        for area, path in newest_extracts(self._folder).items():
            try:
                for place_id, own_tags, latitude, longitude in read_places(path.read_bytes()):
                    is_there = city == area or city == plain(own_tags.get("addr:city", ""))
                    if is_there and has_tag(own_tags, tags):
                        places.append(business_of(place_id, own_tags, latitude, longitude))
            except BadExtract as error:
                raise TerminalError(f"{path.name}: {error}", status_code=500) from error
        return found(places, query)


def newest_extracts(folder: Path) -> dict[str, Path]:
    """Place (as `plain` has it) -> its newest file."""
    newest: dict[str, Path] = {}
    for path in sorted(folder.glob("*.*json")):  # the date at the end of the name sorts as it should
        newest[plain(re.split(r"_", path.stem, maxsplit=1)[0])] = path
    return newest


class Overpass(InstantDirectory):
    """The Overpass API over HTTP."""

    name = "overpass"

    def __init__(self, url: str) -> None:
        self._url = url

    def check(self, query: SearchQuery) -> None:
        tags_of(query)

    async def search(self, query: SearchQuery) -> Found:
        # More than asked for, because places may come twice: as an outline and as a point.
        text = overpass_query(tags_of(query), query.city, query.state, limit=2 * query.max_results)
        async with http_client(timeout=ANSWER_TIMEOUT_S, headers={"user-agent": USER_AGENT}) as client:
            answer = await client.post(self._url, data={"data": text})
        raise_for_status(
            answer.status_code, f"{self._url} answered with {answer.status_code}", retry_after_s=retry_after_s(answer)
        )
        try:
            places = [business_of(*place) for place in read_places(answer.content)]
        except BadExtract as error:
            # An overloaded server answers 200 with a page that says so.
            raise RuntimeError(f"{self._url}: {error}") from error
        for place in places:
            if place is not None:
                place.source = self.name
        return found(places, query)


def tags_of(query: SearchQuery) -> tuple[Tag, ...]:
    try:
        return tags_for(query.query)
    except UnknownNiche as error:
        raise TerminalError(str(error), status_code=422) from error


def retry_after_s(answer: httpx.Response) -> float | None:
    """Seconds that the other side asks us to wait, if it says so in seconds."""
    value = answer.headers.get("retry-after", "")
    return min(float(value), 300.0) if re.fullmatch(r"\d+(\.\d+)?", value) else None
