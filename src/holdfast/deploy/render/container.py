"""The container image: Dockerfile, what the build must not see, and the program inside.

The program is a copy of `holdfast.endpoint`, so that the image needs restate-sdk and hypercorn and nothing of holdfast.
"""

from __future__ import annotations

import json
from importlib import resources

from holdfast.deploy.render.files import RenderedFile
from holdfast.deploy.settings import DeploySettings
from holdfast.deploy.versions import HYPERCORN, PYTHON_IMAGES, RESTATE_SDK
from holdfast.endpoint import IDENTITY_KEYS_VARIABLE

USER = 10001
"""No user of the base image has this number, and Kubernetes can see that it is not root's."""

ENDPOINT = "endpoint.py"
REQUIREMENTS = "endpoint-requirements.txt"
_IGNORED = (
    ".git",
    ".venv*",
    "node_modules",
    "**/__pycache__",
    "**/*.pyc",
    "**/.env*",
    "*.db",
    "*.db-*",
    ".pytest_cache",
)


def container_files(settings: DeploySettings) -> list[RenderedFile]:
    """Everything that `docker build --file <out>/Dockerfile .` needs beside the application itself."""
    dockerfile = f"{settings.out}/Dockerfile"
    return [
        RenderedFile(dockerfile, _dockerfile(settings)),
        # BuildKit reads it in place of .dockerignore, which is the user's.
        RenderedFile(f"{dockerfile}.dockerignore", "\n".join(_IGNORED) + "\n"),
        endpoint_file(settings),
        RenderedFile(f"{settings.out}/{REQUIREMENTS}", endpoint_requirements()),
    ]


def endpoint_file(settings: DeploySettings) -> RenderedFile:
    """The program that serves the application."""
    source = resources.files("holdfast").joinpath("endpoint.py").read_text("utf-8")
    return RenderedFile(f"{settings.out}/{ENDPOINT}", source)


def endpoint_requirements() -> str:
    """What the program needs; where the application asks for a certain SDK, that one is installed already."""
    return f"hypercorn=={HYPERCORN}\n{RESTATE_SDK}\n"


def command(settings: DeploySettings, python: str = "python", host: str = "0.0.0.0") -> list[str]:  # noqa: S104
    """What serves the application, as a list of arguments."""
    mounted = ["--path", settings.path] if settings.path else []
    return [python, ENDPOINT, settings.reference, *mounted, "--host", host, "--port", str(settings.port)]


def health_command(settings: DeploySettings, python: str = "python") -> list[str]:
    """What ends with 0 when the application answers."""
    return [python, ENDPOINT, "--check", f"http://127.0.0.1:{settings.port}{settings.path}"]


def variables(settings: DeploySettings) -> dict[str, str]:
    """Environment of the application, without secrets."""
    keys = {IDENTITY_KEYS_VARIABLE: ",".join(settings.identity_keys)} if settings.identity_keys else {}
    return {**settings.environment, **keys}


def _dockerfile(settings: DeploySettings) -> str:
    image = PYTHON_IMAGES[settings.python]
    build = [
        f"# Image of {settings.reference}. Build it in the project's folder:",
        f"#     docker build --file {settings.out}/Dockerfile --tag {settings.image} .",
        "# Rendered by holdfast deploy; render again rather than edit, or keep it and render no more.",
        "",
        f"FROM {image} AS build",
        "ENV PATH=/opt/venv/bin:$PATH",
        "RUN python -m venv /opt/venv",
        "WORKDIR /build",
    ]
    for requirements in settings.requirements:
        build += [f"COPY {_words(requirements, './requirements.txt')}"]
        build += ["RUN pip install --no-cache-dir --requirement requirements.txt"]
    local = [package for package in settings.packages if package.startswith(".")]
    named = [package for package in settings.packages if not package.startswith(".")]
    if named:
        build += [f"RUN pip install --no-cache-dir {' '.join(_quoted(package) for package in named)}"]
    build += [f"COPY {_words(f'{settings.out}/{REQUIREMENTS}', './')}"]
    build += [f"RUN pip install --no-cache-dir --requirement {REQUIREMENTS}"]
    if local:
        build += ["WORKDIR /project", "COPY . ."]
        build += ["# The project itself has no version to pin.", "# hadolint ignore=DL3013"]
        build += [f"RUN pip install --no-cache-dir {' '.join(_quoted(package) for package in local)}"]

    final = ["", f"FROM {image}", "COPY --from=build /opt/venv /opt/venv"]
    if settings.data:
        # A volume takes over the owner of the folder that it is mounted on.
        final += [f"RUN install --directory --owner={USER} --group={USER} {_quoted(settings.data)}"]
        final += [f"VOLUME {json.dumps([settings.data])}"]
    final += ["WORKDIR /app", f"COPY {_words(f'{settings.out}/{ENDPOINT}', './')}"]
    final += [f"COPY {_words(source.path, f'./{source.target}')}" for source in settings.sources]
    final += [
        "ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1",
        # Public, and in the image they hold wherever it runs.
        *([f"ENV {IDENTITY_KEYS_VARIABLE}={','.join(settings.identity_keys)}"] if settings.identity_keys else []),
        f"USER {USER}:{USER}",
        f"EXPOSE {settings.port}",
        "HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \\",
        f"    CMD {json.dumps(health_command(settings))}",
        f"CMD {json.dumps(command(settings))}",
    ]
    return "\n".join([*build, *final]) + "\n"


def _words(source: str, target: str) -> str:
    """The form for names with spaces, where there are any."""
    return json.dumps([source, target]) if " " in source + target else f"{source} {target}"


def _quoted(argument: str) -> str:
    return "'" + argument.replace("'", "'\\''") + "'"
