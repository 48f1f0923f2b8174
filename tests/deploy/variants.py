"""The deployments that golden files show and that the ecosystem's own tools judge."""

from __future__ import annotations

from holdfast.deploy import DeploySettings, Source
from tests.deploy.support import settings

IMAGE = "registry.example/greeter:1.0.0"
KEY = "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"
INVOKER = "arn:aws:iam::123456789012:role/restate-server"

_RECON = DeploySettings(
    "apps.recon.app:api",
    "self-hosted",
    image="registry.example/recon:2.1",
    sources=(Source("apps", "apps"),),
    packages=(".[recon]",),
    port=3000,
    path="/restate",
    data="/data",
    replicas=1,
    environment={"RECON_STORE": "/data/surreal", "GREETING": 'a "b" $HOME 100% ü'},
    secrets=("SCANNER_TOKEN",),
)

VARIANTS: dict[str, DeploySettings] = {
    "self-hosted": settings("self-hosted", requirements=("requirements.txt",)),
    "self-hosted-with-data": _RECON,
    "kubernetes": settings("kubernetes", image=IMAGE, environment={"LEVEL": "info"}, secrets=("API_KEY",)),
    "kubernetes-single": settings(
        "kubernetes", image=IMAGE, replicas=1, replicas_max=1, namespace="shop", path="/restate"
    ),
    "kubernetes-with-data": settings("kubernetes", image=IMAGE, data="/data", replicas=1),
    "kubernetes-operator": settings("kubernetes", image=IMAGE, operator="restate-prod", identity_keys=(KEY,)),
    "kubernetes-operator-with-data": settings(
        "kubernetes", image=IMAGE, operator="http://restate.example:9070", data="/data", replicas=1, path="/restate"
    ),
    "fargate": settings("fargate", image=IMAGE, secrets=("API_KEY", "DB_PASSWORD"), environment={"LEVEL": "info"}),
    "fargate-service-connect": settings("fargate", image=IMAGE, expose="service-connect", cpu=1, memory_mib=2048),
    "lambda": settings("lambda"),
    "lambda-with-role": settings(
        "lambda", invoker=INVOKER, external_id="env_123", environment={"LEVEL": "info"}, python="3.12", revision="7"
    ),
    "asgi": settings("asgi", image=IMAGE, identity_keys=(KEY,), secrets=("API_KEY",)),
}
