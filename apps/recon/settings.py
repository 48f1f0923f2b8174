# ruff: noqa: RUF009 - what looks like a call in a default is dataclasses.field with metadata
"""Every setting of recon: flags before environment before defaults. Nothing else reads the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from apps.recon.surreal import AUTH_LEVELS, DATABASE, NAMESPACE, ServerAddress
from apps.serving.secrets import UNSENDABLE, can_be_sent

Network = IPv4Network | IPv6Network

ENGINES = ("embedded", "restate")
KEY_MODES = ("open", "registered")
SURREALDB_SCHEMES = ("ws", "wss")
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class InvalidSetting(Exception):
    """A setting has a value that cannot be meant; the text names it, where it came from and what is allowed."""


def _text(text: str) -> str:
    return text


def _secret(text: str) -> str:
    return text


def _token(text: str) -> str:
    if not can_be_sent(text):
        raise ValueError("a token: it " + UNSENDABLE)
    return text


_KEPT_BACK = (_secret, _token)
"""Of these, nothing is shown."""


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError("a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError("a port, 0 to 65535")
    return int(text)


def _switch(text: str) -> bool:
    choices = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in choices:
        raise ValueError("true or false")
    return choices[text.lower()]


def _seconds(text: str) -> timedelta:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise ValueError("a number of seconds above 0")
    return timedelta(seconds=seconds)


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"networks with commas between them, e.g. 127.0.0.0/8,10.1.0.0/16 ({error})") from None


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(" or ".join(choices))
        return text

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        parsed = urlsplit(text)
        if parsed.scheme not in schemes or not parsed.hostname:
            raise ValueError(f"a URL that begins with {', '.join(scheme + '://' for scheme in schemes)}")
        if parsed.username or parsed.password:
            raise ValueError("a URL without user and password in it; they have settings of their own")
        return text.rstrip("/")

    return parse


def _setting(environment: str, default: Any, parse: Callable[[str], Any], what: str) -> Any:
    return field(default=default, metadata={"environment": environment, "parse": parse, "what": what})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of recon's settings. `Settings()` has the defaults, `Settings.load()` what the environment says."""

    # -- where it runs
    engine: str = _setting("RECON_ENGINE", "embedded", _one_of(*ENGINES), "embedded, or restate for a server elsewhere")
    directory: Path = _setting("RECON_DIR", Path("recon-data"), Path, "where the databases are")
    host: str = _setting("HOST", "127.0.0.1", _text, "address to listen on")
    port: int = _setting("PORT", 3000, _port, "port to listen on; 0 takes a free one")
    worker_host: str = _setting("RECON_WORKER_HOST", "127.0.0.1", _text, "with restate: address of the SDK endpoint")
    worker_port: int = _setting("RECON_WORKER_PORT", 9080, _port, "with restate: port of the SDK endpoint")
    worker_url: str | None = _setting(
        "RECON_WORKER_URL", None, _url("http", "https"), "with restate: where the server reaches the SDK endpoint"
    )
    serve_worker: bool = _setting(
        "RECON_SERVE_WORKER", True, _switch, "with restate: serve the SDK endpoint as well, not the API alone"
    )
    restate_ingress_url: str = _setting(
        "RESTATE_INGRESS_URL", "http://127.0.0.1:8080", _url("http", "https"), "the Restate server's ingress"
    )
    restate_admin_url: str = _setting(
        "RESTATE_ADMIN_URL", "http://127.0.0.1:9070", _url("http", "https"), "the Restate server's admin address"
    )
    restate_auth_token: str | None = _setting("RESTATE_AUTH_TOKEN", None, _token, "bearer token for both")
    startup_wait: timedelta = _setting(
        "RECON_STARTUP_WAIT_S", timedelta(seconds=60), _seconds, "how long to wait for SurrealDB and Restate at start"
    )

    # -- database
    surrealdb_url: str | None = _setting(
        "SURREALDB_URL", None, _url(*SURREALDB_SCHEMES), "a SurrealDB server; none: embedded, in the directory"
    )
    surrealdb_user: str | None = _setting("SURREALDB_USER", None, _text, "user at the server")
    surrealdb_pass: str | None = _setting("SURREALDB_PASS", None, _secret, "password at the server")
    surrealdb_auth_level: str = _setting(
        "SURREALDB_AUTH_LEVEL", "root", _one_of(*AUTH_LEVELS), "where that user is defined: root, namespace or database"
    )
    surrealdb_namespace: str = _setting("SURREALDB_NAMESPACE", NAMESPACE, _text, "namespace")
    surrealdb_database: str = _setting("SURREALDB_DATABASE", DATABASE, _text, "database")

    memory_max_mb: int | None = _setting(
        "RECON_MEMORY_MAX_MB",
        None,
        _count,
        "with the embedded database: nothing more is taken in above this; none: three quarters of what there is",
    )

    # -- API
    admin_token: str | None = _setting(
        "RECON_ADMIN_TOKEN", None, _token, "bearer token of the key and approval routes; none: they are closed"
    )
    key_mode: str = _setting("RECON_KEYS", "open", _one_of(*KEY_MODES), "open: any scanner key; registered: known ones")
    ingest_per_minute: int = _setting("RECON_INGEST_PER_MINUTE", 60, _count, "submissions per minute and scanner key")
    address_per_minute: int = _setting(
        "RECON_ADDRESS_PER_MINUTE", 600, _count, "submissions per minute and address, counted before verification"
    )
    read_per_minute: int = _setting("RECON_READ_PER_MINUTE", 600, _count, "other requests per minute and address")
    trusted_proxies: tuple[Network, ...] = _setting(
        "RECON_TRUSTED_PROXIES", (), _networks, "networks of proxies whose X-Forwarded-For counts"
    )
    sweep_interval: timedelta = _setting(
        "RECON_SWEEP_S", timedelta(seconds=30), _seconds, "pause between looks for jobs that were never started"
    )
    log_format: str = _setting("RECON_LOG_FORMAT", "text", _one_of("text", "json"), "log lines on standard error")
    log_level: str = _setting("RECON_LOG_LEVEL", "info", _one_of("debug", "info", "warning", "error"), "log level")

    # -- enrichment
    geoip_city_path: Path | None = _setting("RECON_GEOIP_CITY", None, Path, "MMDB file with cities")
    geoip_asn_path: Path | None = _setting("RECON_GEOIP_ASN", None, Path, "MMDB file with autonomous systems")
    enrich_after_ingest: bool = _setting("RECON_ENRICH", True, _switch, "enrich the hosts of each job")
    nvd_url: str = _setting(
        "NVD_URL",
        "https://services.nvd.nist.gov/rest/json/cves/2.0",
        _url("http", "https"),
        "the NVD's API, or a mirror of it",
    )
    nvd_enabled: bool = _setting("RECON_NVD", False, _switch, "ask the NVD for the vulnerabilities of each CPE")
    nvd_api_key: str | None = _setting("NVD_API_KEY", None, _token, "more requests per time at the NVD")
    kev_path: Path | None = _setting("RECON_KEV", None, Path, "the catalog of known exploited vulnerabilities, JSON")
    nvd_requests_per_30s: int | None = _setting(
        "NVD_REQUESTS_PER_30S", None, _count, "for a mirror; none: the NVD's own limits, 5, or 50 with a key"
    )
    whois_server: str | None = _setting(
        "RECON_WHOIS", None, _text, "ask whois.cymru.com (or another host:port) about addresses that no MMDB file has"
    )

    # -- campaigns
    allowed_networks: tuple[Network, ...] = _setting(
        "RECON_ALLOWED_NETWORKS", LOOPBACK, _networks, "the only networks that campaigns may scan"
    )
    sensitive_networks: tuple[Network, ...] = _setting(
        "RECON_SENSITIVE_NETWORKS", (), _networks, "networks that need somebody's approval first"
    )
    approval_timeout: timedelta = _setting(
        "RECON_APPROVAL_TIMEOUT_S", timedelta(hours=24), _seconds, "no answer within this time means denied"
    )
    scan_concurrency: int = _setting("RECON_SCAN_CONCURRENCY", 16, _count, "targets scanned at the same time")
    connect_timeout: timedelta = _setting(
        "RECON_CONNECT_TIMEOUT_S", timedelta(seconds=1), _seconds, "how long the TCP scanner waits for a port"
    )
    nmap_path: str = _setting("RECON_NMAP", "nmap", _text, "the nmap program")
    nmap_versions: bool = _setting("RECON_NMAP_VERSIONS", True, _switch, "ask open ports for product and version")
    banner_timeout: timedelta | None = _setting(
        "RECON_BANNER_TIMEOUT_S", None, _seconds, "how long the TCP scanner waits for a greeting; none: not at all"
    )
    approval_webhook: str | None = _setting(
        "RECON_APPROVAL_WEBHOOK", None, _url("http", "https"), "where requests for an approval are posted"
    )

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings from flags (by field name; None means not given), else the environment, else the defaults.

        Raises:
            InvalidSetting: one of them cannot be read, or two do not fit together.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for each in fields(cls):
            variable: str = each.metadata["environment"]
            given = (flags or {}).get(each.name)
            if given is not None:
                values[each.name] = _parsed(f"--{each.name.replace('_', '-')}", given, each.metadata["parse"])
            elif environment.get(variable):
                values[each.name] = _parsed(variable, environment[variable], each.metadata["parse"])
        settings = cls(**values)
        settings.check()
        return settings

    def check(self) -> None:
        """Raises: InvalidSetting, when two settings do not fit together."""
        if self.surrealdb_url and not (self.surrealdb_user and self.surrealdb_pass):
            raise InvalidSetting("SURREALDB_URL needs SURREALDB_USER and SURREALDB_PASS")
        if self.surrealdb_url and (self.surrealdb_user, self.surrealdb_pass) == ("root", "root"):
            raise InvalidSetting("SURREALDB_USER and SURREALDB_PASS are root and root; choose a password")

    @property
    def database_address(self) -> Path | ServerAddress:
        """What `Store` opens: a directory, or a server."""
        if self.surrealdb_url is None:
            return self.directory / "surreal"
        assert self.surrealdb_user is not None  # checked by `load`, as is the password
        assert self.surrealdb_pass is not None
        return ServerAddress(
            self.surrealdb_url,
            self.surrealdb_user,
            self.surrealdb_pass,
            self.surrealdb_namespace,
            self.surrealdb_database,
            self.surrealdb_auth_level,
        )

    def describe(self) -> dict[str, str]:
        """What is set, for a log line: secrets only as `set`."""
        shown: dict[str, str] = {}
        for each in fields(self):
            value: Any = getattr(self, each.name)
            if value is None:
                continue
            shown[each.name] = "set" if each.metadata["parse"] in _KEPT_BACK else _shown(value)
        return shown


def documented() -> list[tuple[str, str, str]]:
    """Variable, default and meaning of every setting, for the docs."""
    rows: list[tuple[str, str, str]] = []
    for each in fields(Settings):
        default = "" if each.default is None else _shown(each.default)
        rows.append((each.metadata["environment"], default, each.metadata["what"]))
    return rows


def _parsed(origin: str, value: Any, parse: Callable[[str], Any]) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except ValueError as error:
        shown = "what it is set to" if parse in _KEPT_BACK else repr(value)
        raise InvalidSetting(f"{origin}: {shown} is not {error}") from None


def _shown(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(each) for each in cast(tuple[Any, ...], value))
    return str(value)
