"""Kubernetes: plain manifests, or the RestateDeployment resource of the Restate operator (restate.dev/v1beta1).

Plain manifests have the revision in every name. Restate finishes an invocation on the code that began it, so a new
version gets a new Service and a new address, and the old one stays until nothing runs there. The operator does the same by
itself, and registers too.
"""

from __future__ import annotations

from typing import Any

from holdfast.deploy.render.container import USER, command, container_files, variables
from holdfast.deploy.render.files import RenderedFile, yaml_text
from holdfast.deploy.settings import DeploySettings

MANIFESTS = "manifests.yaml"

# SIGTERM, 8 s for running handlers, a moment to close: see holdfast.endpoint. The rest is margin.
_GRACE_S = 20
_CPU_TARGET_PERCENT = 70
_ROLLOUT_TIMEOUT = "5m"


def kubernetes_files(settings: DeploySettings) -> list[RenderedFile]:
    """Manifests in one file, and what the image is built from."""
    documents = _operator(settings) if settings.operator else _plain(settings)
    return [
        RenderedFile(
            f"{settings.out}/{MANIFESTS}", yaml_text(*documents, comment=_comment(settings)), is_manifest=True
        ),
        *container_files(settings),
    ]


def service_url(settings: DeploySettings) -> str:
    """Where Restate finds the plain manifests' Service: by cluster DNS, from any namespace."""
    host = f"{settings.versioned_name}.{settings.namespace}.svc.cluster.local"
    return f"http://{host}:{settings.port}{settings.path}"


def kubectl_commands(settings: DeploySettings) -> list[list[str]]:
    """Applies the manifests; then, without the operator, waits until the new pods answer."""
    commands = [["kubectl", "apply", "--filename", f"{settings.out}/{MANIFESTS}"]]
    if not settings.operator:
        rollout = ["kubectl", "rollout", "status", f"deployment/{settings.versioned_name}"]
        commands += [[*rollout, "--namespace", settings.namespace, "--timeout", _ROLLOUT_TIMEOUT]]
    return commands


def _comment(settings: DeploySettings) -> str:
    apply = f"    kubectl apply --filename {settings.out}/{MANIFESTS}"
    if settings.operator:
        return f"{settings.reference}, deployed and registered by the Restate operator:\n{apply}"
    register = f"    holdfast deploy register --mechanism kubernetes {settings.reference} --image {settings.image}"
    return f"{settings.reference}, one revision of it:\n{apply}\n{register}"


def _plain(settings: DeploySettings) -> list[dict[str, Any]]:
    labels = _labels(settings) | {"app.kubernetes.io/version": settings.revision}
    spec: dict[str, Any] = {
        "replicas": settings.replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": _pod(settings)},
    }
    if settings.data:
        spec["strategy"] = {"type": "Recreate"}  # never two that own the files
    elif settings.replicas_max > settings.replicas:
        del spec["replicas"]  # the autoscaler's; applied again, the manifest must not turn it back
    documents = [
        _document("v1", "ServiceAccount", settings, labels) | {"automountServiceAccountToken": False},
        *([_claim(settings, labels)] if settings.data else []),
        _document("apps/v1", "Deployment", settings, labels) | {"spec": spec},
        _document("v1", "Service", settings, labels)
        | {
            "spec": {
                "selector": labels,
                "ports": [
                    {
                        "name": "restate",
                        "port": settings.port,
                        "targetPort": "restate",
                        "appProtocol": "kubernetes.io/h2c",
                    }
                ],
            }
        },
    ]
    if settings.replicas > 1:
        documents += [
            _document("policy/v1", "PodDisruptionBudget", settings, labels)
            | {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}}}
        ]
    if not settings.data and settings.replicas_max > settings.replicas:
        documents += [_autoscaler(settings, labels, "apps/v1", "Deployment", settings.versioned_name)]
    return documents


def _operator(settings: DeploySettings) -> list[dict[str, Any]]:
    labels = _labels(settings)
    register = {"url" if "://" in settings.operator else "cluster": settings.operator}
    scaling = _scaling(settings)
    spec: dict[str, Any] = {
        "replicas": settings.replicas,
        "restate": {"register": register, **({"servicePath": settings.path} if settings.path else {})},
        "selector": {"matchLabels": labels},
        # The operator adds the revision's labels, and what the cluster's network policy asks for.
        "template": {"metadata": {"labels": labels}, "spec": _pod(settings)},
    }
    documents: list[dict[str, Any]] = [
        _document("v1", "ServiceAccount", settings, labels, name=settings.name)
        | {"automountServiceAccountToken": False},
        *([_claim(settings, labels, settings.name)] if settings.data else []),
    ]
    spec["template"]["spec"]["serviceAccountName"] = settings.name
    if settings.data:
        spec["template"]["spec"]["volumes"][1]["persistentVolumeClaim"]["claimName"] = settings.name
    elif settings.replicas_max > settings.replicas:
        spec["autoscaling"] = scaling  # of old revisions that still have work
        del spec["replicas"]
    documents += [
        _document("restate.dev/v1beta1", "RestateDeployment", settings, labels, name=settings.name) | {"spec": spec}
    ]
    if "autoscaling" in spec:
        documents += [_autoscaler(settings, labels, "restate.dev/v1beta1", "RestateDeployment", settings.name)]
    return documents


def _labels(settings: DeploySettings) -> dict[str, str]:
    return {"app.kubernetes.io/name": settings.name}


def _document(
    api_version: str, kind: str, settings: DeploySettings, labels: dict[str, str], *, name: str = ""
) -> dict[str, Any]:
    metadata = {"name": name or settings.versioned_name, "namespace": settings.namespace, "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _claim(settings: DeploySettings, labels: dict[str, str], name: str = "") -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return _document("v1", "PersistentVolumeClaim", settings, labels, name=name) | {"spec": spec}


def _pod(settings: DeploySettings) -> dict[str, Any]:
    memory = f"{settings.memory_mib}Mi"
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if settings.data:
        mounts += [{"name": "data", "mountPath": settings.data}]
        volumes += [{"name": "data", "persistentVolumeClaim": {"claimName": settings.versioned_name}}]
    health = {"httpGet": {"path": f"{settings.path}/health", "port": "restate"}}
    container: dict[str, Any] = {
        "name": settings.name,
        "image": settings.image,
        "args": command(settings),
        "ports": [{"name": "restate", "containerPort": settings.port}],
        "startupProbe": {**health, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**health, "periodSeconds": 5, "timeoutSeconds": 2},
        # Patient: a handler that keeps the loop busy for a while is no reason to lose every attempt of the pod.
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "resources": {
            "requests": {"cpu": f"{round(settings.cpu * 1000)}m", "memory": memory},
            "limits": {"cpu": f"{max(1000, round(settings.cpu * 1000))}m", "memory": memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in variables(settings).items()]
    environment += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": f"{settings.name}-secrets", "key": name}}}
        for name in settings.secrets
    ]
    if environment:
        container["env"] = environment
    return {
        "serviceAccountName": settings.versioned_name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }


def _scaling(settings: DeploySettings) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": _CPU_TARGET_PERCENT}
    return {
        "minReplicas": settings.replicas,
        "maxReplicas": settings.replicas_max,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }


def _autoscaler(
    settings: DeploySettings, labels: dict[str, str], api_version: str, kind: str, name: str
) -> dict[str, Any]:
    target = {"apiVersion": api_version, "kind": kind, "name": name}
    return _document("autoscaling/v2", "HorizontalPodAutoscaler", settings, labels, name=name) | {
        "spec": {"scaleTargetRef": target, **_scaling(settings)}
    }
