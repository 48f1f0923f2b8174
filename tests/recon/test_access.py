"""Who may submit, and how often: rate limits and the registry of keys."""

from __future__ import annotations

import base64
import dataclasses
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from nacl.signing import SigningKey

from apps.recon.envelope import seal
from apps.recon.keys import InvalidKey, canonical
from apps.recon.limits import BUCKETS_MAX, TokenBuckets
from apps.recon.settings import Settings
from apps.recon.store import Store
from tests.recon.conftest import GENEROUS, Recon, embedded, serving

ONE_PORT = '{"ip":"192.0.2.1","port":80}\n'
ADMIN = {"Authorization": "Bearer secret-of-the-admin"}


@pytest.fixture
async def recon(tmp_path: Path) -> AsyncIterator[Recon]:
    async with embedded(Store(tmp_path / "surreal"), ":memory:") as recon:
        yield recon


def sealed(key: SigningKey, port: int = 80) -> bytes:
    return seal(f'{{"ip":"192.0.2.1","port":{port}}}', key, timestamp_s=int(time.time()))


def public(key: SigningKey) -> str:
    return base64.b64encode(key.verify_key.encode()).decode()


async def statuses(http: httpx.AsyncClient, *bodies: bytes, **headers: str) -> list[int]:
    return [(await http.post("/v1/mesh/ingest", content=body, headers=headers)).status_code for body in bodies]


def settings(**changes: Any) -> Settings:
    return dataclasses.replace(GENEROUS, **changes)


# -- limits ------------------------------------------------------------------------------------------------------


