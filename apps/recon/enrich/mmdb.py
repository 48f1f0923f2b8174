"""Local MaxMind databases: which network announces an address, and where it is."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, cast

import maxminddb
import msgspec

from apps.recon.enrich.cymru import Origin


class DatabaseRefused(Exception):
    """The file is not there or is not the right database; the text names the setting."""


class Region(msgspec.Struct, frozen=True):
    code: str
    """ISO 3166-2 without the country: `WA`, `E`."""
    name: str


class Place(msgspec.Struct, frozen=True):
    """Where an address is, as far as the database knows."""

    country_code: str
    """ISO 3166-1, two capitals."""
    country: str
    region: Region | None = None
    """The largest subdivision, when there are several."""
    city: str | None = None
    latitude: float | None = None
    """Degrees."""
    longitude: float | None = None


class Database:
    """An open file. Give it up with `close()`."""

    def __init__(self, path: Path, *, kind: str, setting: str) -> None:
        """Open `path`, whose type must contain `kind` (`ASN`, `City`).

        Raises:
            DatabaseRefused: it cannot be opened as such. `setting` is named as what to change.
        """
        try:
            self._reader = maxminddb.open_database(str(path), maxminddb.MODE_MEMORY)
        except OSError as error:
            raise DatabaseRefused(f"{setting}: {path}: {error.strerror}; give the path of an .mmdb file") from error
        except maxminddb.InvalidDatabaseError as error:
            raise DatabaseRefused(f"{setting}: {path} is not a MaxMind database: {error}") from error
        meta = self._reader.metadata()
        if kind not in meta.database_type:
            self._reader.close()
            raise DatabaseRefused(f"{setting}: {path} is a {meta.database_type} database; it must be {kind}")
        self.version = f"{meta.database_type}@{meta.build_epoch}"
        """Changes with each release: what was looked up in another one is looked up again."""
        self._has_ipv6 = meta.ip_version == 6

    def close(self) -> None:
        self._reader.close()

    def get(self, address: str) -> dict[str, Any] | None:
        ip = ipaddress.ip_address(address)
        if ip.version == 6 and not self._has_ipv6:
            return None
        return cast("dict[str, Any] | None", self._reader.get(ip))


def find_origin(database: Database, address: str) -> Origin | None:
    """Who announces `address`, or None when the database does not have it."""
    record = database.get(address)
    number = record.get("autonomous_system_number") if record else None
    if record is None or number is None:
        return None
    return Origin(int(number), record.get("autonomous_system_organization"))


def find_place(database: Database, address: str) -> Place | None:
    """Where `address` is, or None when the database does not have it or does not know the country."""
    record = database.get(address) or {}
    country = record.get("country") or {}
    code = country.get("iso_code")
    if not code:
        return None
    subdivisions = record.get("subdivisions") or []
    first: dict[str, Any] = subdivisions[0] if subdivisions else {}
    region = Region(first["iso_code"], _name(first) or first["iso_code"]) if first.get("iso_code") else None
    location = record.get("location") or {}
    return Place(
        country_code=code,
        country=_name(country) or code,
        region=region,
        city=_name(record.get("city") or {}),
        latitude=location.get("latitude"),
        longitude=location.get("longitude"),
    )


def _name(record: dict[str, Any]) -> str | None:
    names: dict[str, str] = record.get("names") or {}
    return names.get("en") or next(iter(names.values()), None)
