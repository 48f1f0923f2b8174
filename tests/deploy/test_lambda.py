"""AWS Lambda from end to end: the command builds, uploads and applies against moto, and a real Restate server invokes what
it built, package and all, through a Lambda Invoke API of this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.deploy import Source
from tests.deploy import aws
from tests.deploy.aws import LambdaService
from tests.deploy.support import PATIENCE_S, cli, environment, greet, json_of, rendered, wheels
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

orders = restate.Workflow("Orders")
shop = restate.Service("Shop")


@orders.main()
async def run(ctx: restate.WorkflowContext, item: str) -> str:
    """Waits for the outside between two steps; each tells which code it ran on."""
    before = await ctx.run_typed("before", lambda: "VERSION")
    payment = await ctx.promise("payment", type_hint=str).value()
    after = await ctx.run_typed("after", lambda: "VERSION")
    return f"{item} {before} {payment} {after} {os.environ['LEVEL']}"


@orders.handler()
async def pay(ctx: restate.WorkflowSharedContext, payment: str) -> None:
    await ctx.promise("payment", type_hint=str).resolve(payment)


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


app = restate.app([orders, shop])
'''


@dataclass
class Cloud:
    """All that an application on Lambda needs around it."""

    moto_url: str
    functions: LambdaService
    restate: RunningRestate

    def variables(self) -> dict[str, str]:
        return aws.variables(self.moto_url, self.functions.url)

    def apply(self, name: str, *more: str, reference: str = "shop:app") -> dict[str, Any]:
        line = ["deploy", "apply", "--mechanism", "lambda", reference, "--name", name, "--bucket", BUCKET]
        line += ["--python", PYTHON, "--env", "LEVEL=info", "--admin-url", self.restate.admin_url]
        return json_of(*line, *more, env=self.variables())


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
def shop(project: Path, offline_pip: None) -> Path:
    """The project on disk."""
    (project / "shop.py").write_text(APPLICATION.replace("VERSION", "v1"))
    return project


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of a function that no other test has: Restate keeps what it once registered under an ARN."""
    return "shop-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:8]


