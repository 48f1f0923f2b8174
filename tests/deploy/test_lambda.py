"""AWS Lambda from end to end: the command builds, uploads and applies against moto, and a real Restate server invokes what
it built, package and all, through a Lambda Invoke API of this machine."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy import aws
from tests.deploy.aws import LambdaService
from tests.deploy.support import PATIENCE_S, cli, greet, json_of, rendered, wheels
from tests.deploy.variants import INVOKER
from tests.support.restate_server import RunningRestate, running_server, skip_without_server

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BUCKET = "packages"

pytestmark = [
    pytest.mark.restate_server,
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64", reason="packages for Lambda run on Linux, x86_64"
    ),
]

APPLICATION = '''
import os

import restate

shop = restate.Service("Shop")


@shop.handler()
async def order(ctx: restate.Context, item: str) -> str:
    """Waits for the outside between two steps; each tells which code it ran on."""
    before = await ctx.run_typed("before", lambda: "VERSION")
    token, paid = ctx.awakeable(type_hint=str)
    await ctx.run_typed("told", lambda: print(token))
    payment = await paid
    after = await ctx.run_typed("after", lambda: "VERSION")
    return f"{item} {before} {payment} {after} {os.environ['LEVEL']}"


@shop.handler()
async def large(ctx: restate.Context, text: str) -> str:
    kept = await ctx.run_typed("keep", lambda: text[::-1])
    await ctx.run_typed("something else", lambda: len(kept))
    return kept


@shop.handler()
async def fragile(ctx: restate.Context, marker: str) -> str:
    """Its process dies in the second step, the first time."""
    first = await ctx.run_typed("first", lambda: os.getpid())

    def dies() -> int:
        if not os.path.exists(marker):
            open(marker, "w").close()
            os._exit(3)
        return os.getpid()

    second = await ctx.run_typed("second", dies)
    return "another process" if first != second else "the same process"


app = restate.app([shop])
'''


@dataclass
class Cloud:
    """All that an application on Lambda needs around it."""

    moto_url: str
    functions: LambdaService
    restate: RunningRestate

    def variables(self) -> dict[str, str]:
        return aws.variables(self.moto_url, self.functions.url)

    def apply(self, *more: str) -> dict[str, Any]:
        line = ["deploy", "apply", "--mechanism", "lambda", "shop:app", "--bucket", BUCKET, "--python", PYTHON]
        return json_of(*line, "--env", "LEVEL=info", "--admin-url", self.restate.admin_url, *more, env=self.variables())


@pytest.fixture(scope="module")
def wheel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels(tmp_path_factory.mktemp("wheels"), "restate-sdk", *(["backports.zstd"] if PYTHON < "3.14" else []))


@pytest.fixture
def offline_pip(wheel_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip as it is, with these wheels for a registry."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel_folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    skip_without_server()
    folder = tmp_path_factory.mktemp("aws")
    with aws.running_moto(folder) as moto_url, aws.running_lambda(moto_url, folder) as functions:
        aws.client("s3", moto_url).create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.REGION}
        )
        with running_server(env=aws.variables(moto_url, functions.url)) as restate:
            yield Cloud(moto_url, functions, restate)


@pytest.fixture
def shop(project: Path, cloud: Cloud, offline_pip: None) -> Iterator[Path]:
    """The project on disk; its stack is gone at the end."""
    (project / "shop.py").write_text(APPLICATION.replace("VERSION", "v1"))
    yield project
    aws.client("cloudformation", cloud.moto_url).delete_stack(StackName="shop")


def order(cloud: Cloud, item: str) -> tuple[str, str]:
    """(invocation id, awakeable id) of an order that waits for its payment."""
    sent = httpx.post(f"{cloud.restate.ingress_url}/Shop/order/send", json=item, timeout=PATIENCE_S)
    invocation_id = sent.json()["invocationId"]
    query = f"SELECT id, pinned_deployment_id FROM sys_invocation WHERE id = '{invocation_id}' AND status = 'suspended'"
    while not rows(cloud, query):
        pass
    [entry] = rows(
        cloud,
        "SELECT entry_lite_json FROM sys_journal WHERE entry_type = 'Command: Run' AND name = 'told' "
        f"AND id = '{invocation_id}'",
    ) or [{}]
    assert entry
    return invocation_id, awakeable_of(invocation_id)


def rows(cloud: Cloud, query: str) -> list[dict[str, Any]]:
    url = f"{cloud.restate.admin_url}/query"
    answer = httpx.post(url, json={"query": query}, headers={"accept": "application/json"}, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def awakeable_of(invocation_id: str) -> str:
    raise NotImplementedError(invocation_id)


def test_it_is_built_applied_registered_and_called(cloud: Cloud, shop: Path) -> None:
    (shop / "greeter.py").rename(shop / "shop.py")
    told = json_of(
        "deploy",
        "apply",
        "--mechanism",
        "lambda",
        "shop:app",
        "--bucket",
        BUCKET,
        "--python",
        PYTHON,
        "--invoker",
        INVOKER,
        "--admin-url",
        cloud.restate.admin_url,
        env=cloud.variables(),
    )
    arn = told["address"]["arn"]
    assert arn == f"arn:aws:lambda:{aws.REGION}:{aws.ACCOUNT}:function:shop:1"
    assert told["address"]["assume_role_arn"].startswith(f"arn:aws:iam::{aws.ACCOUNT}:role/")
    deployment = httpx.get(f"{cloud.restate.admin_url}/deployments/{told['deployment']['id']}").json()
    assert deployment["arn"] == arn
    assert deployment["assume_role_arn"] == told["address"]["assume_role_arn"]
    assert greet(cloud.restate.ingress_url) == "Hello Ada!"
    made = [invocation for invocation in cloud.functions.invocations if invocation.arn == arn]
    assert [invocation.event["path"] for invocation in made][:2] == ["/discover", "/invoke/Greeter/greet"]
    # Credentials of the role, not of the server.
    assert aws.ACCESS_KEY not in {invocation.access_key for invocation in made}
