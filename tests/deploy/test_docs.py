"""docs/deploy.md is executed, top to bottom, as one session: against the real Restate server, moto, kubectl and the API
server of the tests. What needs an account or a daemon (docker, fly, railway, vercel) must be what the command tells to type.

After a command stand the lines that it prints: each must occur, in this order; `…` is anything in a line, `...` any lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.deploy.steps import next_steps
from tests.deploy import aws
from tests.deploy.kubernetes_api import running_api
from tests.deploy.support import PATIENCE_S, REPOSITORY, cli, environment, json_of, settings, wheels
from tests.support.restate_server import RunningRestate, free_ports, running_server, server_binary, serving_h2c

PAGE = REPOSITORY / "docs" / "deploy.md"
BLOCK = re.compile(r"^```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
OTHERS = ("docker", "fly", "railway", "vercel", "cp")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = [
    pytest.mark.restate_server,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="packages for Lambda run on Linux"),
]


def commands() -> list[tuple[str, list[str]]]:
    """(command, what it prints) of the page."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.finditer(PAGE.read_text()):
        for line in block["body"].splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


class Session:
    """A shell in the project's folder in which the page's addresses and identifiers lead to the tests' servers."""

    def __init__(self, project: Path, stack: ExitStack, variables: dict[str, str]) -> None:
        self._project = project
        self._stack = stack
        self.variables = variables
        self.replaced: dict[str, str] = {}
        self._ports = free_ports(3)
        ingress, admin, endpoint = self._ports
        self.replaced["localhost:8080"] = f"127.0.0.1:{ingress}"
        self._more = {
            "holdfast restate up": f" --ingress-port {ingress} --admin-port {admin}",
            "holdfast deploy apply greeter:app": f" --port {endpoint} --admin-url http://127.0.0.1:{admin}",
            "holdfast deploy apply --mechanism lambda": f" --python {PYTHON}",
        }
        self._endpoint = endpoint

    def run(self, command: str, expected: list[str]) -> None:
        is_background = command.endswith(" &")
        line = command.removesuffix(" &")
        for begin, more in self._more.items():
            line += more if line.startswith(begin) else ""
        for old, new in self.replaced.items():
            line = line.replace(old, new)
        expected = [text.replace(":9080", f":{self._endpoint}") if is_background else text for text in expected]
        log_path = self._project / "printed.log"
        with log_path.open("w") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"set -o pipefail; {line}"],
                cwd=self._project,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.PIPE if not is_background else subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            if is_background:
                self._stack.callback(process.wait)
                self._stack.callback(os.killpg, process.pid, 15)
                deadline = time.monotonic() + PATIENCE_S
                while not is_printed(log_path.read_text(), expected):
                    assert process.poll() is None, f"{command}\n{log_path.read_text()}"
                    assert time.monotonic() < deadline
                    time.sleep(0.05)  # between two looks
                return
            _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, f"{command}\n{errors}"
        assert is_printed(log_path.read_text(), expected), f"{command}\n{log_path.read_text()}"


def is_printed(text: str, expected: list[str]) -> bool:
    parts = [
        ".*" if line == "..." else re.escape(line).replace("…", ".*").replace(r"\.\.\.", ".*") for line in expected
    ]
    return re.search("\n?".join(parts), text, re.DOTALL) is not None


@pytest.fixture
def session(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    with ExitStack() as stack:
        moto_url = stack.enter_context(aws.running_moto(tmp_path))
        functions = stack.enter_context(aws.running_lambda(moto_url, tmp_path))
        cluster = stack.enter_context(running_api(tmp_path))
        pod = stack.enter_context(serving_h2c("greeter:app"))
        proxied = {"RESTATE_WORKER__INVOKER__HTTP_PROXY": pod}
        server: RunningRestate = stack.enter_context(
            running_server(env=aws.variables(moto_url, functions.url) | proxied)
        )
        packages = wheels(tmp_path / "wheels", "restate-sdk", *(["backports.zstd"] if PYTHON < "3.14" else []))
        variables = environment(
            {
                **aws.variables(moto_url),
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "RESTATE_SERVER_BIN": str(server_binary()),
                "HOLDFAST_ADMIN_URL": server.admin_url,
                "KUBECONFIG": str(cluster.kubeconfig),
                "HOME": str(tmp_path),
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(packages),
                "PIP_CONFIG_FILE": os.devnull,
            }
        )
        running = Session(project, stack, variables)
        running.replaced |= network(moto_url)
        yield running
        cli("restate", "down")


def network(moto_url: str) -> dict[str, str]:
    """The page's identifiers -> those that moto has given out."""
    aws.client("s3", moto_url).create_bucket(
        Bucket="my-packages", CreateBucketConfiguration={"LocationConstraint": aws.REGION}
    )
    ec2 = aws.client("ec2", moto_url)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{aws.REGION}{zone}")["Subnet"]
        for number, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName="restate", Description="the Restate server", VpcId=vpc)["GroupId"]
    found = {"=vpc-1": f"={vpc}", "=sg-1": f"={group}"}
    return found | {"=subnet-1,subnet-2": f"={subnets[0]['SubnetId']},{subnets[1]['SubnetId']}"}


@pytest.mark.slow
def test_every_command_of_the_page(session: Session) -> None:
    told = {step for mechanism in ("self-hosted", "kubernetes", "asgi") for step in next_steps(settings(mechanism))}
    for command, expected in commands():
        if command.startswith(OTHERS):
            assert command in told, f"{command}: no command of holdfast tells to type that"
        else:
            session.run(command, expected)


def test_the_page_has_every_mechanism_and_every_option() -> None:
    from holdfast.cli.deploy import apply, register, render
    from holdfast.deploy import MECHANISMS

    text = PAGE.read_text()
    assert [name for name in MECHANISMS if f"`{name}`" not in text] == []
    options = {option for command in (render, apply, register) for each in command.params for option in each.opts}
    assert [option for option in sorted(options) if not re.search(rf"{option}(?![a-z-])", text)] == []


def test_the_python_of_the_page_checks_who_calls(project: Path) -> None:
    [block] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (project / "signed.py").write_text(block)
    key = "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"
    line = ["deploy", "render", "--mechanism", "kubernetes", "signed:app", "--identity-key", key]
    assert json_of(*line)["files"]
