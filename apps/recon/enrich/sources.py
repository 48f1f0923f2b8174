"""Where enrichment gets its knowledge from, as the settings say. Opened when first needed, kept while the process lives."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from apps.recon.enrich import kev
from apps.recon.enrich.cymru import PORT
from apps.recon.enrich.mmdb import Database, DatabaseRefused
from apps.recon.settings import InvalidSetting, Settings

CACHE_TTL = timedelta(hours=24)

ASN_SETTING, CITY_SETTING, KEV_SETTING, NVD_SETTING = "RECON_GEOIP_ASN", "RECON_GEOIP_CITY", "RECON_KEV", "RECON_NVD"
WHOIS_SETTING = "RECON_WHOIS"


class Sources:
    """The files and servers that are configured."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.whois = _server(settings.whois_server) if settings.whois_server else None
        """Host and port of a whois server that speaks Team Cymru's bulk format."""

    def check(self) -> None:
        """Look whether what is configured can be used, so that a wrong path is known at start.

        Raises:
            InvalidSetting: a file is missing or is the wrong one; the text names the setting.
        """
        try:
            for path, kind, setting in (
                (self._settings.geoip_asn_path, "ASN", ASN_SETTING),
                (self._settings.geoip_city_path, "City", CITY_SETTING),
            ):
                if path is not None:
                    Database(path, kind=kind, setting=setting).close()
            _ = self.known_exploited
        except (DatabaseRefused, kev.CatalogueRefused) as error:
            raise InvalidSetting(str(error)) from error

    def missing(self, kind: str) -> str | None:
        """Why this kind cannot be enriched: which setting is missing. None when it can."""
        if kind == "asn" and self._settings.geoip_asn_path is None and self.whois is None:
            return f"neither {ASN_SETTING} nor {WHOIS_SETTING} is set"
        if kind == "geo" and self._settings.geoip_city_path is None:
            return f"{CITY_SETTING} is not set"
        if kind == "vuln" and not self._settings.nvd_enabled:
            return f"{NVD_SETTING} is off: services get their CPE names, but no vulnerabilities"
        return None

    @cached_property
    def asn(self) -> Database | None:
        return _database(self._settings.geoip_asn_path, "ASN", ASN_SETTING)

    @cached_property
    def city(self) -> Database | None:
        return _database(self._settings.geoip_city_path, "City", CITY_SETTING)

    @cached_property
    def known_exploited(self) -> kev.Catalogue:
        path = self._settings.kev_path
        return kev.EMPTY if path is None else kev.read_catalogue(path, setting=KEV_SETTING)

    def is_public(self, address: str) -> bool:
        """Whether somebody outside could know it: private and reserved addresses are not asked about."""
        return ipaddress.ip_address(address).is_global


def _database(path: Path | None, kind: str, setting: str) -> Database | None:
    return None if path is None else Database(path, kind=kind, setting=setting)


def _server(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text else (text, "", str(PORT))
    if not host or not port.isdigit():
        raise InvalidSetting(f"{WHOIS_SETTING}: {text!r} is not a host, or a host and a port as in whois.cymru.com:43")
    return host.strip("[]"), int(port)
