"""Endpoints that fail, lie, come and go; TLS; signed requests."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import restate

from holdfast import Engine
from holdfast.errors import DeploymentRefused, InvalidRequest
from holdfast.runtime.transport.identity import public_key_text
from tests.remote import programs
from tests.remote.conftest import Node
from tests.remote.wire import Wire
from tests.runtime.support import call, complete, result, send, until
from tests.support.restate_server import serving_h2c

HTTP_VERSIONS = pytest.mark.parametrize("use_http_11", [False, True], ids=["http2", "http1.1"])


@HTTP_VERSIONS
async def test_a_service_in_another_process(use_http_11: bool) -> None:
    with serving_h2c("tests.remote.programs:app") as url:
        async with Engine(None) as engine:
            deployment = (await engine.register_deployment(url, use_http_11=use_http_11)).deployment
            mode = ("RequestResponse", True) if use_http_11 else ("BidiStream", False)
            assert (deployment.protocol_mode, deployment.use_http_11) == mode
            assert (deployment.sdk_version or "").startswith("restate-sdk-python/")
            assert await call(engine, "Orders/naps", "a") == "a"
            totals = await asyncio.gather(*(call(engine, f"Counter/{n % 3}/add", 1) for n in range(60)))
            assert sorted(totals) == sorted([*range(1, 21)] * 3)


@HTTP_VERSIONS
@pytest.mark.parametrize("size_bytes", [0, 1, 70_000, 9_000_000])
async def test_bodies_larger_than_any_window(use_http_11: bool, size_bytes: int) -> None:
    with serving_h2c(programs.app) as url:
        async with Engine(None) as engine:
            await engine.register_deployment(url, use_http_11=use_http_11)
            assert await call(engine, "Orders/mirror", "x" * size_bytes) == "x" * size_bytes


async def test_more_attempts_at_once_than_one_connection_carries() -> None:
    with serving_h2c(programs.app) as url:
        async with Engine(None) as engine:
            await engine.register_deployment(url)
            names = [f"n{number}" for number in range(300)]
            waiting = [asyncio.create_task(call(engine, "Orders/place", name)) for name in names]
            await until(lambda: len(programs.awakeables) == len(names))
            for name in names:
                await engine.resolve_awakeable(programs.awakeables[name], b'"yes"')
            assert await asyncio.gather(*waiting) == [f"take {name} v1, yes by v1" for name in names]


async def test_an_endpoint_that_ends_its_connections_without_notice() -> None:
    """Hypercorn does so after a number of requests, with others still under way."""
    with serving_h2c(programs.app, requests_max=50) as url:
        async with Engine(None) as engine:
            await engine.register_deployment(url)
            names = [f"n{number}" for number in range(200)]
            answers = await asyncio.gather(*(call(engine, "Orders/quick", name) for name in names))
            assert answers == [f"{name} by v1" for name in names]


async def test_an_endpoint_that_takes_few_requests_at_a_time() -> None:
    with serving_h2c(programs.app, streams_max=10) as url:
        async with Engine(None) as engine:
            await engine.register_deployment(url)
            await asyncio.gather(*(call(engine, "Orders/quick", f"n{number}") for number in range(400)))
            assert [info.id for info in engine.list_invocations(limit=1000) if engine.journal_events(info.id)] == []


@HTTP_VERSIONS
async def test_an_endpoint_that_goes_away_is_tried_again_until_it_is_back(use_http_11: bool) -> None:
    with serving_h2c(programs.app) as url:
        async with Engine(None) as engine, Wire(url) as wire:
            await engine.register_deployment(wire.url, use_http_11=use_http_11)
            placed = await send(engine, "Orders/place", "lamp")
            await until(lambda: "lamp" in programs.awakeables)
            await wire.cut()
            asked = await send(engine, "Orders/quick", "a")
            failure = await until(lambda: engine.describe(asked).last_failure)
            assert "RT0010" in failure
            assert f"{wire.url}/" in failure
            assert engine.describe(asked).status in ("backing-off", "running", "ready")
            await engine.resolve_awakeable(programs.awakeables["lamp"], b'"late"')
            await wire.mend()
            assert await result(engine, asked) == "a by v1"
            assert await result(engine, placed) == "take lamp v1, late by v1"
    assert programs.steps == {"take lamp v1": 1}


async def test_headers_of_a_deployment_are_sent_with_every_request() -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append((scope["path"], {name.decode(): value.decode() for name, value in scope["headers"]}))
        await programs.app(scope, receive, send)

    with serving_h2c(app) as url:
        async with Engine(None) as engine:
            await engine.register_deployment(url, headers={"X-Tenant": "blue"})
            await call(engine, "Counter/a b\u00e9/add", 1)
    assert [path for path, _ in seen] == ["/discover", "/invoke/Counter/add"]
    assert [headers["x-tenant"] for _, headers in seen] == ["blue", "blue"]
    invoked = seen[1][1]
    assert invoked["x-restate-invocation-id"].startswith("inv_1")
    assert invoked["x-restate-service-key"] == "a%20b%C3%A9"
    assert invoked["content-type"] == invoked["accept"] == "application/vnd.restate.invocation.v7"


def _misbehaving(answer: Callable[[Any], Any]) -> Any:
    """The application, except that attempts get what `answer` sends until it returns False."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or "/invoke/" not in scope["path"] or not await answer(send):
            await programs.app(scope, receive, send)

    return app


