"""Where businesses come from: real OpenStreetMap extracts, the Overpass API, what people call a kind of business."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from restate import TerminalError
from restate.exceptions import RetryableError

from apps.leads.directory import OsmFiles, Overpass, SearchQuery, newest_extracts
from apps.leads.model import DiscoveryRequest
from apps.leads.niches import NICHES, SYNONYMS, UnknownNiche, plain, tags_for
from apps.leads.osm import BadExtract, business_of, overpass_query, read_places
from apps.leads.settings import DATA
from tests.leads.local_web import Answer, LocalWeb

EXTRACTS = DATA / "businesses"


def query(niche: str = "bakery", city: str = "Arlon", state: str = "", limit: int = 100) -> SearchQuery:
    return SearchQuery(query=niche, city=city, state=state, max_results=limit)


@pytest.mark.parametrize(
    ("file", "features", "places"),
    [
        ("arlon_2018-01-07.geojson", 242, 201),
        ("habay_2018-01-07.geojson", 75, 63),
        ("habay_2020-01-16.geojson", 69, 58),
        ("tintigny_2018-01-07.geojson", 22, 20),
        ("skopje_fast_food_overpass.json", 71, 71),
    ],
)
def test_every_feature_of_the_extracts_is_read_and_places_that_come_twice_are_one(
    file: str, features: int, places: int
) -> None:
    found = [*read_places((EXTRACTS / file).read_bytes())]
    assert (len(found), len({place_id for place_id, *_ in found})) == (features, places)
    assert all(40 < (latitude or 0) < 51 for _, _, latitude, _ in found)


async def test_a_search_takes_duplicates_and_the_nameless_out_and_keeps_to_its_limit() -> None:
    directory = OsmFiles(EXTRACTS)
    found = await directory.search(query("fast food", "Skopje"))
    assert (found.found_count, found.unnamed_count, found.duplicate_count, len(found.businesses)) == (71, 20, 0, 51)
    found = await directory.search(query("hotel", "ARLON"))
    assert (found.found_count, found.duplicate_count, len(found.businesses)) == (10, 4, 6)
    assert len((await directory.search(query("restaurant", "Arlon", limit=7))).businesses) == 7


async def test_a_village_inside_an_extract_is_found_by_its_address() -> None:
    found = await OsmFiles(EXTRACTS).search(query("shop=deli", "Marbehan"))
    assert {business.city for business in found.businesses} == {"Marbehan"}
    assert (await OsmFiles(EXTRACTS).search(query("bakery", "Nowhere"))).businesses == []


def test_of_two_extracts_of_one_place_the_newer_one_is_read() -> None:
    assert newest_extracts(EXTRACTS)["habay"].name == "habay_2020-01-16.geojson"


def test_tags_become_the_common_record() -> None:
    business = business_of(
        "node/1",
        {
            "name": "Bread",
            "shop": "bakery",
            "contact:website": "bread.example; other.example",
            "phone": "+32 63 1",
            "contact:facebook": "https://facebook.com/bread",
            "addr:street": "Rue",
            "addr:housenumber": "1",
        },
        49.0,
        5.0,
    )
    assert business is not None
    assert (business.place_id, business.category, business.website) == (
        "osm:node/1",
        "shop=bakery",
        "http://bread.example",
    )
    assert (business.street, business.social) == ("Rue 1", {"facebook": "https://facebook.com/bread"})
    assert business_of("node/2", {"shop": "bakery"}, None, None) is None


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"features": 3}', "<html>"])
def test_what_is_no_extract_is_refused(text: str) -> None:
    with pytest.raises(BadExtract):
        read_places(text)


async def test_a_broken_extract_is_named(tmp_path: Path) -> None:
    (tmp_path / "arlon_2020.geojson").write_text("{")
    with pytest.raises(TerminalError, match=r"arlon_2020\.geojson: not JSON"):
        await OsmFiles(tmp_path).search(query())


# ---- niches ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("niche", "tag"),
    [
        ("Bakery", ("shop", "bakery")),
        ("bakeries", ("shop", "bakery")),
        ("Boulangerie", ("shop", "bakery")),
        ("hair salons", ("shop", "hairdresser")),
        ("Cafés", ("amenity", "cafe")),
        ("fast-food", ("amenity", "fast_food")),
        ("shop=tattoo", ("shop", "tattoo")),
    ],
)
def test_what_people_call_a_business_becomes_tags(niche: str, tag: tuple[str, str]) -> None:
    assert tags_for(niche)[0] == tag


def test_every_synonym_leads_to_a_niche_and_all_are_spelt_as_they_are_looked_up() -> None:
    assert set(SYNONYMS.values()) <= set(NICHES)
    assert all(plain(word) == word for word in [*NICHES, *SYNONYMS])


@pytest.mark.parametrize("niche", ["unicorn", "", 'shop="x"];node', "shop="])
def test_an_unknown_niche_is_refused_with_what_is_known(niche: str) -> None:
    with pytest.raises(UnknownNiche, match="one of: bakery, butcher"):
        tags_for(niche)


@pytest.mark.parametrize(
    ("location", "city", "state"),
    [("Arlon", "Arlon", ""), ("Springfield, IL", "Springfield", "IL"), (" A , B ", "A", "B")],
)
def test_a_location_is_a_city_and_perhaps_a_state(location: str, city: str, state: str) -> None:
    asked = SearchQuery.of(DiscoveryRequest(user_id="u", niche="bakery", location=location))
    assert (asked.city, asked.state) == (city, state)


# ---- Overpass --------------------------------------------------------------------------------------------------------------


async def test_the_overpass_api_is_asked_in_its_language(web: LocalWeb) -> None:
    web.answers("/api", [json.loads((EXTRACTS / "skopje_fast_food_overpass.json").read_text())])
    found = await Overpass(f"{web.url}/api").search(query("fast food", "Skopje", limit=10))
    assert len(found.businesses) == 10
    assert {business.source for business in found.businesses} == {"overpass"}
    [request] = web.asked("/api")
    [text] = parse_qs(request.body.decode())["data"]
    assert text == (
        '[out:json][timeout:25];area["boundary"="administrative"]["name"="Skopje"]->.place;'
        '(nwr["name"]["amenity"="fast_food"](area.place););out center tags 20;'
    )


def test_nothing_a_user_writes_leaves_its_quotes() -> None:
    text = overpass_query((("shop", "bakery"),), 'A"];node(1);//\\\n', "IL", limit=5)
    assert '"A\\"];node(1);//\\\\ "' in text
    assert text.startswith('[out:json][timeout:25];area["boundary"="administrative"]["name"="IL"]->.outer;')


@pytest.mark.parametrize("answer", [429, 504, Answer(200, b"<html>busy</html>", "text/html")])
async def test_an_overloaded_overpass_may_be_asked_again(web: LocalWeb, answer: object) -> None:
    web.answers("/api", [answer])
    with pytest.raises((RetryableError, RuntimeError)):
        await Overpass(f"{web.url}/api").search(query())


async def test_a_wrong_question_is_not_asked_again(web: LocalWeb) -> None:
    web.answers("/api", [400])
    with pytest.raises(TerminalError, match="answered with 400"):
        await Overpass(f"{web.url}/api").search(query())


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_without_extracts_is_refused_before_anything_is_paid(folder: str, tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match="LEADS_OSM_FILES names a folder"):
        OsmFiles(tmp_path / folder).check(query())
