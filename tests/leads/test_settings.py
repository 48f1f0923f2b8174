"""Settings: from the environment, with what is wrong named, and the engines that follow from them."""

from __future__ import annotations

import pytest

from apps.leads.settings import Settings, SettingsError

SERVER = {"RESTATE_INGRESS_URL": "http://localhost:8080"}


@pytest.mark.parametrize(
    ("environ", "discovery", "enrichment", "home"),
    [
        ({}, "embedded", "embedded", "embedded"),
        (SERVER, "embedded", "restate", "embedded"),
        (SERVER | {"LEADS_ENGINE": "embedded"}, "embedded", "embedded", "embedded"),
        (SERVER | {"LEADS_ENGINE": "restate"}, "restate", "restate", "restate"),
        (SERVER | {"LEADS_ENGINE": "hybrid"}, "embedded", "restate", "embedded"),
        (
            SERVER | {"LEADS_DISCOVERY_ENGINE": "restate", "LEADS_ENRICHMENT_ENGINE": "embedded"},
            "restate",
            "embedded",
            "embedded",
        ),
    ],
)
def test_where_work_runs(environ: dict[str, str], discovery: str, enrichment: str, home: str) -> None:
    settings = Settings.from_environment(environ)
    assert (settings.discovery_engine, settings.enrichment_engine, settings.home_engine) == (
        discovery,
        enrichment,
        home,
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LEADS_ENGINE": "cloud"}, "LEADS_ENGINE: embedded, restate or hybrid, not 'cloud'"),
        ({"LEADS_ENGINE": "restate"}, "RESTATE_INGRESS_URL is required"),
        ({"LEADS_SPEED": "1"}, "unknown setting LEADS_SPEED"),
        ({"LEADS_SCAN_CONCURRENCY": "many"}, "Expected `int`, got `str` - at `\\$.scan_concurrency`"),
        ({"LEADS_WEBHOOKS": "{"}, "is not JSON"),
        ({"LEADS_BUSINESS_DIRECTORY": "apify"}, "'apify' is not configured; there is osm"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_environment(environ)


def test_settings_survive_the_way_through_an_environment() -> None:
    settings = Settings.from_environment(
        SERVER
        | {
            "LEADS_DIRECTORY": "/tmp/leads",
            "LEADS_WEBHOOKS": '{"team": "https://discord.example/1"}',
            "LEADS_SEARCH_RETRY": '{"attempts": 2, "first_wait_s": 2, "factor": 1}',
            "LEADS_ACTOR": '{"url": "http://x", "actor": "maps", "token": "t"}',
            "LEADS_NETWORK": '{"allowed_networks": ["127.0.0.0/8"]}',
        }
    )
    assert settings.search_retry.attempts == 2
    assert Settings.from_environment(settings.to_environment()) == settings