@HTTP_VERSIONS
@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (429, {"retry-after": "0"}, "RT0023"),
        (503, {"retry-after": "0"}, "RT0023"),
        (502, {}, "RT0010"),
        (415, {}, "RT0015"),
        (413, {}, "RT0019"),
        (404, {}, "RT0012"),
        (200, {"content-type": "text/html"}, "unexpected content type 'text/html'"),
    ],
)
async def test_an_answer_that_is_none_is_retried(
    use_http_11: bool, status: int, headers: dict[str, str], said: str
) -> None:
    answers = 0

    async def answer(send: Any) -> bool:
        nonlocal answers
        answers += 1
        if answers > 1:
            return False
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"go away"})
        return True

    with serving_h2c(_misbehaving(answer)) as url:
        async with Engine(None) as engine:
            await engine.register_deployment(url, use_http_11=use_http_11)
            invocation_id = await send(engine, "Orders/quick", "a")
            assert await result(engine, invocation_id) == "a by v1"
            [event] = engine.journal_events(invocation_id)
            assert said in event["error_message"]


@HTTP_VERSIONS
@pytest.mark.parametrize("sent", [b"", b"\x00", b"\xff" * 64], ids=["nothing", "half a header", "no frame"])
async def test_a_stream_that_is_cut_or_garbled_is_retried(use_http_11: bool, sent: bytes) -> None:
    answers = 0

    async def answer(send: Any) -> bool:
        nonlocal answers
        answers += 1
        if answers > 1:
            return False
        headers = [(b"content-type", b"application/vnd.restate.invocation.v7")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": sent})
        return True

    with serving_h2c(_misbehaving(answer)) as url:
        async with Engine(None) as engine:
            await engine.register_deployment(url, use_http_11=use_http_11)
            assert await call(engine, "Orders/quick", "a") == "a by v1"
    assert answers == 2


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("text/html", b"<html>", "META0013"),
        ("application/vnd.restate.endpointmanifest.v4+json", b"nonsense", None),
    ],
)
async def test_a_discovery_answer_that_is_none(content_type: str, body: bytes, said: str | None) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", content_type.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    with serving_h2c(app) as url:
        async with Engine(None) as engine:
            with pytest.raises(DeploymentRefused, match="received a bad response from the SDK") as caught:
                await engine.register_deployment(url)
            assert caught.value.restate_code == said


# ---- TLS ---------------------------------------------------------------------------------------------------------------


async def test_over_tls(certificate: tuple[Path, Path, Path]) -> None:
    authority, *pair = certificate
    with serving_h2c(programs.app, tls=(pair[0], pair[1])) as url:
        async with Engine(None, endpoint_ca_file=str(authority)) as engine:
            deployment = (await engine.register_deployment(url)).deployment
            assert (deployment.uri, deployment.protocol_mode) == (f"{url}/", "BidiStream")
            assert await call(engine, "Orders/naps", "a") == "a"


async def test_a_certificate_of_an_unknown_authority_is_refused(certificate: tuple[Path, Path, Path]) -> None:
    with serving_h2c(programs.app, tls=certificate[1:]) as url:
        async with Engine(None) as engine:
            with pytest.raises(DeploymentRefused, match=r"(?i)certificate.verify.failed"):
                await engine.register_deployment(url)


# ---- request identity --------------------------------------------------------------------------------------------------


def test_public_key_text() -> None:
    import base64

    raw = base64.b64decode("j5BTvH+WJo0QGHm2hdLOuk6P7szKgTQxmpnnmZe/DcU=")
    assert public_key_text(raw) == "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"


