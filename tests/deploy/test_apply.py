"""`holdfast deploy apply` where other programs do the work: the real kubectl against an API server of this machine, a stand-in
for the one program that needs a daemon, docker; and what is said where nothing can be done."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.kubernetes_api import Cluster, running_api
from tests.deploy.support import PATIENCE_S, cli, done, greet, json_of
from tests.deploy.test_register import answering
from tests.deploy.variants import IMAGE
from tests.support.restate_server import running_server, serving_h2c, skip_without_server

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

REGISTERED = b'{"id": "dp_1", "services": [{"name": "Greeter"}]}'


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with running_api(tmp_path) as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
        monkeypatch.setenv("HOME", str(tmp_path))  # kubectl keeps what it has discovered there
        yield running


def kubernetes(*more: str, command: str = "apply") -> list[str]:
    return ["deploy", command, "--mechanism", "kubernetes", "greeter:app", "--image", IMAGE, *more]


@needs_kubectl
def test_manifests_are_applied_rolled_out_and_registered(cluster: Cluster, project: Path) -> None:
    seen: list[Any] = []
    with answering(201, REGISTERED, seen=seen) as admin_url:
        told = json_of(*kubernetes("--admin-url", admin_url))
    assert told["deployment"]["id"] == "dp_1"
    [deployment] = cluster.of("Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
    assert len(cluster.objects) == 5
    [(_, _, body)] = seen
    assert b'"uri":"http://greeter-1-0-0.default.svc.cluster.local:9080"' in body


@needs_kubectl
@pytest.mark.restate_server
def test_a_real_server_calls_it_by_cluster_dns(cluster: Cluster, project: Path) -> None:
    """The server sends what is for the cluster's names to the one pod there is; it does the same with a proxy."""
    skip_without_server()
    with serving_h2c("greeter:app") as pod, running_server(env={"RESTATE_WORKER__INVOKER__HTTP_PROXY": pod}) as restate:
        told = json_of(*kubernetes("--admin-url", restate.admin_url))
        uri = httpx.get(f"{restate.admin_url}/deployments/{told['deployment']['id']}").json()["uri"]
        assert uri == "http://greeter-1-0-0.default.svc.cluster.local:9080/"
        assert greet(restate.ingress_url) == "Hello Ada!"


@needs_kubectl
def test_applied_again_nothing_is_changed(cluster: Cluster, project: Path) -> None:
    done(*kubernetes("--no-register"))
    first = copy.deepcopy(cluster.objects)
    done(*kubernetes("--no-register"))
    assert cluster.objects == first
    assert [method for method, _ in cluster.asked].count("POST") == len(first)


@needs_kubectl
def test_with_the_operator_it_registers(cluster: Cluster, project: Path) -> None:
    result = cli(*kubernetes("--operator", "restate"))
    assert result.exit_code == 0, result.stderr
    [resource] = cluster.of("RestateDeployment")
    assert resource["spec"]["restate"] == {"register": {"cluster": "restate"}}
    assert "the operator registers it" in result.stderr


@needs_kubectl
def test_what_render_prints_is_what_kubectl_takes(cluster: Cluster, project: Path) -> None:
    """As it is typed: render … | kubectl apply --dry-run=client --filename -"""
    manifests = done(*kubernetes(command="render"))
    line = ["kubectl", "apply", "--dry-run=client", "--filename", "-"]
    result = subprocess.run(line, input=manifests, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode == 0, result.stderr
    names = [f"{document['kind'].lower()}" for document in yaml.safe_load_all(manifests)]
    assert [told.partition("/")[0].partition(".")[0] for told in result.stdout.splitlines()] == names
    assert cluster.objects == {}


@needs_kubectl
def test_a_cluster_that_is_not_there_is_told_in_kubectls_words(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    result = cli(*kubernetes())
    assert result.exit_code == 1
    assert "error HF0511: kubectl apply --filename deploy/kubernetes/manifests.yaml ended with 1" in result.stderr


def test_without_kubectl_the_files_are_there_and_one_line_says_what_is_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project))
    result = cli(*kubernetes())
    assert result.exit_code == 1
    assert (project / "deploy/kubernetes/manifests.yaml").is_file()
    assert result.stderr.splitlines()[-2:] == [
        "error HF0510: kubectl is not installed",
        "  next: install it, or run elsewhere: kubectl apply --filename deploy/kubernetes/manifests.yaml",
    ]


def self_hosted(*more: str) -> list[str]:
    return ["deploy", "apply", "--mechanism", "self-hosted", "greeter:app", *more]


def test_without_docker_the_files_are_written_and_the_next_commands_told(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project))
    result = cli(*self_hosted())
    assert result.exit_code == 0
    assert sorted(path.name for path in (project / "deploy/self-hosted").iterdir()) == [
        "Dockerfile",
        "Dockerfile.dockerignore",
        "compose.yaml",
        "endpoint-requirements.txt",
        "endpoint.py",
        "greeter.service",
    ]
    assert result.stderr.splitlines()[-4:] == [
        "there is no docker compose here",
        "next:",
        "  docker compose --file deploy/self-hosted/compose.yaml up --detach --build --wait",
        "  holdfast deploy register --mechanism self-hosted greeter:app",
    ]


