"""Platforms for HTTP services: Fly.io and Railway run the container image, Vercel runs an ASGI module by itself.

What they serve is on the internet. Without identity keys anybody can run the handlers.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from holdfast.deploy.render.container import command, container_files, variables
from holdfast.deploy.render.entry import asgi_module
from holdfast.deploy.render.files import RenderedFile, json_text, toml_text
from holdfast.deploy.settings import DeploySettings, Platform


def asgi_files(settings: DeploySettings) -> list[RenderedFile]:
    """The configuration of each chosen platform, and what it runs."""
    files: list[RenderedFile] = []
    for platform in settings.platforms:
        files += _PLATFORMS[platform](settings)
    if {"fly", "railway"} & set(settings.platforms):
        files += container_files(settings)
    return files


def _fly(settings: DeploySettings) -> list[RenderedFile]:
    comment = (
        f"{settings.reference} on Fly.io. In the project's folder:\n"
        f"    fly deploy --config {settings.out}/fly.toml --dockerfile {settings.out}/Dockerfile"
    )
    if settings.secrets:
        comment += "\n    fly secrets set " + " ".join(f"{name}=…" for name in settings.secrets)
    check: dict[str, Any] = {"method": "GET", "path": f"{settings.path}/health", "interval": "15s", "timeout": "5s"}
    tables: dict[str, Any] = {
        "": {"app": settings.name, "kill_signal": "SIGTERM", "kill_timeout": 15},
        **({"env": environment} if (environment := variables(settings)) else {}),
        "http_service": {
            "internal_port": settings.port,
            "force_https": True,
            "auto_stop_machines": "suspend",
            "auto_start_machines": True,
            "min_machines_running": 0,
        },
        "http_service.concurrency": {"type": "requests", "soft_limit": 200, "hard_limit": 250},
        # HTTP/2 all the way: then an attempt is one stream, whatever number of steps it has.
        "http_service.http_options": {"h2_backend": True},
        "http_service.tls_options": {"alpn": ["h2", "http/1.1"]},
        "http_service.checks": [check | {"grace_period": "10s"}],
        "vm": [{"memory": f"{settings.memory_mib}mb", "cpus": max(1, round(settings.cpu)), "cpu_kind": "shared"}],
    }
    return [RenderedFile(f"{settings.out}/fly.toml", toml_text(tables, comment), is_manifest=True)]


def _railway(settings: DeploySettings) -> list[RenderedFile]:
    # Railway says in $PORT where it wants the service, so the command leaves that to the program.
    start = command(settings)
    start = start[: start.index("--port")]
    document = {
        "$schema": "https://railway.com/railway.schema.json",
        "build": {"builder": "DOCKERFILE", "dockerfilePath": f"{settings.out}/Dockerfile"},
        "deploy": {
            "startCommand": shlex.join(start),
            "healthcheckPath": f"{settings.path}/health",
            "healthcheckTimeout": 60,
            "restartPolicyType": "ALWAYS",
            "drainingSeconds": 15,
        },
    }
    return [RenderedFile(f"{settings.out}/railway.json", json_text(document), is_manifest=True)]


def _vercel(settings: DeploySettings) -> list[RenderedFile]:
    folder = f"{settings.out}/vercel"  # Vercel wants these at the root of the project: cp -r <out>/vercel/. .
    document = {
        "$schema": "https://openapi.vercel.sh/vercel.json",
        "functions": {"api/index.py": {"maxDuration": settings.timeout_s}},
        "rewrites": [{"source": "/(.*)", "destination": "/api/index"}],
    }
    return [
        RenderedFile(f"{folder}/vercel.json", json_text(document), is_manifest=True),
        RenderedFile(f"{folder}/api/index.py", asgi_module(settings)),
    ]


_PLATFORMS: dict[Platform, Callable[[DeploySettings], list[RenderedFile]]] = {
    "fly": _fly,
    "railway": _railway,
    "vercel": _vercel,
}
