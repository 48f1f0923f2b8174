"""Look-ups of addresses in the database: what is known, what was found, and the graph made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import msgspec
from surrealdb import RecordID

from apps.recon.enrich.cymru import Origin
from apps.recon.enrich.mmdb import Place
from apps.recon.store import Store

AddressKind = Literal["asn", "geo"]
Found = TypeVar("Found", Origin, Place)


class Lookup(msgspec.Struct):
    """What a source said about an address."""

    address: str
    source: str
    looked_up_at: datetime
    result: dict[str, Any] | None
    """None: it has nothing about it."""


_KEEP = """
INSERT INTO lookup (
    SELECT [$kind, address] AS id, $kind AS kind, address, $source AS source, result, $at AS looked_up_at FROM $rows
) ON DUPLICATE KEY UPDATE source = $input.source, result = $input.result, looked_up_at = $input.looked_up_at RETURN NONE;
"""

# An edge that leads elsewhere now is removed first: edges cannot be turned. Not `id.out`: of a record whose id is an
# array that is a member of the array, and always NONE.
_TURN = """
DELETE (SELECT VALUE edge FROM $edges WHERE edge.out != NONE AND edge.out != out) RETURN NONE;
"""

# ruff: noqa: S608 (the statements below are put together from constants of this module)
_APPLY_ASN = f"""
BEGIN;
INSERT INTO asn (SELECT number AS id, number, org, country FROM $systems)
    ON DUPLICATE KEY UPDATE org = $input.org ?? org, country = $input.country ?? country RETURN NONE;
FOR $row IN $rows {{ UPDATE type::thing('host', $row.address) SET asn = $row.number WHERE asn != $row.number RETURN NONE }};
DELETE (SELECT VALUE type::thing('IN_ASN', address) FROM $rows WHERE number = NONE) RETURN NONE;
LET $edges = (SELECT type::thing('IN_ASN', address) AS edge, type::thing('host', address) AS in,
    type::thing('asn', number) AS out FROM $rows WHERE number != NONE);
{_TURN}
INSERT RELATION IGNORE INTO IN_ASN (SELECT edge AS id, in, out FROM $edges) RETURN NONE;
COMMIT;
"""

_EDGES = "".join(
    f"""
LET $edges = (SELECT type::thing('{table}', [from_table, from_id]) AS edge, type::thing(from_table, from_id) AS in,
    type::thing('{table.removeprefix("IN_").lower()}', to) AS out FROM $edges_{table});
{_TURN}
INSERT RELATION IGNORE INTO {table} (SELECT edge AS id, in, out FROM $edges) RETURN NONE;
"""
    for table in ("IN_CITY", "IN_REGION", "IN_COUNTRY")
)

# A host has one edge, to the most precise place that is known; those it had to the others are removed.
_APPLY_GEO = f"""
BEGIN;
INSERT INTO country (SELECT cc AS id, cc, name FROM $countries) ON DUPLICATE KEY UPDATE name = $input.name RETURN NONE;
INSERT INTO region (SELECT [cc, code] AS id, cc, code, name FROM $regions)
    ON DUPLICATE KEY UPDATE name = $input.name RETURN NONE;
INSERT INTO city (SELECT id, cc, name, lat, lon FROM $cities)
    ON DUPLICATE KEY UPDATE lat = $input.lat, lon = $input.lon RETURN NONE;
