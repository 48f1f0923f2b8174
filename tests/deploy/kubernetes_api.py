"""The part of a Kubernetes API server that kubectl needs to apply our manifests and to wait for them: discovery, objects
kept as they come, deployments that are rolled out at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

_KINDS = {
    "v1": {
        "serviceaccounts": "ServiceAccount",
        "services": "Service",
        "persistentvolumeclaims": "PersistentVolumeClaim",
    },
    "apps/v1": {"deployments": "Deployment"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "restate.dev/v1beta1": {"restatedeployments": "RestateDeployment"},
}
_VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]


@dataclass
class Cluster:
    """A running server."""

    kubeconfig: Path
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of every change."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.objects.values() if each["kind"] == kind]


@contextmanager
def running_api(folder: Path) -> Iterator[Cluster]:
    """Yields the cluster; `KUBECONFIG` must name its `kubeconfig`."""
    cluster = Cluster(folder / "kubeconfig")

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            if (found := _discovery(url.path)) is not None:
                self._answer(200, found)
            elif url.path in cluster.objects:
                self._answer(200, cluster.objects[url.path])
            elif "watch" in query:
                self._answer(200, {"type": "BOOKMARK", "object": {}})
            elif url.path.rsplit("/", 1)[-1] in [plural for kinds in _KINDS.values() for plural in kinds]:
                self._answer(200, _listed(cluster, url.path, query))
            else:
                self._answer(404, _failed(404, "NotFound", f"{url.path} not found"))

        def do_POST(self) -> None:
            path = urlsplit(self.path).path
            found = json.loads(self._body())
            key = f"{path}/{found['metadata']['name']}"
            cluster.asked.append(("POST", key))
            cluster.objects[key] = _stored(found)
            self._answer(201, cluster.objects[key])

        def do_PATCH(self) -> None:
            path = urlsplit(self.path).path
            cluster.asked.append(("PATCH", path))
            cluster.objects[path] = _stored(_merged(cluster.objects[path], json.loads(self._body())))
            self._answer(200, cluster.objects[path])

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["content-length"]))

        def _answer(self, status: int, document: Any) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster.kubeconfig.write_text(_kubeconfig(f"http://127.0.0.1:{server.server_port}"))
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()


def _kubeconfig(url: str) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {}}],
    }
    return yaml.safe_dump(document)


def _discovery(path: str) -> dict[str, Any] | None:
    if path == "/version":
        return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(each) for each in _KINDS if "/" in each]}
    if path == "/openapi/v3":
        places = {version: _place(version).strip("/") for version in _KINDS}
        return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}"} for place in places.values()}}
    for version, kinds in _KINDS.items():
        if path == _place(version):
            return {
                "kind": "APIResourceList",
                "groupVersion": version,
                "resources": [
                    {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": _VERBS}
                    for plural, kind in kinds.items()
                ],
            }
        if path == f"/openapi/v3{_place(version)}":
            return _openapi(version, kinds)
    return None


def _place(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _group(version: str) -> dict[str, Any]:
    name, _, number = version.partition("/")
    told = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [told], "preferredVersion": told}


def _openapi(version: str, kinds: dict[str, str]) -> dict[str, Any]:
    """Only what tells kubectl that the server checks fields itself."""
    group, _, number = version.rpartition("/")
    parameters = [{"name": "fieldValidation", "in": "query"}]
    paths = {
        f"{_place(version)}/{plural}/{{name}}": {
            "patch": {
                "parameters": parameters,
                "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind},
            }
        }
        for plural, kind in kinds.items()
    }
    return {"openapi": "3.0.0", "info": {"title": "test", "version": "1"}, "paths": paths}


def _listed(cluster: Cluster, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
    name = query.get("fieldSelector", [""])[0].removeprefix("metadata.name=")
    items = [each for key, each in cluster.objects.items() if key.startswith(f"{path}/{name}")]
    version = items[0]["apiVersion"] if items else "v1"
    kind = items[0]["kind"] if items else ""
    return {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items}


def _stored(found: dict[str, Any]) -> dict[str, Any]:
    """As a controller would have left it after a moment."""
    found["metadata"] |= {"uid": found["metadata"]["name"], "resourceVersion": "1", "generation": 1}
    if found["kind"] == "Deployment":
        count = found["spec"].setdefault("replicas", 1)
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
        found["status"] = {"observedGeneration": 1, **counts}
    return found


def _merged(old: Any, patch: Any) -> Any:
    """JSON merge patch; the strategic one differs for lists, of which only whole ones come here."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _failed(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
