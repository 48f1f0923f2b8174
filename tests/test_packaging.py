"""What is installed: every dependency pinned with hashes, no registry named, the wheel whole and nothing more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_architecture import imported_modules

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

# One entry: `name==version ; marker \` and its indented hashes.
LOCK_ENTRY = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<rest>.*\n(?:    --hash=sha256:[0-9a-f]{64}.*\n)*)", re.M
)


def locked() -> dict[str, re.Match[str]]:
    return {canonicalize_name(entry["name"]): entry for entry in LOCK_ENTRY.finditer(lock_text())}


def lock_text() -> str:
    return (ROOT / "requirements.lock").read_text()


def declared() -> list[str]:
    project = PYPROJECT["project"]
    return [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
        *(line for lines in PYPROJECT["dependency-groups"].values() for line in lines),
        *PYPROJECT["build-system"]["requires"],
    ]


@pytest.mark.parametrize("line", declared())
def test_every_dependency_is_locked_at_a_version_it_allows(line: str) -> None:
    requirement = Requirement(line)
    entry = locked().get(canonicalize_name(requirement.name))
    assert entry, "not in requirements.lock; next: make lock"
    assert requirement.specifier.contains(Version(entry["version"])), f"locked at {entry['version']}; next: make lock"


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("src", ("identity", "aws", "sql")),
        ("apps/recon", ("recon",)),
        ("apps/imports", ("imports",)),
        ("apps/leads", ("leads",)),
    ],
)
def test_every_imported_package_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    """What only comes along with another package disappears when that one drops it."""
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    allowed = {canonicalize_name(Requirement(line).name) for line in lines}
    distributions = packages_distributions()
    missing: list[str] = []
    for path in (ROOT / folder).rglob("*.py"):
        if "tests" in path.parts:
            continue
        for line, name in imported_modules(path.read_text(), ""):
            package = name.split(".")[0]
            if package in sys.stdlib_module_names or package in ("apps", "holdfast"):
                continue
            if package == "tests" and path.stem.startswith("demo"):
                continue  # a demo runs in a checkout, and its Restate server is the one of the tests
            if not allowed & {canonicalize_name(name) for name in distributions.get(package, [])}:
                missing.append(f"{path.relative_to(ROOT)}:{line} imports {package}")
    assert missing == [], "next: declare it in pyproject.toml, then make lock"


def test_the_lock_pins_every_line_with_a_hash_and_names_no_source() -> None:
    text = lock_text()
    entries = locked()
    assert all("--hash=sha256:" in entry["rest"] for entry in entries.values())
    left_over = LOCK_ENTRY.sub("", text).splitlines()
    assert [line for line in left_over if line.strip() and not line.startswith("#")] == []
    assert "://" not in text


def test_the_npm_lock_has_hashes_and_names_no_source() -> None:
    packages: dict[str, dict[str, Any]] = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    installed = {name: package for name, package in packages.items() if name}
    assert "node_modules/@restatedev/restate-server" in installed
    assert [name for name, package in installed.items() if "integrity" not in package or "resolved" in package] == []


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    # hatchling itself rather than pip: no isolated environment, so no network.
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith(".dist-info/entry_points.txt"))
        assert "holdfast = holdfast.cli.main:main" in archive.read(entry_points).decode()
    sources = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == sources
    assert "holdfast/py.typed" in packaged
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
