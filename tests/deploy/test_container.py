"""The image without Docker: each step of the rendered Dockerfile is done here, in folders that stand for its root, and what
comes out is started and asked for its health as a container runtime would."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from holdfast.deploy import DeploySettings, Source, render
from holdfast.deploy.project import write
from tests.deploy.support import PATIENCE_S, REPOSITORY, environment, greet, json_of, settings, wheels
from tests.support.restate_server import RunningRestate, free_ports

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass
class Stage:
    """What a build stage has: a root, a working directory, an environment."""

    root: Path
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    exposed: str = ""

    def here(self, path: str) -> Path:
        """A path of the image."""
        absolute = path if path.startswith("/") else f"{self.workdir}/{path}"
        return Path(os.path.normpath(self.root / absolute.lstrip("/")))

    def text(self, text: str) -> str:
        """A command line of the image, for this machine: the folders below the root are elsewhere."""
        return re.sub(r"(?<![\w.])/(opt|app|build|project|data)\b", lambda found: str(self.root / found[1]), text)

    def run(self, line: str, **variables: str) -> None:
        full = environment({**self.environment, **variables})
        full["PATH"] = self.text(self.environment.get("PATH", "$PATH")).replace("$PATH", os.environ["PATH"])
        folder = self.here(".")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["sh", "-ec", self.text(line)], cwd=folder, env=full, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"RUN {line}\n{done.stdout}{done.stderr}"


class Build:
    """`docker build`, as far as our Dockerfiles use it. An instruction that is not known here fails the test."""

    def __init__(self, context: Path, dockerfile: str, scratch: Path, **variables: str) -> None:
        self._context = context
        self._scratch = scratch
        self._variables = variables
        self._ignored = (context / f"{dockerfile}.dockerignore").read_text().split()
        self._stages: dict[str, Stage] = {}
        self.bases: list[str] = []
        text = (context / dockerfile).read_text()
        text = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.M))
        for line in filter(None, map(str.strip, text.splitlines())):
            instruction, _, rest = line.partition(" ")
            getattr(self, f"_{instruction.lower()}")(rest)

    @property
    def image(self) -> Stage:
        return [*self._stages.values()][-1]

    def _from(self, rest: str) -> None:
        base, _, name = rest.partition(" AS ")
        self.bases.append(base)
        root = self._scratch / (name or "final")
        root.mkdir(parents=True)
        self._stages[name or "final"] = Stage(root)

    def _env(self, rest: str) -> None:
        for word in shlex.split(rest):
            name, _, value = word.partition("=")
            self.image.environment[name] = value

    def _workdir(self, rest: str) -> None:
        self.image.workdir = rest
        self.image.here(".").mkdir(parents=True, exist_ok=True)

    def _run(self, rest: str) -> None:
        # The owner of a folder needs root, and the test is about what is inside.
        self.image.run(re.sub(r"--(owner|group)=\d+ ", "", rest), **self._variables)

    def _copy(self, rest: str) -> None:
        words = json.loads(rest) if rest.startswith("[") else rest.split()
        if words[0].startswith("--from="):
            stage = self._stages[words.pop(0).removeprefix("--from=")]
            source, ignored = stage.here(words[0]), []
        else:
            source, ignored = self._context / words[0], self._ignored
        target = self.image.here(words[1])
        if source.is_dir():
            shutil.copytree(source, target, ignore=_ignoring(source, ignored), dirs_exist_ok=True, symlinks=True)
        else:
            target = target / source.name if words[1].endswith("/") else target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def _user(self, rest: str) -> None:
        self.image.user = rest

    def _expose(self, rest: str) -> None:
        self.image.exposed = rest

    def _volume(self, rest: str) -> None:
        assert all(self.image.here(path).is_dir() for path in json.loads(rest))

    def _healthcheck(self, rest: str) -> None:
        self.image.health = json.loads(rest.partition("CMD ")[2])

    def _cmd(self, rest: str) -> None:
        self.image.command = json.loads(rest)


def _ignoring(context: Path, patterns: list[str]) -> Callable[[str, list[str]], set[str]]:
    def ignored(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(context)
        return {
            name
            for name in names
            for pattern in patterns
            if fnmatch.fnmatch((inside / name).as_posix(), pattern.removeprefix("**/"))
            or (pattern.startswith("**/") and fnmatch.fnmatch(name, pattern.removeprefix("**/")))
        }

    return ignored


@contextmanager
def running(image: Stage, port: int, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The container: the image's command, on another port, and nothing in its environment but the image's own."""
    python = str(image.here("/opt/venv/bin/python"))
    command = [python if word == "python" else word for word in image.command]
    command[command.index("--port") + 1] = str(port)
    with (image.root / "container.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=image.here("."),
            env={"PATH": os.environ["PATH"], **variables},
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_healthy(image: Stage, port: int) -> bool:
    """The image's health check, on the other port."""
    python = str(image.here("/opt/venv/bin/python"))
    words = [python, *image.health[1:]]
    words[-1] = words[-1].replace(f":{image.exposed}", f":{port}")
    return subprocess.run(words, cwd=image.here("."), timeout=PATIENCE_S, check=False).returncode == 0


@pytest.fixture(scope="module")
def wheel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels(tmp_path_factory.mktemp("wheels"), "restate-sdk", "hypercorn", "msgspec")


def built(settings: DeploySettings, project: Path, scratch: Path, wheel_folder: Path) -> Build:
    write(render(settings), project)
    variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel_folder), "PIP_CONFIG_FILE": "/dev/null"}
    return Build(project, f"{settings.out}/Dockerfile", scratch, **variables)


