"""Every setting of leads, with its unit and default. Environment variables: `LEADS_` and the name in capitals.

The three engines' addresses are those of every Restate tool: `RESTATE_INGRESS_URL`, `RESTATE_ADMIN_URL`,
`RESTATE_AUTH_TOKEN`. Where a server is named, enrichment runs there and discovery stays embedded (`hybrid`); without one
everything is embedded. `LEADS_ENGINE`, or `LEADS_DISCOVERY_ENGINE` and `LEADS_ENRICHMENT_ENGINE`, say otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
from restate import RunOptions

from apps.leads.booking import TIER_DISCOUNT_PERCENT
from apps.leads.tiers import TIERS, TierLimits
from apps.leads.web.types import DISCOVERY_LIMITS, ENRICHMENT_LIMITS, FetchLimits, NetworkPolicy
from apps.serving.secrets import UNSENDABLE, can_be_sent

EngineName = Literal["embedded", "restate"]
DATA = Path(__file__).parent / "data"


class SettingsError(ValueError):
    """A setting is wrong; the message says which, and what it may be."""


class RetryPreset(msgspec.Struct, frozen=True, kw_only=True):
    """How often something outside is asked, and how long between. Carried out by the engine, not by us."""

    attempts: int = 3
    """In all. After the last one there is no wait: the step has failed."""
    first_wait_s: float = 1.0
    factor: float = 2.0
    wait_max_s: float = 4.0

    def options(self, type_hint: Any = None) -> RunOptions[Any]:
        """For `ctx.run_typed`."""
        return RunOptions(
            type_hint=type_hint,
            max_attempts=self.attempts,
            initial_retry_interval=timedelta(seconds=self.first_wait_s),
            retry_interval_factor=self.factor,
            max_retry_interval=timedelta(seconds=self.wait_max_s),
        )


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """List prices in cents; the wallet's tier takes its discount off (`booking.TIER_DISCOUNT_PERCENT`)."""

    discovery_cents: int = 100
    """Per run, up to 100 businesses."""
    enrichment_cents: int = 500
    """Per run, up to 50 businesses."""
    top_ups_cents: tuple[int, ...] = (500, 1000, 2500)
    """What the shop offers."""


class UnitCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What providers cost us, in dollars per unit."""

    map_search_usd: float = 0.004
    """Per result of a hosted crawler. OpenStreetMap costs nothing."""
    audit_usd: float = 0.05
    """Per report of an outside audit service; our own costs nothing."""


class ScoreWeights(msgspec.Struct, frozen=True, kw_only=True):
    """Points and shares of the lead score; the sums are capped at 100."""

    base: float = 50
    website: float = 20
    ads: float = 10
    not_ai_readable: float = 15
    reviews: float = 5
    reviews_more_than: int = 20
    owner: float = 40
    email: float = 30
    phone: float = 30
    share_discovery: float = 0.5
    share_need: float = 0.3
    share_reach: float = 0.2


class ActorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A hosted crawler with an Apify-style API."""

    url: str
    actor: str
    token: str
    poll_wait_s: float = 5.0
    polls_max: int = 60


class OwnerSourceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A paid service that may know owners (`web.HttpOwnerSource`), or the business's own website."""

    name: str
    """`answer_engine`, `search_data`, `profile_search`, or another with `cost_usd`; `website` needs no address."""
    url: str = ""
    token: str | None = None
    cost_usd: float | None = None