async def test_each_scanner_key_has_its_own_share(recon: Recon):
    first, second = SigningKey.generate(), SigningKey.generate()
    async with serving(recon.store, recon.client, settings(ingest_per_minute=3)) as http:
        assert await statuses(http, *(sealed(first, port) for port in range(1, 6))) == [202, 202, 202, 429, 429]
        assert await statuses(http, sealed(second)) == [202]
        refused = await http.post("/v1/mesh/ingest", content=sealed(first, 9))
    assert refused.json()["error"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-window"]) == ("3", "60")
    assert (await recon.http.get("/v1/jobs")).json()["total"] == 4, "what was refused left no job"


async def test_nobody_uses_up_the_share_of_a_key_that_is_not_theirs(recon: Recon):
    """Only verified envelopes count against a key."""
    key = SigningKey.generate()
    forged = sealed(key).replace(b'"signature":"', b'"signature":"AAAA')
    async with serving(recon.store, recon.client, settings(ingest_per_minute=1)) as http:
        assert await statuses(http, *[forged] * 10, sealed(key)) == [401] * 10 + [202]


async def test_an_address_is_counted_before_verification(recon: Recon):
    async with serving(recon.store, recon.client, settings(address_per_minute=2)) as http:
        assert await statuses(http, b"{}", b"", sealed(SigningKey.generate())) == [401, 400, 429]
    async with serving(recon.store, recon.client, settings(address_per_minute=2), address="203.0.113.10") as http:
        assert await statuses(http, sealed(SigningKey.generate())) == [202]


PROXIES: dict[str, tuple[str, dict[str, str], int]] = {
    "nobody's word counts without a proxy": ("203.0.113.9", {"x-forwarded-for": "198.51.100.{n}"}, 429),
    "the proxy's word counts": ("10.0.0.1", {"x-forwarded-for": "198.51.100.{n}"}, 202),
    "what the caller wrote before the proxy does not": (
        "10.0.0.1",
        {"x-forwarded-for": "192.0.2.{n}, 198.51.100.1"},
        429,
    ),
    "through two proxies": ("10.0.0.1", {"x-forwarded-for": "198.51.100.{n}, 10.0.0.2"}, 202),
    "a proxy that says nothing is itself the caller": ("10.0.0.1", {}, 429),
}


@pytest.mark.parametrize(("address", "headers", "third"), PROXIES.values(), ids=PROXIES)
async def test_whose_address_counts(recon: Recon, address: str, headers: dict[str, str], third: int):
    limited = settings(address_per_minute=2, trusted_proxies=(ip_network("10.0.0.0/8"),))
    async with serving(recon.store, recon.client, limited, address=address) as http:
        answers = [
            await statuses(
                http, sealed(SigningKey.generate()), **{name: value.format(n=n) for name, value in headers.items()}
            )
            for n in range(1, 4)
        ]
    assert answers == [[202], [202], [third]]


async def test_reading_is_limited_too(recon: Recon):
    async with serving(recon.store, recon.client, settings(read_per_minute=2)) as http:
        assert [(await http.get("/v1/jobs")).status_code for _ in range(3)] == [200, 200, 429]
        assert (await http.get("/health")).status_code == 200


def test_a_bucket_fills_up_again_and_not_beyond():
    now_s = 0.0
    buckets = TokenBuckets(60, clock=lambda: now_s)
    assert [buckets.take("a") for _ in range(60)] == [0] * 60
    assert buckets.take("a") == 1.0
    now_s = 0.5
    assert buckets.take("a") == 0.5
    now_s = 1.0
    assert buckets.take("a") == 0
    now_s = 10_000.0
    assert [buckets.take("a") for _ in range(61)] == [0] * 60 + [1.0]


def test_callers_beyond_number_take_no_memory_without_end():
    buckets = TokenBuckets(1)
    for number in range(BUCKETS_MAX + 100):
        buckets.take(str(number))
    assert len(buckets._buckets) == BUCKETS_MAX
    assert buckets.take(str(BUCKETS_MAX + 99)) > 0
    assert buckets.take("0") == 0, "forgotten, and so forgiven"


# -- keys --------------------------------------------------------------------------------------------------------


async def test_in_registered_mode_only_registered_keys_submit(recon: Recon):
    key, other = SigningKey.generate(), SigningKey.generate()
    closed = settings(key_mode="registered", admin_token="secret-of-the-admin")
    async with serving(recon.store, recon.client, closed) as http:
        assert await statuses(http, sealed(key)) == [401]
        registered = await http.post("/v1/keys", json={"public_key": public(key), "name": "roof"}, headers=ADMIN)
        assert registered.status_code == 200
        assert (registered.json()["name"], registered.json()["revoked_at"]) == ("roof", None)
        assert await statuses(http, sealed(key), sealed(other)) == [202, 401]
        answer = await http.post("/v1/mesh/ingest", content=sealed(other))
        forged = await http.post("/v1/mesh/ingest", content=b"{}")
        assert answer.json()["message"] == forged.json()["message"], "401 never says which of them it was"


async def test_a_revoked_key_is_refused_in_both_modes_until_it_is_registered_again(recon: Recon):
    key = SigningKey.generate()
    path = "/v1/keys/" + public(key).replace("+", "-").replace("/", "_")
    for mode in ("open", "registered"):
        changed = settings(key_mode=mode, admin_token="secret-of-the-admin")
        async with serving(recon.store, recon.client, changed) as http:
            revoked = await http.delete(path, headers=ADMIN)
            again = await http.delete(path, headers=ADMIN)
            assert revoked.json()["revoked_at"] is not None
            assert again.json()["revoked_at"] == revoked.json()["revoked_at"]
            assert await statuses(http, sealed(key)) == [401]
            await http.post("/v1/keys", json={"public_key": public(key)}, headers=ADMIN)
            assert await statuses(http, sealed(key)) == [202]
            listed = (await http.get("/v1/keys", headers=ADMIN)).json()
            assert listed["mode"] == mode
            assert [each["public_key"] for each in listed["keys"]] == [public(key)]


async def test_the_key_routes_need_the_admin_token(recon: Recon):
    calls = [("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/x")]
    async with serving(recon.store, recon.client, settings(admin_token="secret-of-the-admin")) as http:
        for method, path in calls:
            for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "Basic secret-of-the-admin"}):
                answer = await http.request(method, path, headers=headers)
                assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
                assert "Bearer" in answer.headers["www-authenticate"]
    for method, path in calls:
        closed = await recon.http.request(method, path, headers=ADMIN)
        assert (closed.status_code, closed.json()["error"]) == (403, "admin_disabled")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"public_key": "x"}, "the key is not base64"),
        ({"public_key": base64.b64encode(bytes(31)).decode()}, "31 bytes long"),
        ({"public_key": base64.b64encode(bytes(32)).decode(), "name": "x" * 129}, "1 to 128 characters"),
        ({"name": "x"}, "public_key"),
        ({"public_key": 1}, "public_key"),
        ([], "object"),
    ],
)
async def test_a_key_that_is_none_is_refused_with_the_reason(recon: Recon, body: Any, message: str):
    async with serving(recon.store, recon.client, settings(admin_token="secret-of-the-admin")) as http:
        answer = await http.post("/v1/keys", json=body, headers=ADMIN)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert message in answer.json()["message"]


def test_a_key_has_one_spelling():
    key = bytes(range(220, 252))
    plain = base64.b64encode(key).decode()
    for spelling in (plain, base64.urlsafe_b64encode(key).decode(), plain.rstrip("="), f" {plain}\n"):
        assert canonical(spelling) == plain
    with pytest.raises(InvalidKey):
        canonical(plain[:-4])


# -- null bytes --------------------------------------------------------------------------------------------------


async def test_a_null_byte_is_refused_wherever_it_stands(recon: Recon):
    """The database takes none in a key, and a row that has one can never be read again, nor any list that holds it."""
    async with serving(recon.store, recon.client, settings(admin_token="secret-of-the-admin")) as http:
        for path in ("/v1/jobs?scanner_key=a%00", "/v1/threats/%00", "/v1/contributors/%00", "/v1/campaigns/%00"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), path
            assert answer.headers["x-request-id"]
        for body in ({"targets": ["a\0b"]}, {"targets": ["127.0.0.1"], "options": {"contributor": "\\\\\0"}}):
            answer = await http.post("/v1/campaigns", json=body, headers=ADMIN)
            assert (answer.status_code, "null byte" in answer.json()["message"]) == (400, True)
        assert (await http.get("/v1/campaigns")).json()["campaigns"] == []
        written_out = {"public_key": public(SigningKey.generate()), "name": r"six characters: \u0000"}
        assert (await http.post("/v1/keys", json=written_out, headers=ADMIN)).is_success
