"""Self-hosted: a compose file with the Restate server and the application, and a systemd unit for a machine without
containers."""

from __future__ import annotations

from typing import Any

from holdfast.deploy.render.container import command, container_files, health_command, variables
from holdfast.deploy.render.files import RenderedFile, yaml_text
from holdfast.deploy.settings import DeploySettings
from holdfast.deploy.versions import RESTATE_IMAGE

COMPOSE = "compose.yaml"


def self_hosted_files(settings: DeploySettings) -> list[RenderedFile]:
    """Dockerfile with its program, compose file, systemd unit."""
    return [
        RenderedFile(f"{settings.out}/{COMPOSE}", _compose(settings), is_manifest=True),
        RenderedFile(f"{settings.out}/{settings.name}.service", _unit(settings)),
        *container_files(settings),
    ]


def compose_command(settings: DeploySettings) -> list[str]:
    """Builds the image, starts what is not running, replaces what has changed."""
    return ["docker", "compose", "--file", f"{settings.out}/{COMPOSE}", "up", "--detach", "--build", "--wait"]


def _compose(settings: DeploySettings) -> str:
    comment = (
        f"The Restate server and {settings.reference}. In the project's folder:\n"
        f"    docker compose --file {settings.out}/{COMPOSE} up --detach --build\n"
        f"    holdfast deploy register --mechanism self-hosted {settings.reference}"
    )
    up = "../" * len([part for part in settings.out.split("/") if part not in ("", ".")])
    restate: dict[str, Any] = {
        "image": RESTATE_IMAGE,
        "restart": "unless-stopped",
        # Its data folder has this name; without one it takes the container's, which is another after every update.
        "environment": {"RESTATE_NODE_NAME": "restate-1"},
        # Loopback only: neither port asks who calls. Put a proxy in front that does.
        "ports": ["127.0.0.1:8080:8080", "127.0.0.1:9070:9070"],
        "volumes": ["restate-data:/restate-data"],
    }
    application: dict[str, Any] = {
        "image": settings.image,
        "build": {"context": up.rstrip("/") or ".", "dockerfile": f"{settings.out}/Dockerfile"},
        "restart": "unless-stopped",
        # Reached by the Restate server under this name, and by nobody from outside.
        "expose": [str(settings.port)],
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": "15s",
        "deploy": {"resources": {"limits": {"memory": f"{settings.memory_mib}M"}}},
    }
    environment = dict(variables(settings))
    environment |= {name: f"${{{name}:?set it in the environment or in .env}}" for name in settings.secrets}
    if environment:
        # A dollar sign of a value is no variable of compose.
        application["environment"] = {
            name: value if name in settings.secrets else value.replace("$", "$$") for name, value in environment.items()
        }
    volumes: dict[str, Any] = {"restate-data": {}}
    if settings.data:
        application["volumes"] = [f"{settings.name}-data:{settings.data}"]
        volumes[f"{settings.name}-data"] = {}
    document = {
        "name": settings.name,
        "services": {"restate": restate, settings.versioned_name: application},
        "volumes": volumes,
    }
    return yaml_text(document, comment=comment)


def _unit(settings: DeploySettings) -> str:
    home = f"/opt/{settings.name}"
    python = f"{home}/venv/bin/python"
    # A name that others reach it by means that others are to reach it.
    serve = command(settings, python) if settings.host else command(settings, python, "127.0.0.1")
    environment = [_assigned(name, value) for name, value in variables(settings).items()]
    if settings.secrets:
        environment += [
            f"# {', '.join(settings.secrets)}: readable by root only",
            f"EnvironmentFile=/etc/{settings.name}.env",
        ]
    sections = {
        "Unit": [
            f"Description={settings.reference}, called by a Restate server",
            "Documentation=https://docs.restate.dev/",
            "Wants=network-online.target",
            "After=network-online.target",
            # However often it fails, it is tried again: invocations wait meanwhile, they are not lost.
            "StartLimitIntervalSec=0",
        ],
        "Service": [
            "Type=exec",
            f"WorkingDirectory={home}",
            f"ExecStart={' '.join(_word(word) for word in serve)}",
            *environment,
            "Restart=always",
            "RestartSec=2",
            "TimeoutStopSec=15",
            # Only the program itself gets the signal: a step that runs another program may finish.
            "KillMode=mixed",
            f"MemoryMax={settings.memory_mib}M",
            "DynamicUser=yes",
            *(
                [f"StateDirectory={settings.name}", f"BindPaths=/var/lib/{settings.name}:{settings.data}"]
                if settings.data
                else []
            ),
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "PrivateDevices=yes",
            "PrivateTmp=yes",
            "PrivateUsers=yes",
            "ProtectClock=yes",
            "ProtectControlGroups=yes",
            "ProtectHome=yes",
            "ProtectHostname=yes",
            "ProtectKernelLogs=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelTunables=yes",
            "ProtectProc=invisible",
            "ProtectSystem=strict",
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
            "RestrictNamespaces=yes",
            "RestrictRealtime=yes",
            "RestrictSUIDSGID=yes",
            "LockPersonality=yes",
            "SystemCallArchitectures=native",
            "SystemCallFilter=@system-service",
            "SystemCallErrorNumber=EPERM",
            "UMask=0077",
        ],
        "Install": ["WantedBy=multi-user.target"],
    }
    check = " ".join(health_command(settings, python))
    lines = [
        f"# {settings.reference} on a machine without containers. As root:",
        f"#     python{settings.python} -m venv {home}/venv",
        *(f"#     {home}/venv/bin/pip install --requirement {file}" for file in settings.requirements),
        *(f"#     {home}/venv/bin/pip install {_quoted(package)}" for package in settings.packages),
        f"#     {home}/venv/bin/pip install --requirement {settings.out}/endpoint-requirements.txt",
        f"#     cp -r {' '.join([f'{settings.out}/endpoint.py', *(source.path for source in settings.sources)])} {home}/",
        f"#     cp {settings.out}/{settings.name}.service /etc/systemd/system/",
        f"#     systemctl enable --now {settings.name}",
        f"#     cd {home} && {check} && echo healthy",
    ]
    for name, entries in sections.items():
        lines += ["", f"[{name}]", *entries]
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    """One word of a command in a unit file: `%` begins a specifier there, `$` a variable."""
    return _quoted(text.replace("%", "%%").replace("$", "$$"))


def _assigned(name: str, value: str) -> str:
    """An assignment in a unit file, where `$` means nothing."""
    return f"Environment={_quoted(f'{name}={value}'.replace('%', '%%'))}"


def _quoted(text: str) -> str:
    if not any(character in text for character in " \t\"'\\"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