@pytest.mark.slow
@pytest.mark.restate_server
def test_the_image_serves_the_application(
    project: Path, tmp_path: Path, wheel_folder: Path, restate: RunningRestate
) -> None:
    """Built in two stages, without this environment's packages, started, healthy, registered, called, stopped."""
    (project / "requirements.txt").write_text("msgspec>=0.20\n")
    (project / ".env").write_text("SECRET=1")
    build = built(
        settings("self-hosted", requirements=("requirements.txt",), python=PYTHON),
        project,
        tmp_path / "build",
        wheel_folder,
    )
    image = build.image
    assert sorted(path.name for path in image.here("/app").iterdir()) == ["endpoint.py", "greeter.py"]
    assert (image.exposed, image.user) == ("9080", "10001:10001")
    installed = {path.name.partition("-")[0].lower() for path in image.here("/opt/venv").rglob("*.dist-info")}
    assert {"restate_sdk", "hypercorn", "msgspec"} <= installed
    assert "holdfast" not in installed
    [port] = free_ports(1)
    with running(image, port) as container:
        deadline = time.monotonic() + PATIENCE_S
        while not is_healthy(image, port):
            assert container.poll() is None, (image.root / "container.log").read_text()
            assert time.monotonic() < deadline
        restate.register(f"http://127.0.0.1:{port}")
        assert greet(restate.ingress_url) == "Hello Ada!"
        container.send_signal(signal.SIGTERM)
        assert container.wait(PATIENCE_S) == 0
    assert not is_healthy(image, port)


@pytest.mark.slow
def test_a_build_sees_the_package_and_not_what_lies_beside_it(
    project: Path, tmp_path: Path, wheel_folder: Path
) -> None:
    package = project / "shop"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__" / "app.pyc").write_text("")
    (package / ".env").write_text("SECRET=1")
    (package / "app.py").write_text((project / "greeter.py").read_text())
    sources = (Source("shop", "shop"),)
    deployed = settings(
        "kubernetes", reference="shop.app:app", sources=sources, python=PYTHON, data="/data", replicas=1
    )
    image = built(deployed, project, tmp_path / "build", wheel_folder).image
    assert [path.name for path in image.here("/app/shop").rglob("*")] == ["app.py"]
    assert image.here("/data").is_dir(), "before a volume takes over its owner"


@pytest.mark.restate_server
def test_recon_is_deployed_with_the_same_command(
    restate: RunningRestate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference application from its own reference: rendered in this repository, served as its image serves it."""
    monkeypatch.chdir(REPOSITORY)
    line = ["deploy", "render", "--mechanism", "self-hosted", "apps.recon.app:app", "--package", ".[recon]"]
    files = {
        file["path"]: file["text"] for file in json_of(*line, "--data", "/data", "--env", "RECON_DIR=/data")["files"]
    }
    dockerfile = files["deploy/self-hosted/Dockerfile"]
    assert "COPY apps ./apps\n" in dockerfile
    command = json.loads(dockerfile.splitlines()[-1].removeprefix("CMD "))
    (tmp_path / "endpoint.py").write_text(files["deploy/self-hosted/endpoint.py"])
    (tmp_path / "apps").symlink_to(REPOSITORY / "apps")
    [port] = free_ports(1)
    stage = Stage(tmp_path, exposed="9080", command=command)
    stage.here("/opt/venv/bin").mkdir(parents=True)
    stage.here("/opt/venv/bin/python").symlink_to(sys.executable)
    variables = {"RECON_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with running(stage, port, **variables):
        more = ["--uri", f"http://127.0.0.1:{port}", "--admin-url", restate.admin_url]
        deadline = time.monotonic() + PATIENCE_S
        while not is_listening(port):
            assert time.monotonic() < deadline, (tmp_path / "container.log").read_text()
        told = json_of("deploy", "register", "--mechanism", "self-hosted", "apps.recon.app:app", *more)
    assert {"IngestWorkflow": "Workflow"}.items() <= {each["name"]: each["ty"] for each in told["services"]}.items()


def is_listening(port: int) -> bool:
    from holdfast.endpoint import is_healthy as answers

    return answers(f"http://127.0.0.1:{port}")
