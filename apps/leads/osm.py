"""OpenStreetMap's two file formats -> businesses. Pure: GeoJSON as Overpass writes it, and answers of the Overpass API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

from apps.leads.model import Business
from apps.leads.niches import Tag

LICENCE = "© OpenStreetMap contributors, ODbL 1.0"

_KINDS = ("shop", "amenity", "craft", "office", "tourism", "healthcare", "leisure")
_NETWORKS = ("facebook", "instagram", "linkedin", "twitter", "youtube", "tiktok", "pinterest")


class BadExtract(ValueError):
    """The file or answer is not what it should be."""


def read_places(text: str | bytes) -> Iterator[tuple[str, dict[str, str], float | None, float | None]]:
    """(id, tags, latitude, longitude) of everything in a GeoJSON file or an Overpass answer, in order, repeats included.

    Raises:
        BadExtract: it is neither.
    """
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise BadExtract(f"not JSON: {error}") from error
    for candidate in [document, *(document.values() if isinstance(document, dict) else ())]:
        # Some programs keep the answer under a name of their own.
        if not isinstance(candidate, dict):
            continue
        found = cast("dict[str, Any]", candidate)
        if isinstance(found.get("features"), list):
            return _features(found["features"])
        if isinstance(found.get("elements"), list):
            return _elements(found["elements"])
    raise BadExtract("neither a GeoJSON FeatureCollection nor an answer of the Overpass API")


def business_of(
    place_id: str, tags: dict[str, str], latitude: float | None, longitude: float | None
) -> Business | None:
    """The common record of a place; None if it has no name."""
    name = tags.get("name") or tags.get("brand")
    if not name:
        return None
    street = " ".join(part for part in (tags.get("addr:street"), tags.get("addr:housenumber")) if part)
    kind = next((key for key in _KINDS if key in tags), None)
    website = _tag(tags, "website") or _tag(tags, "url")
    return Business(
        place_id=f"osm:{place_id}",
        name=name,
        category=f"{kind}={tags[kind]}" if kind else "",
        website=_absolute(website) if website else None,
        phone=_tag(tags, "phone"),
        email=_tag(tags, "email"),
        street=street or None,
        postal_code=tags.get("addr:postcode"),
        city=tags.get("addr:city"),
        state=tags.get("addr:state"),
        country=tags.get("addr:country"),
        latitude=latitude,
        longitude=longitude,
        opening_hours=tags.get("opening_hours"),
        social={network: value for network in _NETWORKS if (value := _tag(tags, network))},
        source="osm",
        licence=LICENCE,
    )


def has_tag(tags: dict[str, str], wanted: Iterable[Tag]) -> bool:
    """Does a place have one of the tags? Values may be lists: `bakery;deli`."""
    return any(value in tags.get(key, "").split(";") for key, value in wanted)


def overpass_query(tags: Iterable[Tag], city: str, state: str, *, limit: int, timeout_s: int = 25) -> str:
    """The query for the Overpass API: named places with one of the tags, in the administrative area `city`."""
    area = f'area["boundary"="administrative"]["name"={_quoted(city)}]'
    within = f'area["boundary"="administrative"]["name"={_quoted(state)}]->.outer;' if state else ""
    scope = "(area.place)(area.outer)" if state else "(area.place)"
    wanted = "".join(f'nwr["name"][{_quoted(key)}={_quoted(value)}]{scope};' for key, value in tags)
    return f"[out:json][timeout:{timeout_s}];{within}{area}->.place;({wanted});out center tags {limit};"


def _quoted(text: str) -> str:
    return '"' + re.sub(r"[\x00-\x1f]", " ", text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _features(features: list[Any]) -> Iterator[tuple[str, dict[str, str], float | None, float | None]]:
    for feature in features:
        if not isinstance(feature, dict):
            continue
        properties = cast("dict[str, Any]", feature).get("properties") or {}
        place_id = properties.get("@id") or feature.get("id")
        if not place_id:
            continue
        longitude, latitude = _centre(feature.get("geometry"))
        yield str(place_id), _texts(properties), latitude, longitude


def _elements(elements: list[Any]) -> Iterator[tuple[str, dict[str, str], float | None, float | None]]:
    for element in elements:
        if not isinstance(element, dict) or "id" not in element:
            continue
        place = cast("dict[str, Any]", element)
        at = place.get("center") or place
        yield (
            f"{place.get('type', 'node')}/{place['id']}",
            _texts(place.get("tags") or {}),
            at.get("lat"),
            at.get("lon"),
        )


def _centre(geometry: Any) -> tuple[float | None, float | None]:
    """(longitude, latitude): of a point itself, else the middle of what it spans."""
    numbers: list[tuple[float, float]] = []

    def collect(value: Any) -> None:
        if isinstance(value, list) and len(value) >= 2 and all(isinstance(each, int | float) for each in value[:2]):
            numbers.append((float(value[0]), float(value[1])))
        elif isinstance(value, list):
            for each in value:
                collect(each)

    collect((geometry or {}).get("coordinates"))
    if not numbers:
        return None, None
    longitudes, latitudes = [each[0] for each in numbers], [each[1] for each in numbers]
    return (min(longitudes) + max(longitudes)) / 2, (min(latitudes) + max(latitudes)) / 2


def _texts(properties: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in properties.items() if isinstance(value, str)}


def _tag(tags: dict[str, str], key: str) -> str | None:
    """The first of several values, under the plain key or the `contact:` one."""
    value = tags.get(key) or tags.get(f"contact:{key}") or ""
    return value.split(";")[0].strip() or None


def _absolute(website: str) -> str:
    return website if re.match(r"https?://", website, re.IGNORECASE) else f"http://{website.removeprefix('//')}"
