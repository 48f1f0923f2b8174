"""Where an address is, from the database file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apps.recon.enrich.mmdb import Database, Place, Region, find_place
from tests.recon.intel import CITY_FILE


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database(CITY_FILE, kind="City", setting="RECON_GEOIP_CITY")
    yield database
    database.close()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("81.2.69.142", Place("GB", "United Kingdom", Region("ENG", "England"), "London", 51.5142, -0.0931)),
        ("89.160.20.112", Place("SE", "Sweden", Region("E", "Östergötland County"), "Linköping", 58.4167, 15.6167)),
        ("216.160.83.56", Place("US", "United States", Region("WA", "Washington"), "Milton", 47.2513, -122.3149)),
        ("2001:218::1", Place("JP", "Japan", None, None, 35.68536, 139.75309)),
    ],
)
def test_addresses_in_the_real_file(database: Database, address: str, place: Place):
    assert find_place(database, address) == place


def test_the_larger_of_two_subdivisions_is_the_region(database: Database):
    place = find_place(database, "2.125.160.216")
    assert place is not None
    assert (place.city, place.region) == ("Boxford", Region("ENG", "England"))


def test_addresses_that_are_not_in_it(database: Database):
    for address in ("104.16.99.52", "172.29.0.3", "74.207.244.221", "127.0.0.1"):
        assert find_place(database, address) is None