def test_with_docker_it_is_built_started_and_registered(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(project, monkeypatch)
    seen: list[Any] = []
    with answering(201, REGISTERED, seen=seen) as admin_url:
        told = json_of(*self_hosted("--admin-url", admin_url))
    assert told["address"]["uri"] == "http://greeter-1:9080"
    assert (project / "asked").read_text().splitlines()[-1] == (
        "compose --file deploy/self-hosted/compose.yaml up --detach --build --wait"
    )
    assert b'"uri":"http://greeter-1:9080"' in seen[0][2]


def test_what_docker_says_when_it_fails_is_not_hidden(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(project, monkeypatch, fails_at="up")
    result = cli(*self_hosted())
    assert result.exit_code == 1
    assert "ended with 3" in result.stderr


def docker(project: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str = "nothing") -> None:
    """The program without its daemon: it writes down what it is asked for."""
    program = project / "docker"
    program.write_text(f'#!/bin/sh\necho "$@" >> {project}/asked\ncase "$*" in *" {fails_at} "*) exit 3;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{project}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_a_platform_of_its_own_is_left_to_its_own_tool(project: Path) -> None:
    result = cli("deploy", "apply", "--mechanism", "asgi", "--platform", "fly", "greeter:app", "--secret", "API_KEY")
    assert result.exit_code == 0
    assert (project / "deploy/asgi/fly.toml").is_file()
    assert result.stderr.splitlines()[-4:] == [
        "next:",
        "  fly secrets set API_KEY=…",
        "  fly deploy --config deploy/asgi/fly.toml --dockerfile deploy/asgi/Dockerfile",
        "  holdfast deploy register --mechanism asgi greeter:app --uri https://greeter.fly.dev",
    ]
    assert "anybody can run the handlers" in result.stderr


DRY_RUNS = {
    "local": ([], ["serve greeter:app on http://127.0.0.1:9080", "register it with http://127.0.0.1:9070"]),
    "self-hosted": (
        [],
        [
            "run docker compose --file deploy/self-hosted/compose.yaml up --detach --build --wait",
            "register it with http://127.0.0.1:9070",
        ],
    ),
    "kubernetes": (
        ["--image", IMAGE],
        [
            "run kubectl apply --filename deploy/kubernetes/manifests.yaml",
            "run kubectl rollout status deployment/greeter-1-0-0 --namespace default --timeout 5m",
            "register it with http://127.0.0.1:9070",
        ],
    ),
    "fargate": (
        ["--image", IMAGE, "--no-register"],
        ["write deploy/fargate/endpoint-requirements.txt", "create or update the CloudFormation stack greeter-1-0-0"],
    ),
    "lambda": (
        ["--bucket", "b"],
        [
            "build a package of greeter.py",
            "upload it to s3://b/greeter/<digest>.zip",
            "create or update the CloudFormation stack greeter",
            "register it with http://127.0.0.1:9070",
        ],
    ),
    "asgi": (
        ["--platform", "vercel"],
        ["write deploy/asgi/vercel/vercel.json", "write deploy/asgi/vercel/api/index.py"],
    ),
}


@pytest.mark.parametrize("mechanism", DRY_RUNS)
def test_a_dry_run_says_what_would_be_done_and_does_nothing(mechanism: str, project: Path) -> None:
    more, steps = DRY_RUNS[mechanism]
    told = done("deploy", "apply", "--mechanism", mechanism, "greeter:app", "--dry-run", *more).splitlines()
    assert told[-len(steps) :] == steps
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == ["greeter.py"]


def test_render_writes_what_is_new_and_leaves_the_rest(project: Path) -> None:
    line = ["deploy", "render", "--mechanism", "self-hosted", "greeter:app", "--out", "infra"]
    first, second = json_of(*line), json_of(*line)
    assert {file["is_changed"] for file in first["files"]} == {True}
    assert {file["is_changed"] for file in second["files"]} == {False}
    assert (project / "infra/Dockerfile").read_text().count("COPY infra/endpoint.py") == 1


REFUSED = {
    "no such module": (["nowhere:app"], 2, "no module 'nowhere'"),
    "no application in it": (["greeter:greet"], 2, "is no application"),
    "no such mechanism": (["greeter:app", "--mechanism", "nomad"], 2, "'local', 'self-hosted', 'kubernetes'"),
    "outside of the project": (["greeter:app", "--out", "../elsewhere"], 2, "--out ../elsewhere is outside"),
    "requirements that are not there": (["greeter:app", "--requirements", "r.txt"], 2, "no such file"),
    "a variable without a value": (["greeter:app", "--env", "LEVEL"], 2, "--env LEVEL: not NAME=VALUE"),
    "keys that the application ignores": (
        ["greeter:app", "--identity-key", "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"],
        2,
        "greeter:app answers anybody, whatever --identity-key says",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_one_line_and_nothing_is_written(case: str, project: Path) -> None:
    arguments, code, told = REFUSED[case]
    line = ["deploy", "render", "--mechanism", "self-hosted", "--out", "deploy", *arguments]
    result = cli(*line)
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert not (project / "deploy").exists()


def test_services_are_bound_with_the_identity_keys(project: Path) -> None:
    key = "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"
    line = ["deploy", "render", "--mechanism", "kubernetes", "greeter:greeter", "--image", IMAGE, "--identity-key", key]
    [deployment] = [each for each in yaml.safe_load_all(done(*line)) if each["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "RESTATE_IDENTITY_KEYS", "value": key}]


def test_the_mechanism_of_the_configuration_is_the_default(project: Path) -> None:
    (project / "holdfast.toml").write_text('[workflow.restate]\nexecution_mechanism = "lambda"\n')
    assert "AWS::Lambda::Function" in done("deploy", "render", "greeter:app")
