"""`engine.ingress` and `engine.admin` in somebody else's application: which checks go with them, and which do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import Engine
from holdfast.config import EngineConfig, SecurityConfig
from tests.ingress.asgi import Caller
from tests.ingress.sample_app import make_app

PAGE = "https://ui.example"


@asynccontextmanager
async def mounted(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application at app.example that has mounted both APIs."""
    async with Engine(make_app(), **settings) as engine:
        app = Starlette(routes=[Mount("/in", app=engine.ingress), Mount("/ops", app=engine.admin)])
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://app.example") as client:
            yield client


async def test_names_and_tokens_are_the_business_of_whoever_mounts_them():
    async with mounted() as client:
        assert (await client.post("/in/S/echo", json="x")).status_code == 200
        assert (await client.get("/ops/services")).status_code == 200


async def test_pages_of_the_application_itself_may_send_requests():
    async with mounted() as client:
        own = {"origin": "https://app.example", "sec-fetch-site": "same-origin"}
        assert (await client.post("/in/S/echo", json="x", headers=own)).status_code == 200
        assert (await client.get("/ops/services", headers=own)).status_code == 200


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
async def test_pages_of_other_origins_may_not(headers: dict[str, str]):
    async with mounted() as client:
        for answer in (
            await client.post("/in/S/echo", json="x", headers=headers),
            await client.get("/ops/services", headers=headers),
            await client.post("/ops/services/O/state", json={"object_key": "k", "new_state": {}}, headers=headers),
        ):
            assert answer.status_code == 403


async def test_unless_the_engine_was_told_to():
    async with mounted(allowed_origins=(PAGE,)) as client:
        for path in ("/in/restate/health", "/ops/services"):
            answer = await client.get(path, headers={"origin": PAGE})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)


async def test_a_link_to_the_admin_may_be_followed_and_one_to_the_ingress_may_not():
    link = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}
    async with mounted() as client:
        assert (await client.get("/ops/services", headers=link)).status_code == 200
        assert (await client.get("/in/S/void", headers=link)).status_code == 403  # it would be a call


async def test_a_websocket_of_another_page_is_closed_before_it_opens():
    async with Engine(make_app()) as engine:
        browser = Caller([{"type": "websocket.connect"}])
        headers = [(b"host", b"app.example"), (b"origin", b"https://evil.example")]
        scope = {"type": "websocket", "path": "/services", "headers": headers}
        await engine.admin(scope, browser.receive, browser.send)
        assert browser.sent == [{"type": "websocket.close", "code": 1008}]


async def test_headers_are_stored_by_the_settings_of_the_engine():
    async with mounted() as client:
        shown = dict((await client.post("/in/S/headers", headers={"cookie": "a=b", "x-a": "1"})).json())
        assert ("cookie" in shown, shown["x-a"]) == (False, "1")
    async with mounted(stored_headers_deny=("x-a",)) as client:
        shown = dict((await client.post("/in/S/headers", headers={"cookie": "a=b", "x-a": "1"})).json())
        assert ("x-a" in shown, shown["cookie"]) == (False, "a=b")


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "an origin without scheme": ({"allowed_origins": ("ui.example",)}, "allowed_origins must be like"),
    "an origin with a path": ({"allowed_origins": ("https://ui.example/x",)}, "allowed_origins must be like"),
    "one string": ({"allowed_origins": "https://ui.example"}, "allowed_origins must be a tuple of strings"),
    "one header": ({"stored_headers_deny": "cookie"}, "stored_headers_deny must be a tuple of strings"),
}


@pytest.mark.parametrize("case", INVALID)
def test_settings_that_mean_something_else(case: str):
    settings, message = INVALID[case]
    with pytest.raises((ValueError, TypeError), match=message):
        EngineConfig(**settings)


INVALID_SECURITY: dict[str, tuple[dict[str, Any], str]] = {
    "a key without certificate": ({"tls_key": "key.pem"}, "tls_key needs tls_cert"),
    "one host": ({"allowed_hosts": "a.example"}, "allowed_hosts must be a tuple of strings"),
    "no headers at all": ({"headers_max": 0}, "headers_max must be at least 1"),
    "no time": ({"head_timeout_ms": 0}, "head_timeout_ms must be at least 1"),
}


@pytest.mark.parametrize("case", INVALID_SECURITY)
def test_security_settings_that_mean_something_else(case: str):
    settings, message = INVALID_SECURITY[case]
    with pytest.raises((ValueError, TypeError), match=message):
        SecurityConfig(**settings)


def test_a_token_in_the_settings_is_not_shown():
    assert "s3cret" not in repr(SecurityConfig(ingress_token="s3cret" * 6, admin_token="s3cret" * 7))