class Settings(msgspec.Struct, kw_only=True):
    """All of it. `Settings()` is a whole, embedded leads in the folder `leads-data`."""

    directory: Path = Path("leads-data")
    """Where the databases are: `leads.db` of the application, `engine.db` of the embedded engine."""

    discovery_engine: EngineName = "embedded"
    enrichment_engine: EngineName = "embedded"
    restate_ingress_url: str = ""
    restate_admin_url: str = ""
    restate_auth_token: str = ""
    restate_listen_host: str = "127.0.0.1"
    """Where a Restate server reaches the handlers of this process."""
    restate_listen_port: int = 0
    """0 takes a free one."""
    restate_advertised_url: str = ""
    """That address as the server sees it, when it runs elsewhere (a container)."""

    business_directory: str = "osm"
    """The default one: `osm` (files), `overpass` (HTTP) or `apify` (hosted crawler)."""
    osm_files: Path = DATA / "businesses"
    overpass_url: str = ""
    """For example https://overpass-api.de/api/interpreter; empty: not offered."""
    actor: ActorSettings | None = None

    search_retry: RetryPreset = RetryPreset()
    step_retry: RetryPreset = RetryPreset()
    """Paid lookups: owner search and audit."""

    discovery_limits: FetchLimits = DISCOVERY_LIMITS
    enrichment_limits: FetchLimits = ENRICHMENT_LIMITS
    network: NetworkPolicy = NetworkPolicy()
    site_mirror_url: str = ""
    """Tests and demo: `http://127.0.0.1:9000/{host}/` looks there instead of at the business's own site."""
    scan_concurrency: int = 5
    scan_batch_size: int = 20
    """Sites per step of a discovery."""
    default_country: str = "BE"
    """Whose telephone numbers a number without country code is taken for."""

    enrich_concurrency: int = 50
    """Businesses of one batch at the same time."""
    owner_sources: tuple[OwnerSourceSettings, ...] = (OwnerSourceSettings(name="website"),)
    """Asked in this order until one answers."""
    audit_service_url: str = ""
    """Empty: our own audit."""
    audit_service_key: str = ""
    audit_service_time_s: float = 300.0
    discovery_time_max_s: float = 600.0
    enrichment_time_max_s: float = 1800.0
    """For any job of this kind; the wallet's tier may allow less."""
    slow_work_time_min_s: float = 300.0
    """An enrichment, or a search by a hosted crawler, may take so long in every tier: both wait for others for minutes."""
    tiers: dict[str, TierLimits] = msgspec.field(default_factory=TIERS.copy)

    prices: Prices = Prices()
    unit_costs: UnitCosts = UnitCosts()
    weights: ScoreWeights = ScoreWeights()

    webhooks: dict[str, str] = {}
    """Name -> address of a Discord webhook. Addresses are secrets: requests and journals hold names only."""
    notify_always: tuple[str, ...] = ()
    """Webhooks that hear of the end of every job."""
    discord_api_url: str = "https://discord.com/api/v10"
    public_url: str = ""
    """Where people reach the API, for links in messages; empty: no links."""

    @property
    def home_engine(self) -> EngineName:
        """Where jobs and wallets live: one place, so that money never crosses engines."""
        engines = {self.discovery_engine, self.enrichment_engine}
        return "restate" if engines == {"restate"} else "embedded"

    @property
    def needs_restate(self) -> bool:
        return "restate" in (self.discovery_engine, self.enrichment_engine)

    def check(self) -> Settings:
        """Itself, if it makes sense.

        Raises:
            SettingsError: with the setting's name.
        """
        if self.needs_restate and not self.restate_ingress_url:
            raise SettingsError(
                "RESTATE_INGRESS_URL is required for the engine restate; http://localhost:8080 is usual"
            )
        for name, token in self._tokens():
            if not can_be_sent(token):
                raise SettingsError(f"{name}: the token {UNSENDABLE}")
        if missing := sorted(set(TIER_DISCOUNT_PERCENT) - set(self.tiers)):
            raise SettingsError(
                f"LEADS_TIERS: {missing[0]} is missing; all of {', '.join(TIER_DISCOUNT_PERCENT)} are needed"
            )
        known = self.directories()
        if self.business_directory not in known:
            raise SettingsError(
                f"LEADS_BUSINESS_DIRECTORY: {self.business_directory!r} is not configured; there is {', '.join(known)}"
            )
        return self

    def _tokens(self) -> list[tuple[str, str]]:
        """What is sent in headers, with the settings' names."""
        tokens = [("RESTATE_AUTH_TOKEN", self.restate_auth_token), ("LEADS_AUDIT_SERVICE_KEY", self.audit_service_key)]
        if self.actor is not None:
            tokens.append(("LEADS_ACTOR", self.actor.token))
        return tokens + [("LEADS_OWNER_SOURCES", source.token) for source in self.owner_sources if source.token]

    def directories(self) -> list[str]:
        """Names of the business directories that are configured."""
        return [
            "osm",
            *(["overpass"] if self.overpass_url else []),
            *(["apify"] if self.actor is not None else []),
        ]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **changes: Any) -> Settings:
        """Settings from `LEADS_...` and `RESTATE_...`; `changes` win.

        Raises:
            SettingsError: an unknown or wrong variable.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {
            f"restate_{name}": environ[f"RESTATE_{name.upper()}"]
            for name in ("ingress_url", "admin_url", "auth_token")
            if environ.get(f"RESTATE_{name.upper()}")
        }
        engine = environ.get("LEADS_ENGINE", "")
        if engine not in ("", "embedded", "restate", "hybrid"):
            raise SettingsError(f"LEADS_ENGINE: embedded, restate or hybrid, not {engine!r}")
        has_server = "restate_ingress_url" in values or bool(changes.get("restate_ingress_url"))
        values["discovery_engine"] = "restate" if engine == "restate" else "embedded"
        elsewhere = engine in ("restate", "hybrid") or (not engine and has_server)
        values["enrichment_engine"] = "restate" if elsewhere else "embedded"
        values |= {
            name.removeprefix("LEADS_").lower(): _parsed(value)
            for name, value in environ.items()
            # LEADS_API_... are of `serve.py`: who may use the API, and where it is.
            if name.startswith("LEADS_") and name != "LEADS_ENGINE" and not name.startswith("LEADS_API_") and value
        }
        values |= changes
        unknown = sorted(set(values) - set(cls.__struct_fields__))
        if unknown:
            raise SettingsError(f"unknown setting LEADS_{unknown[0].upper()}; see apps/leads/settings.py")
        try:
            return msgspec.convert(values, cls, strict=False, dec_hook=_path).check()
        except msgspec.ValidationError as error:
            raise SettingsError(f"settings: {error}") from error

    def to_environment(self) -> dict[str, str]:
        """Variables from which `from_environment` makes the same settings: for a process that is started."""
        plain = msgspec.to_builtins(self, enc_hook=str)
        named = {name: value for name, value in plain.items() if value not in ("", None, {})}
        return {
            (
                name.upper()
                if name.startswith("restate_") and name.removeprefix("restate_") in _TOOLS
                else f"LEADS_{name.upper()}"
            ): (value if isinstance(value, str) else msgspec.json.encode(value).decode())
            for name, value in named.items()
        }


_TOOLS = ("ingress_url", "admin_url", "auth_token")


def _parsed(value: str) -> Any:
    """Objects and lists are written as JSON; everything else is text that the setting's type reads."""
    if value[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise SettingsError(f"{value[:40]} is not JSON: {error}") from error
    return value


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
