"""The package of a Lambda function: the application, its packages for Lambda's Linux, and the handler module, as a zip.

The same content gives the same bytes, so the digest of the file says whether anything changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.deploy.errors import ApplyFailed
from holdfast.deploy.render.awslambda import REQUIREMENTS, lambda_files, lambda_template
from holdfast.deploy.render.entry import LAMBDA_MODULE
from holdfast.deploy.settings import DeploySettings, Source

UNZIPPED_BYTES_MAX = 250 * 1024 * 1024
"""Limit of AWS for a package that is not an image."""

# Of a zip file's entries: the format has none earlier.
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Newest first; wheels for an older one run on a newer one. Lambda's python3.11 is on Amazon Linux 2 (glibc 2.26), later ones
# on Amazon Linux 2023 (2.34).
_PLATFORMS_AL2 = ("manylinux_2_26_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_PLATFORMS_AL2023 = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", *_PLATFORMS_AL2)
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".env*", ".git", ".venv*", "node_modules")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A built package."""

    path: Path
    digest: str
    """SHA-256 of the file, hexadecimal."""
    unzipped_bytes: int


def build(settings: DeploySettings, project: Path, target: Path) -> Bundle:
    """Install, copy, zip.

    Args:
        project: Where the application is.
        target: The zip file to write.
    Raises:
        ApplyFailed: pip found no fitting package (its own words are in the message), or the package is too large.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-lambda-") as folder:
        root = Path(folder, "package")
        root.mkdir()
        handler, requirements = _rendered(settings)
        own = Path(folder, REQUIREMENTS)
        own.write_text(requirements, "utf-8")
        _install(settings, project, own, root)
        for source in settings.sources:
            _copy(source, project, root)
        (root / f"{LAMBDA_MODULE}.py").write_text(handler, "utf-8")
        unzipped_bytes = _zip(root, target)
    if unzipped_bytes > UNZIPPED_BYTES_MAX:
        raise ApplyFailed(
            f"the package has {unzipped_bytes >> 20} MiB unzipped, and Lambda takes {UNZIPPED_BYTES_MAX >> 20}",
            hint="name fewer requirements, or choose another mechanism",
        )
    return Bundle(target, hashlib.sha256(target.read_bytes()).hexdigest(), unzipped_bytes)


def with_content_revision(settings: DeploySettings, bundle: Bundle) -> DeploySettings:
    """The same settings with a revision that is another one whenever the package or the function's configuration is.

    A version is published only for a new revision, and Restate must see a new version whenever code or environment changed.
    """
    function = json.dumps(lambda_template(settings)["Resources"]["Function"], sort_keys=True)
    digest = hashlib.sha256(f"{bundle.digest}\n{function}".encode()).hexdigest()
    return replace(settings, revision=digest[:12])


def _rendered(settings: DeploySettings) -> tuple[str, str]:
    files = {Path(file.path).name: file.text for file in lambda_files(settings)}
    return files[f"{LAMBDA_MODULE}.py"], files[REQUIREMENTS]


def _install(settings: DeploySettings, project: Path, own: Path, root: Path) -> None:
    named = [word for file in settings.requirements for word in ("--requirement", file)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--target", str(root), "--python-version", settings.python, "--implementation", "cp"]
    command += ["--only-binary", ":all:"]  # this machine cannot build for that one
    platforms = _PLATFORMS_AL2 if settings.python == "3.11" else _PLATFORMS_AL2023
    command += [word for platform in platforms for word in ("--platform", platform)]
    command += [*named, *settings.packages, "--requirement", str(own)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR:")), done.stderr.strip())
        raise ApplyFailed(
            f"pip cannot install the packages for Lambda's python{settings.python}: {reason.removeprefix('ERROR: ')}",
            hint="every package must come as a wheel for Linux (manylinux, x86_64)",
        )


def _copy(source: Source, project: Path, root: Path) -> None:
    origin, target = project / source.path, root / source.target
    target.parent.mkdir(parents=True, exist_ok=True)
    if origin.is_dir():
        shutil.copytree(origin, target, ignore=_LEFT_OUT, dirs_exist_ok=True)
    else:
        shutil.copy(origin, target)


def _zip(root: Path, target: Path) -> int:
    """Sorted, without times or owners; returns the bytes before compression."""
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    scripts = root / "bin"  # of packages; they begin with the path of this machine's interpreter
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, subfolders, names in os.walk(root):
            subfolders.sort()
            subfolders[:] = [name for name in subfolders if name != "__pycache__" and Path(folder, name) != scripts]
            for name in sorted(names):
                path = Path(folder, name)
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if os.access(path, os.X_OK) else 0o644) << 16
                content = path.read_bytes()
                size += len(content)
                archive.writestr(entry, content)
    return size