@HTTP_VERSIONS
async def test_the_sdk_accepts_our_signature_and_nobody_elses(
    identity_key: Path, tmp_path: Path, use_http_11: bool
) -> None:
    async with Engine(None, identity_key_file=str(identity_key)) as engine:
        assert engine.identity_public_key is not None
        guarded = programs.application(identity_keys=[engine.identity_public_key])
        with serving_h2c(guarded) as url:
            await engine.register_deployment(f"{url}", use_http_11=use_http_11)
            assert await call(engine, "Orders/naps", "a") == "a"
            assert await call(engine, "Counter/k/add", 2) == 2
            async with Engine(None) as stranger:
                with pytest.raises(DeploymentRefused, match="401"):
                    await stranger.register_deployment(url, use_http_11=use_http_11)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read the identity key"),
        ("nonsense", "holds no unencrypted private key"),
        ("rsa", "a key of another kind than Ed25519"),
    ],
)
async def test_an_identity_key_that_is_none(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "key.pem"
    if content == "rsa":
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(65537, 2048)
        path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    elif content is not None:
        path.write_text(content)
    with pytest.raises(InvalidRequest, match=said) as caught:
        await Engine(programs.app, db=tmp_path / "a.db", identity_key_file=str(path)).start()
    assert "openssl genpkey" in caught.value.hint
    assert not (tmp_path / "a.db").exists()


# ---- another language --------------------------------------------------------------------------------------------------


async def test_services_in_typescript(typescript: Callable[..., Node]) -> None:
    python = restate.Service("Python")

    @python.handler()
    async def answer(ctx: restate.Context, name: str) -> str:
        return f"{name} from Python"

    node = typescript()
    async with Engine(restate.app([python])) as engine:
        deployment = (await engine.register_deployment(node.url)).deployment
        assert (deployment.sdk_version or "").startswith("restate-sdk-typescript/")
        assert await call(engine, "TsGreeter/greet", "Ada") == "Hello Ada, 3"
        assert await call(engine, "TsGreeter/relay", "Ada") == "via TypeScript: Ada from Python"
        refused = await complete(engine, "TsGreeter/refuse")
        assert refused.failure is not None
        assert (refused.failure.code, refused.failure.message) == (403, "not for you")
        await asyncio.gather(*(call(engine, f"TsCounter/{n % 3}/add", 1) for n in range(60)))
        assert [await call(engine, f"TsCounter/{key}/total") for key in range(3)] == [20, 20, 20]
        waiting = asyncio.create_task(call(engine, "TsGreeter/approved", "lamp"))
        awakeable_id = await asyncio.to_thread(node.line, "awakeable")
        await engine.resolve_awakeable(awakeable_id, json.dumps("yes").encode())
        assert await waiting == "lamp: yes"
        run = asyncio.create_task(call(engine, "TsSignup/ada/run"))
        await call(engine, "TsSignup/ada/click", "secret")
        assert await run == "clicked secret"


async def test_typescript_goes_on_after_both_sides_were_restarted(
    typescript: Callable[..., Node], tmp_path: Path
) -> None:
    first = typescript()
    async with Engine(None, db=tmp_path / "a.db") as engine:
        known = (await engine.register_deployment(first.url)).deployment
        invocation_id = await send(engine, "TsGreeter/approved", "lamp")
        awakeable_id = await asyncio.to_thread(first.line, "awakeable")
    first.process.kill()
    second = typescript()
    async with Engine(None, db=tmp_path / "a.db") as engine:
        await engine.update_deployment(known.id, uri=second.url)
        await engine.resolve_awakeable(awakeable_id, b'"late"')
        await engine.resume(invocation_id)
        assert await result(engine, invocation_id) == "lamp: late"
    second.process.kill()
    assert not any(line.startswith("awakeable") for line in second.rest())  # it was published once, by the first


async def test_an_endpoint_that_renews_its_connections_finishes_what_it_has(typescript: Callable[..., Node]) -> None:
    """As load balancers and graceful restarts do: it takes nothing new on the connection, and answers what it took."""
    node = typescript()
    async with Engine(None) as engine:
        await engine.register_deployment(node.url)
        invocation_id = await send(engine, "TsGreeter/approved", "lamp")
        awakeable_id = await asyncio.to_thread(node.line, "awakeable")
        node.process.send_signal(signal.SIGUSR2)
        await asyncio.to_thread(node.line, "renewed")
        assert await call(engine, "TsGreeter/greet", "Ada") == "Hello Ada, 3"
        await engine.resolve_awakeable(awakeable_id, b'"yes"')
        assert await result(engine, invocation_id) == "lamp: yes"
        assert engine.journal_events(invocation_id) == []


async def test_typescript_accepts_our_signature_and_nobody_elses(
    typescript: Callable[..., Node], identity_key: Path
) -> None:
    async with Engine(None, identity_key_file=str(identity_key)) as engine:
        assert engine.identity_public_key is not None
        node = typescript(key=engine.identity_public_key)
        await engine.register_deployment(node.url)
        assert await call(engine, "TsGreeter/greet", "Ada") == "Hello Ada, 3"
        async with Engine(None) as stranger:
            with pytest.raises(DeploymentRefused, match="401"):
                await stranger.register_deployment(node.url)
