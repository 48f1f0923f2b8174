"""Hosts by what they have in the graph: by network, place, vulnerability, service, port, or in common with another.

Every statement is a constant of this module; what a caller sends is only ever bound to its parameters.
"""
# ruff: noqa: S608 (statements are put together from constants of this module; what a caller sends is bound)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from surrealdb import RecordID

from apps.recon.http import ApiError
from apps.recon.queries.model import GraphQuery, Via
from apps.recon.queries.reading import QUERY_TIMEOUT, Reading

_HOST = "address, name, asn, city, region, country, first_seen, last_seen"


@dataclass(frozen=True, slots=True)
class Page:
    results: list[dict[str, Any]]
    total: int


async def read_graph(reading: Reading, query: GraphQuery) -> Page:
    """Answer one query.

    Raises:
        ApiError: 400, a member that this kind of query needs is missing.
    """
    page = {"limit": query.limit, "offset": query.offset}
    match query.query_type:
        case "by_asn":
            return await _hosts(reading, _BY["asn"], value=_needed(query.asn, "asn"), **page)
        case "by_location":
            return await _by_location(reading, query)
        case "by_vuln":
            cve = _needed(query.cve, "cve").upper()
            return await _on_ports(reading, _PORTS_BY_VULN, cve=cve, **page)
        case "by_service":
            if query.product is None and query.service is None:
                raise _missing("product or service")
            by = _PORTS_BY_PRODUCT if query.product is not None else _PORTS_BY_SERVICE
            return await _on_ports(reading, by, product=query.product, service=query.service, **page)
        case "by_port":
            port = _needed(query.port, "port")
            return await _by_port(reading, number=port, protocol=query.protocol or "tcp", **page)
        case "neighbours":
            return await _neighbours(reading, query)


# -- by a field of the host ------------------------------------------------------------------------------------------

# One index answers and is named, and the rest is filtered outside of it: with an OR beside it SurrealDB 2.3 reads the
# whole table, and with two indexes to choose from it may count by one and forget the other condition.
_BY = {
    "asn": "SELECT VALUE id FROM host WITH INDEX host_asn WHERE asn = $value",
    "city": """SELECT VALUE id FROM (SELECT id, region, country FROM host WITH INDEX host_city WHERE city = $value)
        WHERE ($region = NONE OR region IN $region) AND ($country = NONE OR country = $country)""",
    "region": """SELECT VALUE id FROM (SELECT id, country FROM host WITH INDEX host_region WHERE region IN $value)
        WHERE $country = NONE OR country = $country""",
    "country": "SELECT VALUE id FROM host WITH INDEX host_country WHERE country = $value",
}


async def _hosts(reading: Reading, source: str, **params: Any) -> Page:
    _, rows, total = await reading(
        f"""LET $found = ({source} {QUERY_TIMEOUT});
        SELECT {_HOST} FROM array::slice(array::sort($found), $offset, $limit);
        RETURN array::len($found);""",
        **params,
    )
    return Page(rows, total)


async def _by_location(reading: Reading, query: GraphQuery) -> Page:
    """The most precise place that is given decides, the others narrow it."""
    page = {"limit": query.limit, "offset": query.offset}
    country = query.country.upper() if query.country else None
    region = None
    if query.region is not None:
        (names,) = await reading(
            "SELECT VALUE name FROM region WHERE (name = $region OR code = $code) AND ($cc = NONE OR cc = $cc)",
            region=query.region,
            code=query.region.upper(),
            cc=country,
        )
        region = names or [query.region]
    if query.city is not None:
        return await _hosts(reading, _BY["city"], value=query.city, region=region, country=country, **page)
    if region is not None:
        return await _hosts(reading, _BY["region"], value=region, country=country, **page)
    if country is None:
        raise _missing("city, region or country")
    return await _hosts(reading, _BY["country"], value=country, **page)


# -- by what is on a port --------------------------------------------------------------------------------------------

# Services are shared between hosts, ports are not: the way to a host always leads through its own port. The edge RUNS
# has its port's id, so the edges tell hosts and ports without looking at either.
_PORTS_BY_VULN = f"SELECT VALUE <-AFFECTED_BY<-service<-RUNS FROM type::thing('vuln', $cve) {QUERY_TIMEOUT}"
_PORTS_BY_PRODUCT = f"""SELECT VALUE <-RUNS FROM (SELECT id, name FROM service WITH INDEX service_product
    WHERE product = $product) WHERE $service = NONE OR name = $service {QUERY_TIMEOUT}"""
