"""What is rendered, judged by the tools and schemas of those who read it. None of them needs a network or a daemon."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from holdfast.deploy import DeploySettings, render
from tests.deploy import restate_deployment
from tests.deploy.support import PATIENCE_S
from tests.deploy.variants import VARIANTS

BIN = Path(sys.executable).parent
KUBERNETES_VERSIONS = ("1.30", "1.37")
"""autoscaling/v2 and appProtocol are older than both."""


def of(mechanism: str) -> list[str]:
    return [name for name, settings in VARIANTS.items() if settings.mechanism == mechanism]


def text_of(variant: str, name: str) -> str:
    settings = VARIANTS[variant]
    return next(file.text for file in render(settings) if file.path == f"{settings.out}/{name}")


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = BIN / tool
    line = [str(program if program.exists() else shutil.which(tool)), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def manifests(variant: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text_of(variant, "manifests.yaml")))


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("variant", of("kubernetes"))
def test_kubernetes_manifests_fit_the_schemas(variant: str, version: str) -> None:
    for document in manifests(variant):
        if document["apiVersion"].startswith("restate.dev/"):
            jsonschema.validate(document, restate_deployment.SCHEMA)
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
            document = pod | {"spec": document["spec"]["template"]["spec"]}  # noqa: PLW2901 - what the operator makes of it
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("variant", of("kubernetes"))
def test_kubernetes_references_lead_somewhere(variant: str) -> None:
    documents = manifests(variant)
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    assert len(names) == len(documents)
    [workload] = [document for document in documents if document["kind"] in ("Deployment", "RestateDeployment")]
    pod = workload["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in names
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    [container] = pod["spec"]["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    for volume in volumes.values():
        if claim := volume.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in names
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            assert spec["selector"].items() <= labels.items()
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        if document["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            assert (target["kind"], target["name"]) in names
            # Utilization is a share of what is requested.
            assert "cpu" in container["resources"]["requests"]
            # Otherwise every apply would undo what the autoscaler did.
            assert "replicas" not in workload["spec"]


@pytest.mark.parametrize("variant", of("kubernetes"))
def test_pods_pass_the_restricted_security_standard(variant: str) -> None:
    """Pod Security Standards, level restricted: what a locked-down namespace admits."""
    [workload] = [
        document for document in manifests(variant) if document["kind"] in ("Deployment", "RestateDeployment")
    ]
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert {*pod["volumes"][0]} <= {"name", "emptyDir"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["readOnlyRootFilesystem"] is True
        assert {"requests", "limits"} <= set(container["resources"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("variant", of("kubernetes"))
def test_kubectl_reads_the_manifests(variant: str, tmp_path: Path) -> None:
    (tmp_path / "manifests.yaml").write_text(text_of(variant, "manifests.yaml"))
    (tmp_path / "kustomization.yaml").write_text("resources: [manifests.yaml]\n")
    result = run("kubectl", "kustomize", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert by_name(yaml.safe_load_all(result.stdout)) == by_name(manifests(variant))


def by_name(documents: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


@pytest.mark.parametrize("variant", [*of("fargate"), *of("lambda")])
def test_cloudformation_templates_pass_cfn_lint(variant: str, tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(text_of(variant, "template.yaml"))
    result = run("cfn-lint", "--regions", "eu-central-1", "us-east-1", "--", str(path))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("variant", [*of("self-hosted"), *of("kubernetes"), *of("fargate"), *of("asgi")])
def test_dockerfiles_pass_hadolint(variant: str, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(text_of(variant, "Dockerfile"))
    result = run("hadolint", "--no-color", "--failure-threshold", "style", str(path))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("variant", of("self-hosted"))
def test_compose_files_fit_the_compose_specification(variant: str, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(text_of(variant, "compose.yaml"))
    result = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("variant", of("self-hosted"))
def test_compose_files_mean_what_they_say(variant: str) -> None:
    """What `docker compose config` looks at beyond the schema: interpolation, references, published ports."""
    settings = VARIANTS[variant]
    text = text_of(variant, "compose.yaml")
    names = re.findall(r"(?<!\$)(?:\$\$)*\$\{(\w+):\?[^}]*\}", text)
    assert sorted(names) == sorted(settings.secrets)
    assert not re.search(r"(?<!\$)(?:\$\$)*\$(?![\${])", text), "a lone dollar sign"
    document = yaml.safe_load(text)
    for service in document["services"].values():
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in document["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
    application = document["services"][settings.versioned_name]
    root = Path(settings.out, application["build"]["context"])
    assert Path("project", root).resolve() == Path("project").resolve()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("variant", of("self-hosted"))
def test_systemd_accepts_the_unit(variant: str, tmp_path: Path) -> None:
    name = VARIANTS[variant].name
    unit = tmp_path / f"{name}.service"
    # The one thing that is not here is the virtual environment that the unit's comments tell to make.
    unit.write_text(text_of(variant, unit.name).replace(f"/opt/{name}/venv/bin/python", sys.executable))
    verified = run("systemd-analyze", "verify", "--man=no", str(unit))
    assert (verified.returncode, verified.stderr.strip()) == (0, "")
    # 10 is a process that may do everything; systemd calls up to 2.5 "OK". The rest is the network, which it needs.
    exposure = run("systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit))
    assert exposure.returncode == 0, exposure.stdout


def test_platform_files_can_be_read() -> None:
    fly = tomllib.loads(text_of("asgi", "fly.toml"))
    assert fly["http_service"]["http_options"] == {"h2_backend": True}
    assert fly["http_service"]["checks"][0]["path"] == "/health"
    railway = json.loads(text_of("asgi", "railway.json"))
    assert "--port" not in railway["deploy"]["startCommand"]
    vercel = json.loads(text_of("asgi", "vercel/vercel.json"))
    assert vercel["functions"].keys() == {"api/index.py"}
    compile(text_of("asgi", "vercel/api/index.py"), "index.py", "exec")


BROKEN = {
    "a field that is not there": ("replicas:", "replica:"),
    "a number for a text": ("'9080'", "9080"),
    "a text for a number": ("containerPort: 9080", "containerPort: restate"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_schemas_would_notice(case: str) -> None:
    """A check that cannot fail is none."""
    old, new = BROKEN[case]
    text = text_of("kubernetes-single", "manifests.yaml")
    assert old in text
    documents = list(yaml.safe_load_all(text.replace(old, new)))
    [deployment] = [document for document in documents if document["kind"] == "Deployment"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES_VERSIONS[-1], strict=True)


@pytest.mark.parametrize("field", ["register", "template"])
def test_the_operators_schema_would_notice(field: str) -> None:
    [document] = [each for each in manifests("kubernetes-operator") if each["kind"] == "RestateDeployment"]
    broken = json.loads(json.dumps(document).replace(f'"{field}"', f'"{field}s"'))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, restate_deployment.SCHEMA)


def test_every_variant_is_checked() -> None:
    checked = {
        name for mechanism in ("kubernetes", "fargate", "lambda", "self-hosted", "asgi") for name in of(mechanism)
    }
    assert checked == set(VARIANTS)
    assert all(isinstance(settings, DeploySettings) for settings in VARIANTS.values())
