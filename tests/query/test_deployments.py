"""Several deployments, revisions of services and invocations bound to them, beside a Restate server's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import restate

from tests.query.conftest import served
from tests.query.history import Asked, Rows, asked
from tests.support.restate_server import running_server, serving_h2c, skip_without_server

pytestmark = pytest.mark.restate_server


def _application(*names: str) -> Any:
    services = [restate.Service(name) for name in names]
    for service in services:

        @service.handler("echo")
        async def echo(ctx: restate.Context, value: str) -> str:
            return value

    return restate.app(services)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Asked, Asked]]:
    skip_without_server()
    with (
        serving_h2c(_application("One", "Two")) as old,
        serving_h2c(_application("Two", "Three")) as new,
        served(tmp_path_factory.mktemp("deployments") / "engine.db") as ours,
        running_server() as server,
        asked(server.ingress_url, server.admin_url) as theirs,
    ):
        for side in (ours, theirs):
            for url in (old, new):
                if url == new:
                    side.call("on the old", "Two/echo", "old")
                answer = side.http.post(f"{side.admin_url}/v3/deployments", json={"uri": url})
                assert answer.status_code == 201, answer.text
            side.call("on the new", "Two/echo", "new")
        yield ours, theirs


REGISTERED = "endpoint NOT LIKE 'inprocess:%'"
STATEMENTS = {
    "services": f"""
        SELECT s.name, s.revision, s.public, s.ty, d.endpoint FROM sys_service s
        JOIN sys_deployment d ON d.id = s.deployment_id WHERE {REGISTERED} ORDER BY s.name
    """,
    "deployments": f"""
        SELECT ty, endpoint, min_service_protocol_version, max_service_protocol_version, array_sort(services) AS services
        FROM sys_deployment WHERE {REGISTERED} ORDER BY created_at
    """,
    "where invocations ran": f"""
        SELECT i.target, d.endpoint, i.status FROM sys_invocation i JOIN sys_deployment d ON d.id = i.pinned_deployment_id
        WHERE {REGISTERED} ORDER BY i.created_at
    """,
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_same_of_several_deployments(both: tuple[Asked, Asked], name: str) -> None:
    ours, theirs = [side.rows(STATEMENTS[name]) for side in both]
    assert ours == theirs
    assert len(ours) == {"services": 3, "deployments": 2, "where invocations ran": 2}[name]


def test_a_deployment_that_serves_nothing_new_stays_visible(both: tuple[Asked, Asked]) -> None:
    ours, theirs = [_idle(side) for side in both]
    assert ours == theirs == [{"endpoint_count": 2}]


def _idle(side: Asked) -> Rows:
    return side.rows(f"SELECT count(DISTINCT endpoint) AS endpoint_count FROM sys_deployment WHERE {REGISTERED}")
