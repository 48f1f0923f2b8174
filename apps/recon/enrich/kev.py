"""CISA's catalogue of known exploited vulnerabilities, from its JSON file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec


class CatalogueRefused(Exception):
    """The file is not there or is no catalogue; the text names the setting."""


class KnownExploited(msgspec.Struct, rename={"cve_id": "cveID", "name": "vulnerabilityName", "added_on": "dateAdded"}):
    cve_id: str
    name: str
    added_on: date


class _File(msgspec.Struct, rename="camel"):
    catalog_version: str
    vulnerabilities: list[KnownExploited]


@dataclass(frozen=True, slots=True)
class Catalogue:
    version: str
    entries: dict[str, KnownExploited]
    """By CVE id."""

    def __contains__(self, cve_id: str) -> bool:
        return cve_id in self.entries


EMPTY = Catalogue("none", {})


def read_catalogue(path: Path, *, setting: str) -> Catalogue:
    """Read the catalogue, 1.3 MB in 2025.

    Raises:
        CatalogueRefused: cannot be read as one. `setting` is named as what to change.
    """
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise CatalogueRefused(f"{setting}: {path}: {error.strerror}; give the path of CISA's KEV JSON file") from error
    except msgspec.DecodeError as error:
        raise CatalogueRefused(f"{setting}: {path} is not CISA's KEV catalogue: {error}") from error
    return Catalogue(file.catalog_version, {entry.cve_id: entry for entry in file.vulnerabilities})
