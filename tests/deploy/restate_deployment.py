"""The part of the RestateDeployment resource (restate.dev/v1beta1, Restate operator 2.9) that we render, as JSON schema.

Written from what the resource's definition says about field names, types and requirements; unknown fields are refused,
as an API server prunes them without a word.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_LABEL = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def _object(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


_SERVICE = _object(
    {"name": _TEXT, "namespace": _TEXT, "path": _TEXT, "port": {"type": "integer", "minimum": 1, "maximum": 65535}},
    "name",
    "namespace",
)
_REGISTER = _object(
    {"cluster": _TEXT, "cloud": _TEXT, "service": _SERVICE, "url": {"type": "string", "pattern": "^https?://"}},
    oneOf=[{"required": [name]} for name in ("cluster", "cloud", "service", "url")],
)
_RESTATE = _object(
    {
        "register": _REGISTER,
        "servicePath": {"type": "string", "pattern": "^/"},
        "useHttp11": {"type": "boolean"},
        "tunnelMode": {"enum": ["external", "in-process"]},
        "drainDelaySeconds": _COUNT,
    },
    "register",
)
_SPEC = _object(
    {
        "deploymentMode": {"enum": ["replicaset", "knative"]},
        "replicas": _COUNT,
        "revisionHistoryLimit": _COUNT,
        "minReadySeconds": _COUNT,
        "selector": _object({"matchLabels": _TEXTS, "matchExpressions": {"type": "array"}}),
        "template": _object(
            {"metadata": _object({"labels": _TEXTS, "annotations": _TEXTS}), "spec": {"type": "object"}}, "spec"
        ),
        "restate": _RESTATE,
        # Passed through to the autoscaler of old revisions; the operator puts in what is scaled.
        "autoscaling": {
            "type": "object",
            "required": ["maxReplicas"],
            "properties": {"minReplicas": {"type": "integer", "minimum": 1}},
            "not": {"required": ["scaleTargetRef"]},
        },
    },
    "restate",
    "template",
)
SCHEMA: dict[str, Any] = _object(
    {
        "apiVersion": {"const": "restate.dev/v1beta1"},
        "kind": {"const": "RestateDeployment"},
        "metadata": _object(
            {"name": {"type": "string", "pattern": _LABEL}, "namespace": _TEXT, "labels": _TEXTS}, "name", "namespace"
        ),
        "spec": _SPEC,
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)
