"""Everything that rendering needs to know, checked as a whole. No I/O: what must be looked up is looked up by the CLI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Literal, get_args

from holdfast.deploy.errors import InvalidDeployment
from holdfast.deploy.versions import PYTHON, PYTHON_IMAGES

Mechanism = Literal["local", "self-hosted", "kubernetes", "fargate", "lambda", "asgi"]
MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)

Platform = Literal["fly", "railway", "vercel"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)

Exposure = Literal["load-balancer", "service-connect"]
EXPOSURES: tuple[Exposure, ...] = get_args(Exposure)

NAME_CHARS_MAX = 40
REVISION_CHARS_MAX = 20
"""Together with a hyphen they make a Kubernetes service name, which may have 63 characters."""

FARGATE_MEMORY_MIB = {
    0.25: (512, 1024, 2048),
    0.5: tuple(range(1024, 4096 + 1, 1024)),
    1: tuple(range(2048, 8192 + 1, 1024)),
    2: tuple(range(4096, 16384 + 1, 1024)),
    4: tuple(range(8192, 30720 + 1, 1024)),
    8: tuple(range(16384, 61440 + 1, 4096)),
    16: tuple(range(32768, 122880 + 1, 8192)),
}
"""Sizes of a Fargate task: vCPU -> MiB."""

_REFERENCE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
_LABEL = re.compile(r"^[a-z]([a-z0-9-]*[a-z0-9])?$")
_REVISION = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
_NAMESPACE = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_IMAGE = re.compile(r"^[a-z0-9][a-z0-9._:/-]*?(?::(?P<tag>\w[\w.-]{0,127}))?(?:@sha256:(?P<digest>[0-9a-f]{64}))?$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_PATH = re.compile(r"^(/[A-Za-z0-9._~-]+)*$")
_IDENTITY_KEY = re.compile(r"^publickeyv1_[1-9A-HJ-NP-Za-km-z]+$")
_IAM_ARN = re.compile(r"^arn:aws[a-z-]*:iam::\d{12}:(root|(role|user)/[\w+=,.@/-]+)$")
# Module names that say nothing about what an application is.
_GENERIC = frozenset({"app", "asgi", "main", "api", "server", "service", "services", "endpoint"})


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder that the application consists of: where it is in the project, where it goes."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class DeploySettings:
    """One application and how it is to be deployed.

    Raises:
        InvalidDeployment: a value outside its limits; the message names the flag and what is allowed.
    """

    reference: str
    """`module:attribute` of the application, a service, or a list of services."""
    mechanism: Mechanism
    name: str = ""
    """Of everything that is made. Empty: from the reference."""
    out: str = ""
    """Folder of the rendered files, relative to the project. Empty: `deploy/<mechanism>`."""

    # What the application consists of
    sources: tuple[Source, ...] = ()
    requirements: tuple[str, ...] = ()
    """Requirement files, relative to the project."""
    packages: tuple[str, ...] = ()
    """Further arguments of `pip install`; one that begins with a dot is in the project, e.g. `.[extra]`."""
    python: str = PYTHON

    # How it is reached
    host: str = ""
    """By which name Restate reaches it, where that is not given by the mechanism."""
    port: int = 9080
    path: str = ""
    """Where the application is mounted, e.g. `/restate`. Empty: at the root."""
    identity_keys: tuple[str, ...] = ()
    """Public keys of the Restate servers that may call; without one anybody may who reaches the port."""

    # What it runs with
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    secrets: tuple[str, ...] = ()
    """Names of environment variables whose values come from the platform's secret store, never from a file."""
    data: str = ""
    """An absolute path that outlives the process. Then there is one instance, for one process owns its files."""
    image: str = ""
    """Where the built image is, with a tag or digest. Empty: `<name>:1`, which only the machine that built it has."""
    revision: str = ""
    """Each version of the code gets an address of its own, so that what runs on the old one ends there. Empty: from the
    image's tag."""
    replicas: int = 2
    replicas_max: int = 10
    cpu: float = 0.25
    memory_mib: int = 512

    # Mechanisms
    namespace: str = "default"
    operator: str = ""
    """Kubernetes: the RestateCluster (or the URL of an admin API) that the Restate operator registers with. Empty: no
    operator."""
    expose: Exposure = "load-balancer"
    """Fargate: how Restate reaches the tasks."""
    invoker: str = ""
    """Lambda: ARN of the principal that the Restate server acts as; it may assume the role that invokes the function.
    Empty: no such role; the server's own permissions must do."""
    external_id: str = ""
    """Lambda: what the server must name when it assumes the role (`aws-assume-role-external-id`)."""
    timeout_s: int = 60
    """Lambda and Vercel: longest attempt."""
    platforms: tuple[Platform, ...] = PLATFORMS

    def __post_init__(self) -> None:
        fill = object.__setattr__
        if not _REFERENCE.match(self.reference):
            raise _invalid("MODULE:APP", self.reference, "module:attribute, e.g. greeter:app")
        if self.mechanism not in MECHANISMS:
            raise _invalid("--mechanism", self.mechanism, ", ".join(MECHANISMS))
        fill(self, "name", self.name or name_of(self.reference))
        fill(self, "out", self.out or f"deploy/{self.mechanism}")
        fill(self, "path", self.path.rstrip("/"))
        if not self.image and self.mechanism in ("self-hosted", "kubernetes", "fargate", "asgi"):
            fill(self, "image", f"{self.name}:{self.revision or '1'}")
        self._check_application()
        self._check_running()
        self._check_image()
        self._check_mechanism()

    @property
    def versioned_name(self) -> str:
        """Of what exists once for each revision. What owns data on a disk exists once, whatever the revision."""
        return self.name if self.data else f"{self.name}-{self.revision}"

    @property
    def has_registry(self) -> bool:
        """Whether the image can be pulled from somewhere: its first part is a host, as Docker reads it."""
        host, slash, _ = self.image.partition("/")
        return bool(slash) and ("." in host or ":" in host or host == "localhost")

    @property
    def module(self) -> str:
        """What must be imported, dotted."""
        return self.reference.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The name in the module, dotted when it is nested."""
        return self.reference.partition(":")[2]

    def _check_application(self) -> None:
        if not _LABEL.match(self.name) or len(self.name) > NAME_CHARS_MAX:
            raise _invalid(
                "--name", self.name, f"up to {NAME_CHARS_MAX} of a-z, 0-9 and hyphen, beginning with a letter"
            )
        out = PurePosixPath(self.out)
        if out.is_absolute() or ".." in out.parts:
            raise _invalid("--out", self.out, "a folder inside the project, because an image is built from there")
        if self.python not in PYTHON_IMAGES:
            raise _invalid("--python", self.python, ", ".join(PYTHON_IMAGES))
        lowest = 0 if self.mechanism == "local" else 1
        if not lowest <= self.port <= 65535:
            raise _invalid("--port", self.port, "1 to 65535; 0, a free one, with local")
        if not _PATH.match(self.path):
            raise _invalid("--path", self.path, "a path such as /restate")
        for key in self.identity_keys:
            if not _IDENTITY_KEY.match(key):
                raise _invalid("--identity-key", key, "a public key publickeyv1_…, as the Restate server shows it")

    def _check_running(self) -> None:
        for name in (*self.environment, *self.secrets):
            if not _VARIABLE.match(name):
                raise _invalid("--env or --secret", name, "a name of letters, digits and underscore")
        if both := sorted(set(self.environment) & set(self.secrets)):
            raise InvalidDeployment(f"{both[0]} is given by --env and by --secret", hint="choose one of them")
        if self.data and not PurePosixPath(self.data).is_absolute():
            raise _invalid("--data", self.data, "an absolute path")
        if self.data and self.replicas != 1:
            raise InvalidDeployment(
                f"--data {self.data} with {self.replicas} replicas: they would share files that one process owns",
                hint="add --replicas 1",
            )
        if not 1 <= self.replicas <= self.replicas_max:
            raise _invalid("--replicas", self.replicas, f"1 to --max-replicas, which is {self.replicas_max}")
        if self.cpu <= 0 or self.memory_mib < 64:
            raise _invalid(
                "--cpu, --memory", f"{self.cpu:g}, {self.memory_mib}", "more than no CPU, and 64 MiB or more"
            )
        if not 1 <= self.timeout_s <= 900:
            raise _invalid("--timeout", self.timeout_s, "1 to 900 seconds")

    def _check_image(self) -> None:
        if self.image:
            match = _IMAGE.match(self.image)
            if match is None:
                raise _invalid("--image", self.image, "repository:tag, optionally with @sha256:…")
            tag, digest = match["tag"], match["digest"]
            if not digest and tag in (None, "latest"):
                raise InvalidDeployment(
                    f"--image {self.image} does not say which version",
                    hint="add a tag other than latest, or a digest: what runs must not change by itself",
                )
            if not self.revision:
                label = re.sub(r"[^a-z0-9]+", "-", (tag or str(digest)[:12]).lower())
                object.__setattr__(self, "revision", label[:REVISION_CHARS_MAX].strip("-"))
        if not self.revision:
            object.__setattr__(self, "revision", "1")
        if not _REVISION.match(self.revision) or len(self.revision) > REVISION_CHARS_MAX:
            raise _invalid("--revision", self.revision, f"up to {REVISION_CHARS_MAX} of a-z, 0-9 and hyphen")

    def _check_mechanism(self) -> None:
        if not _NAMESPACE.match(self.namespace):
            raise _invalid("--namespace", self.namespace, "a Kubernetes namespace")
        if self.expose not in EXPOSURES:
            raise _invalid("--expose", self.expose, ", ".join(EXPOSURES))
        for platform in self.platforms:
            if platform not in PLATFORMS:
                raise _invalid("--platform", platform, ", ".join(PLATFORMS))
        if self.invoker and not _IAM_ARN.match(self.invoker):
            raise _invalid("--invoker", self.invoker, "arn:aws:iam::<account>:role/<name>, …:user/<name> or …:root")
        if self.external_id and not self.invoker:
            raise InvalidDeployment("--external-id is a condition on who may assume the role", hint="add --invoker")
        if self.mechanism == "fargate" and self.memory_mib not in FARGATE_MEMORY_MIB.get(self.cpu, ()):
            raise _invalid("--cpu, --memory", f"{self.cpu:g}, {self.memory_mib}", _fargate_sizes(self.cpu))
        if self.mechanism == "lambda" and not 128 <= self.memory_mib <= 10_240:
            raise _invalid("--memory", self.memory_mib, "128 to 10240 MiB on Lambda")
        if self.mechanism == "lambda" and self.secrets:
            raise InvalidDeployment(
                "Lambda has no secret store that fills environment variables",
                hint="read the secret in the application, e.g. from AWS Secrets Manager",
            )
        if self.mechanism in ("lambda", "fargate", "asgi") and self.data:
            raise InvalidDeployment(
                f"--data needs a disk, and {self.mechanism} has none that outlives the process",
                hint="keep the data in a database, or choose self-hosted or kubernetes",
            )
        if self.mechanism == "lambda" and self.path:
            raise InvalidDeployment("--path is for HTTP; a Lambda function has no paths", hint="leave it out")


def name_of(reference: str) -> str:
    """A name from the reference: the last part of the module that says something. `apps.recon.app:app` -> `recon`."""
    parts = reference.partition(":")[0].split(".")
    told = [part for part in parts if part.lower() not in _GENERIC] or parts
    label = re.sub(r"[^a-z0-9]+", "-", told[-1].lower()).strip("-")[:NAME_CHARS_MAX].strip("-")
    return label if label[:1].isalpha() else f"app-{label}"[:NAME_CHARS_MAX].strip("-")


def _invalid(flag: str, value: object, allowed: str) -> InvalidDeployment:
    return InvalidDeployment(f"{flag}: {value!r} is not valid", hint=f"allowed: {allowed}")


def _fargate_sizes(cpu: float) -> str:
    if cpu not in FARGATE_MEMORY_MIB:
        return f"--cpu of Fargate is one of {', '.join(f'{cpu:g}' for cpu in FARGATE_MEMORY_MIB)}"
    sizes = FARGATE_MEMORY_MIB[cpu]
    return f"with --cpu {cpu:g}: {sizes[0]} to {sizes[-1]} MiB in steps of {sizes[1] - sizes[0]}"