FOR $row IN $rows {{
    UPDATE type::thing('host', $row.address) SET city = $row.city, region = $row.region, country = $row.country
        WHERE city != $row.city OR region != $row.region OR country != $row.country RETURN NONE;
    FOR $table IN ['IN_CITY', 'IN_REGION', 'IN_COUNTRY'] {{
        IF $table != $row.edge {{ DELETE type::thing($table, ['host', $row.address]) RETURN NONE }}
    }}
}};
{_EDGES}
COMMIT;
"""


async def read_lookups(store: Store, kind: AddressKind, addresses: Sequence[str]) -> dict[str, Lookup]:
    """What is kept about these addresses, by address."""
    (rows,) = await store.read(
        "SELECT address, source, looked_up_at, result FROM $ids",
        ids=[RecordID("lookup", [kind, address]) for address in addresses],
    )
    return {row["address"]: msgspec.convert({"result": None, **row}, Lookup) for row in rows}


async def keep_lookups(
    store: Store, kind: AddressKind, source: str, found: Mapping[str, Origin | Place | None]
) -> None:
    """Keep what a source said just now."""
    rows = [
        {"address": address, "result": None if result is None else _plain(result)} for address, result in found.items()
    ]
    await store.write(_KEEP, kind=kind, source=source, rows=rows, at=datetime.now(UTC))


async def apply_asn(store: Store, found: Mapping[str, Origin | None]) -> None:
    """Write who announces these hosts: field, record, edge. None removes what was said before. One transaction."""
    systems = {origin.number: origin for origin in found.values() if origin is not None}
    await store.write(
        _APPLY_ASN,
        systems=[
            {"number": each.number, "org": each.organisation, "country": each.country} for each in systems.values()
        ],
        rows=[{"address": address, "number": each.number if each else None} for address, each in found.items()],
    )


async def apply_geo(store: Store, found: Mapping[str, Place | None]) -> None:
    """Write where these hosts are: fields, records, edges. None removes what was said before. One transaction."""
    places = [place for place in found.values() if place is not None]
    regions = {(place.country_code, place.region.code): place.region.name for place in places if place.region}
    edges: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {"IN_CITY": {}, "IN_REGION": {}, "IN_COUNTRY": {}}
    rows: list[dict[str, Any]] = []
    for address, place in found.items():
        chain = _chain(place) if place else []
        for edge, (from_table, from_id), to in zip(
            [table for table, _ in chain], [("host", address), *_ends(chain)], [to for _, to in chain], strict=False
        ):
            edges[edge][(from_table, str(from_id))] = {"from_table": from_table, "from_id": from_id, "to": to}
        rows.append(
            {
                "address": address,
                "city": place.city if place else None,
                "region": place.region.name if place and place.region else None,
                "country": place.country_code if place else None,
                "edge": chain[0][0] if chain else None,
            }
        )
    await store.write(
        _APPLY_GEO,
        countries=[
            {"cc": cc, "name": name} for cc, name in {each.country_code: each.country for each in places}.items()
        ],
        regions=[{"cc": cc, "code": code, "name": name} for (cc, code), name in regions.items()],
        cities=list({str(_city_id(each)): _city(each) for each in places if each.city}.values()),
        rows=rows,
        **{f"edges_{table}": list(each.values()) for table, each in edges.items()},
    )


def _chain(place: Place) -> list[tuple[str, Any]]:
    """The edges from a host to its country, through what is known between: table and id of the far end."""
    steps: list[tuple[str, Any]] = []
    if place.city:
        steps.append(("IN_CITY", _city_id(place)))
    if place.region:
        steps.append(("IN_REGION", [place.country_code, place.region.code]))
    return [*steps, ("IN_COUNTRY", place.country_code)]


def _ends(chain: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(table.removeprefix("IN_").lower(), to) for table, to in chain]


def _city_id(place: Place) -> list[str]:
    """Cities of one name are many: the region tells them apart."""
    return [place.country_code, place.region.code if place.region else "", place.city or ""]


def _city(place: Place) -> dict[str, Any]:
    return {
        "id": _city_id(place),
        "cc": place.country_code,
        "name": place.city,
        "lat": place.latitude,
        "lon": place.longitude,
    }


def _plain(result: Origin | Place) -> dict[str, Any]:
    """Without the members that are not known: the database has no null."""
    return {key: value for key, value in msgspec.to_builtins(result).items() if value is not None}