_PORTS_BY_SERVICE = f"SELECT VALUE <-RUNS FROM service WITH INDEX service_name WHERE name = $service {QUERY_TIMEOUT}"


async def _on_ports(reading: Reading, source: str, *, limit: int, offset: int, **params: Any) -> Page:
    """Hosts of these ports, each with those of its ports that fit."""
    (found,) = await reading(source, **params)
    by_host: dict[str, list[Any]] = {}
    for port_id in sorted({tuple(each.id) for each in _records(found)}):
        by_host.setdefault(port_id[0], []).append(RecordID("port", list(port_id)))
    page = sorted(by_host)[offset : offset + limit]
    return Page(await _with_ports(reading, page, [port for host in page for port in by_host[host]]), len(by_host))


async def _by_port(reading: Reading, **params: Any) -> Page:
    """Hosts with this port open: counted by the index alone, and paged in its order, which is the addresses'."""
    counted, ports = await reading(
        f"""SELECT count() FROM port WITH INDEX port_number_protocol
            WHERE number = $number AND protocol = $protocol GROUP ALL {QUERY_TIMEOUT};
        SELECT VALUE id FROM port WITH INDEX port_number_protocol
            WHERE number = $number AND protocol = $protocol LIMIT $limit START $offset {QUERY_TIMEOUT};""",
        **params,
    )
    rows = await _with_ports(reading, [each.id[0] for each in ports], ports)
    return Page(rows, counted[0]["count"] if counted else 0)


async def _with_ports(reading: Reading, addresses: list[str], port_ids: list[Any]) -> list[dict[str, Any]]:
    """These hosts, each with those of these ports that are its own."""
    rows, ports = await reading(
        f"""SELECT {_HOST} FROM $hosts;
        SELECT record::id(id)[0] AS address, number, protocol, service, product, version FROM $ports""",
        hosts=[RecordID("host", address) for address in addresses],
        ports=port_ids,
    )
    shown: dict[str, list[dict[str, Any]]] = {}
    for port in ports:
        shown.setdefault(port.pop("address"), []).append(port)
    for row in rows:
        row["ports"] = shown.get(row["address"], [])
    return rows


# -- in common with another ------------------------------------------------------------------------------------------

_VIA: dict[Via, str] = {
    "asn": f"SELECT VALUE ->IN_ASN->asn<-IN_ASN<-host FROM $host {QUERY_TIMEOUT}",
    "city": f"SELECT VALUE ->IN_CITY->city<-IN_CITY<-host FROM $host {QUERY_TIMEOUT}",
    "service": f"SELECT VALUE <-RUNS FROM array::distinct($services) {QUERY_TIMEOUT}",
    "vuln": f"""SELECT VALUE <-AFFECTED_BY<-service<-RUNS FROM array::distinct($services->AFFECTED_BY->vuln)
        {QUERY_TIMEOUT}""",
}


async def _neighbours(reading: Reading, query: GraphQuery) -> Page:
    """Hosts that share something with one, those that share the most first."""
    address = _needed(query.ip, "ip")
    via: list[Via] = list(dict.fromkeys(query.via or list(_VIA)))
    statements = [
        "LET $host = type::thing('host', $address)",
        "LET $services = $host->HAS->port->RUNS->service",
        "RETURN record::exists($host)",
        *(_VIA[each] for each in via),
    ]
    _, _, known, *found = await reading(";".join(statements), address=address)
    if not known:
        raise ApiError(404, "not_found", f"there is no host {address}")
    shared: dict[str, list[Via]] = {}
    for each, records in zip(via, found, strict=True):
        others = {one.id if one.table_name == "host" else one.id[0] for one in _records(records)}
        for other in others - {address}:
            shared.setdefault(other, []).append(each)
    ranked = sorted(shared, key=lambda other: (-len(shared[other]), other))
    page = ranked[query.offset : query.offset + query.limit]
    (rows,) = await reading(f"SELECT {_HOST} FROM $hosts", hosts=[RecordID("host", other) for other in page])
    for row in rows:
        row["shares"] = shared[row["address"]]
    return Page(rows, len(ranked))


def _records(found: Any) -> Iterator[Any]:
    """The record ids in lists of lists: the database nests them as deep as the way was long."""
    if isinstance(found, list):
        for each in cast("list[Any]", found):
            yield from _records(each)
    else:
        yield found


def _needed(value: Any, name: str) -> Any:
    if value is None:
        raise _missing(name)
    return value


def _missing(name: str) -> ApiError:
    return ApiError(400, "invalid_request", f"this query_type needs {name}")