def rows(cloud: Cloud, query: str) -> list[dict[str, Any]]:
    url = f"{cloud.restate.admin_url}/query"
    answer = httpx.post(url, json={"query": query}, headers={"accept": "application/json"}, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def start_order(cloud: Cloud, item: str) -> None:
    """An order that has done its first step and waits for its payment."""
    httpx.post(f"{cloud.restate.ingress_url}/Orders/{item}/run/send", json=item, timeout=PATIENCE_S).raise_for_status()
    deadline = time.monotonic() + PATIENCE_S
    while not rows(
        cloud, f"SELECT id FROM sys_invocation WHERE target_service_key = '{item}' AND status = 'suspended'"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between two looks


def paid(cloud: Cloud, item: str) -> str:
    """Pay the order; what it answers."""
    http = httpx.Client(base_url=cloud.restate.ingress_url, timeout=PATIENCE_S)
    with http:
        http.post(f"/Orders/{item}/pay", json="paid").raise_for_status()
        return http.get(f"/restate/workflow/Orders/{item}/attach").json()


def test_it_is_built_applied_registered_and_called(cloud: Cloud, shop: Path, name: str) -> None:
    told = cloud.apply(name, "--invoker", INVOKER, reference="greeter:app")
    arn = told["address"]["arn"]
    assert arn == f"arn:aws:lambda:{aws.REGION}:{aws.ACCOUNT}:function:{name}:1"
    role = told["address"]["assume_role_arn"]
    assert role.startswith(f"arn:aws:iam::{aws.ACCOUNT}:role/")
    deployment = httpx.get(f"{cloud.restate.admin_url}/deployments/{told['deployment']['id']}").json()
    assert (deployment["arn"], deployment["assume_role_arn"]) == (arn, role)
    assert greet(cloud.restate.ingress_url) == "Hello Ada!"
    made = [invocation for invocation in cloud.functions.invocations if invocation.arn == arn]
    assert [invocation.event["path"] for invocation in made][:2] == ["/discover", "/invoke/Greeter/greet"]
    # Credentials of the role, not the server's own.
    assert aws.ACCESS_KEY not in {invocation.access_key for invocation in made}


@pytest.mark.slow
def test_what_is_applied_again_stays_as_it_is(cloud: Cloud, shop: Path, name: str) -> None:
    first = cloud.apply(name)
    again = cloud.apply(name)
    assert again["address"] == first["address"]
    assert again["deployment"]["id"] == first["deployment"]["id"]
    assert versions(cloud, name) == ["$LATEST", "1"]


def versions(cloud: Cloud, name: str) -> list[str]:
    found = aws.client("lambda", cloud.moto_url).list_versions_by_function(FunctionName=name)
    return [version["Version"] for version in found["Versions"]]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["code", "environment"])
def test_a_change_is_a_new_version_and_what_runs_ends_on_the_old_one(
    cloud: Cloud, shop: Path, name: str, change: str
) -> None:
    first = cloud.apply(name)
    start_order(cloud, f"book-{change}")
    more: list[str] = []
    if change == "code":
        (shop / "shop.py").write_text(APPLICATION.replace("VERSION", "v2"))
    else:
        more = ["--env", "LEVEL=debug"]
    second = cloud.apply(name, *more)
    assert versions(cloud, name) == ["$LATEST", "1", "2"]
    assert second["deployment"]["id"] != first["deployment"]["id"]
    start_order(cloud, f"pen-{change}")
    assert paid(cloud, f"book-{change}") == f"book-{change} v1 paid v1 info"
    new = ("v2", "info") if change == "code" else ("v1", "debug")
    assert paid(cloud, f"pen-{change}") == f"pen-{change} {new[0]} paid {new[0]} {new[1]}"


def test_a_function_whose_process_dies_goes_on_in_another(cloud: Cloud, shop: Path, name: str, tmp_path: Path) -> None:
    cloud.apply(name)
    marker = str(tmp_path / "marker")
    answer = httpx.post(f"{cloud.restate.ingress_url}/Shop/fragile", json=marker, timeout=PATIENCE_S)
    assert answer.json() == "another process"
    assert [invocation.error for invocation in cloud.functions.invocations if invocation.error][-1].endswith("with 3")


def test_payloads_beyond_lambdas_limit_are_compressed(cloud: Cloud, shop: Path, name: str) -> None:
    """Lambda takes and gives 6 MB. Five million characters, twice in the journal, in base64, would not go through."""
    cloud.apply(name)
    before = len(cloud.functions.invocations)
    text = "0123456789" * 500_000
    answer = httpx.post(f"{cloud.restate.ingress_url}/Shop/large", json=text, timeout=PATIENCE_S)
    assert answer.json() == text[::-1]
    made = cloud.functions.invocations[before:]
    assert any(invocation.event["headers"].get("content-encoding") == "zstd" for invocation in made)
    assert all(len(invocation.event["body"]) < 6_000_000 for invocation in made if invocation.event.get("body"))


def test_services_without_an_app_are_a_function_too(cloud: Cloud, shop: Path, name: str) -> None:
    told = cloud.apply(name, reference="shop:shop")
    assert [service["name"] for service in told["deployment"]["services"]] == ["Shop"]


def test_register_finds_the_function_of_the_stack(cloud: Cloud, shop: Path, name: str) -> None:
    applied = cloud.apply(name, "--no-register")
    line = ["deploy", "register", "--mechanism", "lambda", "shop:app", "--name", name]
    registered = json_of(*line, "--admin-url", cloud.restate.admin_url, env=cloud.variables())
    known = httpx.get(f"{cloud.restate.admin_url}/deployments/{registered['id']}").json()
    assert known["arn"] == applied["address"]["arn"]


def test_a_bucket_that_is_not_there(cloud: Cloud, shop: Path) -> None:
    line = ["deploy", "apply", "--mechanism", "lambda", "shop:app", "--bucket", "nowhere", "--python", PYTHON]
    result = cli(*line, env=cloud.variables())
    assert result.exit_code == 1
    assert "error HF0511: s3://nowhere: 404" in result.stderr


def test_packages_that_cannot_be_had_are_named(cloud: Cloud, shop: Path) -> None:
    result = cli(
        *["deploy", "apply", "--mechanism", "lambda", "shop:app", "--bucket", BUCKET, "--python", PYTHON],
        *["--package", "no-such-package"],
        env=cloud.variables(),
    )
    assert result.exit_code == 1
    assert "no-such-package" in result.stderr
    assert "must come as a wheel for Linux" in result.stderr


def test_the_package_is_the_same_whenever_it_is_built(shop: Path, offline_pip: None, tmp_path: Path) -> None:
    from holdfast.deploy.bundle import build
    from tests.deploy.support import settings

    deployed = settings("lambda", reference="shop:app", sources=(Source("shop.py", "shop.py"),), python=PYTHON)
    first, second = (build(deployed, shop, tmp_path / name) for name in ("1.zip", "2.zip"))
    assert first.digest == second.digest
    names = zipfile.ZipFile(first.path).namelist()
    assert {"shop.py", "lambda_handler.py", "restate/__init__.py"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("bin/")]


def test_the_handler_file_answers_a_recorded_event(project: Path) -> None:
    """What the Restate server sent to the Invoke API, and the SDK's answer in the form that Lambda passes on."""
    (project / "lambda_handler.py").write_text(rendered("lambda")["lambda_handler.py"])
    event = json.loads(Path(__file__).with_name("lambda_event.json").read_text())
    program = "import json, sys, lambda_handler; print(json.dumps(lambda_handler.handler(json.load(sys.stdin), None)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(event),
        capture_output=True,
        text=True,
        cwd=project,
        env=environment({"AWS_LAMBDA_FUNCTION_NAME": "greeter"}),
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, True)
    manifest = json.loads(base64.b64decode(answer["body"]))
    assert manifest["protocolMode"] == "REQUEST_RESPONSE"
    assert [service["name"] for service in manifest["services"]] == ["Greeter"]


def test_an_http_application_is_no_function(project: Path) -> None:
    (project / "web.py").write_text("from starlette.applications import Starlette\n\napp = Starlette()\n")
    (project / "lambda_handler.py").write_text(rendered("lambda", reference="web:app")["lambda_handler.py"])
    done = subprocess.run(
        [sys.executable, "-c", "import lambda_handler"],
        capture_output=True,
        text=True,
        cwd=project,
        env=environment({"AWS_LAMBDA_FUNCTION_NAME": "web"}),
        timeout=PATIENCE_S,
        check=False,
    )
    assert "on Lambda web:app must be what restate.app([...]) returns" in done.stderr
